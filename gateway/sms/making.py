"""The transport that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.config import Config, parse_listen
from gateway.errors import ConfigError
from gateway.sms.interfaces import IPartStore

#: What the extra C{sms} installs.
_NEEDED = ("phonenumbers", "treq")


def check(config: Config) -> None:
    """
    See at start whether SMS can be had as they are configured.

    @raise ConfigError: when not.
    """
    if not config.sms.transport:
        return
    where = f"{config.where}: section [sms], key 'transport'"
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(where, f"needs {' and '.join(missing)}: pip install 'gps-gateway[sms]'")

    if config.sms.transport == "smpp":
        _smpp(config)


def make(config: Config, reactor: Any, store: IPartStore) -> Any:
    """
    An L{gateway.sms.interfaces.ISMSTransport}.

    @raise ConfigError: when what is configured can't be used.
    """
    if config.sms.transport == "smpp":
        return _smpp(config)(reactor, store)
    raise ConfigError(f"{config.where}: section [sms], key 'transport'", "'http' is not there yet")


def _smpp(config: Config) -> Callable[[Any, IPartStore], Any]:
    """See that C{[sms.smpp]} can be used; what makes its transport."""
    section, where = config.sms.smpp, f"{config.where}: section [sms.smpp], key"
    if not section.address:
        raise ConfigError(f"{where} 'address'", "is empty: where is the SMSC?")
    host, port = parse_listen(section.address, None, f"{where} 'address'")
    password = ""
    if section.password_file:
        try:
            password = Path(section.password_file).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} 'password_file'", f"{section.password_file}: {error}") from error
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
