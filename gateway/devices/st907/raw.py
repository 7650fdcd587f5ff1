"""
The command C{raw}: bytes as they are, but for those that switch the engine, which have commands of their own.

What is refused is refused however it is spelled.  Firmware is known to take
small letters and blanks, and to look at no more than the beginning of a word;
a text outside of a frame is obeyed as an SMS is (SinoTrack's document).  So
harmless bytes may be refused, too: that loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import UnsupportedCommand
from gateway.interfaces import Downlink

#: Commands of which a document or a sample has an answer.
_ANSWERED: Final = frozenset("S1 S14 S17 S21 S23 S24 S26 S32 S71 SCF D1 R1 R8".split())
_FRAME: Final = re.compile(rb"\*[A-Za-z]{2},[^,#*]*,([A-Za-z]+[0-9]*),([0-9]{6})(?:,[^#*]*)?#[\r\n]*")
#: Texts that are answered with the configuration.
_CONFIGURATION: Final = (b"RCONF", b"CXZT")

#: What is left out before a look is taken: blanks, control characters, and bytes that are no ASCII.
_NOTHING: Final = re.compile(rb"[^!-~]+")
#: As above, but for what ends a line or a frame.
_BLANKS: Final = re.compile(rb"[^!-~\r\n\0]+")
_S20: Final = re.compile(rb"S0*20")
#: 940 and 941 where a text starts, or the command of a frame.
_SMS: Final = re.compile(rb"(?:\A|[\r\n\0#;*]|\*[^,#*]{0,32},[^,#*]{0,32},)94[01]")
#: The same with a password, as any word.
_SMS_WORD: Final = re.compile(rb"(?<![!-~])94[01][0-9A-Z]{3,}")


def raw(args: Mapping[str, Any]) -> Downlink:
    """
    Bytes as they are, with what their answer looks like.

    @raise UnsupportedCommand: where they may switch the engine.
    """
    try:
        data = bytes.fromhex(args["hex"]) if "hex" in args else args["text"].encode("ascii")
    except ValueError as error:
        raise UnsupportedCommand(f"no bytes: {error}") from error
    if switches(data):
        raise UnsupportedCommand("this may switch the engine: use engine.stop / engine.resume")
    frame = _FRAME.fullmatch(data)
    if frame is not None:
        name = frame[1].decode().upper()
        token = "" if name == "R1" else frame[2].decode()
        return Downlink(data, name, token, answered=name in _ANSWERED)
    if data.strip().upper() in _CONFIGURATION:
        return Downlink(data, "RCONF")
    return Downlink(data, "raw", answered=False)


def switches(data: bytes) -> bool:
    """Whether bytes hold S20, or the SMS 940 or 941, in any spelling."""
    # some modems drop the eighth bit
    for said in (data.upper(), bytes(byte & 0x7F for byte in data).upper()):
        if _S20.search(_NOTHING.sub(b"", said)) or _SMS.search(_BLANKS.sub(b"", said)) or _SMS_WORD.search(said):
            return True
    return False
