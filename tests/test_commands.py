"""The commands that applications give: which entries make sense, and what is said of those that don't."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway import commands
from gateway.commands import COMMANDS, FIELDS, GUARD, Guard, Parameter, Request
from gateway.errors import CommandError

ENTRY: Final = "1795369767688-0"
IDENT: Final = "9170123456"
FENCE: Final = {"min_latitude": 52, "max_latitude": 52.5, "min_longitude": 13, "max_longitude": 13.5}


def parse(command: str, args: Any = None, **fields: str) -> Request:
    """Read an entry with this command, its arguments as an object or as text."""
    text = args if isinstance(args, str) else json.dumps(args or {})
    return Request.parse(ENTRY, {"ident": IDENT, "command": command, "args": text, **fields})


class VocabularyTests(SynchronousTestCase):
    """The commands that there are."""

    def test_opposites(self) -> None:
        """The opposite of an opposite is the command itself, and both are proved by one level with other values."""
        for name, definition in COMMANDS.items():
            if definition.opposite:
                other = COMMANDS[definition.opposite]
                self.assertEqual(name, other.opposite)
                if definition.level is not None and other.level is not None:
                    self.assertEqual(definition.level, (other.level[0], not other.level[1]))

    def test_engine(self) -> None:
        """What stops an engine waits for 900 s at most, says how long, is guarded, and is not sent twice."""
        stop = COMMANDS["engine.stop"]
        self.assertEqual(
            (True, 900.0, True, False, ("immobilizer", True)),
            (stop.needs_ttl, stop.max_ttl_s, stop.guarded, stop.again, stop.level),
        )
        self.assertEqual(["engine.stop"], [name for name, definition in COMMANDS.items() if definition.guarded])

    def test_parameters(self) -> None:
        """Each has a kind that entries can give and a meaning; numbers have limits; choices are texts."""
        for name, definition in COMMANDS.items():
            self.assertTrue(definition.meaning, name)
            for key, parameter in definition.parameters.items():
                self.assertIn(parameter.kind, (int, float, str), (name, key))
                self.assertTrue(parameter.meaning, (name, key))
                self.assertLess(parameter.least, parameter.most, (name, key))
                if parameter.kind is not str:
                    self.assertLess(parameter.most, float("inf"), (name, key))
                    self.assertEqual((), parameter.choices)

    def test_guard(self) -> None:
        """What a guard may say are the fields of one."""
        self.assertEqual([*GUARD], [*Guard._fields])


class GoodTests(SynchronousTestCase):
    """Entries that make sense."""

    def test_whole(self) -> None:
        """All fields of an entry are read."""
        fields = {
            "ident": IDENT,
            "command": "engine.stop",
            "args": "{}",
            "ttl": "300",
            "ref": "order-7:b@x",
            "by": "Zoë (desk 2)",
            "guard": '{"max_speed_kmh": 5, "min_apart_s": 20.5}',
            "channel": "auto",
            "sms_after": "30",
        }
        self.assertEqual(set(FIELDS), set(fields))
        found = Request.parse(ENTRY, fields)
        self.assertEqual(
            (ENTRY, "order-7:b@x", IDENT, "engine.stop", {}, 300.0, "Zoë (desk 2)"),
            (found.entry, found.ref, found.ident, found.command.name, found.command.args, found.ttl_s, found.by),
        )
        self.assertEqual({"max_speed_kmh": 5.0, "min_apart_s": 20.5}, found.guard)
        self.assertIs(COMMANDS["engine.stop"], found.command.definition)
        self.assertEqual(("auto", 30.0), (found.channel, found.sms_after_s))

    def test_least(self) -> None:
        """Without the rest: the reference is the entry's id, an hour may pass, nobody is named; empty is not given."""
        for more in ({}, {"args": "", "ttl": "", "by": "", "guard": "", "channel": "", "sms_after": ""}):
            found = Request.parse(ENTRY, {"ident": IDENT, "command": "arm", **more})
            self.assertEqual(
                (ENTRY, {}, 3600.0, "", {}), (found.ref, found.command.args, found.ttl_s, found.by, found.guard)
            )
            self.assertEqual(("data", None), (found.channel, found.sms_after_s))

    def test_arguments(self) -> None:
        """Arguments have the kinds that their parameters say, whichever way JSON writes a number."""
        cases: list[tuple[str, Any, Mapping[str, Any]]] = [
            ("interval.set", {"seconds": 20}, {"seconds": 20}),
            ("interval.set", '{"seconds": 2e1}', {"seconds": 20}),
            ("interval.set", {"seconds": 5}, {"seconds": 5}),
            ("interval.set", {"seconds": 86_400}, {"seconds": 86_400}),
            ("overspeed.set", {"speed_kmh": 120}, {"speed_kmh": 120.0}),
            ("overspeed.set", '{"speed_kmh": -0.0}', {"speed_kmh": 0.0}),
            ("geofence.set", FENCE, {name: float(value) for name, value in FENCE.items()}),
            ("geofence.set", FENCE | {"alarm": "enter", "number": 99}, FENCE | {"alarm": "enter", "number": 99}),
            ("geofence.clear", {}, {}),
            ("geofence.clear", {"number": 1}, {"number": 1}),
            ("server.set", {"host": "gps.example.net", "port": 8888}, {"host": "gps.example.net", "port": 8888}),
            ("password.set", {"old": "0000", "new": "1234"}, {"old": "0000", "new": "1234"}),
            ("raw", {"text": "*HQ,1,R1#"}, {"text": "*HQ,1,R1#"}),
            ("raw", {"hex": "2a4B"}, {"hex": "2a4B"}),
            ("cancel", {"ref": "order-7"}, {"ref": "order-7"}),
        ]
        for command, args, expected in cases:
            found = parse(command, args).command.args
            self.assertEqual(expected, found, command)
            for name, value in found.items():
                self.assertIs(COMMANDS[command].parameters[name].kind, type(value), (command, name))
        self.assertEqual("0.0", str(parse("overspeed.set", '{"speed_kmh": -0.0}').command.args["speed_kmh"]))

    def test_ttl(self) -> None:
        """Seconds, whole or not, up to what the command allows."""
        for command, text, expected in (
            ("arm", "0.5", 0.5),
            ("arm", "604800", 604_800.0),
            ("engine.stop", "900", 900.0),
            ("engine.stop", "000000000000300", 300.0),
        ):
            self.assertEqual(expected, parse(command, ttl=text).ttl_s)

    def test_cancel(self) -> None:
        """What takes back a command needs no device, and may name it."""
        for ident in ("", IDENT):
            self.assertEqual(ident, parse("cancel", {"ref": "order-7"}, ident=ident, ref="order-8").ident)
        self.assertEqual("", Request.parse(ENTRY, {"command": "cancel", "args": '{"ref": "order-7"}'}).ident)


#: What is wrong: command, arguments, fields, what is said of it.
BAD: Final[list[tuple[str, Any, dict[str, str], str]]] = [
    ("engine.explode", {}, {}, "unknown command 'engine.explode' (there are: engine.stop, engine.resume, "),
    ("", {}, {}, "unknown command ''"),
    ("ARM", {}, {}, "unknown command 'ARM'"),
    ("x" * 65, {}, {}, "field 'command' has more than 64 characters"),
    ("arm", {}, {"ident": ""}, "ident '' is not 3 to 32 letters, digits, '_', '.' or '-'"),
    ("arm", {}, {"ident": "12"}, "ident '12' is not"),
    ("arm", {}, {"ident": "1234\n"}, "ident '1234\\n' is not"),
    ("arm", {}, {"ident": "1234:5"}, "ident '1234:5' is not"),
    ("arm", {}, {"ident": "\u0661\u0662\u0663\u0664"}, "is not 3 to 32 letters"),
    ("arm", {}, {"ident": "1" * 33}, "field 'ident' has more than 32 characters"),
    ("arm", {}, {"when": "now"}, "unknown field 'when' (there are: ident, command, args, ttl, ref, by, guard, "),
    ("arm", {}, {"x" * 99: "now"}, f"unknown field '{'x' * 32}' (there"),
    ("arm", {}, {"TTL": "5"}, "unknown field 'TTL'"),
    ("arm", {}, {"by": "x" * 129}, "field 'by' has more than 128 characters"),
    ("arm", {}, {"by": "me\x1b[31m"}, "field 'by' holds something else than printable characters"),
    ("arm", {}, {"by": "\udc80"}, "field 'by' holds something else than printable characters"),
    ("arm", {}, {"ref": ""}, "ref '' is not 1 to 64 letters, digits, '_', '.', ':', '@' or '-'"),
    ("arm", {}, {"ref": "a b"}, "ref 'a b' is not"),
    ("arm", {}, {"ref": "a*"}, "ref 'a*' is not"),
    ("arm", {}, {"ref": "a\n"}, "ref 'a\\n' is not"),
    ("arm", {}, {"ref": "x" * 65}, "field 'ref' has more than 64 characters"),
    # arguments as text
    ("arm", "{", {}, "args is no JSON: "),
    ("arm", "[]", {}, "args is no JSON object"),
    ("arm", "null", {}, "args is no JSON object"),
    ("arm", "1e999", {}, "args is no JSON object"),
    ("arm", "\ufeff{}", {}, "args is no JSON: "),
    ("arm", "[" * 4000, {}, "args is no JSON: "),
    ("arm", '{"a":' * 800, {}, "args is no JSON: "),
    ("interval.set", '{"seconds": 20, "seconds": 30}', {}, "args is no JSON: a name stands twice"),
    ("arm", "{" + " " * 4096 + "}", {}, "field 'args' has more than 4096 characters"),
    # arguments
    ("arm", {"force": True}, {}, "unknown argument 'force' (there are: none)"),
    ("interval.set", {"second": 20}, {}, "unknown argument 'second' (there are: seconds)"),
    ("interval.set", {"\ud800\x1b": 20}, {}, "unknown argument '\\ud800\\x1b'"),
    ("interval.set", {}, {}, "argument 'seconds' is missing: seconds between two reports"),
    ("interval.set", {"seconds": "20"}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", {"seconds": 20.5}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", {"seconds": True}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", {"seconds": None}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", {"seconds": [20]}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", {"seconds": {"a": {"b": 20}}}, {}, "argument 'seconds' is not a whole number"),
    ("interval.set", '{"seconds": NaN}', {}, "argument 'seconds' is not a whole number"),
    ("interval.set", '{"seconds": 1e999}', {}, "argument 'seconds' is not a whole number"),
    ("interval.set", '{"seconds": 1e300}', {}, "argument 'seconds' is not 5 to 86400"),
    ("interval.set", {"seconds": 4}, {}, "argument 'seconds' is not 5 to 86400"),
    ("interval.set", {"seconds": 86_401}, {}, "argument 'seconds' is not 5 to 86400"),
    ("interval.set", '{"seconds": %s}' % ("9" * 4000), {}, "argument 'seconds' is not 5 to 86400"),
    ("overspeed.set", {"speed_kmh": "fast"}, {}, "argument 'speed_kmh' is not a number"),
    ("overspeed.set", {"speed_kmh": False}, {}, "argument 'speed_kmh' is not a number"),
    ("overspeed.set", '{"speed_kmh": NaN}', {}, "argument 'speed_kmh' is not 0 to 400"),
    ("overspeed.set", '{"speed_kmh": Infinity}', {}, "argument 'speed_kmh' is not 0 to 400"),
    ("overspeed.set", '{"speed_kmh": 1e999}', {}, "argument 'speed_kmh' is not 0 to 400"),
    ("overspeed.set", '{"speed_kmh": %s}' % ("9" * 4000), {}, "argument 'speed_kmh' is not 0 to 400"),
    ("overspeed.set", '{"speed_kmh": -%s}' % ("9" * 4000), {}, "argument 'speed_kmh' is not 0 to 400"),
    ("overspeed.set", {"speed_kmh": -1}, {}, "argument 'speed_kmh' is not 0 to 400"),
    ("geofence.set", {"min_latitude": 52}, {}, "argument 'max_latitude' is missing"),
    ("geofence.set", FENCE | {"min_latitude": 53}, {}, "argument 'min_latitude' is not less than 'max_latitude'"),
    ("geofence.set", FENCE | {"max_longitude": 13}, {}, "argument 'min_longitude' is not less than 'max_longitude'"),
    ("geofence.set", FENCE | {"max_latitude": 90.5}, {}, "argument 'max_latitude' is not -90 to 90"),
    ("geofence.set", FENCE | {"alarm": "both"}, {}, "argument 'alarm' is none of leave, enter"),
    ("geofence.set", FENCE | {"alarm": 1}, {}, "argument 'alarm' is not a text"),
    ("geofence.set", FENCE | {"number": 0}, {}, "argument 'number' is not 1 to 99"),
    ("server.set", {"host": "", "port": 1}, {}, "argument 'host' does not have 1 to 64 characters"),
    ("server.set", {"host": "h" * 65, "port": 1}, {}, "argument 'host' does not have 1 to 64 characters"),
    ("server.set", {"host": "h\r\n", "port": 1}, {}, "argument 'host' holds something else than printable ASCII"),
    ("server.set", {"host": "bücher.example", "port": 1}, {}, "argument 'host' holds something else than"),
    ("server.set", {"host": "\ud800", "port": 1}, {}, "argument 'host' holds something else than printable ASCII"),
    ("server.set", {"host": "h", "port": 65_536}, {}, "argument 'port' is not 1 to 65535"),
    ("raw", {}, {}, "raw takes either the argument 'text' or the argument 'hex'"),
    ("raw", {"text": "a", "hex": "61"}, {}, "raw takes either the argument 'text' or the argument 'hex'"),
    ("raw", {"hex": "6"}, {}, "argument 'hex' does not have 2 to 1024 characters"),
    ("raw", {"hex": "616"}, {}, "argument 'hex' is no hex"),
    ("raw", {"hex": "xx"}, {}, "argument 'hex' is no hex"),
    ("raw", {"hex": "  "}, {}, "argument 'hex' is no hex"),
    ("raw", {"hex": "61 62"}, {}, "argument 'hex' is no hex"),
    ("raw", {"text": ""}, {}, "argument 'text' does not have 1 to 512 characters"),
    ("cancel", {}, {}, "argument 'ref' is missing: its reference"),
    ("cancel", {"ref": "a b"}, {}, "argument 'ref' is not 1 to 64 letters"),
    ("cancel", {"ref": "a"}, {"ref": "a"}, "cancel needs a ref of its own"),
    ("cancel", {"ref": "a"}, {"ident": "no device"}, "ident 'no device' is not"),
    # ttl
    ("engine.stop", {}, {}, "engine.stop needs a ttl: the seconds that it may wait, 900 at most"),
    ("engine.stop", {}, {"ttl": ""}, "engine.stop needs a ttl"),
    ("engine.stop", {}, {"ttl": "900.1"}, "ttl 900.1 is more than the 900 s that engine.stop may wait"),
    ("arm", {}, {"ttl": "604801"}, "ttl 604801 is more than the 604800 s that arm may wait"),
    ("arm", {}, {"ttl": "9" * 16}, f"ttl {'9' * 16} is more than the 604800 s"),
    ("arm", {}, {"ttl": "9" * 17}, "field 'ttl' has more than 16 characters"),
    *(
        ("arm", {}, {"ttl": text}, f"ttl {text!r} is not a number of seconds above 0")
        for text in (
            *("0", "0.0", "-1", "+5", "nan", "inf", "Infinity", "1e9", "1e-9", "1_0", " 5", "5 ", "5\n", "5.", ".5"),
            *("0x10", "ten", "5s", "\u0665", "\uff15"),
        )
    ),
    # channel
    ("arm", {}, {"channel": "tcp"}, "channel 'tcp' is none of data, sms, auto"),
    ("arm", {}, {"channel": "phone"}, "field 'channel' has more than 4 characters"),
    ("arm", {}, {"sms_after": "5"}, "sms_after is for the channel auto"),
    ("arm", {}, {"channel": "sms", "sms_after": "5"}, "sms_after is for the channel auto"),
    ("arm", {}, {"channel": "auto", "sms_after": "-5"}, "sms_after '-5' is not a number of seconds"),
    # guard
    ("arm", {}, {"guard": '{"max_speed_kmh": 5}'}, "arm has no guard"),
    ("engine.stop", {}, {"ttl": "9", "guard": "5"}, "guard is no JSON object"),
    ("engine.stop", {}, {"ttl": "9", "guard": "{"}, "guard is no JSON: "),
    ("engine.stop", {}, {"ttl": "9", "guard": "[" * 512}, "guard is no JSON"),
    ("engine.stop", {}, {"ttl": "9", "guard": " " * 513}, "field 'guard' has more than 512 characters"),
    ("engine.stop", {}, {"ttl": "9", "guard": '{"speed": 5}'}, "unknown guard 'speed' (there are: max_speed_kmh, "),
    (
        "engine.stop",
        {},
        {"ttl": "9", "guard": '{"max_speed_kmh": 5, "max_speed_kmh": 500}'},
        "guard is no JSON: a name stands twice",
    ),
    *(
        ("engine.stop", {}, {"ttl": "9", "guard": f'{{"max_age_s": {text}}}'}, "guard 'max_age_s' is not a number of 0")
        for text in ("-1", "true", "null", '"5"', "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "[5]", "{}")
    ),
]


class BadTests(SynchronousTestCase):
    """Entries that make no sense."""

    def test_said(self) -> None:
        """Each is refused with what is wrong in words, which is one line that can be stored and shown."""
        for command, args, fields, said in BAD:
            error = self.assertRaises(CommandError, parse, command, args, **fields)
            self.assertIn(said, str(error), (command, args, fields))
            self.assertTrue(str(error).isprintable(), error)
            self.assertLess(len(str(error)), 500)

    def test_secret(self) -> None:
        """What is said of a secret argument does not show it."""
        for args in ({"old": "hunter2" * 9, "new": "1"}, {"old": "hunter2\x00", "new": "1"}, '{"old": "hunter2", new'):
            self.assertNotIn("hunter2", str(self.assertRaises(CommandError, parse, "password.set", args)))

    def test_nothing(self) -> None:
        """An entry without fields is refused."""
        self.assertRaises(CommandError, Request.parse, ENTRY, {})


class GuardTests(SynchronousTestCase):
    """A guard with what a request says over it."""

    def test_stricter(self) -> None:
        """A request may always be stricter, or as strict."""
        self.assertEqual(Guard(20, 10, 60), Guard().asked({}, False))
        self.assertEqual(Guard(20, 10, 60), Guard().asked({"max_speed_kmh": 20.0}, False))
        self.assertEqual(
            Guard(0, 30, 15), Guard().asked({"max_speed_kmh": 0.0, "min_apart_s": 30.0, "max_age_s": 15.0}, False)
        )

    def test_looser(self) -> None:
        """It may be looser only where that is allowed."""
        for name, value in (("max_speed_kmh", 20.1), ("min_apart_s", 9.0), ("max_age_s", 61.0)):
            error = self.assertRaises(CommandError, Guard().asked, {name: value}, False)
            self.assertIn(f"guard {name} {value:g} is looser than ", str(error))
            self.assertIn("'guard_looser'", str(error))
            self.assertEqual(value, getattr(Guard().asked({name: value}, True), name))


_text = st.text(max_size=40)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
)


def _likely(command: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that are nearly right."""

    def value(parameter: Parameter) -> st.SearchStrategy[Any]:
        least, most = parameter.least, min(parameter.most, 1e6)
        if parameter.kind is int:
            return st.integers(int(least) - 1, int(most) + 1) | _json
        if parameter.kind is float:
            return st.floats(least - 1, most + 1) | st.integers(int(least), int(most)) | _json
        return st.sampled_from(parameter.choices or ("a", "6162", "")) | _json

    return st.fixed_dictionaries({}, optional={n: value(p) for n, p in COMMANDS[command].parameters.items()})


@st.composite
def entries(draw: st.DrawFn) -> dict[str, str]:
    """Fields of entries: right, nearly right, and anything."""
    command = draw(st.sampled_from([*COMMANDS]))
    args = draw(_likely(command) | _json)
    guard = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(GUARD, st.floats(-1, 99) | _json)) | _json)
    fields = {
        "ident": draw(st.just(IDENT) | _text),
        "command": draw(st.just(command) | _text),
        "args": draw(st.just(json.dumps(args)) | _text),
        "ttl": draw(st.sampled_from(["", "5", "900", "nan", "1_0", "-0"]) | st.floats().map(str) | _text),
        "ref": draw(st.just("r-1") | _text),
        "by": draw(_text),
        "guard": draw(st.sampled_from(["", "{}"]) | st.just(json.dumps(guard)) | _text),
    }
    kept = draw(st.sets(st.sampled_from([*fields]), min_size=4))
    return {name: text for name, text in fields.items() if name in kept} | draw(
        st.just({}) | st.dictionaries(_text, _text, max_size=1)
    )


class PropertyTests(SynchronousTestCase):
    """Whatever an entry holds."""

    @given(entries())
    def test_read_or_refused(self, fields: dict[str, str]) -> None:
        """It is read or refused with words, never anything else; what is read is within its limits."""
        try:
            found = Request.parse(ENTRY, fields)
        except CommandError as error:
            str(error).encode()
            return
        definition = found.command.definition
        self.assertLessEqual(found.ttl_s, definition.max_ttl_s)
        self.assertGreater(found.ttl_s, 0)
        self.assertTrue(commands.REF.fullmatch(found.ref))
        for name, value in found.command.args.items():
            parameter = definition.parameters[name]
            self.assertIs(parameter.kind, type(value))
            size = len(value) if isinstance(value, str) else value
            self.assertTrue(parameter.least <= size <= parameter.most)
        self.assertTrue(all(0 <= value < float("inf") for value in found.guard.values()))
        json.dumps([found.by, dict(found.command.args), dict(found.guard)], allow_nan=False).encode()
        # the same again from what was read
        again = Request.parse(ENTRY, fields | {"args": json.dumps(dict(found.command.args))})
        self.assertEqual(found, again)
