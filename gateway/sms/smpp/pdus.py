"""
SMPP 3.4 on the wire, without any I/O: frames, the few of them that are used, and their bodies.

SMSCs differ from the document and from each other.  What is framed is read as
far as it can be: a missing zero byte, a length that is wrong, parameters of a
vendor, a status that nobody knows are no reason to drop a link.  Only a length
that can't be one is: from there on nothing can be told apart.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.errors import GatewayError

#: Octets of a header, and of a PDU at most: a payload of 64 KiB, and what stands around it.
HEADER: Final = 16
LONGEST: Final = 70_000

_HEADER: Final = struct.Struct(">IIII")

# commands, 5.1.2.1; a response has the highest bit
GENERIC_NACK: Final = 0x80000000
BIND_TRANSCEIVER: Final = 0x00000009
SUBMIT_SM: Final = 0x00000004
DELIVER_SM: Final = 0x00000005
UNBIND: Final = 0x00000006
OUTBIND: Final = 0x0000000B
ENQUIRE_LINK: Final = 0x00000015
ALERT_NOTIFICATION: Final = 0x00000102
DATA_SM: Final = 0x00000103
RESPONSE: Final = 0x80000000

# statuses, 5.1.3
OK: Final = 0x00
INVALID_COMMAND: Final = 0x03
RECEIVER_TEMPORARY: Final = 0x64
#: Those that have a name, for people.
STATUSES: Final[Mapping[int, str]] = {
    0x01: "message length is invalid",
    0x02: "command length is invalid",
    0x03: "command is invalid",
    0x04: "not bound for this",
    0x05: "already bound",
    0x06: "priority is invalid",
    0x08: "system error",
    0x0A: "source address is invalid",
    0x0B: "destination address is invalid",
    0x0C: "message id is invalid",
    0x0D: "bind failed",
    0x0E: "password is invalid",
    0x0F: "system id is invalid",
    0x14: "message queue is full",
    0x15: "service type is invalid",
    0x45: "submit failed",
    0x48: "type of the source number is invalid",
    0x50: "type of the destination number is invalid",
    0x58: "throttled",
    0x61: "schedule time is invalid",
    0x62: "validity period is invalid",
    0x64: "the receiver's temporary error",
    0x65: "the receiver's permanent error",
    0x66: "the receiver rejects it",
    0xFF: "unknown error",
}

# parameters with a tag, 5.3.2
SAR_REFERENCE: Final = 0x020C
SAR_TOTAL: Final = 0x020E
SAR_NUMBER: Final = 0x020F
RECEIPTED_ID: Final = 0x001E
MESSAGE_STATE: Final = 0x0427
MESSAGE_PAYLOAD: Final = 0x0424

#: C{esm_class}: what the message is, and that it begins with a header of its own.
KIND: Final = 0x3C
RECEIPT: Final = 0x04
UDHI: Final = 0x40


class FramingError(GatewayError):
    """A length that can't be one: the stream can't be read any further."""


class PDU(NamedTuple):
    """A frame; C{body}: what follows the header."""

    command: int
    status: int
    sequence: int
    body: bytes = b""

    @property
    def encoded(self) -> bytes:
        """On the wire."""
        return _HEADER.pack(HEADER + len(self.body), self.command, self.status, self.sequence) + self.body

    @property
    def is_response(self) -> bool:
        """Whether it answers a request."""
        return bool(self.command & RESPONSE)


class Frames:
    """Frames of a stream, whichever way it is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[PDU]:
        """
        Take bytes as they come.

        @raise FramingError: for a length that can't be one.
        """
        rest = self._rest + data if self._rest else data
        found: list[PDU] = []
        at = 0
        while len(rest) - at >= HEADER:
            length, command, status, sequence = _HEADER.unpack_from(rest, at)
            if not HEADER <= length <= LONGEST:
                raise FramingError(f"a PDU of {length} octets")
            if len(rest) - at < length:
                break
            found.append(PDU(command, status, sequence, rest[at + HEADER : at + length]))
            at += length
        self._rest = rest[at:]
        return found


class Short(NamedTuple):
    """
    A message, of C{submit_sm}, C{deliver_sm} or C{data_sm}.

    @ivar source: C{destination}: addresses as they stand there; type and plan of the number before each.
    @ivar octets: of its text, with a header before that if C{esm_class} says so.
    @ivar parameters: those with a tag, by that.
    """

    source: str = ""
    destination: str = ""
    octets: bytes = b""
    esm_class: int = 0
    data_coding: int = 0
    parameters: Mapping[int, bytes] = {}
    source_kind: tuple[int, int] = (0, 0)
    destination_kind: tuple[int, int] = (0, 0)
    validity: str = ""
    registered: int = 0

    def submit(self) -> bytes:
        """As the body of C{submit_sm}, 4.4.1."""
        return b"".join(
            (
                b"\0",  # service type: the SMSC's default
                _address(self.source_kind, self.source),
                _address(self.destination_kind, self.destination),
                bytes((self.esm_class, 0, 0)),  # protocol and priority: of no meaning here
                b"\0",  # at once
                self.validity.encode() + b"\0",
                bytes((self.registered, 0, self.data_coding, 0, len(self.octets))),
                self.octets,
            )
        )


def _address(kind: tuple[int, int], text: str) -> bytes:
    return bytes(kind) + text.encode("ascii", "replace")[:20] + b"\0"


def message(pdu: PDU) -> Short:
    """Read the body of C{submit_sm}, C{deliver_sm} or C{data_sm}, as far as that goes."""
    body = _Body(pdu.body)
    body.text()  # service type
    source_kind = body.octet(), body.octet()
    source = body.text()
    destination_kind = body.octet(), body.octet()
    destination = body.text()
    esm_class = body.octet()
    validity, octets = "", b""
    if pdu.command == DATA_SM:
        registered, data_coding = body.octet(), body.octet()
    else:
        body.octet()  # protocol
        body.octet()  # priority
        body.text()  # scheduled for
        validity = body.text()
        registered = body.octet()
        body.octet()  # replaces
        data_coding = body.octet()
        body.octet()  # a canned message
        octets = body.take(body.octet())
    parameters = body.parameters()
    octets = octets or parameters.get(MESSAGE_PAYLOAD, b"")
    return Short(
        *(source, destination, octets, esm_class, data_coding, parameters),
        *(source_kind, destination_kind, validity, registered),
    )


def message_id(pdu: PDU) -> str:
    """What a response calls the message; empty: it does not say."""
    return _Body(pdu.body).text()


def bind(system_id: str, password: str, system_type: str) -> bytes:
    """The body of C{bind_transceiver}, 4.1.5; it says version 3.4."""
    words = b"".join(word.encode("latin-1", "replace") + b"\0" for word in (system_id, password, system_type))
    return words + b"\x34\0\0\0"


class _Body:
    """What is left of a body; where it ends too soon there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def octet(self) -> int:
        at = self._at
        self._at += 1
        return self._data[at] if at < len(self._data) else 0

    def text(self) -> str:
        """Up to a zero byte, or to the end where there is none."""
        end = self._data.find(b"\0", self._at)
        end = len(self._data) if end < 0 else end
        found = self._data[self._at : end]
        self._at = end + 1
        return found.decode("latin-1")

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def parameters(self) -> dict[int, bytes]:
        """By tag, the first of each; one that is cut off has what is there of it."""
        found: dict[int, bytes] = {}
        while self._at + 4 <= len(self._data):
            tag, length = struct.unpack_from(">HH", self._data, self._at)
            self._at += 4
            found.setdefault(tag, self.take(length))
        return found
