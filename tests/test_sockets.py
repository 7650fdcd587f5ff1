"""Sockets that are bound before the reactor runs: sets of them share a port with each other, and with nobody else."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import StartError
from gateway.transports.sockets import Sockets, bind
from tests.integration.parts import free_port

HOST = "127.0.0.1"


class SetsTests(SynchronousTestCase):
    """Sets of sockets."""

    def bound(self, processes: int, port: int = 0) -> tuple[list[Sockets], int]:
        """What so many processes get of one address, and its port."""
        made = bind([(HOST, port)], processes=processes)
        for sockets in made:
            self.addCleanup(sockets.close)
        return made, made[0].pairs[0].tcp.getsockname()[1]

    def other(self, kind: int, port: int = 0, *, shares: bool = True) -> socket.socket:
        """A socket of somebody else."""
        made = socket.socket(socket.AF_INET, kind)
        self.addCleanup(made.close)
        if shares:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((HOST, port))
        return made

    def refused(self, port: int, sets: int) -> str:
        """What is said when an address can't be had; nothing is left open."""
        before = len(os.listdir("/proc/self/fd"))
        with self.assertRaises(StartError) as caught:
            bind([(HOST, 0), (HOST, port)], processes=sets)
        self.assertEqual(before, len(os.listdir("/proc/self/fd")))
        return str(caught.exception)

    def test_same_port(self) -> None:
        """All have the same port for TCP and UDP, are not passed on by themselves, and do not block."""
        made, port = self.bound(3)
        every = [one for sockets in made for one in sockets.pairs[0]]
        self.assertEqual({(HOST, port)}, {one.getsockname() for one in every})
        self.assertEqual(6, len({one.fileno() for one in every}))
        self.assertFalse(any(one.getblocking() or one.get_inheritable() for one in every))

    def test_shared_out(self) -> None:
        """Each set gets a part of the connections and of the datagrams."""
        made, port = self.bound(2)
        for sockets in made:
            sockets.listen()
        for _ in range(60):
            client = socket.create_connection((HOST, port), 5)
            self.addCleanup(client.close)
            datagram = self.other(socket.SOCK_DGRAM, shares=False)
            datagram.sendto(b"x", (HOST, port))
        pairs = [sockets.pairs[0] for sockets in made]
        counts = [(_taken(pair.tcp.accept), _taken(lambda pair=pair: pair.udp.recv(10))) for pair in pairs]
        self.assertEqual([60, 60], [sum(column) for column in zip(*counts, strict=True)])
        self.assertGreater(min(min(row) for row in counts), 0, counts)

    def test_what_waits(self) -> None:
        """What waits for one of them is there for who has it next, while somebody keeps it."""
        made, port = self.bound(2)
        for sockets in made:
            sockets.listen()
        again = made[0].pairs[0].tcp.dup()
        self.addCleanup(again.close)
        clients = [socket.create_connection((HOST, port), 5) for _ in range(40)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"hello")
        made[0].close()
        taken = _taken(again.accept) + _taken(made[1].pairs[0].tcp.accept)
        self.assertEqual(40, taken)

    def test_busy(self) -> None:
        """A port that another process has is found, also when that would share it, for TCP and for UDP."""
        for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
            port = free_port()  # for the other kind as well
            other = self.other(kind, port)
            if kind == socket.SOCK_STREAM:
                other.listen(1)
            for sets in (1, 2):
                said = self.refused(port, sets)
                self.assertEqual(f"can't listen on {name} {HOST}:{port}: Address already in use", said)

    def test_busy_with_workers(self) -> None:
        """So is one that another gateway with workers has."""
        made, port = self.bound(2)
        for sockets in made:
            sockets.listen()
        for sets in (1, 2):
            self.assertIn(f"TCP {HOST}:{port}: Address already in use", self.refused(port, sets))

    def test_one_alone(self) -> None:
        """One set shares its port with nobody."""
        _, port = self.bound(1)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with self.assertRaises(OSError):
                self.other(kind, port)


def _taken(take: object) -> int:
    """How often something can be taken until there is nothing more."""
    count = 0
    while True:
        try:
            take()  # type: ignore[operator]  # any of some calls
        except BlockingIOError:
            return count
        count += 1
