"""The script of commands on a real server: each step is taken once, and what somebody else wrote harms nobody."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import redis
import txredisapi
from redis.exceptions import ResponseError
from twisted.internet.defer import Deferred, fail, succeed

from gateway.commands import COMMANDS
from gateway.downlink.pending import Pending
from gateway.errors import StepRefused
from gateway.sinks.commands import Accepted, CommandStore
from gateway.sinks.connection import Layout
from tests.integration.parts import RealPartsTestCase, connect

IDENT: Final = "9170123456"
WAITING: Final = f"gateway:pending:{IDENT}"
ALL: Final = "gateway:pending"


class Client:
    """A connection to Redis as the store has it, which waits for each answer."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def command(self, *args: Any) -> Deferred[Any]:
        """A command, done."""
        try:
            return succeed(self._client.execute_command(*args, NEVER_DECODE=True))
        except ResponseError as error:
            text = str(error)
            if text.startswith("No matching script"):
                text = "NOSCRIPT " + text
            return fail(txredisapi.ResponseError(text))


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine comes to that waits for nothing."""
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


class CommandScriptCase(RealPartsTestCase):
    """A server and two instances."""

    def set_up(self) -> None:
        """Start it."""
        url = self.running_redis().url
        self.client, self.plain = connect(url), redis.Redis.from_url(url, protocol=2)
        self.plain.response_callbacks.clear()
        self.addCleanup(self.client.close)
        self.addCleanup(self.plain.close)
        self.maxlen = 0
        self.store, self.other = self.instance("a"), self.instance("b")

    def instance(self, name: str) -> CommandStore:
        """The store of an instance."""
        client: Any = Client(self.plain)
        return CommandStore(lambda: client, Layout("gateway", name), time.time, time.monotonic, lambda: self.maxlen)

    def accept(
        self,
        ref: str = "r",
        command: str = "position.request",
        *,
        entry: str | None = None,
        kind: str = "queued",
        ttl_s: float = 60.0,
        per_hour: int = 10,
        waiting: int = 4,
        args: Any = None,
    ) -> Accepted:
        """Take a command in."""
        entry = entry or f"{int(time.time() * 1000)}-{ref.encode().hex()}"
        accepted: Accepted = now(
            self.store.accept(
                entry,
                ref,
                IDENT,
                kind,
                ttl_s=ttl_s,
                per_hour=per_hour,
                waiting=waiting,
                opposite=COMMANDS[command].opposite,
                about={"ref": ref, "request": entry, "command": command},
                extra={"final": True, "reason": "no"} if kind != "queued" else {"expires": "2026-11-22T00:00:00.000Z"},
                fields={"command": command, "args": json.dumps(args or {}), "by": "", "guard": "{}", "protocol": "toy"},
            )
        )
        return accepted

    def load(self) -> list[Pending]:
        """The device's commands."""
        found: list[Pending] = now(self.store.load(IDENT))
        return found

    def step(self, pending: Pending, kind: str, store: CommandStore | None = None, **more: Any) -> str:
        """Take a step; what became of it."""
        status: str = now((store or self.store).step(pending, kind, {}, **more)).status
        return status

    def said(self) -> list[tuple[str, str, bool]]:
        """Each event: the reference, the kind, and whether it is the last."""
        rows = [(fields["type"], json.loads(fields["data"])) for _, fields in self.client.xrange("gateway:result")]
        return [(data["ref"], kind.removeprefix("command."), data.get("final", False)) for kind, data in rows]

    def request(self, ref: str = "r") -> dict[str, str]:
        """What is kept of a command."""
        found: dict[str, str] = self.client.hgetall(f"gateway:request:{ref}")
        return found


class AcceptTests(CommandScriptCase):
    """How a command is taken in."""

    def test_queued(self) -> None:
        """It is kept, waits, and is said, with the device's id as the registry has it."""
        self.set_up()
        self.client.hset(f"gateway:registry:{IDENT}", "device_id", "car 7")
        self.client.set(f"gateway:session:{IDENT}", "b")
        self.assertEqual(Accepted("queued", "b", ()), self.accept(args={"a": 1}))
        self.assertEqual([("r", "queued", False)], self.said())
        ((_, event),) = self.client.xrange("gateway:result")
        self.assertEqual(("car 7", "toy", "gateway/a"), (event["device_id"], event["protocol"], event["source"]))
        self.assertEqual(["r"], self.client.lrange(WAITING, 0, -1))
        (score,) = [score for _, score in self.client.zrange(ALL, 0, -1, withscores=True)]
        self.assertAlmostEqual(time.time() + 5, score / 1000, delta=2)
        for key in (WAITING, "gateway:request:r", f"gateway:rate:{IDENT}"):
            self.assertGreater(self.client.ttl(key), 3000, key)
        (pending,) = self.load()
        self.assertEqual(("r", {"a": 1}, 1), (pending.ref, pending.args, pending.step))
        self.assertAlmostEqual(time.monotonic() + 60, pending.expires, delta=2)

    def test_again(self) -> None:
        """The same entry is taken in once, and another with the same reference not at all."""
        self.set_up()
        self.accept(entry="1-1", ttl_s=1e10)
        self.assertEqual("again", self.accept(entry="1-1", ttl_s=1e10).kind)
        self.assertEqual("known", self.accept(entry="2-1", ttl_s=1e10).kind)
        self.assertEqual(1, len(self.said()))

    def test_expired(self) -> None:
        """The time of its entry counts, and a time of the future is now."""
        self.set_up()
        self.assertEqual("expired", self.accept("old", entry=f"{int((time.time() - 61) * 1000)}-0").kind)
        self.assertEqual("queued", self.accept("new", entry=f"{int((time.time() + 1e6) * 1000)}-0").kind)
        (pending,) = self.load()
        self.assertLess(pending.expires, time.monotonic() + 61)
        self.assertIn(("old", "expired", True), self.said())

    def test_limits(self) -> None:
        """So many an hour and so many that wait, and no more; a limit of 0 is none."""
        self.set_up()
        kinds = [self.accept(f"r{n}", per_hour=3, waiting=9).kind for n in range(4)]
        self.assertEqual(["queued"] * 3 + ["refused"], kinds)
        self.assertEqual("refused", self.accept("full", per_hour=0, waiting=3).kind)
        self.assertEqual("queued", self.accept("free", per_hour=0, waiting=4).kind)
        self.assertEqual("3", self.client.get(f"gateway:rate:{IDENT}"))
        self.assertIn(("r3", "refused", True), self.said())

    def test_superseded(self) -> None:
        """The opposite takes its place in whatever state it is, says so first, and makes room for itself."""
        self.set_up()
        for state in ("queued", "sending", "sent", "confirmed"):
            self.accept(f"cut.{state}", "engine.stop", waiting=1)
            (pending,) = self.load()
            if state != "queued":
                self.assertEqual("ok", self.step(pending, state))
            answer = self.accept(f"back.{state}", "engine.resume", waiting=1)
            self.assertEqual(("queued", (f"cut.{state}",)), (answer.kind, answer.superseded))
            self.assertEqual(
                [(f"cut.{state}", "superseded", True), (f"back.{state}", "queued", False)], self.said()[-2:]
            )
            self.assertEqual("stale", self.step(pending, "sent"))
            (back,) = self.load()
            self.assertEqual("ok", self.step(back, "cancelled", final=True))
        self.assertEqual([], self.load())

    def test_refused_opposite(self) -> None:
        """One that is not taken in supersedes nothing."""
        self.set_up()
        self.accept("cut", "engine.stop")
        self.assertEqual("refused", self.accept("back", "engine.resume", per_hour=1).kind)
        self.assertEqual(["cut"], [pending.ref for pending in self.load()])

    def test_final_at_once(self) -> None:
        """What ends as it comes waits for nothing, and its arguments, which may be secret, are not kept."""
        self.set_up()
        self.accept("bad", kind="failed", args={"new": "hush"})
        self.accept("late", entry="1-1", args={"new": "hush"})
        self.assertEqual(("{}", "{}"), (self.request("bad")["args"], self.request("late")["args"]))
        self.assertEqual([0, 0], [self.client.exists(key) for key in (WAITING, ALL)])


class StepTests(CommandScriptCase):
    """Steps."""

    def test_order(self) -> None:
        """Of two steps that follow the same one the first is taken."""
        self.set_up()
        self.accept()
        (mine,), (others,) = self.load(), self.load()
        self.assertEqual(("ok", 2, "sending"), (self.step(mine, "sending"), mine.step, mine.state))
        self.assertEqual("stale", self.step(others, "sending"))
        self.assertEqual(1, others.step)
        sent_ms = int(self.request()["sent_ms"])
        self.assertAlmostEqual(time.time(), sent_ms / 1000, delta=2)
        self.assertEqual("ok", self.step(mine, "", fields={"contrary": "1"}))
        self.assertEqual([("r", "queued", False), ("r", "sending", False)], self.said())
        (again,) = self.load()
        self.assertAlmostEqual(mine.loaded, again.sent, delta=2)

    def test_held_and_late(self) -> None:
        """Only the holder of a device may begin to tell it, and only in time."""
        self.set_up()
        self.accept()
        self.client.set(f"gateway:session:{IDENT}", "b")
        (pending,) = self.load()
        self.assertEqual("held", self.step(pending, "sending", holding=True))
        self.assertEqual("ok", self.step(pending, "sending", self.other, holding=True, in_time=True))
        self.client.hset("gateway:request:r", "expires_ms", int(time.time() * 1000) - 1)
        self.assertEqual("late", self.step(pending, "sending", self.other, in_time=True))
        self.assertEqual("ok", self.step(pending, "sent", self.other))

    def test_final(self) -> None:
        """After the last step there is none, nothing waits any more, and no argument is kept."""
        self.set_up()
        self.accept(args={"new": "hush"})
        (pending,) = self.load()
        self.step(pending, "sending", fields={"expected": '["hush"]'}, look_s=9)
        self.assertEqual("ok", self.step(pending, "confirmed", final=True))
        self.assertEqual("stale", self.step(pending, "confirmed", final=True))
        self.assertEqual([0, 0], [self.client.exists(key) for key in (WAITING, ALL)])
        self.assertNotIn("hush", str(self.request()))
        self.assertGreater(self.client.ttl("gateway:request:r"), 600_000)
        self.assertEqual([("r", "confirmed", True)], self.said()[2:])

    def test_ids(self) -> None:
        """No two events have one id."""
        self.set_up()
        self.accept("a")
        self.accept("b")
        for pending in self.load():
            self.step(pending, "sending")
        rows = self.client.xrange("gateway:result")
        self.assertEqual(4, len({fields["id"] for _, fields in rows}))

    def test_trimmed(self) -> None:
        """The result stream is not longer than it may be, nearly."""
        self.set_up()
        self.maxlen = 100
        for n in range(400):
            self.accept(f"r{n}", kind="failed")
        self.assertLess(self.client.xlen("gateway:result"), 300)


class DueTests(CommandScriptCase):
    """What somebody has to look at."""

    def due(self) -> list[str]:
        """The references of what is due."""
        return [found.pending.ref for found in now(self.store.due())]

    def test_lease(self) -> None:
        """What is due is given to one only, who is told who holds the device; one that waits is due as it expires."""
        self.set_up()
        self.accept(ttl_s=30)
        self.assertEqual([], self.due())
        self.client.set(f"gateway:session:{IDENT}", "b")
        self.client.zadd(ALL, {"r": 1})
        ((holder, pending),) = now(self.store.due())
        self.assertEqual(("b", "r"), (holder, pending.ref))
        self.assertEqual([], self.due())
        self.assertAlmostEqual(time.time() + 30, self.client.zscore(ALL, "r") / 1000, delta=2)
        self.step(pending, "sending", look_s=50)
        self.assertAlmostEqual(time.time() + 50, self.client.zscore(ALL, "r") / 1000, delta=2)
        self.client.zadd(ALL, {"r": 1})
        self.due()
        self.assertAlmostEqual(time.time() + 60, self.client.zscore(ALL, "r") / 1000, delta=2)

    def test_gone(self) -> None:
        """What is kept of nobody, or has ended, is not due, and is taken off."""
        self.set_up()
        self.client.zadd(ALL, {"gone": 1, "over": 1})
        self.client.hset("gateway:request:over", mapping={"final": "1", "ref": "over"})
        self.client.rpush(WAITING, "gone", "over")
        self.assertEqual(([], []), (self.due(), self.load()))
        self.assertEqual([0, 0], [self.client.exists(key) for key in (WAITING, ALL)])

    def test_damaged(self) -> None:
        """A command of which somebody made nonsense ends as failed, once, and keeps no other."""
        for field, value in (
            *(("args", "{"), ("args", "[]"), ("guard", '{"max_speed_kmh":"x"}'), ("step", "one"), ("step", "01")),
            *(("state", "odd"), ("command", "odd"), ("ident", "x y"), ("about", "odd"), ("about", "[]")),
            *(("expires_ms", "soon"), ("expected", "{}}"), ("form", "-1"), ("ref", "other"), ("timeout_s", "nan")),
        ):
            self.set_up() if not hasattr(self, "client") else self.client.flushall()
            self.accept("bad")
            self.accept("good")
            self.client.hset("gateway:request:bad", field, value)
            self.client.zadd(ALL, {"bad": 1, "good": 2})
            refs = self.due()
            self.assertEqual(["good"], refs, (field, value))
            self.assertEqual([("bad", "failed", True)], self.said()[2:], (field, value))
            self.assertIsNone(self.client.zscore(ALL, "bad"))
            self.assertEqual(["good"], [one.ref for one in self.load()], (field, value))


class ForeignKeyTests(CommandScriptCase):
    """Keys that somebody else wrote."""

    def test_in_the_way(self) -> None:
        """What is in the way of a command is refused before anything has changed; what only says something is not."""
        self.set_up()
        for key, passes in (
            (WAITING, False),
            (ALL, False),
            ("gateway:request:r", False),
            ("gateway:result", False),
            (f"gateway:rate:{IDENT}", True),
            (f"gateway:registry:{IDENT}", True),
            (f"gateway:session:{IDENT}", True),
        ):
            self.client.flushall()
            if key.startswith("gateway:session"):
                self.client.rpush(key, "a list")
            else:
                self.client.set(key, "a string")
            if passes:
                self.assertEqual("queued", self.accept().kind, key)
                continue
            with self.assertRaises(StepRefused, msg=key):
                self.accept()
            self.assertEqual([key], self.client.keys("*"))
            if key in (WAITING, ALL):  # that it failed can be said
                self.assertEqual("failed", self.accept(kind="failed").kind, key)
            self.client.delete("gateway:result")

    def test_steps(self) -> None:
        """A last step is taken although nothing can be taken off any more; nothing is due twice of it."""
        self.set_up()
        for key in (WAITING, ALL):
            self.client.flushall()
            self.accept()
            (pending,) = self.load()
            self.client.set(key, "a string")
            self.assertEqual("ok", self.step(pending, "failed", final=True))
            self.assertEqual("stale", self.step(pending, "failed", final=True))
        self.client.flushall()
        self.client.set("gateway:request:r", "a string")
        self.client.zadd(ALL, {"r": 1})
        self.client.rpush(WAITING, "r")
        self.assertEqual(([], []), (now(self.store.due()), self.load()))


class SeenTests(CommandScriptCase):
    """What is known of a device, and streams."""

    def test_seen(self) -> None:
        """Its protocol, when it was seen and its interval; of what somebody else wrote nothing."""
        self.set_up()
        self.assertEqual(("", None, 0.0), now(self.store.seen(IDENT)))
        self.client.hset(f"gateway:last:{IDENT}", "protocol", "st907")
        self.client.zadd("gateway:seen", {IDENT: 1_795_348_800_000})
        self.client.hset(f"gateway:state:{IDENT}", "private", '{"interval":20.5}')
        self.assertEqual(("st907", 1_795_348_800.0, 20.5), now(self.store.seen(IDENT)))
        for key in ("last", "state"):
            self.client.set(f"gateway:{key}:{IDENT}", "a string")
        self.client.set("gateway:seen", "a string")
        self.assertEqual(("", None, 0.0), now(self.store.seen(IDENT)))

    def test_streams(self) -> None:
        """An entry is read once, read again until it is finished, and then gone; others are handed over."""
        self.set_up()
        now(self.store.join())
        now(self.store.join())
        now(self.other.join())
        handed_over = [key for key in self.client.keys("gateway:command:*") if self.client.ttl(key) > 0]
        self.assertEqual(2, len(handed_over), "what is for an instance that is gone for good goes, too")
        self.client.xadd("gateway:command", {"command": "x"})
        ((at, fields),), handed = now(self.store.read())
        self.assertEqual(({"command": "x"}, []), (fields, handed))
        self.assertEqual(([], []), now(self.other.read()))
        self.assertEqual([(at, {"command": "x"})], now(self.store.read(mine=True))[0])
        self.client.xdel("gateway:command", at)
        self.assertEqual([(at, {})], now(self.store.read(mine=True))[0])
        now(self.store.finished([at]))
        self.assertEqual([], now(self.store.read(mine=True))[0])
        now(self.store.hand("b", IDENT, "r"))
        ((at, fields),) = now(self.other.read())[1]
        self.assertEqual({"ident": IDENT, "ref": "r"}, fields)
        now(self.other.finished([at], handed=True))
        self.assertEqual(0, self.client.xlen("gateway:command:b"))


class FakeTests(CommandScriptCase):
    """The fake that unit tests use."""

    def test_like_the_script(self) -> None:
        """Whatever calls come, it answers and says what the script does, at a time that the test sets."""
        from twisted.internet.task import Clock

        from tests.command_fakes import Server, Way

        self.set_up()
        clock = Clock()
        clock.advance(1_795_348_800.0)
        server, choose = Server(clock), random.Random(7)
        real: Any = Client(self.plain)
        way: Any = Way(server.execute)
        layout = Layout("gateway", "a")
        stores = [
            CommandStore(get, layout, clock.seconds, clock.seconds, lambda: 0) for get in (lambda: real, lambda: way)
        ]
        script = stores[0]._script
        text = script.text.replace("call('TIME')", "{call('GET', 'now'), '0'}")
        self.assertNotEqual(text, script.text)
        stores[0]._script = script._replace(text=text, sha="0" * 40)

        def both(what: str, *args: Any, **more: Any) -> Sequence[Any]:
            self.client.set("now", int(clock.seconds()))
            return [now(getattr(store, what)(*args, **more)) for store in stores]

        refs: list[str] = []
        for _ in range(1500):
            roll = choose.random()
            if roll < 0.2:
                ref = f"r{len(refs)}" if choose.random() < 0.9 or not refs else choose.choice(refs)
                refs.append(ref)
                command = choose.choice(["engine.stop", "engine.resume", "reboot"])
                entry = f"{int(clock.seconds() - choose.choice([0, 0, 50])) * 1000}-{len(refs)}"
                about = {"ref": ref, "command": command}
                found = both(
                    *("accept", entry, ref, IDENT, "queued"),
                    ttl_s=choose.choice([20, 60, 600]), per_hour=choose.choice([0, 40]), waiting=5,
                    opposite=COMMANDS[command].opposite, about=about, extra={},
                    fields={"command": command, "args": "{}", "by": "", "guard": "{}", "protocol": "toy"}
                    | choose.choice([{}, {"channel": "auto", "sms_after_ms": choose.choice(["0", "7000", "90000"])}]),
                )  # fmt: skip
                self.assertEqual(*found)
            elif roll < 0.6:
                mine, theirs = both("load", IDENT)
                self.assertEqual([one.ref for one in mine], [one.ref for one in theirs])
                if not mine:
                    continue
                at, kind = choose.randrange(len(mine)), choose.choice(["sending", "sent", "queued", "verified"])
                more: dict[str, Any] = {"final": kind == "verified", "look_s": choose.choice([None, 5, 100])}
                more |= {"holding": choose.random() < 0.3, "in_time": choose.random() < 0.3}
                steps = [
                    now(store.step(one, kind, {"attempt": 1}, **more))
                    for store, one in zip(stores, (mine[at], theirs[at]), strict=True)
                ]
                self.assertEqual(*steps)
            elif roll < 0.8:
                mine, theirs = both("due")
                shown = [[(due.holder, due.pending.ref, due.pending.sent) for due in found] for found in (mine, theirs)]
                self.assertEqual(*map(sorted, shown))
            elif roll < 0.9:
                clock.advance(choose.choice([1, 5, 30]))
            else:
                holder = choose.choice(["a", "b"])
                server.holders[IDENT] = holder
                self.client.set(f"gateway:session:{IDENT}", holder)
        rows = [fields for _, fields in self.client.xrange("gateway:result")]
        self.assertEqual([event["id"] for event in server.results], [fields["id"] for fields in rows])
        self.assertEqual(
            [{k: v for k, v in e.items() if k not in ("id", "type", "ident", "protocol")} for e in server.results],
            [json.loads(fields["data"]) for fields in rows],
        )
        for ref, request in server.requests.items():
            self.assertEqual(request, self.request(ref))
        self.client.delete("gateway:result")
