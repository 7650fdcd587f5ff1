"""C{[sms.smpp]} of the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SMPPSection:
    """C{[sms.smpp]}: the SMSC that texts go through."""

    #: HOST:PORT of the SMSC
    address: str = ""
    #: whether TLS is spoken there; its certificate and name are verified, by those whom the system trusts or by ca_file
    tls: bool = False
    ca_file: str = ""
    #: who binds, and the file with the password
    system_id: str = ""
    password_file: str = ""
    system_type: str = ""
    #: texts that may be unanswered at once, and those that are sent a second at most
    window: int = 10
    per_second: float = 10.0
    #: seconds of silence after which the link is asked whether it is alive, and seconds that an answer may take
    enquire_after: float = 30.0
    answer_within: float = 10.0
