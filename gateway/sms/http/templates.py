"""
What a provider is asked: a structure whose leaves are filled in.

The structure is read first, and stays as it is: whatever a text holds, it is
a leaf's text, and never a parameter, a field or an end of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

#: What may be filled in.
NAMES: Final = frozenset(
    "number digits text from id validity_s validity_min valid_until user secret basic token public_url".split()
)
#: Those that are numbers, where they stand alone in JSON; and all that tell a provider for how long a text is valid.
NUMBERS: Final = frozenset({"validity_s", "validity_min"})
VALIDITY: Final = NUMBERS | {"valid_until"}
_MARK: Final = re.compile(r"\{([a-z_]+)\}")


def marks(tree: Any) -> set[str]:
    """Everything that is to be filled in."""
    if isinstance(tree, str):
        return set(_MARK.findall(tree))
    if isinstance(tree, Mapping):
        return {name for value in tree.values() for name in marks(value)}
    if isinstance(tree, list):
        return {name for value in tree for name in marks(value)}
    return set()


def filled(tree: Any, values: Mapping[str, str], numbers: bool = False) -> Any:
    """
    The structure with its leaves filled in.

    @param numbers: whether a leaf that is a number and nothing else becomes one.
    """
    if isinstance(tree, str):
        alone = _MARK.fullmatch(tree)
        if numbers and alone and alone[1] in NUMBERS:
            return int(values[alone[1]])
        return _text(tree, values, str)
    if isinstance(tree, Mapping):
        return {name: filled(value, values, numbers) for name, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, values, numbers) for value in tree]
    return tree


def url(text: str, values: Mapping[str, str]) -> str:
    """An address with what is filled in as one piece of its path or parameters each, but for the address of our own."""
    return _text(text, values, lambda value: value if value == values["public_url"] else quote(value, safe=""))


def _text(text: str, values: Mapping[str, str], made: Callable[[str], str]) -> str:
    """In one pass: what is filled in is not looked at again."""
    return _MARK.sub(lambda match: made(values[match[1]]), text)
