"""
The release test: what an installed wheel does from a directory that is not the checkout.

Run by C{tox -e package}: C{twistd gateway} with its embedded Redis takes a
report over TCP and one over UDP, answers them, and ends when it is told to.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gateway

REPORT = b"*HQ,9170%06d,V1,%s,A,5231.2000,N,01324.3000,E,022.14,085,%s,FFFFFFFF#"
BINARIES = Path(sys.executable).parent


def _report(number: int) -> bytes:
    now = time.gmtime()
    return REPORT % (number, time.strftime("%H%M%S", now).encode(), time.strftime("%d%m%y", now).encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main() -> None:
    """Raise unless all of it works."""
    checkout = Path(__file__).resolve().parent.parent
    assert not Path(gateway.__file__).is_relative_to(checkout / "gateway"), f"{gateway.__file__} is not the wheel's"
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        args = [
            str(BINARIES / "twistd"),
            "-n",
            "--pidfile=",
            "gateway",
            "--port",
            str(port),
            "--data-dir",
            f"{folder}/data",
        ]
        process = subprocess.Popen(args, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            with _connected(port, process) as tcp:
                tcp.sendall(_report(1))
                answer = tcp.recv(200)
                assert answer.startswith(b"*HQ,9170000001,V4,V1,"), answer
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.settimeout(10)
                udp.sendto(_report(2), ("127.0.0.1", port))
                answer = udp.recv(200)
                assert answer.startswith(b"*HQ,9170000002,V4,V1,"), answer
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(10)
    assert status in (0, -signal.SIGTERM), status
    print(f"the wheel of {Path(gateway.__file__).parent} works")


if __name__ == "__main__":
    main()
