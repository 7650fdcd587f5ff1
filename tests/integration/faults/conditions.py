"""What the gateway's process stands on and a test can change while it runs: its clock and its disk."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

#: Debian's package faketime has it there.
_LIBRARIES: Final = "/usr/lib/*/faketime/libfaketimeMT.so.1"

#: Room for what the gateway keeps, and little enough to be filled in no time.
DISK_BYTES: Final = 16 * 1024 * 1024

_PIECE: Final = 64 * 1024


@cache
def faketime() -> str | None:
    """The library that gives a process a clock of its own; None where there is none."""
    found = sorted(glob.glob(_LIBRARIES))
    return found[0] if found else None


class Clock:
    """The clock of processes that are started with its environment."""

    def __init__(self, library: str, file: Path) -> None:
        self._library = library
        self._file = file
        self.jump(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a process use it; time that is measured and not told, the monotonic clock, stays real."""
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # else waits for the monotonic clock that two threads of Python hand over by end at once or too late
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older versions
        }

    def jump(self, seconds: int) -> None:
        """Be so many seconds ahead from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)  # whoever reads it finds the whole line


class Disk:
    """A small file system of its own, which can be filled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._filler = directory / "filler"

    def mount(self) -> str:
        """Put it in place; an empty string, or why that can't be."""
        self._directory.mkdir(parents=True)
        options = f"size={DISK_BYTES},mode=700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "gateway-test", str(self._directory)],
            capture_output=True,
            text=True,
        )
        return done.stderr.strip() if done.returncode else ""

    def unmount(self) -> None:
        """Take it away with all that is on it."""
        if os.path.ismount(self._directory):
            subprocess.run(["umount", str(self._directory)], check=False, capture_output=True)
        if os.path.ismount(self._directory):  # somebody still works there
            subprocess.run(["umount", "--lazy", str(self._directory)], check=True, capture_output=True)

    def fill(self) -> None:
        """Leave no room on it."""
        with self._filler.open("ab", buffering=0) as file:
            size = _PIECE
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def clear(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            self._filler.unlink()

    @property
    def free_bytes(self) -> int:
        """How much room there is."""
        return shutil.disk_usage(self._directory).free
