"""C{[sms.http]} of the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HTTPSection:
    """C{[sms.http]}: the provider that texts go through."""

    #: which provider it is: a table of gateway/sms/http/presets.toml, or the file of another one in that form
    preset: str = "plain"
    #: where texts are sent to; empty: where the preset says
    url: str = ""
    #: who we are to the provider, and the file with what proves it
    user: str = ""
    secret_file: str = ""
    #: HOST:PORT or [V6]:PORT where it brings texts and receipts; empty: none come in
    listen: str = ""
    #: the file with what proves who brings something: the token, the password of basic, the key of signatures; empty:
    #: secret_file with Twilio, which has one for both ways
    in_secret_file: str = ""
    #: how the provider reaches that address: http or https, with a host, and a path if a proxy puts one before it
    public_url: str = ""
    #: texts that may be unanswered at once, and seconds that an answer may take
    window: int = 10
    answer_within: float = 10.0
