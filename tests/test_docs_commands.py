"""The page on commands: its tables, its example, and its Redis users, who can do what they are for and nothing else."""

from __future__ import annotations

import re
import runpy
import socket
import subprocess
import sys
import time
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError

from gateway import events
from gateway.commands import COMMANDS, FIELDS, GUARD
from gateway.config import CommandsSection
from tests.integration.fleet import v1
from tests.integration.parts import Child, RealPartsTestCase, connect, free_port, wait_for
from tests.playing import Played
from tests.test_docs_st907 import coded, rows

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
IDENT: Final = "9170123456"


def page() -> str:
    """The page's text."""
    return (DOCS / "commands.rst").read_text()


def part(start: str, end: str) -> str:
    """What stands between two marks of the page."""
    _, found, rest = page().partition(start)
    inside, closed, _ = rest.partition(end)
    assert found, start
    assert closed, end
    return inside


def users() -> list[str]:
    """The rules of the page."""
    return re.findall(r"^    (user .+)$", part(".. begin users\n", ".. end users\n"), re.MULTILINE)


class PageTests(unittest.TestCase):
    """docs/commands.rst."""

    def test_written(self) -> None:
        """Its tables are as C{python docs/tables.py} writes them."""
        program: dict[str, Any] = runpy.run_path(str(DOCS / "tables.py"))
        self.assertEqual(program["inserted"](page(), program["COMMANDS_PAGE"]), page())

    def test_commands(self) -> None:
        """The table of commands has all of them with all of their arguments."""
        table = rows(part(".. begin commands\n", ".. end commands\n"))
        self.assertEqual([f"``{name}``" for name in COMMANDS], [row[0] for row in table])
        for row, definition in zip(table, COMMANDS.values(), strict=True):
            named = [text for text in coded(row[2]) if text not in ("leave", "enter")]
            self.assertEqual([*definition.parameters], named)
            self.assertEqual(definition.guarded, "guarded" in row[3])

    def test_guard(self) -> None:
        """The table of the guard has all that it may say, and options that there are."""
        table = rows(part(".. begin guard\n", ".. end guard\n"))
        self.assertEqual([f"``{name}``" for name in GUARD], [row[0] for row in table])
        for row in table:
            self.assertTrue(hasattr(CommandsSection(), coded(row[3])[0]), row)

    def test_fields(self) -> None:
        """The table of fields has all that an entry may have."""
        table = rows(part("Giving a command\n", "The commands\n"))
        self.assertEqual([f"``{name}``" for name in FIELDS], [row[0] for row in table])

    def test_outcomes(self) -> None:
        """The table of outcomes has every type, in the contract's order."""
        table = rows(part("What becomes of it\n", "How long it may wait\n"))
        kinds = [kind for kind in events.STREAMS["result"] if kind.startswith("command.")]
        self.assertEqual([f"``{kind}``" for kind in kinds], [row[0] for row in table])

    def test_options(self) -> None:
        """Every option is named, with the defaults that are said."""
        section = CommandsSection()
        said = part("Options\n-------\n", "On the command line\n")
        for name in type(section).__dataclass_fields__:
            self.assertIn(f"``{name}``", said)
        self.assertIn(f"``per_hour``, {section.per_hour}:", said)
        self.assertIn(f"``waiting``, {section.waiting}:", said)
        self.assertFalse([name for name in section.enabled if name == "raw" or name.startswith("engine.")])

    def test_redis_conf(self) -> None:
        """C{conf/redis.conf} has the same rules."""
        shown = re.findall(r"^# (user .+)$", (ROOT / "conf" / "redis.conf").read_text(), re.MULTILINE)
        self.assertEqual(users(), shown)


@dataclass(frozen=True)
class Server:
    """A Redis with the page's users."""

    port: int
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        """The URL of one of them."""
        return f"redis://{user}:{self.passwords[user]}@127.0.0.1:{self.port}/0"


class AclTestCase(RealPartsTestCase):
    """A real server with the users of the page."""

    def setUp(self) -> None:
        """Start it with the page's rules, a user for the test itself, and something in it."""
        super().setUp()
        said = subprocess.run([self.binary(), "--version"], capture_output=True, text=True, check=True).stdout
        if int(re.findall(r"v=(\d+)\.", said)[0]) < 7:
            raise unittest.SkipTest("rules that tell reading from writing need Redis 7")
        rules = users()
        (self.directory / "users.acl").write_text("\n".join([*rules, "user test on >test ~* &* +@all", ""]))
        passwords = dict(re.findall(r"^user (\w+) on >(\S+)", "\n".join(rules), re.MULTILINE))
        self.assertEqual({"gateway", "consumer", "commander"}, set(passwords))
        self.server = Server(free_port(), passwords | {"test": "test"})
        options = ["--port", str(self.server.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        options += ["--aclfile", str(self.directory / "users.acl")]
        child = Child([self.binary(), *options], self.directory / "redis-output")
        self.addCleanup(child.kill)
        self.own = self.client("test")

        def answers() -> bool:
            if child.exited is not None:
                raise AssertionError(f"Redis ended at start\n{child.tail()}")
            try:
                return bool(self.own.ping())
            except redis.exceptions.ConnectionError:
                return False

        wait_for("Redis to answer", answers, detail=child.tail)

    def client(self, user: str) -> Any:
        """A connection of a user."""
        made = connect(self.server.url(user))
        self.addCleanup(made.close)
        return made


class UsersTests(AclTestCase):
    """The users of the page."""

    def denied(self, client: Any, *commands: str) -> None:
        """Each of these commands is refused by a rule."""
        for command in commands:
            with self.assertRaises(NoPermissionError, msg=command):
                client.execute_command(*command.split())

    def test_nobody(self) -> None:
        """Without a password nobody gets in."""
        with (
            connect(f"redis://127.0.0.1:{self.server.port}/0") as anybody,
            self.assertRaises(redis.AuthenticationError),
        ):
            anybody.ping()

    def test_consumer(self) -> None:
        """A consumer reads streams with a group of its own, and state; it can give, read and take no command."""
        mine = self.client("consumer")
        self.own.hset(f"gateway:last:{IDENT}", "time", "now")
        for stream in events.STREAMS:
            key = f"gateway:{stream}"
            self.assertFalse(mine.exists(key))
            mine.xgroup_create(key, "map", id="0", mkstream=True)
            self.own.xadd(key, {"type": "a"})
            [[_, [(entry, _)]]] = mine.xreadgroup("map", "one", {key: ">"}, count=1)
            mine.xautoclaim(key, "map", "two", 0)
            self.assertEqual(1, mine.xack(key, "map", entry))
            self.assertEqual("map", mine.xinfo_groups(key)[0]["name"])
            mine.xpending(key, "map")
            mine.xread({key: "0"})
            self.denied(mine, f"XADD {key} * type forged", f"XTRIM {key} MAXLEN 0", f"XDEL {key} {entry}", f"DEL {key}")
            self.denied(mine, f"XGROUP DESTROY {key} map")
        self.assertEqual("now", mine.hget(f"gateway:last:{IDENT}", "time"))
        mine.xadd("gateway:consumer:dead:map", {"dead_reason": "a"}, maxlen=10)
        self.assertEqual(1, len(mine.xrange("gateway:consumer:dead:map")))
        self.own.xgroup_create("gateway:command", "gateway", mkstream=True)
        self.denied(
            mine,
            f"XADD gateway:command * ident {IDENT} command engine.stop ttl 300",
            "XREAD STREAMS gateway:command 0",
            "XREADGROUP GROUP gateway me STREAMS gateway:command >",
            "XGROUP CREATE gateway:command mine 0",
            "XACK gateway:command gateway 1-1",
            "HGETALL gateway:request:r",
            f"HSET gateway:last:{IDENT} time never",
            f"HGETALL gateway:registry:{IDENT}",
            *DANGEROUS,
        )

    def test_commander(self) -> None:
        """A commander gives a command, sees what becomes of it and how it stands; it can do nothing else."""
        mine = self.client("commander")
        entry = mine.xadd("gateway:command", {"ident": IDENT, "command": "engine.stop", "ttl": "300", "ref": "r"})
        played = Played(self.own)
        played.play([("queued", {}), ("refused", {"reason": "moving"})])
        [[_, results]] = mine.xread({"gateway:result": "0"})
        self.assertEqual(2, len(results))
        self.assertEqual(results[::-1], mine.xrevrange("gateway:result"))
        self.assertEqual(("refused", entry), tuple(mine.hmget("gateway:request:r", "state", "entry")))
        keys = (f"gateway:registry:{IDENT}", f"gateway:pending:{IDENT}", f"gateway:last:{IDENT}", "gateway:request:r")
        self.denied(
            mine,
            *(f"HSET {key} a b" for key in keys),
            *(f"HGETALL {key}" for key in keys[:3]),
            *(f"DEL {key}" for key in keys),
            *(f"XADD gateway:{stream} * type forged" for stream in events.STREAMS),
            "XADD gateway:command:here * ident 1 ref r",
            "XADD gateway:registry:changes * ident 1",
            "XREAD STREAMS gateway:command 0",
            "XRANGE gateway:command - +",
            "XREAD STREAMS gateway:position 0",
            "XDEL gateway:command 1-1",
            "XTRIM gateway:command MAXLEN 0",
            "XGROUP CREATE gateway:result mine 0",
            "RPUSH gateway:pending:1 r",
            "ZADD gateway:pending 1 r",
            "SET gateway:rate:1 0",
            "GET gateway:instance:here",
            *DANGEROUS,
        )

    def test_command_line(self) -> None:
        """C{gateway send} needs no more than a commander may; that it can't see whether a gateway runs is told."""
        played = Played(self.own)
        thread = played.at_once([*[None] * 14, ("queued", {}), ("verified", {})])
        words = ("send", IDENT, "engine.stop", "--ttl", "300", "--ref", "r", "--wait", "--timeout", "30")
        child = self.child("gateway.cli", *words, "--redis", self.server.url("commander"))
        self.assertEqual(0, child.wait(30), child.tail())
        thread.join(10)
        self.assertIn("no gateway has taken it yet; whether one is running this user may not see", child.tail())
        again = self.child("gateway.cli", "history", "r", "--redis", self.server.url("commander"))
        self.assertEqual(0, again.wait(10), again.tail())

    def child(self, module: str, *words: str) -> Child:
        """A program of ours."""
        output = self.directory / f"shown-{len(list(self.directory.iterdir()))}"
        made = Child([sys.executable, "-u", "-m", module, *words], output)
        self.addCleanup(made.kill)
        return made

    def test_example(self) -> None:
        """The page's program gives the command and waits for its end: 0 is verified and nothing else."""
        self.assertIn(".. literalinclude:: stop_engine.py\n", page())
        played = Played(self.own)
        proof = ("verified", {"position_id": "0" * 32})
        for ends, status in (
            ([("sent", {}), ("confirmed", {}), None, proof], 0),
            ([("sent", {}), ("confirmed", {"final": True, "reason": "no live report within 60 s shows the relay"})], 1),
            ([("refused", {"reason": "moving at 54 km/h"})], 1),
        ):
            output = self.directory / f"example-{len(list(self.directory.iterdir()))}"
            words = [str(DOCS / "stop_engine.py"), self.server.url("commander"), IDENT]
            child = Child([sys.executable, *words], output)
            self.addCleanup(child.kill)
            request = played.play([("queued", {}), *ends])
            self.assertEqual(
                (IDENT, "engine.stop", 300.0, "night desk"),
                (request.ident, request.command.name, request.ttl_s, request.by),
            )
            self.assertEqual(status, child.wait(15), child.tail())
            shown = re.findall(r"Z command\.(\w+) ?(.*)$", child.tail(), re.MULTILINE)
            self.assertEqual(["queued", *(end[0] for end in ends if end)], [state for state, _ in shown])
            self.assertIn(ends[-1][1].get("reason", "") if ends[-1] else "", child.tail())

    def test_gateway(self) -> None:
        """A gateway works with its rules: reports are stored, and a command of a commander has its outcome."""
        gateway = self.running_gateway(self.server.url("gateway"))
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as tracker:
            tracker.sendall(v1(IDENT, time.time()))
            self.assertTrue(tracker.recv(1000).startswith(b"*HQ,"))
        consumer, commander = self.client("consumer"), self.client("commander")
        wait_for("the report", lambda: consumer.xlen("gateway:position"), detail=gateway.tail)
        commander.xadd("gateway:command", {"ident": IDENT, "command": "engine.stop", "ttl": "300", "ref": "r-9"})
        wait_for("an outcome", lambda: commander.hget("gateway:request:r-9", "final") == "1", detail=gateway.tail)
        [[_, [(_, event)]]] = commander.xread({"gateway:result": "0"})
        self.assertEqual("command.refused", event["type"])
        self.assertIn("engine.stop is not enabled", event["data"])
        self.denied(self.client("gateway"), "FLUSHALL", "CONFIG SET dir /", "ACL LIST", "KEYS *", "SET other 1")
        self.assertNotIn("NOPERM", gateway.output())


#: What none of the clients may do.
DANGEROUS: Final = (
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "CONFIG SET dir /",
    "ACL LIST",
    "ACL WHOAMI",
    "KEYS *",
    "SCAN 0",
    "CLIENT LIST",
    "CLIENT KILL ID 1",
    "SHUTDOWN NOSAVE",
    "EVAL return 0",
    "SCRIPT FLUSH",
    "MONITOR",
    "SUBSCRIBE a",
    "PUBLISH a b",
    "REPLICAOF NO ONE",
    "SAVE",
    "SET gateway:contract {}",
)
