"""
Which HTTP requests are OsmAnd's: those that say whose they are and where it is, by the names that its protocol has.

22 protocols of the public vectors begin with an HTTP verb, and so do browsers
and scanners.  A request is claimed by the names of its parameters, in its query
or a form, or by the C{coords} of its JSON; nothing of the path and the header
tells.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.interfaces import MORE, NO, YES, Answer

_VERBS: Final = (b"GET ", b"POST ")
#: A path before the query: Traccar Client has none, other servers that OsmAnd is set up for have a short one.
_PATH_LIMIT: Final = 128

_IDENTS: Final = frozenset((b"id", b"deviceid"))
#: What a request with an ident but without a position has at least two of.
_OWN: Final = frozenset(b"timestamp cell wifi batt charge accuracy hdop valid alarm driverUniqueId".split())

_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?\n", re.IGNORECASE)
_COORDS = re.compile(rb'"coords"\s*:\s*\{[^{}]*"latitude"\s*:')

_NOTHING = MORE(0, "nothing yet")
_NO_VERB = NO("neither GET nor POST")
_VERB = MORE(10, "a verb of HTTP")
_NO_PATH = NO("no short path")
_TARGET = MORE(20, "a request of HTTP")
_IDENT = MORE(40, "an id in a query")
_NOT_HTTP = NO("not HTTP/1")
_SURE = YES(80, "id and position as parameters")
_NAMELESS = YES(60, "a position as parameters")
_PLACELESS = YES(70, "id and other parameters of OsmAnd's, without a position")
_FOREIGN = NO("parameters that are not OsmAnd's")
_NO_BODY = NO("no parameters of OsmAnd's, and no body")
_BODY = MORE(30, "a POST, its body still to come")
_FOREIGN_BODY = NO("a body that is neither JSON nor a form of OsmAnd's")
_JSON = YES(80, "JSON with coords")


def detect(prefix: bytes) -> Answer:
    """Say whether a stream that begins like this is a phone's: see L{IDevice.detect}."""
    if not prefix:
        return _NOTHING
    verb = next((verb for verb in _VERBS if prefix.startswith(verb) or verb.startswith(prefix)), None)
    if verb is None:
        return _NO_VERB
    if len(prefix) <= len(verb):
        return _VERB
    target, blank, rest = prefix[len(verb) :].partition(b" ")
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/") or len(path) > _PATH_LIMIT or b"\n" in path:
        return _NO_PATH
    names = _names(query, whole=bool(blank))
    place = _place(names)
    if place is not None:
        return place
    if not blank:
        return _IDENT if names & _IDENTS else _TARGET
    if rest[:7] != b"HTTP/1."[: len(rest)]:
        return _NOT_HTTP
    if _is_placeless(names):
        return _PLACELESS
    return _FOREIGN if verb == b"GET " else _detect_body(rest, names)


def _names(text: bytes, whole: bool) -> set[bytes]:
    """The names of the parameters that have a value; the last one counts only once its end is here."""
    pairs = text.split(b"&")
    if not whole:
        pairs.pop()
    return {name for name, equals, value in (pair.partition(b"=") for pair in pairs) if value}


def _place(names: set[bytes]) -> Answer | None:
    """What parameters with a position are worth."""
    if {b"lat", b"lon"} <= names or b"location" in names:
        return _SURE if names & _IDENTS else _NAMELESS
    return None


def _is_placeless(names: set[bytes]) -> bool:
    """Whether this is a report without a position: cells, access points, an alarm."""
    return bool(names & _IDENTS) and len(names & _OWN) >= 2


def _detect_body(rest: bytes, names: set[bytes]) -> Answer:
    """A POST, from its version on, whose query alone does not tell."""
    head_end = _HEAD_END.search(rest)
    if head_end is None:
        return _BODY
    head, body = rest[: head_end.end()], rest[head_end.end() :]
    length = _LENGTH.search(head)
    whole = False
    if length is not None:
        size = int(length[1])
        if not size:
            return _NO_BODY
        whole = len(body) >= size
        body = body[:size]
    elif _CHUNKED.search(head):
        body = body.partition(b"\n")[2]
    else:
        return _NO_BODY
    body = body.lstrip()
    if not body:
        return _FOREIGN_BODY if whole else _BODY
    if body[0] in b"{[":
        if _COORDS.search(body):
            return _JSON
        return _FOREIGN_BODY if whole else _BODY
    if not body[:1].isalpha():
        return _FOREIGN_BODY
    names = names | _names(body, whole)
    place = _place(names)
    if place is not None:
        return place
    if whole:
        return _PLACELESS if _is_placeless(names) else _FOREIGN_BODY
    return _BODY
