"""The st907 plugin: detection, and the decoder of one stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from zope.interface import implementer

from gateway.commands import Command
from gateway.devices.st907 import commands, downlink, explain, frames, reports, sms, sms_texts, units, usual
from gateway.devices.st907.binary import read_binary
from gateway.devices.st907.downlink import BINARY, DEFAULT_MAKER, Reply
from gateway.devices.st907.settings import Options, of_family, settings
from gateway.devices.st907.supported import SUPPORTED
from gateway.devices.st907.usual import USUAL_END
from gateway.errors import DecodeError, UnsupportedCommand
from gateway.interfaces import (
    API,
    MORE,
    NO,
    YES,
    Answer,
    Downlink,
    Fact,
    ICommandDevice,
    IDatagramDevice,
    IDecoder,
    IExplainingDevice,
    ILearningDevice,
    ISMSDevice,
    Kept,
    Memory,
    Message,
    SMSReading,
    SMSText,
    Transport,
)

#: Makers whose frames these are beyond doubt; other two-letter codes have to show a known type.
MAKERS: Final = frozenset({"HQ", "hq", "TH", "DC", "XY"})

#: What most streams begin with, up to the sign after the type; the rules below say the same of it.
_KNOWN: Final = re.compile(
    rb"\*(?:%b),[0-9]{0,%d},(?:%b)[,#]"
    % ("|".join(sorted(MAKERS)).encode(), reports.MAX_IDENT, "|".join(sorted(reports.TYPES)).encode())
)

_NOTHING = MORE(0, "nothing yet")
_NOT_OURS = NO("starts with none of *, $, X")
_NO_HEAD = NO("not *, two letters and a comma")
_SHORT_HEAD = MORE(20, "* and what may become a maker")
_HEAD = MORE(40, "* and a maker")
_WEAK_HEAD = MORE(30, "* and an unknown maker")
_EASYTRACK = NO("maker ET is easytrack")
_NO_IDENT = NO("the ident is not up to 17 digits")
_IDENT = MORE(60, "maker and ident")
_WEAK_IDENT = MORE(40, "unknown maker and ident")
_TYPE = YES(80, "maker, ident and known type")
_FRAME = YES(90, "a whole text frame of a known type")
_BARE = YES(80, "a whole text frame with nothing but an ident")
_OTHER_FRAME = YES(60, "a whole text frame of an unknown type")
_WEAK_FRAME = YES(50, "a whole text frame of an unknown maker and type")
_LONG = NO(f"no end within {frames.TEXT_LIMIT} bytes")
_NO_TIME = NO("no BCD time and date")
_BINARY = MORE(40, "a binary start, too short to tell")
_BINARY_TIME = MORE(60, "a binary start with time and date")
_NO_FIELDS = NO("no BCD position, or no status word")
_BINARY_FRAME = YES(90, "a binary frame with time, position and status word")


#: What gives an acknowledgement for the time at which it is sent.
Give = Callable[[float], bytes]

_DEFAULT = Options()

# looked up once: nearly all frames come this way
_usual = usual.USUAL.match
_read_usual = usual.read


@implementer(IDatagramDevice, ILearningDevice, IExplainingDevice, ICommandDevice, ISMSDevice)
class ST907:
    """SinoTrack ST-907 and its siblings of the H02 family."""

    api = API
    name = "st907"
    priority = 10
    options = Options
    commands = SUPPORTED

    def detect(self, prefix: bytes, transport: Transport) -> Answer:
        if not prefix:
            return _NOTHING
        if prefix[0] == 0x2A:
            return _detect_text(prefix)
        if prefix[0] == 0x24 or prefix[0] == 0x58:
            return _detect_binary(prefix)
        return _NOT_OURS

    def decoder(self, options: Any, memory: Memory) -> IDecoder:
        decoder: IDecoder = Decoder(memory, _DEFAULT if options is None else options)
        return decoder

    def datagrams(self, options: Any, memory: Memory) -> Callable[[bytes], Message | None]:
        options = _DEFAULT if options is None else options
        names = of_family(options).bits

        @lru_cache(maxsize=8192)
        def reply(maker: str, ident: str) -> Give:
            return Reply(maker, ident, "V1", options, memory).give

        def read(data: bytes) -> Message | None:
            match = _usual(data.decode("latin-1"))
            if match is None or match.end() < len(data):
                return None
            groups = match.groups()
            maker, ident = groups[:2]
            if maker not in MAKERS:
                return None
            return _read_usual(groups, data[: match.end(USUAL_END) + 1], names, reply(maker, ident))

        return read

    def learn(self, message: Message, options: Any, kept: Kept, now: float) -> Message:
        return units.learn(message, options, kept, now)

    def set_up(
        self,
        host: str,
        port: int,
        apn: str,
        options: Any,
        registry: Mapping[str, str],
        interval_s: int | None,
        control: str,
    ) -> Sequence[SMSText]:
        return sms.set_up(host, port, apn, interval_s, control)

    def sms(self, command: Command, options: Any, registry: Mapping[str, str]) -> SMSText:
        return sms.sms(command)

    def sms_password(self, options: Any, registry: Mapping[str, str]) -> str:
        own = registry.get("sms_password", "")
        if own and not sms.PASSWORDS.fullmatch(own):
            raise UnsupportedCommand("what the registry has as sms_password can't be one")
        return own or (_DEFAULT if options is None else options).sms_password

    def read_sms(self, text: str, options: Any, registry: Mapping[str, str], now: float) -> SMSReading:
        return sms_texts.read(text, (_DEFAULT if options is None else options).own_alarms, now)

    def explain(self, frame: bytes, options: Any, registry: Mapping[str, str]) -> Sequence[Fact]:
        return explain.explain(frame, settings(_DEFAULT if options is None else options, registry))

    def encode(self, ident: str, command: Command, options: Any, kept: Kept, now: float, form: int) -> Downlink:
        return commands.encode(ident, command, _DEFAULT if options is None else options, kept, now, form)


def _detect_text(prefix: bytes) -> Answer:
    if (found := _KNOWN.match(prefix)) is not None:
        return _FRAME if prefix.find(b"#", found.end() - 1) >= 0 else _TYPE
    head = frames.star_head(prefix, 0)
    if head is not True:
        return _SHORT_HEAD if head is None else _NO_HEAD
    maker = prefix[1:3].decode("latin-1")
    if maker == "ET":
        return _EASYTRACK
    known = maker in MAKERS
    end = prefix.find(b",", 4)
    sign = prefix.find(b"#", 4)
    if sign >= 0 and not 0 <= end < sign and prefix[4:sign].isdigit() and sign - 4 <= reports.MAX_IDENT:
        return _BARE if known else _WEAK_FRAME
    ident = prefix[4 : end if end >= 0 else len(prefix)]
    if len(ident) > reports.MAX_IDENT or not (ident.isdigit() or not ident):
        return _NO_IDENT
    if end < 0:
        return _HEAD if known else _WEAK_HEAD
    stop = prefix.find(b"#", end)
    comma = prefix.find(b",", end + 1)
    if comma < 0 or (0 <= stop < comma):
        comma = stop
    if comma < 0:
        return _IDENT if known else _WEAK_IDENT
    kind = prefix[end + 1 : comma].decode("latin-1").strip()
    if kind in reports.TYPES:
        if not known:
            return YES(60 if stop < 0 else 75, "unknown maker, ident and known type")
        return _FRAME if stop >= 0 else _TYPE
    if stop < 0:
        return _IDENT if known else _WEAK_IDENT
    if not kind and ident:
        return _BARE if known else _WEAK_FRAME
    return _OTHER_FRAME if known else _WEAK_FRAME


def _detect_binary(prefix: bytes) -> Answer:
    head = frames.frame_head(prefix, 0)
    if head is False:
        return _NO_TIME
    if head is None:
        return _BINARY
    if len(prefix) < frames.SHORTEST:
        return _BINARY_TIME
    if prefix[0] == 0x58:
        return _BINARY_FRAME if frames.decodes(prefix, 0, frames.SHORTEST) else _NO_FIELDS
    if any(frames.decodes(prefix, 0, size) for size in (32, 42)):
        return _BINARY_FRAME
    return _NO_FIELDS


@implementer(IDecoder)
class Decoder:
    """The state of one stream: what is not a frame yet, who spoke last, and with which maker's code."""

    __slots__ = ("_ident", "_maker", "_memory", "_names", "_options", "_reply", "_splitter")

    #: Seconds of silence that decide a frame whose end can't be told from its bytes.
    SILENCE_S: Final = 1.0

    def __init__(self, memory: Memory, options: Options) -> None:
        self._memory = memory
        self._options = options
        #: what the bits mean of a unit of which nothing is known
        self._names = of_family(options).bits
        self._ident: str | None = None
        self._maker = DEFAULT_MAKER
        #: what acknowledges the usual report of this ident and maker
        self._reply: Give | None = None
        #: made for the first bytes that are not the usual report
        self._splitter: frames.Splitter | None = None

    @property
    def deadline(self) -> float | None:
        return self.SILENCE_S if self._splitter is not None and self._splitter.undecided else None

    @property
    def rest(self) -> bytes:
        return self._splitter.rest if self._splitter is not None else b""

    def receive(self, data: bytes, now: float) -> Sequence[Message]:
        splitter = self._splitter
        messages: list[Message] = []
        if splitter is None or not splitter.holds:
            data = self._usual(data, messages)
            if not data:
                return messages
        if splitter is None:
            splitter = self._splitter = frames.Splitter(self._known_length, self._learn_length)
        messages += [self._message(cut) for cut in splitter.split(data)]
        return messages

    def finish(self, now: float) -> Sequence[Message]:
        return [self._message(cut) for cut in self._splitter.finish()] if self._splitter is not None else []

    def _usual(self, data: bytes, messages: list[Message]) -> bytes:
        """Read usual reports off the front, where a frame starts; the bytes from the first other one on."""
        text = data.decode("latin-1")
        at, end = 0, len(text)
        while at < end and (match := _usual(text, at)) is not None:
            groups = match.groups()
            reply = self._reply
            if reply is None or groups[1] != self._ident or groups[0] != self._maker:
                reply = Reply(groups[0], groups[1], "V1", self._options, self._memory).give
            message = _read_usual(groups, data[at : match.end(USUAL_END) + 1], self._names, reply)
            if message is None:
                break
            if reply is not self._reply:
                self._reply, self._maker, self._ident = reply, groups[0], groups[1]
            messages.append(message)
            at = match.end()
        return data[at:]

    def _message(self, cut: frames.Cut) -> Message:
        raw = cut.raw
        try:
            if cut.junk:
                raise DecodeError(cut.junk, raw)
            if raw[0] == 0x2A:
                whole: list[Message] = []
                return self._text(raw) if self._usual(raw, whole) else whole[0]
            if raw[0] == 0x24:
                self._reply = None
                self._ident = frames.binary_ident(raw, 0, len(raw))
            return self._answered(read_binary(raw, self._ident, self._names), BINARY)
        except DecodeError as error:
            return Message(raw, self._ident, error=error)

    def _text(self, raw: bytes) -> Message:
        self._reply = None  # who speaks may change
        fields = raw[1:-1].decode("latin-1").split(",", reports.MAX_FIELDS)
        self._maker = fields[0]
        ident = reports.checked_ident(fields[1], raw) if len(fields) > 1 else None
        if ident is not None:
            self._ident = ident
        message = reports.read_text(raw, self._ident, fields, self._names)
        kind = reports.message_type(fields)
        return self._answered(message, kind) if downlink.answered(kind) else message

    def _answered(self, message: Message, kind: str) -> Message:
        """The message with what acknowledges it; nobody's is not answered."""
        if self._ident is None:
            return message
        reply = Reply(self._maker, self._ident, kind, self._options, self._memory)
        return message._replace(reply=reply.give)

    def _known_length(self, ident: str) -> int | None:
        length, count = _seen(self._memory(ident))
        return length if count >= 2 else None

    def _learn_length(self, ident: str, length: int) -> None:
        memory = self._memory(ident)
        known, count = _seen(memory)
        memory["binary"] = (length, min(count + 1, 2) if known == length else 1)


def _seen(memory: Kept) -> tuple[int, int]:
    """The length that an ident's binary frames had, and how often; what somebody else wrote there is none."""
    found = memory.get("binary")
    if isinstance(found, (list, tuple)) and len(found) == 2 and all(isinstance(one, int) for one in found):
        return found[0], found[1]
    return 0, 0


device = ST907()
