"""
The scenarios of the simulator as they show on the streams of a real gateway.

All of them run at once against one gateway, before the first test; each test
then looks for what its scenario is about.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any, ClassVar, Final, NamedTuple

from gateway.simulator.scenarios import SCENARIOS
from tests.integration.parts import RealPartsTestCase, connect, entries, ledger
from tests.integration.simulated import Simulated

DEVICES: Final = 8
#: How many reports a device makes, one a second: as many as a scenario needs to show what it is about.
REPORTS: Final = 26
FEWER: Final = {"power-cut": 14}  # it has pauses
#: What needs datagrams to show.
OVER_UDP: Final = "noise over UDP"
#: A report that is so many seconds old is late, so that a few seconds without coverage are enough.
LATE_AFTER_S: Final = 4.0

OVERSPEED: Final = 1 << 2
ON_BACKUP_BATTERY: Final = 1 << 19
BATTERY_REMOVED: Final = 1 << 20
DELAYED: Final = 1 << 26
POWER_CUT: Final = 1 << 28


class Entry(NamedTuple):
    """An entry of a stream: its fields, and what is in C{data}."""

    fields: dict[str, str]
    data: dict[str, Any]

    @property
    def time(self) -> float:
        """When it happened."""
        return datetime.fromisoformat(self.fields["time"]).timestamp()

    @property
    def age(self) -> float:
        """How old it was when it was received."""
        return datetime.fromisoformat(self.fields["received"]).timestamp() - self.time

    @property
    def speed(self) -> float:
        """How fast the device was."""
        return float(self.fields["speed_kmh"])

    def has(self, conditions: int) -> bool:
        """Whether all of these bits of the status word are set, which is: are 0."""
        return int(self.fields["status_word"], 16) & conditions == 0


class Seen(NamedTuple):
    """What a scenario left: summaries of the fleet and, by device, entries of the streams."""

    summary: dict[str, Any]
    acknowledged: list[str]
    positions: dict[str, list[Entry]]
    events: dict[str, list[Entry]]


class ScenarioTests(RealPartsTestCase):
    """What is on the streams."""

    seen: ClassVar[dict[str, Seen]] = {}
    dead: ClassVar[list[Entry]] = []
    outcomes: ClassVar[dict[str, int]] = {}

    def setUp(self) -> None:
        """Let all scenarios run, the first time."""
        super().setUp()
        if not self.seen:
            self._run_all()

    def _run_all(self) -> None:
        redis = self.running_redis()
        running = self.running_gateway(redis.url, config=f"[events]\nlate_after = {LATE_AFTER_S}\n")
        fleets = {}
        for number, name in enumerate([*SCENARIOS, OVER_UDP]):
            fleets[name] = Simulated(
                self.directory,
                running.port,
                9_910_000_000 + number * 1_000,
                scenario="noise" if name == OVER_UDP else name,
                transport="udp" if name == OVER_UDP else "tcp",
                devices=DEVICES,
                interval=1,
                count=FEWER.get(name, REPORTS),
                seed=number,
                timeout=5,
            )
            self.addCleanup(fleets[name].child.kill)
        summaries = {name: fleet.summary(90.0) for name, fleet in fleets.items()}
        client = connect(redis.url)
        self.addCleanup(client.close)
        self.dead.extend(_entries(client, "gateway:dead"))
        self.outcomes.update(ledger(client))
        positions, events = (_by_device(_entries(client, f"gateway:{name}")) for name in ("position", "event"))
        for number, (name, fleet) in enumerate(fleets.items()):
            idents = [f"{9_910_000_000 + number * 1_000 + device:010d}" for device in range(DEVICES)]
            self.seen[name] = Seen(
                summaries[name],
                fleet.acknowledged(),
                {ident: positions[ident] for ident in idents},
                {ident: events[ident] for ident in idents},
            )

    def devices(self, name: str) -> Iterator[tuple[list[Entry], list[Entry]]]:
        """The positions and the events of each device of a scenario."""
        seen = self.seen[name]
        for ident, positions in seen.positions.items():
            yield positions, seen.events[ident]

    def test_nothing_lost(self) -> None:
        """
        In each scenario each report is acknowledged, and each that was acknowledged is on the stream once.

        Beside them are the frames that nobody acknowledges, once as well.
        """
        for name, seen in self.seen.items():
            expected = FEWER.get(name, REPORTS) * DEVICES
            self.assertEqual((0, 0, expected), (seen.summary["status"], seen.summary["lost"], len(seen.acknowledged)))
            times = Counter(entry.fields["id"] for entries in seen.positions.values() for entry in entries)
            self.assertEqual(set(), set(seen.acknowledged) - times.keys(), name)
            self.assertEqual(1, max(times.values()), name)
            told = seen.summary["told"]
            self.assertEqual(name == "power-up", told > 0, name)
            self.assertEqual(told, len(times.keys() - set(seen.acknowledged)), name)
            if name != "parked-frozen-clock":
                self.assertEqual(expected + told, len(times), name)

    def alarms(self, events: list[Entry], name: str) -> list[tuple[str, str]]:
        """Phase, and the report that they came with, of a device's alarms of one kind."""
        return [
            (entry.data["phase"], entry.data["position_id"])
            for entry in events
            if entry.fields["type"] == f"alarm.{name}"
        ]

    def begun(self, positions: list[Entry], level: str) -> str:
        """The id of the report with which a level comes on for the first time."""
        return next(entry.fields["id"] for entry in positions if level in entry.fields["levels"].split(","))

    def test_trip(self) -> None:
        """The ignition goes on, the car moves and stands on the way, and the ignition goes off."""
        stops, arrivals = 0, 0
        for positions, events in self.devices("trip"):
            self.assertEqual("0", positions[0].fields["ignition"])
            self.assertEqual({0.0}, {entry.speed for entry in positions if entry.fields["ignition"] == "0"})
            self.assertGreater(max(entry.speed for entry in positions), 20.0)
            changes = [entry.data["ignition"] for entry in events if entry.fields["type"] == "state.ignition"]
            self.assertEqual([True, False, True][: len(changes)], changes)
            self.assertTrue(changes)
            arrivals += len(changes) > 1
            standing = [bool(entry.speed) for entry in positions if entry.fields["ignition"] == "1"]
            stops += [moves for moves, _ in groupby(standing)].count(False) > 1
        self.assertGreater(arrivals, 0)
        self.assertGreater(stops, 0)

    def test_overspeed(self) -> None:
        """The level is on while the speed is above 120 km/h; the alarm is raised where that begins."""
        for positions, events in self.devices("overspeed"):
            for entry in positions:
                self.assertEqual(entry.speed > 120.0, entry.fields["levels"] == "overspeed", entry)
            begun = [
                after.fields["id"]
                for before, after in pairwise(positions)
                if after.speed > 120.0 and not before.speed > 120.0
            ]
            alarms = [entry.data for entry in events if entry.fields["type"] == "alarm.overspeed"]
            self.assertEqual([("raised", begun[0])], [(alarm["phase"], alarm["position_id"]) for alarm in alarms])
            self.assertGreater(alarms[0]["speed_kmh"], 120.0)

    def test_power_cut(self) -> None:
        """The cut is raised once, and shows in a few positions; then there are none for a while; then it is gone."""
        cut = POWER_CUT | BATTERY_REMOVED | ON_BACKUP_BATTERY
        for positions, events in self.devices("power-cut"):
            runs = [(shown, list(run)) for shown, run in groupby(positions, key=lambda entry: entry.has(cut))]
            self.assertEqual([False, True, False], [shown for shown, _ in runs[:3]])
            (_, before), (_, during), (_, after) = runs[:3]
            self.assertIn(len(during), range(2, 5))
            self.assertLess(during[0].time - before[-1].time, 1.5)
            self.assertGreater(after[0].time - during[-1].time, 2.5)
            self.assertFalse(any(entry.has(POWER_CUT) for entry in before + after))
            self.assertEqual([("raised", during[0].fields["id"])], self.alarms(events, "power.cut"))
            for entry in positions:
                self.assertEqual("0" if entry.has(cut) else "1", entry.fields["external_power"])

    def test_blind_area(self) -> None:
        """Positions with bit 26 come late, all of them and in order; those that came without it did not."""
        for positions, _ in self.devices("blind-area"):
            self.assertEqual([1.0] * (REPORTS - 1), [after.time - before.time for before, after in pairwise(positions)])
            for entry in positions:
                self.assertEqual("device" if entry.has(DELAYED) else "", entry.fields["late"], entry)
            late = [entry for entry in positions if entry.fields["late"]]
            runs = [list(run) for shown, run in groupby(positions, key=lambda entry: entry.has(DELAYED)) if shown]
            self.assertIn(len(runs[0]), range(7, 10))
            self.assertGreater(runs[0][0].age, runs[0][-1].age + 5.0)  # they came together
            self.assertGreater(len(late), 2)

    def test_fence(self) -> None:
        """Leaving the circle is raised where it happens, and so is entering the other one."""
        for positions, events in self.devices("fence"):
            for kind in ("geofence.exit", "geofence.enter"):
                first = self.alarms(events, kind)[0]
                self.assertEqual(("raised", self.begun(positions, kind)), first, kind)

    def test_sos(self) -> None:
        """The call is raised once, though it stands in several reports."""
        for positions, events in self.devices("sos"):
            self.assertEqual([("raised", self.begun(positions, "sos"))], self.alarms(events, "sos"))
            self.assertGreater(sum("sos" in entry.fields["levels"] for entry in positions), 1)

    def test_vibration(self) -> None:
        """The car is armed from the first report on; shock and theft are raised together."""
        for positions, events in self.devices("vibration"):
            armed = [(e.data["phase"], e.data["armed"]) for e in events if e.fields["type"] == "state.armed"]
            self.assertEqual([("active", True)], armed)
            for kind in ("vibration", "theft"):
                self.assertEqual([("raised", self.begun(positions, kind))], self.alarms(events, kind))

    def test_tamper(self) -> None:
        """Each fault is an alarm of its own, with its name."""
        for positions, events in self.devices("tamper"):
            found = [(e.data["phase"], e.data["name"]) for e in events if e.fields["type"] == "alarm.tamper"]
            names = ("antenna_open", "antenna_short", "receiver", "password")
            self.assertEqual([("raised", f"st907.{name}") for name in names], found)
            self.assertEqual({"tamper"}, {name for e in positions for name in e.fields["levels"].split(",") if name})

    def test_no_fix(self) -> None:
        """Without a fix there is no position, speed or overspeed, and cells are a status; then there is one again."""
        for positions, events in self.devices("no-fix"):
            self.assertEqual([], self.alarms(events, "overspeed"))
            blind = [entry for entry in positions if entry.fields["valid"] == "0"]
            cells = [entry for entry in positions if entry.fields["type"] == "status"]
            self.assertTrue(blind)
            self.assertTrue(cells)
            for entry in blind + cells:
                self.assertEqual(("", ""), (entry.fields["latitude"], entry.fields["speed_kmh"]))
            self.assertTrue(all("last_latitude" in entry.data and "last_fix_time" in entry.data for entry in blind))
            self.assertTrue(all(len(entry.data["cells"]) > 1 for entry in cells))
            after = positions[positions.index(cells[0]) :]
            self.assertEqual({"", "1"}, {entry.fields["valid"] for entry in after} - {"0"})

    def test_power_up(self) -> None:
        """The number of the SIM card is in V6; the change to another one is told once, with both."""
        for positions, events in self.devices("power-up"):
            cards = [entry.data["iccid"] for entry in positions if "iccid" in entry.data]
            changes = [e.data for e in events if e.fields["type"] == "device.sim.changed"]
            distinct = [*dict.fromkeys(cards)]
            self.assertGreater(len(distinct), 1)
            told = [(change["iccid_before"], change["iccid"]) for change in changes]
            self.assertEqual([*pairwise(distinct)], told)
            self.assertTrue(any(entry.fields["type"] == "status" and "csq" in entry.data for entry in positions))

    def test_parked_frozen_clock(self) -> None:
        """
        A car that stands, with reports of one time: those that differ are live positions with a frozen clock.

        The other reports are copies, which are counted; as status they are published when they are a minute apart.
        """
        for positions, _ in self.devices("parked-frozen-clock"):
            first, *others = positions
            self.assertEqual(2, len(others))
            self.assertNotIn("clock", first.data)
            for entry in others:
                self.assertEqual(("frozen", "server"), (entry.data["clock"], entry.data["time_source"]))
                self.assertEqual(first.fields["time"], entry.data["device_time"])
                self.assertEqual("", entry.fields["late"])
                for name in ("latitude", "longitude", "speed_kmh", "ignition"):
                    self.assertEqual(first.fields[name], entry.fields[name])
        sent_again = sum(seen.summary["resent"] for seen in self.seen.values())
        self.assertIn(self.outcomes["duplicate"] - (REPORTS - 3) * DEVICES, range(sent_again + 1))

    def test_binary(self) -> None:
        """Positions as in a trip, from frames of kind $ with what only those have."""
        for positions, events in self.devices("binary"):
            self.assertEqual({"$"}, {entry.data["message_type"] for entry in positions})
            self.assertEqual({6}, {entry.data["battery_raw"] for entry in positions})
            self.assertGreater(max(entry.speed for entry in positions), 20.0)
            self.assertTrue(any(entry.fields["type"] == "state.ignition" for entry in events))

    def test_standing(self) -> None:
        """Valid positions of one place with the ignition on and speed 0, one each second."""
        for positions, _ in self.devices("standing"):
            self.assertEqual([1.0] * (REPORTS - 1), [after.time - before.time for before, after in pairwise(positions)])
            places = {(e.fields["valid"], e.fields["ignition"], e.speed, e.fields["latitude"]) for e in positions}
            self.assertEqual([("1", "1", 0.0)], [place[:3] for place in places])

    def test_driving(self) -> None:
        """Valid positions, each faster than 50 km/h, without an overspeed alarm."""
        for positions, events in self.devices("driving"):
            self.assertEqual({"1"}, {entry.fields["valid"] for entry in positions})
            self.assertGreater(min(entry.speed for entry in positions), 50.0)
            self.assertEqual([], self.alarms(events, "overspeed"))

    def test_stale_fix(self) -> None:
        """One valid position, and then reports that say where that was."""
        for positions, _ in self.devices("stale-fix"):
            first, *others = positions
            self.assertEqual(("1", 0.0), (first.fields["valid"], first.speed))
            self.assertEqual({("0", "")}, {(entry.fields["valid"], entry.fields["latitude"]) for entry in others})
            self.assertEqual(
                {(float(first.fields["latitude"]), first.fields["time"])},
                {(entry.data["last_latitude"], entry.data["last_fix_time"]) for entry in others},
            )

    def test_storm(self) -> None:
        """Every four seconds all devices come from another port, all at the same time."""
        moments = defaultdict(list)
        for positions, _ in self.devices("storm"):
            runs = [list(run) for _, run in groupby(positions, key=lambda entry: entry.fields["peer"])]
            self.assertIn(len(runs), range(REPORTS // 4, REPORTS // 4 + 2))
            for number, run in enumerate(runs):
                moments[number].append(run[0].time)
        for number in range(1, REPORTS // 4):
            self.assertEqual(DEVICES, len(moments[number]))
            self.assertLess(max(moments[number]) - min(moments[number]), 1.5)

    def test_noise(self) -> None:
        """Wrong clocks are refused or corrected, junk is kept as undecodable, and the good frames are all there."""
        year = 365 * 86_400
        for positions, _ in [*self.devices("noise"), *self.devices(OVER_UDP)]:
            self.assertEqual(REPORTS, len(positions))
            sources = Counter(entry.data.get("time_source") for entry in positions)
            self.assertEqual({None, "server", "device-corrected"}, sources.keys())
            for entry in positions:
                if entry.data.get("time_source") == "server":
                    ahead = datetime.fromisoformat(entry.data["device_time"]).timestamp() - entry.time
                    self.assertLess(abs(ahead - year), LATE_AFTER_S)
        kinds = Counter((entry.fields["type"], entry.data["transport"]) for entry in self.dead)
        expected = {("frame.undecodable", "tcp"), ("frame.undecodable", "udp"), ("frame.unrecognised", "udp")}
        self.assertEqual(expected, kinds.keys(), kinds)
        junk = [bytes.fromhex(entry.data["frame"]) for entry in self.dead]
        self.assertTrue(any(data.startswith(b"GET / HTTP") for data in junk))
        self.assertTrue(any(data.startswith(b"*HQ,99100") and b"#" not in data for data in junk))


def _entries(client: Any, stream: str) -> list[Entry]:
    return [Entry(fields, json.loads(fields["data"])) for fields in entries(client, stream)]


def _by_device(found: list[Entry]) -> dict[str, list[Entry]]:
    devices = defaultdict(list)
    for entry in found:
        devices[entry.fields["ident"]].append(entry)
    return devices
