"""
Reads what comes back to a tracker: acknowledgements, commands in frames, and commands that are text.

Frames and text may be mixed on one connection, and cut anywhere.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: The text command that is answered, and the word of C{Command} for it.
RCONF: Final = "RCONF"
#: The command to start anew.
R1: Final = "R1"
#: The command that switches the relay.
S20: Final = "S20"

#: A frame, its end perhaps not there yet, or the text; whatever follows the text has no end that one could wait for.
_HEARD: Final = re.compile(rb"\*[^#]*#?|RCONF")
#: What has no end is thrown away from so many bytes on.
_UNREAD_BYTES: Final = 4096

_ACKNOWLEDGEMENT: Final = re.compile(rb"\*HQ,(\d{10}),(?:V4,(V1|NBR),\d{14}|(R12),\d{6}|(HTBT))#")
#: Which acknowledgements a report is content with, by its type.
_CONTENT_WITH: Final = {
    b"V1": {b"V1", b"R12"},
    b"NBR": {b"NBR", b"R12"},
    b"$": {b"R12"},
    b"HTBT": {b"HTBT"},
}
#: C{R12} looks like a command and is none.
_COMMAND: Final = re.compile(rb"\*HQ,(\d{10}),(?!R12)([A-Z]{1,4}\d{0,2}),(\d{6})(?:,([^#]*))?#")
#: C{*HQ,} and the ident; the time of day and C{#}.
_TO: Final = slice(0, 14)
_TIME_OF_DAY: Final = slice(-7, None)


class Command(NamedTuple):
    """
    What a tracker is told to do.

    @ivar stamp: the time of day in it.
    @ivar arguments: what follows, as it is written.
    """

    word: str
    stamp: str = ""
    arguments: str = ""


class Downlink:
    """
    What comes back on one connection.

    @ivar alone: whether the latest read held one frame or text and nothing else; of one that was cut, all its reads.
    """

    __slots__ = ("_before", "_reads", "_unread", "alone")

    def __init__(self) -> None:
        self.alone = False
        self._unread = b""
        self._reads = b""
        self._before = b""

    def receive(self, data: bytes) -> list[bytes]:
        """
        The frames and texts that end with these bytes.

        A gateway may acknowledge a report twice, C{V4} and then C{R12} in one go: of those this is the first alone.
        """
        heard = []
        self._reads = (self._reads if self._unread.strip() else b"") + data
        data = self._unread + data
        # as much as may be the beginning of a text
        self._unread = data[-(len(RCONF) - 1) :]
        for match in _HEARD.finditer(data):
            found = match[0]
            if found.startswith(b"*") and not found.endswith(b"#"):
                self._unread = found if len(found) <= _UNREAD_BYTES else b""
                break
            self._unread = data[match.end() :][-(len(RCONF) - 1) :]
            if not _other_half(self._before, found):
                heard.append(found)
            self._before = found
        self.alone = heard == [self._reads.strip()]
        if len(self._reads) > _UNREAD_BYTES:
            self._reads = self._reads[-_UNREAD_BYTES:]
        return heard


def _other_half(before: bytes, answer: bytes) -> bool:
    """Whether this R12 goes with the V4 before it: to the same device, and made in the same second."""
    if before[_TO] != answer[_TO] or before[_TIME_OF_DAY] != answer[_TIME_OF_DAY]:
        return False
    return before[14:].startswith(b",V4,") and answer[14:].startswith(b",R12,")


def command(heard: bytes, ident: str) -> Command | None:
    """The command that this is to that device; None when it is none, or one to another device."""
    if heard == RCONF.encode():
        return Command(RCONF)
    match = _COMMAND.fullmatch(heard)
    if match is None or match[1] != ident.encode():
        return None
    return Command(match[2].decode(), match[3].decode(), (match[4] or b"").decode("latin-1"))


def acknowledges(answer: bytes, ident: str, frame: bytes) -> bool:
    """
    Whether this answer can be the acknowledgement of that frame.

    It names the device and the kind of frame, at most. Which of several it is for shows in their order alone.
    """
    match = _ACKNOWLEDGEMENT.fullmatch(answer)
    if match is None or match[1] != ident.encode():
        return False
    return (match[2] or match[3] or match[4]) in _CONTENT_WITH.get(_kind(frame), ())


def _kind(frame: bytes) -> bytes:
    """The type of a report; nothing when it has none."""
    if frame.startswith(b"$"):
        return b"$"
    fields = frame.rstrip(b"#").split(b",", 3)
    return fields[2] if len(fields) > 2 else b""
