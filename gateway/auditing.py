"""The command C{gateway audit}: whether what was received is accounted for, frame by frame."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from gateway.config import Config
from gateway.errors import JournalDamaged, JournalFull, JournalNewer
from gateway.ledger import EXTRA, OUTCOMES, Beat, Held, Ledger
from gateway.places import CannotAsk, beats, keys, located, opened
from gateway.sinks.blocking import Address, BlockingRedis
from gateway.sinks.journalreader import JournalReader
from gateway.sinks.journalrows import DAMAGED, PATTERN
from gateway.terminal import printable

#: What moves is asked so often again, once each running instance has written its next beat; that comes every 5 s.
AGAIN: Final = 3
BEAT_S: Final = 7.5
POLL_S: Final = 0.25


class Account(NamedTuple):
    """
    All that is compared.

    @ivar ledgers: by producer.
    @ivar beats: of the running instances.
    @ivar journals: those of the data directory.
    @ivar unreadable: why others could not be read.
    """

    ledgers: dict[str, Ledger]
    beats: dict[str, Beat]
    journals: list[Held]
    unreadable: list[str]

    def wrong(self) -> Iterator[str]:
        """What is wrong whenever it is looked at: each ledger was read at one moment."""
        for ledger in self.ledgers.values():
            yield from ledger.wrong()
        yield from self.unreadable

    def moving(self) -> Iterator[str]:
        """What does not fit together; it may be on its way."""
        host = socket.gethostname()
        for beat in self.beats.values():
            yield from beat.wrong()
            for held in self.journals:
                if beat.host == host and beat.journal_path == str(held.path):
                    yield from held.against(beat)


@click.command()
@located
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def audit(url: str | None, data_dir: str | None, path: str | None, as_json: bool) -> None:
    """
    Hold what was received against what became of it: ledgers, journal, and what running gateways count.

    Nothing is changed.  What moves is asked again before it is called a difference; that takes up to 15 s.
    Exit status 1: there is a difference, named; 2: Redis can't be asked.
    """
    with opened(url, data_dir, path) as (config, address, client):
        if data_dir is not None and not config.data_dir.is_dir():
            raise CannotAsk(f"data directory {data_dir!r}: there is no such directory")
        account, differences = _settled(client, config)
    if as_json:
        click.echo(json.dumps(_object(address, account, differences)))
    else:
        for line in _text(account, differences):
            click.echo(printable(line))
    if differences:
        raise SystemExit(1)


def _settled(client: BlockingRedis, config: Config) -> tuple[Account, list[str]]:
    """What there is, and the differences in it that don't go away."""
    account = _read(client, config)
    for _ in range(AGAIN):
        if not any(account.moving()) or any(account.wrong()):
            break
        _next_beats(client, config.redis.prefix, account.beats)
        account = _read(client, config)
    return account, [*account.wrong(), *account.moving()]


def _next_beats(client: BlockingRedis, prefix: str, before: Mapping[str, Beat]) -> None:
    """Wait until each of these instances has written anew, or is gone."""
    end = time.monotonic() + BEAT_S
    while time.monotonic() < end:
        now = beats(client, prefix)
        if all(name not in now or now[name].text != beat.text for name, beat in before.items()):
            return
        time.sleep(POLL_S)


def _read(client: BlockingRedis, config: Config) -> Account:
    prefix = config.redis.prefix
    running = beats(client, prefix)
    ledgers = {}
    for name, key in keys(client, f"{prefix}:ledger:"):
        row = client.command("HGETALL", key)
        ledgers[name] = Ledger.read(name, row[::2], row[1::2])
    journals, unreadable = [], []
    for file in sorted(config.data_dir.resolve().glob(PATTERN)):
        try:
            reader = JournalReader(file)
            try:
                journals.append(Held(file, reader.counts(), reader.sent()))
            finally:
                reader.close()
        except (JournalFull, JournalDamaged, JournalNewer) as error:
            unreadable.append(f"the journal can't be read: {error}")
    for file in sorted(config.data_dir.resolve().glob(DAMAGED)):
        unreadable.append(f"{file} was damaged: what could not be read of it is lost; delete it when that is settled")
    return Account(ledgers, running, journals, unreadable)


# -- showing


def _object(address: Address, account: Account, differences: Sequence[str]) -> dict[str, Any]:
    """For machines."""
    return {
        "redis": str(address),
        "balanced": not differences,
        "differences": list(differences),
        "ledgers": {name: ledger.counts for name, ledger in account.ledgers.items()},
        "sum": _sum(account.ledgers).counts,
        "instances": {name: beat.content for name, beat in account.beats.items()},
        "journals": [held.as_json() for held in account.journals],
    }


def _sum(ledgers: Mapping[str, Ledger]) -> Ledger:
    total: dict[str, int] = {}
    for ledger in ledgers.values():
        for name, count in ledger.counts.items():
            total[name] = total.get(name, 0) + count
    return Ledger("sum", total, ())


def _text(account: Account, differences: Sequence[str]) -> Iterator[str]:
    """For people, line by line."""
    yield from _table([*account.ledgers.values(), _sum(account.ledgers)])
    for beat in account.beats.values():
        yield from beat.lines()
    if not account.beats:
        yield "no gateway is running, as far as Redis knows"
    for held in account.journals:
        yield from held.lines()
    yield from (f"DIFFERENCE: {difference}" for difference in differences)
    if not differences:
        yield "everything balances"


def _table(ledgers: Sequence[Ledger]) -> Iterator[str]:
    """A line a ledger; outcomes that nobody has are left out."""
    shown = ["received", *(name for name in (*OUTCOMES, *EXTRA) if any(ledger.counts.get(name) for ledger in ledgers))]
    width = max(len("producer"), *(len(ledger.producer) for ledger in ledgers))
    yield f"{'producer':<{width}}  " + "  ".join(f"{name:>12}" for name in shown)
    for ledger in ledgers:
        yield f"{ledger.producer:<{width}}  " + "  ".join(f"{ledger.counts.get(name, 0):>12,}" for name in shown)
