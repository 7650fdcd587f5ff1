"""
HTTP/1.1 as far as phones speak it: bytes in, requests out; and the responses.

Not a library, h11 say: the id of an event is made of a request's own bytes, and
what is a fault, and where, must not depend on how the network cut the stream.
All else that this needs of RFC 9112 is the length of a body.

A fault of the framing ends the stream: where the next request would begin
can't be told any more.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

#: Bytes of a request line and its header, and of a whole request; the latter is also C{[limits] frame_bytes}.
HEAD_LIMIT: Final = 8_192
REQUEST_LIMIT: Final = 65_536
#: Bytes of a line within a chunked body.
LINE_LIMIT: Final = 256

#: What a phone is asked to wait when nothing can be stored.
RETRY_S: Final = 30

METHODS: Final = ("GET", "POST")

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_GAP = re.compile(rb"[\r\n]*")
#: A line may also end with LF alone, which RFC 9112 (2.2) allows and handmade clients send.
_HEAD_END = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"(%s) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
#: No line of a header begins with a blank: obsolete line folding is refused, as RFC 9112 (5.2) asks.
_FIELD = re.compile(rb"(%s):([\t -~\x80-\xff]*)" % _TOKEN)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?\r\n")


class Request(NamedTuple):
    """
    One request as delimited.

    @ivar raw: its bytes, head and body.
    @ivar body: what it carries, its transfer coding undone.
    @ivar keep: whether the connection goes on after it.
    @ivar status: 0, or what it is answered because it can't be delimited or its method is none of ours.
    @ivar fault: why, for that.
    """

    raw: bytes
    target: str = ""
    body: bytes = b""
    keep: bool = False
    status: int = 0
    fault: str = ""


class _Head(NamedTuple):
    """A request line and its header: their length with the empty line, and how the body is delimited."""

    size: int
    target: str
    keep: bool
    chunked: bool
    length: int


class Splitter:
    """The requests of one stream."""

    __slots__ = ("_at", "_body", "_buffer", "_ended", "_head", "_trailer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        """A new request."""
        self._head: _Head | None = None
        #: how far the buffer was searched for the end of the head, or where the next line of a chunked body begins
        self._at = 0
        self._body = bytearray()
        self._trailer = False

    @property
    def rest(self) -> bytes:
        """What is held because no request of it is whole yet."""
        return bytes(self._buffer)

    def split(self, data: bytes) -> list[Request]:
        """Take bytes as they come; the requests that they complete.  After one that ends the stream there are none."""
        found: list[Request] = []
        if not self._ended:
            self._buffer += data
        while not self._ended and (request := self._next()) is not None:
            found.append(request)
            self._ended = not request.keep
            if self._ended:
                self._buffer.clear()
        return found

    def _next(self) -> Request | None:
        if self._head is None:
            head = self._read_head()
            if not isinstance(head, _Head):
                return head
            self._head = head
            self._at = head.size
        head = self._head
        end = self._chunks() if head.chunked else head.size + head.length
        if isinstance(end, Request):
            return end
        if end is None or end > len(self._buffer):
            return None
        raw = bytes(self._buffer[:end])
        body = bytes(self._body) if head.chunked else raw[head.size :]
        del self._buffer[:end]
        self._begin()
        return Request(raw, head.target, body, head.keep)

    def _read_head(self) -> _Head | Request | None:
        """The head, once it is whole; a request with its fault; or None."""
        buffer = self._buffer
        if not self._at and buffer[:1].isspace():  # empty lines between requests: RFC 9112 (2.2)
            gap = _GAP.match(buffer)
            size = gap.end() if gap is not None else 0
            del gap  # while there is a match the buffer can't be cut
            del buffer[:size]
        end = _HEAD_END.search(buffer, max(self._at - 2, 0), HEAD_LIMIT)
        if end is not None:
            return _parse_head(bytes(buffer[: end.end()]))
        self._at = min(len(buffer), HEAD_LIMIT)
        if self._at == HEAD_LIMIT:
            return self._fault(431, f"a head of more than {HEAD_LIMIT} bytes", HEAD_LIMIT)
        return None

    def _chunks(self) -> int | Request | None:
        """Read chunks, as far as they are here; where the body ends, once it does; or a request with its fault."""
        buffer = self._buffer
        while True:
            line_end = buffer.find(b"\n", self._at, self._at + LINE_LIMIT) + 1
            if not line_end:
                end = self._at + LINE_LIMIT
                if len(buffer) >= end:
                    return self._fault(400, f"a line of more than {LINE_LIMIT} bytes in a chunked body", end)
                return None
            line = bytes(buffer[self._at : line_end])
            size = 0
            if not self._trailer:
                match = _CHUNK.fullmatch(line)
                if match is None:
                    return self._fault(400, "a chunk without its size", line_end)
                size = int(match[1], 16)
            if line_end + size + 2 > REQUEST_LIMIT:
                return self._fault(413, f"a request of more than {REQUEST_LIMIT} bytes", line_end)
            if self._trailer and line == b"\r\n":
                return line_end
            if not size:  # the last chunk, or a line of the trailer, which nobody needs
                self._trailer = True
                self._at = line_end
                continue
            end = line_end + size + 2
            if len(buffer) < end:
                return None
            if buffer[end - 2 : end] != b"\r\n":
                return self._fault(400, "a chunk that is longer than its size", end)
            self._body += buffer[line_end : end - 2]
            self._at = end

    def _fault(self, status: int, fault: str, size: int) -> Request:
        """What ends the stream, after so many bytes of the request."""
        return Request(bytes(self._buffer[:size]), status=status, fault=fault)


def _parse_head(data: bytes) -> _Head | Request:
    """
    Read a whole head: what it says, or a request with its fault.

    C{Expect: 100-continue} gets no interim response: nothing is written before
    a request is stored.  Who asks for it sends the body after about a second
    without one (RFC 9110, 10.1.1).
    """
    size = len(data)
    line, *lines = (line.removesuffix(b"\r") for line in data.split(b"\n")[:-2])
    start = _REQUEST_LINE.fullmatch(line)
    if start is None:
        return Request(data, status=400, fault="its first line is not METHOD TARGET HTTP/1.1")
    method, target, minor = start[1].decode(), start[2].decode(), start[3]
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return Request(data, status=400, fault=f"a line of the header is none: {line[:40].decode('latin-1')!a}")
        name, value = field[1].lower(), field[2].strip(b" \t").lower()
        fields[name] = fields[name] + b"," + value if name in fields else value
    options = [option.strip() for option in fields.get(b"connection", b"").split(b",")]
    keep = b"close" not in options if minor == b"1" else b"keep-alive" in options
    if method not in METHODS:
        return Request(data, status=405, fault=f"the method is {method[:16]}, not GET or POST")
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None or minor == b"0":  # two ends of one body: request smuggling
            return Request(data, status=400, fault="Transfer-Encoding with a Content-Length, or in HTTP/1.0")
        if coding != b"chunked":
            return Request(
                data, status=501, fault=f"the transfer coding is {coding[:16].decode('latin-1')!a}, not chunked"
            )
        return _Head(size, target, keep, True, 0)
    if length is None:
        return _Head(size, target, keep, False, 0)
    if not length.isdigit():
        return Request(data, status=400, fault=f"the Content-Length is {length[:16].decode('latin-1')!a}")
    # a number of many digits is not even read
    count = int(length) if len(length) < 10 else REQUEST_LIMIT
    if size + count > REQUEST_LIMIT:
        return Request(data, status=413, fault=f"a request of more than {REQUEST_LIMIT} bytes")
    return _Head(size, target, keep, False, count)


@lru_cache(maxsize=64)
def response(status: int, keep: bool, text: str = "") -> bytes:
    """
    A response.

    @param keep: whether the connection goes on after it.
    @param text: one line for whoever set up the phone.
    """
    body = f"{text}\n".encode() if text else b""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {RETRY_S}")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append(f"Allow: {', '.join(METHODS)}")
    if body:
        lines.append("Content-Type: text/plain; charset=utf-8")
    lines += [f"Content-Length: {len(body)}", f"Connection: {'keep-alive' if keep else 'close'}", "", ""]
    return "\r\n".join(lines).encode() + body
