"""Redis first, disk when it is away: what was acknowledged is there, once and in order, and nothing gets stuck."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.session import Stored
from gateway.sinks.delivery import AGAIN_S, DAY_S, EXPIRE_S, Delivery
from gateway.sinks.journalrows import NAME
from gateway.tickets import Answer
from tests.delivery_fakes import FakeRedis, SteppedJournal, SteppedRedisSink, batch
from tests.fakes import NOON

#: So many walks of each kind.
WALKS = 2_000 if os.environ.get("GATEWAY_LONG") else 80
#: So many steps without anything new are enough to come to rest.
REST = 400


class Process:
    """A gateway's way to the store, as a process has it: it can be killed, and the next one goes on with its files."""

    def __init__(self, clock: Clock, server: FakeRedis, path: Path) -> None:
        self.clock = clock
        self.server = server
        self.redis = SteppedRedisSink(clock, server)
        self.journal = SteppedJournal(path)
        self.counters: Counter[str] = Counter()
        self.stalled = False
        self.expired = 0
        self.lost: list[str] = []
        self.broken = False
        self.unknown = 0
        self.delivery = Delivery(clock, self.redis, self.journal, "here")
        self.redis.connect(on_ready=self._greet, on_restart=lambda: None, counters=self.counters)
        self.delivery.connect(
            on_back=self._back,
            on_stall=self._stall,
            on_lost=self.lost.extend,
            on_expired=self.expire,
            counters=self.counters,
        )
        self.delivery.start()
        self.redis.start()

    def expire(self, frames: int) -> None:
        """So many frames were too old."""
        self.expired += frames

    async def _greet(self, connection: Any) -> None:
        pass

    def _stall(self, stalled: bool) -> None:
        assert stalled is not self.stalled, "it is said once"
        self.stalled = stalled

    def _back(self) -> defer.Deferred[bool]:
        """Sessions that began without state are read."""
        if self.broken:
            self.broken = False
            raise ZeroDivisionError
        if not self.unknown:
            return defer.succeed(False)
        count, self.unknown = self.unknown, 0
        d = self.delivery.read([f"917{n}" for n in range(count)])
        return d.addCallback(lambda _: True)

    def kill(self) -> None:
        """It is gone from one moment to the next."""
        self.redis._stopping = True
        self.delivery._stopping = True
        if self.delivery._draining is not None:
            self.delivery._draining.cancel()
        if self.server.connection is not None:
            self.server.connection.cut()
        self.journal.crash()


class DeliveryCase(SynchronousTestCase):
    """A delivery between a Redis and a disk that are stepped by hand."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.clock = Clock()
        self.clock.advance(NOON)
        self.server = FakeRedis()
        self.acknowledged: list[str] = []
        self.processes: list[Process] = []
        self.begin()
        self.addCleanup(self._end)

    def _end(self) -> None:
        self.process.kill()

    @property
    def process(self) -> Process:
        """The one that lives."""
        return self.processes[-1]

    @property
    def delivery(self) -> Delivery:
        """What is tested."""
        return self.process.delivery

    @property
    def journal(self) -> SteppedJournal:
        """Its disk."""
        return self.process.journal

    def begin(self) -> None:
        """A gateway starts."""
        self.processes.append(Process(self.clock, self.server, self.directory / NAME))

    def restart(self) -> None:
        """The gateway is killed, and another one starts."""
        self.process.kill()
        self.begin()

    def store(self, *events: str, apart: bool = False) -> defer.Deferred[Answer]:
        """The publisher gives it a batch."""
        d = self.delivery.store(batch(*events, now=self.clock.seconds(), apart=apart))
        process = self.process

        def stored(answer: Answer) -> Answer:
            assert process is self.process, "a process that is gone acknowledges nothing"
            self.acknowledged += events
            return answer

        return d.addCallback(stored)

    def write(self) -> None:
        """The disk does all that it was asked to do."""
        while self.journal.step() or self.journal.tell():
            pass

    def rest(self) -> None:
        """Everything happens that can, until nothing happens any more."""
        idle = 0
        for _ in range(100_000):
            if self.server.step() or self.server.answer() or self.journal.step() or self.journal.tell():
                idle = 0
                continue
            self.clock.advance(0.05)
            idle += 1
            if idle > REST:
                return
        self.fail("it never comes to rest")

    def spend(self, seconds: float) -> None:
        """So much time goes by, and everything happens that can."""
        for _ in range(int(seconds * 20)):
            while self.server.step() or self.server.answer() or self.journal.step() or self.journal.tell():
                pass
            self.clock.advance(0.05)

    def quarantined(self) -> list[str]:
        """The ids of the events in quarantine."""
        file = self.journal.file
        assert file is not None
        return [item.group.split(b"\0")[7].decode() for item in file.quarantined()]

    def assertStored(self, *events: str) -> None:
        """The stream holds these and nothing else, in order; nothing waits, and batches go to Redis."""
        self.assertEqual([*events], self.server.stream)
        self.assertTrue(self.delivery.direct, "batches go to Redis again")
        self.assertEqual(0, self.journal.content.rows)


class OutageTests(DeliveryCase):
    """Redis goes away and comes back, and something else happens at a bad moment."""

    def direct(self) -> None:
        """Batches go to Redis."""
        self.rest()
        self.assertTrue(self.delivery.direct)

    def test_answered_before_it_was_written(self) -> None:
        """Redis is back and has the batch before it is on the disk: it is acknowledged, and so is the next one."""
        self.direct()
        self.store("e1")
        self.server.step()
        self.server.connection.cut()  # type: ignore[union-attr]  # it is there
        self.clock.advance(0.1)
        while self.server.step() or self.server.answer():  # connected anew, and 'already'
            pass
        self.assertEqual(["e1"], self.acknowledged)
        self.store("e2")
        self.rest()
        self.assertStored("e1", "e2")
        self.assertEqual(0, self.server.doubled)

    def test_written_before_it_was_answered(self) -> None:
        """The batch is on the disk first: it is acknowledged then, and not given to Redis under a second number."""
        self.direct()
        self.store("e1")
        self.server.step()
        self.server.connection.cut()  # type: ignore[union-attr]
        self.write()
        self.assertEqual(["e1"], self.acknowledged)
        self.rest()
        self.assertStored("e1")
        self.assertEqual(0, self.server.doubled)

    def test_killed_with_a_batch_under_way(self) -> None:
        """The gateway dies when Redis may have the batch that is on the disk: its number tells the next one."""
        for stored in (True, False):
            self.direct()
            self.store(f"e{stored:d}")
            if stored:
                self.server.step()
            self.server.connection.cut()  # type: ignore[union-attr]
            self.write()
            self.restart()
        self.rest()
        self.assertStored("e1", "e0")
        self.assertEqual(0, self.server.doubled)

    def test_again_while_all_but_there(self) -> None:
        """Redis goes away again when the journal is empty and a batch is held for it: that goes to the disk."""
        self.server.down()
        self.store("e1")
        self.rest()
        self.server.up = True
        for _ in range(1000):
            if self.delivery._closing:
                break
            if not (self.server.step() or self.server.answer() or self.journal.step() or self.journal.tell()):
                self.clock.advance(0.05)
        self.store("e2")
        self.assertEqual(["e1"], self.acknowledged)
        self.server.down()
        self.write()
        self.assertEqual(["e1", "e2"], self.acknowledged)
        self.server.up = True
        self.rest()
        self.assertStored("e1", "e2")

    def test_away_before_it_was_all_but_there(self) -> None:
        """Redis goes away while the empty journal is looked at: what comes then goes to the disk at once."""
        self.server.step()
        for _ in range(20):
            self.server.step()
            self.server.answer()
        self.journal.step()
        self.journal.tell()
        self.journal.step()  # nothing is there
        self.server.down()
        self.journal.tell()
        self.store("e1")
        self.write()
        self.assertEqual(["e1"], self.acknowledged)
        self.server.up = True
        self.rest()
        self.assertStored("e1")

    def test_full(self) -> None:
        """No room on the disk: nothing is acknowledged and reading stops, until there is some."""
        self.server.down()
        self.journal.full = True
        self.store("e1")
        self.spend(3)
        self.assertEqual([], self.acknowledged)
        self.assertTrue(self.process.stalled)
        self.journal.full = False
        self.clock.advance(AGAIN_S)
        self.write()
        self.assertEqual(["e1"], self.acknowledged)
        self.assertFalse(self.process.stalled)
        self.server.up = True
        self.rest()
        self.assertStored("e1")
        self.assertEqual(1, self.process.counters["journal_full"])

    def test_full_until_redis_is_back(self) -> None:
        """The disk never has room: when Redis is back what waited goes there."""
        self.direct()
        self.journal.full = True
        self.server.down()
        self.store("e1")
        self.spend(3)
        self.assertEqual([], self.acknowledged)
        self.server.up = True
        self.rest()
        self.assertFalse(self.process.stalled)
        self.store("e2")
        self.rest()
        self.assertStored("e1", "e2")

    def test_tried_again_while_batches_turn_back(self) -> None:
        """What waited for room is tried again at the moment at which batches turn to Redis again: it goes one way."""
        self.direct()
        self.journal.full = True
        self.server.down()
        self.store("e1")
        self.write()
        asked: list[defer.Deferred[bool]] = []

        def back() -> defer.Deferred[bool]:
            if not self.delivery._closing or asked:
                return defer.succeed(False)
            asked.append(defer.Deferred())
            return asked[0]

        self.delivery._on_back = back
        self.server.up = True
        while not asked:
            while self.server.step() or self.server.answer() or self.journal.step() or self.journal.tell():
                pass
            self.clock.advance(0.02)
        self.journal.full = False
        self.clock.advance(AGAIN_S)
        asked[0].callback(False)
        self.rest()
        self.assertEqual(["e1"], self.acknowledged)
        self.assertStored("e1")

    def test_full_in_two_outages(self) -> None:
        """The same twice in a row, without a second in between: it is tried again once a second, not twice."""
        self.direct()
        self.journal.full = True
        self.server.down()
        self.store("e1")
        self.write()
        self.server.up = True
        while not self.delivery.direct:
            self.write()
            self.clock.advance(0.01)
            if not self.process.redis.ready:
                self.server.step()
                self.server.answer()
        self.server.down()
        self.write()
        self.clock.advance(AGAIN_S)
        self.assertEqual(1, len(self.journal._asked))
        self.write()
        self.journal.full = False
        self.server.up = True
        self.rest()
        self.assertEqual(["e1"], self.server.stream)

    def test_no_room_at_the_start(self) -> None:
        """The journal can't be opened at first: what an earlier run had under way is settled by its number later."""
        self.direct()
        self.store("e1")
        self.server.step()
        self.server.connection.cut()  # type: ignore[union-attr]
        self.write()
        path = self.directory / NAME
        self.process.kill()
        path.rename(path.with_suffix(".away"))
        path.mkdir()
        self.begin()
        self.spend(3)
        self.assertFalse(self.delivery.direct)
        path.rmdir()
        path.with_suffix(".away").rename(path)
        self.rest()
        self.assertStored("e1")
        self.assertEqual(0, self.server.doubled)

    def test_error_of_our_own(self) -> None:
        """Something that should not fail does when Redis is back: it is logged, and tried again; nothing is doubled."""
        self.server.down()
        self.store("e1")
        self.rest()
        self.process.broken = True
        self.server.up = True
        self.rest()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertStored("e1")
        self.assertEqual(0, self.server.doubled)

    def test_other_number(self) -> None:
        """Redis loses something while the journal is read: what it is given then stands there under its new number."""
        self.direct()
        for n in range(3):
            self.store(f"e{n}")
            self.rest()
            self.clock.advance(10)
        self.server.down()
        self.store("e3")
        self.write()
        self.server.up = True
        while not self.journal._asked:
            self.clock.advance(0.05)
            self.server.step()
            self.server.answer()
        self.journal.step()  # read, and noted under which number
        self.server.lose()
        self.server.lose()
        self.server.up = True
        while not self.process.redis.ready:
            self.clock.advance(0.05)
            self.server.step()
            self.server.answer()
        self.write()
        assert self.journal.file is not None
        sent = self.journal.file.sent()
        assert sent is not None
        self.assertEqual(self.process.redis.producer, sent.producer)
        self.rest()
        self.assertEqual("e3", self.server.stream[-1])

    def test_end(self) -> None:
        """A gateway that ends leaves what is in the journal to the next one, and holds nobody up."""
        self.server.down()
        self.store("e1")
        self.rest()
        self.server.up = True
        self.clock.advance(2)  # connecting
        done: list[object] = []
        self.delivery.stop().addCallback(done.append)
        self.write()
        self.assertEqual([None], done)
        self.restart()
        self.rest()
        self.assertStored("e1")

    def test_too_old(self) -> None:
        """Batches that waited for too long are dropped, counted and told, also when the clock was set back."""
        self.server.down()
        self.store("e1", "e2")
        self.rest()
        for now in (15 * DAY_S, 15 * DAY_S - EXPIRE_S / 2):
            self.delivery.tick(NOON + now)
            self.write()
        self.assertEqual(2, self.process.expired)
        self.server.up = True
        self.rest()
        self.assertStored()


class BeginTests(DeliveryCase):
    """Sessions that begin."""

    def ask(self) -> list[list[Stored]]:
        """A session begins; what is said of it, once that is said."""
        found: list[list[Stored]] = []
        self.delivery.begin(["9170"]).addCallback(found.append)
        return found

    def test_with_redis(self) -> None:
        """With Redis there it is asked."""
        self.rest()
        found = self.ask()
        self.rest()
        self.assertEqual([[Stored(known=True)]], found)

    def test_patience(self) -> None:
        """With Redis away a session waits for some seconds, then it begins without; later ones do not wait at all."""
        self.rest()
        self.server.down()
        found = self.ask()
        self.clock.advance(4)
        self.delivery.tick(self.clock.seconds())
        self.assertEqual([], found)
        self.clock.advance(1)
        self.delivery.tick(self.clock.seconds())
        self.assertTrue(found[0][0].unknown)
        self.assertTrue(self.ask()[0][0].unknown)

    def test_clock_set_back(self) -> None:
        """A clock that is set back during an outage makes no session wait."""
        self.rest()
        self.server.down()
        found = self.ask()
        self.delivery.tick(NOON - 3600)
        self.assertTrue(found[0][0].unknown)

    def test_answered_late(self) -> None:
        """What Redis says of a session that has begun without meanwhile changes nothing."""
        self.rest()
        found = self.ask()
        self.server.step()
        self.server.refuses = "OOM"
        self.store("e1")
        self.server.step()
        asked, self.server.connection._answers[0] = self.server.connection._answers  # type: ignore[union-attr]
        self.server.connection._answers.pop()  # type: ignore[union-attr]
        self.server.connection.answer()  # type: ignore[union-attr]
        self.assertFalse(self.delivery.direct)
        self.clock.advance(5)
        self.delivery.tick(self.clock.seconds())
        self.assertTrue(found[0][0].unknown)
        self.server.connection._answers.append(asked)  # type: ignore[union-attr]
        self.server.refuses = ""
        self.rest()
        self.assertEqual(1, len(found))
        self.assertStored("e1")

    def test_back_in_time(self) -> None:
        """Redis is back before the session has waited long enough: it begins with what is kept."""
        for asked in (True, False):
            self.rest()
            if not asked:
                self.server.down()
            found = self.ask()
            self.server.down()
            self.clock.advance(1)
            self.server.up = True
            self.rest()
            self.assertEqual([[Stored(known=True)]], found)

    def test_behind_the_journal(self) -> None:
        """While the journal is drained a session begins without, and is read before batches go to Redis again."""
        self.server.down()
        self.store("e1")
        self.rest()
        self.assertTrue(self.ask()[0][0].unknown)
        self.process.unknown = 1
        self.server.up = True
        self.rest()
        self.assertEqual(["9170"], self.server.begun)
        self.assertStored("e1")


class PoisonTests(DeliveryCase):
    """A batch that Redis refuses as a whole, whatever is tried."""

    def test_first_of_all(self) -> None:
        """The very first batch is refused for good: it goes into quarantine, and the next one is stored."""
        self.rest()
        self.assertTrue(self.delivery.direct)
        self.store("poison1")
        self.rest()
        self.store("e2")
        self.rest()
        self.assertStored("e2")
        self.assertEqual(["poison1"], self.quarantined())

    def test_among_many(self) -> None:
        """What is refused is found out by halves: all others of its batch are stored, once and in order."""
        self.rest()
        events = [f"e{n}" for n in range(6)] + ["poison6"] + [f"e{n}" for n in range(7, 9)]
        self.store(*events, apart=True)
        self.rest()
        self.assertStored(*(event for event in events if event != "poison6"))
        self.assertEqual(["poison6"], self.quarantined())
        self.assertEqual(events, self.acknowledged)

    def test_of_an_earlier_run(self) -> None:
        """A gateway dies with a refused batch under way: the next one finds that out, and goes on."""
        self.rest()
        self.store("e1", "poison2", "e3", apart=True)
        for _ in range(3):  # Redis refuses it for the first time, and it goes to the disk
            self.server.step()
            self.server.answer()
            self.write()
        self.restart()
        self.store("e4")
        self.rest()
        self.assertStored("e1", "e3", "e4")
        self.assertEqual(["poison2"], self.quarantined())

    def test_single_events(self) -> None:
        """Single events that are refused when their senders have been answered go into quarantine."""
        self.server.down()
        self.store("e1", "bad2", "e3", "bad4")
        self.rest()
        self.assertEqual(4, len(self.acknowledged))
        self.server.up = True
        self.rest()
        self.assertStored("e1", "e3")
        self.assertEqual(["bad2", "bad4"], self.quarantined())


class WalkTests(DeliveryCase):
    """Everything happens in any order."""

    def walk(self, seed: int, *, poison: bool = False, crashes: bool = False, losses: bool = False) -> None:
        """A random walk, and what is promised at its end."""
        choose = random.Random(seed)
        sent: list[str] = []
        waiting: list[defer.Deferred[Any]] = []
        begins: list[defer.Deferred[Any]] = []

        def store() -> None:
            if [d for d in waiting if not d.called]:
                return
            kind = choose.choice(["poison", "bad"]) if poison and choose.random() < 0.1 else "e"
            names = [f"{kind}{len(sent):05}", *(f"e{len(sent) + n:05}" for n in range(1, choose.randrange(1, 4)))]
            sent.extend(names)
            waiting[:] = [self.store(*names, apart=poison)]

        def session() -> None:
            if [d for d in begins if not d.called]:
                return
            process = self.process

            def begun(stored: list[Stored]) -> None:
                process.unknown += stored[0].unknown

            begins[:] = [self.delivery.begin(["9170"]).addCallback(begun)]

        def toggle() -> None:
            if self.server.up:
                self.server.down()
            else:
                self.server.up = True

        def lose() -> None:
            if losses and self.server.up:
                self.server.lose()

        def hiccup() -> None:
            self.server.refuses = "" if self.server.refuses else choose.choice(["OOM", "LOADING", "READONLY"])

        def cut() -> None:
            if self.server.connection is not None:
                if choose.random() < 0.5:
                    self.server.step()
                self.server.connection.cut()

        def full() -> None:
            self.journal.full = not self.journal.full

        def crash() -> None:
            if crashes:
                waiting.clear()
                begins.clear()
                self.restart()

        def tick() -> None:
            self.delivery.tick(self.clock.seconds())

        steps: Sequence[tuple[Any, int]] = [
            (store, 20), (session, 4), (self.server.step, 25), (self.server.answer, 25), (toggle, 2), (hiccup, 2),
            (cut, 2), (full, 2), (crash, 1), (tick, 2), (lose, 1), (self._disk, 25), (self._hear, 25),
            (lambda: self.clock.advance(choose.choice([0.001, 0.01, 0.3, 2.0])), 8),
        ]  # fmt: skip
        calls = choose.choices(
            [call for call, _ in steps], [weight for _, weight in steps], k=choose.randrange(20, 400)
        )
        for call in calls:
            call()
        self.server.refuses, self.server.up, self.journal.full = "", True, False
        self.rest()
        tick()
        self.rest()
        where = f"seed {seed}"
        self.assertTrue(self.delivery.direct, f"{where}: stuck")
        self.assertEqual([], [d for d in waiting + begins if not d.called], f"{where}: never answered")
        self.assertFalse(self.process.stalled, where)
        self.assertEqual(0, self.journal.content.rows, where)
        found = Counter(self.server.stream) + Counter(self.quarantined())
        refused = [event for event in self.acknowledged if event.startswith("bad")]
        self.assertEqual([], [e for e in self.acknowledged if e not in found and e not in refused], f"{where}: lost")
        self.assertEqual([], [e for e, n in found.items() if n > 1 and e in self.server.stream], f"{where}: twice")
        numbers = [int(event[-5:]) for event in self.server.stream]
        self.assertEqual(sorted(numbers), numbers, f"{where}: order")
        if not (poison or losses):
            self.assertEqual(0, self.server.doubled, f"{where}: only the ids told what was there already")
        self.assertEqual([], self.flushLoggedErrors(), where)

    def _disk(self) -> None:
        self.journal.step()

    def _hear(self) -> None:
        self.journal.tell()

    def _walks(self, seeds: range, **kinds: bool) -> None:
        for seed in seeds:
            self.walk(seed, **kinds)
            self.process.kill()
            shutil.rmtree(self.directory)
            self.directory.mkdir()
            self.server = FakeRedis()
            self.acknowledged = []
            self.begin()

    def test_outages(self) -> None:
        """Redis comes and goes, refuses and hangs, the disk is full and has room: all is there once, in order."""
        self._walks(range(WALKS))

    def test_crashes(self) -> None:
        """The same, and the gateway is killed at any moment: what was acknowledged is there once, in order."""
        self._walks(range(WALKS), crashes=True)

    def test_poison(self) -> None:
        """The same with events that Redis refuses for good: they are in quarantine, and all others on the stream."""
        self._walks(range(WALKS), poison=True)

    def test_poison_and_crashes(self) -> None:
        """The same with all of it."""
        self._walks(range(WALKS), poison=True, crashes=True)

    def test_losses(self) -> None:
        """The same with a Redis that loses what it took last."""
        self._walks(range(WALKS), losses=True)
