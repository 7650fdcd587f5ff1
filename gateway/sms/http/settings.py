"""C{[sms.http]} of the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HTTPSection:
    """C{[sms.http]}: the provider that texts go through."""

    #: which provider it is: a table of gateway/sms/http/presets.toml
    preset: str = "plain"
    #: where texts are sent to
    url: str = ""
