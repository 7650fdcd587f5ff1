"""
The commands that an ST-907 knows: over which channel, how sure that is, and where it comes from.

"SinoTrack's document" is its protocol for ST-901 to ST-907, "the newer one" that with V6 and V8, both in public
copies.  Certainty is that of the channel data, where there is one; what is known of SMS stands in the note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.interfaces import Support

_DATA: Final = ("data",)
_SMS: Final = ("sms",)
_BOTH: Final = ("data", "sms")

SUPPORTED: Final[Mapping[str, Support]] = {
    "engine.stop": Support(
        _BOTH,
        "likely",
        "S20: the syntax is certain (SinoTrack's documents, Traccar), and siblings obey it; the answer ERROR says "
        "that S12 switched it off (SinoTrack's document). SMS 940: certain",
    ),
    "engine.resume": Support(
        _BOTH,
        "disputed",
        "S20 with 1,0 (Traccar), and 0,0 where the answer to that says something else (SinoTrack's documents, "
        "Traccar until 2018; a CJ730 stayed cut: Traccar issue 5417). SMS 941: certain",
    ),
    "position.request": Support(
        _SMS,
        "certain",
        "SMS 669; no command for it over data is known",
    ),
    "interval.set": Support(
        _BOTH,
        "disputed",
        "D1 (Traccar's alternative, SinoTrack's newer document), S17 or S71 (Traccar), by the setting "
        "interval_command. SinoTrack's document has D1 with a count and S17 without end, both from 30 s on; an "
        "ST-906L ignored S71. SMS 805 and 809: certain",
    ),
    "overspeed.set": Support(
        _BOTH,
        "likely",
        "S14 (SinoTrack's document, two other servers): in whole knots, held for 10 s with a fix. SMS 122: likely",
    ),
    "geofence.set": Support(
        _DATA,
        "likely",
        "S21 (exlive's document of the TianHe commands); unless said otherwise, number 1, for leaving. Alarms of "
        "areas have to be switched on by S18, whose parameters no source has: it is not sent. A fence is "
        "withdrawn while there is no fix. By SMS there are circles only",
    ),
    "geofence.clear": Support(
        _DATA,
        "likely",
        "S21 (exlive's document of the TianHe commands); the circle of SMS 211 is another fence",
    ),
    "alarm.clear": Support(
        _DATA,
        "likely",
        "R7, without an answer (SinoTrack's document, two other servers). It closes a cut relay (SinoTrack's document)",
    ),
    "arm": Support(
        _DATA,
        "likely",
        "SCF 0,0 (SinoTrack's newer document, Traccar)",
    ),
    "disarm": Support(
        _DATA,
        "likely",
        "SCF 1,1 (SinoTrack's newer document, Traccar)",
    ),
    "reboot": Support(
        _BOTH,
        "likely",
        "R1 (SinoTrack's document, another server); what answers is the V6 of a unit that starts (SinoTrack's "
        "newer document). It closes a cut relay (SinoTrack's document). SMS RESTART: likely",
    ),
    "config.read": Support(
        _BOTH,
        "likely",
        "the text RCONF as in an SMS (SinoTrack's newer document; eusonlito/GPS-Tracker issue 41: not always "
        "answered). SMS RCONF: certain",
    ),
    "server.set": Support(
        _BOTH,
        "likely",
        "S23 (TianHe document, Traccar's samples): an IPv4 address only, as a name is resolved once at best. A "
        "wrong one loses the unit. SMS 804: certain",
    ),
    "apn.set": Support(
        _BOTH,
        "disputed",
        "S24 with the APN (Traccar's samples); another server has t,1,apn. A wrong one loses the unit. SMS 803: "
        "certain",
    ),
    "password.set": Support(
        _DATA,
        "likely",
        "S1 with the old and the new one (Traccar's samples). SMS 777 is certain, and not sent: no password is to wait "
        "to be sent",
    ),
    "raw": Support(
        _DATA,
        "disputed",
        "bytes as they are; a text is taken as an SMS would be (SinoTrack's newer document). What switches the "
        "engine is refused",
    ),
}
