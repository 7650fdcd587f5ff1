"""
The tables of contract.rst and the schema beside it, written from gateway.events, and those of other pages.

C{python docs/tables.py} writes them anew.  tests/test_contract.py, tests/test_docs_commands.py,
tests/test_docs_st907.py and tests/test_metrics.py hold them equal to what is written here, so that pages
and code can't differ.  What the code has no words for, the meaning of a type
say, stands here; a type without a meaning stops the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway import events
from gateway.commands import COMMANDS, GUARD, MAX_TTL_S, Command, Definition, Guard, Parameter
from gateway.config import CommandsSection, StreamsSection
from gateway.devices.st907 import device, reports, status
from gateway.devices.st907.downlink import BINARY, Reply
from gateway.devices.st907.settings import REPLIES, Options
from gateway.interfaces import Downlink, Kept
from gateway.metrics import METRICS

HERE: Final = Path(__file__).resolve().parent
CONTRACT: Final = HERE / "contract.rst"
ST907: Final = HERE / "st907.rst"
COMMANDS_PAGE: Final = HERE / "commands.rst"
METRICS_PAGE: Final = HERE / "metrics.rst"
SCHEMA: Final = HERE / "contract.schema.json"

ENVELOPE: Final[Mapping[str, str]] = {
    "v": f"version of the contract: ``{events.CONTRACT_VERSION}``",
    "id": "32 hex digits, deterministic: the same id is the same event",
    "type": "what happened: one of the types below",
    "source": "``gateway/<instance>``: which gateway wrote it",
    "time": "when it happened",
    "received": "when the gateway had it",
    "ident": f"who says it: ``{events.IDENT.pattern}``; empty only where nobody is known",
    "protocol": "the device plugin that read it, ``st907`` say; empty where none did",
}

#: Columns that are no attribute of an event: what the gateway adds.
ADDED: Final[Mapping[str, str]] = {
    "device_id": "the application's own key of the device, from ``gateway:registry:<ident>``",
}

STREAMS: Final[Mapping[str, str]] = {
    "position": "reports",
    "event": "alarms and changes of state: no flood of reports or of strangers can push these out",
    "link": "sessions that begin and end",
    "result": "results of commands, and SMS",
    "raw": "frames as they came and went",
    "dead": "what could not be read or was not taken, with the reason",
}

#: Type -> who publishes it, and what it means.
TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "position": ("device", "a report with a position block, also when its fix is invalid"),
    "status": ("device", "a report without one: a heartbeat, an answer, a repeated frame"),
    "alarm.overspeed": ("device", "faster than its limit"),
    "alarm.geofence.enter": ("device", "into an area"),
    "alarm.geofence.exit": ("device", "out of an area"),
    "alarm.sos": ("device", "somebody calls for help"),
    "alarm.vibration": ("device", "shock or vibration"),
    "alarm.theft": ("device", "the device takes it for theft"),
    "alarm.power.cut": ("device", "the supply is gone"),
    "alarm.battery.low": ("device", "the battery is low"),
    "alarm.door": ("device", "a door is open"),
    "alarm.tamper": ("device", "somebody is at the device or its antenna"),
    "alarm.tow": ("device", "moved with the ignition off"),
    "alarm.ignition.illegal": ("device", "ignition while armed"),
    "alarm.harsh.acceleration": ("device", "harsh acceleration"),
    "alarm.harsh.braking": ("device", "harsh braking"),
    "alarm.harsh.cornering": ("device", "harsh cornering"),
    "alarm.crash": ("device", "a crash"),
    "alarm.jamming": ("device", "somebody jams the radio"),
    "alarm.fatigue": ("device", "driven for too long"),
    "alarm.temperature": ("device", "too hot or too cold"),
    "alarm.fuel": ("device", "fuel theft or a leak"),
    "alarm.gnss": ("device", "the receiver or its antenna is broken"),
    "alarm.other": ("device", "anything else: ``data.name`` is ``<plugin>.<word>``"),
    "state.ignition": ("device", "``data.ignition``: on or off"),
    "state.immobilizer": ("device", "``data.immobilizer``: true is relay cut"),
    "state.armed": ("device", "``data.armed``: armed or not"),
    "device.identity.conflict": (
        "gateway",
        "two senders use one ident: ``data.peers``, who was there first before the other, and the ``evidence``",
    ),
    "device.sim.changed": ("gateway", "another SIM card: ``data.iccid``, before it ``data.iccid_before``"),
    "device.quality": (
        "gateway",
        "found out of the unit, told once: ``data.name``, ``evidence``, and the ``setting`` that settles it",
    ),
    "device.silent": ("later", "it should have reported"),
    "device.back": ("later", "a silent device reports again"),
    "device.connected": ("gateway", "a session begins: the first frame after 15 minutes or more without one"),
    "device.disconnected": (
        "gateway",
        "a session ends: 15 minutes without a frame; a socket may come and go in between",
    ),
    "command.queued": (
        "gateway",
        "taken; it waits. Again when it waits for something else",
    ),
    "command.sending": ("gateway", "about to be written to the device: stored before a byte is"),
    "command.sent": (
        "gateway",
        "written; final where neither an answer nor a report can follow",
    ),
    "command.confirmed": (
        "gateway",
        "the device says that it did it; final where no report proves it",
    ),
    "command.verified": ("gateway", "a later report shows it"),
    "command.mismatch": (
        "gateway",
        "answer or reports show something else; final, or told in another form",
    ),
    "command.failed": ("gateway", "it can't be done, or nothing was heard of it in time"),
    "command.expired": ("gateway", "its ttl ended before its device could be told"),
    "command.superseded": ("gateway", "its opposite was asked for: ``data.superseded_by``"),
    "command.cancelled": ("gateway", "taken back before its device was told"),
    "command.refused": ("gateway", "not sent: its guard was never met, it is not enabled, or there are too many"),
    "sms.received": (
        "gateway",
        "a text of a device, as it came: ``data.raw_text``, and what it is taken for: ``data.kind``",
    ),
    "sms.sent": ("gateway", "the provider has a text to a device"),
    "sms.delivered": ("gateway", "its receipt says that it has arrived"),
    "sms.failed": ("gateway", "a text was not sent, or not delivered; with ``data.uncertain`` nobody knows"),
    "frame.raw.up": ("gateway", "a frame of a device that is traced, and what became of it"),
    "frame.raw.down": ("gateway", "what a device that is traced was sent: a reply, or a command"),
    "frame.undecodable": ("gateway", "a frame of a known device that can't be read"),
    "frame.unauthorised": ("gateway", "a frame of a device that is not let in"),
    "frame.unrecognised": ("gateway", "a connection or datagram that is no device's"),
    "frame.refused": ("gateway", "a frame whose event Redis refused for good"),
    "device.unknown": ("gateway", "a device that is not in the registry and is not let in: once an hour"),
    "device.rejected": (
        "gateway",
        "a device that the registry disables, once an hour; or what met a limit, once a minute",
    ),
}

#: A head, and rows.
Table = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


def envelope() -> Table:
    """The fields that every entry starts with."""
    return ("field", "value"), [(_code(name), ENVELOPE[name]) for name in events.ENVELOPE]


def columns() -> Table:
    """The fields that an entry of the position stream goes on with."""
    forms = {"boolean": "``1``, ``0`` or empty", "array": "comma list or empty", "number": "number or empty"}
    rows = []
    for name in events.COLUMNS:
        kind, meaning = events.ATTRIBUTES.get(name, ("string", ADDED.get(name, "")))
        rows.append((_code(name), forms.get(kind, "text or empty"), _text(meaning)))
    return ("column", "form", "meaning"), rows


def streams() -> Table:
    """The streams, and how long each is kept."""
    kept = StreamsSection()
    rows = []
    for name in events.STREAMS:
        hours, entries = getattr(kept, f"{name}_hours"), getattr(kept, f"{name}_entries")
        rule = [f"{hours:g} hours"] if hours else []
        rule += [f"{entries:,} entries"] if entries else []
        rows.append((_code(f"gateway:{name}"), STREAMS[name], " or ".join(rule)))
    return ("key", "content", "kept, by default"), rows


def types() -> Table:
    """Every event type with its stream and meaning."""
    rows = [
        (_code(kind), _code(f"gateway:{stream}"), *TYPES[kind])
        for stream, kinds in events.STREAMS.items()
        for kind in kinds
    ]
    return ("type", "stream", "from", "meaning"), rows


def attributes() -> Table:
    """The vocabulary of data."""
    rows = [(_code(name), kind, _text(meaning)) for name, (kind, meaning) in events.ATTRIBUTES.items()]
    return ("name", "JSON", "meaning"), rows


def commands() -> Table:
    """Every command with its arguments, and what it has to keep to."""
    rows = []
    for name, definition in COMMANDS.items():
        arguments = "; ".join(_argument(key, parameter) for key, parameter in definition.parameters.items())
        rows.append((_code(name), definition.meaning, arguments, "; ".join(_rules(definition))))
    return ("command", "what it does", "arguments", "rules"), rows


def _argument(name: str, parameter: Parameter) -> str:
    form = {int: "whole number", float: "number", str: "text"}[parameter.kind]
    if parameter.choices:
        form = " or ".join(_code(choice) for choice in parameter.choices)
    elif parameter.kind is str:
        form += f" of {parameter.least:g} to {parameter.most:g} characters"
    else:
        form += f", {parameter.least:g} to {parameter.most:g}"
    return f"{_code(name)}{'' if parameter.required else ' (may be left out)'}: {_text(parameter.meaning)} ({form})"


def _rules(definition: Definition) -> Sequence[str]:
    """What is special about a command."""
    found = []
    if definition.needs_ttl:
        found.append(f"needs a ``ttl``, {definition.max_ttl_s:g} s at most")
    elif definition.max_ttl_s != MAX_TTL_S:
        found.append(f"``ttl`` {definition.max_ttl_s:g} s at most")
    if definition.guarded:
        found.append("guarded")
    if definition.opposite:
        found.append(f"opposite: {_code(definition.opposite)}")
    if definition.level is not None:
        found.append(f"proved by {_code(definition.level[0])} {_code(str(int(definition.level[1])))}")
    if not definition.again:
        found.append("never sent twice")
    if definition.secret:
        found.append("its arguments are in no event")
    return found


#: Field of a guard -> what it means, and the option that it stands over.
GUARDS: Final[Mapping[str, tuple[str, str]]] = {
    "max_speed_kmh": ("kilometres per hour that none of the reports may exceed", "guard_speed"),
    "min_apart_s": ("seconds that two of them are apart at least", "guard_apart"),
    "max_age_s": ("seconds since the newest of them at most", "guard_age"),
}


def guard() -> Table:
    """What a guard may say."""
    rows = []
    for name, (meaning, option) in GUARDS.items():
        default, kept = getattr(Guard(), name), getattr(CommandsSection(), option)
        assert default == kept, name
        rows.append((_code(name), meaning, f"{default:g}", _code(option), "more" if GUARD[name] else "less"))
    return ("field", "meaning", "by default", "option", "stricter is"), rows


#: The messages of an ST-907 that are answered alike, by the types that stand for each.
ANSWERED: Final[Mapping[str, Sequence[str]]] = {
    "``V1``": ("V1",),
    "``NBR``": ("NBR",),
    "``V2`` ``V5`` ``V6`` ``V8`` ``V19`` ``VI1``": ("V2", "V5", "V6", "V8", "V19", "VI1"),
    "``$`` ``X``": (BINARY,),
    "``HTBT`` ``V0``": ("HTBT", "V0"),
}
#: An answer in a packet of its own: IPv4 and TCP without options.
HEADERS: Final = 40
#: A month, and the intervals that costs are reckoned for.
MONTH_S: Final = 30 * 86_400
INTERVALS_S: Final = (10, 20, 300)
#: 2026-11-22T17:49:27Z, and a report of that time.
MOMENT: Final = 1_795_369_767.0
#: An example of each command that takes arguments; C{raw} is what it is.
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "interval.set": {"seconds": 60},
    "overspeed.set": {"speed_kmh": 120.0},
    "geofence.set": {
        "min_latitude": 52.5,
        "max_latitude": 52.55,
        "min_longitude": 13.375,
        "max_longitude": 13.5,
        "alarm": "leave",
        "number": 17,
    },
    "geofence.clear": {"number": 17},
    "server.set": {"host": "203.0.113.7", "port": 8888},
    "apn.set": {"apn": "internet"},
    "password.set": {"old": "0000", "new": "1234"},
}
REPORT: Final = b"*HQ,9170123456,V1,174927,A,5231.2000,N,01324.3000,E,022.14,085,221126,FFFFFFFF,262,01,00341,8121#"


def bits() -> Table:
    """The status word of an ST-907, bit by bit, with what a report says in which only that one is 0."""
    rows = [
        (str(number), f"``{1 << number:08X}``", bit.meaning, bit.sure, becomes(number))
        for number, bit in enumerate(status.BITS)
    ]
    return ("bit", "mask", "while it is 0", "how sure", "what it becomes"), rows[::-1]


def becomes(number: int) -> str:
    """What a bit of the status word leads to when it is 0, held against a word without any."""
    plain: dict[str, Any] = {}
    said: dict[str, Any] = {}
    before = reports.worded(plain, status.ALL, True, status.DEFAULT)
    after = reports.worded(said, status.ALL ^ 1 << number, True, status.DEFAULT)
    found = []
    for level, on in after.items():
        kind, _, which = level.partition(":")
        if on == before[level]:
            continue
        if kind in events.STATES:
            found.append(f"``state.{kind}``" + (f", ``{kind}`` ``{on:d}``" if kind in events.COLUMNS else ""))
        else:
            found.append(f"``alarm.{kind}``" + (f" with ``name`` ``st907.{which}``" if which else ""))
    for name in sorted(said.keys() - {"status_word"}):
        if name == "io":
            found += [f"``io.{key}``" for key in said["io"]]
        elif said[name] != plain.get(name):
            found.append(f"``{name}`` ``{said[name] if isinstance(said[name], str) else int(said[name])}``")
    return ", ".join(found) or "nothing"


def answer(policy: str, kind: str) -> bytes:
    """What an ST-907 is answered on a type of message."""
    options, kept = Options(reply=policy), Kept()
    return Reply("HQ", "9170123456", kind, options, lambda ident: kept).give(MOMENT)


def answers() -> Table:
    """Policy by message: which acknowledgement goes out."""
    rows = []
    for shown, kinds in ANSWERED.items():
        cells = []
        for policy in REPLIES:
            found = {_forms(answer(policy, kind)) for kind in kinds}
            assert len(found) == 1, (shown, policy, found)
            cells.append(found.pop())
        rows.append((shown, *cells))
    return ("message", *(f"``{policy}``" for policy in REPLIES)), [*rows, ("all others", *["nothing"] * len(REPLIES))]


def _forms(data: bytes) -> str:
    """An answer by its forms: V4, R12, or the same again."""
    words = [frame.split(",")[2] for frame in data.decode().split("#") if frame]
    return " and ".join(_code(word) if word in ("V4", "R12") else "the same again" for word in words) or "nothing"


def costs() -> Table:
    """Megabytes a month of a report and of its answers, by interval."""
    rows = []
    sizes = [("the report itself", len(REPORT))]
    sizes += [(f"answers, ``{policy}``", len(answer(policy, "V1"))) for policy in REPLIES if answer(policy, "V1")]
    for shown, size in sizes:
        month = [f"{(size + HEADERS) * MONTH_S / interval / 1e6:.1f}" for interval in INTERVALS_S]
        rows.append((shown, f"{size} + {HEADERS}", *month))
    return ("what", "bytes each", *(f"every {interval} s" for interval in INTERVALS_S)), rows


def downlinks() -> Table:
    """The commands that an ST-907 knows, with what goes out, what comes back, how sure that is, and its notes."""
    rows = []
    for name, support in device.commands.items():
        args = EXAMPLES.get(name, {})
        shown = _code(name) + (f" {', '.join(f'{key} {value}' for key, value in args.items())}" if args else "")
        bytes_shown, answered = "no", ""
        if name == "raw":
            bytes_shown, answered = "as they are", "unknown"
        elif "data" in support.channels:
            forms = [device.encode("9170123456", Command(name, args), None, Kept(), MOMENT, 0)]
            while forms[-1].more:
                forms.append(device.encode("9170123456", Command(name, args), None, Kept(), MOMENT, len(forms)))
            bytes_shown = ", then ".join(_code(form.data.decode()) for form in forms)
            answered = ", then ".join(_answered(form) for form in forms)
        rows.append((shown, bytes_shown, answered, ", ".join(support.channels), support.certainty, _text(support.note)))
    return ("command", "bytes over data", "what its answer repeats", "channels", "how sure", "to know"), rows


#: What answers a command whose answer is not C{V4}.
UNLIKE_V4: Final[Mapping[str, str]] = {"RCONF": "``SMS`` with the configuration", "R1": "``V6``"}


def _answered(told: Downlink) -> str:
    """What the answer to a command repeats of it."""
    if not told.answered:
        return "none"
    if told.name in UNLIKE_V4:
        return UNLIKE_V4[told.name]
    return _code(",".join(("V4", told.name, *told.expected, told.token)))


def metrics() -> Table:
    """Every metric with its labels."""
    rows = [
        (_code(name), kind, " ".join(map(_code, labels)), _text(meaning))
        for name, (kind, labels, meaning) in METRICS.items()
    ]
    return ("metric", "kind", "labels", "meaning"), rows


TABLES: Final = {
    "envelope": envelope,
    "columns": columns,
    "streams": streams,
    "types": types,
    "attributes": attributes,
    "commands": commands,
    "guard": guard,
    "bits": bits,
    "answers": answers,
    "costs": costs,
    "downlinks": downlinks,
    "metrics": metrics,
}

#: Which tables stand on which page.
PAGES: Final[Mapping[Path, Sequence[str]]] = {
    CONTRACT: ("envelope", "columns", "streams", "types", "attributes"),
    COMMANDS_PAGE: ("commands", "guard"),
    METRICS_PAGE: ("metrics",),
    ST907: ("bits", "answers", "costs", "downlinks"),
}


def _code(name: str) -> str:
    return f"``{name}``"


def _text(meaning: str) -> str:
    """A meaning of gateway.events as reStructuredText: `name` is code there too."""
    return re.sub(r"`([^`]+)`", r"``\1``", meaning).replace("*", r"\*")


def render(name: str) -> str:
    """A table as reStructuredText."""
    head, rows = TABLES[name]()
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for first, *others in (head, *rows):
        lines += [f"   * - {first}", *(f"     - {cell}".rstrip() for cell in others)]
    return "\n".join(lines)


def inserted(text: str, page: Path = CONTRACT) -> str:
    """The text of a page with each of its tables between its marks written anew."""
    for name in PAGES[page]:
        begin, end = f".. begin {name}\n", f".. end {name}\n"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{page}: no marks for table {name}")
        text = f"{before}{begin}\n{render(name)}\n\n{end}{after}"
    return text


def schema() -> str:
    """What C{python -m gateway.events} prints."""
    return json.dumps(events.json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(inserted(page.read_text(), page))
    SCHEMA.write_text(schema())
