"""Commands as they are given: what makes no sense fails, and each is told by the instance that holds its device."""

from __future__ import annotations

import json
import random
from typing import Any

import txredisapi
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.commands import COMMANDS, Request
from gateway.config import CommandsSection
from gateway.errors import CommandError
from tests.command_fakes import ALL, IDENT, Process, Server, Unit
from tests.fakes import NOON


class DispatchCase(SynchronousTestCase):
    """Two instances and a Redis."""

    section = ALL

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.server = Server(self.clock)
        self.here = Process(self.server, self.clock, "here", self.section)
        self.there = Process(self.server, self.clock, "there", self.section)
        self.here.turn()
        self.there.turn()

    def give(self, **fields: str) -> str:
        """Somebody gives a command, which the first instance reads; the entry's id."""
        entry = self.server.add("gateway:command", **fields)
        self.here.turn()
        return entry

    def last(self) -> dict[str, Any]:
        """The newest event."""
        return self.server.results[-1]

    def pump(self, seconds: int) -> None:
        """Time goes on."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.here.turn()
            self.there.turn()


class RejectTests(DispatchCase):
    """Entries that make no sense."""

    def test_reasons(self) -> None:
        """Each ends as failed with the reason, once, and is done with."""
        good = {"ident": IDENT, "command": "interval.set", "args": '{"seconds":30}'}
        for wrong, reason in (
            ({"command": "explode"}, "unknown command 'explode'"),
            ({"command": ""}, "unknown command ''"),
            ({"ident": ""}, "ident '' is not"),
            ({"ident": "a b c"}, "ident 'a b c' is not"),
            ({"args": "{"}, "args is no JSON"),
            ({"args": "[]"}, "args is no JSON object"),
            ({"args": "{}"}, "argument 'seconds' is missing"),
            ({"args": '{"seconds":"x"}'}, "is not a whole number"),
            ({"args": '{"seconds":1}'}, "is not 5 to 86400"),
            ({"args": '{"seconds":30,"more":1}'}, "unknown argument 'more'"),
            ({"ttl": "soon"}, "ttl 'soon' is not a number"),
            ({"ttl": "-1"}, "above 0"),
            ({"ttl": "nan"}, "above 0"),
            ({"ttl": "99999999"}, "is more than"),
            ({"ref": "a b"}, "ref 'a b' is not"),
            ({"odd": "1"}, "unknown field 'odd'"),
            ({"by": "x" * 200}, "more than 128 characters"),
            ({"guard": '{"max_speed_kmh":1}'}, "has no guard"),
            ({"command": "engine.stop", "args": "{}"}, "needs a ttl"),
            ({"command": "engine.stop", "args": "{}", "ttl": "901"}, "more than the 900 s"),
            ({"command": "engine.stop", "args": "{}", "ttl": "9", "guard": '{"max_speed_kmh":90}'}, "looser"),
            ({"command": "engine.stop", "args": "{}", "ttl": "9", "guard": '{"speed":1}'}, "unknown guard"),
            ({"command": "overspeed.set", "args": '{"speed_kmh":1%s}' % ("0" * 400)}, "is not 0 to 400"),
            ({"command": "engine.stop", "args": "{}", "ttl": "9", "guard": '{"max_age_s":1%s}' % ("0" * 400)}, "guard"),
        ):
            before = len(self.server.results)
            entry = self.give(**(good | wrong))
            self.assertEqual(before + 1, len(self.server.results), wrong)
            event = self.last()
            self.assertEqual(("failed", True, entry), (event["type"], event["final"], event["request"]), wrong)
            self.assertIn(reason, event["reason"])
        self.assertEqual({}, self.server.owned["gateway:command"])
        self.assertEqual({}, self.server.streams["gateway:command"])

    def test_anything(self) -> None:
        """Whatever is given is read or refused in words."""
        choose = random.Random(1)
        values: list[Any] = [
            *(None, True, -1, 0, 1.5, 10**400, "x", "\ud800", "", [], {}, [[]], {"seconds": 1}, float("nan"), 1e308),
        ]
        names = sorted({name for one in COMMANDS.values() for name in one.parameters} | {"odd", "max_speed_kmh"})
        for _ in range(3000):
            nested = {choose.choice(names): choose.choice(values) for _ in range(choose.randrange(5))}
            fields = {"ident": IDENT, "command": choose.choice([*COMMANDS]), "args": json.dumps(nested)}
            fields["ttl"] = choose.choice(["", "1", "1e5", "inf", "-0", "1_0", "0x1"])
            fields["guard"] = json.dumps({choose.choice(names): choose.choice(values)}) if choose.random() < 0.3 else ""
            try:
                request = Request.parse("1-1", fields)
            except CommandError as error:
                str(error).encode()
            else:
                json.dumps(request.command.args, allow_nan=False)

    def test_refused_by_redis(self) -> None:
        """A command that Redis refuses to take in fails with its words, and keeps no other."""
        self.here.way.at_once = False  # type: ignore[union-attr]
        execute = self.server.execute

        def refuse(args: Any) -> Any:
            if args[0] == "EVALSHA" and "odd" in args and "queued" in args:
                return txredisapi.ResponseError("WRONGTYPE somebody else's")
            return execute(args)

        self.here.kill()
        self.here = Process(self.server, self.clock, "here", execute=refuse)
        self.server.add("gateway:command", ident=IDENT, command="position.request", ref="odd")
        self.give(ident=IDENT, command="position.request", ref="good")
        kinds = [(event["ref"], event["type"]) for event in self.server.results]
        self.assertEqual([("odd", "failed"), ("good", "queued")], kinds)
        self.assertIn("WRONGTYPE", self.server.results[0]["reason"])
        self.assertEqual({}, self.server.owned["gateway:command"])

    def test_not_handed_over(self) -> None:
        """A key of somebody else's in the way of another instance ends no command twice, and keeps no other."""
        execute = self.server.execute

        def refuse(args: Any) -> Any:
            if args[0] == "XADD" and args[1] == "gateway:command:gone":
                return txredisapi.ResponseError("WRONGTYPE somebody else's")
            return execute(args)

        self.here.kill()
        self.there.kill()
        self.here = Process(self.server, self.clock, "here", execute=refuse)
        self.server.holders = {IDENT: "gone", "other": "gone"}
        self.give(ident=IDENT, command="position.request", ref="r", ttl="20")
        self.give(ident="other", command="position.request", ref="s", ttl="20")
        self.assertEqual(["queued", "queued"], [event["type"] for event in self.server.results])
        for _ in range(120):
            self.clock.advance(1)
            self.here.turn()
        ends = [(event["ref"], event["type"]) for event in self.server.results if event.get("final")]
        self.assertEqual([("r", "expired"), ("s", "expired")], ends)

    def test_error_of_ours(self) -> None:
        """A command with which something of ours fails ends, and keeps no other."""
        first = self.here.dispatcher._first

        def fail(request: Request, *rest: Any) -> Any:
            return 1 / 0 if request.ref == "odd" else first(request, *rest)

        self.patch(self.here.dispatcher, "_first", fail)
        self.server.add("gateway:command", ident=IDENT, command="position.request", ref="odd")
        self.give(ident=IDENT, command="position.request", ref="good")
        kinds = [(event["ref"], event["type"]) for event in self.server.results]
        self.assertEqual([("odd", "failed"), ("good", "queued")], kinds)
        self.assertEqual({}, self.server.owned["gateway:command"])
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class DisabledTests(DispatchCase):
    """Commands that the operator has not turned on."""

    section = CommandsSection()

    def test_disabled(self) -> None:
        """Those of the engine and raw are refused as long as nobody has turned them on."""
        for command in ("engine.stop", "engine.resume", "raw"):
            self.give(ident=IDENT, command=command, ttl="60", args='{"text":"x"}' if command == "raw" else "{}")
            self.assertEqual(("refused", True), (self.last()["type"], self.last()["final"]))
            self.assertIn("section [commands], key 'enabled'", self.last()["reason"])


class RouteTests(DispatchCase):
    """Who tells a device."""

    def test_handed_over(self) -> None:
        """What another instance reads it hands to the one that holds the device."""
        unit = Unit(self.there)
        unit.report()
        self.give(ident=IDENT, command="position.request", ref="r")
        self.assertEqual(1, self.here.counters["commands_handed"])
        self.assertEqual([], unit.told)
        self.there.turn()
        self.assertEqual(1, len(unit.told))
        self.assertEqual({}, self.server.streams["gateway:command:there"])

    def test_once(self) -> None:
        """The same reference twice is one command."""
        unit = Unit(self.here)
        unit.report()
        self.give(ident=IDENT, command="position.request", ref="r")
        self.give(ident=IDENT, command="position.request", ref="r")
        self.pump(2)
        self.assertEqual(1, len(unit.told))
        self.assertEqual(["queued", "sending", "sent"], [event["type"] for event in self.server.results])

    def test_moved(self) -> None:
        """A device that another instance holds by now is not told by the one that held it."""
        unit = Unit(self.here)
        unit.report()
        self.server.holders[IDENT] = "there"
        self.here.dispatcher._line(unit.session)
        self.server.requests.clear()
        self.give(ident=IDENT, command="position.request", ref="r")
        self.assertEqual([], unit.told)
        self.assertIsNone(self.here.sessions.get(IDENT))
        moved = Unit(self.there)
        moved.report()
        self.assertEqual(1, len(moved.told))

    def test_dead_holder(self) -> None:
        """A command whose device nobody has seen since its instance was killed ends in time."""
        unit = Unit(self.there)
        unit.report()
        self.give(ident=IDENT, command="position.request", ref="r", ttl="60")
        self.there.kill()
        for _ in range(150):
            self.clock.advance(1)
            self.here.turn()
        self.assertEqual(("expired", True), (self.last()["type"], self.last()["final"]))

    def test_taken_over(self) -> None:
        """What an instance has read when it is killed another one goes on with."""
        self.there.way.at_once = False  # type: ignore[union-attr]
        self.server.add("gateway:command", ident=IDENT, command="position.request", ref="r")
        self.there.turn()
        while "gateway:command" not in self.server.owned or not self.server.owned["gateway:command"]:
            assert self.there.way is not None
            self.there.way.step()
        self.there.kill()
        for _ in range(45):
            self.clock.advance(1)
            self.here.turn()
        self.assertEqual(["queued"], [event["type"] for event in self.server.results])
        self.assertEqual({}, self.server.owned["gateway:command"])

    def test_taken_over_and_gone(self) -> None:
        """Redis 6.2 says nothing of entries that are deleted and not acknowledged: they are not claimed for ever."""
        execute = self.server.execute

        def old(args: Any) -> Any:
            answer = execute(args)
            if args[0] == "XAUTOCLAIM":
                mine = [at for at, (who, _) in self.server.owned[args[1]].items() if who == args[3]]
                answer[1] += [None for at in mine if at not in self.server.streams[args[1]]]
            return answer

        self.here.kill()
        self.here = Process(self.server, self.clock, "here", execute=old)
        self.here.turn()
        self.server.owned["gateway:command"]["1-1"] = "gone", self.server.now
        for _ in range(45):
            self.clock.advance(1)
            self.here.turn()
        self.assertEqual({}, self.server.owned["gateway:command"])

    def test_warning(self) -> None:
        """A ttl that is shorter than the device's interval is accepted with a warning."""
        self.server.intervals[IDENT] = 600.0
        self.give(ident=IDENT, command="position.request", ref="r", ttl="60")
        self.assertIn("shorter than the 600 s", self.last()["warning"])

    def test_cancel_again(self) -> None:
        """A cancel that was cut off after it took effect is not said to have failed."""
        self.give(ident=IDENT, command="position.request", ref="r")
        way = self.here.way
        assert way is not None
        way.at_once = False
        self.server.add("gateway:command", command="cancel", args='{"ref":"r"}', ref="c")
        self.here.turn()
        while self.last()["type"] != "cancelled":
            way.step()
        way.cut(0)
        way.at_once = True
        self.here.turn(2)
        self.assertEqual(("c", "confirmed"), (self.last()["ref"], self.last()["type"]))

    def test_cancel_nothing(self) -> None:
        """What is not there can't be taken back."""
        self.give(command="cancel", args='{"ref":"nobody"}', ref="c")
        self.assertEqual("failed", self.last()["type"])
        self.assertIn("no command has the reference", self.last()["reason"])

    def test_cancel_with_a_used_reference(self) -> None:
        """A cancel under a reference that was used takes nothing back."""
        self.give(ident=IDENT, command="position.request", ref="r")
        self.give(command="cancel", args='{"ref":"nobody"}', ref="c")
        self.give(command="cancel", args='{"ref":"r"}', ref="c")
        self.assertEqual("queued", self.server.requests["r"]["state"])
        self.assertEqual(2, len(self.server.results))
