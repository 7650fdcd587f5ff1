"""What an SMSC says later of a text: by parameters, or by a text of which the document gives an example only."""

from __future__ import annotations

import re
from typing import Final

from gateway.sms.interfaces import Receipt, State
from gateway.sms.smpp import parts
from gateway.sms.smpp.pdus import KIND, MESSAGE_STATE, RECEIPT, RECEIPTED_ID, Short

#: Words of a receipt's text, Appendix B; some write them whole.
_WORDS: Final[dict[str, State]] = {
    "DELIVRD": "delivered",
    "DELIVERED": "delivered",
    "EXPIRED": "failed",
    "DELETED": "failed",
    "UNDELIV": "failed",
    "UNDELIVERABLE": "failed",
    "REJECTD": "failed",
    "REJECTED": "failed",
    "SKIPPED": "failed",
}
#: C{message_state}, 5.2.28.
_STATES: Final[dict[int, State]] = {2: "delivered", 3: "failed", 4: "failed", 5: "failed", 8: "failed"}

_ID: Final = re.compile(r"\bid\s*[:=]\s*([0-9A-Za-z_.+-]{1,65})", re.IGNORECASE)
_STATE: Final = re.compile(r"\bstat(?:us)?\s*[:=]\s*([A-Za-z]{2,16})", re.IGNORECASE)
_ERROR: Final = re.compile(r"\berr(?:or)?\s*[:=]\s*([0-9A-Za-z]{1,8})", re.IGNORECASE)
#: What a text has that is a receipt although C{esm_class} does not say so.
_SURE: Final = re.compile(r"\b(?:dlvrd|submit date|done date)\s*[:=]", re.IGNORECASE)


def read(short: Short) -> Receipt | None:
    """What a message says of a text that was sent; None: it is no receipt."""
    text = parts.read(short).text
    id, state = _ID.search(text), _STATE.search(text)
    named = short.parameters.get(RECEIPTED_ID, b"").rstrip(b"\0").decode("latin-1")
    sure = short.esm_class & KIND == RECEIPT or named or (id and state and _SURE.search(text))
    if not sure:
        return None
    word = state[1].upper() if state else ""
    said: State = _WORDS.get(word, "pending")
    number = short.parameters.get(MESSAGE_STATE, b"")
    if not word and number:
        said, word = _STATES.get(number[0], "pending"), f"state {number[0]}"
    error = _ERROR.search(text)
    reason = f"{word or 'no state'}{f' ({error[1]})' if error and error[1].strip('0') else ''}"
    return Receipt(named or (id[1] if id else ""), said, reason)


def forms(id: str) -> list[str]:
    """Other forms of a message's name: some SMSCs say it in hex at first, and in decimal later, or the other way."""
    found = [id.lstrip("0") or "0", id.upper(), id.lower()]
    if re.fullmatch("[0-9A-Fa-f]{1,16}", id):
        found.append(str(int(id, 16)))
    if re.fullmatch("[0-9]{1,19}", id):
        found += [f"{int(id):x}", f"{int(id):X}"]
    return [form for form in dict.fromkeys(found) if form != id]
