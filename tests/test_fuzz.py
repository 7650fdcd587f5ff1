"""
Whatever comes from outside: nothing raises but what says so, nothing depends on the reads, nothing is invented.

A minute of it in an ordinary run, with the same examples each time; with
C{GATEWAY_LONG=1} an hour, with other ones each time.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any, Final

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway import config, registry
from gateway.commands import COMMANDS, FIELDS, Parameter, Request
from gateway.connection import Connection, Datagrams, Limits
from gateway.detection import Candidates
from gateway.errors import CommandError, ConfigError, MalformedHeader, UnsupportedCommand
from gateway.fleet import registering
from gateway.fleet.listing import Device
from gateway.fleet.strangers import Entry, near, unrecognised
from gateway.histogram import Counts
from gateway.interfaces import Kept, Message
from gateway.proxy import read_header
from gateway.session import Session, Stored
from gateway.sinks.blocking import RedisURL
from gateway.testing import play
from gateway.tracing import until
from gateway.workers.wire import Entry as LogEntry
from gateway.workers.wire import Lines, Word
from tests.fakes import NOON, Memories

LONG: Final = bool(os.environ.get("GATEWAY_LONG"))
#: Seconds of each test: a dozen of them.
EACH_S: Final = 400.0 if LONG else 5.0
VECTORS: Final = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "vectors.public.jsonl"
#: Each device that is installed.
PLUGINS: Final = registry.load()
MOST: Final = 2048


def for_a_while(test: Callable[..., None]) -> Callable[[SynchronousTestCase], None]:
    """
    Run a test with new examples until its time is over.

    In the short form each round has its seed, so that a change is not held up by what it did not do; the long form
    looks for what nobody has seen.
    """

    def run(self: SynchronousTestCase) -> None:
        end = monotonic() + EACH_S
        rounds = 0
        while rounds == 0 or monotonic() < end:
            rounds += 1
            (test if LONG else seed(rounds)(test))(self)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


#: So many examples a round; what fails is made small, and printed with how to repeat it.
FUZZ: Final = settings(
    max_examples=200,
    deadline=timedelta(seconds=2),
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def _real() -> list[bytes]:
    """Frames of real devices, of all protocols; the project's own where the others are not there."""
    found = [
        b"*HQ,9170123456,V1,120000,A,5231.2000,N,01324.3000,E,022.14,085,221126,FFFFFFFF,262,01,00341,8121#",
        bytes.fromhex("24430025645511183817091319355128000465632432000100ffe7fbffff0000"),
        b"GET /?id=phone&lat=1.0&lon=2.0&timestamp=1796000000&speed=3 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /?id=phone HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"*HQ,9170123456,V4,S20,DONE,120000,1,0#",
        b"*HQ,9170123456,NBR,120000,262,01,0,6,1111,2222,10,221126,FFFFFFFF#",
    ]
    if VECTORS.exists():
        for line in VECTORS.read_text().splitlines()[:4000]:
            row = json.loads(line)
            data = bytes.fromhex(row["payload"].get("hex", ""))
            if len(data) <= MOST:
                found.append(data)
    return [frame for frame in found if frame]


real = st.sampled_from(_real())
pieces = st.sampled_from(
    [b"*HQ,", b"#", b"$", b"\r\n", b",", b"inf", b"nan", b"-", b"9" * 40, b"\0", b"GET /", b"*", b"%ff"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real frame with some of its bytes changed."""
    data = bytearray(draw(real))
    for _ in range(draw(st.integers(0, 5))):
        at, kind = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        if kind == 0 and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == 2:
            data[at:at] = draw(st.binary(max_size=12))
        else:
            data[at:at] = draw(pieces)
    return bytes(data)


streams = st.lists(st.one_of(mutated(), real, st.binary(max_size=80), pieces), max_size=6).map(
    lambda some: b"".join(some)[:MOST]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=12,
)
texts = st.one_of(
    st.text(max_size=40), json_values.map(json.dumps), st.sampled_from(["0", "1", "{}", "inf", "1e999", ""])
)


def _argument(parameter: Parameter) -> st.SearchStrategy[Any]:
    """What a parameter may be, and what it had better not be."""
    if parameter.choices:
        return st.one_of(st.sampled_from(parameter.choices), texts)
    if parameter.kind is str:
        return st.one_of(
            st.text("09.a-:*#, \r\n\0\u0661\xe9", max_size=24), st.ip_addresses(v=4).map(str), st.just("10.0.0.1")
        )
    good: st.SearchStrategy[Any] = st.floats(parameter.least, parameter.most)
    if parameter.kind is int:
        good = st.integers(int(parameter.least), int(parameter.most))
    return st.integers(0, 7).flatmap(lambda of_eight: good if of_eight else json_values)


def _told(name: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """A command with arguments."""
    needed: dict[str, st.SearchStrategy[Any]] = {}
    more: dict[str, st.SearchStrategy[Any]] = {}
    for argument, parameter in COMMANDS[name].parameters.items():
        (needed if parameter.required else more)[argument] = _argument(parameter)
    return st.tuples(st.just(name), st.fixed_dictionaries(needed, optional=more))


class StreamTests(SynchronousTestCase):
    """Framing, detection and each decoder."""

    def fed(self, chunks: list[bytes], transport: Any = "tcp") -> list[tuple[bytes, str | None, int, bool]]:
        """What a stream leads to."""
        connection = Connection(Candidates(PLUGINS, transport), Limits(), Memories(), NOON)
        messages: list[Message] = []
        for chunk in chunks:
            messages += connection.receive(chunk, NOON)
        messages += connection.end(NOON)
        return [(one.raw, one.ident, len(one.events), one.error is None) for one in messages]

    @for_a_while
    @FUZZ
    @given(streams, st.lists(st.integers(0, MOST), max_size=6))
    def test_streams(self, data: bytes, cuts: list[int]) -> None:
        """However a stream is cut it leads to the same, and each frame is of what came, in its order."""
        whole = self.fed([data])
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        self.assertEqual(whole, self.fed([data[a:b] for a, b in pairwise(edges)]))
        place = 0
        for raw, *_ in whole:
            found = data.find(raw, place)
            if raw and found < 0:
                self.assertIn(raw, data)
            place = max(place, found)

    @for_a_while
    @FUZZ
    @given(st.one_of(mutated(), streams))
    def test_datagrams(self, data: bytes) -> None:
        """A datagram leads to messages or to nobody's, at a glance or not."""
        datagrams = Datagrams(Candidates(PLUGINS, "udp"), Limits(), Memories())
        for message in datagrams.receive(data, NOON, None):
            self.assertTrue(message.error is not None or message.ident)
        self.assertTrue(datagrams.plugin is not None or datagrams.reason or not data)

    @for_a_while
    @FUZZ
    @given(streams)
    def test_played(self, data: bytes) -> None:
        """All that follows from a stream can be judged, explained, and written as JSON; degrees are on the globe."""
        played = play(data, NOON, devices=PLUGINS)
        plugin = next((one for one in PLUGINS if one.name == played.protocol), None)
        for message, envelopes in played.messages:
            if plugin is not None:
                json.dumps([fact._asdict() for fact in plugin.explain(message.raw, {})])
            for envelope in envelopes:
                json.dumps(envelope.attributes, allow_nan=False)
                latitude = envelope.attributes.get("latitude", 0.0)
                longitude = envelope.attributes.get("longitude", 0.0)
                self.assertTrue(-90 <= latitude <= 90 and -180 <= longitude <= 180, envelope)
            if message.reply is not None:
                self.assertIsInstance(message.reply(NOON), bytes)

    @for_a_while
    @FUZZ
    @given(
        st.one_of(
            st.binary(max_size=600),
            st.sampled_from([b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n"]).flatmap(
                lambda head: st.binary(max_size=200).map(lambda rest: head + rest)
            ),
        )
    )
    def test_proxy(self, data: bytes) -> None:
        """A PROXY header is one, is none, or is not whole yet; and that does not change with what follows."""

        def read(some: bytes) -> Any:
            try:
                return read_header(some)
            except MalformedHeader:
                return "malformed"

        found = read(data)
        if found is not None:
            self.assertEqual(found, read(data + b"x"))


class CommandTests(SynchronousTestCase):
    """What applications write."""

    @for_a_while
    @FUZZ
    @given(
        st.dictionaries(st.one_of(st.sampled_from([*FIELDS]), st.text(max_size=8)), texts, max_size=8),
        st.one_of(st.none(), st.sampled_from([*COMMANDS])),
    )
    def test_requests(self, fields: dict[str, str], command: str | None) -> None:
        """An entry is a request or says what is wrong with it."""
        if command is not None:
            fields = {"ident": "9170123456", "ttl": "60", **fields, "command": command}
        try:
            request = Request.parse("1-0", fields)
        except CommandError as error:
            self.assertTrue(str(error))
            return
        self.assertGreater(request.ttl_s, 0)

    @for_a_while
    @FUZZ
    @given(st.sampled_from([*COMMANDS]).flatmap(_told))
    def test_told(self, told: tuple[str, dict[str, Any]]) -> None:
        """Each device says a request in one frame, whatever stands in its arguments, or says that it can't."""
        name, args = told
        fields = {"ident": "9170123456", "ttl": "60", "command": name, "args": json.dumps(args)}
        try:
            command = Request.parse("1-0", fields).command
        except CommandError as error:
            self.assertTrue(str(error))
            return
        for plugin in PLUGINS:
            for form in (0, 1):
                try:
                    data = plugin.encode("9170123456", command, Kept(), NOON, form).data
                except UnsupportedCommand as error:
                    self.assertTrue(str(error))
                    continue
                if name != "raw":  # which is what somebody asks for, byte by byte
                    self.assertRegex(data, rb"\A(?:\*[!-)+-~]+#|[!-~]+)\Z")
                    self.assertEqual(data[:1] == b"*", data.count(b"#") == 1, data)

    @for_a_while
    @FUZZ
    @given(st.dictionaries(st.text(max_size=12), texts, max_size=6), texts)
    def test_registry(self, values: dict[str, str], state: str) -> None:
        """The registry's entry and the stored state of a device may hold anything."""
        session = Session("9170123456", NOON)
        session.load(Stored(known=True, state=state, registry=values), NOON)
        session.dump()
        Device.of("9170123456", {**values, "course_deg": state, "time": state}, values, 0.0, NOON)
        until(values, NOON)
        try:
            registering.check("9170123456", dict(values))
        except registering.RegistryError as error:
            self.assertTrue(str(error))


class FileTests(SynchronousTestCase):
    """What operators write, and what processes tell each other."""

    @for_a_while
    @FUZZ
    @given(
        st.one_of(
            st.text(max_size=200),
            st.lists(
                st.tuples(
                    st.sampled_from([*config.SECTIONS, "devices", "x"]),
                    st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=9),
                    texts,
                ),
                max_size=4,
            ).map(lambda rows: "".join(f"[{section}]\n{key} = {json.dumps(value)}\n" for section, key, value in rows)),
        )
    )
    def test_configuration(self, text: str) -> None:
        """A file is a configuration or says what is wrong with it."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
            file.flush()
            try:
                found = config.read(file.name)
                _ = found.addresses, found.proxied, found.encrypted, found.page, found.balancers, found.part()
            except ConfigError as error:
                self.assertTrue(str(error))

    @for_a_while
    @FUZZ
    @given(st.one_of(st.text(max_size=60), st.text(max_size=30).map(lambda rest: f"rediss://{rest}")))
    def test_urls(self, text: str) -> None:
        """A Redis URL is one or is malformed."""
        try:
            RedisURL.parse(text, "option --redis")
        except ConfigError as error:
            self.assertIn("option --redis", str(error))

    @for_a_while
    @FUZZ
    @given(st.binary(max_size=300), json_values, st.text(max_size=40), st.lists(st.text("0123456789ab", max_size=12)))
    def test_others(self, data: bytes, value: Any, ident: str, others: list[str]) -> None:
        """Lines between processes, histograms, entries of the dead stream: what is none is taken for none."""
        for line in Lines().feed(data + b"\n"):
            LogEntry.read(line)
            try:
                Word.read(line)
            except ValueError:
                pass
        Counts.read(value)
        unrecognised([Entry({"type": "frame.unrecognised", "data": json.dumps(value)})])
        near(ident, others)
