"""The data directory: held by one gateway at a time, with the journals that lie in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.errors import JournalFull, StartError
from gateway.sinks.journalrows import NAME, PATTERN

#: The file that is locked, and the one in which a gateway with workers says who they are.
LOCK: Final = "lock"
WORKERS: Final = "workers.json"
#: Workers whose parent was killed end by themselves; so long it is waited for that.
ENDING_S: Final = 15.0
POLL_S: Final = 0.1


class DataDir(NamedTuple):
    """
    A directory that this process holds.

    @ivar lock: the descriptor that holds it.  A child that inherits it holds it, too.
    """

    path: Path
    lock: int


def hold(data_dir: Path) -> DataDir:
    """
    Make the data directory and hold it as long as this process and its children live.

    @raise StartError: when it can't be made, or another gateway holds it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir = data_dir.resolve()
        fd = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise StartError(f"data directory {str(data_dir)!r}: {getattr(error, 'strerror', None) or error}") from error
    ends = time.monotonic() + ENDING_S
    while not _lock(fd):
        if (left := _left_behind(data_dir)) and time.monotonic() < ends:
            time.sleep(POLL_S)
            continue
        os.close(fd)
        whose = f"workers of an earlier one, pids {left}" if left else "another gateway"
        raise StartError(f"data directory {data_dir} is in use by {whose}")
    return DataDir(data_dir, fd)  # the descriptor stays open on purpose: the lock goes with the process


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(data_dir: Path) -> bool:
    """Whether a gateway, or workers of one, hold the directory."""
    try:
        fd = os.open(data_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def _left_behind(data_dir: Path) -> str:
    """The pids of workers that are there without their parent; empty: there are none."""
    said = read_workers(data_dir)
    if said is None or runs(said.get("pid"), said.get("started")):
        return ""
    workers = [row for row in said.get("workers", ()) if runs(row.get("pid"), row.get("started"))]
    return ", ".join(str(row["pid"]) for row in workers)


# -- who works there


def read_workers(data_dir: Path) -> dict[str, Any] | None:
    """What a gateway with workers says of itself; None: there was none, or it can't be read."""
    try:
        found = json.loads((data_dir / WORKERS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_workers(data_dir: Path, content: dict[str, Any]) -> None:
    """Replace it in one step."""
    write_private(data_dir / WORKERS, json.dumps(content))


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, in one step."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, 0o600)
        file.write(text)
    fresh.replace(path)


def started(pid: int) -> int:
    """When a process was started, in ticks of the kernel: a pid alone may be given anew.  0: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    # one that was killed looks dead while a thread of it still waits for the disk, and has its files open
    gone = fields[0] in "ZX" and int(fields[17]) <= 1
    return 0 if gone else int(fields[19])


def runs(pid: Any, since: Any) -> bool:
    """Whether the process runs that was started then."""
    return isinstance(pid, int) and bool(since) and started(pid) == since


# -- journals


def worker_name(instance: str, number: int) -> str:
    """The name of a worker among instances; 0: the gateway has none."""
    return f"{instance}/{number}" if number else instance


def journal_name(number: int) -> str:
    """The file of a worker's journal; 0: the gateway has none."""
    return f"journal-{number}.sqlite" if number else NAME


def adopt_journals(data_dir: Path, limit: int, names: Sequence[str], announce: list[str]) -> list[str]:
    """
    Look whether the first of these journals can be used, and let it take over those that are none of them.

    @param limit: bytes that journals may take.
    @return: a line for each that was damaged.
    @raise StartError: when it can't be opened.
    """
    # the command line is quicker without
    from gateway.sinks.journal import damage
    from gateway.sinks.journalfile import JournalFile

    try:
        file = JournalFile(data_dir / names[0], limit)
        for other in sorted(data_dir.glob(PATTERN)):
            if other.name not in names:
                announce.append(f"journal: {file.adopt(other)} batches of {other.name} are taken over")
        damaged = [damage(where, saved, file.lost) for where, saved in file.set_aside]
        file.close()
    except JournalFull as error:
        raise StartError(f"journal {error}") from error
    return damaged
