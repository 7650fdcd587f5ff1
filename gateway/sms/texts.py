"""A text that is to be sent, as it waits in Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class Queued(NamedTuple):
    """
    A text that is to be sent.

    @ivar id: our name for it, 32 hex digits.
    @ivar template: as L{gateway.sms.interfaces.Body} has it; no password stands in it.
    @ivar name: what an answer to it is called.
    @ivar ref: the command that it carries; empty: none.
    @ivar about: what each of its events says.
    """

    id: str
    ident: str
    protocol: str
    number: str
    template: str
    name: str
    validity_s: float
    ref: str
    about: Mapping[str, Any]


def added(text: Queued, per_device: int, per_hour: int) -> list[str | int]:
    """What the script's C{add} is given behind its head."""
    fields = {
        "protocol": text.protocol,
        "number": text.number,
        "template": text.template,
        "name": text.name,
        "ref": text.ref,
        "about": json.dumps(text.about, separators=(",", ":")),
    }
    head = (text.id, text.ident, int(text.validity_s * 1000), per_device, per_hour)
    return [*head, *(part for pair in fields.items() for part in pair)]
