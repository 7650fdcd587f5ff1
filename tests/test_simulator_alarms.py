"""The scenarios with alarms, gaps in the fixes and SIMs, by what their devices send."""

from __future__ import annotations

import re
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from gateway.simulator import frames
from gateway.simulator.alarms import FAULTS
from gateway.simulator.roads import METRES_PER_DEGREE
from gateway.simulator.steps import Link
from tests.simulator_fakes import knots, steps, unit, word

#: Half a minute, and an hour.
INTERVALS = (1.0, 10.0, 60.0)


def kinds(name: str, count: int) -> list[str]:
    """The types of the reports of a scenario, V1 without a fix as V."""
    types = []
    for step in steps(name, count):
        fields = step.frame.decode().split(",")
        types.append("V" if fields[2] == "V1" and fields[4] == "V" else fields[2])
    return types


def shown(name: str, count: int, interval: float, **letters: int) -> str:
    """A letter a report, of the conditions that it shows; a dot for none, a question mark for anything else."""
    text = ""
    ignition = frames.ACC_OFF | frames.ENGINE_ON
    for step in steps(name, count, unit(interval=interval)):
        conditions = word(step.frame) & ~ignition
        found = [letter for letter, bits in letters.items() if bits == conditions]
        text += found[0] if found else "?" if conditions else "."
    return text


class AlarmTests(SynchronousTestCase):
    """Bits of the status word, for a few reports, and then not."""

    def test_fence(self) -> None:
        """Bit 7 outside the circle around its home, bit 4 also in the forbidden one; and back, again and again."""
        leaving, both = frames.FENCE_EXIT, frames.FENCE_EXIT | frames.FENCE_ENTER
        for interval in INTERVALS:
            text = shown("fence", 300, interval, x=leaving, b=both)
            self.assertRegex(text, r"^(\.{3,}x{2,}b{2,}x+){3,}")
            self.assertEqual({".", "x", "b"}, set(text))

    def test_fence_in_half_a_minute(self) -> None:
        """With a report a second, it is out and back within half a minute."""
        for seed in range(20):
            conditions = [word(step.frame) for step in steps("fence", 25, unit(seed, 1.0))]
            outside = [bool(bits & frames.FENCE_EXIT) for bits in conditions]
            self.assertEqual([False, True, False], [now for now, before in pairwise([*outside, None]) if now != before])

    def test_fence_is_a_circle(self) -> None:
        """Every report of the first lap with the bit is farther from home than those without."""
        made = [step.frame for step in steps("fence", 60, unit(interval=10.0))]
        text = shown("fence", 60, 10.0, x=frames.FENCE_EXIT, b=frames.FENCE_EXIT | frames.FENCE_ENTER)
        lap = re.match(r"\.+x+b+x+\.", text)
        assert lap is not None
        places = [frame.split(b",")[5:9] for frame in made[: lap.end()]]
        home = places[0]
        away: dict[str, list[float]] = {".": [], "x": [], "b": []}
        for letter, place in zip(text, places, strict=False):
            north, east = (
                (float(place[n][-7:]) - float(home[n][-7:]) + 60 * (int(place[n][:-7]) - int(home[n][:-7])))
                / 60
                * METRES_PER_DEGREE
                for n in (0, 2)
            )
            away[letter].append((north**2 + (east * 0.61) ** 2) ** 0.5)  # the cosine of the latitude of Berlin
        self.assertLess(max(away["."]), min(away["x"]))
        self.assertLess(max(away["x"]), min(away["b"]))

    def test_fence_for_a_day(self) -> None:
        """It does not wander off: the way back of one lap is the way out of the next."""
        made = steps("fence", 8_640, unit(interval=10.0))
        latitudes = [float(step.frame.split(b",")[5]) for step in made]
        self.assertLess(max(latitudes) - min(latitudes), 20.0)  # minutes

    def test_sos(self) -> None:
        """A few reports with bit 1."""
        for interval in INTERVALS:
            self.assertRegex(shown("sos", 200, interval, s=frames.SOS), r"^(\.{7,9}s{2,4}){10,}")

    def test_vibration(self) -> None:
        """Parked, always armed, and bits 17 and 0 in some reports."""
        at_the_car = frames.ARMED | frames.VIBRATION | frames.THEFT
        for interval in INTERVALS:
            text = shown("vibration", 100, interval, a=frames.ARMED, v=at_the_car)
            self.assertRegex(text, r"^(a{7,9}v{3,5}){6,}")
        made = [step.frame for step in steps("vibration", 100)]
        self.assertEqual({0.0}, set(map(knots, made)))
        self.assertTrue(all(word(frame) & frames.ACC_OFF for frame in made))

    def test_tamper(self) -> None:
        """One fault after the other, each in some reports, with calm between; without a receiver there is no fix."""
        letters = dict(zip("osrp", (bits for bits, _ in FAULTS), strict=True))
        for interval in INTERVALS:
            text = shown("tamper", 100, interval, **letters)
            self.assertRegex(text, r"^(\.{2,3}o{2,3}\.{2,3}s{2,3}\.{2,3}r{2,3}\.{2,3}p{2,3}){3,}")
        for step in steps("tamper", 100):
            fix = step.frame.split(b",")[4] == b"A"
            self.assertEqual(not word(step.frame) & frames.RECEIVER_FAULT, fix)


class GapTests(SynchronousTestCase):
    """No fix, and no power."""

    def test_no_fix(self) -> None:
        """Some reports with a fix, some that repeat the last one, some with cells, and again."""
        letters = {"V1": "A", "V": "V", "NBR": "N"}
        text = "".join(letters[kind] for kind in kinds("no-fix", 200))
        self.assertRegex(text, r"^(A{4,}V{3,5}N{3,5}){5,}")

    def test_repeated(self) -> None:
        """What is repeated is the last fix with its speed, which is not 0, at another time."""
        for interval in INTERVALS:
            made = [step.frame.split(b",") for step in steps("no-fix", 100, unit(interval=interval))]
            for before, after in pairwise(made):
                if after[4] == b"V":
                    self.assertEqual(before[5:11], after[5:11])
                    self.assertGreater(float(after[9]), 0.0)
                    self.assertNotEqual(before[3], after[3])

    def test_power_up(self) -> None:
        """V6 comes before the first report, and again with another SIM on another connection; between V19 and LINK."""
        tracker = unit(interval=1.0)
        sims, types, told = [], set(), []
        for number, step in enumerate(steps("power-up", 60, tracker)):
            tracker.due(step)
            told.append(tracker.told(step))
            for frame in told[-1]:
                fields = frame.decode().split(",")
                types.add(fields[2])
                if fields[2] == "V6":
                    sims.append(fields[-2])
                    self.assertEqual(Link.CUT if number else Link.KEEP, step.link)
                if fields[2] == "V19":
                    self.assertEqual(sims[-1], fields[-2])
        self.assertEqual({"V6", "V19", "LINK"}, types)
        self.assertGreater(len(sims), 4)
        self.assertEqual(len(sims), len(set(sims)))
        self.assertIn(b",V6,", told[0][0])
        self.assertTrue(any(b",V6," in frame for one in told[9:26] for frame in one))

    def test_battery_charges(self) -> None:
        """After power-up the battery is said, and rises to 6."""
        made = [step.frame.rstrip(b"#").split(b",") for step in steps("power-up", 9)]
        levels = [int(fields[17]) for fields in made]
        self.assertEqual((4, 6, sorted(levels)), (levels[0], levels[-1], levels))
