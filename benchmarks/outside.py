"""
A load generator from elsewhere in place of the project's own: one C file that speaks H02 and prints a line of JSON.

It is called with C{-p PORT -c CONNECTIONS -t SECONDS -j}, with C{-w WINDOW} or C{-r RATE}, and with C{-u} for UDP,
and says C{sent}, C{acked}, C{msgs_per_s}, C{p50_us}, C{p99_us} and C{load_cpu_us_per_msg}.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import OTHER_CORE, pin


def compiled(source: Path, folder: Path) -> Path:
    """
    The program that a C file makes, in a folder.

    @raise SystemExit: when there is no compiler, or it does not like the file.
    """
    binary = folder / source.stem
    try:
        done = subprocess.run(["gcc", "-O2", "-o", binary, source], capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"{source} can't be compiled: there is no gcc") from None
    if done.returncode:
        raise SystemExit(f"{source} can't be compiled:\n{done.stderr[-2000:]}")
    return binary


def run(binary: Path, argv: Sequence[str], seconds: float) -> dict[str, Any]:
    """
    Run one load; its result by the names of the project's own generator.

    @param seconds: after which it is not waited for any more.
    """
    process = subprocess.Popen([binary, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        pin(process.pid, OTHER_CORE)
        out, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    try:
        said = json.loads(out)
        return {
            "sent": said["sent"],
            "acknowledged": said["acked"],
            "rate": said["msgs_per_s"],
            "p50_ms": said["p50_us"] / 1e3,
            "p99_ms": said["p99_us"] / 1e3,
            "generator_us": said["load_cpu_us_per_msg"],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{binary.name} does not say what is wanted: {error!r}: {out[:300]!r}") from error
