"""
Redis first, disk when it is away: where each batch goes, and when it counts as stored.

While Redis takes batches they go there and nowhere else.  When it does not, the
one that is under way and all that follow go to the journal, and count as
stored once they are on the disk.  When Redis is back the journal goes first,
oldest first, and what comes meanwhile queues behind it; once it is empty
batches go to Redis again.  What Redis can't be asked meanwhile, the state of
devices, is asked before that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.batches import Group, frames_of, merged
from gateway.errors import BatchRefused, JournalFull
from gateway.interfaces import ISink
from gateway.session import Stored
from gateway.sinks.journal import Journal
from gateway.sinks.journalrows import Content, Row, Sent
from gateway.sinks.redis import RedisSink
from gateway.tickets import Answer, Batch

#: So much of the journal is given to Redis with one call: some 60 ms of its time, for which its other clients wait.
#: The more reports of a device it holds, the less each costs: a tenth less than with half of this.
DRAIN_BYTES: Final = 600_000
#: With so few batches left in it the journal is all but empty: what comes then is held until those are in Redis.
FEW_ROWS: Final = 4
#: Fewer batches than this are not worth reading ahead.
AHEAD_ROWS: Final = 64
#: How long a full journal is left alone before it is asked again.
AGAIN_S: Final = 1.0
#: How often it is looked whether Redis has answered the last batch, before the journal is drained.
LOOK_S: Final = 0.005
#: How often batches are looked for that have become too old.
EXPIRE_S: Final = 600.0
DAY_S: Final = 86_400.0

_UNKNOWN: Final = Stored(unknown=True)


class _Flight:
    """
    A batch on its way to be stored.

    @ivar done: what the publisher waits for.
    @ivar row: its number in the journal, once it is there.
    @ivar stored: whether Redis has it.
    """

    __slots__ = ("batch", "done", "row", "stored")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done: defer.Deferred[Answer] = defer.Deferred()
        self.row = 0
        self.stored = False


class _Ahead(NamedTuple):
    """Rows that are next, and as one batch."""

    rows: Sequence[Row] = ()
    batch: Batch | None = None


_NOTHING: Final = _Ahead()


@implementer(ISink)
class Delivery:
    """
    The one sink of the publisher.

    @ivar direct: whether batches go to Redis; else they go to the journal.
    @ivar journal: the journal.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisSink,
        journal: Journal,
        instance: str,
        *,
        patience: float = 5.0,
        days: float = 14.0,
    ) -> None:
        """
        @param patience: seconds for which a session that begins waits for a Redis that is away.
        @param days: batches that are older than this are dropped from the journal.
        """
        self._clock = clock
        self._redis = redis
        self.journal = journal
        self._instance = instance
        self._patience = patience
        self._days = days
        self.direct = False
        #: the journal is empty, and all but on the way to Redis again: what comes is held, one batch at most
        self._closing = False
        self._held: _Flight | None = None
        #: what is given to Redis and was not answered yet
        self._flight: _Flight | None = None
        #: what the journal does not take now, and when it is asked again
        self._stalled: _Flight | None = None
        self._again: IDelayedCall | None = None
        #: how many batches are on their way to the disk, and who waits until none is
        self._keeping = 0
        self._until_kept: list[defer.Deferred[None]] = []
        #: the journal's rows up to this number are in Redis
        self._done = 0
        #: whether it is settled what became of what an earlier process had under way
        self._opened = False
        self._away_since = clock.seconds()
        self._begins: list[tuple[Sequence[str], bool, defer.Deferred[list[Stored]], bool]] = []
        self._expired = clock.seconds()
        self._draining: defer.Deferred[None] | None = None
        self._stopping = False
        #: frames that Redis has and that are still in the journal, until that has forgotten them
        self.forgotten = 0
        #: what an earlier process had left in the journal
        self.earlier = Content(0, 0, 0, 0, None)
        self._counters: Counter[str] = Counter()
        self._on_back: Callable[[], defer.Deferred[bool]] = lambda: defer.succeed(False)
        self._on_stall: Callable[[bool], None] = lambda stalled: None
        self._on_lost: Callable[[Sequence[str]], None] = lambda idents: None
        self._on_expired: Callable[[int], None] = lambda frames: None
        #: called when batches go to Redis again, or for the first time
        self.on_direct: Callable[[], None] = lambda: None
        redis.on_down = self._down

    def connect(
        self,
        *,
        on_back: Callable[[], defer.Deferred[bool]],
        on_stall: Callable[[bool], None],
        on_lost: Callable[[Sequence[str]], None],
        on_expired: Callable[[int], None],
        counters: Counter[str],
    ) -> None:
        """
        Tie it to those that need it to be made first.

        @param on_back: Redis can be asked again: read the state of the sessions that began without; fires with
            whether there were any.
        @param on_stall: nothing can be stored now, and no more should be read; or it can be again.
        @param on_lost: idents that another instance holds now.
        @param on_expired: frames that were too old when Redis came back.
        @param counters: where what happens is counted.
        """
        self._on_back, self._on_stall, self._on_lost, self._counters = on_back, on_stall, on_lost, counters
        self._on_expired = on_expired
        self.journal.on_damage = lambda: counters.update(journal_damaged=1)

    def start(self) -> None:
        """Open the journal, and give Redis what an earlier process left there."""
        self._drained_by(self._open())

    def _drained_by(self, work: Coroutine[Any, Any, None]) -> None:
        self._draining = defer.Deferred.fromCoroutine(work)
        self._draining.addErrback(self._not_drained)

    def _not_drained(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(defer.CancelledError)):
            self.log.failure("draining the journal ended in an error of the gateway's own, beginning anew", failure)
            self._clock.callLater(AGAIN_S, self._drain_again)

    def _drain_again(self) -> None:
        if not (self._stopping or self.direct):
            self._drained_by(self._drain() if self._opened else self._open())

    def stop(self) -> defer.Deferred[None]:
        """Leave to the next process what is still in the journal; fires when it is closed."""
        self._stopping = True
        if self._draining is not None:
            self._draining.cancel()
        return self.journal.stop()

    def tick(self, now: float) -> None:
        """Once a second: sessions that have waited long enough, and batches that have become too old."""
        # a clock may be set back: then it was long enough
        patient = 0.0 <= now - self._away_since < self._patience
        if self._begins and not (self.direct or self._closing or patient):
            begins, self._begins = self._begins, []
            for idents, _, done, _ in begins:
                done.callback([_UNKNOWN] * len(idents))
        if not 0.0 <= now - self._expired < EXPIRE_S and self.journal.content.rows:
            self._expired = now
            self.journal.expire(now - self._days * DAY_S).addCallbacks(self._say_expired, lambda _: None)

    def _say_expired(self, gone: tuple[int, int]) -> None:
        batches, frames = gone
        if batches:
            self._counters["journal_expired"] += frames
            self._on_expired(frames)
            self.log.critical(
                "{batches} batches with {frames} frames were in the journal for over {days:g} days: they are dropped",
                batches=batches,
                frames=frames,
                days=self._days,
            )

    # -- batches

    def store(self, batch: Batch) -> defer.Deferred[Answer]:
        flight = _Flight(batch)
        if self.direct:
            self._give_directly(flight)
        elif self._closing:
            self._held = flight
        else:
            self._keep(flight)
        return flight.done

    def _give_directly(self, flight: _Flight) -> None:
        self._flight = flight
        self._redis.store(flight.batch).addCallbacks(self._stored, self._refused)

    def _stored(self, answer: Answer) -> None:
        """Redis has the batch that it was given directly."""
        flight, self._flight = self._flight, None
        assert flight is not None
        flight.stored = True
        self._done = max(self._done, flight.row)
        if not flight.done.called:
            flight.done.callback(answer)
            if self._stalled is flight:
                self._unstall()
        else:  # it is in the journal as well, and was answered from there: what of it was refused is there for good
            self.forgotten += flight.batch.frames
            self._settle(answer, flight.batch.groups)

    def _refused(self, failure: Failure) -> None:
        """Redis refuses the batch as a whole: by way of the journal it is found out what of it."""
        failure.trap(BatchRefused)
        flight, self._flight = self._flight, None
        assert flight is not None
        if self.direct:
            self._turn_away()
            self._keep(flight)

    def _down(self) -> None:
        """Redis does not take batches now."""
        if self._closing:
            self._closing = False
            held, self._held = self._held, None
            if held is not None:
                self._keep(held)
        if self.direct:
            self._turn_away()
            if self._flight is not None:
                self._keep(self._flight)

    def _turn_away(self) -> None:
        """From now on batches go to the journal, until it has been drained."""
        self.direct = False
        self._away_since = self._clock.seconds()
        self._counters["journal_begun"] += 1
        self.log.warn("Redis takes no batches: what comes goes to the journal")
        self._drained_by(self._drain())

    # -- into the journal

    def _keep(self, flight: _Flight) -> None:
        self._keeping += 1
        sent = None
        if flight is self._flight:  # whether Redis has it is not known: its number will tell
            sent = (self._redis.producer, self._redis.next_number - 1)
        d = self.journal.append(Row.of(flight.batch, self._instance), sent)
        d.addCallbacks(self._kept, self._not_kept, callbackArgs=(flight,), errbackArgs=(flight,))
        d.addErrback(self._bug, "keeping a batch")
        d.addBoth(self._tried)

    def _tried(self, _: object) -> None:
        self._keeping -= 1
        if not self._keeping:
            waiting, self._until_kept = self._until_kept, []
            for d in waiting:
                d.callback(None)

    async def _all_kept(self) -> None:
        """Until no batch is on its way to the disk."""
        while self._keeping:
            d: defer.Deferred[None] = defer.Deferred()
            self._until_kept.append(d)
            await d

    def _kept(self, row: int, flight: _Flight) -> None:
        flight.row = row
        if flight.stored:  # Redis was first
            self._done = max(self._done, row)
            self.forgotten += flight.batch.frames
        self._counters["journaled"] += flight.batch.frames
        if self._stalled is flight:
            self._unstall()
        if not flight.done.called:
            flight.done.callback(Answer())

    def _not_kept(self, failure: Failure, flight: _Flight) -> None:
        """There is no room, or the file can't be written: nothing is acknowledged, and it is tried again."""
        if self._stopping or flight.done.called:
            return
        if self._stalled is None:
            self._stalled = flight
            self._counters["journal_full"] += 1
            level = self.log.critical if failure.check(JournalFull) else self.log.error
            level("nothing can be stored, reading stops: {error}", error=failure.getErrorMessage()[:300])
            self._on_stall(True)
        self._again = self._clock.callLater(AGAIN_S, self._keep_again, flight)

    def _keep_again(self, flight: _Flight) -> None:
        self._again = None
        if not self._stopping:
            self._keep(flight)

    def _unstall(self) -> None:
        self._stalled = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.log.info("there is room again")
        self._on_stall(False)

    # -- out of the journal

    async def _open(self) -> None:
        content, sent = await self._start_journal()
        self.earlier = content
        if content.rows:
            self.log.warn(
                "the journal holds {rows} batches with {frames} frames of an earlier run",
                rows=content.rows,
                frames=content.frames,
            )
        if sent is not None:
            rows = await self.journal.marked(sent)
            if rows:
                batch = _together(rows)
                answer = await self._redis.replay(batch, sent.producer, sent.number, rows[0].instance)
                if answer is not None:
                    self._counters["replayed"] += batch.frames
                    self.forgotten += batch.frames
                    self._done = rows[-1].number
                    self._settle(answer, batch.groups)
        self._opened = True
        await self._drain()

    async def _start_journal(self) -> tuple[Content, Sent | None]:
        """Open it, however long that takes: what it says of what was under way is needed."""
        said = False
        while True:
            try:
                return await self.journal.start()
            except JournalFull as error:
                if not said:
                    self.log.critical("the journal can't be opened, trying again: {error}", error=str(error)[:300])
                said = True
            await self._pause(AGAIN_S)

    async def _drain(self) -> None:
        """Give Redis the journal, oldest first, until nothing is left; then batches go there again."""
        started, batches, frames = 0.0, 0, 0
        ahead = _NOTHING
        while not self._stopping:
            await self._redis.until_taking()
            if not started:
                started = self._clock.seconds()
            await self._all_kept()
            if self._flight is not None:  # the one that was under way: Redis is asked for it first
                await self._pause(LOOK_S)
                continue
            mark = self._redis.producer, self._redis.next_number
            try:
                rows = await self.journal.take(self._done, *mark, DRAIN_BYTES, ahead.rows)
            except JournalFull as error:
                self.log.error("the journal can't be read, trying again: {error}", error=str(error)[:300])
                await self._pause(AGAIN_S)
                continue
            self.forgotten = 0
            if rows:
                if mark != (self._redis.producer, self._redis.next_number):
                    continue  # Redis lost something meanwhile: they would go there under another number than is noted
                batch = ahead.batch or _together(rows)
                # what comes next is read while Redis works, not while it waits
                reading = self._read_ahead(rows)
                await self._give(batch, rows[0].instance)
                ahead = await reading
                self._done = rows[-1].number
                batches += len(rows)
                frames += batch.frames
                self._counters["drained"] += batch.frames
            elif self._closing and not self._keeping:
                if await self._on_back() or self._keeping:
                    continue  # what followed from that is in the journal, or held; or what waited for room goes there
                if self._closing:  # else Redis went away in between
                    self._closing = False
                    self._turn_back(batches, frames, self._clock.seconds() - started)
                    return
            # under a heavy load it is never quite empty
            few = self.journal.content.rows - len(rows) <= FEW_ROWS
            if few and not (self._closing or await self._on_back()):
                self._closing = self._redis.taking

    def _read_ahead(self, rows: Sequence[Row]) -> defer.Deferred[_Ahead]:
        """Read what follows these, unless it is so little that more may be there when its turn has come."""
        if self.journal.content.rows - len(rows) <= AHEAD_ROWS:
            return defer.succeed(_NOTHING)
        reading = self.journal.ahead(rows[-1].number, DRAIN_BYTES)
        # what is wrong will be seen when their turn has come
        return reading.addCallbacks(
            lambda found: _Ahead(found, _together(found)) if found else _NOTHING, lambda _: _NOTHING
        )

    async def _pause(self, seconds: float) -> None:
        pause: defer.Deferred[None] = defer.Deferred()
        self._clock.callLater(seconds, pause.callback, None)
        await pause

    def _turn_back(self, batches: int, frames: int, seconds: float) -> None:
        """From now on batches go to Redis."""
        self.direct = True
        came = "; {batches} with {frames} frames came out of the journal in {seconds:.2f} s" if batches else ""
        self.log.info(f"batches go to Redis{came}", batches=batches, frames=frames, seconds=seconds)
        held, self._held = self._held, None
        if self._stalled is not None:  # the journal had no room for it, and now it needs none
            held = self._stalled
            self._unstall()
        begins, self._begins = self._begins, []
        for idents, take, done, _ in begins:
            self._ask(idents, take, done)
        if held is not None:
            self._give_directly(held)
        self.on_direct()

    async def _give(self, batch: Batch, instance: str) -> None:
        """Give Redis what was in the journal; what it refuses as a whole, by halves until it is known what it is."""
        try:
            answer = await self._redis.store(batch, instance)
        except BatchRefused as error:
            await self._halve(batch, instance, str(error))
        else:
            self.forgotten += batch.frames
            self._settle(answer, batch.groups)

    async def _halve(self, batch: Batch, instance: str, reason: str) -> None:
        groups = batch.groups
        if len(groups) > 1:
            middle = len(groups) // 2
            first, second = groups[:middle], groups[middle:]
            of_second = frames_of(second)
            await self._give(batch._replace(groups=first, frames=batch.frames - of_second), instance)
            await self._give(Batch(second, 0, 0, batch.now, of_second), instance)
            return
        while True:  # is it this one, or any?
            try:
                # what is not in the batch any more is counted with it: it has an outcome now
                alone = batch._replace(groups=[], refused=frames_of(groups))
                await self._redis.store(alone, instance)
                self.forgotten += alone.frames
                break
            except BatchRefused:
                await self._pause(AGAIN_S)
        await self._quarantine(groups, reason)

    def _settle(self, answer: Answer, groups: Sequence[bytes]) -> None:
        """What became of events whose senders were answered already."""
        if answer.lost:
            self._on_lost(answer.lost)
        if "r" not in answer.codes:
            return
        codes, reasons = iter(answer.codes), iter(answer.reasons)
        for part in map(Group.parse, groups):
            for record in part.each():
                if next(codes, "p") == "r":
                    alone = part._replace(private=b"", events=b"1", records=record)
                    self._quarantine([alone.packed()], next(reasons, ""))

    def _quarantine(self, groups: Sequence[bytes], reason: str) -> defer.Deferred[None]:
        self._counters["quarantined"] += len(groups)
        for group in map(Group.parse, groups):
            self.log.error(
                "Redis refuses {events} events of {ident} for good: {reason}; they are in the journal's quarantine",
                events=group.events.decode(),
                ident=group.ident.decode("latin-1"),
                reason=reason[:300],
            )
        d = self.journal.quarantine(groups, reason, self._clock.seconds())
        return d.addErrback(self._not_even_quarantined, groups)

    def _not_even_quarantined(self, failure: Failure, groups: Sequence[bytes]) -> None:
        for group in groups:
            self.log.critical(
                "{error}: {group}", error=failure.getErrorMessage()[:300], group=group[:1000].decode("latin-1")
            )

    def quarantine(self, group: bytes, reason: str) -> defer.Deferred[None]:
        return self._quarantine([group], reason)

    # -- sessions

    def begin(self, idents: Sequence[str], take: bool = True) -> defer.Deferred[list[Stored]]:
        done: defer.Deferred[list[Stored]] = defer.Deferred()
        if self.direct:
            self._ask(idents, take, done)
        else:
            self._begins.append((idents, take, done, False))
            self.tick(self._clock.seconds())
        return done

    def _ask(self, idents: Sequence[str], take: bool, done: defer.Deferred[list[Stored]]) -> None:
        entry = (idents, take, done, True)
        self._begins.append(entry)

        def answered(stored: list[Stored]) -> None:
            if entry in self._begins:  # else nobody waits for it any more
                self._begins.remove(entry)
                done.callback(stored)

        self._redis.begin(idents, take).addCallback(answered).addErrback(self._bug, "a session's begin")

    def read(self, idents: Sequence[str]) -> defer.Deferred[list[Stored]]:
        """Take the sessions of these idents and read what is kept of them, however long that takes."""
        return self._redis.begin(idents)

    def _bug(self, failure: Failure, what: str) -> None:
        self.log.failure("{what} ended in an error of the gateway's own", failure, what=what)


def _together(rows: Sequence[Row]) -> Batch:
    """Batches as one."""
    return Batch(
        rows[0].groups if len(rows) == 1 else merged(group for row in rows for group in row.groups),
        sum(row.limited for row in rows),
        sum(row.dropped for row in rows),
        rows[-1].time,
        sum(row.frames for row in rows),
    )
