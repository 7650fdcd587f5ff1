"""The commands C{gateway send}, C{gateway cancel} and C{gateway history}: a command to a device, and its life."""

from __future__ import annotations

import getpass
import json
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn

import click
import hiredis

from gateway.commands import CHANNELS, COMMANDS, FIELDS, REF, TTL_S, Request
from gateway.errors import CommandError, GatewayError, NotReady, Refused
from gateway.following import AWAY, GOOD, Follower, Life, Step
from gateway.places import configured, redis_of
from gateway.terminal import Fails, printable

#: Exit statuses: how it ended, or whether the device obeyed, is not known; Ctrl-C.
UNKNOWN: Final = 3
INTERRUPTED: Final = 130
#: An end that leaves open whether the device obeyed: it says nothing of such a command.
OPEN: Final = "sent"
#: A command that may wait for so long is waited for so much longer: until a report proves it.
PROOF_S: Final = 3660.0

#: What is shown of C{gateway:request:<ref>}, which holds more that is the gateway's own.
STANDING: Final = ("state", "final", "ident", "command", "args", "by", "entry", "expires_ms")

_WHOLE: Final = re.compile(r"-?[0-9]{1,400}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class NotGiven(Fails):
    """Nothing was given to a gateway."""

    exit_code = 2


class Where(NamedTuple):
    """The options of where to find the gateway's Redis, and how to show things."""

    url: str | None
    data_dir: str | None
    path: str | None
    as_json: bool

    def life(self, ref: str) -> Life:
        """The life of the command with this reference."""
        try:
            config = configured(self.path, self.data_dir)
            return Life(redis_of(config, self.url), config.redis.prefix, ref)
        except (GatewayError, Fails) as error:
            raise NotGiven(printable(str(error))) from error

    def show(self, step: Step) -> None:
        """Print a step."""
        self.put(step.object, step.line())

    def put(self, found: Mapping[str, Any], line: str) -> None:
        """Print something, as it is asked for."""
        click.echo(json.dumps(found) if self.as_json else printable(line))


def _where(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of L{Where}."""
    redis = "redis:// or rediss:// URL, or redis+sentinel://.  [default: the configuration's, else the embedded Redis]"
    for option in (
        click.option("--json", "as_json", is_flag=True, help="A JSON object a line."),
        click.option("--config", "path", metavar="FILE", help="Configuration of the gateway."),
        click.option("--data-dir", metavar="DIR", help="Data directory of a gateway on this machine."),
        click.option("--redis", "url", metavar="URL", help=redis),
    ):
        function = option(function)
    return function


def _waiting(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of waiting."""
    seconds = click.FloatRange(0, 1e7, min_open=True)
    function = click.option("--timeout", type=seconds, metavar="S", help="With --wait: for S seconds at most.")(
        function
    )
    return click.option("--wait", is_flag=True, help="Show what happens, until the end.")(function)


def _giving(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of who asks."""
    function = click.option("--by", metavar="WHO", help="Who asks.  [default: user@host]")(function)
    return click.option("--ref", metavar="R", help="Reference of the command.  [default: a new one]")(function)


@click.command()
@click.argument("ident")
@click.argument("command")
@click.argument("pairs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--ttl", metavar="S", help=f"Seconds that it may wait for its device.  [default: {TTL_S:g}]")
@click.option("--guard", "guards", multiple=True, metavar="NAME=VALUE", help="The guard of engine.stop, stricter.")
@click.option("--channel", type=click.Choice(CHANNELS), help="data, sms, or sms where data fails.  [default: data]")
@click.option("--sms-after", metavar="S", help="With auto: seconds until it may be told by SMS.")
@_giving
@_waiting
@_where
def send(
    ident: str,
    command: str,
    pairs: Sequence[str],
    ttl: str | None,
    guards: Sequence[str],
    channel: str | None,
    sms_after: str | None,
    ref: str | None,
    by: str | None,
    wait: bool,
    timeout: float | None,
    **where: Any,
) -> None:
    """
    Give a device a command, by the gateway that it reports to.

    Prints the reference and the entry; with --wait what happens too, a line a step, its time in UTC.  A reference that
    was used before gives nothing: it is told how that command stands.

    \b
    Exit status:
      0  given; with --wait: confirmed or verified
      1  with --wait: it ended otherwise
      2  nothing was given: a mistake, or Redis can't be asked
      3  how it ended, or whether it was given, is not known:
         no gateway takes it, the time is over, or the device
         says nothing of such a command
    """
    fields = {"ident": ident, "command": command}
    parameters = COMMANDS[command].parameters if command in COMMANDS else {}
    if pairs:
        kinds = {name: parameter.kind for name, parameter in parameters.items()}
        fields["args"] = json.dumps(_named(pairs, "argument", kinds))
    if ttl is not None:
        fields["ttl"] = ttl
    if channel is not None:
        fields["channel"] = channel
    if sms_after is not None:
        fields["sms_after"] = sms_after
    if guards:
        fields["guard"] = json.dumps(_named(guards, "guard", {}, float))
    _give(fields, ref, by, wait, timeout, Where(**where))


@click.command()
@click.argument("target", metavar="REF")
@_giving
@_waiting
@_where
def cancel(target: str, ref: str | None, by: str | None, wait: bool, timeout: float | None, **where: Any) -> None:
    """
    Take back the command with this reference, if it is not sent yet.

    That is a command itself, with a reference of its own; exit status as of gateway send.
    """
    _give({"command": "cancel", "args": json.dumps({"ref": target})}, ref, by, wait, timeout, Where(**where))


@click.command()
@click.argument("ref")
@_waiting
@_where
def history(ref: str, wait: bool, timeout: float | None, **options: Any) -> None:
    """
    Show how the command with this reference stands: who asked for what, and each step until now.

    As long as results are kept; of a command whose entry had no reference REF is the entry's id.

    \b
    Exit status:
      0  shown; with --wait: confirmed or verified
      1  with --wait: it ended otherwise
      2  nothing is known of it, or Redis can't be asked
      3  with --wait: the time is over, or the device says nothing
         of such a command
    """
    _together(wait, timeout)
    if not REF.fullmatch(ref):
        raise NotGiven(printable(f"{ref!r} is no reference of a command"))
    where = Where(**options)
    with closing(where.life(ref)) as life:
        try:
            present = life.present()
            steps = list(life.past(present.get("entry", ref)))
        except (GatewayError, hiredis.HiredisError, OSError) as error:
            raise NotGiven(printable(f"Redis can't be asked: {error}")) from error
        if not present and not steps:
            raise NotGiven(f"nothing is known of {ref}: there is none, no gateway has taken it, or it was too long ago")
        where.put(_object(ref, present), _standing(ref, present, steps))
        for step in steps:
            where.put(step.object, step.line(dated=True))
        if wait:
            ended = next((step.state for step in steps if step.final), _ended(present))
            _end(ended or _follow(life, where, timeout, taken=True))


# -- giving


def _give(
    fields: dict[str, str], ref: str | None, by: str | None, wait: bool, timeout: float | None, where: Where
) -> None:
    """Give the entry with these fields, and wait for its end if that is asked for."""
    _together(wait, timeout)
    fields["ref"] = secrets.token_hex(8) if ref is None else ref
    fields["by"] = _me() if by is None else by
    try:
        request = Request.parse("0-0", fields)
    except CommandError as error:
        raise NotGiven(printable(str(error))) from error
    with closing(where.life(request.ref)) as life:
        present, entry = _given(life, fields, request, new=ref is None)
        if present:
            where.put(_object(request.ref, present), _standing(request.ref, present))
        else:
            where.put({"ref": request.ref, "entry": entry}, f"ref {request.ref}, entry {entry}")
        if not wait:
            return
        ended = _ended(present)
        if ended is None:
            stays = f"its entry stays until {_moment(_ms(entry) + request.ttl_s * 1000)}" if entry else ""
            ended = _follow(life, where, timeout or request.ttl_s + PROOF_S, bool(present), stays)
        _end(ended)


def _given(life: Life, fields: Mapping[str, str], request: Request, new: bool) -> tuple[dict[str, str], str]:
    """
    What is known of this reference, or, where nothing is, the id of the entry that is now given.

    Results from now on are news; a reference is looked up where it is not a new one.
    """
    adding = False
    try:
        life.mark()
        present = {} if new else life.present()
        if present:
            _same(present, request)
            return present, ""
        adding = True
        return {}, life.add(fields)
    except (Refused, hiredis.ReplyError) as error:
        raise NotGiven(printable(f"Redis refuses: {error}")) from error
    except AWAY as error:
        if not adding or isinstance(error, NotReady):
            raise NotGiven(printable(f"Redis can't be asked: {error}")) from error
        click.echo(printable(f"Redis went away: {error}; whether it has the command is not known"), err=True)
        click.echo(f"the same again with --ref {request.ref} is one command", err=True)
        raise SystemExit(UNKNOWN) from error


def _together(wait: bool, timeout: float | None) -> None:
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")


def _named(pairs: Sequence[str], what: str, kinds: Mapping[str, type], other: type = str) -> dict[str, Any]:
    """NAME=VALUE as an object: numbers where numbers are wanted.  What is none stays a text, and is refused as such."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise NotGiven(printable(f"{what} {pair!r} is not NAME=VALUE"))
        if name in found:
            raise NotGiven(printable(f"{what} {name!r} is given twice"))
        kind = kinds.get(name, other)
        if kind is int and _WHOLE.fullmatch(text):
            found[name] = int(text)
        elif kind is not str and _NUMBER.fullmatch(text):
            found[name] = float(text)
        else:
            found[name] = text
    return found


def _me() -> str:
    """Who asks, where nothing is said."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "somebody"
    return printable(f"{user}@{socket.gethostname()}")[: FIELDS["by"]]


def _same(present: Mapping[str, str], request: Request) -> None:
    """Hold what a reference was used for against what it is to be used for."""
    was = (present.get("command", request.command.name), present.get("ident", request.ident))
    args = _args(present)
    other = args is not None and args != request.command.args
    if was != (request.command.name, request.ident) or other:
        what = _called(was[0], args if other else None)
        raise NotGiven(printable(f"ref {request.ref} was used before, for {' of '.join(filter(None, (what, was[1])))}"))


# -- showing


def _object(ref: str, present: Mapping[str, str]) -> dict[str, Any]:
    """How a command stands, for machines; of a secret one without its arguments, which wait in Redis with it."""
    shown = {name: present[name] for name in STANDING if name in present}
    if _secret(present.get("command", "")):
        shown.pop("args", None)
    return {"ref": ref, **shown}


def _secret(command: str) -> bool:
    definition = COMMANDS.get(command)
    return definition is None or definition.secret


def _args(present: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a command, of which its request or its first event says; None: they are not to be shown."""
    if _secret(present.get("command", "")):
        return None
    found = present.get("args")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):  # somebody else wrote there
            return None
    return found if isinstance(found, dict) else None


def _called(command: str, args: Mapping[str, Any] | None) -> str:
    """A command as it is given on the command line."""
    return " ".join([command, *(f"{name}={value}" for name, value in (args or {}).items())])


def _standing(ref: str, present: Mapping[str, str], steps: Sequence[Step] = ()) -> str:
    """A command in a line: what, whose, who asked, when, and how it stands."""
    data: Mapping[str, Any] = steps[0].data if steps else {}
    command = present.get("command") or data.get("command") or "a command"
    ident = present.get("ident") or (steps[0].fields.get("ident") if steps else "")
    by, entry = present.get("by") or data.get("by"), present.get("entry") or data.get("request") or ""
    state = present.get("state") or (steps[-1].state if steps else "?")
    final = _ended(present) or any(step.final for step in steps)
    args = _args(present) if present else _args(data)
    words = [f"ref {ref}: {_called(command, args)}", f" of {ident}" if ident else ""]
    words += [f", asked for by {by}" if by else ""]
    words += [f" at {_moment(_ms(entry))}" if _ms(entry) else "", f"; {state}", ", which is final" if final else ""]
    return "".join(words)


def _ended(present: Mapping[str, str]) -> str | None:
    return present.get("state", "?") if present.get("final") == "1" else None


def _ms(entry: str) -> int:
    """The time in a stream id; 0: it is none."""
    return int(entry.partition("-")[0]) if re.fullmatch(r"\d{1,14}-\d+", str(entry)) else 0


def _moment(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _by_hand(ref: str) -> str:
    return f"'gateway history {ref} --wait' follows it, 'gateway cancel {ref}' takes it back while it is not sent"


def _follow(life: Life, where: Where, timeout: float | None, taken: bool, stays: str = "") -> str | None:
    """
    Wait for the end; None: it is not known.

    @param stays: how long the entry stays, which is said when nobody took it.
    """

    def notice(text: str) -> None:
        click.echo(printable(text), err=True)

    follower = Follower(life, where.show, notice, taken)
    try:
        ended = follower.follow(timeout)
    except (Refused, hiredis.ReplyError) as error:
        notice(f"Redis refuses: {error}")
        ended = None
    except KeyboardInterrupt:
        notice(f"the command goes on; {_by_hand(life.ref)}")
        raise SystemExit(INTERRUPTED) from None
    if ended is None:
        notice("; ".join([stays] * bool(stays and not follower.taken) + [_by_hand(life.ref)]))
    return ended


def _end(state: str | None) -> NoReturn:
    """Exit with what an end means."""
    raise SystemExit(UNKNOWN if state in (None, OPEN) else 0 if state in GOOD else 1)
