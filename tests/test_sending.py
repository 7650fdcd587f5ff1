"""C{gateway send}, C{gateway cancel} and C{gateway history}, against a real Redis; the gateway's part is played."""

from __future__ import annotations

import getpass
import json
import re
import signal
import sys
from typing import Any, Final
from unittest import mock

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from gateway import following
from gateway.cli import main
from gateway.commands import Request
from gateway.following import Step, clock
from tests.integration.parts import Child, RealPartsTestCase, free_port, wait_for
from tests.playing import Played, now

IDENT: Final = "9170123456"
STOP: Final = (IDENT, "engine.stop", "--ttl", "300")
GIVEN: Final = re.compile(r"ref ([0-9a-f]{16}), entry (\d{13}-\d+)")
#: The life of a command that ends well.
VERIFIED: Final[list[tuple[str, dict[str, Any]]]] = [
    ("queued", {"expires": now()}),
    ("sending", {"attempt": 1, "channel": "data"}),
    ("sent", {"attempt": 1, "sent": "2a", "sent_time": now()}),
    ("confirmed", {"reply_text": "DONE"}),
    ("verified", {"position_id": "0" * 32}),
]
_STATES: Final = [state for state, _ in VERIFIED]


class SendingTestCase(RealPartsTestCase):
    """A Redis, and a gateway that is played."""

    def setUp(self) -> None:
        """Start the Redis."""
        super().setUp()
        self.redis = self.running_redis()
        self.client = self.redis.client
        self.played = Played(self.client)

    def run_it(self, *words: str) -> Result:
        """Run the command line."""
        return CliRunner().invoke(main, [*words, "--redis", self.redis.url], catch_exceptions=False)

    def child(self, *words: str) -> Child:
        """Run it as a process of its own."""
        program = [sys.executable, "-u", "-m", "gateway.cli", *words, "--redis", self.redis.url]
        made = Child(program, self.directory / "shown")
        self.addCleanup(made.kill)
        return made

    def entries(self) -> list[dict[str, str]]:
        """The commands that were given."""
        return [fields for _, fields in self.client.xrange("gateway:command")]

    def states(self, result: Result) -> list[str]:
        """What happened, by the lines of it."""
        return [line.split()[1].rstrip(":") for line in result.stdout.splitlines() if re.match(r"[0-9T:.Z-]+ ", line)]


class GivingTests(SendingTestCase):
    """What is given."""

    def test_entry(self) -> None:
        """The entry has what was said, with who asks and a reference that is made; both ids are printed."""
        result = self.run_it("send", *STOP, "--guard", "max_speed_kmh=5", "--guard", "min_apart_s=12.5")
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        found = GIVEN.fullmatch(result.stdout.strip())
        assert found is not None, result.stdout
        [(entry, fields)] = self.client.xrange("gateway:command")
        request = Request.parse(entry, fields)
        self.assertEqual((found[1], found[2]), (request.ref, request.entry))
        self.assertEqual((IDENT, "engine.stop", 300.0), (request.ident, request.command.name, request.ttl_s))
        self.assertEqual({"max_speed_kmh": 5.0, "min_apart_s": 12.5}, request.guard)
        self.assertTrue(request.by.startswith(f"{getpass.getuser()}@"), request.by)

    def test_arguments(self) -> None:
        """NAME=VALUE becomes what the parameter wants: whole numbers, numbers, and texts, whatever they look like."""
        for words, expected in (
            (["interval.set", "seconds=20"], {"seconds": 20}),
            (["overspeed.set", "speed_kmh=1.2e2"], {"speed_kmh": 120.0}),
            (
                [
                    "geofence.set",
                    *"min_latitude=-1 max_latitude=1.5 min_longitude=2 max_longitude=3".split(),
                    "number=7",
                ],
                {"min_latitude": -1.0, "max_latitude": 1.5, "min_longitude": 2.0, "max_longitude": 3.0, "number": 7},
            ),
            (["password.set", "old=0000", "new=12=4"], {"old": "0000", "new": "12=4"}),
            (["geofence.clear"], {}),
        ):
            self.assertEqual(0, self.run_it("send", IDENT, *words, "--by", "me", "--ref", words[0]).exit_code)
            (entry, fields), *_ = self.client.xrevrange("gateway:command")
            request = Request.parse(entry, fields)
            self.assertEqual((expected, "me", words[0]), (request.command.args, request.by, request.ref))
            self.assertNotIn("ttl", fields)

    def test_json(self) -> None:
        """With --json it is an object."""
        found = json.loads(self.run_it("send", IDENT, "arm", "--ref", "r", "--json").stdout)
        [(entry, _)] = self.client.xrange("gateway:command")
        self.assertEqual({"ref": "r", "entry": entry}, found)

    def test_mistakes(self) -> None:
        """Each is told at once in one line, as the gateway would; nothing is given, and the status is 2."""
        for words, said in (
            (["engine.explode"], "unknown command 'engine.explode' (there are: "),
            (["engine.stop"], "engine.stop needs a ttl: the seconds that it may wait, 900 at most"),
            (["engine.stop", "--ttl", "3600"], "ttl 3600 is more than the 900 s that engine.stop may wait"),
            (["arm", "--ttl", "nan"], "ttl 'nan' is not a number of seconds above 0"),
            (["arm", "--ref", "a b"], "ref 'a b' is not 1 to 64 letters"),
            (["arm", "--by", "x\x1b"], "field 'by' holds something else than printable characters"),
            (["arm", "--guard", "max_speed_kmh=5"], "arm has no guard"),
            (["engine.stop", "--ttl", "9", "--guard", "max_speed_kmh=slow"], "guard 'max_speed_kmh' is not a number"),
            (["engine.stop", "--ttl", "9", "--guard", "speed=5"], "unknown guard 'speed' (there are: "),
            (["interval.set"], "argument 'seconds' is missing: seconds between two reports"),
            (["interval.set", "20"], "argument '20' is not NAME=VALUE"),
            (["interval.set", "seconds=20", "seconds=30"], "argument 'seconds' is given twice"),
            (["interval.set", "seconds=1_0"], "argument 'seconds' is not a whole number"),
            (["interval.set", "seconds=" + "9" * 390], "argument 'seconds' is not 5 to 86400"),
            (["interval.set", "seconds=" + "9" * 4000], "argument 'seconds' is not a whole number"),
            (["overspeed.set", "speed_kmh=nan"], "argument 'speed_kmh' is not a number"),
            (["overspeed.set", "speed_kmh=1e999"], "argument 'speed_kmh' is not 0 to 400"),
            (["arm", "now=1"], "unknown argument 'now' (there are: none)"),
            (["server.set", "host=\x1b[2J", "port=1"], "argument 'host' holds something else than printable ASCII"),
        ):
            result = self.run_it("send", IDENT, *words)
            self.assertEqual((2, ""), (result.exit_code, result.stdout), words)
            self.assertIn(f"Error: {said}", result.stderr)
            self.assertEqual(1, result.stderr.count("\n"))
            self.assertTrue(result.stderr.strip().isprintable())
        self.assertIn("ident '1' is not", self.run_it("send", "1", "arm").stderr)
        self.assertIn("--timeout goes with --wait", self.run_it("send", IDENT, "arm", "--timeout", "3").stderr)
        self.assertEqual([], self.entries())

    def test_redis(self) -> None:
        """Without a Redis, or with one that refuses, nothing is given, and the status is 2."""
        nobody = CliRunner().invoke(main, ["send", IDENT, "arm", "--redis", f"redis://127.0.0.1:{free_port()}"])
        self.assertEqual(2, nobody.exit_code)
        self.assertIn("Redis can't be asked: ", nobody.stderr)
        self.client.acl_setuser("mute", enabled=True, passwords=["+pw"], keys=["*"], commands=["+xrevrange"])
        refused = CliRunner().invoke(
            main, ["send", IDENT, "arm", "--redis", self.redis.url.replace("//", "//mute:pw@")]
        )
        self.assertEqual(2, refused.exit_code)
        self.assertIn("Redis refuses: NOPERM", refused.stderr)
        for options, said in (
            (["--redis", "http://h"], "malformed Redis URL"),
            (["--data-dir", "/nowhere"], "no gateway with an embedded Redis has run there"),
            (["--config", "/nowhere"], "/nowhere: No such file or directory"),
        ):
            found = CliRunner().invoke(main, ["send", IDENT, "arm", *options])
            self.assertEqual(2, found.exit_code)
            self.assertIn(said, found.stderr)

    def test_cut_short(self) -> None:
        """A Redis that goes away with the entry leaves it open whether it has it: status 3, and how to go on."""
        with mock.patch.object(following.Life, "add", side_effect=ConnectionResetError("gone")):
            result = self.run_it("send", IDENT, "arm", "--ref", "r-1")
        self.assertEqual((3, ""), (result.exit_code, result.stdout))
        self.assertIn("whether it has the command is not known", result.stderr)
        self.assertIn("--ref r-1", result.stderr)

    def test_cancel(self) -> None:
        """What takes a command back names it, and has a reference of its own."""
        self.assertEqual(0, self.run_it("cancel", "order-7", "--by", "me").exit_code)
        [(entry, fields)] = self.client.xrange("gateway:command")
        request = Request.parse(entry, fields)
        self.assertEqual(
            ("cancel", {"ref": "order-7"}, "", "me"),
            (request.command.name, request.command.args, request.ident, request.by),
        )
        self.assertNotEqual("order-7", request.ref)
        result = self.run_it("cancel", "order 7")
        self.assertEqual(2, result.exit_code)
        self.assertIn("argument 'ref' is not 1 to 64 letters", result.stderr)


class WaitingTests(SendingTestCase):
    """What is shown of what happens."""

    def wait(self, *words: str) -> Result:
        """Give a command and wait."""
        self.played.run()
        return self.run_it("send", *words, "--wait", "--timeout", "20")

    def test_verified(self) -> None:
        """Each step is a line with its time and words; the end of it is good."""
        self.played.at_once(VERIFIED)
        result = self.wait(*STOP)
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        first, *lines = result.stdout.splitlines()
        self.assertTrue(GIVEN.fullmatch(first), first)
        self.assertEqual(_STATES, self.states(result))
        self.assertRegex(lines[0], r"^\d\d:\d\d:\d\d\.\d{3} queued: waits until (....-..-..T)?\d\d:\d\d:\d\d")
        said = [line[13:] for line in lines[1:]]
        self.assertEqual(
            [
                "sending: is being sent",
                "sent: waits for the device's answer",
                "confirmed: the device says that it did it; a later report has to prove it; it says DONE",
                "verified: a later report proves it",
            ],
            said,
        )

    def test_ends(self) -> None:
        """The status says whether it ended well; the line says why."""
        for state, data, status, said in (
            ("confirmed", {"final": True}, 0, "confirmed: the device says that it did it"),
            ("refused", {"reason": "moving at 54 km/h"}, 1, "refused: moving at 54 km/h"),
            ("failed", {"reason": "the device does not know it"}, 1, "failed: the device does not know it"),
            ("mismatch", {}, 1, "mismatch: a later report disproves it"),
            ("expired", {}, 1, "expired: its time is over"),
            ("cancelled", {}, 1, "cancelled: taken back"),
            ("superseded", {"superseded_by": "r9"}, 1, "superseded: another command takes its place; superseded by r9"),
            ("sent", {"final": True, "reason": "it says nothing of it"}, 3, "sent: it says nothing of it"),
        ):
            self.played.at_once([("queued", {}), (state, data)])
            result = self.wait(IDENT, "engine.resume")
            self.assertEqual(status, result.exit_code, state)
            self.assertEqual(said, result.stdout.splitlines()[-1][13:])

    def test_others(self) -> None:
        """What happens with other commands, before and now, is not shown."""
        other = Request.parse("1-1", {"ident": IDENT, "command": "arm", "ref": "other"})
        for _ in range(3):
            self.played.publish(other, "verified")
        for broken in ({}, {"data": "{"}, {"data": "[1]"}):
            self.client.xadd("gateway:result", {"type": "command.sent", "poison": "", **broken})
        self.played.at_once([("queued", {}), None, ("verified", {})])
        result = self.wait(IDENT, "disarm")
        self.assertEqual(["queued", "verified"], self.states(result))

    def test_json(self) -> None:
        """With --json each event is a line, its data an object."""
        self.played.at_once([("queued", {"expires": now()}), ("refused", {"reason": "moving"})])
        result = self.wait(*STOP, "--ref", "r-1", "--json")
        given, queued, refused = map(json.loads, result.stdout.splitlines())
        self.assertEqual("r-1", given["ref"])
        self.assertEqual(
            ("command.queued", IDENT, given["entry"]), (queued["type"], queued["ident"], queued["data"]["request"])
        )
        self.assertEqual((True, "moving"), (refused["data"]["final"], refused["data"]["reason"]))
        rows = dict(self.client.xrange("gateway:result"))
        self.assertEqual(rows[refused["entry"]]["id"], refused["id"])
        self.assertEqual(1, result.exit_code)

    def test_terminal(self) -> None:
        """What a device says reaches no terminal as it is."""
        self.played.at_once([("confirmed", {"reply_text": "\x1b[31mOK\x07\n", "final": True})])
        result = self.wait(IDENT, "arm")
        self.assertIn("it says \\x1b[31mOK\\x07\\x0a", result.stdout)

    def test_nobody(self) -> None:
        """With no gateway there it is said, and until when the entry stays."""
        with mock.patch.object(following, "QUIET_S", 0.5):
            result = self.run_it("send", *STOP, "--ref", "r-1", "--wait")
        self.assertEqual(3, result.exit_code)
        self.assertIn("no gateway is running, as far as Redis knows\n", result.stderr)
        self.assertRegex(result.stderr, r"its entry stays until ....-..-..T..:..:..\....Z; ")
        self.assertIn("'gateway cancel r-1'", result.stderr)
        self.assertEqual(1, len(self.entries()))

    def test_timeout(self) -> None:
        """When the time is over it is said, with what was shown until then."""
        self.played.run()
        self.played.at_once([("queued", {})])
        with mock.patch.object(following, "QUIET_S", 0.5):
            result = self.run_it("send", IDENT, "arm", "--ref", "r-1", "--wait", "--timeout", "2.5")
        self.assertEqual((3, ["queued"]), (result.exit_code, self.states(result)))
        self.assertIn("the time to wait is over\n'gateway history r-1 --wait' follows it", result.stderr)

    def test_not_taken(self) -> None:
        """A gateway that is running but does nothing about it is told of; the wait goes on."""
        self.played.run()
        with mock.patch.object(following, "QUIET_S", 0.5):
            result = self.run_it("send", IDENT, "arm", "--wait", "--timeout", "2.5")
        self.assertEqual(3, result.exit_code)
        self.assertIn(
            "a gateway is running, but has not taken it yet\nthe time to wait is over\nits entry", result.stderr
        )

    def test_gateway_gone(self) -> None:
        """When the gateway that took it is gone, it is told once, and waited for the next."""
        self.played.at_once([("queued", {}), None, None, None, None, None, ("confirmed", {"final": True})])
        with mock.patch.object(following, "QUIET_S", 0.3), mock.patch.object(following, "STILL_QUIET_S", 0.3):
            result = self.run_it("send", IDENT, "arm", "--wait", "--timeout", "20")
        self.assertEqual((0, ["queued", "confirmed"]), (result.exit_code, self.states(result)))
        self.assertEqual("no gateway is running, as far as Redis knows; waiting for one\n", result.stderr)

    def test_redis_away(self) -> None:
        """A Redis that is away for a moment is waited for, and nothing that happened meanwhile is missed."""
        self.played.run()
        child = self.child("send", *STOP, "--wait")
        request = self.played.play([("queued", {})])
        wait_for("the first step", lambda: " queued: " in child.tail())
        self.redis.kill()
        wait_for("it to notice", lambda: "Redis is away: " in child.tail())
        self.redis.start()
        again = Played(self.redis.client)
        for state, data in VERIFIED[1:]:
            again.publish(request, state, **data)
        self.assertEqual(0, child.wait(15), child.tail())
        self.assertEqual(_STATES, re.findall(r"^[0-9:.]+ (\w+): ", child.tail(), re.MULTILINE))

    def test_event_lost(self) -> None:
        """Where the last event is gone, the request's state ends the wait."""
        self.played.run()

        def lost() -> None:
            request = self.played.taken[-1]
            self.client.xdel("gateway:result", self.played.publish(request, "queued"))
            self.client.hset(f"gateway:request:{request.ref}", mapping={"state": "verified", "final": "1"})

        self.played.at_once([], lost)
        result = self.run_it("send", IDENT, "arm", "--wait", "--timeout", "20")
        self.assertEqual(0, result.exit_code, result.output)
        self.assertIn("verified, says its request; the event of it is not there", result.stderr)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the wait, not the command, and says so."""
        self.played.run()
        child = self.child("send", *STOP, "--ref", "r-1", "--wait")
        self.played.play([("queued", {})])
        wait_for("the first step", lambda: " queued: " in child.tail())
        child.signal(signal.SIGINT)
        self.assertEqual(130, child.wait(10))
        self.assertIn(
            "the command goes on; 'gateway history r-1 --wait' follows it, 'gateway cancel r-1'", child.tail()
        )
        self.assertNotIn("Traceback", child.tail())

    def test_refused(self) -> None:
        """A Redis that lets the user in no more ends the wait."""
        self.client.acl_setuser("one", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all"])
        self.played.at_once([("queued", {})], lambda: self.client.acl_setuser("one", commands=["-@all"]))
        url = self.redis.url.replace("//", "//one:pw@")
        result = CliRunner().invoke(main, ["send", IDENT, "arm", "--wait", "--timeout", "20", "--redis", url])
        self.assertEqual(3, result.exit_code, result.output)
        self.assertIn("Redis refuses: NOPERM", result.stderr)


class AgainTests(SendingTestCase):
    """A reference that was used before."""

    def given(self, *steps: tuple[str, dict[str, Any]]) -> None:
        """A command that was given with the reference r-1, and what happened until now."""
        self.run_it("send", *STOP, "--ref", "r-1", "--by", "me")
        self.played.play(steps)

    def test_told(self) -> None:
        """Nothing more is given: how it stands is told."""
        self.given(*VERIFIED[:3])
        result = self.run_it("send", *STOP, "--ref", "r-1")
        self.assertEqual(0, result.exit_code)
        self.assertRegex(
            result.stdout, rf"^ref r-1: engine.stop of {IDENT}, asked for by me at ....-..-..T..:..:..\....Z; sent\n$"
        )
        self.assertEqual(1, len(self.entries()))
        found = json.loads(self.run_it("send", *STOP, "--ref", "r-1", "--json").stdout)
        self.assertEqual(("r-1", "sent", "0"), tuple(found[name] for name in ("ref", "state", "final")))

    def test_followed(self) -> None:
        """With --wait what happens from now on is shown."""
        self.given(*VERIFIED[:3])
        self.played.run()
        child = self.child("send", *STOP, "--ref", "r-1", "--wait")
        wait_for("it to be told", lambda: "; sent" in child.tail())
        for state, data in VERIFIED[3:]:
            self.played.publish(self.played.taken[0], state, **data)
        self.assertEqual(0, child.wait(15))
        self.assertEqual(_STATES[3:], re.findall(r"^[0-9:.]+ (\w+): ", child.tail(), re.MULTILINE))

    def test_ended(self) -> None:
        """One that ended has no wait, and its status."""
        for state, status in (("verified", 0), ("refused", 1)):
            self.given((state, {}))
            result = self.run_it("send", *STOP, "--ref", "r-1", "--wait")
            self.assertEqual(status, result.exit_code)
            self.assertIn(f"; {state}, which is final", result.stdout)
            self.client.flushall()
            self.played = Played(self.client)

    def test_another(self) -> None:
        """A reference of another command, of another device, or of other arguments is refused."""
        self.given(("queued", {}))
        for words in ((IDENT, "engine.resume"), ("9170123457", "engine.stop", "--ttl", "300")):
            result = self.run_it("send", *words, "--ref", "r-1")
            self.assertEqual(2, result.exit_code)
            self.assertIn(f"ref r-1 was used before, for engine.stop of {IDENT}", result.stderr)
        self.run_it("send", IDENT, "interval.set", "seconds=20", "--ref", "r-2")
        self.played.play([("queued", {})])
        self.assertEqual(0, self.run_it("send", IDENT, "interval.set", "seconds=20", "--ref", "r-2").exit_code)
        result = self.run_it("send", IDENT, "interval.set", "seconds=30", "--ref", "r-2")
        self.assertEqual(2, result.exit_code)
        self.assertIn(f"ref r-2 was used before, for interval.set seconds=20 of {IDENT}", result.stderr)
        self.assertEqual(2, len(self.entries()))

    def test_another_secret(self) -> None:
        """Arguments that are secret are not held against others: a reference would tell of them."""
        self.run_it("send", IDENT, "password.set", "old=0000", "new=s3cret", "--ref", "r-1")
        self.played.play([("queued", {})])
        result = self.run_it("send", IDENT, "password.set", "old=0000", "new=guess", "--ref", "r-1")
        self.assertEqual(0, result.exit_code)
        self.assertNotIn("s3cret", result.output)

    def test_spoiled(self) -> None:
        """Arguments that somebody else wrote are not held against others, and not shown."""
        for args in ("{", "[1]"):
            self.client.hset("gateway:request:r-1", mapping={"command": "arm", "ident": IDENT, "args": args})
            result = self.run_it("send", IDENT, "arm", "--ref", "r-1")
            self.assertEqual((0, f"ref r-1: arm of {IDENT}; ?\n"), (result.exit_code, result.stdout))


class HistoryTests(SendingTestCase):
    """C{gateway history}."""

    def test_whole(self) -> None:
        """Who asked for what, when, and each step in order, with whole times."""
        self.run_it("send", *STOP, "--ref", "r-1", "--by", "me")
        self.played.play(VERIFIED)
        result = self.run_it("history", "r-1")
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        first, *lines = result.stdout.splitlines()
        self.assertRegex(first, rf"^ref r-1: engine.stop of {IDENT}, asked for by me at .*Z; verified, which is final$")
        self.assertEqual(_STATES, [line.split()[1].rstrip(":") for line in lines])
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
        objects = [json.loads(line) for line in self.run_it("history", "r-1", "--json").stdout.splitlines()]
        self.assertEqual(("r-1", "verified"), (objects[0]["ref"], objects[0]["state"]))
        self.assertEqual([f"command.{state}" for state in _STATES], [found["type"] for found in objects[1:]])

    def test_secret(self) -> None:
        """Arguments are shown, but not those of a secret command, and nothing that is the gateway's own."""
        for ref, words in (
            ("r-1", ["interval.set", "seconds=20"]),
            ("r-2", ["password.set", "old=0000", "new=s3cret"]),
        ):
            self.run_it("send", IDENT, *words, "--ref", ref)
            self.played.play([("queued", {})])
        shown = json.loads(self.run_it("history", "r-1", "--json").stdout.splitlines()[0])
        self.assertEqual({"seconds": 20}, json.loads(shown["args"]))
        self.assertNotIn("step", shown)
        self.assertIn(f"ref r-1: interval.set seconds=20 of {IDENT}", self.run_it("history", "r-1").stdout)
        for options in ((), ("--json",)):
            self.assertNotIn("s3cret", self.run_it("history", "r-2", *options).stdout)

    def test_many(self) -> None:
        """It is found among many others, over pages, and by its events alone when its request is forgotten."""
        self.run_it("send", *STOP, "--by", "me")
        request = self.played.play(VERIFIED[:2])
        other = Request.parse("1-1", {"ident": IDENT, "command": "arm"})
        for _ in range(12):
            self.played.publish(other, "sent")
        for state, data in VERIFIED[2:]:
            self.played.publish(request, state, **data)
        for _ in range(2):
            with mock.patch.object(following, "PAGE", 5):
                result = self.run_it("history", request.ref)
            self.assertEqual(_STATES, self.states(result))
            self.assertIn(f"engine.stop of {IDENT}, asked for by me at ", result.stdout)
            self.assertIn("; verified, which is final\n", result.stdout)
            self.client.delete(f"gateway:request:{request.ref}")

    def test_entry(self) -> None:
        """A command without a reference of its own is found by the id of its entry."""
        entry = self.client.xadd("gateway:command", {"ident": IDENT, "command": "arm"})
        self.played.play([("queued", {}), ("failed", {"reason": "no such thing"})])
        self.client.delete(f"gateway:request:{entry}")
        self.assertIn("failed: no such thing", self.run_it("history", entry).stdout)

    def test_wait(self) -> None:
        """With --wait it goes on until the end, whose status it has."""
        self.run_it("send", *STOP, "--ref", "r-1")
        self.played.run()
        request = self.played.play(VERIFIED[:2])
        child = self.child("history", "r-1", "--wait")
        wait_for("what was", lambda: " sending: " in child.tail())
        self.played.publish(request, "refused", reason="moving at 54 km/h")
        self.assertEqual(1, child.wait(15))
        self.assertIn("refused: moving at 54 km/h", child.tail())
        self.assertEqual(1, self.run_it("history", "r-1", "--wait").exit_code)
        self.assertEqual(0, self.run_it("history", "r-1").exit_code)

    def test_unknown(self) -> None:
        """What nothing is known of is told so, with status 2, and so is a Redis that can't be asked."""
        for ref, said in (("r-1", "nothing is known of r-1: "), ("a b", "'a b' is no reference")):
            result = self.run_it("history", ref)
            self.assertEqual((2, ""), (result.exit_code, result.stdout))
            self.assertIn(said, result.stderr)
        result = CliRunner().invoke(main, ["history", "r", "--redis", f"redis://127.0.0.1:{free_port()}"])
        self.assertEqual(2, result.exit_code)


class GatewayTests(SendingTestCase):
    """With a gateway that is not played."""

    def test_taken_back(self) -> None:
        """A command waits for a device that nobody has heard, is shown so, and is taken back."""
        gateway = self.running_gateway(self.redis.url)
        waiting = self.child("send", IDENT, "interval.set", "seconds=20", "--ref", "r-1", "--by", "me", "--wait")
        wait_for("it to be taken", lambda: " queued: waits until " in waiting.tail(), detail=gateway.tail)
        told = self.run_it("send", IDENT, "interval.set", "seconds=20", "--ref", "r-1")
        self.assertIn(f"ref r-1: interval.set seconds=20 of {IDENT}, asked for by me at ", told.stdout)
        self.assertTrue(told.stdout.endswith("; queued\n"), told.stdout)
        taken_back = self.run_it("cancel", "r-1", "--by", "me", "--wait", "--timeout", "20")
        self.assertEqual((0, ["confirmed"]), (taken_back.exit_code, self.states(taken_back)), taken_back.output)
        self.assertEqual(1, waiting.wait(10))
        self.assertIn(" cancelled: cancelled by me\n", waiting.tail())
        history = self.run_it("history", "r-1")
        self.assertEqual(["queued", "cancelled"], self.states(history))
        late = self.run_it("cancel", "r-1", "--wait", "--timeout", "20")
        self.assertEqual(1, late.exit_code)
        self.assertIn("failed: it has come to its end already: cancelled", late.stdout)

    def test_refused(self) -> None:
        """What is not enabled is refused, and what the gateway knows of it is the same over all ways of asking."""
        gateway = self.running_gateway(self.redis.url)
        result = self.run_it("send", *STOP, "--ref", "r-1", "--wait", "--timeout", "20")
        self.assertEqual((1, ["refused"]), (result.exit_code, self.states(result)), result.output + gateway.tail())
        self.assertIn("refused: engine.stop is not enabled: section [commands], key 'enabled'", result.stdout)
        again = self.run_it("send", *STOP, "--ref", "r-1", "--wait")
        self.assertEqual(1, again.exit_code)
        self.assertIn("; refused, which is final", again.stdout)
        self.assertEqual(["refused"], self.states(self.run_it("history", "r-1")))


class StepTests(SynchronousTestCase):
    """Words."""

    def test_words(self) -> None:
        """What a step says besides is in its line; times of another day are whole."""
        at = "2026-11-22T17:49:27.000Z"
        for state, data, said in (
            ("queued", {"expires": "2026-11-22T18:00:00.000Z"}, "waits until 18:00:00"),
            ("queued", {"expires": "2026-11-23T18:00:00.000Z"}, "waits until 2026-11-23T18:00:00.000Z"),
            ("queued", {}, "waits"),
            (
                "queued",
                {"expires": at, "next_report": "2026-11-22T18:05:00.000Z", "warning": "too short"},
                "waits until 17:49:27; its next report is expected at 18:05:00; warning: too short",
            ),
            ("sending", {"attempt": 2, "channel": "sms"}, "is being sent; attempt 2; by SMS"),
            ("unheard", {}, "?"),
            ("sent", {"reason": ["odd"]}, "['odd']"),
        ):
            step = Step("1-1", {"type": f"command.{state}", "time": at}, data)
            self.assertEqual(f"17:49:27.000 {state}: {said}", step.line())
        self.assertEqual(
            f"{at} sent: waits for the device's answer", Step("1-1", {"type": "sent", "time": at}, {}).line(True)
        )
        self.assertEqual("soon", clock("soon", at))
