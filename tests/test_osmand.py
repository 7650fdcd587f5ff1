"""The osmand plugin: what requests of phones say, what they are answered, and where they end."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from time import process_time
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.connection import Connection, Limits
from gateway.detection import Candidates, Detector
from gateway.devices.osmand import device
from gateway.devices.osmand.device import Options
from gateway.devices.osmand.http import HEAD_LIMIT, LINE_LIMIT, REQUEST_LIMIT, response
from gateway.errors import ConfigError
from gateway.events import ATTRIBUTES, STREAM_OF, rounded
from gateway.interfaces import MORE, NO, YES, Message
from gateway.testing import event_id, pieces, play
from tests.fakes import NOON, no_memory
from tests.test_readme import block
from tests.test_vectors import rows

IDENT = "123456"
OK = response(200, True)


def utc(*when: int) -> float:
    """Year, month, day, hour, minute, second as epoch seconds."""
    return float(timegm((*when, 0, 0, 0)))


def get(query: str, more: str = "") -> bytes:
    """A GET as a phone sends it."""
    return f"GET /?{query} HTTP/1.1\r\nHost: gateway.example:8888\r\nAccept-Encoding: gzip\r\n{more}\r\n".encode()


def post(body: str, kind: str = "application/json", target: str = "/") -> bytes:
    """A POST with a body."""
    head = f"POST {target} HTTP/1.1\r\nHost: gateway.example:8888\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def chunked(*chunks: str) -> bytes:
    """A POST whose body comes in chunks."""
    head = "POST / HTTP/1.1\r\nHost: gateway.example:8888\r\nTransfer-Encoding: chunked\r\n\r\n"
    return (head + "".join(f"{len(chunk):x};part=1\r\n{chunk}\r\n" for chunk in (*chunks, ""))).encode()


def location(**more: Any) -> dict[str, Any]:
    """A location of the JSON form."""
    coords = {"latitude": 52.52, "longitude": 13.405, "accuracy": 4.8, "speed": 10, "heading": 359.7, "altitude": 34.2}
    return {"timestamp": "2026-11-22T11:59:00.250Z", "coords": coords, **more}


class Said(NamedTuple):
    """What one location leads to."""

    type: str
    time: float | None
    attributes: Mapping[str, Any]


class Case(NamedTuple):
    """A name, a request, and what it says."""

    name: str
    data: bytes
    said: Sequence[Said]
    levels: Mapping[str, bool] = {}
    ident: str = IDENT


FIX = {"valid": True, "latitude": 60.0, "longitude": 30.0}
AT = 1_377_177_267.0
JSON_FIX = {
    **{"valid": True, "latitude": 52.52, "longitude": 13.405, "altitude_m": 34.2, "accuracy_m": 4.8},
    **{"speed_kmh": 36.0, "course_deg": 0},
}
JSON_AT = utc(2026, 11, 22, 11, 59, 0) + 0.25

# fmt: off
CASES: tuple[Case, ...] = (
    Case(
        "Traccar Client 8, all that it sends",
        get("id=123456&timestamp=1377177267&lat=60.0&lon=30.0&speed=22.1382&bearing=85.4&altitude=34.96"
            "&accuracy=4.55&batt=55.0&charge=true"),
        [Said("position", AT, {**FIX, "speed_kmh": 41.0, "course_deg": 85, "altitude_m": 34.96, "accuracy_m": 4.55,
                               "battery_pct": 55, "charging": True})],
    ),
    Case(
        "Traccar Client 8 as a POST without a body",
        b"POST /?id=123456&timestamp=1377177267&lat=60.0&lon=30.0 HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
        [Said("position", AT, FIX)],
    ),
    Case(
        "OsmAnd with the URL of the README, milliseconds and metres per second",
        get("id=my-phone&lat=52.52&lon=13.405&timestamp=1795348740250&hdop=4.0&altitude=71.5&speed_mps=11.39"
            "&bearing=359.6&batt=80"),
        [Said("position", JSON_AT, {"valid": True, "latitude": 52.52, "longitude": 13.405, "hdop": 4,
                                    "altitude_m": 71.5, "speed_kmh": 41.0, "course_deg": 0, "battery_pct": 80})],
        ident="my-phone",
    ),
    Case(
        "ISO 8601, with a zone and without a fraction",
        get("id=123456&lat=60.0&lon=30.0&timestamp=2016-01-27T18%3A55%3A47%2B02%3A00"),
        [Said("position", utc(2016, 1, 27, 16, 55, 47), FIX)],
    ),
    Case(
        "date and time of day without a zone are UTC, and the id may come last",
        get("lat=49.60688&lon=6.15788&timestamp=2014-06-04+09%3A10%3A11&altitude=384.7&speed=0.0&id=353861053849681"),
        [Said("position", utc(2014, 6, 4, 9, 10, 11), {"valid": True, "latitude": 49.60688, "longitude": 6.15788,
                                                       "altitude_m": 384.7, "speed_kmh": 0.0})],
        ident="353861053849681",
    ),
    Case(
        "deviceid, heading, one parameter for the place, and no time",
        get("deviceid=123456&location=-60.5,-30.25&heading=360"),
        [Said("position", None, {"valid": True, "latitude": -60.5, "longitude": -30.25, "course_deg": 0})],
    ),
    Case(
        "a location that is not valid is where the phone was last, without speed and course",
        get("id=123456&timestamp=1377177267&lat=60.0&lon=30.0&valid=false&speed=10&bearing=20"),
        [Said("position", AT, {"valid": False, "last_latitude": 60.0, "last_longitude": 30.0})],
    ),
    Case(
        "no position, but cells and access points",
        get("id=123456&timestamp=1377177267&cell=257,02,16,2224&cell=257,02,16,2223,-90"
            "&wifi=00-14-22-01-23-4A,-80&wifi=00:1C:B3:09:85:15"),
        [Said("status", AT, {
            "cells": [{"mcc": "257", "mnc": "02", "lac": 16, "cid": 2224},
                      {"mcc": "257", "mnc": "02", "lac": 16, "cid": 2223, "rssi_dbm": -90}],
            "wifi": [{"mac": "00:14:22:01:23:4a", "rssi_dbm": -80}, {"mac": "00:1c:b3:09:85:15"}]})],
    ),
    Case(
        "cells that are none stay as they came",
        get("id=123456&lat=60&lon=30&cell=257,02,16&cell=257,02,16,2224,x&wifi=home,-80"),
        [Said("position", None, {**FIX, "io": {"cell": '["257,02,16","257,02,16,2224,x"]', "wifi": '["home,-80"]'}})],
    ),
    Case(
        "an access point with colons and its level",
        get("id=123456&lat=60&lon=30&wifi=00:1c:b3:09:85:15,-70"),
        [Said("position", None, {**FIX, "wifi": [{"mac": "00:1c:b3:09:85:15", "rssi_dbm": -70}]})],
    ),
    Case(
        "ignition, driver, satellites, and what nobody knows",
        get("id=123456&lat=60&lon=30&ignition=false&driverUniqueId=AB%2017&sat=9&motion=1&rpm=933&fuel=24.5"
            "&door=true&code=007&name=%C3%84rger&%C3%A4=1"),
        [Said("position", None, {**FIX, "ignition": False, "driver_id": "AB 17", "satellites": 9, "motion": True,
                                 "io": {"rpm": 933, "fuel": 24.5, "door": True, "code": "007", "name": "Ärger",
                                        "ä": 1}})],
        {"ignition": False},
    ),
    Case(
        "figures that make no sense stay as they came",
        get("id=123456&lat=60&lon=30&speed=-1&bearing=400&altitude=-&batt=300&hdop=nan&accuracy=1e999&charge=maybe"),
        [Said("position", None, {**FIX, "io": {"speed": -1, "bearing": 400, "altitude": "-", "batt": 300,
                                               "hdop": "nan", "accuracy": "1e999", "charge": "maybe"}})],
    ),
    Case(
        "tiny and negative figures are written plainly",
        get("id=123456&lat=-0.0000001&lon=0&altitude=-0.001&batt=1.0E-5&speed=1e1"),
        [Said("position", None, {"valid": True, "latitude": 0.0, "longitude": 0.0, "altitude_m": 0, "battery_pct": 0,
                                 "speed_kmh": 18.52})],
    ),
    Case(
        "a form",
        post("id=123456&lat=60.0&lon=30.0&timestamp=1377177267&name=a+b", "application/x-www-form-urlencoded"),
        [Said("position", AT, {**FIX, "io": {"name": "a b"}})],
    ),
    Case(
        "a form whose id is in the URL",
        post("lat=60.0&lon=30.0", "application/x-www-form-urlencoded", "/track?id=123456"),
        [Said("position", None, FIX)],
    ),
    Case(
        "an alarm, as an event of its own",
        get("id=123456&timestamp=1377177267&lat=60.0&lon=30.0&speed=0&alarm=sos"),
        [Said("position", AT, {**FIX, "speed_kmh": 0.0}),
         Said("alarm.sos", AT, {"phase": "raised", "origin": "device", "since": "2013-08-22T13:14:27.000Z",
                                "position_id": "<0>", **FIX, "speed_kmh": 0.0})],
    ),
    Case(
        "an alarm without time and position, in Traccar's word",
        get("id=123456&alarm=hardBraking&batt=20"),
        [Said("status", None, {"battery_pct": 20}),
         Said("alarm.harsh.braking", None, {"phase": "raised", "origin": "device",
                                            "since": "2026-11-22T12:00:00.000Z", "position_id": "<0>"})],
    ),
    Case(
        "an alarm that the contract has no word for",
        get("id=123456&lat=60&lon=30&valid=0&alarm=fallDown"),
        [Said("position", None, {"valid": False, "last_latitude": 60.0, "last_longitude": 30.0}),
         Said("alarm.other", None, {"phase": "raised", "origin": "device", "since": "2026-11-22T12:00:00.000Z",
                                    "name": "osmand.fallDown", "position_id": "<0>", "valid": False,
                                    "last_latitude": 60.0, "last_longitude": 30.0})],
    ),
    Case(
        "Traccar Client 9",
        post(json.dumps({
            "location": location(
                is_moving=True, uuid="0d1e7f48", odometer=12_345.67, event="motionchange",
                battery={"level": 0.85, "is_charging": False}, activity={"type": "in_vehicle", "confidence": 100},
                extras={}, _="&id=123456&lat=52.52&lon=13.405"),
            "device_id": "123456"})),
        [Said("position", JSON_AT, {**JSON_FIX, "motion": True, "odometer_km": 12.346, "message_type": "motionchange",
                                    "battery_pct": 85, "charging": False, "activity": "in_vehicle",
                                    "io": {"uuid": "0d1e7f48", "activity_confidence": 100}})],
    ),
    Case(
        "Traccar Client 9 that knows neither speed nor course, and cries for help",
        post(json.dumps({
            "location": {"timestamp": "2026-11-22T11:59:00.250Z",
                         "coords": {"latitude": -1, "longitude": -1, "speed": -1, "heading": -1, "speed_accuracy": -1},
                         "battery": {"level": -1, "is_charging": False}, "extras": {"alarm": "sos"}},
            "device_id": 123456})),
        [Said("position", JSON_AT, {"valid": True, "latitude": -1.0, "longitude": -1.0, "charging": False}),
         Said("alarm.sos", JSON_AT, {"phase": "raised", "origin": "device", "since": "2026-11-22T11:59:00.250Z",
                                     "position_id": "<0>", "valid": True, "latitude": -1.0, "longitude": -1.0})],
    ),
    Case(
        "many locations, the newest first: the events are in the order of their times",
        post(json.dumps({
            "location": [location(timestamp="2026-11-22T11:59:00Z", extras={"alarm": "sos"}),
                         location(timestamp="2026-11-22T11:57:00Z", ignition=True),
                         location(timestamp="2026-11-22T11:58:00Z", mock=True)],
            "device_id": "123456", "user": 7})),
        [Said("position", utc(2026, 11, 22, 11, 57, 0), {**JSON_FIX, "ignition": True, "io": {"user": 7}}),
         Said("position", utc(2026, 11, 22, 11, 58, 0), {**JSON_FIX, "io": {"user": 7, "mock": True}}),
         Said("position", utc(2026, 11, 22, 11, 59, 0), {**JSON_FIX, "io": {"user": 7}}),
         Said("alarm.sos", utc(2026, 11, 22, 11, 59, 0),
              {"phase": "raised", "origin": "device", "since": "2026-11-22T11:59:00.000Z", "position_id": "<2>",
               "valid": True, "latitude": 52.52, "longitude": 13.405, "speed_kmh": 36.0})],
    ),
    Case(
        "locations of their own in a list, and the id in the URL",
        post(json.dumps([location(), location(timestamp=1_795_348_741)]), target="/?id=123456"),
        [Said("position", JSON_AT, JSON_FIX), Said("position", JSON_AT + 0.75, JSON_FIX)],
    ),
    Case(
        "roots in a list, each with its device, and locations by another name",
        post(json.dumps([{"device_id": "123456", "locations": [location()]}, {"id": 123456, "location": location()}])),
        [Said("position", JSON_AT, JSON_FIX), Said("position", JSON_AT, JSON_FIX)],
    ),
    Case(
        "no location at all: the phone is alive",
        post('{"location": [], "device_id": "123456"}'),
        [],
    ),
    Case(
        "JSON whose texts can't be stored, are long, or are no texts",
        post('{"device_id": "123456", "location": {"timestamp": null, "coords": {"latitude": 60, "longitude": 30, '
             '"floor": null}, "geofence": {"identifier": "home"}, "a": "\\ud800", "b": "' + "x" * 300
             + '", "c": 123456789012345678901234567890, "d": 1e999, "extras": "none"}}'),
        [Said("position", None, {**FIX, "io": {
            "geofence": '{"identifier":"home"}', "a": "?", "b": "x" * 256, "c": "123456789012345678901234567890",
            "d": "Infinity", "extras": "none"}})],
    ),
    Case(
        "a body in chunks",
        chunked('{"device_id": "123456", "location": {"coords": {"lat', 'itude": 60, "longitude": 30}}}'),
        [Said("position", None, FIX)],
    ),
    Case(
        "lines that end with LF alone, and an absolute target",
        b"GET http://g:8888/?id=123456&lat=60&lon=30 HTTP/1.1\nHost: g\n\n",
        [Said("position", None, FIX)],
    ),
)
# fmt: on


def decode(*reads: bytes, options: Options | None = None) -> list[Message]:
    """What a decoder makes of these reads and the end of the stream."""
    made = device.decoder(options or Options(), no_memory)
    return [*(m for read in reads for m in made.receive(read, NOON)), *made.finish(NOON)]


def status(message: Message) -> int:
    """The status that a message is answered with."""
    assert message.reply is not None
    return int(message.reply(NOON).split()[1])


def essence(message: Message) -> tuple[Any, ...]:
    """What a message says, in a form that can be compared."""
    assert message.reply is not None
    error = None if message.error is None else message.error.reason
    reply = message.reply(NOON)
    return (message.raw, message.ident, repr(message.events), repr(message.levels), reply, error, message.close)


class RequestTests(SynchronousTestCase):
    """What requests say."""

    maxDiff = None

    def test_cases(self) -> None:
        """Each request says what it should, is its own frame, and is answered with 200 on an open connection."""
        for case in CASES:
            (message,) = decode(case.data)
            self.assertIsNone(message.error, case.name)
            self.assertEqual((case.ident, case.data), (message.ident, message.raw), case.name)
            self.assertEqual((OK, False), (message.reply and message.reply(NOON), message.close), case.name)
            self.assertEqual(dict(case.levels), dict(message.levels), case.name)
            self.assertEqual(len(case.said), len(message.events), case.name)
            for event, said in zip(message.events, case.said, strict=True):
                wanted = dict(said.attributes)
                if "position_id" in wanted:
                    index = int(wanted["position_id"].strip("<>"))
                    received = "2026-11-22T12:00:00.000Z" if said.time is None else None
                    kind = message.events[index].type
                    wanted["position_id"] = event_id(case.ident, "osmand", case.data, kind, index, received)
                else:
                    wanted["transport"] = "http"
                self.assertEqual((said.type, said.time), (event.type, event.time), case.name)
                self.assertEqual(wanted, rounded(event.attributes), case.name)

    def test_what_is_published(self) -> None:
        """The ids that alarms refer to are those of the reports, and everything has a name in the contract."""
        for case in CASES:
            _, (_, envelopes) = play(get("id=another&lat=1&lon=2") + case.data, NOON).messages
            ids = [envelope.digest.hex() for envelope in envelopes]
            self.assertEqual(len(ids), len(set(ids)), case.name)
            for envelope in envelopes:
                self.assertIn(envelope.type, STREAM_OF, case.name)
                self.assertLessEqual(set(envelope.attributes), set(ATTRIBUTES), case.name)
                if "position_id" in envelope.attributes:
                    self.assertIn(envelope.attributes["position_id"], ids, case.name)

    def test_speed_unit(self) -> None:
        """The unit of speed is an option; those of speed_mps, speed_kmh and of JSON are what they say."""
        for unit, kmh in (("knots", 18.52), ("m/s", 36.0), ("km/h", 10.0)):
            options = Options(speed_unit=unit)
            for name, wanted in (("speed", kmh), ("speed_mps", 36.0), ("speed_kmh", 10.0)):
                (message,) = decode(get(f"id=123456&lat=1&lon=2&{name}=10"), options=options)
                self.assertEqual(wanted, message.events[0].attributes["speed_kmh"], (unit, name))
            (message,) = decode(post(json.dumps({"id": "abc", "location": location()})), options=options)
            self.assertEqual(36.0, message.events[0].attributes["speed_kmh"], unit)

    def test_unknown_unit(self) -> None:
        """A unit that is none stops start-up, and the line names the key and what there is."""
        error = self.assertRaises(ConfigError, registry.load, (), {"osmand": {"speed_unit": "mph"}})
        self.assertEqual(
            "configuration: section [devices.osmand]: key 'speed_unit': 'mph' is none of knots, m/s, km/h", str(error)
        )
        self.assertEqual(["speed_unit"], [field.name for field in dataclasses.fields(Options)])

    def test_bounded(self) -> None:
        """What is kept of unknown parameters has a limit, in number and in length."""
        query = "id=123456&lat=1&lon=2&" + "&".join(f"{'n' * 70}{n:02}={'v' * 400}" for n in range(14))
        (message,) = decode(get(query))
        io = message.events[0].attributes["io"]
        self.assertEqual({"n" * 64: "v" * 256}, io)
        (message,) = decode(get("id=123456&lat=1&lon=2&" + "&".join(f"n{n}={n}" for n in range(60))))
        self.assertEqual({f"n{n}": n for n in range(32)}, message.events[0].attributes["io"])

    def test_unreadable(self) -> None:
        """What can't be read is answered with 400 and the reason, and the connection goes on."""
        good = get("id=123456&lat=1&lon=2")
        many = json.dumps({"id": "abc", "location": [{"coords": {}}] * 501})
        for request, reason in (
            (get("lat=1&lon=2"), "no device: give id, deviceid or device_id"),
            (get("id=ab&lat=1&lon=2"), "the id 'ab' is not 3 to 32 letters, digits, '_', '-' or '.'"),
            (get("id=a%20phone%C3%A4&lat=1&lon=2"), "the id 'a phone\\xe4' is not 3 to 32 letters"),
            (get("id=123456&id=x&deviceid=abc&lat=1&lon=2"), "more than one device"),
            (get("id=123456&lat=91&lon=2"), "lat is '91', not a number of -90 to 90"),
            (get("id=123456&lat=nan&lon=2"), "lat is 'nan'"),
            (get("id=123456&lat=1"), "lon is 'None', not a number of -180 to 180"),
            (get("id=123456&location=1"), "lon is ''"),
            (get("id=123456&lat=1&lon=2&timestamp=yesterday"), "the timestamp 'yesterday' is not seconds"),
            (get("id=123456&lat=1&lon=2&timestamp=2026-11-22"), "the timestamp '2026-11-22' is not"),
            (get("id=123456&lat=1&lon=2&timestamp=-5"), "the timestamp '-5' is not"),
            (get("id=123456&lat=1&lon=2&timestamp=1969-12-31T23:59:59Z"), "the timestamp '1969"),
            (get("id=123456&lat=1&lon=2&" + "a=1&" * 100), "Max number of fields exceeded"),
            (post('{"location": {"coords": {"latitude": 1'), "the body is not JSON: Expecting ',' delimiter"),
            (post('{"id": "abc", "location": {"coords": {"latitude": NaN}}}'), "not JSON: NaN is no number"),
            (post("[" * 30_000), "nested too deeply"),
            (post('["a"]'), "the JSON is no object"),
            (post(json.dumps({"id": "abc", "location": [], **dict.fromkeys(map(str, range(99)))})), "101 names beside"),
            (post('{"id": "abc"}'), "a location without coords"),
            (post('{"id": "abc", "location": [1]}'), "a location without coords"),
            (post('{"id": "abc", "location": {"coords": {"latitude": "x"}}}'), "lat is 'x', not a number of -90 to 90"),
            (post(many), "501 locations, more than 500"),
            (post('{"device_id": null, "location": []}'), "no device"),
            (post('[{"id": "abc", "location": []}, {"id": "def", "location": []}]'), "more than one device"),
        ):
            message, after = decode(request + good)
            assert message.error is not None
            assert message.reply is not None
            self.assertIn(reason, message.error.reason)
            self.assertEqual((request, ()), (message.raw, message.events))
            head, _, body = message.reply(NOON).decode().partition("\r\n\r\n")
            self.assertEqual(("HTTP/1.1 400 Bad Request", False), (head.split("\r\n")[0], message.close))
            self.assertEqual(message.error.reason + "\n", body)
            self.assertIn(f"Content-Length: {len(body)}", head)
            self.assertIsNone(after.error)

    def test_nested(self) -> None:
        """JSON that is nested too deeply is refused, be it for reading or for keeping what is unknown."""
        for depth in range(1, 1_200, 7):
            inner = '{"a":' * depth + "1" + "}" * depth
            (message,) = decode(post(f'{{"id": "abc", "location": {{"coords": {{}}, "deep": {inner}}}}}'))
            if message.error is not None:
                self.assertEqual("the JSON is nested too deeply", message.error.reason)

    def test_whose(self) -> None:
        """A request that names its device and can't be read otherwise says whose it is."""
        self.assertEqual([IDENT], [m.ident for m in decode(get("id=123456&lat=91&lon=2"))])

    def test_other_answers(self) -> None:
        """While nothing can be stored it is 503 with a time to wait, for who is not let in 403."""
        (message,) = decode(get("id=123456&lat=1&lon=2"))
        self.assertIn(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\n", message.unavailable)
        self.assertIn(b"HTTP/1.1 403 Forbidden\r\n", message.refusal)
        for answer in (message.unavailable, message.refusal):
            head, _, body = answer.partition(b"\r\n\r\n")
            self.assertIn(b"Content-Length: %d\r\nConnection: keep-alive" % len(body), head)
        (message,) = decode(get("lat=1&lon=2"))
        self.assertIn(b"HTTP/1.1 503 ", message.unavailable)


class ReadmeTests(SynchronousTestCase):
    """What the README tells to set up."""

    def said(self, url: str) -> Mapping[str, Any]:
        """What a report to this URL says."""
        (message,) = decode(get(url.partition("/?")[2]))
        (event,) = message.events
        self.assertEqual(("my-phone", "position", JSON_AT), (message.ident, event.type, event.time))
        self.assertNotIn("io", event.attributes)
        return rounded(event.attributes)

    def test_osmand(self) -> None:
        """The address for OsmAnd, with what the app puts in, in the order in which it numbers it."""
        # latitude, longitude, milliseconds, accuracy, altitude, metres per second, bearing
        url = block("osmand").strip().format(52.52, 13.405, 1_795_348_740_250, 4.0, 71.5, 11.39, 85.4)
        wanted = {"latitude": 52.52, "longitude": 13.405, "hdop": 4, "altitude_m": 71.5, "speed_kmh": 41.0}
        self.assertEqual({"transport": "http", "valid": True, "course_deg": 85, **wanted}, self.said(url))

    def test_any_program(self) -> None:
        """The report by hand."""
        found = re.search('"(http.*)"', block("phone"))
        assert found is not None
        said = self.said(found[1].replace("$(date +%s)", "1795348740.25"))
        self.assertEqual((41.0, 85, 80), tuple(said[name] for name in ("speed_kmh", "course_deg", "battery_pct")))


class ConnectionTests(SynchronousTestCase):
    """Where requests end, and what becomes of the connection."""

    def test_every_cut(self) -> None:
        """Each request says the same wherever it is cut, and byte by byte."""
        for case in CASES:
            wanted = [essence(m) for m in decode(case.data)]
            self.assertEqual(wanted, [essence(m) for m in decode(*pieces(case.data))], case.name)
            for at in range(1, len(case.data)):
                self.assertEqual(wanted, [essence(m) for m in decode(case.data[:at], case.data[at:])], (case.name, at))

    def test_pipelined(self) -> None:
        """Requests in one stream, cut at random places, with empty lines between them, say what each says alone."""
        alone = [(case.data, [essence(m) for m in decode(case.data)]) for case in CASES]
        for seed in range(50):
            dice = random.Random(seed)
            chain = [dice.choice(alone) for _ in range(12)]
            stream = b"".join(data + dice.choice((b"", b"\r\n", b"\n\r\n")) for data, _ in chain)
            reads, at = [], 0
            while at < len(stream):
                size = dice.choice((1, 2, 3, 100, 1460))
                reads.append(stream[at : at + size])
                at += size
            self.assertEqual([one for _, said in chain for one in said], [essence(m) for m in decode(*reads)], seed)

    def test_keep_alive(self) -> None:
        """HTTP/1.1 keeps the connection unless it says close; HTTP/1.0 closes it unless it says keep-alive."""
        query = b"/?id=123456&lat=1&lon=2 HTTP/1."
        for version, connection, close in (
            (b"1", b"", False),
            (b"1", b"Connection: close\r\n", True),
            (b"1", b"connection: TE, Close\r\n", True),
            (b"1", b"Connection: keep-alive\r\n", False),
            (b"0", b"", True),
            (b"0", b"Connection: Keep-Alive\r\n", False),
        ):
            request = b"GET " + query + version + b"\r\n" + connection + b"\r\n"
            messages = decode(request + request)
            self.assertEqual([close] * (1 if close else 2), [m.close for m in messages], (version, connection))
            assert messages[0].reply is not None
            self.assertIn(b"close" if close else b"keep-alive", messages[0].reply(NOON))

    def test_faults(self) -> None:
        """What can't be delimited is answered with its status, and ends the stream."""
        start = b"POST /?id=123456&lat=1&lon=2 HTTP/1.1\r\n"
        chunks = start + b"Transfer-Encoding: chunked\r\n\r\n"
        for data, code in (
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\n\r\n", 400),
            (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
            (b"\0\0GET / HTTP/1.1\r\n\r\n", 400),
            (b"*HQ,9170123456,V0#\r\n\r\n", 400),
            (start + b"Host : g\r\n\r\n", 400),
            (start + b"Host\r\n\r\n", 400),
            (start + b"A: b\r\n c\r\n\r\n", 400),
            (start + b"A: b\rc\r\n\r\n", 400),
            (start + b"A: \0\r\n\r\n", 400),
            (start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (start + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
            (start + b"Content-Length: +5\r\n\r\n", 400),
            (start + b"Content-Length: \r\n\r\n", 400),
            (start + b"Content-Length: 65536\r\n\r\n", 413),
            (start + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
            (start + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (start.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n", 400),
            (b"HEAD / HTTP/1.1\r\n\r\n", 405),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", 405),
            (b"x" * HEAD_LIMIT, 431),
            (start + b"A: " + b"b" * (HEAD_LIMIT - len(start) - 3), 431),
            (chunks + b"nonsense\r\n", 400),
            (chunks + b"5\n", 400),
            (chunks + b"-5\r\n", 400),
            (chunks + b"2\r\nabcd", 400),
            (chunks + b"f" * LINE_LIMIT, 400),
            (chunks + b"10000\r\n", 413),
            (chunks + b"fffffff\r\n", 413),
            (chunks + b"0\r\n" + b"a" * LINE_LIMIT, 400),
        ):
            for reads in ([data + b"GET /?id=123456&lat=1&lon=2 HTTP/1.1\r\n\r\n"], pieces(data)):
                (message,) = decode(*reads)
                assert message.error is not None
                self.assertEqual((code, data, True), (status(message), message.raw, message.close), data[:80])
        self.assertIn(b"\r\nAllow: GET, POST\r\n", response(405, False))

    def test_ended(self) -> None:
        """After a request that ends the stream nothing is held and nothing counts."""
        made = device.decoder(Options(), no_memory)
        self.assertEqual(1, len(made.receive(b"nonsense\r\n\r\nrest", NOON)))
        self.assertEqual(b"", made.rest)
        self.assertEqual([], made.receive(get("id=123456&lat=1&lon=2"), NOON))
        self.assertEqual(b"", made.rest)

    def test_longest(self) -> None:
        """The longest request is taken: head, body, and the chunks of a body."""
        start = b"POST /?id=123456&lat=1&lon=2 HTTP/1.1\r\n"
        head = start + b"A: " + b"b" * (HEAD_LIMIT - len(start) - 7) + b"\r\n\r\n"
        size = REQUEST_LIMIT - len(start + b"Content-Length: 12345\r\n\r\n")
        for data in (head, start + b"Content-Length: %d\r\n\r\n" % size + b"a" * size):
            (message,) = decode(data)
            self.assertIsNone(message.error)
            self.assertEqual(data, message.raw)
        self.assertEqual([413], [status(m) for m in decode(start + b"Content-Length: %d\r\n\r\n" % (size + 1))])
        self.assertEqual([413], [status(m) for m in decode(chunked("a" * 60_000, "b" * 10_000))])

    def test_many_small_trailers(self) -> None:
        """A trailer without an end does not go on for ever."""
        data = chunked("a")[:-2]
        (message,) = decode(data + b"a: b\r\n" * 20_000)
        self.assertEqual(413, status(message))

    def test_unfinished(self) -> None:
        """A request that the stream ends inside of is left over."""
        for data in (get("id=123456&lat=1&lon=2")[:-1], chunked("abc")[:-1], post("{}")[:-1]):
            made = device.decoder(Options(), no_memory)
            self.assertEqual(([], ()), (made.receive(data, NOON), made.finish(NOON)))
            self.assertEqual(data, made.rest)

    def test_whole_connections(self) -> None:
        """A pipeline on a connection, byte by byte: all are told apart, and the connection ends when one says so."""
        first, second = get("id=123456&lat=1&lon=2"), get("id=654321&lat=1&lon=2", "Connection: close\r\n")
        connection = Connection(Candidates(registry.load(), "tcp"), Limits(), no_memory, NOON)
        messages: list[Message] = []
        for byte in pieces(first + second):
            messages += connection.receive(byte, NOON)
        self.assertEqual(["123456", "654321"], [m.ident for m in messages])
        self.assertEqual("the device ends the stream", connection.closing)


class DetectionTests(SynchronousTestCase):
    """Which requests are a phone's."""

    def decide(self, data: bytes) -> str | None:
        """Whose a stream is that begins like this and then is silent."""
        detector = Detector(Candidates(registry.load(), "tcp"), 1024)
        decision = detector.feed(data) or detector.silence() or detector.end("the end of the stream")
        return decision.plugin.name if decision.plugin else None

    def test_own(self) -> None:
        """Phones' requests are known within the first bytes; those without an id too, to be told so."""
        for data, at in (
            (get("id=123456&timestamp=1377177267&lat=60.0&lon=30.0&speed=0.0"), 55),
            (get("lat=60.0&lon=30.0&id=123456"), 24),
            (get("lat=60.0&lon=30.0"), 24),
            (get("id=123456&timestamp=1&batt=20"), 36),
            (post("id=123456&lat=1&lon=2&speed=3", "application/x-www-form-urlencoded"), 138),
        ):
            decision = Detector(Candidates(registry.load(), "tcp"), 1024).feed(data)
            assert decision is not None
            self.assertEqual(("osmand", at), (decision.plugin and decision.plugin.name, decision.at), data)

    def test_others(self) -> None:
        """Browsers, scanners, proxies and other devices are not taken in."""
        for data in (
            b"GET / HTTP/1.1\r\nHost: g\r\n\r\n",
            b"GET /favicon.ico HTTP/1.1\r\n\r\n",
            b"GET /?id=1&page=2 HTTP/1.1\r\n\r\n",
            b"GET /?id=1&timestamp=5 HTTP/1.1\r\n\r\n",
            b"GET /?lat=&lon= HTTP/1.1\r\n\r\n",
            b"GET /?id=1&lat=2&lon=3",
            b"GET /.env HTTP/1.1\r\n\r\n",
            b"GET /" + b"a" * 2000,
            b"GET /?id=999000000000003&gprmc=$GPRMC,082202.0,A HTTP/1.1\r\n\r\n",
            b"HEAD /?id=123456&lat=1&lon=2 HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"POST /cgi-bin/luci HTTP/1.1\r\nContent-Length: 9\r\n\r\nid=1&a=23",
            post('{"_type": "location", "lat": 1, "lon": 2, "tid": "5t"}'),
            post('{"device": "49F941", "location": {"lat": 19.5, "lng": -99.1}}'),
            post("<gps id='911'/>", "text/xml"),
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<gps>\r\n",
            b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /?lat=1 SMTP",
        ):
            self.assertIsNone(self.decide(data), data)

    def test_udp(self) -> None:
        """HTTP is not spoken over UDP."""
        self.assertIsInstance(device.detect(b"", "udp"), MORE)
        self.assertIsInstance(device.detect(get("id=123456&lat=1&lon=2"), "udp"), NO)

    def test_laws(self) -> None:
        """NO is final, a YES of 80 stays, on every prefix of every request here and of mixtures of them."""
        requests = [case.data for case in CASES]
        requests += [a[: len(a) // 2] + b[len(b) // 2 :] for a in requests for b in requests]
        for data in requests:
            refused = sure = 0
            for size in range(1, min(len(data), 1024) + 1):
                answer = device.detect(data[:size], "tcp")
                if isinstance(answer, NO):
                    refused = size
                    self.assertFalse(sure, data)
                else:
                    self.assertFalse(refused, (data, size))
                    sure = sure or (isinstance(answer, YES) and answer.confidence >= 80)


class VectorTests(SynchronousTestCase):
    """The public vectors of ../shared."""

    def own(self) -> list[tuple[bytes, dict[str, Any]]]:
        """The requests of this protocol, as they stand on the wire."""
        found = rows("vectors.public.jsonl")
        return [(bytes.fromhex(row["wire_hex"]), row) for row in found if row["protocol"] == "osmand"]

    def test_own(self) -> None:
        """Each is detected and read as expected: a position, a status, or nobody's, which is answered with 400."""
        kinds = {"position": "position", "not-null": "status"}
        for data, row in self.own():
            played = play(data, NOON)
            self.assertEqual("osmand", played.protocol, data)
            ((message, envelopes),) = played.messages
            wanted = kinds.get(row["expect"]["result"])
            if wanted is None:
                self.assertEqual((400, ()), (status(message), envelopes), data)
                continue
            self.assertIsNone(message.error, data)
            self.assertEqual([wanted], [envelope.type for envelope in envelopes], data)
            self.assertEqual(wanted == "position", "latitude" in envelopes[0].attributes, data)

    def test_values(self) -> None:
        """The values of two of them, read by hand."""
        said = {
            message.ident: message.events[0] for data, _ in self.own() for message in decode(data)[:1] if message.events
        }
        phone = said["48241179"]
        self.assertEqual(utc(2025, 6, 15, 13, 45, 12) + 0.862, phone.time)
        for name, value in (("latitude", 37.421998), ("longitude", -122.084), ("speed_kmh", 0.0), ("battery_pct", 100)):
            self.assertEqual(value, rounded(phone.attributes)[name], name)
        self.assertEqual((5, 5, "still"), tuple(phone.attributes[n] for n in ("altitude_m", "accuracy_m", "activity")))
        self.assertNotIn("course_deg", phone.attributes)
        car = said["123456789012345"]
        self.assertEqual((1_504_763_810.0, 74.08), (car.time, rounded(car.attributes)["speed_kmh"]))
        self.assertEqual({"rpm": 933, "fuel": 24}, car.attributes["io"])

    def test_nobody_else(self) -> None:
        """No message of another protocol is taken for a phone's."""
        plugins = [plugin for plugin in registry.load() if plugin.name == "osmand"]
        taken = []
        for row in rows("vectors.public.jsonl"):
            data = bytes.fromhex(row.get("wire_hex") or "")
            detector = Detector(Candidates(plugins, "tcp"), 1024)
            decision = detector.feed(data) or detector.silence() or detector.end("the end of the stream")
            if decision.plugin and row["protocol"] != "osmand":
                taken.append((row["protocol"], data))
        self.assertEqual([], taken)


requests = st.sampled_from([case.data for case in CASES])
words = st.sampled_from(
    b'GET |POST | HTTP/1.1\r\n|\r\n\r\n|\n|\r|&|=|%|{|[|"|,|-1|nan|1e999|\\ud800|0\r\n\r\n|5\r\n|'
    b"Content-Length: 5\r\n|Transfer-Encoding: chunked\r\n".split(b"|")
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request with some of its bytes replaced, doubled or missing."""
    data = bytearray(draw(requests))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.one_of(words, st.binary(max_size=4)))
        data[at : at + draw(st.integers(0, 12))] = new
    return bytes(data)


streams = st.lists(st.one_of(requests, mutated(), words, st.binary(max_size=40)), max_size=5).map(b"".join)


class PropertyTests(SynchronousTestCase):
    """What holds for any bytes."""

    @settings(max_examples=300, deadline=None)
    @given(streams, st.integers(2, 40))
    @example(b"\r\n" + CASES[0].data, 2)
    def test_reads_do_not_matter(self, stream: bytes, size: int) -> None:
        """Byte by byte, in pieces and whole are the same messages and the same rest, in order, and nothing raises."""
        results = []
        for reads in ([stream], pieces(stream), pieces(stream, size)):
            made = device.decoder(Options(), no_memory)
            messages = [essence(m) for read in reads for m in made.receive(read, NOON)]
            results.append((messages, made.rest))
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])
        messages, rest = results[0]
        at = 0
        for raw in (*(message[0] for message in messages), rest):
            found = stream.find(raw, at)
            self.assertEqual(b"", stream[at:found].strip(b"\r\n"))
            at = found + len(raw)
        if not (messages and messages[-1][-1]):
            self.assertEqual(b"", stream[at:].strip(b"\r\n"))

    @settings(max_examples=300, deadline=None)
    @given(mutated())
    def test_values(self, data: bytes) -> None:
        """Whatever is decoded is something that the streams can carry."""
        for message in decode(data):
            for event in message.events:
                a = event.attributes
                self.assertLessEqual(abs(a.get("latitude", 0)), 90)
                self.assertLessEqual(abs(a.get("longitude", 0)), 180)
                self.assertTrue(0 <= a.get("speed_kmh", 0) <= 10_000, a)
                self.assertIn(a.get("course_deg", 0), range(360))
                self.assertTrue(event.time is None or 0 <= event.time < 1e11)
                json.dumps(a, allow_nan=False, ensure_ascii=False).encode()
                for number in a.get("io", {}).values():
                    self.assertFalse(isinstance(number, int) and abs(number) >= 1 << 53)

    @settings(max_examples=300, deadline=None)
    @given(streams)
    def test_any_stream(self, stream: bytes) -> None:
        """Detection keeps its laws on any bytes."""
        refused = sure = False
        for size in range(1, min(len(stream), 600) + 1):
            answer = device.detect(stream[:size], "tcp")
            self.assertFalse(refused and not isinstance(answer, NO))
            self.assertFalse(sure and isinstance(answer, NO))
            refused = isinstance(answer, NO)
            sure = sure or (isinstance(answer, YES) and answer.confidence >= 80)


class CostTests(SynchronousTestCase):
    """What a stream costs."""

    def spent(self, reads: Sequence[bytes]) -> float:
        """Seconds for these reads on a connection that is a phone's."""
        made = Connection(Candidates(registry.load(), "tcp"), Limits(), no_memory, NOON)
        made.receive(get("id=123456&lat=1&lon=2"), NOON)
        before = process_time()
        for read in reads:
            made.receive(read, NOON)
        return process_time() - before

    def test_small_reads(self) -> None:
        """Head, body and chunks byte by byte cost little a byte."""
        body = b"POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + b"a" * 20_000
        chunk = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3_000
        for data in (b"GET /" + b"a" * 8_000, body, chunk, b"\r\n" * 10_000):
            self.assertLess(self.spent(pieces(data)), 1.0, data[:30])

    def test_awkward_requests(self) -> None:
        """Requests that are made to cost do not cost more than others of their length."""
        locations = ",".join(['{"coords":{}}'] * 500)
        names = ",".join(f'"{n}":1' for n in range(95))
        shared = post(f'{{"id":"abc",{names},"location":[{locations}],"x":"{"y" * 50_000}"}}')
        for data in (
            b"GET / HTTP/1.1\r\nA:" + b" " * 8_000 + b"\0\r\n\r\n",
            get("&" * 8_000),
            get("a" * 4_000 + "=" * 4_000),
            post("%" * 60_000),
            post("[" * 60_000),
            post('{"a":' * 10_000),
            shared,
        ):
            self.assertLess(self.spent([data]), 0.2, data[:60])

    def test_many_requests_in_large_reads(self) -> None:
        """Requests in one read are read in time that grows with their number, not with its square."""
        spent = [self.spent([get("id=123456&lat=1&lon=2") * count]) for count in (500, 4_000)]
        self.assertLess(spent[1], max(spent[0], 0.02) * 24, str(spent))
