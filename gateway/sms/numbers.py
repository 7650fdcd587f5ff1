"""Phone numbers: to one form, whoever wrote them, and never shown whole."""

from __future__ import annotations

import re
from typing import Final

#: What is a number, and no word: digits, and what people write between them.
_NUMBER: Final = re.compile(r"\+?[0-9 ()/.-]{3,32}")
#: So many digits at the end have to be the same, where a number was written without its country's.
LEAST_DIGITS: Final = 8


def e164(text: str, region: str = "") -> str | None:
    """
    A number in the form of E.164, with its plus sign; None where it can't be told which one it is.

    @param region: two letters of ISO 3166: whose numbers those are that are written without their country's.
    """
    import phonenumbers  # it comes with the extra sms

    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    if text.startswith("00") and not region:
        text = f"+{text[2:]}"
    try:
        number = phonenumbers.parse(text, region or None)
    except phonenumbers.NumberParseException:
        # some providers leave the plus sign out
        digits = re.sub("[^0-9]", "", text)
        try:
            number = phonenumbers.parse(f"+{digits}", None)
        except phonenumbers.NumberParseException:
            return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def readings(text: str, region: str = "") -> tuple[str, ...]:
    """
    Every number that a sender may mean, the likelier first: networks leave out the plus sign, or the country.
    """
    found: list[str] = []
    digits = re.sub("[^0-9]", "", text)
    if not _NUMBER.fullmatch(text.strip()):
        return ()
    for form in (text, f"+{digits}"):
        number = e164(form, region)
        if number is not None and number not in found:
            found.append(number)
    return tuple(found)


def masked(text: str) -> str:
    """A number, or a word, of which so much is shown that whoever knows it recognises it."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:32])
    return f"{text[:3]}****{text[-2:]}" if len(text) > 5 else "****"
