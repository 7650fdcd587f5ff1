"""What a provider brings: texts and receipts, from whoever proves that he is it, answered once they are stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gateway.errors import NotReady
from gateway.sms.http.presets import In, Preset, Receipts
from gateway.sms.http.settings import HTTPSection
from gateway.sms.interfaces import Incoming, ISMSInbox, Receipt

#: Parameters of a request at most.
FIELDS: Final = 100
#: A signed request that is older than this is somebody's who kept it, s.
SIGNED_S: Final = 300.0
#: How often those who are turned away are spoken of, s.
QUIET_S: Final = 60.0


class Refused(Exception):
    """A request that is not taken; C{status}: as HTTP calls that."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class Webhooks(Resource):
    """C{/sms/received} and C{/sms/receipt}."""

    log = Logger()
    isLeaf = True

    def __init__(
        self,
        preset: Preset,
        section: HTTPSection,
        secret: str,
        inbox: ISMSInbox,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param secret: the token, the password, or the key of signatures.
        @param seconds: the time of day, UTC epoch seconds.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._preset = preset
        self._section = section
        self._secret = secret
        self._inbox = inbox
        self._seconds = seconds
        self._said = 0.0
        self._turned_away = 0

    def render(self, request: Any) -> Any:
        # what is before this path a proxy may have put there
        path = request.path.decode("latin-1")
        try:
            if request.method not in (b"GET", b"POST"):
                raise Refused(405, "neither GET nor POST")
            if not path.endswith(("/sms/received", "/sms/receipt")):
                raise Refused(404, "there is nothing")
            body = request.content.read()
            pairs = _pairs(request, body)
            self._prove(request, body, pairs)
            fields = _fields(request, body, pairs)
            taken = self._receipt(fields) if path.endswith("/sms/receipt") else self._text(fields)
        except Refused as refused:
            self._turn_away(request, refused)
            return _answer(request, refused.status, f"{refused}\n", "text/plain")
        part, d = taken
        lost: list[object] = []
        request.notifyFinish().addErrback(lost.append)
        d.addCallbacks(lambda _: (part.status, part.answer, part.content_type), self._not_taken)

        def answer(said: tuple[int, str, str]) -> None:
            if not lost:
                request.write(_answer(request, *said))
                request.finish()

        d.addCallback(answer)
        d.addErrback(lambda failure: self.log.failure("a text that was brought ended in an error of our own", failure))
        return NOT_DONE_YET

    def _text(self, fields: Mapping[str, str]) -> tuple[In | Receipts, Any]:
        came = self._preset.came
        if came.when and fields.get(str(came.when.get("field")), "") != came.when.get("is"):
            return self._receipt(fields)
        if came.sender not in fields or came.text not in fields:
            raise Refused(400, f"no {came.sender!r}, or no {came.text!r}")
        id = fields.get(came.id, "") if came.id else ""
        return came, self._inbox.received(Incoming(fields[came.sender], fields[came.text], id[:100]))

    def _receipt(self, fields: Mapping[str, str]) -> tuple[In | Receipts, Any]:
        part = self._preset.receipts
        if part.id not in fields or part.state not in fields:
            raise Refused(400, f"no {part.id!r}, or no {part.state!r}")
        word = fields[part.state]
        return part, self._inbox.receipt(Receipt(fields[part.id][:100], part.meaning(word), word[:64]))

    def _not_taken(self, failure: Failure) -> tuple[int, str, str]:
        if not failure.check(NotReady):
            self.log.failure("a text that was brought ended in an error of our own", failure)
        return 503, "not now\n", "text/plain"

    def _turn_away(self, request: Any, refused: Refused) -> None:
        """Said once a minute, without anything that was brought."""
        self._turned_away += 1
        now = self._seconds()
        if not 0.0 <= now - self._said < QUIET_S:
            self._said = now
            peer = request.getClientAddress()
            where = getattr(peer, "host", "?")
            self.log.warn(
                "a request from {where} is turned away: {why} ({n} so far)",
                where=where,
                why=str(refused),
                n=self._turned_away,
            )

    # -- who brings it

    def _prove(self, request: Any, body: bytes, pairs: Sequence[tuple[str, str]]) -> None:
        auth = self._preset.came.auth
        if auth == "token":
            bearer = _header(request, "authorization").removeprefix("Bearer ")
            offered = [value for name, value in _query(request) if name == "token"]
            known = [*offered, _header(request, "x-token"), bearer]
            if any(self._same(one, self._secret) for one in known if one):
                return
        elif auth == "basic":
            said = _header(request, "authorization").removeprefix("Basic ")
            wanted = base64.b64encode(f"{self._section.user}:{self._secret}".encode()).decode()
            if self._same(said, wanted):
                return
        elif auth == "twilio":
            # it signs the address as it asks for it, and the parameters of a form behind it
            form = pairs if _kind(request) == "application/x-www-form-urlencoded" else ()
            address = self._section.public_url.rstrip("/") + _path(request.uri.decode("latin-1"))
            signed = address + "".join(f"{name}{value}" for name, value in sorted(set(form)))
            made = hmac.new(self._secret.encode(), signed.encode(), hashlib.sha1).digest()
            if self._same(_header(request, "x-twilio-signature"), base64.b64encode(made).decode()):
                return
        elif auth == "hmac":
            stamp = _header(request, "x-timestamp")
            made = hmac.new(self._secret.encode(), body + stamp.encode("latin-1", "replace"), hashlib.sha256).digest()
            fresh = stamp.isascii() and stamp.isdecimal() and abs(int(stamp[:16]) - self._seconds()) <= SIGNED_S
            if self._same(_header(request, "x-signature").lower(), made.hex()) and fresh:
                return
        raise Refused(401 if auth == "basic" else 403, "who brings it did not prove who he is")

    @staticmethod
    def _same(text: str, wanted: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))


def _answer(request: Any, status: int, text: str, content_type: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader("content-type", content_type)
    request.setHeader("server", "gateway")
    if status == 503:
        request.setHeader("retry-after", "5")
    if status == 401:
        request.setHeader("www-authenticate", 'Basic realm="sms"')
    data = text.encode()
    request.setHeader("content-length", str(len(data)))
    return data


def _header(request: Any, name: str) -> str:
    return str(request.getHeader(name) or "")


def _kind(request: Any) -> str:
    return _header(request, "content-type").partition(";")[0].strip().lower()


def _path(uri: str) -> str:
    """The path of a request as it was asked for, from what is ours on, with its parameters."""
    path, sign, query = uri.partition("?")
    return path[path.rindex("/sms/") :] + sign + query


def _query(request: Any) -> list[tuple[str, str]]:
    return _parsed(request.uri.partition(b"?")[2])


def _parsed(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS, errors="replace"
        )
    except ValueError as error:
        raise Refused(400, "too many parameters") from error


def _pairs(request: Any, body: bytes) -> list[tuple[str, str]]:
    """The parameters of a form."""
    return _parsed(body) if _kind(request) == "application/x-www-form-urlencoded" else []


def _fields(request: Any, body: bytes, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Everything that is said, by name; of JSON its leaves, with dots between names."""
    fields = dict(_query(request)) | dict(pairs)
    if _kind(request) == "application/json":
        try:
            fields |= _flat(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is no JSON") from error
    return fields


def _flat(tree: Any, before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            found[f"{before}{name}"] = str(value)
    return found
