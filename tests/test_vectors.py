"""The public vectors of ../shared: what each message says, and the laws of detection over all of them."""

from __future__ import annotations

import json
import os
import random
import sys
from calendar import timegm
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from time import strptime
from typing import Any, Final, NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from gateway import registry
from gateway.connection import Connection, Limits
from gateway.detection import Candidates, Detector
from gateway.devices.st907 import device
from gateway.devices.st907.frames import LENGTHS
from gateway.events import rounded
from gateway.fields import KMH_PER_KNOT
from gateway.interfaces import MORE, NO, YES, Memory, Message
from tests.fakes import NOON, Memories, no_memory

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"
#: What the ST-907's family is called there.
FAMILY = "h02"
#: Chains of messages: more with C{GATEWAY_LONG=1}.
LONG: Final = os.environ.get("GATEWAY_LONG") == "1"
CHAINS: Final = 10_000 if LONG else 500
OF_A_CHAIN: Final = 20

# What messages say beyond their line of st907_expected.jsonl, which has what Traccar's tests hold and notes of the
# rest: each key that is not in the line, with why it is right.  All else is exactly as the line has it.
#
# In general: a line has the fields behind the status word as "extras"; here they are the cell, the battery or the
# tail that st907.md 3.2 finds in them.  It has speed and course of frames without a fix, too; they are the last fix's
# and are not published (st907.md 3.2, trap 7).
# fmt: off
BEYOND: Final[Mapping[str, Mapping[str, Any]]] = {
    # no shape of a tail that is known: kept as it came; bit 23 is an input or a low battery, nobody knows (trap 4)
    "*HQ,5905101893,V1,105759,A,37573392,S,145037022,E,000.00,173,280122,FF7FFBFF,,,9059e2c,8232,4#":
        {"tail": ",,9059e2c,8232,4", "io": {"input2_or_battery_low": True}},
    # a heartbeat has its battery in percent (3.3), and so has XT (3.11)
    "*HQ,135790246811220,HTBT,100#": {"battery_raw": 100, "battery_pct": 100},
    "*HQ,356327080425330,XT,1,100#": {"battery_raw": 100, "battery_pct": 100},
    # 45 bytes have mileage and cell (3.13); the tail stays beside what was read of it, for it is likely, not certain;
    # this one has other bytes than ff 00 before its signal and satellites, which then are none
    "2491802711800850240512192350143206090249758e000001ffffbbff00bdf0900000000001d60161cc4b9a35":
        {"tail": "00bdf0900000000001d60161cc4b9a35", "odometer_km": 0,
         "mcc": "470", "mnc": "01", "lac": 25036, "cid": 19354},
    # the others have signal and satellites; an area and a cell of zero are no cell
    "24410600082621532131081504419390060740418306000000fffffbfdff0015060000002c02dc0c000000001f":
        {"tail": "ff0015060000002c02dc0c000000001f", "csq": 21, "satellites": 6, "odometer_km": 44},
    "2441090013450831250401145047888000008554650e000000fffff9ffff001006000000000106020299109c01":
        {"tail": "ff001006000000000106020299109c01", "csq": 16, "satellites": 6, "odometer_km": 0,
         "mcc": "262", "mnc": "02", "lac": 665, "cid": 4252},
    # what the tails of 32, 42 and 48 bytes say is not known well enough: kept
    "2427051711092133391406135002584900014337822e000000ffffffffff0000": {"tail": "ff0000"},
    "2427051711092134091406135002584900014337822e000000ffffffffff0000": {"tail": "ff0000"},
    "2410307310010503162209022212874500113466574c014028fffffbffff0000": {"tail": "ff0000"},
    "2435248308419329301047591808172627335900074412294e024138feffffffff01120064ba73005ecc":
        {"tail": "ff01120064ba73005ecc"},
    "24971305007205201916101533335008000073206976000000effffbffff000252776566060000000000000000000049":
        {"tail": "ff000252776566060000000000000000000049"},
    # 46 bytes have what the text of the same device has (3.13): metres, temperature, fuel, altitude, LAC and cell
    "2421305109380127171003170520046500100286297e003085ffffdfffff03440069129344006400001151415a20":
        {"tail": "ff03440069129344006400001151415a20", "odometer_km": 69129.344, "altitude_m": 17,
         "io": {"temperature": 0, "fuel": 100}, "lac": 20801, "cid": 23072},
    "*HQ,2130510938,V1,012632,A,0520.0663,N,10028.6324,E,0.286,023,100317,FFFFDFFF,69129336,0,100.0,18,5141,5A20#":
        {"odometer_km": 69129.336, "io": {"temperature": 0, "fuel": 100.0}},
    # a cell in hex, padded with blanks or zeros (3.2); what follows it is not known
    "*HQ,353505221264507,V2,100220,0,5238.26259,N,00507.33983,E,0.25,0,280917,FFFFFFFF,cc,28,  db,d75b#":
        {"mcc": "204", "mnc": "40", "lac": 219, "cid": 55131},
    "*HQ,353505221264507,VI1,075146,0,5238.25900,N,00507.33429,E,0.54,0,250917,FFFFFFFF,cc,28,  db,d75b#":
        {"mcc": "204", "mnc": "40", "lac": 219, "cid": 55131},
    "*HQ,353505510948929,V1,,V,,N,,E,0.00,0,,FFFFF7FF,f0,a,11a0,c0c6#":
        {"mcc": "240", "mnc": "10", "lac": 4512, "cid": 49350},
    "*HQ,353588020068342,V1,084436,A,3257.01525,N,00655.03865,W,57.78,40,011216,FFFBFFFF,25c,a, 154,b04c#":
        {"mcc": "604", "mnc": "10", "lac": 340, "cid": 45132},
    "*HQ,353505220873067,V1,,V,4605.75732,N,01430.73863,E,0.00,0,,FFFFFFEF,125,194,  64,d3#":
        {"mcc": "293", "mnc": "404", "lac": 100, "cid": 211},
    "*HQ,353505220903211,V1,140817,A,5239.3538,N,01003.5292,E,21.03,312,221013,FFFBFFFF,106,14, 203,1cd#":
        {"mcc": "262", "mnc": "20", "lac": 515, "cid": 461},
    "*HQ,353588020068342,V1,062840,A,5241.1249,N,954.9490,E,0.00,0.00,231013,ffffffff,000106,000002,000203,004c87,24#":
        {"mcc": "262", "mnc": "02", "lac": 515, "cid": 19591, "tail": "24"},
    # Traccar's tests drop this one for want of a position, so that its line says nothing; it is alive, it has a status
    # word and the same cell (trap 8)
    "*HQ,353588020068342,V1,000000,V,0.0000,0,0.0000,0,0.00,0.00,000000,ffffffff,000106,000002,000203,004c87,16#":
        {"mcc": "262", "mnc": "02", "lac": 515, "cid": 19591, "tail": "16"},
    # three hex fields are no cell
    "*HQ,354188045498669,V1,195200,A,701.8915,S,3450.3399,W,0.00,205.70,050213,ffffffff,000243,000000,000000#":
        {"tail": "000243,000000,000000"},
    # V19: a server or a phone number, and the SIM card without what pads it (3.9); bit 30 is an input (trap 2)
    "*HQ,4209951296,V19,214452,A,5201.0178,N,01830.5029,E,000.00,000,200417,,195.63.13.195,89480610500392633029,"
    "BFFFFBFF#":
        {"server": "195.63.13.195", "iccid": "89480610500392633029", "io": {"sensor2_high": True}},
    "*HQ,4109179024,V19,181519,V,3853.2587,S,06205.9175,W,000.00,000,090217,,5492932630888,8954315265044716555?,"
    "FFFFFBFF#":
        {"phone": "5492932630888", "iccid": "8954315265044716555"},
    "*HQ,4109179024,V19,103732,V,3853.2770,S,06205.8678,W,000.00,000,100217,,5492932630888,8954314165044716555?,"
    "FFFFFBFF#":
        {"phone": "5492932630888", "iccid": "8954314165044716555"},
    "*HQ,4209917484,V19,093043,V,5052.9749,N,00426.4322,E,000.00,000,130916,,0032475874141,8944538530000543700F,"
    "FFFFFBFF#":
        {"phone": "0032475874141", "iccid": "8944538530000543700"},
    # LINK by its columns (3.7): signal, satellites, percent
    "*HQ,1700086468,LINK,180902,15,0,84,0,0,240517,FFFFFBFF#":
        {"csq": 15, "satellites": 0, "battery_raw": 84, "battery_pct": 84},
    # the cell of a wired SinoTrack, in decimal (3.2)
    "*HQ,8161289587,V1,181933,A,5444.3994,N,02516.3844,E,000.05,000,090317,FFFFBBFF,246,03,00002,41565#":
        {"mcc": "246", "mnc": "03", "lac": 2, "cid": 41565},
    # a cell of zeros is none, and stays as it came; the 5th number is the battery (3.14); bit 20 is shown as an input
    "*HQ,4210209006,V1,201812,A,2608.9437,N,08016.2521,W,000.80,000,150317,EFE7F9FF,310,260,0,0,6#":
        {"battery_raw": 6, "tail": "310,260,0,0", "io": {"battery_removed": True}},
    "*HQ,4210209006,V1,201844,A,2608.9437,N,08016.2521,W,000.80,000,150317,FFFFF9FF,310,260,0,0,6#":
        {"battery_raw": 6, "tail": "310,260,0,0"},
    "*HQ,4210051415,V1,164549,A,0956.3869,N,08406.7068,W,000.00,000,221215,FFFFFBFF,712,01,0,0,6#":
        {"battery_raw": 6, "tail": "712,01,0,0"},
    # the number behind an NBR's status word is the battery, too (3.6)
    "*HQ,4208150188,NBR,210249,260,6,0,7,1014,50675,37,1014,50633,27,1014,17933,18,1014,17231,15,1014,50632,12,1014,"
    "13211,11,1014,17031,10,281216,FFFFFBFF,2#":
        {"battery_raw": 2},
    # bit 20 again
    "*HQ,355488020930796,V3,002339,62160,06,024852,035421,148,0,024852,035425,143,,022251,036482,137,,024852,000335,"
    "133,,024852,031751,133,,024852,035423,133,,02A1,0,X,010104,EFE7FBFF#":
        {"io": {"battery_removed": True}},
    "*HQ,4300256455,V1,111817,A,1935.5128,N,04656.3243,E,0.00,100,170913,FFE7FBFF#":
        {"io": {"battery_removed": True}},
    # the answer to RCONF by its keys (3.12, 6.4)
    "*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nIP:1.2.3.4 5013\nUT:30,30,300\nVOLT:12.9V\n"
    "APN:internet.example.com\nGPS:A-24-23\nGSM:26#":
        {"firmware": "ST906(70SACD)_TQ_V_2.0", "firmware_date": "2024-06-07", "server": "1.2.3.4:5013",
         "intervals_s": [30, 30, 300], "supply_v": 12.9, "apn": "internet.example.com", "satellites": 24, "csq": 26},
}
# fmt: on

#: What of a line is held as such, and by which attribute.
_HELD: Final = {
    "valid", "latitude", "longitude", "speed_kmh", "course_deg", "last_latitude", "last_longitude", "altitude_m",
    "status_word", "external_power", "reply_text", "raw_text",
}  # fmt: skip


@lru_cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The lines of a file of vectors."""
    path = VECTORS / name
    if not path.exists():
        raise SkipTest(f"{path} is not there: the vectors lie beside the checkout, not in it")
    with path.open() as file:
        return tuple(json.loads(line) for line in file)


def expected() -> list[tuple[bytes, dict[str, Any]]]:
    """The messages of the ST-907's family and what they say; a text without its end sign has one on the wire."""
    return [(bytes.fromhex(row["hex"]), row) for row in rows("st907_expected.jsonl")]


def payloads(family: bool) -> list[bytes]:
    """The messages of this family, or those of all others, as they stand on the wire; each once."""
    found = {
        bytes.fromhex(row["wire_hex"])
        for row in rows("vectors.public.jsonl")
        if (row["protocol"] == FAMILY) is family and row.get("wire_hex")
    }
    return sorted(found - {b""})


def openers() -> list[bytes]:
    """Those of the family that are whole messages, not a splitter's own test bytes."""
    found = {
        bytes.fromhex(row["wire_hex"])
        for row in rows("vectors.public.jsonl")
        if row["protocol"] == FAMILY and row["group"] == "decoder" and row.get("wire_hex")
    }
    return sorted(found)


def decode(*reads: bytes) -> list[Message]:
    """What a decoder of the st907 makes of these reads and the end of the stream."""
    made = device.decoder(None, no_memory)
    return [*(m for read in reads for m in made.receive(read, NOON)), *made.finish(NOON)]


def essence(message: Message) -> tuple[Any, ...]:
    """What a message says, in a form that can be compared."""
    events = [(event.type, event.time, tuple(sorted(event.attributes.items(), key=repr))) for event in message.events]
    return (message.raw, message.ident, repr(events), repr(sorted(message.levels.items())), message.error is None)


def numeric_cells(attributes: Mapping[str, Any], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of a message as the lines have them: numbers, with the wire's level; only what the line names."""
    found = attributes.get("cells") or [attributes]
    shown = []
    for number, cell in enumerate(found):
        one = {name: int(cell[name]) for name in ("mcc", "mnc", "lac", "cid") if name in cell}
        if "rssi_dbm" in cell:
            one["signal"] = cell["rssi_dbm"] + 110  # 0 is -110 dBm (3GPP TS 45.008)
        elif number < len(wanted) and wanted[number].get("signal", 0) > 63:
            one["signal"] = wanted[number]["signal"]  # no level of GSM's: what it measures is not known, so left out
        names = wanted[number] if number < len(wanted) else one
        shown.append({name: value for name, value in one.items() if name in names})
    return shown


def covered(row: Mapping[str, Any]) -> set[str]:
    """The attributes that a line speaks of."""
    named = set(_HELD) | {"message_type"}
    if row["cells"]:
        named |= {"cells"} if "mcc" in row["cells"][0] else {"lac", "cid"}
    if row["battery_raw"] is not None:
        named.add("battery_raw")
    return named - ({"altitude_m"} if row["altitude"] is None else set())


class ExpectedTests(SynchronousTestCase):
    """Every message decodes as expected."""

    maxDiff = None

    def check(self, data: bytes, row: dict[str, Any]) -> list[str]:
        """What is wrong with the reading of a message."""
        messages = decode(data)
        if len(messages) != 1 or messages[0].error is not None:
            return [f"{len(messages)} messages, {[m.error for m in messages]}"]
        message = messages[0]
        (event,) = message.events
        wrong: list[str] = []

        def same(name: str, wanted: Any, got: Any, within: float = 0.0) -> None:
            close = got is not None and wanted is not None and within and abs(wanted - got) <= within
            if wanted != got and not close:
                wrong.append(f"{name}: {got!r}, not {wanted!r}")

        at = row["time"]
        same("ident", row["ident"], message.ident)
        same("time", None if at is None else float(timegm(strptime(at, "%Y-%m-%dT%H:%M:%SZ"))), event.time)
        attributes = event.attributes
        if row["valid"]:
            same("latitude", row["latitude"], attributes.get("latitude"), 0.000001)
            same("longitude", row["longitude"], attributes.get("longitude"), 0.000001)
            same("speed", row["speed_kmh"], attributes.get("speed_kmh"), 0.01)
            same("course", round(row["course"]) % 360 if row["course"] is not None else 0, attributes.get("course_deg"))
        else:
            same("last latitude", row["latitude"], attributes.get("last_latitude"), 0.000001)
            same("last longitude", row["longitude"], attributes.get("last_longitude"), 0.000001)
            found = {"latitude", "longitude", "speed_kmh", "course_deg"} & set(attributes)
            same("of a fix", set(), found)
        if row["valid"] is not None:
            same("type", "position", event.type)
            same("valid", row["valid"], attributes.get("valid"))
        if row["status"] is not None:
            same("status word", row["status"], attributes.get("status_word"))
            word = int(row["status"], 16)
            same("ignition", bool(word & 1 << 10), message.levels.get("ignition"))
            same("immobilizer", not word & 1 << 27, message.levels.get("immobilizer"))
        if row["cells"]:
            same("cells", row["cells"], numeric_cells(attributes, row["cells"]))
        if row["battery_raw"] is not None:
            same("battery", int(row["battery_raw"], 16), attributes.get("battery_raw"))
        if row["altitude"] is not None:
            same("altitude", row["altitude"], attributes.get("altitude_m"))
        if row["result"] is not None:
            # of an SMS the whole frame is the text
            text = attributes.get("raw_text", "").partition(",SMS,")[2][:-1] if row["type"] == "SMS" else None
            same("result", row["result"], attributes.get("reply_text", text))
        kind = row["type"] or None
        same("message type", None if kind == "V1" else kind, attributes.get("message_type"))
        beyond = {name: value for name, value in rounded(attributes).items() if name not in covered(row)}
        same("beyond the line", BEYOND.get(row["text"] or row["hex"], {}), beyond)
        return wrong

    def test_all(self) -> None:
        """Ident, time, position, speed, course, validity and status word of each are those expected."""
        wrong = {}
        for data, row in expected():
            if found := self.check(data, row):
                wrong[row["text"] or row["hex"]] = found
        self.assertEqual({}, wrong)

    def test_knots(self) -> None:
        """The unit of the wire is the knot."""
        self.assertEqual(1.852, KMH_PER_KNOT)

    def test_byte_by_byte(self) -> None:
        """Each says the same when it comes byte by byte."""
        for data, row in expected():
            wanted = [essence(m) for m in decode(data)]
            self.assertEqual(
                wanted, [essence(m) for m in decode(*(bytes([b]) for b in data))], row["text"] or row["hex"]
            )

    def test_beyond(self) -> None:
        """What is listed as said beyond a line belongs to a line, and none of the 53 messages is left out."""
        known = {row["text"] or row["hex"] for _, row in expected()}
        self.assertEqual(set(), set(BEYOND) - known)
        self.assertEqual(53, len(expected()))


class PublicTests(SynchronousTestCase):
    """The messages of the family as Traccar's own tests have them."""

    def rows(self, group: str) -> list[dict[str, Any]]:
        """Those of one group."""
        return [row for row in rows("vectors.public.jsonl") if row["protocol"] == FAMILY and row["group"] == group]

    def test_decoded(self) -> None:
        """Each is one message that can be read, with an ident, of the kind and with the figures that Traccar finds."""
        picked = self.rows("decoder")
        self.assertEqual(53, len(picked))
        wrong = {}
        for row in picked:
            data = bytes.fromhex(row["wire_hex"])
            messages = decode(data)
            if [m.error for m in messages] != [None] or messages[0].raw != data or not messages[0].ident:
                wrong[data] = str(messages)
                continue
            (event,) = messages[0].events
            if found := list(self.differs(row, event.type, event.time, event.attributes)):
                wrong[data] = str(found)
        self.assertEqual({}, wrong)

    def differs(
        self, row: Mapping[str, Any], kind: str, time: float | None, attributes: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """What is not as Traccar's test has it."""
        expect = row["expect"]
        # "null" is a message of which Traccar makes nothing; here it says that the device is alive, and what else it
        # holds, but no position
        if expect["result"] == "null" and "latitude" in attributes:
            yield "a position out of nothing", attributes
        if expect["result"] == "position" and kind != "position":
            yield "kind", kind
        # "attributes": alive without a position, which Traccar takes from the report before
        if expect["result"] == "attributes" and (kind, "latitude" in attributes) != ("status", False):
            yield "kind", kind
        place = expect.get("position", {})
        if place:
            wanted = float(timegm(strptime(place["time"], "%Y-%m-%d %H:%M:%S.000"))), place["valid"]
            if wanted != (time, attributes["valid"]):
                yield "time, valid", (time, attributes["valid"])
            for name, column in (("lat", "latitude"), ("lon", "longitude")):
                if abs(place[name] - attributes[column]) > 0.00001:  # it has five decimals, cut off
                    yield column, attributes[column]
        if "attribute" in expect:
            # the same by our names; the text of an SMS is in that of the whole frame
            got = {
                "batteryLevel": attributes.get("battery_pct"),
                "status": int(attributes.get("status_word", "0"), 16),
                "result": attributes.get("raw_text", "").partition(",SMS,")[2][:-1],
            }[expect["attribute"]]
            if got != expect["value"]:
                yield expect["attribute"], got

    def test_framed(self) -> None:
        """A frame ends where Traccar's splitter ends it, whole, byte by byte and with others behind it."""
        picked = self.rows("frame")
        self.assertEqual(6, len(picked))
        for row in picked:
            data, frame = bytes.fromhex(row["wire_hex"]), bytes.fromhex(row["expect"]["frame_hex"])
            for reads in ([data], [bytes([byte]) for byte in data]):
                self.assertEqual([(frame, None)], [(m.raw, m.error) for m in decode(*reads)])
        stream = b"".join(bytes.fromhex(row["wire_hex"]) for row in picked)
        frames = [bytes.fromhex(row["expect"]["frame_hex"]) for row in picked]
        self.assertEqual([(frame, None) for frame in frames], [(m.raw, m.error) for m in decode(stream)])


class Piece(NamedTuple):
    """One or two messages that come together, and what they say."""

    data: bytes
    said: tuple[tuple[Any, ...], ...]
    binary: int
    text: int


def piece(*frames: bytes) -> Piece:
    """Messages, and what they say one after the other with nothing else around them, each in a read of its own."""
    binary = sum(frame[0] != 0x2A for frame in frames)
    made = device.decoder(None, no_memory)
    said = []
    for frame in frames:
        messages = [*made.receive(frame, NOON), *made.finish(NOON)]
        assert [m.raw for m in messages] == [frame], (frame, messages)
        said += [essence(m) for m in messages]
    return Piece(b"".join(frames), tuple(said), binary, len(frames) - binary)


def binary_frame(dice: random.Random, size: int) -> bytes:
    """A binary frame of this length as 3.13 has it, with fields that differ; an ident has frames of one length."""
    number = LENGTHS.index(size)
    # an ident with digits of everything: 23, 24 and 2a are its bytes, too
    ident = f"{dice.choice((41060, 91702, 24232, 23242))}{number}{dice.randrange(10**4):04d}"
    if size == 42:
        ident = f"35{dice.randrange(10**13):013d}{dice.choice('0f')}"
    when = f"{dice.randrange(24):02d}{dice.randrange(60):02d}{dice.randrange(60):02d}"
    day = f"{dice.randint(1, 28):02d}{dice.randint(1, 12):02d}{dice.randint(10, 26):02d}"
    latitude = f"{dice.randrange(90):02d}{dice.randrange(60):02d}{dice.randrange(10**4):04d}"
    longitude = f"{dice.randrange(180):03d}{dice.randrange(60):02d}{dice.randrange(10**4):04d}"
    flags = dice.choice("02468ace")
    motion = f"{dice.randrange(200):03d}{dice.randrange(361):03d}"
    word = 0xFFFF_FFFF
    for _ in range(dice.randrange(6)):
        word &= ~(1 << dice.randrange(32))
    battery = dice.choice((0, 1, 6, 0x24, 0x2A, 0x58, 100, 0xF6))
    body = f"24{ident}{when}{day}{latitude}{battery:02x}{longitude}{flags}{motion}{word:08x}"
    if size == 45:
        # the satellites stand where a shorter form would end: ten of them are a LF
        tail = f"ff00{dice.randrange(32):02x}{dice.randrange(20):02x}{dice.randrange(10**5):08x}"
        tail += f"{dice.choice((214, 262, 470, 724)):04x}{dice.randrange(100):02x}"
        tail += f"{dice.randrange(1 << 16):04x}{dice.randrange(1 << 16):04x}{dice.randrange(256):02x}"
    elif size == 46:
        tail = f"ff03{dice.randrange(256):02x}{dice.randrange(10**10):010d}{dice.randrange(101):04x}"
        tail += f"{dice.randrange(60):02x}{dice.randrange(4000):04x}"
        tail += f"{dice.randrange(1 << 16):04x}{dice.randrange(1 << 16):04x}"
    elif size == 42:
        tail = f"ff01{dice.randbytes(8).hex()}"
    else:
        tail = f"ff00{dice.randrange(256):02x}" + dice.randbytes(size - SHORT).hex()
    frame = bytes.fromhex(body + tail)
    assert len(frame) == size, (size, len(frame))
    return frame


#: The shortest of the forms; what is behind it in a longer one is what makes its end hard to find.
SHORT: Final = LENGTHS[0]


def ambiguous(frame: bytes) -> bool:
    """
    Whether a random tail happens to look like the end of a shorter frame, which nobody could tell from one.

    Both bytes of a line end where a shorter form would end, or nothing but line ends from there on: no tail that was
    captured has them there.
    """
    shorter = [size for size in LENGTHS if size < len(frame)]
    return any(frame.startswith(b"\r\n", size) or not frame[size:].strip(b"\r\n") for size in shorter)


class ChainTests(SynchronousTestCase):
    """Messages one after the other, as one stream or one datagram."""

    def pieces(self) -> tuple[list[Piece], list[Piece]]:
        """What chains are made of: text, and binary of all lengths."""
        dice = random.Random(907)
        known = {data for data, _ in expected()} | set(payloads(True))
        whole = sorted({decode(data)[0].raw for data in known})
        text = [piece(data) for data in whole if data[0] == 0x2A]
        binary = [piece(data) for data in whole if data[0] != 0x2A]
        for number in range(40):
            for size in LENGTHS:
                frame = binary_frame(dice, size)
                if not ambiguous(frame):
                    binary.append(piece(frame))
                if number % 4 == 0:
                    # an X frame has no ident: it is that of whoever spoke before
                    x = b"X" + bytes.fromhex(f"{dice.randrange(10**10):010d}") + binary_frame(dice, SHORT)[6:]
                    before = dice.choice(text)
                    if before.said[0][1] is not None and b",SMS," not in before.data:
                        binary.append(piece(before.data, x))
                        binary.append(piece(binary_frame(dice, SHORT), x))
        lengths = {len(one.data) for one in binary if one.text == 0 and one.binary == 1}
        self.assertEqual(set(LENGTHS), lengths)
        return text, binary

    def chain(self, dice: random.Random, text: list[Piece], binary: list[Piece]) -> list[Piece]:
        """Twenty messages, at least a third of them binary, in any order."""
        least = dice.randint(-(-OF_A_CHAIN // 3), OF_A_CHAIN)
        chain: list[Piece] = []
        while (short := OF_A_CHAIN - sum(len(one.said) for one in chain)) > 0:
            missing = least - sum(one.binary for one in chain)
            pool = binary if missing > 0 else text
            chain.append(dice.choice([one for one in dice.choices(pool, k=8) if len(one.said) <= short] or text))
        dice.shuffle(chain)
        return chain

    def reads(self, dice: random.Random, stream: bytes) -> list[bytes]:
        """The stream cut at random places."""
        reads, at = [], 0
        while at < len(stream):
            size = dice.choice((1, 2, 31, 32, 45, 100, 1460)) if dice.random() < 0.5 else dice.randint(1, 200)
            reads.append(stream[at : at + size])
            at += size
        return reads

    def test_chains(self) -> None:
        """
        Chains of twenty messages, text and binary mixed, cut at random places, say what each says alone.

        None is lost, none is cut, none raises; the same in one datagram, and whether lengths are remembered or not.
        """
        text, binary = self.pieces()
        plugins = registry.load()
        messages = of_binary = 0
        for seed in range(CHAINS):
            dice = random.Random(seed)
            chain = self.chain(dice, text, binary)
            stream = b"".join(one.data + dice.choice((b"", b"", b"\r\n", b"\n", b"\r")) for one in chain)
            wanted = [said for one in chain for said in one.said]
            count = sum(one.binary for one in chain)
            self.assertEqual(OF_A_CHAIN, len(wanted))
            self.assertGreaterEqual(3 * count, OF_A_CHAIN)
            memory: Memory = no_memory if seed % 2 else Memories()
            made = device.decoder(None, memory)
            got = [m for read in self.reads(dice, stream) for m in made.receive(read, NOON)]
            got += made.finish(NOON)
            self.assertEqual(wanted, [essence(m) for m in got], f"seed {seed}")
            self.assertEqual(b"", made.rest, f"seed {seed}")
            datagram = Connection(Candidates(plugins, "udp"), Limits(), no_memory, NOON)
            got = list(datagram.datagram(stream, NOON))
            self.assertEqual(wanted, [essence(m) for m in got], f"seed {seed}, as a datagram")
            messages += len(wanted)
            of_binary += count
        print(f"{CHAINS} chains: {messages} messages, {of_binary} of them binary", file=sys.stderr)


class DetectionTests(SynchronousTestCase):
    """Who is taken for whom."""

    def test_all_of_the_family(self) -> None:
        """Every message of the family alone is detected as st907, over TCP and as a datagram."""
        plugins = registry.load()
        for data in [*openers(), *(data for data, _ in expected())]:
            detector = Detector(Candidates(plugins, "tcp"), 1024)
            decision = detector.feed(data) or detector.end("the end of the stream")
            self.assertEqual("st907", decision.plugin.name if decision.plugin else None, (data, decision))
            datagram = Detector(Candidates(plugins, "udp"), 1024).whole(data)
            self.assertEqual("st907", datagram.plugin.name if datagram.plugin else None, (data, datagram))

    def test_bytes_until_commit(self) -> None:
        """Half of them are known by 24 bytes, all by 32."""
        plugins = registry.load()
        at = []
        for data in openers():
            decision = Detector(Candidates(plugins, "tcp"), 1024).feed(data)
            self.assertIsNotNone(decision, data)
            if decision is not None:
                at.append(decision.at)
        at.sort()
        self.assertLessEqual(at[len(at) // 2], 24)
        self.assertLessEqual(at[-1], 32)

    def test_nobody_else(self) -> None:
        """No message of another protocol is taken for an st907's, over TCP or as a datagram."""
        plugins = [plugin for plugin in registry.load() if plugin.name == "st907"]
        own = set(payloads(True))
        taken = []
        for data in payloads(False):
            detector = Detector(Candidates(plugins, "tcp"), 1024)
            decision = detector.feed(data) or detector.silence() or detector.end("the end of the stream")
            datagram = Detector(Candidates(plugins, "udp"), 1024).whole(data)
            if data not in own and (decision.plugin or datagram.plugin):
                taken.append((data, decision.reason))
        self.assertEqual([], taken)

    def test_laws(self) -> None:
        """On every prefix of every vector NO is final, a YES of 80 stays, and nothing at all is MORE(0)."""
        own = {data for data, _ in expected()} | set(openers())
        for plugin in registry.load():
            self.assertEqual(0, getattr(plugin.detect(b"", "tcp"), "claim", None))
            self.assertIsInstance(plugin.detect(b"", "udp"), MORE)
            for data in sorted(own | set(payloads(False)) | set(payloads(True))):
                refused, sure = 0, 0
                for size in range(1, min(len(data), 1024) + 1):
                    answer = plugin.detect(data[:size], "tcp")
                    if isinstance(answer, NO):
                        if plugin.name == "st907":
                            self.assertNotIn(data, own, f"NO on its own at byte {size}: {answer.reason}")
                        self.assertFalse(sure, f"YES at byte {sure}, NO at byte {size}: {data!r}")
                        if refused and size > refused + 60:
                            break  # far enough: detectors look at the start
                        refused = refused or size
                    else:
                        self.assertFalse(refused, f"NO at byte {refused}, {answer} at byte {size}: {data!r}")
                        if isinstance(answer, YES) and answer.confidence >= 80:
                            sure = sure or size


class ConnectionTests(SynchronousTestCase):
    """The vectors through a whole connection."""

    def test_detected_and_decoded(self) -> None:
        """Each message, byte by byte on a connection of its own, is known and says what its decoder says of it."""
        plugins = registry.load()
        for data, row in expected():
            connection = Connection(Candidates(plugins, "tcp"), Limits(), no_memory, NOON)
            got = [m for byte in data for m in connection.receive(bytes([byte]), NOON)] + [*connection.end(NOON)]
            self.assertEqual([essence(m) for m in decode(data)], [essence(m) for m in got], row["text"] or row["hex"])
