"""
Cuts a stream of the H02 family into frames: text, C{$} and C{X}, mixed as they come.

A text frame ends at its first C{#}.  Two cases need to look ahead: an C{SMS}
text may hold a C{#} of its own, and a C{$} frame has no length field; both end
where a next frame can start.  What can't be told yet waits for more bytes or
for a second of silence, so no decision depends on where a read ended.
(Lengths and offsets: the H02 documents and captures; 32 and 45 are SinoTrack,
42 carries a 15-digit IMEI, 46 and 48 were seen.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.fields import day_epoch, is_bcd, second_of_day
from gateway.framing import FrameBuffer

#: The longest text frame: a SinoTrack report has 100 bytes, an SMS answer a few hundred.
TEXT_LIMIT: Final = 2048
LENGTHS: Final = (32, 42, 45, 46, 48)
SHORTEST: Final = 32

#: C{*HQ,}, an ident of 17 digits at most, and C{,SMS,}.
_SMS_WITHIN: Final = 4 + 17 + 5

#: What may stand between two frames.
GAP: Final = b"\r\n \0"
_GAP_RUN = re.compile(rb"[\r\n \0]*")

_STAR, _DOLLAR, _X, _COMMA = b"*$X,"
_START: Final = re.compile(rb"[*$X]")
#: Bytes of a C{$} or C{X} frame up to the end of its date.
_HEAD: Final = 12

#: The status word is active low: half of its bits at least are ones in every real frame, in random bytes seldom.
MIN_ONES: Final = 16


class Cut(NamedTuple):
    """One piece of the stream: a frame, or bytes that are none, with the reason."""

    raw: bytes
    junk: str = ""


def star_head(data: bytes, at: int) -> bool | None:
    """Whether C{*}, two ASCII letters and C{,} stand at C{at}; None: too few bytes to tell."""
    head = data[at : at + 4]
    if len(head) == 4:
        return head[0] == _STAR and head[3] == _COMMA and head[1:3].isalpha()
    return None if head[:1] in (b"", b"*") and (len(head) < 2 or head[1:3].isalpha()) else False


def _stamped(digits: str, at: int) -> bool:
    """Whether BCD time and date stand at this hex digit."""
    return second_of_day(digits[at : at + 6]) is not None and day_epoch(digits[at + 6 : at + 12]) is not None


def binary_head(data: bytes, at: int) -> bool | None:
    """Whether a C{$} or C{X} frame with a plausible time and date starts at C{at}; None: too few bytes to tell."""
    head = data[at : at + _HEAD]
    if head and head[0] not in (_DOLLAR, _X):
        return False
    if len(head) < _HEAD:
        # an ident, a time and a date are decimal digits, however few of them are here
        return None if is_bcd(head[1:].hex() or "0") else False
    digits = head.hex()
    return is_bcd(digits[2:]) and _stamped(digits, 12)


def imei_head(data: bytes, at: int) -> bool | None:
    """As L{binary_head} for the 42-byte form, whose ident has 8 bytes."""
    head = data[at : at + _HEAD + 3]
    if head and head[0] != _DOLLAR:
        return False
    if len(head) < _HEAD + 3:
        return None
    digits = head.hex()
    return is_bcd(digits[2:17]) and is_bcd(digits[18:]) and _stamped(digits, 18)


def _gap_end(data: bytes, at: int) -> int:
    """Where the gap between two frames ends that starts at C{at}."""
    match = _GAP_RUN.match(data, at)
    return match.end() if match is not None else at


def frame_head(data: bytes, at: int) -> bool | None:
    """Whether a frame can start at C{at}; None: too few bytes to tell."""
    if at >= len(data):
        return None
    if data[at] == _STAR:
        return star_head(data, at)
    either = (binary_head(data, at), imei_head(data, at))
    if True in either:
        return True
    return None if None in either else False


def decodes(data: bytes, at: int, size: int) -> bool:
    """Whether the fields of a binary frame of this length are what they should be."""
    shift = 3 if size == 42 else 0
    if not (imei_head(data, at) if shift else binary_head(data, at)):
        return False
    digits = data[at + 12 + shift : at + 29 + shift].hex()
    # latitude DDMMmmmm, battery, longitude DDDMMmmmm and a nibble of flags, speed and course, status
    if not (is_bcd(digits[0:8]) and is_bcd(digits[10:19]) and is_bcd(digits[20:26])):
        return False
    if int(digits[0:8]) > 90_000_000 or int(digits[10:19]) > 180_000_000:
        return False
    if int(digits[2:4]) > 59 or int(digits[13:15]) > 59:
        return False
    return int(digits[23:26]) <= 360 and int(digits[26:34], 16).bit_count() >= MIN_ONES


def _follows(data: bytes, at: int) -> bool | None:
    """
    Whether the end of a line stands at C{at}, or a next frame, there or after a CR or LF.

    A CR or LF alone proves nothing: the 45-byte form counts its satellites
    at the byte where the 32-byte form would end, and ten of them are a LF.
    """
    if data.startswith(b"\r\n", at):
        return True
    while at < len(data) and data[at] in b"\r\n":
        at += 1
    return frame_head(data, at)


def binary_ident(data: bytes, at: int, size: int) -> str:
    """The ident of a C{$} frame."""
    return data[at + 1 : at + 9].hex()[:15] if size == 42 else data[at + 1 : at + 6].hex()


class Splitter:
    """
    The frames of one stream.

    @ivar undecided: whether silence would decide something.
    """

    __slots__ = ("_buffer", "_known", "_learned", "_skipped", "undecided")

    def __init__(self, known: Callable[[str], int | None], learned: Callable[[str, int], None]) -> None:
        """
        @param known: ident -> the length of its C{$} frames, once that was seen twice.
        @param learned: is told of each length that the bytes themselves proved.
        """
        self._buffer = FrameBuffer()
        self._known = known
        self._learned = learned
        self._skipped = b""
        self.undecided = False

    @property
    def holds(self) -> bool:
        """Whether the next byte goes on with what is here already."""
        return bool(self._buffer.data or self._skipped)

    @property
    def rest(self) -> bytes:
        """What is held; bytes that only separate frames are not."""
        return self._skipped + self._buffer.data.lstrip(GAP)

    def split(self, data: bytes) -> list[Cut]:
        """Take bytes as they come; the pieces that they complete."""
        cuts: list[Cut] = []
        # taking a frame off moves the rest: a large read in parts, so that this stays little
        for at in range(0, len(data), TEXT_LIMIT):
            self.undecided = False
            self._buffer.add(data[at : at + TEXT_LIMIT])
            while self._buffer.data and self._step(cuts, False):
                pass
        return cuts

    def finish(self) -> list[Cut]:
        """Silence, or the end: decide what is here."""
        cuts: list[Cut] = []
        while self._buffer.data and self._step(cuts, True):
            pass
        if not self._buffer.data:
            self._flush_skipped(cuts)
        self.undecided = False
        return cuts

    def _step(self, cuts: list[Cut], silent: bool) -> bool:
        """Cut the next piece off; False when that needs more bytes."""
        buffer = self._buffer
        data = buffer.data
        first = data[0]
        if first == _STAR:
            return self._text(cuts, silent)
        if first == _DOLLAR or first == _X:
            return self._binary(cuts, silent)
        if first in GAP and not self._skipped:
            buffer.take(_gap_end(data, 0))
            return True
        self._skip(self._next_start(0), cuts)
        return True

    def _next_start(self, at: int) -> int:
        """Where a frame can start, from C{at} on; the end of what is here when nowhere."""
        data = self._buffer.data
        for match in _START.finditer(data, at):
            if frame_head(data, match.start()) is not False:
                return match.start()
        return len(data)

    def _skip(self, size: int, cuts: list[Cut]) -> None:
        """Bytes that start no frame: gathered, so that one run of junk is one piece however it was read."""
        while size:
            part = min(size, TEXT_LIMIT - len(self._skipped))
            self._skipped += self._buffer.take(part)
            size -= part
            if len(self._skipped) == TEXT_LIMIT:
                self._flush_skipped(cuts)

    def _flush_skipped(self, cuts: list[Cut]) -> None:
        if self._skipped:
            cuts.append(Cut(self._skipped, "bytes that start no frame"))
            self._skipped = b""

    def _emit(self, size: int, cuts: list[Cut]) -> bool:
        if self._skipped:
            self._flush_skipped(cuts)
        cuts.append(Cut(self._buffer.take(size)))
        return True

    def _text(self, cuts: list[Cut], silent: bool) -> bool:
        buffer = self._buffer
        head = star_head(buffer.data, 0)
        if head is None:
            return False
        if not head:
            self._skip(self._next_start(1), cuts)
            return True
        end = buffer.find(b"#")
        if 0 <= end < TEXT_LIMIT:
            if buffer.data.find(b",SMS,", 3, min(end, _SMS_WITHIN)) > 0:
                return self._sms(end, cuts, silent)
            inner = buffer.data.rfind(b"*", 1, end)
            if inner > 0 and star_head(buffer.data, inner):
                # a frame that was cut short, and the next one: a report holds no star of its own
                self._flush_skipped(cuts)
                cuts.append(Cut(buffer.take(inner), "a frame that was cut short"))
                return True
            return self._emit(end + 1, cuts)
        if len(buffer.data) < TEXT_LIMIT:
            return False
        star = buffer.data.find(b"*", 1, TEXT_LIMIT)
        self._flush_skipped(cuts)
        size = star if star > 0 else TEXT_LIMIT
        cuts.append(Cut(buffer.take(size), f"a text frame of more than {TEXT_LIMIT} bytes"))
        return True

    def _sms(self, end: int, cuts: list[Cut], silent: bool) -> bool:
        """An SMS text: its end is the first C{#} after which a frame can start, or the last one before a silence."""
        data = self._buffer.data
        waits, last = -1, -1
        while 0 <= end < TEXT_LIMIT:
            follows = frame_head(data, _gap_end(data, end + 1))
            if follows:
                return self._emit(end + 1, cuts)
            if follows is None:
                waits, last = (end if waits < 0 else waits), end
            end = data.find(b"#", end + 1)
        if silent and last >= 0:
            return self._emit(last + 1, cuts)
        if len(data) >= TEXT_LIMIT:
            return self._emit(data.rfind(b"#", 0, TEXT_LIMIT) + 1, cuts)
        # signs before the first that waits are none; it is looked at again when more bytes are here
        self._buffer.scanned = waits if waits >= 0 else len(data)
        self.undecided = last >= 0
        return False

    def _binary(self, cuts: list[Cut], silent: bool) -> bool:
        data = self._buffer.data
        head = frame_head(data, 0)
        if head is False:
            self._skip(self._next_start(1), cuts)
            return True
        if head is None or len(data) < SHORTEST:
            return False
        if data[0] == _X:
            if decodes(data, 0, SHORTEST):
                return self._emit(SHORTEST, cuts)
            self._skip(self._next_start(1), cuts)
            return True
        sizes = [size for size in LENGTHS if len(data) < size or decodes(data, 0, size)]
        if not sizes:
            self._skip(self._next_start(1), cuts)
            return True
        here = [size for size in sizes if size <= len(data)]
        for size in here:
            if self._known(binary_ident(data, 0, size)) == size:
                return self._emit(size, cuts)
        for size in sizes:
            if size > len(data):
                break
            follows = _follows(data, size)
            if follows:
                self._learned(binary_ident(data, 0, size), size)
                return self._emit(size, cuts)
            if follows is None:
                break
        else:
            return self._emit(sizes[-1], cuts)  # no more bytes can tell: the largest that fits
        if silent and here:
            ended = [size for size in here if data[size:] and not data[size:].strip(b"\r\n")]
            whole = [len(data)] if len(data) in here else here[-1:]
            return self._emit((ended or whole)[0], cuts)
        self.undecided = bool(here)
        return False
