"""The 32 bits of the status word, from whole frames to stream entries: each row of the table of st907.md 4.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.fields import rfc3339
from tests.fakes import NOON
from tests.wire import Entry, WireCase, binary, edges_of, odd_text, report_of, text

ALL: Final = 0xFFFF_FFFF
#: The forms in which a device sends one and the same word.
FORMS: Final[tuple[Callable[..., bytes], ...]] = (text, odd_text, binary)


def word(*bits: int) -> str:
    """A status word with these bits low, which is: with these conditions there."""
    value = ALL
    for bit in bits:
        value &= ~(1 << bit)
    return f"{value:08X}"


class Row(NamedTuple):
    """
    A row of the table.

    @ivar alarm: the type of the entry that its bit leads to; empty: to none, ever.
    @ivar phase: of that entry.
    @ivar levels: the column of the report; empty: nothing is on.
    @ivar name: C{data.name} of the alarm; C{io}: what C{data.io} shows.
    @ivar columns: columns of the report that are not as in a normal one.
    """

    bit: int
    verdict: str
    alarm: str = ""
    phase: str = ""
    levels: str = ""
    name: str | None = None
    io: str = ""
    columns: dict[str, str] = {}


UNFED: Final = {"external_power": "0"}

# The verdicts are those of the last column, and section 4.5.
# fmt: off
ROWS: Final = (
    Row(31, "low-level sensor 1 grounded: ignore, keep raw", io="sensor1_low"),
    Row(30, "high-level sensor 2 high: an input, not an alarm", io="sensor2_high"),
    Row(29, "high-level sensor 1 high: ignore", io="sensor1_high"),
    Row(28, "main power cut", "alarm.power.cut", "raised", "power.cut", columns=UNFED),
    Row(27, "immobilizer on", "state.immobilizer", "raised", columns={"immobilizer": "1"}),
    Row(26, "this record was delayed", columns={"late": "device"}),
    Row(25, "three wrong passwords: a tamper hint", "alarm.tamper", "raised", "tamper", "st907.password"),
    Row(24, "temperature alarm: ignore on an ST-907"),
    Row(23, "input 2 or low battery: exposed, nobody is paged", io="input2_or_battery_low"),
    Row(22, "GPS antenna short", "alarm.tamper", "raised", "tamper", "st907.antenna_short"),
    Row(21, "GPS antenna open", "alarm.tamper", "raised", "tamper", "st907.antenna_open"),
    Row(20, "battery removed: a power state that pairs with 19", io="battery_removed"),
    Row(19, "on the internal battery: external power lost", "alarm.power.cut", "raised", "power.cut", columns=UNFED),
    Row(18, "reserved: never an SOS of a SinoTrack"),
    Row(17, "shock, vibration", "alarm.vibration", "raised", "vibration"),
    Row(16, "GPS receiver fault", "alarm.tamper", "raised", "tamper", "st907.receiver"),
    Row(15, "overspeed as a state: a secondary source", "alarm.overspeed", "raised", "overspeed"),
    Row(14, "custom alarm: not an alarm, keep raw"),
    Row(13, "engine on: complementary to bit 10"),
    Row(12, "reserved: ignore"),
    Row(11, "reserved: ignore"),
    Row(10, "0: ignition off", "state.ignition", "cleared", columns={"ignition": "0"}),
    Row(9, "armed", "state.armed", "raised", "armed"),
    Row(8, "door open", "alarm.door", "raised", "door"),
    Row(7, "geofence exit", "alarm.geofence.exit", "raised", "geofence.exit"),
    Row(6, "GPS antenna short alarm", "alarm.tamper", "raised", "tamper", "st907.antenna_short"),
    Row(5, "GPS antenna open alarm", "alarm.tamper", "raised", "tamper", "st907.antenna_open"),
    Row(4, "geofence enter", "alarm.geofence.enter", "raised", "geofence.enter"),
    Row(3, "illegal ignition", "alarm.ignition.illegal", "raised", "ignition.illegal"),
    Row(2, "overspeed", "alarm.overspeed", "raised", "overspeed"),
    Row(1, "robbery, SOS", "alarm.sos", "raised", "sos"),
    Row(0, "theft: door or vibration while armed", "alarm.theft", "raised", "theft"),
)


class Observed(NamedTuple):
    """A word that was seen: the bits that are low, what of it is a level, and the columns that follow."""

    word: str
    bits: tuple[int, ...]
    context: str
    levels: str
    ignition: str = "0"
    columns: dict[str, str] = {}


LATE: Final = {"late": "device"}

OBSERVED: Final = (
    Observed("FFFFFFFF", (), "ACC on, old firmware", "", "1"),
    Observed("FFFFFBFF", (10,), "ACC off, the commonest word", ""),
    Observed("FFFFBBFF", (14, 10), "ST-901, ACC wire unconnected", ""),
    Observed("FBFFBBFF", (26, 14, 10), "first frame of a connection", "", columns=LATE),
    Observed("FFFFDFFF", (13,), "ACC on, newer firmware", "", "1"),
    Observed("FFFF9FFF", (14, 13), "ACC on, ENG fleet", "", "1"),
    Observed("FFFF9FFB", (14, 13, 2), "+ overspeed", "overspeed", "1"),
    Observed("FFFFB9FF", (14, 10, 9), "ACC off, armed", "armed"),
    Observed("FFFFF9FF", (10, 9), "ACC off, armed", "armed"),
    Observed("FBFFB9FF", (26, 14, 10, 9), "after link loss, armed", "armed", columns=LATE),
    Observed("FBFFF9FF", (26, 10, 9), "after link loss, armed (V8)", "armed", columns=LATE),
    Observed("FBF7B9FF", (26, 19, 14, 10, 9), "after link loss, on battery, armed", "armed,power.cut",
             columns={**LATE, **UNFED}),
    Observed("FFF7FBFF", (19, 10), "on backup battery, just powered up", "power.cut", columns=UNFED),
    Observed("FFF7BBFF", (19, 14, 10), "on backup battery", "power.cut", columns=UNFED),
    Observed("FFE7FBFF", (20, 19, 10), "power lost", "power.cut", columns=UNFED),
    Observed("EFE7FBFF", (28, 20, 19, 10), "power cut alarm, on battery", "power.cut", columns=UNFED),
    Observed("EFE7F9FF", (28, 20, 19, 10, 9), "power cut alarm, on battery, armed", "armed,power.cut", columns=UNFED),
    Observed("EFFFFBFF", (28, 10), "power cut alarm", "power.cut", columns=UNFED),
    Observed("EEE7FBDF", (28, 24, 20, 19, 10, 5), "Prime-07", "power.cut,tamper", columns=UNFED),
    Observed("FFFFFBFD", (10, 1), "SOS", "sos"),
    Observed("F7FFFBFF", (27, 10), "relay cut, ACC off", "", columns={"immobilizer": "1"}),
    Observed("F7FFFFFF", (27,), "relay cut", "", "1", {"immobilizer": "1"}),
    Observed("BFFFFBFF", (30, 10), "constant on some 4209... units", ""),
    Observed("FF7FFBFF", (23, 10), "5905101893", ""),
    Observed("FFFBFFFF", (18,), "constant on some IMEI units", "", "1"),
    Observed("FFFEFBFF", (16, 10), "GPS fault", "tamper"),
    Observed("FFFFFFEF", (4,), "no-fix sample", "geofence.enter", "1"),
    Observed("FFFFF7FF", (11,), "all-empty sample", "", "1"),
)
# fmt: on


def phases(found: list[Entry], kind: str) -> list[str]:
    """The phases of the entries of one type, in order."""
    return [entry.data["phase"] for entry in found if entry.type == kind]


class RowTests(WireCase):
    """Each bit alone, low in a report after a normal one, in each of the three forms of a report."""

    def lead(self, form: Callable[..., bytes], row: Row) -> tuple[Entry, list[Entry]]:
        """The report with the bit of this row low, and what else it leads to."""
        self.sink.stored.clear()
        self.start()
        self.send(form(word(), -10), -10)
        found = self.send(form(word(row.bit), 0), 0)
        return report_of(found), edges_of(found)

    def differs(self, form: Callable[..., bytes], row: Row) -> list[str]:
        """What is not as the row has it."""
        report, edges = self.lead(form, row)
        wanted = [(row.alarm, row.phase)] if row.alarm else []
        wrong = [] if (found := [edge.edge for edge in edges]) == wanted else [f"leads to {found}, not {wanted}"]
        columns = {
            "status_word": word(row.bit), "levels": row.levels, "external_power": "1", "ignition": "1",
            "immobilizer": "0", "late": "", "valid": "1", **row.columns,
        }  # fmt: skip
        shown = {name: report.fields[name] for name in columns}
        if shown != columns:
            wrong.append(f"columns {shown}, not {columns}")
        io = {row.io: True} if row.io else None
        if report.data.get("io") != io:
            wrong.append(f"io {report.data.get('io')}, not {io}")
        for edge in edges:
            at = {"position_id": report.fields["id"], "since": rfc3339(NOON), "origin": "device", "name": row.name}
            got = {name: edge.data.get(name) for name in at}
            if got != at:
                wrong.append(f"{edge.type} says {got}, not {at}")
            if (edge.data["latitude"], edge.data["valid"]) != (42.352832, True):
                wrong.append(f"{edge.type} happened at {edge.data}")
            kind, _, state = edge.type.partition(".")
            if kind == "state" and edge.data[state] is not (row.phase == "raised"):
                wrong.append(f"{edge.type} is {edge.data[state]}")
        return wrong

    def test_rows(self) -> None:
        """Each of the 32 bits leads to its alarm or state and no other, or to none, and stands raw in the word."""
        self.assertEqual(list(range(31, -1, -1)), [row.bit for row in ROWS])
        wrong = [
            f"bit {row.bit} ({row.verdict}), {form.__name__}: {fault}"
            for row in ROWS
            for form in FORMS
            for fault in self.differs(form, row)
        ]
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_all_at_once(self) -> None:
        """A word with every condition there raises each of its alarms, once: none hides another (trap 1)."""
        wanted = sorted({(row.alarm, row.name or "") for row in ROWS if row.alarm})
        self.send(text(word(), -10), -10)
        found = edges_of(self.send(text(word(*set(range(32)) - {26}), 0), 0))
        self.assertEqual(wanted, sorted((entry.type, entry.data.get("name", "")) for entry in found))

    def test_never_alarms(self) -> None:
        """Bits 11, 12, 13, 14, 18, 24 and 30 are constant on whole fleets: alone or together they never alarm."""
        quiet = (11, 12, 13, 14, 18, 24, 30)
        for bits in (*((bit,) for bit in quiet), quiet):
            self.sink.stored.clear()
            self.start()
            first = self.send(text(word(*bits), -10), -10)
            # on first contact the ignition is news, nothing else
            self.assertEqual([("state.ignition", "active")], [edge.edge for edge in edges_of(first)], bits)
            self.assertEqual([], edges_of(self.send(text(word(), 0), 0)), bits)
            found = self.send(text(word(*bits), 10), 10)
            self.assertEqual(([], ""), (edges_of(found), report_of(found).fields["levels"]), bits)
            self.assertEqual(word(*bits), report_of(found).fields["status_word"])


class ObservedTests(WireCase):
    """The words of section 4.3, as they were seen in captures."""

    def test_bits(self) -> None:
        """Each word has the bits low that the table says."""
        for seen in OBSERVED:
            self.assertEqual(word(*seen.bits), seen.word, seen.context)

    def test_observed(self) -> None:
        """Each leads to its levels, ignition, relay and power, in each form of a report, and stands raw in a column."""
        wrong = []
        for seen in OBSERVED:
            for form in FORMS:
                self.sink.stored.clear()
                self.start()
                report = report_of(self.send(form(seen.word, 0), 0))
                columns = {
                    "status_word": seen.word, "levels": seen.levels, "ignition": seen.ignition, "immobilizer": "0",
                    "external_power": "1", "late": "", **seen.columns,
                }  # fmt: skip
                got = {name: report.fields[name] for name in columns}
                got["levels"] = ",".join(sorted(got["levels"].split(","))) if got["levels"] else ""
                if got != columns:
                    wrong.append(f"{seen.word} ({seen.context}), {form.__name__}: {got}, not {columns}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_lower_case(self) -> None:
        """A word in lower case is the same word, and is published in upper case (trap 19)."""
        report = report_of(self.send(text("ffff9ffb"), 0))
        self.assertEqual(("FFFF9FFB", "overspeed"), (report.fields["status_word"], report.fields["levels"]))


class EdgeTests(WireCase):
    """When an alarm begins and ends."""

    def test_raised_and_cleared_by_a_report(self) -> None:
        """An alarm is raised once while it lasts, and cleared by the first report a minute after it was last there."""
        self.send(text(word(), 0), 0)
        found = []
        for seconds, bits in ((10, (2,)), (20, (2,)), (30, (2,)), (40, ()), (50, ()), (90, ()), (100, ())):
            found += edges_of(self.send(text(word(*bits), seconds), seconds))
        self.assertEqual(["raised", "cleared"], phases(found, "alarm.overspeed"))
        raised, cleared = found
        self.assertEqual(rfc3339(NOON + 10), raised.data["since"])
        self.assertEqual(raised.fields["id"], cleared.data["raised_id"])
        self.assertEqual(30, cleared.data["duration_s"])
        self.assertEqual((rfc3339(NOON + 90), rfc3339(NOON + 40)), (cleared.fields["time"], cleared.data["since"]))

    def test_cleared_by_time(self) -> None:
        """An alarm that went away just before its device fell silent is cleared after the hold-off, and once."""
        self.send(text(word(), 0), 0)
        self.send(text(word(17), 10), 10)
        self.assertEqual([], edges_of(self.send(text(word(), 20), 20)))
        self.assertEqual([], self.tick(69))
        self.assertEqual([("alarm.vibration", "cleared")], [entry.edge for entry in self.tick(71)])
        self.assertEqual([], self.tick(100))

    def test_flickers(self) -> None:
        """A bit that flips from report to report is one alarm."""
        self.send(text(word(), 0), 0)
        found = []
        for number in range(1, 20):
            found += edges_of(self.send(text(word(*((2,) if number % 2 else ())), 10 * number), 10 * number))
        self.assertEqual(["raised"], phases(found, "alarm.overspeed"))

    def test_states_have_no_hold_off(self) -> None:
        """Relay, arming and ignition are published on every change, at once."""
        self.send(text(word(), 0), 0)
        for bit, kind in ((9, "state.armed"), (27, "state.immobilizer")):
            on = edges_of(self.send(text(word(bit), bit * 10), bit * 10))
            off = edges_of(self.send(text(word(), bit * 10 + 1), bit * 10 + 1))
            self.assertEqual([(kind, "raised"), (kind, "cleared")], [entry.edge for entry in on + off])
            name = kind.partition(".")[2]
            self.assertEqual([True, False], [entry.data[name] for entry in on + off])
        off = edges_of(self.send(text(word(10), 400), 400))
        on = edges_of(self.send(text(word(), 401), 401))
        self.assertEqual(
            [("cleared", False), ("raised", True)], [(e.data["phase"], e.data["ignition"]) for e in off + on]
        )

    def test_active_on_first_contact(self) -> None:
        """What is on when a device turns up that nobody knew was on nobody knows since when: it is active."""
        found = edges_of(self.send(text(word(2, 19, 27), 0), 0))
        wanted = {"alarm.overspeed", "alarm.power.cut", "state.immobilizer", "state.ignition"}
        self.assertEqual({(kind, "active") for kind in wanted}, {entry.edge for entry in found})
        again = self.send(text(word(2, 19, 27), 10), 10)
        self.assertEqual([], edges_of(again))

    def test_raised_after_first_contact(self) -> None:
        """What was off on first contact is raised when it comes on, not active."""
        self.send(text(word(), 0), 0)
        self.assertEqual(["raised"], phases(self.send(text(word(1), 10), 10), "alarm.sos"))

    def test_tampers_are_apart(self) -> None:
        """Two kinds of tampering are two alarms with names of their own; both bits of one kind are one alarm."""
        self.send(text(word(), 0), 0)
        found = edges_of(self.send(text(word(5, 21, 25), 10), 10))
        self.assertEqual(
            {("alarm.tamper", "st907.antenna_open"), ("alarm.tamper", "st907.password")},
            {(entry.type, entry.data["name"]) for entry in found},
        )
        self.assertEqual(2, len(found))
        # the antenna's alarm goes out, its state stays: nothing ends
        found = edges_of(self.send(text(word(21, 25), 80), 80)) + self.tick(200)
        self.assertEqual([], found)


class LateTests(WireCase):
    """Reports of a buffer."""

    def test_bit_26(self) -> None:
        """An alarm of a record that its device calls delayed is published as late, and changes nothing of now."""
        self.send(text(word(), 0), 0)
        found = self.send(text(word(26, 2), 10), 10)
        self.assertEqual("device", report_of(found).fields["late"])
        (alarm,) = edges_of(found)
        self.assertEqual(("alarm.overspeed", "raised", "device"), (*alarm.edge, alarm.data["late"]))
        # live: still off, so that the next one is raised, and there is nothing to clear
        self.assertEqual([], edges_of(self.send(text(word(), 20), 20)) + self.tick(100))
        self.assertEqual(["raised"], phases(self.send(text(word(2), 110), 110), "alarm.overspeed"))

    def test_bit_26_ends_nothing(self) -> None:
        """A delayed record without an alarm does not end the one that is on now, nor does it change a state."""
        self.send(text(word(), 0), 0)
        self.send(text(word(2, 27, 9), 10), 10)
        found = self.send(text(word(26, 10), 11), 100) + self.tick(300)
        self.assertEqual([], edges_of(found))
        self.assertEqual([], edges_of(self.send(text(word(2, 27, 9), 310), 310)))

    def test_first_frame_of_a_connection(self) -> None:
        """A device whose first frame is a delayed one: the live state begins with the first that is not."""
        self.assertEqual([], edges_of(self.send(text("FBFFBBFF", 0), 0)))
        found = edges_of(self.send(text("FFFF9FFB", 10), 10))
        self.assertEqual({("state.ignition", "active"), ("alarm.overspeed", "active")}, {e.edge for e in found})

    def test_older_than_the_newest(self) -> None:
        """A record that is older than the newest is late by its order, and so are its alarms."""
        self.send(text(word(), 60), 60)
        found = self.send(text(word(1, 28), 30), 61)
        self.assertEqual("order", report_of(found).fields["late"])
        self.assertEqual({"order"}, {entry.data["late"] for entry in edges_of(found)})
        self.assertEqual({"alarm.sos", "alarm.power.cut"}, {entry.type for entry in edges_of(found)})
        self.assertEqual(["raised"], phases(self.send(text(word(1), 70), 70), "alarm.sos"))

    def test_long_before_its_receipt(self) -> None:
        """A record of minutes ago is late by its lag."""
        self.send(text(word(), 0), 0)
        found = self.send(text(word(3), 100), 300)
        self.assertEqual("lag", report_of(found).fields["late"])
        self.assertEqual([("alarm.ignition.illegal", "lag")], [(e.type, e.data["late"]) for e in edges_of(found)])

    def test_a_run_raises_once(self) -> None:
        """A buffer in which an alarm was on for many records raises it once; the next time in it once more."""
        self.send(text(word(), 0), 0)
        found = []
        for number, bits in enumerate(((2,), (2,), (2,), (), (), (2,), (2,))):
            found += edges_of(self.send(text(word(26, *bits), 10 + number), 30 + number))
        self.assertEqual(["raised", "raised"], phases(found, "alarm.overspeed"))
        self.assertEqual({"device"}, {entry.data["late"] for entry in found})

    def test_states_of_late_records(self) -> None:
        """The relay and the ignition of a delayed record are columns of it, and no change of now."""
        self.send(text(word(), 0), 0)
        found = self.send(text(word(26, 27, 10), 10), 10)
        report = report_of(found)
        self.assertEqual(("0", "1"), (report.fields["ignition"], report.fields["immobilizer"]))
        self.assertEqual([], edges_of(found))


class RestartTests(WireCase):
    """A gateway that ends and starts again."""

    def test_goes_on(self) -> None:
        """An alarm that was on before a restart is not raised again, and is cleared with the id that raised it."""
        self.send(text(word(), 0), 0)
        (raised,) = edges_of(self.send(text(word(19), 10), 10))
        self.restart(seconds=20)
        self.assertEqual([], edges_of(self.send(text(word(19), 20), 20)))
        self.assertEqual([], edges_of(self.send(text(word(), 30), 30)))
        (cleared,) = edges_of(self.send(text(word(), 100), 100))
        self.assertEqual(("alarm.power.cut", "cleared"), cleared.edge)
        self.assertEqual((raised.fields["id"], 20), (cleared.data["raised_id"], cleared.data["duration_s"]))

    def test_within_the_hold_off(self) -> None:
        """A hold-off goes on over a restart, and ends the alarm without a further report."""
        self.send(text(word(), 0), 0)
        self.send(text(word(2), 10), 10)
        self.send(text(word(), 20), 20)
        self.restart(seconds=30)
        found = edges_of(self.send(text(word(), 30), 30)) + self.tick(75)
        self.assertEqual(["cleared"], phases(found, "alarm.overspeed"))

    def test_comes_on_during_a_restart(self) -> None:
        """What was off before a restart and is on after it is raised."""
        self.send(text(word(), 0), 0)
        self.restart(seconds=30)
        self.assertEqual([("alarm.power.cut", "raised")], [e.edge for e in edges_of(self.send(text(word(28), 30), 30))])

    def test_state_lost(self) -> None:
        """When nothing is kept of a known device, what is on is active, and what is off is no news."""
        self.send(text(word(), 0), 0)
        self.send(text(word(19), 10), 10)
        self.restart(lose=True, seconds=20)
        found = edges_of(self.send(text(word(19), 20), 20))
        self.assertEqual({("alarm.power.cut", "active"), ("state.ignition", "active")}, {e.edge for e in found})
        self.assertEqual([], edges_of(self.send(text(word(), 30), 30)))

    def test_state_that_is_garbage(self) -> None:
        """A stored state that somebody else wrote is as good as none: active, and no frame is lost."""
        self.send(text(word(), 0), 0)
        self.restart(seconds=20)
        stored = self.sink.stored["9170225361"]
        self.sink.stored["9170225361"] = stored._replace(state='{"levels": 5}')
        found = edges_of(self.send(text(word(1), 20), 20))
        self.flushLoggedErrors()
        self.assertIn(("alarm.sos", "active"), {entry.edge for entry in found})


class PowerTests(WireCase):
    """Bits 19 and 28: both, one or none, depending on the model."""

    def test_flip(self) -> None:
        """A device that shows 19 and 28 in turn has lost its power once."""
        self.send(text(word(), 0), 0)
        found = []
        for number in range(1, 13):
            bits = ((19,), (28,), (19, 28), ())[number % 4]
            report = self.send(text(word(*bits), 10 * number), 10 * number)
            self.assertEqual("0" if bits else "1", report_of(report).fields["external_power"])
            found += edges_of(report)
        self.assertEqual([("alarm.power.cut", "raised")], [entry.edge for entry in found])
        found = edges_of(self.send(text(word(), 200), 200))
        self.assertEqual(["cleared"], phases(found, "alarm.power.cut"))

    def test_the_other_bit_goes_on(self) -> None:
        """When one bit ends and the other stays, the power is still away."""
        self.send(text(word(), 0), 0)
        self.send(text(word(19, 28), 10), 10)
        found = []
        for seconds in range(20, 200, 20):
            found += edges_of(self.send(text(word(19), seconds), seconds))
        self.assertEqual([], found + self.tick(300))

    def test_bit_20_alone(self) -> None:
        """Bit 20 pairs with 19; alone it is an input, and the device is fed."""
        self.send(text(word(), 0), 0)
        found = self.send(text(word(20), 10), 10)
        self.assertEqual(([], "1"), (edges_of(found), report_of(found).fields["external_power"]))
        self.assertEqual({"battery_removed": True}, report_of(found).data["io"])


class NoFixTests(WireCase):
    """Reports without a fix, which repeat the last one's speed and withdraw fences."""

    def test_overspeed(self) -> None:
        """Without a fix neither overspeed bit says anything: no alarm begins and none ends."""
        self.send(text(word(), 0), 0)
        for seconds, bit in ((10, 2), (20, 15)):
            found = self.send(text(word(bit), seconds, "V"), seconds)
            self.assertEqual(([], ""), (edges_of(found), report_of(found).fields["levels"]), bit)
        self.send(text(word(2), 30), 30)
        found = []
        for seconds in (40, 70, 100, 130):
            found += edges_of(self.send(text(word(), seconds, "V"), seconds))
        self.assertEqual([], found, "a tunnel does not end it")
        found = edges_of(self.send(text(word(), 140), 140))
        self.assertEqual(["cleared"], phases(found, "alarm.overspeed"))

    def test_fences(self) -> None:
        """Without a fix a fence that is broken counts, one that is whole does not: it may be withdrawn."""
        self.send(text(word(), 0), 0)
        for seconds, bit, kind in ((10, 4, "alarm.geofence.enter"), (200, 7, "alarm.geofence.exit")):
            found = edges_of(self.send(text(word(bit), seconds, "V"), seconds))
            self.assertEqual([(kind, "raised")], [entry.edge for entry in found])
            # withdrawn, and so not cleared; then outside again: not raised anew
            found = []
            for later in (10, 40, 80):
                found += edges_of(self.send(text(word(), seconds + later, "V"), seconds + later))
            found += edges_of(self.send(text(word(bit), seconds + 90), seconds + 90))
            self.assertEqual([], found)
            found = edges_of(self.send(text(word(), seconds + 100), seconds + 100))
            found += edges_of(self.send(text(word(), seconds + 165), seconds + 165))
            self.assertEqual([(kind, "cleared")], [entry.edge for entry in found])

    def test_all_else_counts(self) -> None:
        """Every other bit says the same with and without a fix."""
        wrong = []
        for row in ROWS:
            if row.levels in ("overspeed",):
                continue
            self.sink.stored.clear()
            self.start()
            self.send(text(word(), -10, "V"), -10)
            found = edges_of(self.send(text(word(row.bit), 0, "V"), 0))
            wanted = [(row.alarm, "active" if row.levels.startswith("geofence") else row.phase)] if row.alarm else []
            if [entry.edge for entry in found] != wanted:
                wrong.append(f"bit {row.bit}: {[entry.edge for entry in found]}, not {wanted}")
        self.assertEqual([], wrong)

    def test_where(self) -> None:
        """An alarm without a fix happened at the last place that is known, and has no speed."""
        self.send(text(word(), 0), 0)
        (alarm,) = edges_of(self.send(text(word(1), 10, "V"), 10))
        self.assertNotIn("latitude", alarm.data)
        self.assertNotIn("speed_kmh", alarm.data)
        self.assertEqual((42.352832, -7.875493), (alarm.data["last_latitude"], alarm.data["last_longitude"]))
