"""Long texts: how they are cut into parts, and what a part says of the whole."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.sms.smpp import alphabet
from gateway.sms.smpp.pdus import SAR_NUMBER, SAR_REFERENCE, SAR_TOTAL, UDHI, Short

#: Octets of a text that needs no parts (letters of GSM 03.38; octets of UCS-2), and of a part behind its header.
WHOLE: Final = {alphabet.GSM: 160, alphabet.UCS2: 140}
PART: Final = {alphabet.GSM: 153, alphabet.UCS2: 134}
#: More parts than this there can't be.
MOST: Final = 255

#: Elements of a header that say which part it is (3GPP TS 23.040, 9.2.3.24): with a reference of 8 bits, and of 16.
_SHORT: Final = 0x00
_LONG: Final = 0x08


class Part(NamedTuple):
    """
    What a message is of a longer one.

    @ivar total: how many parts there are; 1: it is the whole.
    @ivar number: from 1 on.
    """

    reference: int
    total: int
    number: int
    text: str


def cut(text: str, reference: int) -> list[tuple[int, int, bytes]]:
    """
    A text as what is sent: C{esm_class}, C{data_coding} and octets of each part.

    @param reference: what its parts have in common, 0 to 255.
    @raise ValueError: it has more parts than there can be.
    """
    coding, letters = alphabet.encode(text)
    if sum(map(len, letters)) <= WHOLE[coding]:
        return [(0, coding, b"".join(letters))]
    chunks = [b""]
    for letter in letters:
        if len(chunks[-1]) + len(letter) > PART[coding]:
            chunks.append(b"")
        chunks[-1] += letter
    if len(chunks) > MOST:
        raise ValueError(f"a text of {len(chunks)} parts")
    head = bytes((5, _SHORT, 3, reference & 0xFF, len(chunks)))
    return [(UDHI, coding, head + bytes((n,)) + chunk) for n, chunk in enumerate(chunks, 1)]


def read(short: Short) -> Part:
    """What a message says, and which part of a longer one it is, whichever way that is told."""
    octets, reference, total, number = short.octets, 0, 1, 1
    if short.esm_class & UDHI and octets and len(octets) > octets[0]:
        head, octets = octets[1 : octets[0] + 1], octets[octets[0] + 1 :]
        reference, total, number = _concatenated(head)
    elif SAR_TOTAL in short.parameters:
        reference, total, number = (
            int.from_bytes(short.parameters.get(tag, b"\0"), "big") for tag in (SAR_REFERENCE, SAR_TOTAL, SAR_NUMBER)
        )
    if not (1 < total <= MOST and 1 <= number <= total):
        reference, total, number = 0, 1, 1
    return Part(reference, total, number, alphabet.decode(short.data_coding, octets))


def _concatenated(head: bytes) -> tuple[int, int, int]:
    at = 0
    while at + 2 <= len(head):
        kind, length = head[at], head[at + 1]
        value = head[at + 2 : at + 2 + length]
        if kind == _SHORT and len(value) == 3:
            return value[0], value[1], value[2]
        if kind == _LONG and len(value) == 4:
            return int.from_bytes(value[:2], "big"), value[2], value[3]
        at += 2 + length
    return 0, 1, 1
