"""What each field and each type of message says: the tables of st907.md sections 3.1 to 3.14, and its traps."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.detection import Candidates, Detector
from gateway.devices.st907 import device
from gateway.devices.st907.settings import Options
from gateway.events import rounded
from gateway.fields import rfc3339
from gateway.interfaces import NO, Message
from gateway.session import Stored
from gateway.sessions import Sessions
from tests.fakes import NOON
from tests.wire import IDENT, WireCase, binary, dated, edges_of, report_of, text

CLOCK: Final = "20261122120000"
#: What no position shows, and what one without a fix does not show.
OF_A_FIX: Final = ("latitude", "longitude", "speed_kmh", "course_deg")
LAST: Final = ("last_latitude", "last_longitude")


class Wire(WireCase):
    """A gateway for tests that need several."""

    def runTest(self) -> None:
        """Nothing: it is only used for its parts."""


def wired() -> Wire:
    """A gateway that knows no device yet."""
    wire = Wire()
    wire.setUp()
    return wire


def utc(*when: int) -> float:
    """Year, month, day, hour, minute, second as epoch seconds."""
    return float(timegm((*when, 0, 0, 0)))


def decode(*reads: bytes | str, options: Options | None = None) -> list[Message]:
    """What a decoder on a connection of its own makes of these reads and of the silence after them."""
    sessions = Sessions()
    made = device.decoder(options or Options(), sessions.memory)
    found = [m for data in reads for m in made.receive(data.encode("latin-1") if isinstance(data, str) else data, NOON)]
    return [*found, *made.finish(NOON)]


def said(*reads: bytes | str) -> tuple[Message, dict[str, Any]]:
    """The one message of these reads, which can be read, and its one event's attributes as they are published."""
    (message,) = decode(*reads)
    if message.error is not None:
        raise AssertionError(f"{reads}: {message.error.reason}")
    (event,) = message.events
    return message, rounded(event.attributes)


def v1(**fields: str) -> str:
    """A V1 report with some fields of its position block replaced, or with a tail."""
    values = {
        "time": "120000", "flag": "A", "lat": "4221.1699", "ns": "N", "lon": "00752.5296", "ew": "W",
        "speed": "018.47", "course": "122", "date": "221126", "word": "FFFFFFFF", **fields,
    }  # fmt: skip
    return f"*HQ,{IDENT},V1,{','.join(values.values())}#"


class Field(NamedTuple):
    """
    A row of the table of 3.1: what stands in a report, and what it says.

    @ivar absent: what it must not say.
    """

    name: str
    fields: Mapping[str, str]
    says: Mapping[str, Any] = {}
    absent: tuple[str, ...] = ()
    time: float | None = NOON


NO_TIME: Final[dict[str, Any]] = {"time": None}
#: No position at all.
NOWHERE: Final[dict[str, Any]] = {"says": {"valid": False}, "absent": OF_A_FIX + LAST}

# fmt: off
FIELDS: Final = (
    Field("as documented", {}, {"latitude": 42.352832, "longitude": -7.875493, "speed_kmh": 34.21, "course_deg": 122,
                                "valid": True, "status_word": "FFFFFFFF"}),
    # HHMMSS
    Field("time: empty", {"time": ""}, {"valid": True, "latitude": 42.352832}, **NO_TIME),
    Field("time: 69 seconds", {"time": "160169"}, time=utc(2026, 11, 22, 16, 2, 9)),
    Field("time: 99 seconds", {"time": "120099"}, time=NOON + 99),
    Field("time: 23:59:60, into the next day", {"time": "235960"}, time=utc(2026, 11, 23, 0, 0, 0)),
    Field("time: hour 24", {"time": "240000"}, {"valid": True}, **NO_TIME),
    Field("time: minute 60", {"time": "126000"}, {"valid": True}, **NO_TIME),
    Field("time: five digits", {"time": "12000"}, {"valid": True}, **NO_TIME),
    Field("time: blanks around it", {"time": " 120000 "}),
    # S
    Field("validity: A", {"flag": "A"}, {"valid": True}, LAST),
    Field("validity: V", {"flag": "V"}, {"valid": False, "last_latitude": 42.352832, "last_longitude": -7.875493},
          OF_A_FIX),
    Field("validity: B", {"flag": "B"}, {"valid": False}, OF_A_FIX),
    Field("validity: empty", {"flag": ""}, {"valid": False}, OF_A_FIX),
    Field("validity: a digit, which only V2 and VI1 have as their coding scheme", {"flag": "0"}, {"valid": False},
          OF_A_FIX),
    # LAT
    Field("latitude: 5 decimals", {"lat": "5238.26259"}, {"latitude": 52.63771}),
    Field("latitude: one digit of degrees", {"lat": "701.8915", "ns": "S"}, {"latitude": -7.031525}),
    Field("latitude: no degrees", {"lat": "38.6508"}, {"latitude": 0.64418}),
    Field("latitude: 8 digits without a dot", {"lat": "37573392", "ns": "S"}, {"latitude": -37.955653}),
    Field("latitude: 7 digits without a dot", {"lat": "7573392"}, {"latitude": 7.955653}),
    Field("latitude: -23-3.3408, its sign from the letter S", {"lat": "-23-3.3408", "ns": "S"},
          {"latitude": -23.05568}),
    Field("latitude: -23-3.3408, its sign from the letter N", {"lat": "-23-3.3408", "ns": "N"}, {"latitude": 23.05568}),
    Field("latitude: -23-35.3408", {"lat": "-23-35.3408", "ns": "S"}, {"latitude": -23.589013}),
    Field("latitude: the pole", {"lat": "9000.0000"}, {"latitude": 90.0}),
    Field("latitude: past the pole", {"lat": "9000.0001"}, **NOWHERE),
    Field("latitude: 60 minutes", {"lat": "4260.0000"}, **NOWHERE),
    Field("latitude: 9999.9999 is no fix", {"lat": "9999.9999"}, **NOWHERE),
    Field("latitude: empty", {"lat": ""}, **NOWHERE),
    Field("latitude: null", {"lat": "null"}, **NOWHERE),
    Field("latitude: blanks around it", {"lat": " 4221.1699 "}, {"latitude": 42.352832}),
    # N/S, E/W
    Field("letters: south and east", {"ns": "S", "ew": "E"}, {"latitude": -42.352832, "longitude": 7.875493}),
    Field("letters: lower case", {"ns": "s", "ew": "w"}, {"latitude": -42.352832, "longitude": -7.875493}),
    Field("letters: 0 in the all-zero frame",
          {"time": "000000", "flag": "V", "lat": "0.0000", "ns": "0", "lon": "0.0000", "ew": "0", "date": "000000"},
          time=None, **NOWHERE),
    Field("letters: 0 beside a position", {"ns": "0", "ew": "0"}, {"latitude": 42.352832, "longitude": 7.875493}),
    Field("letters: blanks around them", {"ns": " S", "ew": "W "}, {"latitude": -42.352832, "longitude": -7.875493}),
    # LON
    Field("longitude: two digits of degrees", {"lon": "9733.2842"}, {"longitude": -97.554737}),
    Field("longitude: one digit of degrees", {"lon": "954.9490", "ew": "E"}, {"longitude": 9.915817}),
    Field("longitude: no degrees", {"lon": "38.6508"}, {"longitude": -0.64418}),
    Field("longitude: 9 digits without a dot", {"lon": "145037022", "ew": "E"}, {"longitude": 145.061703}),
    Field("longitude: -48-2.8926", {"lon": "-48-2.8926"}, {"longitude": -48.04821}),
    Field("longitude: the date line", {"lon": "18000.0000", "ew": "E"}, {"longitude": 180.0}),
    Field("longitude: past the date line", {"lon": "18000.0001"}, **NOWHERE),
    Field("longitude: 99999.9999 is no fix", {"lon": "99999.9999"}, **NOWHERE),
    Field("longitude: empty", {"lon": ""}, **NOWHERE),
    Field("longitude: null", {"lon": "null"}, **NOWHERE),
    # SPEED, knots
    Field("speed: two decimals", {"speed": "0.00"}, {"speed_kmh": 0.0}),
    Field("speed: the fastest", {"speed": "999.99"}, {"speed_kmh": 1851.98}),
    Field("speed: three decimals", {"speed": "0.286"}, {"speed_kmh": 0.53}),
    Field("speed: one decimal", {"speed": "2.4"}, {"speed_kmh": 4.44}),
    Field("speed: leading blanks", {"speed": "  3.34"}, {"speed_kmh": 6.19}),
    Field("speed: empty is zero", {"speed": ""}, {"speed_kmh": 0.0}),
    Field("speed: null", {"speed": "null"}, {"speed_kmh": 0.0}),
    Field("speed: a sign is no figure; the position stands", {"speed": "-1"}, {"latitude": 42.352832}, ("speed_kmh",)),
    # COURSE
    Field("course: decimals", {"course": "270.90"}, {"course_deg": 271}),
    Field("course: 360 is 0", {"course": "360"}, {"course_deg": 0}),
    Field("course: 359.9 is 0", {"course": "359.9"}, {"course_deg": 0}),
    Field("course: empty is 0", {"course": ""}, {"course_deg": 0}),
    Field("course: null", {"course": "null"}, {"course_deg": 0}),
    Field("course: 361 is none; the position stands", {"course": "361"}, {"latitude": 42.352832}, ("course_deg",)),
    # DDMMYY
    Field("date: empty", {"date": ""}, {"valid": True}, **NO_TIME),
    Field("date: 000000", {"date": "000000"}, {"valid": True, "latitude": 42.352832}, **NO_TIME),
    Field("date: 010104, before the first fix", {"date": "010104"}, time=utc(2004, 1, 1, 12, 0, 0)),
    Field("date: of the year 80, a receiver's epoch", {"date": "060180"}, time=utc(1980, 1, 6, 12, 0, 0)),
    Field("date: of the year 00", {"date": "220100"}, time=utc(2000, 1, 22, 12, 0, 0)),
    Field("date: day before month, always", {"date": "031226"}, time=utc(2026, 12, 3, 12, 0, 0)),
    Field("date: 31 February", {"date": "310226"}, {"valid": True}, **NO_TIME),
    # before the date
    Field("a number before the date: the battery", {"course": "047,4"}, {"battery_raw": 4, "course_deg": 47}),
    Field("a number before the date that is no battery", {"course": "047,300"}, {"tail": "300", "course_deg": 47}),
    Field("nothing before the date", {"course": "047,"}, {"course_deg": 47}, ("battery_raw", "tail")),
    # all of them
    Field("zeros and a date: there was no fix yet",
          {"flag": "V", "lat": "0000.0000", "lon": "00000.0000", "speed": "000.00", "course": "000"}, **NOWHERE),
    Field("all empty", {"time": "", "flag": "V", "lat": "", "lon": "", "speed": "0.00", "course": "0", "date": ""},
          time=None, **NOWHERE),
)
# fmt: on


class FieldTests(SynchronousTestCase):
    """The position block, field by field."""

    maxDiff = None

    def test_fields(self) -> None:
        """Each form of each field says what the table says, is acknowledged, and its word is read all the same."""
        wrong = []
        for row in FIELDS:
            try:
                message, attributes = said(v1(**row.fields))
            except AssertionError as error:
                wrong.append(f"{row.name}: {error}")
                continue
            shown = {name: attributes.get(name) for name in row.says}
            if shown != dict(row.says):
                wrong.append(f"{row.name}: {shown}, not {row.says}")
            if found := [name for name in row.absent if name in attributes]:
                wrong.append(f"{row.name}: says {found}")
            if message.events[0].time != row.time:
                wrong.append(f"{row.name}: time {message.events[0].time}, not {row.time}")
            reply = message.reply(NOON) if message.reply is not None else None
            if reply != f"*HQ,{IDENT},V4,V1,{CLOCK}#".encode():
                wrong.append(f"{row.name}: answered {reply!r}")
            if (attributes.get("status_word"), message.levels.get("ignition")) != ("FFFFFFFF", True):
                wrong.append(f"{row.name}: the word is not read")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_with_a_tail(self) -> None:
        """A cell behind the word changes nothing of the block, whatever stands in that."""
        for row in FIELDS:
            _, alone = said(v1(**row.fields))
            _, tailed = said(v1(**row.fields, tail="214,03,13140,2735"))
            cell = {"mcc": "214", "mnc": "03", "lac": 13140, "cid": 2735}
            self.assertEqual({**alone, **cell}, tailed, row.name)

    def test_zeros_of_a_binary_frame(self) -> None:
        """A binary frame of zeros without a fix has no last position either."""
        data = bytes.fromhex(f"24{IDENT}120000221126" + "0000000000000000000c000000fffffbffff0000")
        message, attributes = said(data)
        self.assertEqual((False, NOON), (attributes["valid"], message.events[0].time))
        self.assertTrue(set(OF_A_FIX + LAST).isdisjoint(attributes))

    def test_time_oddities_on_the_stream(self) -> None:
        """A report without a date or a time happened when it came; on the stream that is said."""
        wire = wired()
        for fields in ({"time": ""}, {"date": ""}, {"date": "000000"}, {"time": "990000"}):
            report = report_of(wire.send(v1(**fields).encode(), 5))
            self.assertEqual((rfc3339(NOON + 5), "server"), (report.fields["time"], report.data["time_source"]))
            self.assertEqual("", report.fields["late"])


class Kind(NamedTuple):
    """A message of some type, and all that it says."""

    name: str
    frame: str
    type: str
    time: float | None
    says: Mapping[str, Any]
    reply: str | None = None


def at(latitude: float, longitude: float, speed: float, course: int) -> dict[str, Any]:
    """A fix."""
    return {
        "valid": True, "latitude": latitude, "longitude": longitude, "speed_kmh": speed, "course_deg": course,
    }  # fmt: skip


def last(latitude: float, longitude: float) -> dict[str, Any]:
    """None, and where the last one was."""
    return {"valid": False, "last_latitude": latitude, "last_longitude": longitude}


FED: Final = {"external_power": True}
HERE: Final = at(42.352832, -7.875493, 34.21, 122)
CELL: Final = {"mcc": "214", "mnc": "03", "lac": 13140, "cid": 2735}
V1_REPLY: Final = f"*HQ,{IDENT},V4,V1,{CLOCK}#"


def tail(name: str, fields: str, **says: Any) -> Kind:
    """A V1 report with a tail."""
    reply = f"*HQ,{IDENT},V4,V1,{CLOCK}#"
    return Kind(
        f"V1, {name}", v1(tail=fields), "position", NOON, {**HERE, **FED, "status_word": "FFFFFFFF", **says}, reply
    )


def cells(mcc: str, mnc: str, *groups: tuple[int, ...]) -> list[dict[str, Any]]:
    """Cells of one network: LAC, cell, level in dBm where there is one."""
    return [
        {"mcc": mcc, "mnc": mnc, "lac": lac, "cid": cid, **({"rssi_dbm": level[0]} if level else {})}
        for lac, cid, *level in groups
    ]


def word(text: str) -> dict[str, Any]:
    """What each message with a status word says of it."""
    return {"status_word": text, "external_power": int(text, 16) & 0x1008_0000 == 0x1008_0000}


TH_PLACE: Final = "050316,A,2212.8745,N,11346.6574,E,14.28,028,220902"
TH_FIX: Final = at(22.214575, 113.777623, 26.45, 28)
TH_TIME: Final = utc(2002, 9, 22, 5, 3, 16)

# fmt: off
KINDS: Final = (
    # 3.2: what follows the status word
    tail("decimal cell", "214,03,13140,2735", **CELL),
    tail("decimal cell with a battery index", "310,260,49101,1753,5", mcc="310", mnc="260", lac=49101, cid=1753,
         battery_raw=5),
    tail("decimal cell with a battery in percent, of an ST-903", "310,260,49101,1753,87", mcc="310", mnc="260",
         lac=49101, cid=1753, battery_raw=87),
    tail("no cell but a battery", "310,260,0,0,6", battery_raw=6, tail="310,260,0,0"),
    tail("network 000,00", "000,00,0,0", tail="000,00,0,0"),
    tail("network 0,0", "0,0,0,0", tail="0,0,0,0"),
    tail("the network's width matters", "460,00,9521,40325", mcc="460", mnc="00", lac=9521, cid=40325),
    tail("hex cell with blanks", "25c,a, 154,b04c", mcc="604", mnc="10", lac=340, cid=45132),
    tail("hex cell with zeros", "000106,000002,000203,004c87,16", mcc="262", mnc="02", lac=515, cid=19591, tail="16"),
    tail("metres, temperature, fuel, altitude, hex cell", "69129336,0,100.0,18,5141,5A20", odometer_km=69129.336,
         altitude_m=18, io={"temperature": 0, "fuel": 100.0}, lac=20801, cid=23072),
    tail("the same below zero", "69129336,-7,33.5,-4,5141,5A20", odometer_km=69129.336, altitude_m=-4,
         io={"temperature": -7, "fuel": 33.5}, lac=20801, cid=23072),
    tail("one number", "4", tail="4"),
    tail("what nobody knows", ",,9059e2c,8232,4", tail=",,9059e2c,8232,4"),
    tail("a cell and what nobody knows", "214,03,13140,2735,5,77,x", **CELL, tail="5,77,x"),
    tail("a hundred fields that nobody knows", ",".join("1" * 100), tail=",".join("1" * 100)),
    tail("a trailing comma", "214,03,13140,2735,", **CELL),
    tail("a blank before the end sign", "214,03,13140,2735 ", **CELL),
    tail("a blank behind a battery", "214,03,13140,2735,5 ", **CELL, battery_raw=5),
    # 3.3
    Kind("HTBT", f"*HQ,{IDENT},HTBT#", "status", None, {"message_type": "HTBT"}, f"*HQ,{IDENT},HTBT#"),
    Kind("HTBT with its battery", f"*HQ,{IDENT},HTBT,100#", "status", None,
         {"message_type": "HTBT", "battery_raw": 100, "battery_pct": 100}, f"*HQ,{IDENT},HTBT#"),
    Kind("HTBT of an IMEI", "*HQ,135790246811220,HTBT,0#", "status", None,
         {"message_type": "HTBT", "battery_raw": 0, "battery_pct": 0}, "*HQ,135790246811220,HTBT#"),
    Kind("V0", f"*HQ,{IDENT},V0#", "status", None, {"message_type": "V0"}, f"*HQ,{IDENT},V0#"),
    # 3.4
    Kind("V2", "*HQ,353505221264507,V2,100220,0,5238.26259,N,00507.33983,E,0.25,0,280917,FFFFFFFF,cc,28,  db,d75b#",
         "position", utc(2017, 9, 28, 10, 2, 20),
         {**at(52.63771, 5.122331, 0.46, 0), **word("FFFFFFFF"), "message_type": "V2",
          "mcc": "204", "mnc": "40", "lac": 219, "cid": 55131}, ""),
    Kind("VI1", "*HQ,353505221264507,VI1,075146,0,5238.25900,N,00507.33429,E,0.54,0,250917,FFFFFFFF,cc,28,  db,d75b#",
         "position", utc(2017, 9, 25, 7, 51, 46),
         {**at(52.63765, 5.122238, 1.0, 0), **word("FFFFFFFF"), "message_type": "VI1",
          "mcc": "204", "mnc": "40", "lac": 219, "cid": 55131}, ""),
    # 3.5
    Kind("V3", "*HQ,355488020930796,V3,044855,28403,01,001450,011473,158,-62,0292,0,X,030817,FFFFFBFF#", "status",
         utc(2017, 8, 3, 4, 48, 55),
         {"message_type": "V3", "cells": cells("284", "03", (1450, 11473, -62)), "battery_raw": 0x292,
          **word("FFFFFBFF")}),
    Kind("V3 whose levels are 0 or empty", "*HQ,355488020930796,V3,002339,62160,02,024852,035421,148,0,024852,035425,"
         "143,,02A1,0,X,010104,EFE7FBFF#", "status", utc(2004, 1, 1, 0, 23, 39),
         {"message_type": "V3", "cells": cells("621", "60", (24852, 35421), (24852, 35425)), "battery_raw": 0x2A1,
          **word("EFE7FBFF"), "io": {"battery_removed": True}}),
    # 3.6
    Kind("NBR", "*HQ,4109179024,NBR,103732,722,310,0,2,8106,32010,23,8101,22007,25,100217,FFFFFBFF,5#", "status",
         utc(2017, 2, 10, 10, 37, 32),
         {"message_type": "NBR", "cells": cells("722", "310", (8106, 32010, -87), (8101, 22007, -85)),
          "battery_raw": 5, **word("FFFFFBFF")}, f"*HQ,4109179024,V4,NBR,{CLOCK}#"),
    Kind("NBR with levels in dBm and above what GSM has", "*HQ,1451316451,NBR,160169,724,10,2,2,215,2135,-67,215,2131,"
         "121,011215,FFFFFFFF#", "status", utc(2015, 12, 1, 16, 2, 9),
         {"message_type": "NBR", "cells": cells("724", "10", (215, 2135, -67), (215, 2131)), **word("FFFFFFFF")},
         f"*HQ,1451316451,V4,NBR,{CLOCK}#"),
    Kind("NBR with no cell", f"*HQ,{IDENT},NBR,103732,722,310,0,0,100217,FFFFFBFF,5#", "status",
         utc(2017, 2, 10, 10, 37, 32), {"message_type": "NBR", "battery_raw": 5, **word("FFFFFBFF")},
         f"*HQ,{IDENT},V4,NBR,{CLOCK}#"),
    Kind("NBR that breaks off", f"*HQ,{IDENT},NBR,103732,722,310,0,3,8106,32010,23,8101#", "status", None,
         {"message_type": "NBR", "cells": cells("722", "310", (8106, 32010, -87))}, f"*HQ,{IDENT},V4,NBR,{CLOCK}#"),
    # 3.7
    Kind("LINK", "*HQ,1600068860,LINK,112137,20,8,67,0,0,081116,FFFFFBFF#", "status", utc(2016, 11, 8, 11, 21, 37),
         {"message_type": "LINK", "csq": 20, "satellites": 8, "battery_raw": 67, "battery_pct": 67,
          **word("FFFFFBFF")}),
    Kind("LINK of somebody who walks", "*HQ,1600068860,LINK,112137,99,8,67,1204,3,081116,FFFFFBFF#", "status",
         utc(2016, 11, 8, 11, 21, 37),
         {"message_type": "LINK", "satellites": 8, "battery_raw": 67, "battery_pct": 67,
          "io": {"steps": 1204, "turnovers": 3}, **word("FFFFFBFF")}),
    # 3.8
    Kind("V4, the full form", f"*TH,2020916012,V4,S20,DONE,130305,{TH_PLACE},F7FFFBFF#", "position", TH_TIME,
         {**TH_FIX, "message_type": "V4", "reply_text": "S20,DONE,130305", **word("F7FFFBFF")}),
    Kind("V4, the full form with more arguments", f"*TH,2020916012,V4,S14,100,10,1,3,130305,{TH_PLACE},FFFFFBFF#",
         "position", TH_TIME,
         {**TH_FIX, "message_type": "V4", "reply_text": "S14,100,10,1,3,130305", **word("FFFFFBFF")}),
    Kind("V4, the full form with an error", f"*TH,2020916012,V4,R8,ERROR,130305,{TH_PLACE},FFFFFBFF#", "position",
         TH_TIME, {**TH_FIX, "message_type": "V4", "reply_text": "R8,ERROR,130305", **word("FFFFFBFF")}),
    Kind("V4, the full form with blanks around its fields",
         "*TH,2020916012,V4,S20,DONE,130305, 050316, A,2212.8745, N,11346.6574, E,14.28,028,220902, F7FFFBFF #",
         "position", TH_TIME, {**TH_FIX, "message_type": "V4", "reply_text": "S20,DONE,130305", **word("F7FFFBFF")}),
    Kind("V4, the full form without a fix",
         "*TH,2020916012,V4,S20,ERROR,130305,050316,V,2212.8745,N,11346.6574,E,14.28,028,220902,FFFFFBFF#",
         "position", TH_TIME,
         {**last(22.214575, 113.777623), "message_type": "V4", "reply_text": "S20,ERROR,130305", **word("FFFFFBFF")}),
    Kind("V4, without a position: the fence it was given",
         "*HQ,2020916012,V4,S21,17,1,130305,050316,N,2245.318,2246.452,E,11233.232,11365.175,FFFFFBFF#", "status", None,
         {"message_type": "V4", **word("FFFFFBFF"),
          "reply_text": "S21,17,1,130305,050316,N,2245.318,2246.452,E,11233.232,11365.175"}),
    Kind("V4, without a position: the fence is gone", "*HQ,2020916012,V4,S21,17,0, 130305,050316,FFFFFBFF#", "status",
         None, {"message_type": "V4", "reply_text": "S21,17,0, 130305,050316", **word("FFFFFBFF")}),
    Kind("V4, the same with a comma before the end sign", "*HQ,2020916012,V4,S21,17,0,130305,050316,FFFFFBFF,#",
         "status", None, {"message_type": "V4", "reply_text": "S21,17,0,130305,050316", **word("FFFFFBFF")}),
    Kind("V4, the short form", f"*HQ,{IDENT},V4,S20,034313,1,1#", "status", None,
         {"message_type": "V4", "reply_text": "S20,034313,1,1"}),
    Kind("V4, arguments that only look like a position", f"*HQ,{IDENT},V4,S99,1,V,x,N,y,E,1,1,220902,FFFFFBFF#",
         "status", None,
         {"message_type": "V4", "reply_text": "S99,1,V,x,N,y,E,1,1,220902", **word("FFFFFBFF")}),
    Kind("V4, nothing but the command", f"*HQ,{IDENT},V4,S26#", "status", None,
         {"message_type": "V4", "reply_text": "S26"}),
    # 3.9
    Kind("V5", "*HQ,9180271064,V5,091233,V,2348.8912,N,09021.3302,E,000.00,000,051219,FFFFBBFF,470,01,21019,2033,"
         "2921283#", "position", utc(2019, 12, 5, 9, 12, 33),
         {**last(23.814853, 90.355503), "message_type": "V5", **word("FFFFBBFF"), "mcc": "470", "mnc": "01",
          "lac": 21019, "cid": 2033, "tail": "2921283"}, ""),
    Kind("V6", "*HQ,3177718238,V6,002926,V,3514.4088,N,9733.2842,W,0.00,0.00,151222,FFF7FBFF,310,260,32936,13641,"
         "8944501311217563382F,#", "position", utc(2022, 12, 15, 0, 29, 26),
         {**last(35.240147, -97.554737), "message_type": "V6", "status_word": "FFF7FBFF", "external_power": False,
          "mcc": "310", "mnc": "260", "lac": 32936, "cid": 13641, "iccid": "8944501311217563382"}, ""),
    Kind("V8", "*HQ,9001000002,V8,213945,A,3542.2043,N,38.6508,W,0.00,170,221025,FBFFF9FF,0,0,0,0,22,31,126,0#",
         "position", utc(2025, 10, 22, 21, 39, 45),
         {**at(35.703405, -0.64418, 0.0, 170), "message_type": "V8", **word("FBFFF9FF"), "late": "device",
          "satellites": 22, "csq": 31, "supply_v": 12.6, "tail": "0,0,0,0,22,31,126,0"}, ""),
    Kind("V19 with a server", "*HQ,4209951296,V19,214452,A,5201.0178,N,01830.5029,E,000.00,000,200417,,195.63.13.195,"
         "89480610500392633029,BFFFFBFF#", "position", utc(2017, 4, 20, 21, 44, 52),
         {**at(52.016963, 18.508382, 0.0, 0), "message_type": "V19", **word("BFFFFBFF"), "server": "195.63.13.195",
          "iccid": "89480610500392633029", "io": {"sensor2_high": True}}, ""),
    Kind("V19 with a phone number, and a SIM card that can't be read to its end",
         "*HQ,4109179024,V19,181519,V,3853.2587,S,06205.9175,W,000.00,000,090217,,5492932630888,8954315265044716555?,"
         "FFFFFBFF#", "position", utc(2017, 2, 9, 18, 15, 19),
         {**last(-38.887645, -62.098625), "message_type": "V19", **word("FFFFFBFF"), "phone": "5492932630888",
          "iccid": "8954315265044716555"}, ""),
    Kind("V19 with a phone number of 8 digits, which is no status word", "*HQ,4209951296,V19,214452,A,5201.0178,N,"
         "01830.5029,E,000.00,000,200417,,12345678,89480610500392633029,FFFFFBFF#", "position",
         utc(2017, 4, 20, 21, 44, 52),
         {**at(52.016963, 18.508382, 0.0, 0), "message_type": "V19", **word("FFFFFBFF"), "phone": "12345678",
          "iccid": "89480610500392633029"}, ""),
    # 3.10
    Kind("VP1 with a date and no time", "*hq,356327080425330,VP1,A,2702.7245,S,15251.9311,E,0.48,0.0000,080917#",
         "position", None, {**at(-27.045408, 152.865518, 0.89, 0), "message_type": "VP1"}),
    Kind("VP1 with cells", "*hq,356327080425330,VP1,V,470,002,92,3565,0Y92,19433,30Y92,1340,29#", "status", None,
         {"message_type": "VP1",
          "cells": cells("470", "002", (92, 3565, -110), (92, 19433, -80), (92, 1340, -81))}),
    # 3.11
    Kind("a bare ident", "*HQ,4109198974,#", "status", None, {}),
    Kind("XT", "*HQ,356327080425330,XT,1,100#", "status", None,
         {"message_type": "XT", "battery_raw": 100, "battery_pct": 100}),
    Kind("BASE", f"*HQ,{IDENT},BASE,152609,0,0,0,0,211014,FFFFFFFF#", "status", None, {"message_type": "BASE"}),
    Kind("BS", "*HQ,356803210091319,BS,,2d4,a,1b63,1969,26,1b63,10b2,31,0,0,25,,ffffffff,60#", "status", None,
         {"message_type": "BS"}),
    Kind("BC, a batch", f"*HQ,{IDENT},BC,1;2;3#", "status", None, {"message_type": "BC"}),
    Kind("ALRM", f"*HQ,{IDENT},ALRM,1#", "status", None, {"message_type": "ALRM"}),
    Kind("I1", f"*HQ,{IDENT},I1,1#", "status", None, {"message_type": "I1"}),
    Kind("UP", f"*HQ,{IDENT},UP#", "status", None, {"message_type": "UP"}),
    Kind("CM", f"*HQ,{IDENT},CM,x#", "status", None, {"message_type": "CM"}),
    Kind("a type that nobody knows", f"*HQ,{IDENT},QQ9,1,2#", "status", None, {"message_type": "QQ9"}),
    Kind("a V type that nobody knows, with a position", v1().replace(",V1,", ",V77,"), "position", NOON,
         {**HERE, **word("FFFFFFFF"), "message_type": "V77"}),
    Kind("a V type that nobody knows, without", f"*HQ,{IDENT},V99,1,2,3#", "status", None, {"message_type": "V99"}),
    # 3.12
    Kind("SMS: the answer to RCONF",
         "*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nIP:1.2.3.4 5013\nUT:30,30,300\n"
         "VOLT:12.9V\nAPN:internet.example.com\nGPS:A-24-23\nGSM:26#", "status", None,
         {"message_type": "SMS", "firmware": "ST906(70SACD)_TQ_V_2.0", "firmware_date": "2024-06-07",
          "server": "1.2.3.4:5013", "intervals_s": [30, 30, 300], "supply_v": 12.9, "apn": "internet.example.com",
          "satellites": 24, "csq": 26}),
    Kind("SMS: the same with CR and LF",
         "*HQ,5226073533,SMS,ST906_TQ 2024/06/07\r\nID:5226073533\r\nVOLT:12.9V\r\nGSM:26\r\n#", "status", None,
         {"message_type": "SMS", "firmware": "ST906_TQ", "firmware_date": "2024-06-07", "supply_v": 12.9, "csq": 26}),
    Kind("SMS: of an XM_GT09, in one line",
         "*HQ,9171072755,SMS,XM_GT09_SW_33.0 2019/08/08 ID:9171072755 IP:27.aika168.com 8185 BAT:5 APN:internet "
         "GPS:V-13-9 GSM:22 ICCID:89351060000852459823#", "status", None,
         {"message_type": "SMS", "firmware": "XM_GT09_SW_33.0", "firmware_date": "2019-08-08",
          "server": "27.aika168.com:8185", "battery_raw": 5, "apn": "internet", "satellites": 13, "csq": 22,
          "iccid": "89351060000852459823"}),
    Kind("SMS: any other text", f"*HQ,{IDENT},SMS,SET OK#", "status", None, {"message_type": "SMS"}),
    Kind("SMS: bytes of any encoding", f"*HQ,{IDENT},SMS,\xb6\xcf\xb5\xe7 GSM:26#", "status", None,
         {"message_type": "SMS"}),
)
# fmt: on


def with_raw(kind: Kind) -> dict[str, Any]:
    """A message without a position has its text, too."""
    return {**kind.says, **({} if kind.type == "position" else {"raw_text": kind.frame})}


class KindTests(SynchronousTestCase):
    """Each type of text message."""

    maxDiff = None

    def test_kinds(self) -> None:
        """Each type says all that the table says, and nothing else, and is answered as section 5.1 has it."""
        wrong = []
        for kind in KINDS:
            for frame in (kind.frame, kind.frame + "\r\n"):
                message, attributes = said(frame)
                (event,) = message.events
                reply = None if message.reply is None else message.reply(NOON).decode()
                got = (event.type, event.time, attributes, reply)
                wanted = (kind.type, kind.time, with_raw(kind), kind.reply)
                if got != wanted:
                    wrong.append(f"{kind.name}:\n  got    {got}\n  wanted {wanted}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_alive(self) -> None:
        """Each of them, whatever it says, is an entry on the stream and counts as heard of; none is refused."""
        for kind in KINDS:
            wire = wired()
            found = wire.send(kind.frame.encode("latin-1"), 5)
            self.assertEqual(kind.type, report_of(found).type, kind.name)
            self.assertEqual(1, wire.publisher.counters["published"], kind.name)

    def test_makers(self) -> None:
        """Each maker's frames are read alike, and answered with its own code."""
        for maker in ("HQ", "hq", "TH", "DC", "XY", "RS"):
            message, attributes = said(v1().replace("*HQ,", f"*{maker},"))
            self.assertEqual(42.352832, attributes["latitude"])
            reply = message.reply(NOON) if message.reply is not None else b""
            self.assertEqual(f"*{maker},{IDENT},V4,V1,{CLOCK}#".encode(), reply)

    def test_empty_ident(self) -> None:
        """A frame without an ident is that of whoever spoke before on the connection, by text or in binary."""
        bare = "*HQ,,V1,173212,A,2225.78879,S,02829.19021,E,0.00,0,290418,FFFFFBFF#"
        for before in (v1().encode(), binary()):
            messages = decode(before, bare)
            self.assertEqual([IDENT, IDENT], [message.ident for message in messages])
            reply = messages[1].reply(NOON) if messages[1].reply is not None else b""
            self.assertEqual(f"*HQ,{IDENT},V4,V1,{CLOCK}#".encode(), reply)

    def test_empty_ident_of_nobody(self) -> None:
        """Where nobody has spoken before, it is nobody's: on the dead stream, and not answered."""
        wire = wired()
        wire.send(b"*HQ,,V1,173212,A,2225.78879,S,02829.19021,E,0.00,0,290418,FFFFFBFF#", 0)
        self.assertEqual(["frame.undecodable"], [entry["type"] for entry in wire.sink.events])
        self.assertEqual([], wire.link.written)

    def test_x_frame(self) -> None:
        """An X frame has a mileage in place of an ident, and is whoever's spoke before; its counts are 0.51444 m."""
        x = b"X" + bytes.fromhex("0000981499") + binary()[6:32]
        first, second = decode(v1(), x)
        self.assertEqual((IDENT, IDENT), (first.ident, second.ident))
        attributes = rounded(second.events[0].attributes)
        self.assertEqual(
            ("X", 504.922, 42.352832), tuple(attributes[n] for n in ("message_type", "odometer_km", "latitude"))
        )

    def test_two_devices_on_one_connection(self) -> None:
        """Frames of several devices on one connection are each one's own (a relay's)."""
        idents = ("9170225361", "9171987900", "9170225361")
        messages = decode("".join(v1().replace(IDENT, ident) for ident in idents))
        self.assertEqual(list(idents), [message.ident for message in messages])


#: The traps of section 8 that are about downlink, provisioning or who may speak, and none of the decoder's.
NOT_OF_DECODING: Final = {14, 23, 24, 26, 27}


class TrapTests(WireCase):
    """Section 8, trap by trap; the number stands in the name."""

    def fix(self, frame: bytes, seconds: float) -> Mapping[str, str]:
        """The columns of the report."""
        return report_of(self.send(frame, seconds)).fields

    def test_each_has_a_test(self) -> None:
        """Each trap of section 8 that concerns decoding has a test that names it."""
        names = [re.match(r"test_trap_(\d+)_", name) for name in dir(self)]
        self.assertEqual(set(range(1, 32)) - NOT_OF_DECODING, {int(name[1]) for name in names if name})

    def test_trap_1_only_the_first_alarm(self) -> None:
        """Overspeed does not hide a power cut, nor vibration an SOS: each bit is looked at on its own."""
        self.send(text(), 0)
        found = edges_of(self.send(text("EFF5FFF8", 10), 10))
        self.assertEqual(
            {"alarm.theft", "alarm.sos", "alarm.overspeed", "alarm.vibration", "alarm.power.cut"},
            {entry.type for entry in found},
        )

    def test_trap_2_constant_bits(self) -> None:
        """A bit that is there in each report of a unit's first day is a constant: said once, and no alarm any more."""
        found = edges_of(self.send(text("FFFDFFFF", 0), 0))
        self.assertIn(("alarm.vibration", "active"), {entry.edge for entry in found})
        found = []
        for number in range(1, 31):
            found += self.send(text("FFFDFFFF", 3600 * number), 3600 * number)
        quality = [entry for entry in edges_of(found) if entry.type == "device.quality"]
        self.assertEqual(["constant"], [entry.data["name"] for entry in quality])
        self.assertEqual([17], quality[0].data["evidence"]["bits"])
        self.assertIn(("alarm.vibration", "cleared"), {entry.edge for entry in edges_of(found)})
        last = self.fix(text("FFFDFFFF", 120_000), 120_000)
        self.assertEqual(("", "FFFDFFFF"), (last["levels"], last["status_word"]))

    def test_trap_3_shock_and_sos_by_model(self) -> None:
        """Bit 17 is vibration, 0 theft, 18 nothing; a unit of which something else is set has that."""
        self.send(text(), 0)
        found = edges_of(self.send(text("FFF9FFFE", 10), 10))
        self.assertEqual(["alarm.theft", "alarm.vibration"], sorted(entry.type for entry in found))
        self.sink.stored[IDENT] = Stored(known=True, held=True, registry={"bits": "18=sos,17=,0=vibration"})
        self.start()
        self.send(text(), 0)
        found = edges_of(self.send(text("FFF9FFFE", 10), 10))
        self.assertEqual(["alarm.sos", "alarm.vibration"], sorted(entry.type for entry in found))

    def test_trap_4_bit_23(self) -> None:
        """A low battery or an input: shown, and no alarm."""
        self.send(text(), 0)
        found = self.send(text("FF7FFFFF", 10), 10)
        self.assertEqual([], edges_of(found))
        self.assertEqual({"input2_or_battery_low": True}, report_of(found).data["io"])

    def test_trap_5_bit_26(self) -> None:
        """A record that was delayed is late, and so is its alarm; what is live stays as it is."""
        self.send(text(), 0)
        found = self.send(text("FBFFFFFD", 10), 10)
        self.assertEqual("device", report_of(found).fields["late"])
        self.assertEqual([("alarm.sos", "device")], [(e.type, e.data["late"]) for e in edges_of(found)])
        self.assertEqual([("alarm.sos", "raised")], [e.edge for e in edges_of(self.send(text("FFFFFFFD", 20), 20))])

    def test_trap_6_acc_not_wired(self) -> None:
        """A unit that drives for minutes with the ignition off has no wire: said once, and no ignition any more."""
        found = []
        for number in range(40):
            found += self.send(text("FFFFBBFF", 10 * number), 10 * number)
        quality = [entry for entry in edges_of(found) if entry.type == "device.quality"]
        self.assertEqual(["acc_wiring"], [entry.data["name"] for entry in quality])
        self.assertEqual("acc_wired=0", quality[0].data["setting"])
        self.assertEqual([], [entry for entry in found if entry.type == "state.ignition"])
        last = report_of(self.send(text("FFFFBBFF", 500), 500))
        self.assertEqual(("", False), (last.fields["ignition"], last.data["ignition_bit"]))

    def test_trap_7_stale_frames(self) -> None:
        """A frame without a fix repeats the last one's place and speed: neither is published as of now."""
        self.send(text("FFFFBBFF", 0), 0)
        for frame in (text("FFFFBBFF", 10, "V"), binary("FFFFBBFF", 20, "V")):
            report = report_of(self.send(frame, 20))
            shown = [report.fields[name] for name in ("valid", "latitude", "longitude", "speed_kmh", "course_deg")]
            self.assertEqual(["0", "", "", "", ""], shown)
            self.assertEqual((42.352832, -7.875493), (report.data["last_latitude"], report.data["last_longitude"]))
            self.assertEqual(rfc3339(NOON), report.data["last_fix_time"])

    def test_trap_8_no_position(self) -> None:
        """Zeros, nines, nothing at all: no position, but the device is alive and its word counts."""
        nothing: tuple[Mapping[str, str], ...] = (
            {"flag": "V", "lat": "0.0000", "ns": "0", "lon": "0.0000", "ew": "0", "date": "000000"},
            {"flag": "V", "lat": "0000.0000", "lon": "00000.0000"},
            {"flag": "V", "lat": "9999.9999", "lon": "99999.9999"},
            {"flag": "A", "lat": "9999.9999", "lon": "99999.9999"},
            {"flag": "V", "lat": "", "lon": "", "date": "", "time": ""},
        )
        for number, fields in enumerate(nothing):
            self.sink.stored.clear()
            self.start()
            self.send(text("FFFFFFFF", 0), 0)
            found = self.send(v1(**{"time": dated(10)[0], **fields, "word": "FFFFFFFD"}).encode(), 10)
            report = report_of(found)
            self.assertEqual(
                ("", "0", "FFFFFFFD"), tuple(report.fields[n] for n in ("latitude", "valid", "status_word"))
            )
            self.assertTrue({"last_latitude", "last_longitude"}.isdisjoint(report.data), number)
            self.assertEqual([("alarm.sos", "raised")], [entry.edge for entry in edges_of(found)], number)

    def test_trap_9_longitude_without_leading_zeros(self) -> None:
        """The last two digits before the dot are minutes, however many stand before them."""
        for lat, lon, wanted in (
            ("4221.1699", "00752.5296", (42.352832, -7.875493)),
            ("4221.1699", "0752.5296", (42.352832, -7.875493)),
            ("4221.1699", "752.5296", (42.352832, -7.875493)),
            ("4221.1699", "52.5296", (42.352832, -0.875493)),
            ("221.1699", "2.5296", (2.352832, -0.04216)),
            ("21.1699", "10752.5296", (0.352832, -107.875493)),
        ):
            _, attributes = said(v1(lat=lat, lon=lon))
            self.assertEqual(wanted, (attributes["latitude"], attributes["longitude"]), (lat, lon))

    def test_trap_10_week_rollover(self) -> None:
        """A date that is 1,024 or 2,048 weeks early is corrected, and that is said; the frame is never refused."""
        for weeks in (1024, 2048):
            self.sink.stored.clear()
            self.start()
            report = report_of(self.send(text("FFFFFFFF", -weeks * 604_800), 0))
            self.assertEqual((rfc3339(NOON), ""), (report.fields["time"], report.fields["late"]), weeks)
            self.assertEqual("device-corrected", report.data["time_source"])
            self.assertEqual(weeks * 604_800, report.data["time_correction_s"])
            self.assertEqual(rfc3339(NOON - weeks * 604_800), report.data["device_time"])
            # the clock goes on, and so do the reports: none is late
            report = report_of(self.send(text("FFFFFFFF", 10 - weeks * 604_800), 10))
            self.assertEqual((rfc3339(NOON + 10), ""), (report.fields["time"], report.fields["late"]), weeks)
        # an alarm of such a report is one of now
        found = edges_of(self.send(text("FFFFFFFD", 20 - 2048 * 604_800), 20))
        self.assertEqual([("alarm.sos", "raised", None)], [(*entry.edge, entry.data.get("late")) for entry in found])

    def test_trap_10_a_receivers_epoch(self) -> None:
        """A date of 1980, 2000 or 2004 that is no rollover is kept as it is: old, and late."""
        for date, year in (("060180", "1980"), ("010100", "2000"), ("010104", "2004")):
            self.sink.stored.clear()
            self.start()
            self.send(text("FFFFFFFF", -10), -10)
            report = report_of(self.send(v1(date=date).encode(), 0))
            self.assertEqual((year, "order"), (report.fields["time"][:4], report.fields["late"]))
            self.assertEqual("42.352832", report.fields["latitude"])

    def test_trap_11_a_clock_in_a_zone(self) -> None:
        """A clock that is a zone's offset from UTC is reported with that, and the times are left as they are."""
        found = []
        for number in range(20):
            found += self.send(text("FFFFFFFF", 10 * number - 10_800), 10 * number)
        quality = [entry for entry in found if entry.type == "device.quality"]
        self.assertEqual(
            [("clock", "time_offset_s=-10800")], [(entry.data["name"], entry.data["setting"]) for entry in quality]
        )
        times = [entry.fields["time"] for entry in found if entry.type == "position"]
        self.assertEqual([rfc3339(NOON + 10 * number - 10_800) for number in range(20)], times)

    def test_trap_12_knots(self) -> None:
        """Frames have knots, in text and in binary; the stream has km/h."""
        self.assertEqual("34.21", self.fix(text("FFFFFFFF", 0), 0)["speed_kmh"])
        self.assertEqual("33.34", self.fix(binary("FFFFFFFF", 10), 10)["speed_kmh"])

    def test_trap_13_acknowledgements(self) -> None:
        """V1 and NBR are answered V4, binary R12, heartbeats with themselves; nothing else is answered."""
        self.send(text(), 0)
        self.send(binary("FFFFFFFF", 10), 10)
        self.send(f"*HQ,{IDENT},NBR,120010,722,310,0,1,8106,32010,23,221126,FFFFFBFF,5#".encode(), 20)
        self.send(f"*HQ,{IDENT},HTBT,100#".encode(), 30)
        wanted = [
            f"*HQ,{IDENT},V4,V1,20261122120000#", f"*HQ,{IDENT},R12,120010#", f"*HQ,{IDENT},V4,NBR,20261122120020#",
            f"*HQ,{IDENT},HTBT#",
        ]  # fmt: skip
        self.assertEqual(wanted, [data.decode() for data in self.link.written])
        self.link.written.clear()
        for kind in ("LINK", "V3", "XT", "V4", "BASE", "V2", "V5", "V6", "V8", "V19"):
            frame = v1().replace(",V1,", f",{kind},") if kind.startswith("V") else f"*HQ,{IDENT},{kind},1#"
            self.send(frame.encode(), 40)
        self.assertEqual([], self.link.written)

    def test_trap_15_v4_without_a_position(self) -> None:
        """An answer to S21 has no position, the short form only its arguments: both are read as far as they go."""
        for frame, reply, says in (
            ("V4,S21,17,0, 130305,050316,FFFFFBFF", "S21,17,0, 130305,050316", "FFFFFBFF"),
            ("V4,S20,034313,1,1", "S20,034313,1,1", ""),
        ):
            report = report_of(self.send(f"*HQ,{IDENT},{frame}#".encode(), 0))
            self.assertEqual(("status", says), (report.type, report.fields["status_word"]))
            self.assertEqual(reply, report.data["reply_text"])

    def test_trap_16_v6_is_the_sim_card(self) -> None:
        """V6 has the number of the SIM card; it raises no fatigue alarm."""
        place = f"V,3514.4088,N,9733.2842,W,0.00,0.00,{dated(0)[1]},FFFFFBFF,310,260,32936,13641"
        found = self.send(f"*HQ,{IDENT},V6,120000,{place},8944501311217563382F,#".encode(), 0)
        self.assertEqual("8944501311217563382", report_of(found).data["iccid"])
        self.assertEqual([], [entry for entry in found if entry.type.startswith("alarm.")])

    def test_trap_17_battery_figure(self) -> None:
        """A figure of 7 and more is a percentage at once; one of up to 6 may be an index: it is not taken for one."""
        self.assertEqual("87", self.fix(text("FFFFFFFF", 0, tail=",310,260,49101,1753,87"), 0)["battery_pct"])
        self.sink.stored.clear()
        self.start()
        report = report_of(self.send(text("FFFFFFFF", 0, tail=",310,260,49101,1753,6"), 0))
        self.assertEqual(("", 6), (report.fields["battery_pct"], report.data["battery_raw"]))
        for number in range(1, 30):
            report = report_of(self.send(text("FFFFFFFF", 3600 * number, tail=",310,260,49101,1753,6"), 3600 * number))
        self.assertEqual("100", report.fields["battery_pct"], "for a day there was nothing else: the index of 6")

    def test_trap_17_battery_figure_that_is_set(self) -> None:
        """Where it is set what the figure is, it is that from the first report on."""
        for unit, wanted in (("index", "80"), ("percent", "5")):
            self.sink.stored[IDENT] = Stored(known=True, held=True, registry={"battery": unit})
            self.start()
            self.assertEqual(wanted, self.fix(text("FFFFFFFF", 0, tail=",310,260,49101,1753,5"), 0)["battery_pct"])

    def test_trap_18_text_with_line_ends(self) -> None:
        """An SMS text holds line ends, and may hold end signs: it is one frame, and the next one is the next."""
        sms = f"*HQ,{IDENT},SMS,ST906_TQ 2024/06/07\nID:{IDENT}\r\nVOLT:12.9V\n#1\nGSM:26#".encode()
        for stream in (sms + text(), sms + b"\r\n" + text()):
            for reads in ([stream], [bytes([byte]) for byte in stream]):
                self.assertEqual([sms, text()], [message.raw for message in decode(*reads)])

    def test_trap_19_the_tail_of_a_frame(self) -> None:
        """A comma or a blank before the end sign, a word or a maker in lower case change nothing."""
        for frame in (
            v1(tail="214,03,13140,2735"), v1(tail="214,03,13140,2735,"), v1(tail="214,03,13140,2735 "),
            v1(tail="214,03,13140,2735, "), v1(word="ffffffff", tail="214,03,13140,2735"),
            v1(tail="214,03,13140,2735").replace("*HQ", "*hq"), v1(tail="214,03,13140,2735") + " \r\n",
        ):  # fmt: skip
            _, attributes = said(frame)
            self.assertEqual({**HERE, **FED, **CELL, "status_word": "FFFFFFFF"}, attributes, frame)
        for frame in (v1(), v1(word="FFFFFFFF "), v1(word="ffffffff,"), v1(word="FFFFFFFF, ")):
            _, attributes = said(frame)
            self.assertEqual({**HERE, **FED, "status_word": "FFFFFFFF"}, attributes, frame)

    def test_trap_19_of_every_type(self) -> None:
        """A blank before the end sign, or a comma, takes nothing from a message of any type."""
        # of a text, of a type without a reader and of the cells of VP1 the last field is text, or not known
        texts = {"SMS", "BASE", "BS", "BC", "ALRM", "I1", "UP", "CM", "QQ9", "V99", "VP1"}
        for kind in KINDS:
            fields = kind.frame.split(",")
            if fields[2].rstrip("#") in texts:
                continue
            _, wanted = said(kind.frame)
            for end in (" #", ",#") if len(fields) > 4 else (" #",):
                message, got = said(kind.frame[:-1] + end)
                for attributes in (wanted, got):
                    attributes.pop("raw_text", None)
                    for name in ("tail", "reply_text"):  # as they came
                        if name in attributes:
                            attributes[name] = attributes[name].rstrip(" ,")
                self.assertEqual((wanted, kind.time), (got, message.events[0].time), kind.frame[:-1] + end)

    def test_trap_20_length_of_binary_frames(self) -> None:
        """45 and 45, 45 and text, a 45 in two reads, 32 and text: each ends where it ends, whatever came first."""
        long, short, line = binary(), binary()[:29] + b"\xff\x00\x24", text()
        for frames in (
            [long, long],
            [long, line],
            [short, line, long],
            [long, short, short, line],
            [line, short, long],
        ):
            stream = b"".join(frames)
            for cut in range(1, len(stream)):
                got = [message.raw for message in decode(stream[:cut], stream[cut:])]
                self.assertEqual(frames, got, (frames, cut))

    def test_trap_21_counts_are_not_believed(self) -> None:
        """A V3 or NBR whose count is higher or lower than what is there has the cells that are there."""
        for count in ("0", "1", "2", "7", "99", "-1", "999999999", "", "x"):
            _, attributes = said(
                f"*HQ,{IDENT},NBR,103732,722,310,0,{count},8106,32010,23,8101,22007,25,100217,FFFFFBFF,5#"
            )
            self.assertEqual(cells("722", "310", (8106, 32010, -87), (8101, 22007, -85)), attributes["cells"], count)
            _, attributes = said(
                f"*HQ,355488020930796,V3,044855,28403,{count},001450,011473,158,-62,0292,0,X,030817,FFFFFBFF#"
            )
            self.assertEqual(cells("284", "03", (1450, 11473, -62)), attributes["cells"], count)

    def test_trap_22_many_and_long_fields(self) -> None:
        """Hundreds of fields, or one of a thousand bytes: bounded, and nothing raises (the time: test_st907_linear)."""
        for frame in (v1(tail="1," * 900), v1(tail="1" * 1800), v1(lat="1" * 1800), v1(speed="9" * 1800)):
            (message,) = decode(frame)
            said_of = message.events[0].attributes if message.error is None else {}
            self.assertLessEqual(len(str(said_of)), 2 * len(frame))

    def test_trap_25_other_protocols(self) -> None:
        """GT06, JT808, another maker's text, HTTP and TLS are not taken for an ST-907's, and get no answer."""
        plugins = [plugin for plugin in registry.load() if plugin.name == "st907"]
        for data in (
            bytes.fromhex("78780d010123456789012345000100010d0a"), bytes.fromhex("7e000200000123456789010001307e"),
            b"*ET,135790246811221,HB,A,050915,0C2A27,00CE5954,04132263,0000,0000,01000000,20,4,0000,00F123#",
            b"GET / HTTP/1.1\r\n", bytes.fromhex("16030100a5010000a1"), b"<SPBSJ*P:BSJGPS*1>",
        ):  # fmt: skip
            self.assertIsInstance(device.detect(data, "tcp"), NO, data)
            self.assertIsNone(Detector(Candidates(plugins, "udp"), 1024).whole(data).plugin, data)

    def test_trap_28_the_makers_code(self) -> None:
        """A TH is answered TH, also to its binary frames."""
        self.send(text().replace(b"*HQ", b"*TH"), 0)
        self.send(binary("FFFFFFFF", 10), 10)
        self.assertEqual([b"*TH,", b"*TH,"], [data[:4] for data in self.link.written])

    def test_trap_29_text_and_binary_in_turn(self) -> None:
        """One device may send both in one session: it is one device, with one state."""
        self.send(text("FFFFFFFF", 0), 0)
        found = edges_of(self.send(binary("FFFFFFFB", 10), 10))
        found += edges_of(self.send(text("FFFFFFFB", 20), 20)) + edges_of(self.send(binary("FFFFFFFF", 30), 30))
        found += edges_of(self.send(text("FFFFFFFF", 100), 100))
        self.assertEqual([("alarm.overspeed", "raised"), ("alarm.overspeed", "cleared")], [e.edge for e in found])

    def test_trap_30_the_relays_output(self) -> None:
        """Bit 27 is the relay's output and nothing more: it says nothing of the engine and of the ignition."""
        self.send(text("FFFFFFFF", 0), 0)
        found = self.send(text("F7FFDFFF", 10), 10)
        self.assertEqual([("state.immobilizer", "raised")], [entry.edge for entry in edges_of(found)])
        report = report_of(found).fields
        self.assertEqual(("1", "1", "34.21"), (report["immobilizer"], report["ignition"], report["speed_kmh"]))

    def test_trap_31_hemisphere_letters(self) -> None:
        """Fixes on the wrong side of the globe for their network are reported; where a side is set, they are there."""
        frame = v1(lat="1935.5128", ns="N", lon="04656.3243", ew="E", tail="722,10,215,2135")
        found = []
        for number in range(15):
            found += self.send(frame.replace("120000", dated(10 * number)[0]).encode(), 10 * number)
        quality = [entry.data for entry in found if entry.type == "device.quality"]
        self.assertEqual([("hemisphere", "hemisphere=SW")], [(data["name"], data["setting"]) for data in quality])
        self.assertEqual({"19.591880"}, {e.fields["latitude"] for e in found if e.type == "position"})
        self.sink.stored[IDENT] = Stored(known=True, held=True, registry={"hemisphere": "SW"})
        self.start()
        columns = self.fix(frame.encode(), 0)
        self.assertEqual(("-19.591880", "-46.938738"), (columns["latitude"], columns["longitude"]))
