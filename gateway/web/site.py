"""
The HTTP side of the page: who is let in, which question is whose, and what every answer carries.

What a browser may do with the page is bounded by what it is told here: nothing
but its own scripts and styles, nothing from elsewhere but map tiles where
these are configured, in nobody's frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import Resource

from gateway.health import Health
from gateway.web.access import Door
from gateway.web.answers import Answers, Mistake
from gateway.web.asking import Asker, Away
from gateway.web.streaming import News

STATIC: Final = Path(__file__).with_name("static")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
#: What stands before a POST that no other site's page can send.
OURS: Final = "page"

#: What is asked of the whole; see L{gateway.web.page}.
Body = Mapping[str, Any]


class Question(NamedTuple):
    """
    A request that was let in.

    @ivar names: those in its path.
    @ivar given: its parameters.
    @ivar body: its JSON object.
    """

    names: Mapping[str, str]
    given: Mapping[str, str]
    body: Body
    now: float

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A parameter that is a number."""
        text = self.given.get(name, "")
        if not text:
            return default
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not least <= found <= most:
            raise Mistake(f"parameter {name} is {text[:32]!r}, not a number from {least:g} to {most:g}")
        return found

    def values(self) -> dict[str, str | None]:
        """The fields of the registry in its body."""
        values: Any = self.body.get("values", {})
        texts = isinstance(values, dict) and all(one is None or isinstance(one, str) for one in values.values())
        if not texts:
            raise Mistake("values has to be an object of texts")
        return dict(values)


class Whole(Protocol):
    """What the site asks the process that serves it: see L{gateway.web.page.Web}."""

    def overview(self, question: Question) -> Awaitable[Body]:
        """How the whole does."""

    def session(self) -> Body:
        """What a page has to know of where it is."""

    def live(self) -> Health:
        """Whether it lives."""

    def ready(self) -> Health:
        """Whether it is fit."""

    def metrics(self) -> bytes:
        """For Prometheus."""

    def sms_setup(self, question: Question) -> Awaitable[Body]:
        """The texts that set a unit up."""


class Page(Resource):
    """All of it."""

    log = Logger()
    isLeaf = True

    def __init__(
        self,
        door: Door,
        whole: Whole,
        asker: Asker,
        answers: Answers,
        news: News,
        seconds: Callable[[], float],
        *,
        tiles: str,
        metrics_open: bool,
    ) -> None:
        """
        @param seconds: UTC epoch seconds.
        @param tiles: template of the URLs of map tiles; empty: there are none.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._door = door
        self._whole = whole
        self._asker = asker
        self._answers = answers
        self._news = news
        self._seconds = seconds
        self._metrics_open = metrics_open
        self._cookie = "gateway"
        self._policy = policy(tiles)
        ask, a = self._ask, answers
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Question], Awaitable[Body]]]] = [
            (method, re.compile(pattern), answer)
            for method, pattern, answer in (
                ("GET", "/api/session", self._session),
                ("GET", "/api/overview", whole.overview),
                ("GET", "/api/devices", lambda q: ask(a.devices)),
                ("GET", "/api/device/(?P<ident>[^/]+)", lambda q: ask(lambda c: a.device(c, q.names["ident"]))),
                ("GET", "/api/device/(?P<ident>[^/]+)/track", self._track),
                ("GET", "/api/device/(?P<ident>[^/]+)/events", lambda q: self._entries(q, _EVENTS)),
                ("GET", "/api/device/(?P<ident>[^/]+)/raw", lambda q: self._entries(q, ("raw",))),
                ("POST", "/api/device/(?P<ident>[^/]+)/trace", self._trace),
                ("POST", "/api/device/(?P<ident>[^/]+)/registry", self._register),
                ("POST", "/api/device/(?P<ident>[^/]+)/command", self._give),
                ("GET", "/api/device/(?P<ident>[^/]+)/sms-setup", whole.sms_setup),
                ("POST", "/api/adopt", self._adopt),
                ("POST", "/api/explain", self._explain),
                ("GET", "/api/commands", self._commands),
                ("GET", "/api/command/(?P<ref>[^/]+)", lambda q: ask(lambda c: a.command(c, q.names["ref"]))),
                ("POST", "/api/command/(?P<ref>[^/]+)/cancel", lambda q: ask(lambda c: a.cancel(c, q.names["ref"]))),
                ("GET", "/api/unrecognised", lambda q: ask(a.unrecognised)),
                ("GET", "/api/unknown", lambda q: ask(a.unknown)),
            )
        ]

    # -- letting in

    def render(self, request: Any) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        request.setHeader("content-security-policy", self._policy)
        path = request.path.decode("latin-1")
        if not self._door.calls_us((request.getHeader("host") or "").strip()):
            return self._error(request, 403, "this name is none of the gateway's: section [web], key 'hosts'")
        if path in ("/health/live", "/health/ready"):
            return self._health(request, self._whole.live() if path.endswith("live") else self._whole.ready())
        if path == "/" or path.startswith("/static/") or path == "/favicon.ico":
            return self._file(request, path)
        if path == "/metrics" and self._metrics_open:
            return self._metrics(request)
        if path == "/api/login":
            return self._login(request)
        if not self._let_in(request):
            request.setHeader("www-authenticate", 'Bearer realm="gateway"')
            busy = not self._door.patient(self._seconds())
            return self._error(request, 429 if busy else 401, "the token is needed: gateway page shows where it stands")
        if path == "/metrics":
            return self._metrics(request)
        if path == "/api/logout" and request.method == b"POST":
            self._door.leave(self._session_of(request))
            return self._json(request, 200, {})
        if path == "/api/stream":
            return self._stream(request)
        return self._question(request, path)

    def _session_of(self, request: Any) -> str:
        return (request.getCookie(self._cookie.encode()) or b"").decode("latin-1")

    def _let_in(self, request: Any) -> bool:
        now = self._seconds()
        if self._door.inside(self._session_of(request), now):
            return True
        scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self._door.patient(now) and self._door.knows(token.strip(), now)

    def _login(self, request: Any) -> Any:
        now = self._seconds()
        if request.method != b"POST":
            return self._error(request, 405, "POST it")
        if not self._door.patient(now):
            return self._error(request, 429, "too many wrong tokens: wait a second")
        try:
            token = self._body(request).get("token", "")
        except Mistake as error:
            return self._error(request, error.status, str(error))
        if not isinstance(token, str) or not self._door.knows(token, now):
            return self._error(request, 401, "this is not the token")
        request.addCookie(self._cookie, self._door.enter(now), path="/", httpOnly=True, sameSite="strict")
        return self._json(request, 200, self._whole.session())

    def _body(self, request: Any) -> dict[str, Any]:
        """
        The JSON object of a POST of our own page's.

        @raise Mistake: when it is none.
        """
        if request.getHeader("x-gateway") != OURS:
            raise Mistake("header X-Gateway: page is missing", 403)
        if (request.getHeader("content-type") or "").partition(";")[0].strip() != "application/json":
            raise Mistake("the content type has to be application/json", 415)
        try:
            body = json.loads(request.content.read() or b"{}")
        except (ValueError, RecursionError) as error:
            raise Mistake("the body is no JSON") from error
        if not isinstance(body, dict):
            raise Mistake("the body is no JSON object")
        return body

    # -- questions

    def _question(self, request: Any, path: str) -> Any:
        method = request.method.decode("latin-1")
        matches = [
            (wanted, answer, match.groupdict())
            for wanted, pattern, answer in self._routes
            if (match := pattern.fullmatch(path)) is not None
        ]
        if not matches:
            return self._error(request, 404, "there is nothing")
        chosen = next(((answer, names) for wanted, answer, names in matches if wanted == method), None)
        if chosen is None:
            return self._error(request, 405, f"not with {method[:16]}")
        answer, names = chosen
        given = {
            name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
            for name, values in (request.args or {}).items()
        }
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))

        async def work() -> None:
            try:
                body = self._body(request) if method == "POST" else {}
                answered = await answer(Question(names, given, body, self._seconds()))
                status = 200
            except Mistake as error:
                status, answered = error.status, {"error": str(error)}
            except Away as error:
                status, answered = 503, {"error": str(error)}
            except Exception:  # of ours: the page says that, and the log what
                self.log.failure("a question of the page's failed: {path}", path=path[:200])
                status, answered = 500, {"error": "an error of the gateway's own, which its log has"}
            if not gone:
                request.write(self._json(request, status, answered))
                request.finish()

        Deferred.fromCoroutine(work())
        return server.NOT_DONE_YET

    def _ask(self, question: Callable[[Any], Body]) -> Awaitable[Body]:
        return self._asker.ask(question)

    async def _session(self, question: Question) -> Body:
        return self._whole.session()

    async def _commands(self, question: Question) -> Body:
        return self._answers.commands()

    def _track(self, question: Question) -> Awaitable[Body]:
        hours = question.number("hours", 24.0, 0.01, 24.0 * 366)
        return self._ask(lambda client: self._answers.track(client, question.names["ident"], hours))

    def _entries(self, question: Question, streams: tuple[str, ...]) -> Awaitable[Body]:
        before = int(question.number("before", 0, 0, 2**53)) or None
        count = int(question.number("count", 100, 1, 500))
        return self._ask(lambda client: self._answers.entries(client, question.names["ident"], streams, before, count))

    def _trace(self, question: Question) -> Awaitable[Body]:
        seconds = question.body.get("for_s")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise Mistake("for_s has to be a number of seconds")
        return self._ask(lambda client: self._answers.trace(client, question.names["ident"], float(seconds)))

    def _register(self, question: Question) -> Awaitable[Body]:
        values = question.values()
        return self._ask(lambda client: self._answers.register(client, question.names["ident"], values))

    def _adopt(self, question: Question) -> Awaitable[Body]:
        values, name = question.values(), str(question.body.get("ident", ""))
        return self._ask(lambda client: self._answers.register(client, name, values, adopt=True))

    def _give(self, question: Question) -> Awaitable[Body]:
        return self._ask(lambda client: self._answers.give(client, question.names["ident"], question.body))

    def _explain(self, question: Question) -> Awaitable[Body]:
        text, registry = str(question.body.get("hex", "")), question.body.get("registry") or {}
        if not isinstance(registry, dict):
            raise Mistake("registry has to be an object")
        unit = {str(name): str(value) for name, value in registry.items()}
        return self._asker.run(lambda: self._answers.explain(text, unit, question.now))

    # -- answers

    def _json(self, request: Any, status: int, body: Any) -> bytes:
        request.setResponseCode(status)
        request.setHeader("content-type", "application/json; charset=utf-8")
        request.setHeader("cache-control", "no-store")
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()

    def _error(self, request: Any, status: int, what: str) -> bytes:
        return self._json(request, status, {"error": what})

    def _health(self, request: Any, health: Health) -> bytes:
        body = {"ready" if request.path.endswith(b"ready") else "live": health.well, "problems": list(health.problems)}
        return self._json(request, 200 if health.well else 503, body)

    def _metrics(self, request: Any) -> bytes:
        request.setHeader("content-type", "text/plain; version=0.0.4; charset=utf-8")
        request.setHeader("cache-control", "no-store")
        return self._whole.metrics()

    def _stream(self, request: Any) -> Any:
        if self._news.full:
            return self._error(request, 503, "too many look at once")
        request.setHeader("cache-control", "no-store")
        self._news.add(request)
        return server.NOT_DONE_YET

    def _file(self, request: Any, path: str) -> bytes:
        found = _found(path)
        if found is None:
            return self._error(request, 404, "there is nothing")
        request.setHeader("content-type", TYPES[found.suffix])
        request.setHeader("cache-control", "no-cache")
        data = found.read_bytes()
        if request.setLastModified(found.stat().st_mtime) is http.CACHED:
            return b""
        return data


_EVENTS: Final = ("event", "link", "result", "dead")

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "server": "gateway",
}


def policy(tiles: str) -> str:
    """What the page may load and do."""
    images = "'self' data:"
    if tiles:
        parts = urlsplit(tiles.replace("{s}", "*"))
        images += f" {parts.scheme}://{parts.netloc}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _found(path: str) -> Path | None:
    """The file of a path: of the page's own, or of Leaflet; nothing outside of these."""
    if path in ("/", "/favicon.ico"):
        path = "/static/index.html" if path == "/" else "/static/icon.svg"
    name = path.removeprefix("/static/")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,3}", name):
        return None
    root = STATIC
    if name.startswith("leaflet/"):
        # not imported: that takes parts of setuptools that are not everywhere
        data = distribution("XStatic-Leaflet").locate_file("xstatic/pkg/leaflet/data")
        root, name = Path(str(data)), name.removeprefix("leaflet/")
    file = root / name
    return file if file.suffix in TYPES and file.is_file() else None
