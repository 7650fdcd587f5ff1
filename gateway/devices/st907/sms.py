"""
The texts that set an ST-907 up by SMS, in the order in which they are sent.

Numbers and forms: docs/st907.rst, which has their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.interfaces import SetUpText

#: What a unit has from the factory.
PASSWORD: Final = "0000"


def set_up(host: str, port: int, apn: str, password: str) -> Sequence[SetUpText]:
    """See L{gateway.interfaces.ISetUpDevice.set_up}."""
    password = password or PASSWORD
    return (
        SetUpText("RCONF", "it answers with model, ident, server, intervals and APN: keep that", "certain"),
        SetUpText(f"803{password} {apn}", "the APN of the SIM, with user name and password behind it", "certain"),
        SetUpText(f"804{password} {host} {port}", "where it reports to; an address is safer than a name", "certain"),
        SetUpText(f"710{password}", "report over GPRS, not by SMS", "likely"),
        SetUpText(f"805{password} 20", "seconds between reports with the ignition on", "certain"),
        SetUpText(f"809{password} 300", "seconds between reports with the ignition off", "certain"),
        SetUpText("RCONF", "check what it says now", "certain"),
    )
