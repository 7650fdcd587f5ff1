"""What the st907 plugin tells people of a frame: each field or byte, the bits, and why something is lacking."""

from __future__ import annotations

import re
from collections.abc import Sequence
from time import process_time
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.devices.st907 import device, status
from gateway.devices.st907.settings import Options
from gateway.interfaces import Fact, IExplainingDevice, Kept, Message
from tests.fakes import NOON
from tests.test_properties import mutated, noise

#: Facts that are fields or bytes, and no details of those.
PLACE = re.compile(r"\d+(?:-\d+)?")
SHORT = bytes.fromhex("2491701234561730002211262235000006114020000e010120fffffbffff0000")


class Case(NamedTuple):
    """A frame, some of what is told of it, by place and name, and all that is lacking, with the reasons."""

    frame: bytes
    told: Sequence[tuple[str, str, str]]
    lacking: Sequence[str] = ()


# fmt: off
#: The samples of the protocol's document, section 10, and one of each other form.
CASES = (
    Case(
        b"*HQ,1234567890,V1,181408,V,4219.0032,N,00753.0002,W,010.11,019,250523,FFFFBBFF,214,03,13140,2735#",
        [("0", "maker", "the answer has the same code"), ("1", "ident", "the tracker's number"),
         ("2", "type", "a position report"), ("3", "time HHMMSS", "18:14:08 UTC"),
         ("4", "validity", "V: no fix; what follows is the last one: last_latitude and last_longitude, and its "
                           "speed not at all"),
         ("5", "latitude", "42 degrees 19.0032 minutes N = 42.316720"), ("6", "N/S", "north"),
         ("7", "longitude", "7 degrees 53.0002 minutes W = -7.883337"), ("8", "E/W", "west"),
         ("9", "speed", "10.11 knots = 18.72 km/h; of the last fix, not used"),
         ("10", "course", "19 degrees; of the last fix"), ("11", "date DDMMYY", "2023-05-25"),
         ("12", "status word", "active (0) are bits 14, 10"), ("bit 14", "no event", "constant on many SinoTracks"),
         ("bit 10", "state.ignition off", "its wire not connected (certain)"),
         ("13", "mcc", "mobile country code 214"), ("14", "mnc", "mobile network code 03"),
         ("15", "lac", "location area 13140"), ("16", "cid", "cell 2735")],
        ["no position: validity is V (no fix)",
         "no speed: it counts only with a position: without a fix the field repeats the last one"],
    ),
    Case(
        b"*HQ,9001000002,V8,213945,A,3542.2043,N,38.6508,W,0.00,170,221025,FBFFF9FF,0,0,0,0,22,31,126,0#",
        [("2", "type", "ST-901L"), ("7", "longitude", "0 degrees 38.6508 minutes W = -0.644180"),
         ("bit 26", "late", "published as late"), ("bit 10", "state.ignition off", "ACC off"),
         ("bit 9", "state.armed on", "armed (certain)"), ("15", "lac", "no cell"),
         ("17", "satellites", "22 satellites (likely)"), ("18", "csq", "signal 31 of 31"),
         ("19", "supply voltage", "12.6 V"), ("20", "not known", "kept in tail")],
    ),
    Case(
        b"*HQ,3177718238,V6,002926,V,3514.4088,N,9733.2842,W,0.00,0.00,151222,FFF7FBFF,310,260,32936,13641,"
        b"8944501311217563382F,#",
        [("bit 19", "alarm.power.cut", "(certain); external_power is false"),
         ("17", "ICCID", "8944501311217563382"), ("18", "empty", "nothing")],
        ["no position: validity is V (no fix)", "no speed: "],
    ),
    Case(
        b"*HQ,5905101893,V1,105759,A,37573392,S,145037022,E,000.00,173,280122,FF7FFBFF,,,9059e2c,8232,4#",
        [("5", "latitude", "37 degrees 57.3392 minutes S = -37.955653"), ("7", "longitude", "= 145.061703"),
         ("bit 23", "io.input2_or_battery_low", "(disputed)"), ("15", "not known", "kept as it is, in tail")],
    ),
    Case(
        b"*HQ,1451316485,V1,121557,A,-23-3.3408,S,-48-2.8926,W,0.1,158,241115,FFFFFFFF#",
        [("5", "latitude", "23 degrees 3.3408 minutes S = -23.055680"), ("7", "longitude", "= -48.048210"),
         ("12", "status word", "no bit is active (0); state.ignition on: bit 10 is 1")],
    ),
    Case(
        b"*HQ,354188045498669,V1,195200,A,701.8915,S,3450.3399,W,0.00,205.70,050213,ffffffff,000243,000000,000000#",
        [("5", "latitude", "7 degrees 1.8915 minutes S"), ("10", "course", "206 degrees"),
         ("13", "not known", "kept as it is, in tail")],
    ),
    Case(
        b"*HQ,865205035331981,V1,132926,A,1935.3933,N,07920.4134,E,  3.34,342,280519,FFFFFFFF#",
        [("9", "speed", "3.34 knots = 6.19 km/h")],
    ),
    Case(
        b"*HQ,353588020068342,V1,000000,V,0.0000,0,0.0000,0,0.00,0.00,000000,ffffffff,000106,000002,000203,004c87,16#",
        [("6", "N/S", "no side"), ("11", "date DDMMYY", "000000: no date"),
         ("13", "mcc", "000106 in hex = 262"), ("16", "cid", "in hex = 19591")],
        ["no position: validity is V (no fix); 0/0 with date 000000", "no speed: ",
         "time is the server's: date 000000 is none"],
    ),
    Case(
        b"*HQ,353505510948929,V1,,V,,N,,E,0.00,0,,FFFFF7FF,f0,a,11a0,c0c6#",
        [("3", "time HHMMSS", "empty"), ("bit 11", "no event", "(disputed)")],
        ["no position: validity is V (no fix); coordinates are empty", "no speed: ",
         "time is the server's: the date is empty; the time is empty"],
    ),
    Case(
        b"*TH,2020916012,V4,S20,DONE,130305,050316,A,2212.8745,N,11346.6574,E,14.28,028,220902,F7FFFBFF#",
        [("0", "maker", "the answer has the same code"), ("3", "command", "reply_text"), ("4", "argument", ""),
         ("5", "argument", "13:03:05"), ("6", "time HHMMSS", "05:03:16 UTC"), ("12", "speed", "= 26.45 km/h"),
         ("bit 27", "state.immobilizer on", "relay cut")],
    ),
    Case(
        b"*HQ,2020916012,V4,S21,17,0,130305,050316,FFFFFBFF#",
        [("3", "command", ""), ("8", "status word", "bit 10")],
        ["no position: this answer has no position block", "no speed: ", "time is the server's: this answer "],
    ),
    Case(
        b"*HQ,2020916012,V4,S20,034313,1,1#",
        [("4", "argument", "likely a time, 03:43:13"), ("6", "argument", "reply_text")],
        ["no position: this answer has no position block", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,4109198974,#",
        [("2", "type", "it is alive")],
        ["no position: a frame without a type", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nIP:1.2.3.4 5013\nUT:30,30,300\n"
        b"VOLT:12.9V\nAPN:internet.example.com\nGPS:A-24-23\nGSM:26#",
        [("3-5", "text", "RCONF"), ("text", "firmware", "model"), ("text", "server", "IP"),
         ("text", "supply_v", "VOLT"), ("text", "csq", "GSM")],
        ["no position: type SMS has no position block", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,8888888888,V1,083600,A,9999.9999,N,99999.9999,E,000.00,000,070724,FFFFDFFF,231,03,10,196354,5#",
        [("5", "latitude", "latitude 9999.9999 says 'no fix'"), ("bit 13", "no event", "engine on (likely)"),
         ("17", "battery", "index 5 of 6 = 80 %, or 5 % (disputed)")],
        ["no position: latitude 9999.9999 says 'no fix'; longitude 99999.9999 says 'no fix'", "no speed: "],
    ),
    Case(
        b"*HQ,8888888888,V1,160169,A,2275.0000,N,18130.0000,E,null,400,310224,FFFFFFFF#",
        [("3", "time HHMMSS", "16:02:09 UTC: seconds of 60"), ("9", "speed", "0 knots = 0.00 km/h (null is zero)"),
         ("10", "course", "so there is no course"), ("11", "date DDMMYY", "310224: no date")],
        ["no position: latitude 2275.0000 has minutes of 60 and more; longitude 18130.0000 is past 180 degrees",
         "no speed: ", "time is the server's: date 310224 is none"],
    ),
    Case(
        b"*HQ,8888888888,V1,083600,A,2235.0000,N,11402.0000,E,fast,000,070724,FFFFFFFF#",
        [("9", "speed", "so there is no speed")],
        ["no speed: speed fast is no figure of 0 to 9999"],
    ),
    Case(
        b"*HQ,4209951296,V19,214452,A,5201.0178,N,01830.5029,E,000.00,000,200417,,195.63.13.195,"
        b"89480610500392633029,BFFFFBFF#",
        [("12", "empty", "nothing"), ("13", "server", ""), ("14", "ICCID", "89480610500392633029"),
         ("15", "status word", "bits 30, 10"), ("bit 30", "io.sensor2_high", "constant on some (likely)")],
    ),
    Case(
        b"*HQ,9180271064,V5,091233,A,2348.8912,N,09021.3302,E,000.00,000,051219,FFFFBBFF,470,01,21019,2033,2921283#",
        [("16", "cid", "2033"), ("17", "not known", "kept as it is, in tail")],
    ),
    Case(
        b"*HQ,353505221264507,V2,100220,0,5238.26259,N,00507.33983,E,0.25,0,280917,FFFFFFFF,cc,28,  db,d75b#",
        [("4", "validity", "0: a coding scheme"), ("13", "mcc", "cc in hex = 204"), ("15", "lac", "db in hex = 219")],
    ),
    Case(
        b"*HQ,1234567890,V1,083600,A,2235.0000,N,11402.0000,E,000.5,047,4,080918,EEE7FBDF,4261193,0#",
        [("11", "battery", "index 4"), ("12", "date DDMMYY", "2018-09-08"), ("bit 28", "alarm.power.cut", "certain"),
         ("bit 24", "no event", ""), ("bit 20", "io.battery_removed", ""), ("bit 5", "alarm.tamper antenna_open", "")],
    ),
    Case(
        b"*HQ,123456789012345,V1,083600,A,2235.0000,N,11402.0000,E,0,0,080918,FFFFFFFF,69129336,0,100.0,18,5141,5A20#",
        [("13", "odometer", "metres"), ("15", "fuel", ""), ("16", "altitude", "metres"), ("18", "cid", "in hex")],
    ),
    Case(
        b"*hq,356327080425330,VP1,A,2702.7245,S,15251.9311,E,0.48,0.0000,080917#",
        [("3", "validity", "A"), ("4", "latitude", "= -27.045408"), ("10", "date DDMMYY", "2017-09-08")],
        ["time is the server's: type VP1 has a date, but no time"],
    ),
    Case(
        b"*hq,356327080425330,VP1,V,470,002,92,3565,0Y92,19433,30Y92,1340,29#",
        [("4", "mcc", "470"), ("6-12", "cells", "3 cells"),
         ("cell 2", "cell", "location area 92, cell 19433, -80 dBm")],
        ["no position: there are cells in place of it", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,4109179024,NBR,103732,722,310,0,6,8106,32010,23,8101,22007,25,8106,42010,5,100217,FFFFFBFF,5#",
        [("3", "time HHMMSS", "10:37:32"), ("6", "timing advance", ""), ("7", "cells", "3 are there"),
         ("8-10", "cell 1", "location area 8106, cell 32010, -87 dBm"), ("17", "date DDMMYY", "2017-02-10"),
         ("19", "battery", "index 5")],
        ["no position: type NBR is sent when there is no fix; it has cells in place of a position", "no speed: "],
    ),
    Case(
        b"*HQ,353505221264507,V3,044855,28403,01,001450,011473,158,-62,0292,0,X,030817,FFFFFBFF#",
        [("4", "mcc and mnc", "284, mobile network code 03"), ("6-9", "cell 1", "-62 dBm"), ("10", "battery", "658"),
         ("13", "date DDMMYY", "2017-08-03")],
        ["no position: type V3 has cells in place of a position", "no speed: "],
    ),
    Case(
        b"*HQ,1600068860,LINK,112137,20,8,67,0,0,081116,FFFFFBFF#",
        [("4", "csq", "signal 20"), ("5", "satellites", "8"), ("6", "battery", "67 %"), ("7", "steps", "")],
        ["no position: type LINK has no position block", "no speed: "],
    ),
    Case(
        b"*HQ,9170123456,HTBT,100#",
        [("2", "type", "a heartbeat"), ("3", "battery", "100 %")],
        ["no position: type HTBT has no position block", "no speed: ", "time is the server's: no time is read of type"],
    ),
    Case(
        b"*HQ,,XT,1,100#",
        [("1", "ident", "whoever spoke on the connection before"), ("3", "not known", "raw_text"),
         ("4", "battery", "100 %")],
        ["no position: ", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,9170123456,BASE,152609,0,0,0,0,211014,FFFFFFFF#",
        [("2", "type", "only the name is known"), ("9", "not known", "raw_text")],
        ["no position: type BASE has no position block", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,9170123456,WHAT,1#",
        [("2", "type", "unknown")],
        ["no position: ", "no speed: ", "time is the server's: "],
    ),
    Case(
        b"*HQ,9170123456,V77,083600,A,2235.0000,N,11402.0000,E,0,0,080918,FFFFFFFF#",
        [("2", "type", "unknown"), ("5", "latitude", "= 22.583333")],
    ),
    # what can't be read
    Case(
        b"*HQ,9170123456,V1,173000,A,22x5.0000,N,11402.0000,E,010.00,120,221126,FFFFFBFF#",
        [("5", "latitude", "can't be read: '22x5.0000' is not degrees and minutes"), ("7", "longitude", "114.033333"),
         ("12", "not known", "lost with it")],
        ["nothing is published: field 5: '22x5.0000' is not degrees and minutes"],
    ),
    Case(
        b"*HQ,9170123456,V1,173000,A,2235.0000,N,11402.0000,E#",
        [("8", "E/W", "east"), ("end", "speed", "missing: the frame ends here")],
        ["nothing is published: the frame is cut short: no speed"],
    ),
    Case(
        b"*HQ,9170123456,V1,173000,A,2235.0000,N,114",
        [("7", "longitude", "can't be read"), ("end", "E/W", "missing")],
        ["nothing is published: the frame is cut short: no # at its end; "],
    ),
    Case(
        b"*HQ,91701x,HTBT#",
        [("1", "ident", "can't be read: ident '91701x' is not 3 to 17 digits")],
        ["nothing is published: field 1: ident '91701x' is not 3 to 17 digits"],
    ),
    Case(b"*HQ,9170123456,SMS#", [("end", "text", "missing")], ["nothing is published: "]),
    Case(b"*HQ,9170123456,VP1,A#", [("end", "position block and no cells", "")], ["nothing is published: "]),
    Case(b"GET / HTTP/1.1", [("0-13", "bytes", "no frame")], ["nothing is published: it starts neither with *"]),
    Case(b"", []),
    # binary
    Case(
        SHORT,
        [("0", "kind", "32 bytes, the short form"), ("1-5", "ident", "9170123456"),
         ("6-8", "time HHMMSS", "17:30:00 UTC"), ("9-11", "date DDMMYY", "2026-11-22"),
         ("12-15", "latitude", "22 degrees 35 minutes N = 22.583333"),
         ("16", "battery", "index 6 of 6 = 100 %"), ("17-21", "longitude and flags", "E = 114.033333"),
         ("flag 8", "E/W", "east"), ("flag 4", "N/S", "north"), ("flag 2", "validity", "the receiver vouches"),
         ("flag 1", "not known", "not used"),
         ("22-24", "speed and course", "10 knots = 18.52 km/h; 120 degrees"), ("25-28", "status word", "bit 10"),
         ("bit 10", "state.ignition off", ""), ("29", "alarm flag", "likely"), ("31", "record number", "likely")],
    ),
    Case(
        bytes.fromhex("24" "4106000826" "215321" "310815" "04419390" "06" "074041830" "4" "000" "000" "fffffbfd"
                      "ff00" "19" "07" "00000230" "02dc" "67" "6df5" "1eb1" "52"),
        [("0", "kind", "45 bytes, with signal, mileage and cell"), ("12-15", "latitude", "N = 4.698983"),
         ("flag 8", "E/W", "west"), ("flag 2", "validity", "no fix"), ("bit 1", "alarm.sos", "SOS, robbery (certain)"),
         ("31", "csq", "signal 25 of 31"), ("32", "satellites", "7 satellites"),
         ("33-36", "odometer", "560 km (likely)"), ("37-38", "mcc", "mobile country code 732"),
         ("39", "mnc", "mobile network code 103"), ("40-41", "lac", "location area 28149"),
         ("42-43", "cid", "cell 7857"), ("44", "record number", "likely")],
        ["no position: flag 2 is 0 (no fix)", "no speed: without a fix the frame repeats the last one"],
    ),
    Case(
        SHORT[:29] + bytes.fromhex("00bd" "f090" "00000000" "0000" "00" "0000" "0000" "00"),
        [("31", "csq", "not used"), ("32", "satellites", "not FF 00 as in most captures"), ("37-38", "mcc", "no cell")],
    ),
    Case(
        bytes.fromhex("24" + "3524830841932930" + "173000" + "221126" + "22350000" + "06" + "114020000e" + "010120"
                      + "feffffff" + "00" * 10),
        [("1-8", "ident", "352483084193293"), ("9-11", "time HHMMSS", ""), ("12-14", "date DDMMYY", "2026-11-22"),
         ("15-18", "latitude", "22.583333"), ("20-24", "longitude and flags", ""), ("28-31", "status word", "bit 24"),
         ("32-41", "tail", "kept in tail")],
    ),
    Case(
        SHORT[:29] + bytes.fromhex("ff03010069129336006400001251415a20"),
        [("0", "kind", "46 bytes"), ("32-36", "odometer", "69129.336 km"), ("37-38", "fuel", "100"),
         ("39", "temperature", "0 degrees"), ("40-41", "altitude", "18 m"), ("42-43", "lac", "20801"),
         ("44-45", "cid", "23072")],
    ),
    Case(SHORT[:29] + bytes(19), [("0", "kind", "48 bytes"), ("29-47", "tail", "kept in tail")]),
    Case(
        b"X" + bytes.fromhex("0000981499") + SHORT[6:],
        [("1-5", "odometer", "981499 x 0.51444 m = 504.922 km"), ("6-8", "time HHMMSS", "")],
    ),
    Case(
        SHORT[:14],
        [("12-13", "latitude", "cut short: 2 of 4 bytes")],
        ["nothing is published: no binary frame of this kind has 14 bytes"],
    ),
    Case(
        SHORT[:12] + bytes.fromhex("22750000" "06" "114020000e" "010399" "0000000f") + SHORT[29:],
        [("12-15", "latitude", "minutes of 60 and more"), ("22-24", "speed and course", "399 is past 360 degrees"),
         ("25-28", "status word", "less than 16 of its bits are ones")],
        ["nothing is published: its fields are not those of a binary frame; bytes 12-15: latitude 2275.0000 has "
         "minutes of 60 and more; bytes 22-24: course 399 is past 360 degrees; bytes 25-28: less than 16 of its bits"],
    ),
    Case(
        SHORT[:12] + bytes.fromhex("2a350000") + SHORT[16:],
        [("12-15", "latitude", "can't be read: not BCD: a digit is none")],
        ["nothing is published: its fields are not those of a binary frame; bytes 12-15: not BCD: a digit is none"],
    ),
)
# fmt: on


def explain(frame: bytes, options: Options | None = None) -> Sequence[Fact]:
    """The facts of a frame."""
    facts: Sequence[Fact] = device.explain(frame, Options() if options is None else options, {})
    return facts


def last(facts: Sequence[Fact]) -> list[str]:
    """What is said to be lacking, as it is shown."""
    return [f"{fact.name}: {fact.meaning}" for fact in facts if not fact.where]


def decoded(frame: bytes) -> Message | None:
    """What the decoder makes of exactly this frame."""
    decoder = device.decoder(None, lambda ident: Kept())
    found = [*decoder.receive(frame, NOON), *decoder.finish(NOON)]
    return found[0] if len(found) == 1 and found[0].raw == frame else None


class ExplainTests(SynchronousTestCase):
    """The facts of single frames."""

    def test_provided(self) -> None:
        """The device says that it explains."""
        self.assertTrue(IExplainingDevice.providedBy(device))
        self.assertEqual(explain(SHORT), device.explain(SHORT, None, {}))

    def test_facts(self) -> None:
        """Each sample is told with its names, units and certainty, and with why it lacks what it lacks."""
        for case in CASES:
            facts = explain(case.frame)
            found = {(fact.where, fact.name): fact.meaning for fact in facts}
            for where, name, meaning in case.told:
                self.assertIn((where, name), found, case.frame)
                self.assertIn(meaning, found[where, name], case.frame)
            said = last(facts)
            self.assertEqual(len(case.lacking), len(said), said)
            for wanted, given_ in zip(case.lacking, said, strict=True):
                self.assertTrue(given_.startswith(wanted), given_)

    def test_bits(self) -> None:
        """Each bit alone is told once, with its meaning, how sure that is, and what the decoder makes of it."""
        for number, bit in enumerate(status.BITS):
            word = status.ALL & ~(1 << number)
            frame = b"*HQ,9170123456,V1,173000,A,2235.0000,N,11402.0000,E,0,0,221126,%08X#" % word
            (fact,) = [fact for fact in explain(frame) if fact.where.startswith("bit ")]
            self.assertEqual((f"bit {number}", "0"), (fact.where, fact.raw))
            self.assertTrue(fact.meaning.startswith(f"{bit.meaning} ({bit.sure})"), fact.meaning)
            message = decoded(frame)
            assert message is not None
            on = {name for name, is_on in message.levels.items() if is_on and name != "ignition"}
            names = {f"state.{n} on" if n in status.STATES else f"alarm.{n.replace(':', ' ')}" for n in on}
            names |= {f"io.{name}" for name in message.events[0].attributes.get("io", {})}
            names |= {"late"} if "late" in message.events[0].attributes else set()
            names |= set() if message.levels["ignition"] else {"state.ignition off"}
            self.assertEqual(", ".join(names) or "no event", fact.name)

    def test_bits_as_set(self) -> None:
        """Bits that are set to mean something else are told so, and so is an ignition whose wire is not connected."""
        frame = b"*HQ,9170123456,V1,173000,V,2235.0000,N,11402.0000,E,0,0,221126,FFF9FBFB#"
        options = Options(bits="17=theft,18=sos,1=", acc_wired="0")
        found = {fact.where: fact for fact in explain(frame, options)}
        self.assertEqual("alarm.theft", found["bit 17"].name)
        self.assertIn("bits are set so that it is theft", found["bit 17"].meaning)
        self.assertEqual("alarm.sos", found["bit 18"].name)
        self.assertEqual("ignition_bit off", found["bit 10"].name)
        self.assertIn("without a fix no event", found["bit 2"].meaning)
        self.assertEqual("alarm.vibration", {fact.where: fact for fact in explain(frame)}["bit 17"].name)

    def test_options(self) -> None:
        """What is set of a unit's clock, side of the globe and battery counts here, too."""
        options = Options(hemisphere="SW", time_offset_s=28800, battery="percent")
        text = explain(
            b"*HQ,9170123456,V1,173000,A,2235.0000,N,11402.0000,E,0,0,221126,FFFFFFFF,460,00,1,1,5#", options
        )
        for facts in (text, explain(SHORT, options)):
            told = "\n".join(fact.meaning for fact in facts)
            for words in (
                "22 degrees 35 minutes S = -22.583333",
                "W = -114.033333",
                "south, whatever it says: hemisphere=SW is set",
                "17:30:00 by its clock, 28800 s ahead of UTC",
            ):
                self.assertIn(words, told)
        self.assertIn("5 %", [fact.meaning for fact in text])
        index = explain(SHORT, Options(battery="index"))
        self.assertIn("index 6 of 6 = 100 %", [fact.meaning for fact in index])


text_frames = st.one_of(
    mutated(),
    st.text("*#,AVNSEW.0123456789-VBRLINK\xa0 \x1b", max_size=120).map(
        lambda t: b"*HQ,9170123456," + t.encode("latin-1")
    ),
    st.lists(
        st.sampled_from(
            ["V1", "V4", "NBR", "VP1", "SMS", "XT", "A", "V", "N", "E", "FFFFFBFF", "221126", "000000", "Y"]
        )
        | st.text("0123456789.", max_size=9),
        max_size=24,
    ).map(lambda fields: f"*HQ,9170123456,{','.join(fields)}#".encode()),
    st.tuples(
        st.sampled_from(["V1", "V2", "V8", "VI1", "V19", "V77"]),
        st.sampled_from(["173000", "", "996000", "17300x"]),
        st.sampled_from(["A", "V", "B", "", "0"]),
        st.sampled_from(["2235.0000", "", "null", "9999.9999", "0.0000", "22350000", "-22-35.0", "9100.0", "x"]),
        st.sampled_from(["N", "S", "s", "", "0"]),
        st.sampled_from(["11402.0000", "", "99999.9999", "0.0000", "114020000"]),
        st.sampled_from(["E", "W", ""]),
        st.sampled_from(["010.00", "", "null", "  3.3", "fast", "99999"]),
        st.sampled_from(["120", "", "361"]),
        st.sampled_from(["221126", "000000", "", "310226", "4,221126", ",221126", "x,221126", "300,221126"]),
        st.sampled_from(["FFFFFBFF", "", "1,FFFFFBFB", "FFFFFBFF,460,00,1,2,5", "FFFFFBFF,460,00,1,2,245 "]),
    ).map(lambda fields: f"*HQ,9170123456,{','.join(fields)}#".encode()),
)
binary_frames = st.builds(
    lambda head, body, size: (head + body)[:size],
    st.sampled_from([SHORT, SHORT[:25], SHORT[:12], b"X" + SHORT[1:], b"$" + bytes.fromhex("3524830841932930")]),
    st.binary(max_size=40),
    st.sampled_from([32, 42, 45, 46, 48, 20, 60]),
)


class PropertyTests(SynchronousTestCase):
    """What holds for any bytes."""

    @settings(max_examples=400, deadline=None)
    @given(st.one_of(text_frames, binary_frames, noise, st.binary(max_size=80)))
    @example(b"*HQ,")
    @example(b"*HQ,#")
    @example(b"$")
    def test_any_bytes(self, frame: bytes) -> None:
        """Nothing raises, and each fact has a name and a meaning."""
        for fact in explain(frame):
            self.assertTrue(fact.name, fact)
            self.assertTrue(fact.meaning, fact)

    @settings(max_examples=400, deadline=None)
    @given(text_frames)
    def test_fields(self, frame: bytes) -> None:
        """The facts of a text frame are all of its fields, each once and in order."""
        facts = [fact for fact in explain(frame) if PLACE.fullmatch(fact.where)]
        if frame[:1] != b"*" or not facts or facts[0].name != "maker":
            return
        self.assertEqual(frame[1:].removesuffix(b"#"), ",".join(fact.raw for fact in facts).encode("latin-1"))
        places = [number for fact in facts for number in _numbers(fact.where)]
        self.assertEqual(list(range(len(places))), places)

    @settings(max_examples=400, deadline=None)
    @given(st.one_of(binary_frames, noise))
    def test_bytes(self, frame: bytes) -> None:
        """The facts of any other bytes are all of them, each once and in order."""
        facts = [fact for fact in explain(frame) if PLACE.fullmatch(fact.where)]
        if facts and facts[0].name == "maker":
            return
        self.assertEqual(frame.hex(), "".join(fact.raw for fact in facts))
        self.assertEqual(list(range(len(frame))), [number for fact in facts for number in _numbers(fact.where)])

    @settings(max_examples=600, deadline=None)
    @given(st.one_of(text_frames, binary_frames))
    def test_as_decoded(self, frame: bytes) -> None:
        """A frame is told to have no position, speed or time, or to be lost, exactly when the decoder finds it so."""
        message = decoded(frame)
        if message is None:
            return
        said = {fact.name: fact.meaning for fact in explain(frame) if not fact.where}
        self.assertEqual(message.error is not None, "nothing is published" in said)
        if message.error is not None:
            return
        event = message.events[0]
        self.assertEqual("latitude" not in event.attributes, "no position" in said)
        self.assertEqual("speed_kmh" not in event.attributes, "no speed" in said)
        self.assertEqual(event.time is None, "time is the server's" in said)
        if "valid" in event.attributes:
            self.assertNotIn("has no position block", " ".join(said.values()))
            self.assertNotIn("no time is read", " ".join(said.values()))

    def test_cost(self) -> None:
        """A frame that is ten times as long costs about ten times as much, whatever it is filled with."""
        for filling in (b",", b"9", b"Y", b"FFFFFFFF,", b"ID:1 ", b"A,V,N,"):
            for kind in (b"V1", b"V4", b"VP1", b"SMS", b"NBR", b"V3"):
                times = []
                for size in (20_000, 200_000):
                    frame = b"*HQ,9170123456,%b,%b#" % (kind, filling * (size // len(filling)))
                    start = process_time()
                    explain(frame)
                    times.append(process_time() - start)
                self.assertLess(times[1], 40 * max(times[0], 0.005), (kind, filling))

    def test_types(self) -> None:
        """Each type that has a reader is told what it is."""
        for kind in "V0 V1 V2 V3 V4 V5 V6 V8 V19 VI1 VP1 NBR LINK HTBT XT SMS".split():
            facts = explain(f"*HQ,9170123456,{kind},1#".encode())
            self.assertNotIn("unknown", facts[2].meaning)
            self.assertNotIn("only the name", facts[2].meaning)


def _numbers(where: str) -> range:
    """The numbers that a place stands for."""
    first, _, end = where.partition("-")
    return range(int(first), int(end or first) + 1)
