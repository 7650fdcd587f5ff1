"""The st907 plugin: what frames of the H02 family say, what they are answered, and where they end."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from gateway.devices.st907 import device
from gateway.devices.st907.settings import Options
from gateway.events import rounded
from gateway.interfaces import MORE, NO, YES, IDecoder, Memory, Message
from tests.fakes import NOON, Memories, no_memory

CLOCK = b"20261122120000"
#: Levels that are on.
PARKED: Mapping[str, bool] = {}
DRIVING = {"ignition": True}
CUT = {"immobilizer": True}


def word(text: str, powered: bool = True) -> dict[str, Any]:
    """What a status word says outside of the levels."""
    return {"status_word": text, "external_power": powered}


class Said(NamedTuple):
    """What one frame leads to."""

    ident: str
    type: str
    time: float | None
    attributes: Mapping[str, Any]
    levels: Mapping[str, bool] = {}
    reply: bytes | None = None


class Case(NamedTuple):
    """A name, bytes as a device sends them, and what they say."""

    name: str
    data: bytes
    said: Said


def utc(*when: int) -> float:
    """Year, month, day, hour, minute, second as epoch seconds."""
    return float(timegm((*when, 0, 0, 0)))


# fmt: off
TEXT: tuple[Case, ...] = (
    Case(
        "V1, the first frame of a session, no fix: the last position and the cell",
        b"*HQ,1234567890,V1,054356,V,4219.0032,N,00753.0002,W,000.00,213,250523,FBFFBBFF,214,03,13140,2735#",
        Said("1234567890", "position", utc(2023, 5, 25, 5, 43, 56),
             {"valid": False, "last_latitude": 42.31672, "last_longitude": -7.883337, **word("FBFFBBFF"),
              "late": "device", "mcc": "214", "mnc": "03", "lac": 13140, "cid": 2735},
             PARKED, b"*HQ,1234567890,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1, driving",
        b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,W,018.47,122,250523,FFFFBBFF,214,03,13140,5085#",
        Said("1234567890", "position", utc(2023, 5, 25, 16, 26, 14),
             {"valid": True, "latitude": 42.352832, "longitude": -7.875493, "speed_kmh": 34.21, "course_deg": 122,
              **word("FFFFBBFF"), "mcc": "214", "mnc": "03", "lac": 13140, "cid": 5085},
             PARKED, b"*HQ,1234567890,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1, too fast with the ignition on",
        b"*HQ,6170937422,V1,005233,A,2343.1337,N,09028.0470,E,018.11,130,110721,FFFF9FFB,470,02,00049,4606#",
        Said("6170937422", "position", utc(2021, 7, 11, 0, 52, 33),
             {"valid": True, "latitude": 23.718895, "longitude": 90.46745, "speed_kmh": 33.54, "course_deg": 130,
              **word("FFFF9FFB"), "mcc": "470", "mnc": "02", "lac": 49, "cid": 4606},
             {**DRIVING, "overspeed": True}, b"*HQ,6170937422,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 of an ST-901L that says 'no fix' with nines",
        b"*HQ,8888888888,V1,083600,V,9999.9999,N,99999.9999,E,000.00,000,070724,FFFFDFFF,231,03,10,196354#",
        Said("8888888888", "position", utc(2024, 7, 7, 8, 36, 0),
             {"valid": False, **word("FFFFDFFF"), "mcc": "231", "mnc": "03", "lac": 10, "cid": 196354},
             DRIVING, b"*HQ,8888888888,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 of old firmware: no tail, relay cut",
        b"*HQ,9171987900,V1,213324,A,5002.5849,N,01433.7822,E,0.00,000,140613,F7FFFBFF#",
        Said("9171987900", "position", utc(2013, 6, 14, 21, 33, 24),
             {"valid": True, "latitude": 50.043082, "longitude": 14.563037, "speed_kmh": 0.0, "course_deg": 0,
              **word("F7FFFBFF")},
             CUT, b"*HQ,9171987900,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 without a dot in its coordinates, and with a tail of another form",
        b"*HQ,5905101893,V1,105759,A,37573392,S,145037022,E,000.00,173,280122,FF7FFBFF,,,9059e2c,8232,4#",
        Said("5905101893", "position", utc(2022, 1, 28, 10, 57, 59),
             {"valid": True, "latitude": -37.955653, "longitude": 145.061703, "speed_kmh": 0.0, "course_deg": 173,
              **word("FF7FFBFF"), "io": {"input2_or_battery_low": True}, "tail": ",,9059e2c,8232,4"},
             PARKED, b"*HQ,5905101893,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 with dashes in its degrees",
        b"*HQ,1451316485,V1,121557,A,-23-3.3408,S,-48-2.8926,W,0.1,158,241115,FFFFFFFF#",
        Said("1451316485", "position", utc(2015, 11, 24, 12, 15, 57),
             {"valid": True, "latitude": -23.05568, "longitude": -48.04821, "speed_kmh": 0.19, "course_deg": 158,
              **word("FFFFFFFF")},
             DRIVING, b"*HQ,1451316485,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 with one digit of degrees and a decimal course",
        b"*HQ,354188045498669,V1,195200,A,701.8915,S,3450.3399,W,0.00,205.70,050213,ffffffff,000243,000000,000000#",
        Said("354188045498669", "position", utc(2013, 2, 5, 19, 52, 0),
             {"valid": True, "latitude": -7.031525, "longitude": -34.838998, "speed_kmh": 0.0, "course_deg": 206,
              **word("FFFFFFFF"), "tail": "000243,000000,000000"},
             DRIVING, b"*HQ,354188045498669,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 with blanks before its speed",
        b"*HQ,865205035331981,V1,132926,A,1935.3933,N,07920.4134,E,  3.34,342,280519,FFFFFFFF#",
        Said("865205035331981", "position", utc(2019, 5, 28, 13, 29, 26),
             {"valid": True, "latitude": 19.589888, "longitude": 79.340223, "speed_kmh": 6.19, "course_deg": 342,
              **word("FFFFFFFF")},
             DRIVING, b"*HQ,865205035331981,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 all zero: alive, without time and position",
        b"*HQ,353588020068342,V1,000000,V,0.0000,0,0.0000,0,0.00,0.00,000000,ffffffff,000106,000002,000203,004c87,16#",
        Said("353588020068342", "position", None,
             {"valid": False, **word("FFFFFFFF"), "mcc": "262", "mnc": "02", "lac": 515, "cid": 19591, "tail": "16"},
             DRIVING, b"*HQ,353588020068342,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 all empty: alive, without time and position",
        b"*HQ,353505510948929,V1,,V,,N,,E,0.00,0,,FFFFF7FF,f0,a,11a0,c0c6#",
        Said("353505510948929", "position", None,
             {"valid": False, **word("FFFFF7FF"), "mcc": "240", "mnc": "10", "lac": 4512, "cid": 49350},
             DRIVING, b"*HQ,353505510948929,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V1 with the word null for speed and course, which are then zero",
        b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,W,null,null,250523,FFFFFFFF#",
        Said("1234567890", "position", utc(2023, 5, 25, 16, 26, 14),
             {"valid": True, "latitude": 42.352832, "longitude": -7.875493, "speed_kmh": 0.0, "course_deg": 0,
              **word("FFFFFFFF")},
             DRIVING, b"*HQ,1234567890,V4,V1," + CLOCK + b"#"),
    ),
    Case(
        "V2 with a coding scheme in place of the validity",
        b"*HQ,353505221264507,V2,100220,0,5238.26259,N,00507.33983,E,0.25,0,280917,FFFFFFFF,cc,28,  db,d75b#",
        Said("353505221264507", "position", utc(2017, 9, 28, 10, 2, 20),
             {"valid": True, "latitude": 52.63771, "longitude": 5.122331, "speed_kmh": 0.46, "course_deg": 0,
              **word("FFFFFFFF"), "message_type": "V2", "mcc": "204", "mnc": "40", "lac": 219, "cid": 55131},
             DRIVING, b""),
    ),
    Case(
        "V4: an answer to S20 with a position; the relay is cut",
        b"*TH,2020916012,V4,S20,DONE,130305,050316,A,2212.8745,N,11346.6574,E,14.28,028,220902,F7FFFBFF#",
        Said("2020916012", "position", utc(2002, 9, 22, 5, 3, 16),
             {"valid": True, "latitude": 22.214575, "longitude": 113.777623, "speed_kmh": 26.45, "course_deg": 28,
              **word("F7FFFBFF"), "message_type": "V4", "reply_text": "S20,DONE,130305"},
             CUT),
    ),
    Case(
        "V4: a short answer",
        b"*HQ,2020916012,V4,S20,034313,1,1#",
        Said("2020916012", "status", None,
             {"message_type": "V4", "raw_text": "*HQ,2020916012,V4,S20,034313,1,1#", "reply_text": "S20,034313,1,1"}),
    ),
    Case(
        "V6: on battery, with the SIM's number",
        b"*HQ,3177718238,V6,002926,V,3514.4088,N,9733.2842,W,0.00,0.00,151222,FFF7FBFF,310,260,32936,13641,"
        b"8944501311217563382F,#",
        Said("3177718238", "position", utc(2022, 12, 15, 0, 29, 26),
             {"valid": False, "last_latitude": 35.240147, "last_longitude": -97.554737,
              **word("FFF7FBFF", powered=False), "message_type": "V6",
              "mcc": "310", "mnc": "260", "lac": 32936, "cid": 13641, "iccid": "8944501311217563382"},
             {"power.cut": True}, b""),
    ),
    Case(
        "V8: no degrees before the minutes",
        b"*HQ,9001000002,V8,213945,A,3542.2043,N,38.6508,W,0.00,170,221025,FBFFF9FF,0,0,0,0,22,31,126,0#",
        Said("9001000002", "position", utc(2025, 10, 22, 21, 39, 45),
             {"valid": True, "latitude": 35.703405, "longitude": -0.64418, "speed_kmh": 0.0, "course_deg": 170,
              **word("FBFFF9FF"), "message_type": "V8", "tail": "0,0,0,0,22,31,126,0", "late": "device",
              "satellites": 22, "csq": 31, "supply_v": 12.6},
             {"armed": True}, b""),
    ),
    Case(
        "V19: the status word after three other fields",
        b"*HQ,4209951296,V19,214452,A,5201.0178,N,01830.5029,E,000.00,000,200417,,195.63.13.195,"
        b"89480610500392633029,BFFFFBFF#",
        Said("4209951296", "position", utc(2017, 4, 20, 21, 44, 52),
             {"valid": True, "latitude": 52.016963, "longitude": 18.508382, "speed_kmh": 0.0, "course_deg": 0,
              **word("BFFFFBFF"), "message_type": "V19", "server": "195.63.13.195",
              "iccid": "89480610500392633029", "io": {"sensor2_high": True}},
             PARKED, b""),
    ),
    Case(
        "VP1: a date without a time is no time",
        b"*hq,356327080425330,VP1,A,2702.7245,S,15251.9311,E,0.48,0.0000,080917#",
        Said("356327080425330", "position", None,
             {"valid": True, "latitude": -27.045408, "longitude": 152.865518, "speed_kmh": 0.89, "course_deg": 0,
              "message_type": "VP1"}),
    ),
    Case(
        "NBR: cells and the date behind them",
        b"*HQ,4109179024,NBR,103732,722,310,0,6,8106,32010,23,8101,22007,25,8106,42010,5,100217,FFFFFBFF,5#",
        Said("4109179024", "status", utc(2017, 2, 10, 10, 37, 32),
             {"message_type": "NBR", **word("FFFFFBFF"), "battery_raw": 5,
              "raw_text": "*HQ,4109179024,NBR,103732,722,310,0,6,8106,32010,23,8101,22007,25,8106,42010,5,"
                          "100217,FFFFFBFF,5#",
              "cells": [{"mcc": "722", "mnc": "310", "lac": 8106, "cid": 32010, "rssi_dbm": -87},
                        {"mcc": "722", "mnc": "310", "lac": 8101, "cid": 22007, "rssi_dbm": -85},
                        {"mcc": "722", "mnc": "310", "lac": 8106, "cid": 42010, "rssi_dbm": -105}]},
             PARKED, b"*HQ,4109179024,V4,NBR," + CLOCK + b"#"),
    ),
    Case(
        "HTBT: a heartbeat of a 10-digit ident is echoed without what it carries",
        b"*HQ,1234567890,HTBT,100#",
        Said("1234567890", "status", None, {"message_type": "HTBT", "raw_text": "*HQ,1234567890,HTBT,100#",
                                               "battery_raw": 100, "battery_pct": 100},
             {}, b"*HQ,1234567890,HTBT#"),
    ),
    Case(
        "V0: the same heartbeat under its other name, of another maker",
        b"*TH,1234567890,V0#",
        Said("1234567890", "status", None, {"message_type": "V0", "raw_text": "*TH,1234567890,V0#"},
             {}, b"*TH,1234567890,V0#"),
    ),
    Case(
        "XT: a heartbeat that nobody answers",
        b"*hq,356327080425330,XT,1,100#",
        Said("356327080425330", "status", None, {"message_type": "XT", "raw_text": "*hq,356327080425330,XT,1,100#",
                                                       "battery_raw": 100, "battery_pct": 100}),
    ),
    Case(
        "a bare keep-alive",
        b"*HQ,4109198974,#",
        Said("4109198974", "status", None, {"raw_text": "*HQ,4109198974,#"}),
    ),
    Case(
        "a type that nobody knows",
        b"*HQ,4109198974,QQ9,1,2,3#",
        Said("4109198974", "status", None, {"message_type": "QQ9", "raw_text": "*HQ,4109198974,QQ9,1,2,3#"}),
    ),
    Case(
        "SMS: the text of a command's answer, line ends and all",
        b"*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nVOLT:12.9V\nGSM:26#",
        Said("5226073533", "status", None,
             {"message_type": "SMS",
              "raw_text": "*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nVOLT:12.9V\nGSM:26#",
              "firmware": "ST906(70SACD)_TQ_V_2.0", "firmware_date": "2024-06-07", "supply_v": 12.9, "csq": 26}),
    ),
    Case(
        "SMS: a text that holds the end sign",
        b"*HQ,5226073533,SMS,PIN#123456#OK#",
        Said("5226073533", "status", None,
             {"message_type": "SMS", "raw_text": "*HQ,5226073533,SMS,PIN#123456#OK#"}),
    ),
)

TAIL_32 = "ff0024"
TAIL_42 = "ff01120064ba73005ecc"
TAIL_45 = "ff0015060000002c02dc0c000000001f"
TAIL_46 = "ff03440069129344006400001151415a20"
TAIL_48 = "ff02527765660600000000000000000000490a"[:38]

# Offsets of the documentation, field by field: $, id, time, date, latitude, battery, longitude and flags,
# speed and course, status word, tail
BINARY: tuple[Case, ...] = (
    Case(
        "$ of 32 bytes, south and west",
        bytes.fromhex("24" "4300256455" "111838" "170913" "19355128" "00" "046563243" "2" "000" "100" "ffe7fbff"
                      + TAIL_32),
        Said("4300256455", "position", utc(2013, 9, 17, 11, 18, 38),
             {"valid": True, "latitude": -19.59188, "longitude": -46.938738, "speed_kmh": 0.0, "course_deg": 100,
              **word("FFE7FBFF", powered=False), "io": {"battery_removed": True},
              "battery_raw": 0, "message_type": "$", "tail": TAIL_32},
             {"power.cut": True}, b"*HQ,4300256455,R12,120000#"),
    ),
    Case(
        "$ of 32 bytes without a fix",
        bytes.fromhex("24" "1030731001" "050316" "220902" "22128745" "00" "113466574" "c" "014" "028" "fffffbff"
                      + TAIL_32),
        Said("1030731001", "position", utc(2002, 9, 22, 5, 3, 16),
             {"valid": False, "last_latitude": 22.214575, "last_longitude": 113.777623,
              **word("FFFFFBFF"), "battery_raw": 0, "message_type": "$", "tail": TAIL_32},
             PARKED, b"*HQ,1030731001,R12,120000#"),
    ),
    Case(
        "$ of 42 bytes, with an IMEI",
        bytes.fromhex("24" "3524830841932930" "104759" "180817" "26273359" "00" "074412294" "e" "024" "138" "feffffff"

                      + TAIL_42),
        Said("352483084193293", "position", utc(2017, 8, 18, 10, 47, 59),
             {"valid": True, "latitude": 26.455598, "longitude": 74.687157, "speed_kmh": 44.45, "course_deg": 138,
              **word("FEFFFFFF"), "battery_raw": 0, "message_type": "$", "tail": TAIL_42},
             DRIVING, b"*HQ,352483084193293,R12,120000#"),
    ),
    Case(
        "$ of 45 bytes, north and west",
        bytes.fromhex("24" "4106000826" "215321" "310815" "04419390" "06" "074041830" "6" "000" "000" "fffffbfd"
                      + TAIL_45),
        Said("4106000826", "position", utc(2015, 8, 31, 21, 53, 21),
             {"valid": True, "latitude": 4.698983, "longitude": -74.069717, "speed_kmh": 0.0, "course_deg": 0,
              **word("FFFFFBFD"), "battery_raw": 6, "message_type": "$", "tail": TAIL_45,
              "csq": 21, "satellites": 6, "odometer_km": 44},
             {"sos": True}, b"*HQ,4106000826,R12,120000#"),
    ),
    Case(
        "$ of 46 bytes",
        bytes.fromhex("24" "2130510938" "012717" "100317" "05200465" "00" "100286297" "e" "003" "085" "ffffdfff"
                      + TAIL_46),
        Said("2130510938", "position", utc(2017, 3, 10, 1, 27, 17),
             {"valid": True, "latitude": 5.334108, "longitude": 100.477162, "speed_kmh": 5.56, "course_deg": 85,
              **word("FFFFDFFF"), "battery_raw": 0, "message_type": "$", "tail": TAIL_46, "odometer_km": 69129.344,
              "altitude_m": 17, "io": {"temperature": 0, "fuel": 100}, "lac": 20801, "cid": 23072},
             DRIVING, b"*HQ,2130510938,R12,120000#"),
    ),
    Case(
        "$ of 48 bytes",
        bytes.fromhex("24" "9713050072" "052019" "161015" "33335008" "00" "007320697" "6" "000" "000" "effffbff"
                      + TAIL_48),
        Said("9713050072", "position", utc(2015, 10, 16, 5, 20, 19),
             {"valid": True, "latitude": 33.558347, "longitude": -7.534495, "speed_kmh": 0.0, "course_deg": 0,
              **word("EFFFFBFF", powered=False), "battery_raw": 0, "message_type": "$", "tail": TAIL_48},
             {"power.cut": True}, b"*HQ,9713050072,R12,120000#"),
    ),
)
# fmt: on

CASES = TEXT + BINARY


def decoder(memory: Memory = no_memory) -> IDecoder:
    """A fresh decoder."""
    made: IDecoder = device.decoder(Options(), memory)
    return made


def said(message: Message) -> Said | str:
    """A message in the form of the table; the reason of one that can't be read."""
    if message.error is not None:
        return message.error.reason
    (event,) = message.events
    reply = None if message.reply is None else message.reply(NOON)
    on = {name: True for name, is_on in message.levels.items() if is_on}
    return Said(message.ident or "", event.type, event.time, rounded(event.attributes), on, reply)


def bytewise(reads: bytes, made: IDecoder) -> list[Message]:
    """What a stream says when each read brings one byte."""
    return [message for i in range(len(reads)) for message in made.receive(reads[i : i + 1], NOON)]


class TableTests(SynchronousTestCase):
    """Each case of the table, however the network delivers it."""

    maxDiff = None

    def each(self, run: Callable[[Case], tuple[object, object]]) -> None:
        """Hold what C{run} gives against what it expects, for every case; all that differ are shown."""
        wrong = []
        for case in CASES:
            got, wanted = run(case)
            if got != wanted:
                wrong.append(f"{case.name}:\n  got    {got}\n  wanted {wanted}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_whole(self) -> None:
        """A frame that arrives in one piece says what the documentation says of it, and is answered as it should be."""

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = [*made.receive(case.data, NOON), *made.finish(NOON)]
            return ([said(m) for m in messages], [m.raw for m in messages], made.rest), ([case.said], [case.data], b"")

        self.each(run)

    def test_byte_by_byte(self) -> None:
        """A frame that arrives byte by byte says the same."""

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = [*bytewise(case.data, made), *made.finish(NOON)]
            return ([said(m) for m in messages], [m.raw for m in messages]), ([case.said], [case.data])

        self.each(run)

    def test_doubled(self) -> None:
        """Two frames in one piece are two frames."""

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = [*made.receive(case.data * 2, NOON), *made.finish(NOON)]
            return [said(m) for m in messages], [case.said] * 2

        self.each(run)

    def test_doubled_byte_by_byte(self) -> None:
        """Two frames one after the other, byte by byte, are the same two frames."""

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = [*bytewise(case.data * 2, made), *made.finish(NOON)]
            return [said(m) for m in messages], [case.said] * 2

        self.each(run)

    def test_trailing_bytes(self) -> None:
        """A frame with a line end and the start of the next frame behind it is one frame; the start is kept."""

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = made.receive(case.data + b"\r\n*HQ,12", NOON)
            return ([said(m) for m in messages], made.rest), ([case.said], b"*HQ,12")

        self.each(run)

    def test_after_noise(self) -> None:
        """Bytes that start no frame are reported once, and the frame after them is read."""
        noise = b"\x00\xff\x7eNOISE\x01"

        def run(case: Case) -> tuple[object, object]:
            made = decoder()
            messages = [*made.receive(noise + case.data, NOON), *made.finish(NOON)]
            return ([m.raw for m in messages], [m.error is None for m in messages], said(messages[-1])), (
                [noise[1:], case.data],
                [False, True],
                case.said,
            )

        self.each(run)

    def test_detected(self) -> None:
        """Each frame alone is enough to know the device, on TCP and on UDP; no prefix of it is refused."""

        def run(case: Case) -> tuple[object, object]:
            answers = [device.detect(case.data[:n], "tcp") for n in range(len(case.data) + 1)]
            last = device.detect(case.data, "udp")
            refused = [n for n, answer in enumerate(answers) if isinstance(answer, NO)]
            sure = isinstance(last, YES) and last.confidence >= 60
            return (answers[0], refused, sure, last), (MORE(0, "nothing yet"), [], True, answers[-1])

        self.each(run)


class TextFramingTests(SynchronousTestCase):
    """Where text frames end."""

    def frames(self, *reads: bytes, finish: bool = True) -> list[tuple[bytes, bool]]:
        """The frames in these reads, and whether each could be read."""
        made = decoder()
        messages = [m for read in reads for m in made.receive(read, NOON)]
        if finish:
            messages += made.finish(NOON)
        return [(m.raw, m.error is None) for m in messages]

    def test_many_in_one_read(self) -> None:
        """Frames of different devices with nothing, a line end or blanks between them come apart."""
        a, b, c = b"*HQ,1234567890,V0#", b"*HQ,1234567891,V0#", b"*TH,1234567892,HTBT,1#"
        self.assertEqual([(a, True), (b, True), (c, True)], self.frames(a + b + b" \r\n\0" + c + b"\r\n"))

    def test_sms_goes_on_after_its_end_sign(self) -> None:
        """An SMS text ends at the first end sign after which a frame can start, not before."""
        sms, next_one = b"*HQ,1234567890,SMS,a#b#", b"*HQ,1234567890,V0#"
        self.assertEqual([(sms, True), (next_one, True)], self.frames(sms + next_one))
        self.assertEqual([(sms, True), (next_one, True)], self.frames(sms + b"\r\n" + next_one))
        self.assertEqual([(sms, True), (next_one, True)], self.frames(sms, next_one))

    def test_sms_waits_for_what_follows(self) -> None:
        """An SMS text whose end can't be told is kept until a second of silence has passed."""
        made = decoder()
        self.assertIsNone(made.deadline)
        self.assertEqual([], list(made.receive(b"*HQ,1234567890,SMS,a#", NOON)))
        self.assertEqual(1.0, made.deadline)
        self.assertEqual([], list(made.receive(b"*H", NOON)), "the start of a frame, or more text")
        self.assertEqual([], list(made.receive(b"ello#", NOON)), "it was text")
        self.assertEqual(1.0, made.deadline)
        self.assertEqual([b"*HQ,1234567890,SMS,a#*Hello#"], [m.raw for m in made.finish(NOON + 1)])
        self.assertIsNone(made.deadline)

    def test_sms_of_the_longest_ident(self) -> None:
        """An SMS text of an ident of 17 digits may hold the end sign as that of any other."""
        sms = b"*HQ,12345678901234567,SMS,a#b#"
        self.assertEqual([(sms, True)], self.frames(sms))

    def test_short_frame_before_sms(self) -> None:
        """A short frame with a word of an SMS text behind it ends at its own end sign, whole or byte by byte."""
        for first in (b"*HQ,#", b"*HQ,,V0#", b"*HQ,123,V0#"):
            for behind in (b"*HQ,123,SMS,a#b#", b"123,SMS,a#"):
                stream = first + behind
                for reads in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
                    self.assertEqual(first, self.frames(*reads)[0][0], stream)

    def test_binary_after_sms(self) -> None:
        """A binary frame behind an SMS text ends the text."""
        sms, binary = b"*HQ,1234567890,SMS,a#b#", BINARY[0].data
        self.assertEqual([(sms, True), (binary, True)], self.frames(sms + binary))

    def test_cut_short(self) -> None:
        """A frame that breaks off and is followed by another costs only itself."""
        half, whole = b"*HQ,1234567890,V1,0543", b"*HQ,1234567890,V0#"
        self.assertEqual([(half, False), (whole, True)], self.frames(half + whole))

    def test_other_makers(self) -> None:
        """Any two letters are a maker's code, and the answer carries them."""
        made = decoder()
        (message,) = made.receive(b"*XY,1234567890,HTBT,7#", NOON)
        self.assertEqual(b"*XY,1234567890,HTBT#", message.reply(NOON) if message.reply else None)

    def test_letters_are_ascii(self) -> None:
        """Bytes past ASCII are no maker's code: such a stream is not an ST-907's."""
        self.assertIsInstance(device.detect(b"*\xc9\xe9,1234567890,V1,", "tcp"), NO)

    def test_too_long(self) -> None:
        """A text without an end is given up at 2,048 bytes, is reported, and the next frame is read."""
        junk, whole = b"*HQ,1234567890,V1," + b"x" * 5000, b"*HQ,1234567890,V0#"
        frames = self.frames(junk + whole)
        self.assertEqual((whole, True), frames[-1])
        self.assertEqual(junk, b"".join(raw for raw, good in frames[:-1]))
        self.assertFalse(any(good for raw, good in frames[:-1]))

    def test_too_long_however_it_is_cut(self) -> None:
        """What becomes of a text without an end, and of the frame behind it, does not depend on the reads."""
        for behind in (b"*HQ,1234567890,V0#", BINARY[0].data + b"\r\n", b""):
            stream = b"*HQ,1234567890,V1," + b"y" * 5000 + b"#" + behind
            whole = self.frames(stream)
            single = self.frames(*(stream[i : i + 1] for i in range(len(stream))))
            self.assertEqual(
                [(len(raw), good) for raw, good in single], [(len(raw), good) for raw, good in whole], repr(behind)
            )

    def test_noise_however_it_is_cut(self) -> None:
        """How noise is reported does not depend on the reads."""
        stream = b"n" * 5000 + b"*HQ,1234567890,V0#"
        single = self.frames(*(stream[i : i + 1] for i in range(len(stream))))
        self.assertEqual([len(raw) for raw, _ in single], [len(raw) for raw, _ in self.frames(stream)])


class BinaryFramingTests(SynchronousTestCase):
    """Where C{$} and C{X} frames end."""

    def lengths(self, *reads: bytes, memory: Memory = no_memory, finish: bool = True) -> list[int]:
        """How long the frames in these reads are; a negative number is one that can't be read."""
        made = decoder(memory)
        messages = [m for read in reads for m in made.receive(read, NOON)]
        if finish:
            messages += made.finish(NOON)
        return [len(m.raw) if m.error is None else -len(m.raw) for m in messages]

    def test_what_follows_decides(self) -> None:
        """A binary frame of any length ends where text, a line end, or another binary frame starts."""
        text = b"*HQ,1234567890,V0#"
        for case in BINARY:
            for other in BINARY:
                self.assertEqual(
                    [len(case.data), len(other.data)], self.lengths(case.data + other.data), (case.name, other.name)
                )
            self.assertEqual([len(case.data)], self.lengths(case.data + b"\r\n", finish=False), case.name)
            for end in (b"\n", b"\r"):  # alone it may be a count of satellites: what comes then decides
                self.assertEqual([], self.lengths(case.data + end, finish=False), case.name)
                self.assertEqual([len(case.data)], self.lengths(case.data + end), case.name)
                self.assertEqual(
                    [len(case.data), len(text)], self.lengths(case.data + end + text, finish=False), case.name
                )
            self.assertEqual([len(case.data), len(text)], self.lengths(case.data + text, finish=False), case.name)

    def test_waits_for_what_follows(self) -> None:
        """A frame with nothing behind it is kept for a second: 13 more bytes may belong to it."""
        made = decoder()
        self.assertEqual([], list(made.receive(BINARY[0].data, NOON)))
        self.assertEqual(1.0, made.deadline)
        self.assertEqual([32], [len(m.raw) for m in made.finish(NOON + 1)])
        self.assertIsNone(made.deadline)

    def test_stalls_inside_a_frame(self) -> None:
        """45 bytes of which 40 came first are one frame of 45."""
        data = BINARY[3].data
        self.assertEqual([45], self.lengths(data[:40], data[40:]))

    def test_silence_takes_the_largest_that_fits(self) -> None:
        """After a second with 40 bytes the frame has 32, and the rest is not lost track of."""
        data = BINARY[3].data
        made = decoder()
        made.receive(data[:40], NOON)
        messages = list(made.finish(NOON + 1))
        self.assertEqual(32, len(messages[0].raw))
        self.assertEqual(data[:40], b"".join(m.raw for m in messages) + made.rest)

    def test_no_end_sign_inside(self) -> None:
        """Stars, dollars and end signs inside a binary frame are bytes like any other."""
        data = bytes.fromhex(
            "24" "2324582400" "232424" "240323" "23242323" "23" "023242324" "e" "023" "024" "fffffbff" "ff2a24"
        )  # fmt: skip
        self.assertEqual([32], self.lengths(data + b"\r\n"))

    def test_length_seen_twice(self) -> None:
        """A length that an ident's frames had twice holds at once from then on, on later connections too."""
        memories = Memories()
        data = BINARY[3].data
        self.assertEqual([45], self.lengths(data + b"*HQ,", memory=memories, finish=False))
        self.assertEqual([], self.lengths(data, memory=memories, finish=False), "seen once")
        self.assertEqual([45], self.lengths(data + b"*HQ,", memory=memories, finish=False))
        self.assertEqual([45], self.lengths(data, memory=memories, finish=False), "seen twice")
        self.assertEqual([], self.lengths(BINARY[0].data, memory=memories, finish=False), "another ident")

    def test_x_frame(self) -> None:
        """An X frame has 32 bytes and no ident: it belongs to whoever spoke before it, and is answered as he is."""
        made = decoder()
        x = b"X" + bytes.fromhex("0000981499") + BINARY[0].data[6:]
        messages = [*made.receive(b"*TH,1234567890,V0#" + x + x, NOON)]
        self.assertEqual(["1234567890"] * 3, [m.ident for m in messages])
        self.assertEqual([18, 32, 32], [len(m.raw) for m in messages])
        self.assertEqual(b"*TH,1234567890,R12,120000#", messages[1].reply(NOON) if messages[1].reply else None)
        self.assertEqual("X", messages[1].events[0].attributes["message_type"])

    def test_maker_of_the_last_text(self) -> None:
        """A binary frame is answered with the maker's code of the text frame before it; before any with HQ."""
        made = decoder()
        data = BINARY[0].data
        messages = [*made.receive(data + b"*TH,1234567890,V0#" + data + b"*HQ,1234567890,V0#" + data + b"\r\n", NOON)]
        replies = [m.reply(NOON) for m in messages[::2] if m.reply is not None]
        self.assertEqual([b"*HQ,43", b"*TH,43", b"*HQ,43"], [reply[:6] for reply in replies])

    def test_not_a_frame(self) -> None:
        """A dollar without time, position and status word starts no frame; the frame after it is read."""
        good = BINARY[0].data
        for bad in (b"$", b"$GPRMC,1", b"$" + b"\x11" * 40, b"$" + b"\x99" * 40, b"X" * 40):
            made = decoder()
            messages = [*made.receive(bad + good, NOON), *made.finish(NOON)]
            self.assertEqual(good, messages[-1].raw, bad)
            self.assertEqual(bad, b"".join(m.raw for m in messages[:-1]))

    def test_past_the_pole(self) -> None:
        """90 degrees and 59 minutes is no latitude, 180 and 59 no longitude: neither is published."""
        for digits in ("9059512800046563243", "1935512800180563243"):
            data = bytes.fromhex("244300256455111838170913" + digits + "e000100ffe7fbffff0000")
            made = decoder()
            for message in [*made.receive(data + b"\r\n", NOON), *made.finish(NOON)]:
                for event in message.events:
                    self.assertLessEqual(abs(event.attributes.get("latitude", 0)), 90)
                    self.assertLessEqual(abs(event.attributes.get("longitude", 0)), 180)

    def test_noise_of_starts_is_quick(self) -> None:
        """A read full of dollar signs costs little: each byte is looked at a bounded number of times."""
        from time import process_time

        for byte in (b"$", b"*", b"X"):
            spent = []
            for size in (16_384, 65_536):
                made = decoder()
                before = process_time()
                made.receive(byte * size, NOON)
                spent.append(process_time() - before)
            self.assertLess(spent[1], max(spent[0], 0.02) * 8, f"{byte!r}: {spent}")


class ReadingTests(SynchronousTestCase):
    """Fields that are not what they should be, and what must not come out of them."""

    def read(self, frame: bytes, memory: Memory = no_memory) -> Message:
        """The one message of a frame."""
        made = decoder(memory)
        (message,) = [*made.receive(frame, NOON), *made.finish(NOON)]
        return message

    def v1(self, **fields: str) -> Message:
        """A V1 report with some fields replaced."""
        values = {
            "time": "054356", "flag": "A", "lat": "4219.0032", "ns": "N", "lon": "00753.0002", "ew": "E",
            "speed": "010.00", "course": "213", "date": "250523", "status": "FFFFFFFF", **fields,
        }  # fmt: skip
        return self.read(b"*HQ,1234567890,V1," + ",".join(values.values()).encode() + b"#")

    def test_unreadable(self) -> None:
        """A frame whose fields are no numbers is reported as undecodable with its bytes; nothing raises."""
        for fields in ({"lat": "north"}, {"lon": "1"}):
            message = self.v1(**fields)
            self.assertIsNotNone(message.error, fields)
            self.assertEqual("1234567890", message.ident)
            self.assertEqual((), tuple(message.events))
            self.assertIsNone(message.reply)

    def test_speed_and_course_alone(self) -> None:
        """A speed or course that is no figure is left out; the position beside it stands and is answered."""
        for fields, gone in (({"speed": "fast"}, "speed_kmh"), ({"course": "361"}, "course_deg")):
            message = self.v1(**fields)
            self.assertIsNone(message.error)
            self.assertIsNotNone(message.reply)
            attributes = rounded(message.events[0].attributes)
            self.assertNotIn(gone, attributes)
            self.assertEqual(42.316720, attributes["latitude"])

    def test_numbers_that_are_none(self) -> None:
        """Infinite, huge and signed 'numbers' never raise and are never published as a speed or a course."""
        wrong = []
        for field in ("speed", "course", "lat", "lon"):
            for text in ("inf", "nan", "-inf", "1e999", "-5", "9" * 400, "9" * 400 + "00.0", "1_0"):
                try:
                    message = self.v1(**{field: text})
                except Exception as error:
                    wrong.append(f"{field} {text[:12]} raises {error!r}")
                    continue
                for event in message.events:
                    said = rounded(event.attributes)
                    found = {k: said[k] for k in ("speed_kmh", "course_deg") if k in said}
                    if not all(0 <= value < 5000 for value in found.values()):
                        wrong.append(f"{field} {text[:12]}: {found}")
        self.assertEqual([], wrong)

    def test_cell_that_is_too_big(self) -> None:
        """A cell id that fits no 64-bit number is not made one: it stays in the tail."""
        message = self.read(
            b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,W,018.47,122,250523,FFFFBBFF,214,03,1,"
            + b"9" * 30
            + b"#"
        )
        self.assertNotIn("cid", rounded(message.events[0].attributes))

    def test_big_numbers_elsewhere(self) -> None:
        """No field becomes a number of more than 64 bits, which the stream could not carry."""
        nines = b"9" * 30
        for frame in (
            b"*HQ,1234567890,NBR,103732,722,310,0,1," + nines + b"," + nines + b",23,100217,FFFFFBFF,5#",
            b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,W,018.47,122," + nines + b",250523,FFFFBBFF#",
        ):
            for event in self.read(frame).events:
                cells = event.attributes.get("cells", [{}])
                numbers = [*event.attributes.values(), *(value for cell in cells for value in cell.values())]
                self.assertTrue(all(v < 1 << 63 for v in numbers if isinstance(v, int)), frame)

    def test_validity(self) -> None:
        """Only A is a fix; V, B, nothing and anything else are none, and then there is no speed and no course."""
        self.assertEqual(True, self.v1(flag="A").events[0].attributes["valid"])
        for flag in ("V", "B", "", "a", "AA"):
            attributes = rounded(self.v1(flag=flag).events[0].attributes)
            self.assertEqual(False, attributes["valid"], flag)
            self.assertEqual({"last_latitude": 42.31672, "last_longitude": 7.883337}.items() & attributes.items(),
                             {"last_latitude": 42.31672, "last_longitude": 7.883337}.items())  # fmt: skip
            self.assertTrue({"latitude", "longitude", "speed_kmh", "course_deg"}.isdisjoint(attributes), flag)

    def test_coding_scheme_is_of_v2_and_vi1(self) -> None:
        """A digit for validity is the coding scheme of V2 and VI1; a V1 with one has no fix."""
        self.assertEqual(False, self.v1(flag="0").events[0].attributes["valid"])

    def test_trimmed_fields(self) -> None:
        """Blanks around a field change nothing, not the hemisphere either."""
        plain = rounded(self.v1(ns="S", ew="W").events[0].attributes)
        for fields in ({"ns": " S"}, {"ew": "W "}, {"flag": "A "}, {"date": "250523 "}, {"status": " FFFFFFFF "}):
            got = rounded(self.v1(**{"ns": "S", "ew": "W", **fields}).events[0].attributes)
            self.assertEqual(plain, got, fields)

    def test_oddities_of_time(self) -> None:
        """69 seconds are counted on; an hour of 25, an empty time and a zero date are no time."""
        self.assertEqual(utc(2023, 5, 25, 16, 2, 9), self.v1(time="160169").events[0].time)
        for fields in ({"time": "250000"}, {"time": ""}, {"date": "000000"}, {"date": ""}, {"date": "310223"}):
            self.assertIsNone(self.v1(**fields).events[0].time, fields)

    def test_field_before_the_date(self) -> None:
        """A Prime-07 puts its battery index before the date; date and status word are still found."""
        message = self.read(
            b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,E,000.5,047,4,080918,EEE7FBDF,4261193,0#"
        )
        (event,) = message.events
        self.assertEqual(utc(2018, 9, 8, 16, 26, 14), event.time)
        self.assertEqual(
            {"battery_raw": 4, "status_word": "EEE7FBDF", "tail": "4261193,0", "speed_kmh": 0.93}.items(),
            {"battery_raw": 4, "status_word": "EEE7FBDF", "tail": "4261193,0", "speed_kmh": 0.93}.items()
            & rounded(event.attributes).items(),
        )

    def test_first_status_word_counts(self) -> None:
        """Of two words of eight hex digits the first is the status."""
        message = self.read(
            b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,E,000.5,047,080918,FFFFFBFF,1,2,DEADBEEF#"
        )
        self.assertEqual("FFFFFBFF", message.events[0].attributes["status_word"])

    def test_no_status_word(self) -> None:
        """A report without a status word says nothing of ignition and relay."""
        self.assertEqual({}, dict(self.v1(status="").levels))

    def test_v2_with_an_empty_ident(self) -> None:
        """A frame without an ident is that of whoever spoke before on the connection, in the answer too."""
        made = decoder()
        report = b"*HQ,,V1,173212,A,2225.78879,S,02829.19021,E,0.00,0,290418,FFFFFBFF#"
        messages = [*made.receive(b"*HQ,1234567890,V0#" + report, NOON)]
        self.assertEqual("1234567890", messages[1].ident)
        self.assertEqual(b"*HQ,1234567890,V4,V1," + CLOCK + b"#", messages[1].reply(NOON) if messages[1].reply else b"")
        self.assertEqual(-22.429813, rounded(messages[1].events[0].attributes)["latitude"])

    def test_bad_idents(self) -> None:
        """An ident is digits and nothing else: what would break a key is undecodable."""
        for ident in (b"12 34", b"abc", b"1" * 18, b"12:34", b"-123", b"12"):
            made = decoder()
            messages = [*made.receive(b"*HQ," + ident + b",V0#", NOON)]
            self.assertIsNotNone(messages[0].error, ident)

    def test_too_many_fields(self) -> None:
        """A report with a thousand more fields is a report, or undecodable, and is bounded."""
        message = self.read(b"*HQ,1234567890,V1" + b",1" * 900 + b"#")
        self.assertEqual(1, len(message.events) + (message.error is not None))

    def test_v4_without_a_position(self) -> None:
        """Answers to commands without a position block are kept as text."""
        for text in (
            "*HQ,2020916012,V4,S21,17,1,130305,050316,N,2245.318,2246.452,E,11233.232,11365.175,FFFFFBFF#",
            "*HQ,2020916012,V4,S21,17,0, 130305,050316,FFFFFBFF#",
        ):
            (event,) = self.read(text.encode()).events
            self.assertEqual(("status", text), (event.type, event.attributes["raw_text"]))


class StatusTests(SynchronousTestCase):
    """The status word, as levels: 0 is 'on' there.  Each bit by itself: test_st907_status."""

    def levels(self, word: str, flag: str = "A") -> Mapping[str, bool]:
        """What a report with this word says."""
        frame = f"*HQ,1234567890,V1,054356,{flag},4219.0032,N,00753.0002,W,000.00,213,250523,{word}#"
        (message,) = decoder().receive(frame.encode(), NOON)
        return message.levels

    def test_words(self) -> None:
        """Bit 10 is ignition, bit 27 the relay, bit 2 overspeed, each alone, in capital letters and small ones."""
        table: Sequence[tuple[str, set[str]]] = (
            ("FFFFFFFF", {"ignition"}),
            ("FFFFFBFF", set()),
            ("F7FFFFFF", {"ignition", "immobilizer"}),
            ("FFFFFFFB", {"ignition", "overspeed"}),
            ("f7fffbfb", {"immobilizer", "overspeed"}),
            ("FFFF9FFB", {"ignition", "overspeed"}),
        )
        for word, on in table:
            self.assertEqual(on, {name for name, is_on in self.levels(word).items() if is_on}, word)

    def test_no_fix_no_overspeed(self) -> None:
        """Without a fix the device repeats its last speed: such a frame says nothing of overspeed."""
        self.assertNotIn("overspeed", self.levels("FFFFFFFB", "V"))
