"""
A relay cut that falls back to SMS, while things break: it is told once at most, and has one outcome.

C{GATEWAY_CUTS} says how many, C{GATEWAY_CUT_SEED} which ones; with C{GATEWAY_LONG} there are a hundred, and other ones
each time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from random import Random, SystemRandom
from typing import Any, Final

from tests.integration.commands.commander import Commander
from tests.integration.faults.table import machine
from tests.integration.parts import wait_for
from tests.integration.sms.test_smpp import SMPPCase
from tests.integration.sms.trackers import Car, Phone, Trackers

LONG: Final = bool(os.environ.get("GATEWAY_LONG"))
CUTS: Final = int(os.environ.get("GATEWAY_CUTS") or (100 if LONG else 10))
SEED: Final = int(os.environ.get("GATEWAY_CUT_SEED") or (SystemRandom().randrange(2**32) if LONG else 1))

#: Cars of which each is cut, side by side; what breaks breaks for all of them.
AT_ONCE: Final = 5
TTL_S: Final = 20
#: Shorter than by default, so that what is left open comes to its end while somebody waits.
COMMANDS: Final = '[commands]\nenabled = ["engine.*"]\nguard_apart = 2.0\nanswer_within = 5.0\n'
FAULTS: Final = (
    *("nothing", "gateway killed", "gateway killed", "link dropped", "link dropped after", "silent", "throttled"),
    *("link cut", "Redis killed"),
)
#: Where the SMSC takes a text in, and where it may have.
GIVEN: Final = frozenset({"accept", "drop", "drop-after", "silent"})
MODES: Final = {"link dropped": "drop", "link dropped after": "drop-after", "silent": "silent", "throttled": "throttle"}


class CutTests(SMPPCase):
    """Cars that go out of coverage when they are to be cut."""

    def test_at_random(self) -> None:
        """Whatever breaks, no car is told twice, and each command ends once."""
        print(f"\n{CUTS} cuts, GATEWAY_CUT_SEED={SEED}", file=sys.stderr)
        began = time.monotonic()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.told: Counter[tuple[str, int]] = Counter()
        problems: list[str] = []
        smpp = "answer_within = 3.0\nper_second = 100.0\n"
        self.set_up('fallback_after = 1.0\nanswer_within = 5.0\nregion = "DE"\n', smpp=f"{smpp}{COMMANDS}")
        for number in range(0, CUTS, AT_ONCE):
            random = Random(f"{SEED} {number}")
            fault = FAULTS[number // AT_ONCE % len(FAULTS)] if number < AT_ONCE else random.choice(FAULTS)
            problems += self.round(number, min(AT_ONCE, CUTS - number), fault, random)
        server = f"Redis {self.server.client.info('server')['redis_version']}"
        print(self.table(machine(server, time.monotonic() - began)), file=sys.stderr)
        self.assertEqual([], problems, f"GATEWAY_CUT_SEED={SEED}")

    def round(self, number: int, count: int, fault: str, random: Random) -> list[str]:
        """Some cars, and something that breaks; what is wrong afterwards."""
        phones = [Phone(f"91720{number + n:05d}", f"+491520{number + n:07d}") for n in range(count)]
        for phone in phones:
            phone.loses = random.choice((0.0, 0.0, 0.3))
            self.server.client.hset(f"gateway:registry:{phone.ident}", "phone", phone.number)
        Trackers(self.peer, phones, seed=number)
        before = len(self.peer.heard)
        cars = [Car(phone, self.running.port) for phone in phones]
        for car in cars:
            car.start()
            self.addCleanup(car.end)
        client = self.server.client
        keys = [f"gateway:last:{phone.ident}" for phone in phones]
        wait_for("the cars to report", lambda: client.exists(*keys) == count, 20, detail=self.running.tail)
        time.sleep(4)  # the guard is met
        for car in cars:
            car.covered.clear()
        time.sleep(0.5)
        commander = Commander(client)
        if fault in MODES:
            self.peer.tell(mode=MODES[fault], count=random.choice((1, 2)))
        refs = {phone.ident: f"cut-{phone.ident}" for phone in phones}
        for phone in phones:
            commander.give(phone.ident, "engine.stop", refs[phone.ident], ttl=TTL_S, channel="auto")
        time.sleep(random.choice((0.2, 1.0, 1.1, 1.2, 1.4, 2.0)))
        self.break_something(fault)
        time.sleep(random.choice((2.0, 4.0, 8.0)))
        self.peer.tell(mode="accept")
        for car in cars:
            car.covered.set()
        found = []
        end = time.monotonic() + TTL_S + 30.0
        for car in cars:
            ref = refs[car.phone.ident]
            final = commander.final(ref, max(end - time.monotonic(), 1.0))
            life = [event for event in commander.life(ref) if event.kind[:4] != "sms."]
            given = [
                one
                for one in [heard["submit"] for heard in self.peer.heard[before:] if "submit" in heard]
                if one["to"] == car.phone.number[1:] and one["text"].startswith("940") and one["mode"] in GIVEN
            ]
            told = len(given) + car.cuts
            kinds = [event.kind for event in life]
            self.outcomes[fault, final.kind] += 1
            self.told[fault, told] += 1
            about = f"{ref} ({fault}): {kinds}, {len(given)} by SMS, {car.cuts} over data, cut: {car.phone.cut}"
            if told > 1:
                found.append(f"told more than once: {about}")
            if sum(event.final for event in life) != 1 or not life[-1].final:
                found.append(f"not one outcome: {about}")
            if kinds.count("verified") > 1 or (final.kind == "verified") != car.phone.cut:
                found.append(f"what is said is not what is: {about}")
        for car in cars:
            car.end()
        return found

    def break_something(self, fault: str) -> None:
        """What happens to all of them."""
        if fault == "gateway killed":
            self.running.kill()
            self.running.start()
        elif fault == "link cut":
            self.peer.tell(cut=True)
        elif fault == "Redis killed":
            self.server.signal(signal.SIGKILL)
            self.server.kill()
            time.sleep(0.5)
            self.server.start()

    def table(self, about: str) -> str:
        """What became of them."""
        kinds = sorted({kind for _, kind in self.outcomes})
        head = ["broken", "runs", *kinds, "told 0", "told 1", "more"]
        rows = [head]
        for fault in [*dict.fromkeys(fault for fault, _ in self.outcomes), "all"]:

            def count(counted: Counter[Any], *what: object, fault: str = fault) -> int:
                return sum(n for (f, w), n in counted.items() if fault in ("all", f) and w in what)

            runs = count(self.outcomes, *kinds)
            told = [count(self.told, 0), count(self.told, 1)]
            cells = [fault, runs, *(count(self.outcomes, kind) for kind in kinds), *told, runs - sum(told)]
            rows.append([str(cell) for cell in cells])
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        bar = " ".join("=" * w for w in wide)
        lines = [" ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)) for row in rows]
        return "\n".join(("", bar, lines[0], bar, *lines[1:], bar, "", f"Seed {SEED}. {about}"))
