"""Puts the page together; the process that knows the whole serves it: the gateway, or the parent of workers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

from twisted.internet import task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from gateway import health
from gateway.config import Config
from gateway.errors import UnsupportedCommand
from gateway.health import Health
from gateway.ledger import Beat
from gateway.metrics import text
from gateway.registry import Plugin
from gateway.reporting import Report
from gateway.sinks.blocking import Address
from gateway.web import answers
from gateway.web.access import Door
from gateway.web.answers import Answers, Mistake
from gateway.web.asking import Asker, Away
from gateway.web.past import Past
from gateway.web.quiet import QuietSite
from gateway.web.site import Body, Page, Question
from gateway.web.streaming import News

TICK_S: Final = 1.0
#: What takes a question to Redis is asked so often for the overview, s.
KNOWN_S: Final = 5.0


class Source(Protocol):
    """
    The process that knows the whole.

    @ivar listening: whether all of it listens; C{draining}: whether it is about to end.
    """

    listening: bool
    draining: bool

    @property
    def report(self) -> Report | None:
        """How the whole does; None: nobody has said anything yet."""

    def beats(self) -> list[Beat]:
        """How each process does, as its heartbeat says it."""


class Web:
    """The page as a service."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        plugins: Sequence[Plugin],
        address: Address,
        sock: socket.socket,
        token: str,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param address: of the Redis.
        @param sock: bound.
        @param seconds: UTC epoch seconds.
        """
        self._reactor = reactor
        self._config = config
        self._plugins = plugins
        self._address = address
        self._socket = sock
        self._seconds = seconds
        self._asker = Asker(reactor, address)
        self._answers = Answers(config, plugins)
        self._past = Past()
        self._known: dict[str, Any] = {"devices": {"known": None, "online": None}, "alarms": []}
        self._known_at = -KNOWN_S
        self._asking = False
        self._source: Source | None = None
        self._news = News(self._asker, self._answers, config.redis.prefix, self._overview)
        host = sock.getsockname()[0]
        named = () if host in ("0.0.0.0", "::") else (host,)
        door = Door(token, (*named, *config.web.hosts))
        page = Page(
            door,
            self,
            self._asker,
            self._answers,
            self._news,
            seconds,
            tiles=config.web.tiles,
            metrics_open=config.web.metrics_open,
        )
        self._site = QuietSite(page)
        self._port: Any = None
        self._loop = task.LoopingCall(self._tick)
        self._loop.clock = reactor

    def change(self, config: Config) -> None:
        """The configuration has changed, but for C{[web]}."""
        self._config = config
        self._answers.change(config)

    def start(self, source: Source) -> None:
        """Serve."""
        self._source = source
        self._asker.start()
        self._socket.listen(128)
        self._port = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._site)
        self._socket.close()
        self._loop.start(TICK_S, now=False).addErrback(self._bug)

    def stop(self) -> Deferred[None]:
        """End; the last of all, so that what ends can be seen."""

        async def stop() -> None:
            if self._loop.running:
                self._loop.stop()
            self._news.end()
            if self._port is not None:
                await maybeDeferred(self._port.stopListening)
            self._asker.stop()

        return Deferred.fromCoroutine(stop())

    def _bug(self, failure: Any) -> None:
        self.log.failure("the page's timer ended in an error of the gateway's own", failure)

    def _tick(self) -> None:
        elapsed = self._reactor.seconds()
        self._past.look(self._report, self._seconds())
        if elapsed - self._known_at >= KNOWN_S and not self._asking:
            self._known_at, self._asking = elapsed, True
            try:
                d = self._asker.ask(self._answers.known)
            except Away:
                self._asking = False
            else:
                d.addCallbacks(self._now_known, self._not_known)
        self._news.tick(elapsed)

    def _now_known(self, known: dict[str, Any]) -> None:
        self._asking, self._known = False, known

    def _not_known(self, failure: Any) -> None:
        self._asking = False
        if not failure.check(Away):
            self.log.failure("the overview could not be read", failure)

    # -- what the site asks

    @property
    def _report(self) -> Report | None:
        return self._source.report if self._source is not None else None

    def _beats(self) -> list[Beat]:
        return self._source.beats() if self._source is not None else []

    def live(self) -> Health:
        """Whether it lives."""
        report = self._report
        return health.live(report.lag_s if report is not None else 0.0)

    def ready(self) -> Health:
        """Whether it is fit."""
        source = self._source
        if source is None:
            return health.ready(None, listening=False, draining=False)
        fullest = max((answers.fullness(beat) for beat in source.beats()), default=0.0)
        return health.ready(source.report, listening=source.listening, draining=source.draining, journal=fullest)

    def metrics(self) -> bytes:
        """For Prometheus."""
        return text(self._beats()).encode()

    def session(self) -> Body:
        """What a page has to know of where it is."""
        web = self._config.web
        return {
            "instance": self._config.instance,
            "version": version("gps-gateway"),
            "mode": self._config.identity.mode,
            "tiles": web.tiles or None,
            "attribution": web.attribution or None,
            "now": round(self._seconds() * 1000),
        }

    async def overview(self, question: Question) -> Body:
        """How the whole does, with the last hour."""
        return {**self._overview(), "history": self._past.as_json()}

    def _overview(self) -> dict[str, Any]:
        report, beats, ready = self._report, self._beats(), self.ready()
        counters = report.counters if report is not None else {}
        return {
            "now": round(self._seconds() * 1000),
            "instance": self._config.instance,
            "version": version("gps-gateway"),
            "mode": self._config.identity.mode,
            "ready": ready.well,
            "problems": list(ready.problems),
            "processes": answers.processes(beats),
            "connections": report.connections if report is not None else 0,
            "pending": report.pending if report is not None else 0,
            "reports_per_s": round(self._past.rate, 1),
            "received": counters.get("received", 0),
            "outcomes": answers.outcomes(counters),
            "limits": answers.limits(counters),
            "latency": self._past.waits(report),
            "lag_s": round(report.lag_s, 3) if report is not None else None,
            "redis": {"ready": bool(report is not None and report.ready), "address": str(self._address)},
            "journal": answers.journal(beats),
            "groups": answers.groups(beats),
            **self._known,
        }

    async def sms_setup(self, question: Question) -> Body:
        """The texts that set a unit up."""
        given = question.given
        host, apn = given.get("host", "").strip(), given.get("apn", "").strip()
        port = int(question.number("port", self._config.addresses[0][1], 1, 65_535))
        for name, value in (("host", host), ("apn", apn)):
            if not (value.isascii() and value.isprintable() and len(value) <= 100):
                raise Mistake(f"{name} has to be printable ASCII of 100 characters at most")
        protocol = given.get("protocol") or "st907"
        plugin = next((one for one in self._plugins if one.name == protocol), None)
        if plugin is None:
            raise Mistake(f"{protocol[:32]!r} is not installed", 404)
        try:
            texts = plugin.set_up(host or "HOST", port, apn or "APN", {})
        except UnsupportedCommand as error:
            raise Mistake(str(error)) from error
        # the page puts the password in: it never leaves the browser
        return {"texts": [{"text": one.template, "meaning": one.meaning, "certainty": one.certainty} for one in texts]}
