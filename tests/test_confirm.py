"""What makes a batch stored: what a server is asked, and what its answers mean."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import hiredis
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import CannotConfirm, ConfigError, NotReady, Refused
from gateway.sinks.blocking import NOT_NOW, pack
from gateway.sinks.confirm import Confirmation, questions

REPLICATION = b"# Replication\r\nrole:master\r\nconnected_slaves:%d\r\n"
VALKEY = b"# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
REDIS_8 = b"# Server\r\nredis_version:8.0.0\r\n"
PERSISTENCE = b"# Persistence\r\nloading:0\r\naof_enabled:%d\r\n"


class Server:
    """Answers the questions, as a blocking client or as a connection in the reactor; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.sent: list[bytes] = []
        self.owes: list[defer.Deferred[Any]] = []

    def command(self, *args: str) -> Any:
        answer = self.answers.get("_".join(args[:2])) or self.answers[args[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def send(self, data: bytes) -> defer.Deferred[Any]:
        self.sent.append(data)
        self.owes.append(defer.Deferred())
        return self.owes[-1]


def fsync(aof: int = 1, waitaof: Any = None, setting: Any = (), about: bytes = VALKEY) -> Any:
    """A server with these settings."""
    return Server(INFO_persistence=PERSISTENCE % aof, INFO_server=about, COMMAND=[waitaof], CONFIG=setting)


class CheckTests(SynchronousTestCase):
    """What a server has to be able to do."""

    def refusal(self, mode: str, server: Any) -> str:
        """What is said at start."""
        confirmation = Confirmation(mode, 5.0)
        return str(self.assertRaises(ConfigError, confirmation.check, server, "here"))

    def test_replica(self) -> None:
        """C{replica} needs one that is connected."""
        Confirmation("replica", 5.0).check(Server(INFO=REPLICATION % 1), "here")  # type: ignore[arg-type]  # a fake
        said = self.refusal("replica", Server(INFO=REPLICATION % 0))
        self.assertEqual("here: 'replica' can't be had from this Redis: no replica is connected to it", said)

    def test_fsync(self) -> None:
        """C{fsync} needs the append-only file, and a sync before each answer or a WAITAOF that waits for it."""
        always, everysec = [b"appendfsync", b"always"], [b"appendfsync", b"everysec"]
        for server in (
            fsync(setting=always),
            fsync(setting=always, waitaof=[b"waitaof"]),
            fsync(setting=everysec, waitaof=[b"waitaof"], about=REDIS_8),
        ):
            Confirmation("fsync", 5.0).check(server, "here")
        self.assertIn("its appendonly is off", self.refusal("fsync", fsync(aof=0, waitaof=[b"waitaof"])))
        for server, said in (
            (fsync(setting=everysec), "it has no WAITAOF, and its appendfsync is not always"),
            (fsync(setting=everysec, about=REDIS_8), "it has no WAITAOF, and its appendfsync is not always"),
            (
                fsync(setting=everysec, waitaof=[b"waitaof"]),
                "before the sync, as before Redis 8.0, and its appendfsync",
            ),
            (fsync(setting=Refused("NOPERM")), "does not tell its appendfsync: NOPERM"),
            (fsync(setting=hiredis.ReplyError("ERR unknown")), "does not tell its appendfsync: ERR unknown"),
        ):
            self.assertIn(said, self.refusal("fsync", server))

    def test_not_now(self) -> None:
        """A server that can't answer now is not refused."""
        server: Any = Server(INFO=NotReady("LOADING"))
        self.assertRaises(NotReady, Confirmation("fsync", 5.0).check, server, "here")

    def test_commands(self) -> None:
        """Where there is a command that confirms it is sent; it has the time that is given."""
        always = [b"appendfsync", b"always"]
        for mode, answers, command in (
            ("replica", [REPLICATION % 2], ("WAIT", "1", "70")),
            ("fsync", [PERSISTENCE % 1, REDIS_8, [[b"waitaof"]]], ("WAITAOF", "1", "0", "70")),
            ("fsync", [PERSISTENCE % 1, VALKEY, [[b"waitaof"]], always], ("WAITAOF", "1", "0", "70")),
            ("fsync", [PERSISTENCE % 1, VALKEY, [None], always], None),
        ):
            asking = questions(mode, 70)
            next(asking)
            with self.assertRaises(StopIteration) as end:
                for answer in answers:
                    asking.send(answer)
            self.assertEqual(command, end.exception.value)


class AfterTests(SynchronousTestCase):
    """A batch and the command behind it."""

    def setUp(self) -> None:
        """A server with a replica, and a batch that was just sent."""
        self.counters: Counter[str] = Counter()
        self.batch = SimpleNamespace(answer=None)
        self.confirmation = Confirmation("replica", 5.0)
        self.server = self.agreed(Server(INFO=REPLICATION % 1))

    def agreed(self, server: Server) -> Any:
        """Tell the server apart as on a new connection."""
        connection = SimpleNamespace(command=lambda *args: defer.execute(server.command, *args), send=server.send)
        self.successResultOf(defer.Deferred.fromCoroutine(self.confirmation.agree(connection)))  # type: ignore[arg-type]
        return server

    def send(self) -> tuple[defer.Deferred[Any], defer.Deferred[Any]]:
        """Send the batch: the script's answer to come, and when it is confirmed."""
        stored: defer.Deferred[Any] = defer.Deferred()
        return stored, self.confirmation.after(stored, self.batch, self.server, self.counters)

    def test_confirmed(self) -> None:
        """The script's answer is handed on when a replica has the batch."""
        stored, done = self.send()
        self.assertEqual([pack(("WAIT", "1", "2500"))], self.server.sent)
        stored.callback([b"ok", 1])
        self.assertNoResult(done)
        self.server.owes[0].callback(1)
        self.assertEqual([b"ok", 1], self.successResultOf(done))

    def test_not_confirmed(self) -> None:
        """It is counted, and is a 'not now'; the first answer is what counts when the batch was sent again."""
        stored, done = self.send()
        stored.callback([b"ok", 1, "pr"])
        self.server.owes[0].callback(0)
        failure = self.failureResultOf(done, NotReady)
        self.assertTrue(str(failure.value).startswith(NOT_NOW))
        self.assertEqual({"not_confirmed": 1}, self.counters)
        stored, done = self.send()
        stored.callback([b"already", 1])
        self.server.owes[1].callback(2)
        self.assertEqual([b"ok", 1, "pr"], self.successResultOf(done))

    def test_already(self) -> None:
        """A batch whose first answer was lost is confirmed as well."""
        stored, done = self.send()
        stored.callback([b"already", 1])
        self.assertNoResult(done)
        self.server.owes[0].callback(1)
        self.assertEqual([b"already", 1], self.successResultOf(done))

    def test_gap(self) -> None:
        """Where nothing was written nothing is waited for."""
        stored, done = self.send()
        stored.callback([b"gap", 0])
        self.assertEqual([b"gap", 0], self.successResultOf(done))
        self.server.owes[0].errback(NotReady("lost"))

    def test_refused(self) -> None:
        """What the server says against the batch is handed on; what it says to the other command does not matter."""
        stored, done = self.send()
        stored.errback(NotReady("OOM"))
        self.failureResultOf(done, NotReady)
        self.server.owes[0].errback(NotReady("lost"))

    def test_fsync(self) -> None:
        """WAITAOF answers with two numbers, of which the first one is the server itself."""
        self.confirmation = Confirmation("fsync", 5.0)
        self.server = self.agreed(fsync(waitaof=[b"waitaof"], about=REDIS_8))
        for counts, good in (([1, 0], True), ([0, 3], False)):
            stored, done = self.send()
            stored.callback([b"ok", 1])
            self.server.owes[-1].callback(counts)
            if good:
                self.successResultOf(done)
            else:
                self.failureResultOf(done, NotReady)

    def test_nothing_to_ask(self) -> None:
        """Where each answer is a confirmation nothing is sent."""
        self.confirmation = Confirmation("fsync", 5.0)
        self.server = self.agreed(fsync(setting=[b"appendfsync", b"always"]))
        stored, done = self.send()
        self.assertIs(stored, done)
        self.assertEqual([], self.server.sent)

    def test_can_not(self) -> None:
        """On a connection to a server that can't do it there is no agreement."""
        server = Server(INFO=REPLICATION % 0)
        connection: Any = SimpleNamespace(command=lambda *args: defer.execute(server.command, *args))
        self.failureResultOf(defer.Deferred.fromCoroutine(self.confirmation.agree(connection)), CannotConfirm)
