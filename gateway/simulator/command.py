"""The command C{gateway simulate}."""

from __future__ import annotations

import json
import random
import resource
import signal
import socket
import sys
import time
from typing import Any, Final

import click

from gateway.simulator.counts import Counts, Progress, table
from gateway.simulator.jsonl import written
from gateway.simulator.manners import MANNERS
from gateway.simulator.scenarios import SCENARIOS, about

#: Descriptors that are in use besides the devices' connections.
_OTHER_FILES: Final = 64
#: Idents have 10 digits.
_LAST_IDENT: Final = 9_999_999_999
#: How devices may take commands, in C{--help}.
_HOW: Final = "\n".join(
    ["\b", "HOW devices take commands:", *(f"  {name:<13}{how.about}" for name, how in MANNERS.items())]
)


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        width = max(map(len, SCENARIOS))
        for name, script in SCENARIOS.items():
            click.echo(f"{name:<{width}}  {about(script)}")
        context.exit()


@click.command(epilog=_HOW)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the gateway is.")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True)
@click.option("--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@click.option("--devices", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option(
    "--interval",
    type=click.FloatRange(1.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two reports of a device; 1 at least.",
)
@click.option(
    "--count",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Reports of each device; 0: until Ctrl-C.",
)
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="trip", show_default=True, metavar="NAME")
@click.option(
    "--list", is_flag=True, expose_value=False, is_eager=True, callback=_list, help="List the scenarios and exit."
)
@click.option("--seed", type=int, help="The same seed gives the same fleet.  [default: another one each time]")
@click.option(
    "--first",
    type=click.IntRange(0, _LAST_IDENT),
    default=9_900_000_001,
    show_default=True,
    metavar="IDENT",
    help="The first device's ident; the others follow.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="A report without an answer is sent again after so long, on a new connection.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait at the end for what is outstanding.",
)
@click.option("--record", "path", metavar="FILE", help="Write each acknowledged report to FILE, a JSON object a line.")
@click.option(
    "--commands",
    "manner",
    type=click.Choice(list(MANNERS)),
    default="obey",
    show_default=True,
    metavar="HOW",
    help="How the devices take commands: see below.",
)
@click.option(
    "--heard",
    "heard_path",
    metavar="FILE",
    help="Write each command that comes to a device to FILE, a JSON object a line.",
)
@click.option(
    "--move",
    type=click.FloatRange(1.0),
    metavar="SECONDS",
    help="After so long a device leaves its gateway for the next one, and so on.",
)
@click.option(
    "--to",
    "others",
    multiple=True,
    metavar="HOST:PORT",
    help="Another gateway to go to, with --move; may be given several times.  [default: the same again]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
def simulate(
    host: str,
    port: int,
    transport: str,
    devices: int,
    interval: float,
    count: int,
    scenario: str,
    seed: int | None,
    first: int,
    timeout: float,
    patience: float,
    path: str | None,
    manner: str,
    heard_path: str | None,
    move: float | None,
    others: tuple[str, ...],
    as_json: bool,
) -> None:
    """
    A fleet of ST-907 trackers, to try a gateway with.

    They drive on roads of their own, wait for acknowledgements, send again what was not acknowledged, connect
    anew when a connection breaks, and obey commands: S20, which cuts and restores the engine, D1, S17 and S71, which
    set the time between reports, R1, the text RCONF, and more that change nothing.
    Ctrl-C ends it; a second one does not wait for what is outstanding.
    Exit status 1: something was not acknowledged.
    """
    # only this command needs them, and the others are quicker without
    from twisted.internet import reactor

    from gateway.simulator.fleet import Fleet
    from gateway.simulator.options import Options

    if first + devices - 1 > _LAST_IDENT:
        raise click.BadParameter("the idents of so many devices have more than 10 digits", param_hint="--first")
    if others and move is None:
        raise click.BadParameter("without --move no device goes there", param_hint="--to")
    gateways = (_resolved("--host", host, port), *(_resolved("--to", *_split(other)) for other in others))
    _allow_files(devices)
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    options = Options(
        gateways=gateways,
        transport=transport,
        script=SCENARIOS[scenario],
        devices=devices,
        first=first,
        interval=interval,
        count=count,
        seed=seed,
        timeout=timeout,
        patience=patience,
        manner=MANNERS[manner],
        move=move or 0.0,
    )
    counts = Counts()
    click.echo(f"{devices:,} devices, {scenario}, over {transport} to {host} port {port}, seed {seed}", err=True)
    with written(path, "--record") as acknowledged, written(heard_path, "--heard", "alone") as heard:
        fleet = Fleet(reactor, options, counts, acknowledged, heard)
        started = time.monotonic()
        _run(reactor, fleet, Progress(counts, sys.stderr))
        summary = counts.summary(time.monotonic() - started)
    if as_json:
        click.echo(json.dumps(summary | {"scenario": scenario, "transport": transport, "seed": seed}))
    else:
        click.echo(table(summary))
    if summary["lost"]:
        raise SystemExit(1)


def _resolved(option: str, host: str, port: int) -> tuple[str, int]:
    """The address of a host, with the port."""
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
    except OSError as error:
        raise click.BadParameter(f"{host!r}: {error.strerror or error}", param_hint=option) from error


def _split(gateway: str) -> tuple[str, int]:
    """Host and port; an IPv6 address may stand in brackets."""
    host, _, port = gateway.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise click.BadParameter(f"{gateway!r} is not HOST:PORT", param_hint="--to")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _allow_files(devices: int) -> None:
    """Have a descriptor for each device."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and devices + _OTHER_FILES > hard:
        raise click.ClickException(
            f"{devices} devices need {devices + _OTHER_FILES} open files, and this process may have {hard} (ulimit -Hn)"
        )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run(reactor: Any, fleet: Any, progress: Progress) -> None:
    """Run the fleet to its end; an error of it is raised."""
    from twisted.internet.defer import maybeDeferred
    from twisted.internet.task import LoopingCall
    from twisted.python.failure import Failure

    failures: list[Failure] = []

    def begin() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # the reactor's own would end it at once
            signal.signal(number, lambda *_: reactor.callFromThread(fleet.stop))
        finished = maybeDeferred(fleet.start)
        finished.addErrback(failures.append)
        finished.addCallback(lambda _: reactor.stop())
        each_second.start(1.0, now=False)

    each_second = LoopingCall(progress.second)
    reactor.callWhenRunning(begin)
    reactor.run()
    progress.end()
    if failures:
        failures[0].raiseException()
