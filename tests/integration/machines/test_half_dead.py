"""Devices that leave a gateway for another one on the same Redis, and come back: while it lives, hangs, or is dead."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import Final

from tests.integration.commands.commander import Commander
from tests.integration.fleet import IGNITION_OFF, IGNITION_ON, Datagrams
from tests.integration.machines.parts import MachinesTestCase, Tracker
from tests.integration.parts import Gateway, wait_for

#: After so long a gateway knows that it stood still.
STOOD_STILL_S: Final = 4.0
IDENT: Final = "9980000001"
#: The ignition is on, and the driver calls for help.
SOS: Final = "FFFFFFFD"


class MovingCase(MachinesTestCase):
    """One tracker, and two gateways."""

    def setUp(self) -> None:
        """Start all; the tracker reports to the first one, with the ignition off."""
        super().setUp()
        self.one, self.two = self.machine("one"), self.machine("two")
        self.tracker = Tracker(IDENT, self.one.port)
        self.old = self.tracker.client.socket
        self.addCleanup(self.old.close)
        self.commander = Commander(self.redis.client)
        self.tracker.report()

    def move(self, to: Gateway) -> None:
        """It connects to another one; for all that is known there, it is still connected where it was."""
        self.tracker.connect(to.port)
        self.addCleanup(self.tracker.client.socket.close)

    def edges(self) -> list[tuple[str, str]]:
        """Type and phase of all alarms and states."""
        return [(row["type"], json.loads(row["data"])["phase"]) for row in self.rows(IDENT, "gateway:event")]

    def newest(self) -> tuple[str, str]:
        """Instance of the newest report, and the last state's ignition."""
        last = self.redis.client.hget(f"gateway:last:{IDENT}", "ignition") or ""
        return self.rows(IDENT)[-1]["source"].removeprefix("gateway/"), last

    def assert_complete(self) -> None:
        """Each report is there once."""
        ids = [row["id"] for row in self.rows(IDENT) if row["type"] == "position"]
        self.assertEqual((len(self.tracker.frames), len(ids)), (len(ids), len(set(ids))))

    def told(self, ref: str) -> bytes:
        """The command that the tracker reads next; it is obeyed."""
        command = self.tracker.command()
        words = command.decode().rstrip("#").split(",")
        self.assertEqual("S17", words[2], command)
        self.tracker.client.send(f"*HQ,{IDENT},V4,S17,{words[3]},{words[4]}#".encode())
        self.assertEqual("confirmed", self.commander.final(ref).kind)
        return command

    def hears_nothing(self) -> None:
        """Nothing was written to the old connection but answers."""
        self.old.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while data := self.old.recv(65_536):
                self.assertNotIn(b",S17,", data)

    def stopped(self, *frames: bytes) -> None:
        """The first one stands still, and these come to it meanwhile."""
        self.one.signal(signal.SIGSTOP)
        self.addCleanup(self.one.signal, signal.SIGCONT)
        for frame in frames:
            self.tracker.client.send(frame)

    def goes_on(self) -> None:
        """The first one goes on, and has seen to what had come."""
        counted = self.counter("stood_still")
        self.one.signal(signal.SIGCONT)
        wait_for("it to see that it stood still", lambda: self.counter("stood_still") > counted, detail=self.one.tail)
        wait_for("nothing to wait there", lambda: self.beat("one")["pending"] == 0)

    def counter(self, name: str) -> int:
        """A counter of the first one."""
        return int(self.beat("one").get("counters", {}).get(name, 0))


class AliveTests(MovingCase):
    """The other one is alive, and has the connection half open."""

    def test_sent_again(self) -> None:
        """A report that is sent again to another one is there once, and answered; the newest stays the newest."""
        frame = self.tracker.new()
        self.tracker.client.send(frame)
        self.move(self.two)
        self.tracker.report(frame)
        self.tracker.report()
        self.move(self.one)
        self.tracker.report(frame)
        self.assert_complete()
        # what it had sent long ago does not make it the newest, but shows where it is now
        self.assertEqual(("two", "0"), self.newest())
        self.assertEqual("one", self.holder(IDENT))

    def test_datagrams(self) -> None:
        """Over UDP, from one port, it is the same."""
        with Datagrams(self.one.port) as device:
            for gateway, status in (
                (self.one, IGNITION_OFF),
                (self.two, SOS),
                (self.one, SOS),
                (self.two, IGNITION_OFF),
            ):
                device.socket.connect(("127.0.0.1", gateway.port))
                device.send(self.tracker.new(status))
                self.assertEqual(1, len(device.answers(1)))
                time.sleep(2.1)  # it is known that a report was left out
        expected = [("alarm.sos", "raised"), ("state.ignition", "cleared"), ("state.ignition", "raised")]
        self.assertEqual(expected, sorted(self.edges()))
        self.assert_complete()

    def test_commands(self) -> None:
        """A command is told where the device is now, once, whoever reads it."""
        for number, gateway in enumerate((self.two, self.one, self.two)):
            self.move(gateway)
            self.tracker.report()
            ref = f"c{number}"
            self.commander.give(IDENT, "interval.set", ref, args={"seconds": 30 + number}, ttl=60)
            self.assertIn(f",{30 + number}#".encode(), self.told(ref))
        self.hears_nothing()

    def test_edges(self) -> None:
        """What began and ended meanwhile began and ended once, whichever of them saw it."""
        self.move(self.two)
        self.tracker.report(self.tracker.new(SOS))
        self.move(self.one)
        self.tracker.report(self.tracker.new(SOS))
        self.assertEqual("one", self.holder(IDENT))
        self.tracker.report(self.tracker.new(IGNITION_ON))
        self.move(self.two)
        self.tracker.report(self.tracker.new(IGNITION_OFF))
        self.move(self.one)
        self.tracker.report(self.tracker.new(IGNITION_OFF))
        expected = [("state.ignition", "raised"), ("alarm.sos", "raised"), ("state.ignition", "cleared")]
        self.assertEqual(sorted(expected), sorted(self.edges()))
        self.assert_complete()


class HangingTests(MovingCase):
    """The other one hangs, and goes on later."""

    def test_sent_again(self) -> None:
        """What came to it and was sent again is there once, and what began with it began once."""
        sos, on = self.tracker.new(SOS), self.tracker.new(IGNITION_ON)
        self.stopped(sos, on)
        self.move(self.two)
        for frame in (sos, on):
            self.tracker.report(frame)
        self.tracker.report(self.tracker.new(IGNITION_OFF))
        before = sorted(self.edges())
        self.assertEqual([("alarm.sos", "raised"), ("state.ignition", "cleared"), ("state.ignition", "raised")], before)
        time.sleep(STOOD_STILL_S)
        self.goes_on()
        self.assert_complete()
        self.assertEqual(before, sorted(self.edges()))
        self.assertEqual(("two", "0"), self.newest())
        self.assertEqual("two", self.holder(IDENT))
        counts = self.ledger_adds_up(self.redis.client, lambda counts: counts.get("duplicate") == 2)
        self.assertEqual(4, counts["published"])

    def test_not_sent_again(self) -> None:
        """What came to it alone is late when it goes on: no live state goes back to it."""
        alone = self.tracker.new(IGNITION_ON)
        self.stopped(alone)
        self.move(self.two)
        for _ in range(3):
            self.tracker.report()
        time.sleep(STOOD_STILL_S)
        self.goes_on()
        wait_for("it to be there", lambda: len(self.rows(IDENT)) == 5)
        self.assertEqual("order", self.rows(IDENT)[-1]["late"])
        self.assertEqual([], self.edges())
        self.assertEqual("0", self.redis.client.hget(f"gateway:last:{IDENT}", "ignition"))
        self.assertEqual("two", self.holder(IDENT))

    def test_many_on_their_way(self) -> None:
        """In the middle of many reports: each is there once, and the other one's are not held up."""
        frames = [self.tracker.new() for _ in range(60)]
        for frame in frames[:30]:
            self.tracker.client.send(frame)
        self.stopped(*frames[30:])
        self.move(self.two)
        for frame in frames:
            self.tracker.report(frame)
        time.sleep(STOOD_STILL_S)
        self.goes_on()
        self.assert_complete()
        self.assertEqual("two", self.holder(IDENT))
        self.tracker.report()
        self.assert_complete()

    def test_command_handed_to_it(self) -> None:
        """A command that was handed to it is told by the other one as soon as the device is there, and once."""
        self.stopped()
        self.commander.give(IDENT, "interval.set", "handed", args={"seconds": 33}, ttl=120)
        self.commander.until("handed", "queued")
        self.move(self.two)
        self.tracker.report()
        self.told("handed")
        time.sleep(STOOD_STILL_S)
        self.goes_on()
        group = "gateway:command:one", "gateway"
        wait_for("it to see what it was handed", lambda: self.redis.client.xlen(group[0]) == 0)
        self.hears_nothing()
        self.assertEqual(1, sum(event.kind == "sending" for event in self.commander.life("handed")))

    def test_command_under_way(self) -> None:
        """One that it had told and that was not answered there is told again, where the device is; it ends once."""
        self.commander.give(IDENT, "interval.set", "told", args={"seconds": 34}, ttl=120)
        self.commander.until("told", "sent")
        self.stopped()
        self.move(self.two)
        self.tracker.report()
        self.told("told")
        time.sleep(STOOD_STILL_S)
        self.goes_on()
        self.assertEqual(1, sum(event.final for event in self.commander.life("told")))

    def test_its_heartbeat(self) -> None:
        """Within seconds nobody takes it for one that is there; and then it is again."""
        wait_for("it to be there", lambda: self.beat("one"))
        self.stopped()
        wait_for("it to be taken for gone", lambda: not self.beat("one"))
        self.assertTrue(self.beat("two"))
        self.one.signal(signal.SIGCONT)
        wait_for("it to be there again", lambda: self.beat("one"))


class KilledTests(MovingCase):
    """The other one is killed."""

    def test_killed(self) -> None:
        """What was not answered is sent again and there once, edges go on where they were, commands are told."""
        self.tracker.report(self.tracker.new(SOS))
        unanswered = self.tracker.new(SOS)
        self.tracker.client.send(unanswered)
        self.one.kill()
        self.commander.give(IDENT, "interval.set", "waits", args={"seconds": 35}, ttl=120)
        self.commander.until("waits", "queued")
        self.move(self.two)
        self.tracker.report(unanswered)
        self.told("waits")
        self.tracker.report(self.tracker.new(IGNITION_OFF))
        self.assert_complete()
        expected = [("alarm.sos", "raised"), ("state.ignition", "cleared"), ("state.ignition", "raised")]
        self.assertEqual(expected, sorted(self.edges()))
        self.assertEqual(("two", "0"), self.newest())
        self.assertEqual("two", self.holder(IDENT))
        wait_for("it to be taken for gone", lambda: not self.beat("one"))
