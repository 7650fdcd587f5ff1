"""HTTP as a transport: texts go out as a provider's preset says, and come in where it brings them."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable
from typing import Any, Final

import treq
from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet import error as neterror
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived, _HTTP11ClientFactory
from zope.interface import implementer

from gateway.fields import rfc3339
from gateway.sms.http import templates
from gateway.sms.http.presets import Preset
from gateway.sms.http.settings import HTTPSection
from gateway.sms.http.webhooks import Webhooks
from gateway.sms.interfaces import ISMSInbox, ISMSTransport, Outgoing, Sent
from gateway.web.quiet import QuietSite

#: So much of an answer is read.
ANSWER_BYTES: Final = 65_536
#: A connection that is not there within so many seconds is none.
CONNECT_S: Final = 5.0
#: What the provider asks to be left alone for counts up to this, s.
RETRY_MOST_S: Final = 600.0
#: A socket that a process before this one still has is tried for again after so long, s.
LISTEN_AGAIN_S: Final = 1.0
#: Connections that the kernel holds until they are accepted.
WAITING: Final = 128

#: Failures after which a request certainly did not reach the provider.
_NOT_SENT: Final = (
    neterror.ConnectError,
    neterror.DNSLookupError,
    neterror.ConnectionRefusedError,
    neterror.TCPTimedOutError,
    neterror.TimeoutError,
)
#: The same within a connection: it never got as far as a request.
_NOT_TRUSTED: Final = (SSL.Error, VerificationError)


class _Quiet(_HTTP11ClientFactory):
    """Says nothing of each request; Twisted has no public way to have it so."""

    noisy = False


@implementer(ISMSTransport)
class HTTPTransport:
    """
    The transport.

    @ivar problem: why nothing can be sent now.
    """

    log = Logger()
    name = "http"

    def __init__(
        self,
        reactor: Any,
        section: HTTPSection,
        preset: Preset,
        number: str,
        secret: str,
        in_secret: str,
        listen: Callable[[], socket.socket] | None,
        seconds: Callable[[], float],
        client: Any = None,
    ) -> None:
        """
        @param number: the sender of what is sent; empty: the provider's.
        @param secret: proves who we are; C{in_secret}: proves who brings something.
        @param listen: binds where texts come in; None: none do.
        @param seconds: the time of day, UTC epoch seconds.
        """
        self._reactor = reactor
        self._section = section
        self._preset = preset
        self._number = number
        self._secret = secret
        self._in_secret = in_secret
        self._listen = listen
        self._seconds = seconds
        # nothing is asked twice by itself: what goes wrong may have been taken
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool.retryAutomatically = False
        pool._factory = _Quiet
        self._client = client or HTTPClient(Agent(reactor, connectTimeout=CONNECT_S, pool=pool))
        self._window = DeferredSemaphore(section.window)
        out = preset.out
        told = templates.marks([out.url, out.headers, out.query, out.form, out.json]) & templates.VALIDITY
        #: for so long a text has to be valid at least, that no longer validity is said than it has
        self._least_s = 60.0 if told == {"validity_min"} else 1.0
        self._port: Any = None
        self._again: Any = None
        self._stopped = False
        self.problem = ""

    @property
    def honours_validity(self) -> bool:
        """Whether the provider keeps to it."""
        return self._preset.out.validity == "told"

    def start(self, inbox: ISMSInbox) -> None:
        if self._listen is None:
            return
        hooks = Webhooks(self._preset, self._section, self._in_secret, inbox, self._seconds)
        self._open(QuietSite(hooks))

    def _open(self, site: QuietSite) -> None:
        assert self._listen is not None
        self._again = None
        try:
            bound = self._listen()
        except OSError as error:  # the worker that this one replaces may still have it
            self.log.warn("SMS can't come in yet: {error}", error=str(error)[:200])
            self._again = self._reactor.callLater(LISTEN_AGAIN_S, self._open, site)
            return
        bound.listen(WAITING)
        self._port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, site)
        self.log.info("SMS come in at {address}", address=self._section.listen)
        bound.close()

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self.problem = "the gateway ends"
        if self._again is not None and self._again.active():
            self._again.cancel()
        port, self._port = self._port, None
        d: Deferred[None] = succeed(None) if port is None else succeed(None).addCallback(lambda _: port.stopListening())
        return d

    # -- sending

    def send(self, outgoing: Outgoing) -> Deferred[Sent]:
        return Deferred.fromCoroutine(self._send(outgoing)).addErrback(self._bug)

    def _bug(self, failure: Failure) -> Sent:
        # no traceback: what is in its frames is not for a log
        self.log.error("a text ended in an error of our own: {error}", error=type(failure.value).__name__)
        return Sent("uncertain", reason="an error of the gateway's own")

    async def _send(self, outgoing: Outgoing) -> Sent:
        out, began = self._preset.out, self._reactor.seconds()
        await self._window.acquire()
        try:
            outgoing = outgoing._replace(validity_s=outgoing.validity_s - (self._reactor.seconds() - began))
            if min(outgoing.validity_s, out.validity_most_s) < self._least_s:
                return Sent("temporary", reason=f"less than {self._least_s:g} s are left, and no less can be told")
            values = self._values(outgoing)
            more: dict[str, Any] = {}
            if out.form:
                more["data"] = templates.filled(out.form, values)
            elif out.json:
                more["json"] = templates.filled(out.json, values, numbers=True)
            address = templates.url(self._section.url or out.url, values)
            asked: Deferred[Any] = self._client.request(
                *(out.method, address),
                headers=templates.filled(out.headers, values),
                params=templates.filled(out.query, values) or None,
                allow_redirects=False,
                unbuffered=True,
                **more,
            )
            asked.addTimeout(self._section.answer_within, self._reactor)
            try:
                response = await asked
            except _NOT_SENT as error:
                return Sent("temporary", reason=f"it can't be connected to: {type(error).__name__}")
            except ResponseNeverReceived as error:
                if any(reason.check(*_NOT_TRUSTED) for reason in error.reasons):
                    return Sent("temporary", reason="its certificate does not hold")
                return Sent("uncertain", reason="the connection broke before it answered")
            except (DeferredTimeout, CancelledError):
                return Sent("uncertain", reason=f"no answer within {self._section.answer_within:g} s")
            except Exception as error:  # whatever it is, it came while a request was on its way
                return Sent("uncertain", reason=f"no answer: {type(error).__name__}")
            return self._judged(response, await self._body(response), outgoing)
        finally:
            self._window.release()

    def _values(self, outgoing: Outgoing) -> dict[str, str]:
        validity_s = int(min(outgoing.validity_s, self._preset.out.validity_most_s))
        user, secret = self._section.user, self._secret
        return {
            "number": outgoing.number,
            "digits": outgoing.number.removeprefix("+"),
            "text": outgoing.body.render(),
            "from": self._number,
            "id": outgoing.id,
            "validity_s": str(max(validity_s, 1)),
            "validity_min": str(max(validity_s // 60, 1)),
            "valid_until": rfc3339(self._seconds() + validity_s),
            "user": user,
            "secret": secret,
            "basic": base64.b64encode(f"{user}:{secret}".encode()).decode(),
            "token": self._in_secret,
            "public_url": self._section.public_url.rstrip("/"),
        }

    async def _body(self, response: Any) -> str:
        """The beginning of an answer; what does not come in time is not there."""
        found: list[bytes] = []
        size = 0
        done: Deferred[None] = Deferred()

        def collect(data: bytes) -> None:
            nonlocal size
            if size < ANSWER_BYTES:
                found.append(data[: ANSWER_BYTES - size])
                size += len(data)
            if size >= ANSWER_BYTES and not done.called:
                done.callback(None)

        whole = treq.collect(response, collect)
        whole.addBoth(lambda _: None if done.called else done.callback(None))
        done.addTimeout(self._section.answer_within, self._reactor)
        done.addErrback(lambda _: None)
        await done
        return b"".join(found).decode("utf-8", "replace")

    def _judged(self, response: Any, text: str, outgoing: Outgoing) -> Sent:
        out, status = self._preset.out, int(response.code)
        reason = f"HTTP status {status}"
        if status in out.accepted:
            if not out.accepted_if or re.search(out.accepted_if, text, re.MULTILINE):
                name = self._named(text, outgoing.id)
                return Sent("accepted", (name,) if name else ())
            if out.temporary_if and re.search(out.temporary_if, text, re.MULTILINE):
                return Sent("temporary", reason=f"{reason}, and it did not take the text now")
            return Sent("rejected", reason=f"{reason}, and it did not take the text")
        if status in out.temporary:
            return Sent("temporary", reason=reason, retry_s=_retry_after(response))
        if 400 <= status < 500:
            return Sent("rejected", reason=reason)
        return Sent("uncertain", reason=reason)

    def _named(self, text: str, ours: str) -> str:
        """The provider's name for a text; empty: it gave none."""
        way, _, rest = self._preset.out.id.partition(":")
        if way == "ours":
            return ours
        if way == "regex":
            match = re.search(rest, text, re.MULTILINE)
            return match[1][:100] if match and match[1] else ""
        try:
            found: Any = json.loads(text)
            for step in rest.strip("/").split("/"):
                found = found[int(step)] if isinstance(found, list) else found[step]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            return ""
        return str(found)[:100] if isinstance(found, (str, int)) else ""


def _retry_after(response: Any) -> float:
    values = response.headers.getRawHeaders("retry-after") or [""]
    return min(float(values[0]), RETRY_MOST_S) if values[0].isascii() and values[0].isdecimal() else 0.0
