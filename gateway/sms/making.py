"""The transport that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from gateway.config import Config, parse_listen
from gateway.errors import ConfigError
from gateway.sms.http.templates import marks
from gateway.sms.interfaces import IPartStore

#: What the extra C{sms} installs.
_NEEDED: Final = ("phonenumbers", "treq")
#: Letters that a secret has at least that lets somebody in.
SECRET: Final = 16


def check(config: Config) -> None:
    """
    See at start whether SMS can be had as they are configured.

    @raise ConfigError: when not.
    """
    if not config.sms.transport:
        return
    if missing := not_installed():
        raise ConfigError(f"{config.where}: section [sms], key 'transport'", missing)

    _TRANSPORTS[config.sms.transport](config)


def not_installed() -> str:
    """What is missing of the extra C{sms}, and how to have it; nothing where all is there."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    return f"needs {' and '.join(missing)}: pip install 'gps-gateway[sms]'" if missing else ""


def honours_validity(config: Config) -> bool:
    """Whether texts are not delivered any more once their time is over, as they are configured."""
    if config.sms.transport != "http":
        return True
    from gateway.sms.http.presets import named

    return named(config.sms.http.preset, config.where).out.validity == "told"


def make(config: Config, reactor: Any, store: IPartStore) -> Any:
    """
    An L{gateway.sms.interfaces.ISMSTransport}.

    @raise ConfigError: when what is configured can't be used.
    """
    return _TRANSPORTS[config.sms.transport](config)(reactor, store)


def _smpp(config: Config) -> Callable[[Any, IPartStore], Any]:
    """See that C{[sms.smpp]} can be used; what makes its transport."""
    section, where = config.sms.smpp, f"{config.where}: section [sms.smpp], key"
    if not section.address:
        raise ConfigError(f"{where} 'address'", "is empty: where is the SMSC?")
    host, port = parse_listen(section.address, None, f"{where} 'address'")
    password = _secret(section.password_file, f"{where} 'password_file'")
    for key, text, most in (
        ("system_id", section.system_id, 15),
        ("password_file", password, 64),
        ("system_type", section.system_type, 12),
    ):
        if len(text) > most or not (text.isascii() and text.isprintable()):
            raise ConfigError(f"{where} {key!r}", f"is not up to {most} letters of ASCII")

    def made(reactor: Any, store: IPartStore) -> Any:
        from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
        from twisted.internet.ssl import optionsForClientTLS

        from gateway.sinks.connection import trusted
        from gateway.sms.smpp.transport import SMPPTransport

        endpoint: Any = HostnameEndpoint(reactor, host.encode(), port, timeout=section.answer_within)
        if section.tls:
            endpoint = wrapClientTLS(optionsForClientTLS(host, trusted(section.ca_file)), endpoint)
        return SMPPTransport(reactor, section, password, config.sms.number, endpoint.connect, store)

    return made


def _http(config: Config) -> Callable[[Any, IPartStore], Any]:
    """The same of C{[sms.http]}."""
    from gateway.sms.http.presets import named

    section, where = config.sms.http, f"{config.where}: section [sms.http], key"
    preset = named(section.preset, f"{where} 'preset'")
    address = section.url or preset.out.url
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"{where} 'url'", f"{address[:100]!r} is no address: where are texts sent to?")
    secret = _secret(section.secret_file, f"{where} 'secret_file'")
    in_secret, in_key = _secret(section.in_secret_file, f"{where} 'in_secret_file'"), "in_secret_file"
    if not in_secret and preset.came.auth == "twilio":
        in_secret, in_key = secret, "secret_file"  # one secret signs both ways there
    used = marks([preset.out.url, preset.out.headers, preset.out.query, preset.out.form, preset.out.json])
    for mark, there, key in (
        ("secret", secret, "secret_file"),
        ("basic", secret, "secret_file"),
        ("user", section.user, "user"),
        ("token", in_secret, in_key),
        ("public_url", section.public_url, "public_url"),
    ):
        if mark in used and not there:
            raise ConfigError(f"{where} {key!r}", f"is empty, and provider {preset.name} needs it")
    if section.public_url and not section.public_url.startswith(("http://", "https://")):
        raise ConfigError(f"{where} 'public_url'", f"{section.public_url[:100]!r} is no address")
    if section.listen:
        listening = parse_listen(section.listen, None, f"{where} 'listen'")
        if not preset.came.auth:
            raise ConfigError(
                f"{where} 'preset'", f"{preset.name} has no [in] auth: who brings something has to prove it"
            )
        if len(in_secret) < SECRET:
            raise ConfigError(f"{where} {in_key!r}", f"holds less than {SECRET} letters: anybody could guess that")
        if preset.came.auth == "twilio" and not section.public_url:
            raise ConfigError(f"{where} 'public_url'", "is empty, and it is what the provider signs")

    def made(reactor: Any, store: IPartStore) -> Any:
        from time import time

        from gateway.sms.http.transport import HTTPTransport
        from gateway.transports.sockets import bind_page

        listen = (lambda: bind_page(*listening)) if section.listen else None
        return HTTPTransport(reactor, section, preset, config.sms.number, secret, in_secret, listen, time)

    return made


def _secret(path: str, where: str) -> str:
    """What stands in a file; nothing where there is none."""
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{path}: {error}") from error


_TRANSPORTS: Final = {"smpp": _smpp, "http": _http}
