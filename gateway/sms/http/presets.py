"""Providers as data: what C{presets.toml}, or a file of an operator's own in its form, says of one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, get_type_hints

from gateway.errors import ConfigError
from gateway.sms.http.templates import NAMES, VALIDITY, marks
from gateway.sms.interfaces import State

AUTHS: Final = ("token", "basic", "twilio", "hmac")
_METHODS: Final = ("GET", "POST", "PUT")


@dataclass(frozen=True, slots=True)
class Out:
    """C{[out]}: see C{presets.toml}."""

    method: str = "POST"
    url: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    form: dict[str, Any] = field(default_factory=dict)
    json: dict[str, Any] = field(default_factory=dict)
    accepted: list[Any] = field(default_factory=lambda: [200, 201, 202])
    accepted_if: str = ""
    temporary: list[Any] = field(default_factory=list)
    temporary_if: str = ""
    id: str = "ours"
    validity: str = "told"
    validity_most_s: int = 63 * 86_400


@dataclass(frozen=True, slots=True)
class In:
    """C{[in]}."""

    auth: str = ""
    sender: str = "from"
    text: str = "text"
    id: str = ""
    when: dict[str, Any] = field(default_factory=dict)
    answer: str = ""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Receipts:
    """C{[receipts]}."""

    id: str = "id"
    state: str = "state"
    delivered: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    answer: str = ""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200

    def meaning(self, word: str) -> State:
        """What a word for a state means."""
        if word in self.delivered:
            return "delivered"
        return "failed" if word in self.failed else "pending"


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider."""

    name: str
    out: Out
    came: In
    receipts: Receipts


def named(preset: str, where: str) -> Preset:
    """
    A preset.

    @param preset: the name of one, or of a file.
    @param where: of the configuration, for errors.
    @raise ConfigError: when there is none, or it makes no sense.
    """
    text = files("gateway.sms.http").joinpath("presets.toml").read_text()
    tree: Any = tomllib.loads(text)
    if preset.endswith(".toml"):
        try:
            own: Any = tomllib.loads(Path(preset).expanduser().read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(where, f"{preset}: {error}") from error
        return _preset(preset, own, preset)
    if preset not in tree:
        raise ConfigError(where, f"{preset!r} is no provider (there are: {', '.join(tree)}, or a file NAME.toml)")
    return _preset(preset, tree[preset], f"preset {preset}")


def _preset(name: str, tree: Mapping[str, Any], where: str) -> Preset:
    kinds: dict[str, Any] = {"out": Out, "in": In, "receipts": Receipts}
    for part in tree:
        if part not in kinds:
            raise ConfigError(where, f"unknown section [{part}] (there are: {', '.join(kinds)})")
    out, came, receipts = (
        _part(kind, tree.get(part, {}), f"{where}: section [{part}]") for part, kind in kinds.items()
    )
    _checked(out, f"{where}: section [out], key")
    if came.auth and came.auth not in AUTHS:
        raise ConfigError(f"{where}: section [in], key 'auth'", f"{came.auth!r} is none of {', '.join(AUTHS)}")
    return Preset(name, out, came, receipts)


def _part(kind: Any, keys: Any, where: str) -> Any:
    if not isinstance(keys, dict):
        raise ConfigError(where, "is no section")
    hints = get_type_hints(kind)
    for key, value in keys.items():
        if key not in hints:
            raise ConfigError(where, f"unknown key {key!r} (there are: {', '.join(hints)})")
        wanted = getattr(hints[key], "__origin__", hints[key])
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(where, f"key {key!r}: {value!r} is not of type {wanted.__name__}")
    return kind(**keys)


def _checked(out: Out, where: str) -> None:
    bodies = [key for key in ("form", "json") if getattr(out, key)]
    if len(bodies) > 1:
        raise ConfigError(f"{where} 'form'", "stands beside 'json': a request has one body")
    if out.method not in _METHODS:
        raise ConfigError(f"{where} 'method'", f"{out.method!r} is none of {', '.join(_METHODS)}")
    used: set[str] = set()
    for key in ("url", "headers", "query", "form", "json"):
        found = marks(getattr(out, key))
        if unknown := sorted(found - NAMES):
            raise ConfigError(f"{where} {key!r}", f"{{{unknown[0]}}} is nothing that can be filled in: {_known()}")
        used |= found
    if "text" in marks([out.url, out.headers]):
        raise ConfigError(f"{where} 'url' or 'headers'", "a text may hold what these may not: it belongs elsewhere")
    for needed in ("number", "text"):
        if not used & {needed, "digits" if needed == "number" else needed}:
            raise ConfigError(f"{where} 'query', 'form' or 'json'", f"nothing there is {{{needed}}}")
    if out.validity not in ("told", "none"):
        raise ConfigError(f"{where} 'validity'", f"{out.validity!r} is neither told nor none")
    if out.validity == "told" and not used & VALIDITY:
        raise ConfigError(
            f"{where} 'validity'",
            'the provider is not told how long a text is valid; if it can\'t be, say "none", and no relay is switched',
        )
    for key in ("accepted_if", "temporary_if"):
        _pattern(getattr(out, key), f"{where} {key!r}")
    way, _, rest = out.id.partition(":")
    if way == "regex" and _pattern(rest, f"{where} 'id'").groups < 1:
        raise ConfigError(f"{where} 'id'", "has no group: which part of it is the name?")
    if way not in ("ours", "json", "regex"):
        raise ConfigError(f"{where} 'id'", f"{out.id!r} is neither ours, nor json:/..., nor regex:...")


def _known() -> str:
    return f"there are {', '.join(sorted(NAMES))}"


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.MULTILINE)
    except re.error as error:
        raise ConfigError(where, f"{text[:64]!r} is no regular expression: {error}") from error
