"""The transport that the configuration names."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from gateway.config import Config
from gateway.errors import ConfigError

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


def make(config: Config, reactor: Any) -> Any:
    """An L{gateway.sms.interfaces.ISMSTransport}; None: none is configured."""
    return None
