"""Each way in which a command can end, with fleets that take commands in all the ways that trackers do."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.integration.commands.commander import Commander
from tests.integration.parts import Gateway, RealPartsTestCase, wait_for
from tests.integration.simulated import Simulated

CONFIG: Final = """
[commands]
enabled = ["engine.*", "interval.set", "config.read", "position.request", "cancel"]
guard_apart = 2.0
answer_within = 5.0
waiting = 3
"""

#: How a fleet's first ident begins, by its transport.
FIRST: Final = {"tcp": 9_910_000_000, "udp": 9_920_000_000}


class OutcomeCase(RealPartsTestCase):
    """A gateway whose operator has turned the engine's commands on."""

    transport = "tcp"

    def setUp(self) -> None:
        """Start both."""
        super().setUp()
        self.redis = self.running_redis()
        self.made: Gateway = self.running_gateway(self.redis.url, config=CONFIG)
        self.commander = Commander(self.redis.client)
        self._fleets = 0

    def fleet(self, **options: object) -> tuple[str, Simulated]:
        """One device that takes commands in some way; its ident."""
        self._fleets += 1
        first = FIRST[self.transport] + self._fleets
        options = {"devices": 1, "interval": 1.3, "scenario": "standing", "transport": self.transport} | options
        fleet = Simulated(self.directory, self.made.port, first, seed=self._fleets, **options)
        self.addCleanup(fleet.child.kill)
        return str(first), fleet

    def seen(self, *idents: str) -> None:
        """Wait until these have reported."""
        last = [f"gateway:last:{ident}" for ident in idents]
        wait_for("the devices to report", lambda: self.redis.client.exists(*last) == len(last))

    def stop(self, ident: str, ref: str = "", **fields: Any) -> str:
        """Ask for an engine to be stopped; the reference."""
        ref = ref or f"stop-{ident}"
        self.commander.give(ident, "engine.stop", ref, **{"ttl": 20} | fields)
        return ref

    def kinds(self, ref: str) -> list[str]:
        """What was said of a command, in one word each; what is said more than once in a row once."""
        kinds = [event.kind for event in self.commander.life(ref)]
        return [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]

    def _failed(self, ref: str, kind: str, reason: str) -> None:
        final = self.commander.final(ref, seconds=30)
        self.assertEqual((kind, True), (final.kind, reason in final.reason), final)


class TCPOutcomeTests(OutcomeCase):
    """On connections."""

    def test_told(self) -> None:
        """What becomes of commands that a device is told is what its answer and its relay say."""
        obeying, obeyed = self.fleet()
        short, _ = self.fleet(commands="short")
        mute, _ = self.fleet(commands="mute")
        refusing, refused = self.fleet(commands="refuse")
        stuck, _ = self.fleet(commands="stuck-relay")
        staying, stayed = self.fleet(commands="stays-cut")
        second, tried = self.fleet(commands="second-form")
        ignoring, ignored = self.fleet(commands="ignore")
        frozen, _ = self.fleet(scenario="parked-frozen-clock")
        everybody = obeying, short, mute, refusing, stuck, staying, second, ignoring, frozen
        # over UDP its repeated frames may be ones that were sent again: they do not show that it stands
        standing = frozen if self.transport == "tcp" else obeying
        self.seen(*everybody)
        for ident in everybody:
            self.stop(ident)
        self.commander.give(obeying, "position.request", "position")

        for ident in (obeying, short, staying, second, standing):
            final = self.commander.final(f"stop-{ident}")
            self.assertEqual("verified", final.kind, f"{ident}: {final}")
            self.assertIn("position_id", final.data)
            expected = ["queued", "sending", "sent", "confirmed", "verified"]
            self.assertEqual(expected, self.kinds(f"stop-{ident}"), ident)
        self.assertEqual("verified", self.commander.final(f"stop-{mute}").kind)
        self.assertEqual(["queued", "sending", "sent", "verified"], self.kinds(f"stop-{mute}"))
        self._failed("position", "failed", "sms only")
        self._failed(f"stop-{refusing}", "failed", "does not obey")
        self._failed(f"stop-{stuck}", "mismatch", "the relay does not show it")
        self._failed(f"stop-{ignoring}", "failed", "no answer")

        for ident in (obeying, staying, second):
            self.commander.give(ident, "engine.resume", f"resume-{ident}", ttl=60)
        self.assertEqual("verified", self.commander.final(f"resume-{obeying}").kind)
        self.commander.give(obeying, "interval.set", "interval", args={"seconds": 7}, ttl=60)
        self.assertEqual("confirmed", self.commander.final("interval").kind)
        self.assertEqual("verified", self.commander.final(f"resume-{second}").kind)
        self._failed(f"resume-{staying}", "mismatch", "the relay does not show it")
        answers = [event.reason for event in self.commander.life(f"resume-{staying}") if event.kind == "mismatch"]
        self.assertIn("asked for 1,0, answered 1,1", answers[0])
        self.assertIn("asked for 0,0, answered 1,1", answers[1])
        self.assertEqual(["1,1", "1,0", "0,0"], _arguments(stayed))
        self.assertEqual(["1,1", "1,0", "0,0"], _arguments(tried))
        self.assertEqual(["1,1"], _arguments(refused))
        self.assertEqual(["1,1"], _arguments(ignored), "a cut is sent once, whatever is answered")
        self.assertTrue(all(command["alone"] for command in obeyed.commands()), obeyed.commands())

    def test_not_yet_told(self) -> None:
        """What waits can be taken back, or superseded by its opposite, and is told once the device is there."""
        ident = f"{FIRST[self.transport] + 1}"
        give, final = self.commander.give, self.commander.final
        self.stop(ident, "first", ttl=60)
        give(ident, "engine.resume", "second", ttl=60)
        self.assertEqual("superseded", final("first").kind)
        self.assertEqual("second", final("first").data["superseded_by"])
        give(ident, "interval.set", "third", ttl=60, args={"seconds": 9})
        give("", "cancel", "fourth", args={"ref": "third"})
        self.assertEqual("cancelled", final("third").kind)
        self.assertEqual("confirmed", final("fourth").kind)
        give("", "cancel", "fifth", args={"ref": "third"})
        self.assertEqual("failed", final("fifth").kind)
        give(ident, "interval.set", "sixth", ttl=60, args={"seconds": 8})
        give(ident, "interval.set", "sixth", ttl=60, args={"seconds": 11})  # the same reference: the same command
        give(ident, "config.read", "seventh", ttl=60)
        give(ident, "interval.set", "eighth", ttl=60, args={"seconds": 12})
        self._failed("eighth", "refused", "3 commands wait")
        self.made.terminate()
        self.made.start()
        found, fleet = self.fleet()
        self.assertEqual(ident, found)
        self.assertEqual("verified", final("second").kind)
        self.assertEqual("confirmed", final("sixth").kind)
        self.assertEqual("confirmed", final("seventh").kind)
        self.assertEqual(3, len(fleet.commands()), fleet.commands())
        for ref, life in self.commander.lives().items():
            self.assertEqual(1, sum(event.final for event in life), ref)
            self.assertTrue(life[-1].final, ref)


class UDPOutcomeTests(TCPOutcomeTests):
    """The same over datagrams."""

    transport = "udp"


class UntoldTests(OutcomeCase):
    """Commands that no device is told."""

    def test_not_told(self) -> None:
        """A vehicle that moves, or of which that is not known, is not stopped; nor is one when it is too late."""
        driving, driven = self.fleet(scenario="driving")
        blind, _ = self.fleet(scenario="no-fix")
        stale, _ = self.fleet(scenario="stale-fix")
        standing, stood = self.fleet()
        self.seen(driving, blind, stale, standing)
        time.sleep(4)  # the stale one's only fix is not the newest report any more
        for ident in (driving, blind, stale):
            self.stop(ident, ttl=4)
        self.stop(standing, ttl=4, guard={"min_apart_s": 60})
        self.stop("9930000001", ttl=2)
        self.commander.give(standing, "raw", "raw", args={"text": "*HQ,000,S20,000000,1,1#"})
        self.commander.give(standing, "engine.stop", "looser", ttl=4, guard={"max_speed_kmh": 200})
        self._failed(f"stop-{driving}", "refused", "moving at")
        self._failed(f"stop-{blind}", "refused", "no valid fix")
        self._failed(f"stop-{stale}", "refused", "fix")
        self._failed(f"stop-{standing}", "refused", "no second valid report 60 s")
        self._failed("stop-9930000001", "expired", "could not be told in time")
        self._failed("raw", "refused", "not enabled")
        self._failed("looser", "failed", "looser than 20")
        self.assertEqual([], driven.commands() + stood.commands())

    def test_nonsense(self) -> None:
        """An entry that makes no sense ends as failed, and stays in nobody's way."""
        add = self.redis.client.xadd
        bad = [
            {"nonsense": "1"},
            {"ident": "9910000001", "command": "engine.stop"},
            {"ident": "9910000001", "command": "engine.stop", "ttl": "901"},
            {"command": "interval.set", "args": '{"seconds": 10}'},
            {"ident": "9910000001", "command": "interval.set", "args": "{"},
            {"ident": "a\nb", "command": "\x1b[31m", "ref": "\x00", "by": "\xff"},
        ]
        entries = [add("gateway:command", fields) for fields in bad]
        for entry in entries:
            self.assertEqual("failed", self.commander.final(entry).kind)
        wait_for("the stream to be empty", lambda: not self.redis.client.xlen("gateway:command"))
        self.assertEqual(0, self.redis.client.xpending("gateway:command", "gateway")["pending"])


def _arguments(fleet: Simulated) -> list[str]:
    """What the S20s that came to a fleet asked for."""
    texts = [bytes.fromhex(command["hex"]).decode() for command in fleet.commands()]
    return [text.split(",", 4)[4].rstrip("#") for text in texts if ",S20," in text]
