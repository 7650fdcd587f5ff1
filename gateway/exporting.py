"""The command C{gateway metrics}: what running gateways count, in Prometheus' text format."""

from __future__ import annotations

import click

from gateway.metrics import text
from gateway.places import beats, located, opened


@click.command()
@located
def metrics(url: str | None, data_dir: str | None, path: str | None) -> None:
    """
    Print the metrics of all gateways that run on a Redis, for Prometheus.

    Each writes what it counts every 5 s; one that is gone is shown for 15 s at most.
    Exit status 2: Redis can't be asked.
    """
    with opened(url, data_dir, path) as (config, _, client):
        found = beats(client, config.redis.prefix)
    click.echo(text(found.values()), nl=False)
