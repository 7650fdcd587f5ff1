"""
A gateway that is killed with -9 at each step of an engine.stop: one final outcome, and one send of the cut at most.

C{GATEWAY_KILLS} says how many rounds, C{GATEWAY_KILL_SEED} which ones; with
C{GATEWAY_LONG} there are a hundred, and other ones each time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, Final

from tests.integration.commands.commander import Commander
from tests.integration.faults.table import machine
from tests.integration.parts import Gateway, RealPartsTestCase, wait_for
from tests.integration.simulated import Simulated

LONG: Final = bool(os.environ.get("GATEWAY_LONG"))
ROUNDS: Final = int(os.environ.get("GATEWAY_KILLS") or (100 if LONG else 10))
SEED: Final = int(os.environ.get("GATEWAY_KILL_SEED") or (SystemRandom().randrange(2**32) if LONG else 1))

#: Shorter than by default, so that what is left open comes to its end while somebody waits.
CONFIG: Final = """
[gateway]
instance = "kill"
[commands]
enabled = ["engine.*"]
guard_apart = 2.0
answer_within = 8.0
"""
TTL_S: Final = 30
FIRST: Final = 9_940_000_000
#: How devices take the cut: most obey, some say nothing or do nothing.
HOW: Final = ("obey", "obey", "short", "mute", "refuse", "stuck-relay", "ignore")
STEPS: Final = ("before read", "read", "queued", "sending", "sent", "confirmed", "verified")
#: After so long everything that was asked for has come to its end.
END_S: Final = TTL_S + 40.0


class KillTests(RealPartsTestCase):
    """One gateway that is killed and started again and again, with a device and a cut for each time."""

    def test_killed_at_each_step(self) -> None:
        """Whatever step the cut has come to, it ends once and is sent once at most."""
        redis = self.running_redis()
        made = self.running_gateway(redis.url, config=CONFIG)
        commander = Commander(redis.client)
        random = Random(SEED)
        began = time.monotonic()
        print(f"\n{ROUNDS} kills, GATEWAY_KILL_SEED={SEED}", file=sys.stderr)
        fleets: dict[str, tuple[str, str, Simulated]] = {}
        for number in range(ROUNDS):
            step = STEPS[number % len(STEPS)] if number < len(STEPS) else random.choice(STEPS)
            how = random.choice(HOW)
            ident, ref = f"{FIRST + number}", f"cut-{number}"
            options = {"devices": 1, "interval": 1, "scenario": "standing", "commands": how, "seed": SEED}
            fleet = Simulated(self.directory, made.port, int(ident), timeout=2, **options)
            self.addCleanup(fleet.child.kill)
            fleets[ref] = step, how, fleet
            last = f"gateway:last:{ident}"
            wait_for("the device to report", lambda last=last: redis.client.exists(last), detail=made.tail)  # type: ignore[misc]
            if step not in ("queued", "before read", "read"):
                time.sleep(2.5)  # the guard is met at once
            self._kill(made, redis.client, commander, step, ident, ref, random)
            made.start()
        finals: Counter[tuple[str, str]] = Counter()
        cuts: Counter[tuple[str, int]] = Counter()
        problems = []
        end = time.monotonic() + END_S
        for ref, (step, how, fleet) in fleets.items():
            final = commander.final(ref, max(end - time.monotonic(), 1.0))
            finals[step, final.kind] += 1
            sent = sum(b",1,1#" in bytes.fromhex(command["hex"]) for command in fleet.commands())
            cuts[step, sent] += 1
            life = commander.life(ref)
            if sum(event.final for event in life) != 1 or not life[-1].final:
                problems.append(f"{ref} ({step}, {how}): {[(event.kind, event.final) for event in life]}")
            if sent > 1:
                problems.append(f"{ref} ({step}, {how}): {sent} cuts: {fleet.commands()}")
            if final.kind == "verified" and not sent:
                problems.append(f"{ref} ({step}, {how}): verified, and nothing was sent")
        server = f"Redis {redis.client.info('server')['redis_version']}"
        about = f"Seed {SEED}. {machine(server, time.monotonic() - began)}"
        print(_table(finals, cuts, about), file=sys.stderr)
        self.assertEqual([], problems, f"GATEWAY_KILL_SEED={SEED}")
        self.assertEqual(0, redis.client.zcard("gateway:pending"))
        self.assertEqual([], [*redis.client.scan_iter("gateway:pending:*")])
        self.assertEqual(0, redis.client.xpending("gateway:command", "gateway")["pending"])
        self.assertEqual(0, redis.client.xlen("gateway:command"))

    def _kill(
        self, made: Gateway, client: Any, commander: Commander, step: str, ident: str, ref: str, random: Random
    ) -> None:
        """Give the command, and kill the gateway when it has come so far."""

        def give() -> None:
            commander.give(ident, "engine.stop", ref, ttl=TTL_S)

        if step in ("before read", "read"):
            made.signal(signal.SIGSTOP)
            give()
            if step == "read":  # what it would do next, in its name
                name = "kill" if made.workers == 1 else "kill/1"
                client.xreadgroup("gateway", name, {"gateway:command": ">"})
        else:
            give()
            self._until(step, lambda: commander.state(ref))
            time.sleep(random.choice((0.0, 0.0, 0.001, 0.01)))
        made.kill()

    def _until(self, step: str, state: Callable[[], str]) -> None:
        """Wait until a command has come to this step, or past it."""
        order = ("", "queued", "sending", "sent", "confirmed", "verified")
        past = {*order[order.index(step) :], "failed", "mismatch", "refused", "expired"}
        end = time.monotonic() + TTL_S
        while state() not in past and time.monotonic() < end:
            pass  # a step takes less than a millisecond


def _table(finals: Counter[tuple[str, str]], cuts: Counter[tuple[str, int]], about: str) -> str:
    """A line for each step: how often it was killed there, what became of the command, and how often it was sent."""
    kinds = sorted({kind for _, kind in finals})
    head = ["killed when", "runs", *kinds, "sent 0", "sent 1", "more"]
    lines = [head]
    for step in STEPS:
        runs = sum(count for (where, _), count in finals.items() if where == step)
        more = sum(count for (where, sent), count in cuts.items() if where == step and sent > 1)
        figures = [runs, *(finals[step, kind] for kind in kinds), cuts[step, 0], cuts[step, 1], more]
        lines.append([step, *map(str, figures)])
    lines.append(["all", *(str(sum(int(line[at]) for line in lines[1:])) for at in range(1, len(head)))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = " ".join("=" * width for width in widths)
    texts = [" ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rule, texts[0], rule, *texts[1:], rule, about])
