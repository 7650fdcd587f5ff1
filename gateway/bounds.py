"""C{[limits]} of the configuration, for those who keep them."""

from __future__ import annotations

import resource
from typing import Final

from gateway.config import Config
from gateway.connection import Limits
from gateway.publisher import Bounds
from gateway.transports.tcp import TCPLimits

#: Descriptors beside those of connections: listeners, Redis, logs.
SPARE_DESCRIPTORS: Final = 64


def bounds_of(config: Config, announce: list[str]) -> tuple[Bounds, Limits, TCPLimits]:
    """For the publisher, for what decodes, and for the transports; what is said of them is added to C{announce}."""
    limits = config.limits
    bounds = Bounds(
        limits.pending,
        limits.pending_bytes,
        limits.new_idents,
        limits.new_idents_per_address,
        config.redis.deadline + 5.0,
    )
    tcp = limits.of(TCPLimits)
    return bounds, limits.of(Limits), tcp._replace(connections=_descriptors(tcp.connections, announce))


def _descriptors(wanted: int, announce: list[str]) -> int:
    """Raise the soft limit of open files to the hard one; how many connections that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY or wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted + SPARE_DESCRIPTORS <= hard:
        return wanted
    allowed = max(hard - SPARE_DESCRIPTORS, 1)
    announce.append(
        f"the limit of open files is {hard}: connections lowered from {wanted} to {allowed} "
        f"(cure: ulimit -Hn {wanted + SPARE_DESCRIPTORS}, or LimitNOFILE= in the systemd unit)"
    )
    return allowed
