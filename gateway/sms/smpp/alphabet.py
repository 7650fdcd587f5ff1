"""The alphabets of SMS: GSM 03.38 with its extension, an octet a letter as SMPP carries it, and UCS-2."""

from __future__ import annotations

from typing import Final

#: 3GPP TS 23.038, 6.2.1: the default alphabet in its order; at 0x1B is the escape to the extension.
_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: 6.2.1.1: its extension.
_EXTENSION: Final = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}
_ESCAPE: Final = 0x1B
_OCTETS: Final = {
    **{letter: bytes((code,)) for code, letter in enumerate(_BASIC) if code != _ESCAPE},
    **{letter: bytes((_ESCAPE, code)) for code, letter in _EXTENSION.items()},
}

#: C{data_coding} of what is sent.
GSM: Final = 0x00
UCS2: Final = 0x08
_LATIN_1: Final = 0x03
#: IA5, octets of no alphabet, Latin-1, and octets again (SMPP 3.4, 5.2.19): a letter each.
_OCTET: Final = (0x01, 0x02, 0x03, 0x04)


def encode(text: str) -> tuple[int, list[bytes]]:
    """A text as C{data_coding}, and the octets of each of its letters, which are not to be parted."""
    try:
        return GSM, [_OCTETS[letter] for letter in text]
    except KeyError:
        return UCS2, [letter.encode("utf-16-be", "replace") for letter in text]


def decode(data_coding: int, octets: bytes) -> str:
    """
    What octets say; what can't be a letter becomes one that says so, nothing raises.

    3GPP TS 23.038, 4: from 0x10 on C{data_coding} has bits of its own for the alphabet.
    """
    alphabet = _alphabet(data_coding)
    if alphabet == UCS2:
        return octets[: len(octets) // 2 * 2].decode("utf-16-be", "replace").removeprefix("\ufeff").rstrip("\0")
    if alphabet != GSM or any(octet >= 0x80 for octet in octets):  # some say the default alphabet, and mean Latin-1
        return octets.decode("latin-1").rstrip("\0")
    return _gsm(octets)


def _alphabet(data_coding: int) -> int:
    if data_coding in _OCTET:
        return _LATIN_1
    if data_coding < 0x40 or data_coding >= 0xF0:
        kind = data_coding & 0x0C if data_coding < 0xF0 else data_coding & 0x04
        return UCS2 if kind == UCS2 else GSM if kind == 0 else _LATIN_1
    return UCS2 if data_coding >= 0xE0 else GSM  # a message that waits, in the one or the other


def _gsm(octets: bytes) -> str:
    letters: list[str] = []
    escaped = False
    for octet in octets:
        if escaped:  # what the extension does not have is shown as in the default alphabet
            letters.append(_EXTENSION.get(octet) or _BASIC[octet])
            escaped = False
        elif octet == _ESCAPE:
            escaped = True
        else:
            letters.append(_BASIC[octet])
    return "".join(letters).rstrip("\0")
