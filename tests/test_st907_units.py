"""What is set for a unit and what its reports show of it, from its bytes to the streams."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.devices.st907 import settings as st907
from gateway.devices.st907.settings import Options, Settings
from gateway.errors import ConfigError
from gateway.registry import load
from tests.fakes import NOON
from tests.units import IDENT, OFF, ON, SOUTH_AFRICA, UnitCase, binary, shown, v1, without

DAY = 86_400.0
HOUR = 3600.0
CARDS = "8944501311217563382", "8948061050039263302"


class SettingsTests(SynchronousTestCase):
    """Where a unit's settings come from, and what is refused."""

    def refused(self, *words: str, **section: Any) -> None:
        """A section C{[devices.st907]} stops start-up, and the error says these words."""
        with self.assertRaises(ConfigError) as caught:
            load(["osmand"], {"st907": section}, "gateway.toml")
        text = str(caught.exception)
        for word in ("gateway.toml", "[devices.st907]", *words):
            self.assertIn(word, text)

    def options(self, **section: Any) -> Options:
        """The options that a section gives."""
        (plugin,) = load(["osmand"], {"st907": section})
        found: Options = plugin.options
        return found

    def test_defaults(self) -> None:
        """Without a word of configuration: V4, each report, everything else as the unit says or as is found out."""
        wanted = Settings("v4", 0, "", "", "", 0)
        self.assertEqual(wanted, st907.settings(self.options(), {}))
        self.assertEqual(wanted, st907.of_family(self.options()))

    def test_precedence(self) -> None:
        """The registry's entry of a unit stands over its model's settings, those over the family's."""
        model = {"reply": "both", "acc_wired": "1", "hemisphere": "SE"}
        options = self.options(reply="r12", acc_wired="0", time_offset_s=60, models={"ST-901": model})
        named = {"model": "ST-901"}
        for registry, wanted in (
            ({}, ("r12", "0", "", 60)),
            ({"model": "ST-903"}, ("r12", "0", "", 60)),
            (named, ("both", "1", "SE", 60)),
            (named | {"reply": "none"}, ("none", "1", "SE", 60)),
            (named | {"acc_wired": "0", "time_offset_s": "-5", "hemisphere": "S"}, ("both", "0", "S", -5)),
            ({"reply": " v4 ", "alias": "van", "device_id": "7"}, ("v4", "0", "", 60)),
            (named | {"reply": "", "acc_wired": "  "}, ("both", "1", "SE", 60)),
        ):
            found = st907.settings(options, registry)
            self.assertEqual(wanted, (found.reply, found.acc_wired, found.hemisphere, found.time_offset_s), registry)
            self.assertEqual((), found.faults)

    def test_bad_options(self) -> None:
        """A value that can't be used stops start-up and names section and key."""
        self.refused("'reply'", "'v5'", "r12", reply="v5")
        self.refused("'reply_interval_s'", reply_interval_s=-1)
        self.refused("'reply_interval_s'", reply_interval_s=86_401)
        self.refused("'reply_interval_s'", "int", reply_interval_s="10")
        self.refused("'acc_wired'", acc_wired="yes")
        self.refused("'acc_wired'", acc_wired=0)
        self.refused("'battery'", battery="volts")
        self.refused("'hemisphere'", hemisphere="EN")
        self.refused("'time_offset_s'", time_offset_s=86_401)
        self.refused("'time_offset_s'", time_offset_s=True)
        self.refused("'rply'", rply="v4")
        self.refused("'models'", models="ST-901")

    def test_bad_bits(self) -> None:
        """Bits that are none or that stay what they are, and words that are no alarms, stop start-up."""
        for text, word in (
            ("32=sos", "'32'"), ("-1=sos", "'-1'"), ("x=sos", "'x'"), ("=sos", "''"), ("17", "'17'"),
            ("10=sos", "10"), ("26=sos", "26"), ("27=", "27"), ("17=immobilizer", "'immobilizer'"),
            ("17=bang", "'bang'"), ("1=sos,18", "'18'"), ("\u00b2=sos", "'\u00b2'"),
        ):  # fmt: skip
            self.refused("'bits'", word, bits=text)

    def test_bad_models(self) -> None:
        """In the table of a model, too: it is named with the key."""
        for table, words in (
            ({"ST-901": 5}, ("ST-901", "table")),
            ({"ST-901": {"replies": "v4"}}, ("ST-901", "'replies'", "reply_interval_s")),
            ({"ST-901": {"reply": "v5"}}, ("ST-901", "'reply'", "'v5'")),
            ({"ST-901": {"reply_interval_s": "5"}}, ("ST-901", "'reply_interval_s'", "type")),
            ({"ST-901": {"time_offset_s": True}}, ("ST-901", "'time_offset_s'", "type")),
            ({"ST-901": {"bits": "17=bang"}}, ("ST-901", "'bits'", "'bang'")),
        ):
            self.refused("'models'", *words, models=table)

    def test_good_options(self) -> None:
        """What the limits allow."""
        for section in (
            {"reply_interval_s": 86_400}, {"time_offset_s": -86_400}, {"hemisphere": "SW"}, {"bits": " 17 = , 18=sos,"},
            {"models": {"ST-901": {"bits": "", "acc_wired": "0", "reply_interval_s": 30}}},
        ):  # fmt: skip
            self.options(**section)

    def test_bits(self) -> None:
        """Bits are read with the meanings that are given for them; all others keep theirs."""
        found = st907.settings(self.options(bits="17=,18=sos,0=vibration"), {}).bits
        default = Settings().bits
        for number in range(32):
            wanted = {17: "", 18: "sos", 0: "vibration"}.get(number, default.names[number])
            self.assertEqual(wanted, found.names[number])
        self.assertIs(found, st907.settings(self.options(), {"bits": "0=vibration, 17=, 18=sos"}).bits)

    _KEYS = st.sampled_from("reply reply_interval_s acc_wired battery hemisphere time_offset_s bits model".split())
    _NEAR = st.sampled_from("v4 V4 R12 none 0 1 -1 -0 00 --5 5.0 1e3 86400 86401 percent N NE EN 17= 18=sos =".split())

    @settings(max_examples=500, deadline=None)
    @given(st.dictionaries(_KEYS, st.text() | st.text("0123456789=,-", max_size=12) | _NEAR))
    def test_any_text_in_the_registry(self, registry: dict[str, str]) -> None:
        """Whatever stands in the registry, nothing raises: what can't be used is named, and the default holds."""
        found = st907.settings(Options(), registry)
        self.assertIn(found.reply, st907.REPLIES)
        self.assertIn(found.acc_wired, st907.WIRED)
        self.assertIn(found.battery, st907.BATTERIES)
        self.assertIn(found.hemisphere, st907.HEMISPHERES)
        self.assertLessEqual(abs(found.time_offset_s), st907.MAX_OFFSET_S)
        self.assertTrue(0 <= found.reply_interval_s <= st907.MAX_INTERVAL_S)
        named = [fault.partition(":")[0] for fault in found.faults]
        self.assertLessEqual(set(named), set(registry) - {"model"})
        for name in named:
            self.assertEqual(getattr(Settings(), name), getattr(found, name))
            self.assertTrue(found.faults[named.index(name)].isprintable())


class RegistryTests(UnitCase):
    """What the registry says of a unit that reports."""

    def test_faults(self) -> None:
        """A value that can't be used is one device.quality event that names it; the default holds."""
        self.registry = {"reply": "v5", "time_offset_s": "8h", "acc_wired": "0"}
        self.begin()
        found = self.report()
        quality = self.one(found, "device.quality")
        self.assertEqual("registry", quality["data"]["name"])
        for word in ("reply", "'v5'", "time_offset_s", "'8h'"):
            self.assertIn(word, quality["data"]["reason"])
        self.assertNotIn("acc_wired", quality["data"]["reason"])
        self.assertEqual(("",), shown(self.one(found), "ignition"))
        self.assertEqual([b"*HQ,9170225361,V4,V1,20261122120010#"], self.answers())
        for _ in range(50):
            self.assertEqual([], self.qualities(self.report()))

    def test_faults_once(self) -> None:
        """It is told once: not again after a restart, nor when something else changes; another fault is told."""
        self.registry = {"reply": "v5"}
        self.begin()
        self.assertEqual([("registry", "")], self.qualities(self.report()))
        self.restart()
        self.assertEqual([], self.qualities(self.report()))
        self.register(reply="v5", alias="van")
        self.assertEqual([], self.qualities(self.report()))
        self.register(reply="v6")
        self.assertEqual([("registry", "")], self.qualities(self.report()))
        self.register()
        self.assertEqual([], self.qualities(self.report()))
        self.register(reply="v6")
        self.assertEqual([("registry", "")], self.qualities(self.report()))

    def test_fault_beside_a_copy(self) -> None:
        """A copy of a report is published as none or as a sign of life; the fault is told with the next report."""
        self.report()
        self.register(reply="v5")
        self.assertEqual([], self.qualities(self.send(v1(self.now - 1))))
        self.assertEqual([("registry", "")], self.qualities(self.report()))

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(SettingsTests._KEYS, st.text(), min_size=1))
    def test_any_text(self, registry: dict[str, str]) -> None:
        """Whatever stands in the registry, the report is published and answered."""
        self.registry = registry
        self.begin()
        found = self.report()
        self.assertEqual(("42.316720",), shown(self.one(found), "latitude"))
        self.assertEqual([], self.of(found, "frame.undecodable"))

    def test_on_the_fly(self) -> None:
        """A change holds from the next report on, also for one that says what the one before it said."""
        self.report(ON, speed=20.0)
        self.assertEqual(("1",), shown(self.one(self.report(ON, speed=20.0)), "ignition"))
        self.register(acc_wired="0", hemisphere="SE", time_offset_s="3600")
        entry = self.one(self.report(ON, speed=20.0, off=3599.0))
        self.assertEqual(("", "-42.316720", "7.883337"), shown(entry, "ignition", "latitude", "longitude"))
        self.assertEqual("2026-11-22T12:00:29.000Z", entry["time"])
        self.register()
        entry = self.one(self.report(ON, speed=20.0))
        self.assertEqual(("1", "42.316720", "-7.883337"), shown(entry, "ignition", "latitude", "longitude"))

    def test_model(self) -> None:
        """A unit that is said to be of a model is read by the model's settings."""
        self.options = {"models": {"ST-901": {"acc_wired": "0"}}}
        self.begin()
        self.assertEqual(("0",), shown(self.one(self.report()), "ignition"))
        self.register(model="ST-901")
        self.assertEqual(("",), shown(self.one(self.report()), "ignition"))
        self.register(model="ST-901", acc_wired="1")
        self.assertEqual(("0",), shown(self.one(self.report()), "ignition"))


class AccTests(UnitCase):
    """Units whose ACC wire is or is not connected."""

    def test_given_not_wired(self) -> None:
        """With acc_wired 0 the column is empty, the bit is in the data, and no ignition is ever raised."""
        self.registry = {"acc_wired": "0"}
        self.begin()
        for word, bit in ((OFF, False), (ON, True), (OFF, False), (ON, True), (ON, True)):
            found = self.report(word, speed=30.0)
            entry = self.one(found)
            self.assertEqual(("", bit), (entry["ignition"], entry["data"]["ignition_bit"]))
            self.assertEqual([], self.of(found, "state.ignition"))
        for _ in range(100):
            self.assertEqual([], self.qualities(self.report(speed=30.0)))

    def test_given_wired(self) -> None:
        """With acc_wired 1 the wire is believed, and a ferry is no finding."""
        self.registry = {"acc_wired": "1"}
        self.begin()
        for _ in range(100):
            found = self.report(speed=30.0)
            self.assertEqual([], self.qualities(found))
            self.assertEqual("0", self.one(found)["ignition"])
            self.assertNotIn("ignition_bit", self.one(found)["data"])

    def test_found(self) -> None:
        """
        Hundreds of alike reports of a drive with the ignition off show that the wire is not connected.

        They would go the short way, which learns nothing.  It is told once; from then on the column is empty.
        """
        found = [self.report(speed=30.0) for _ in range(300)]
        told = [number for number, each in enumerate(found) if self.qualities(each)]
        self.assertEqual([18], told)  # 180 s after the first
        self.assertEqual([("acc_wiring", "acc_wired=0")], self.qualities(found[18]))
        quality = self.one(found[18], "device.quality")
        self.assertEqual({"reports": 19, "seconds": 180}, quality["data"]["evidence"])
        self.assertEqual({"name", "reason", "setting", "evidence"}, quality["data"].keys())
        for number, each in enumerate(found):
            entry = self.one(each)
            self.assertEqual(("0" if number < 18 else "", "55.56"), shown(entry, "ignition", "speed_kmh"))
            self.assertEqual(None if number < 18 else False, entry["data"].get("ignition_bit"))

    def test_found_behind_a_stop(self) -> None:
        """Standing reports between two parts of the drive neither count nor hide it."""
        found = []
        for _ in range(6):
            found += [entry for _ in range(6) for entry in self.report(speed=0.0)]
            found += [entry for _ in range(6) for entry in self.report(speed=30.0)]
        self.assertEqual([("acc_wiring", "acc_wired=0")], self.qualities(found))

    def test_kept(self) -> None:
        """What was found out, and what leads to it, outlives a restart of the gateway."""
        for _ in range(12):
            self.report(speed=30.0)
        self.restart()
        found = [entry for _ in range(12) for entry in self.report(speed=30.0)]
        self.assertEqual([("acc_wiring", "acc_wired=0")], self.qualities(found))
        self.restart()
        for _ in range(30):
            found = self.report(speed=30.0)
            self.assertEqual(([], ""), (self.qualities(found), self.one(found)["ignition"]))

    def test_taken_back(self) -> None:
        """The ignition is seen on after all: told once, and the column is filled again, with its edge."""
        for _ in range(30):
            self.report(speed=30.0)
        found = self.report(ON, speed=30.0)
        self.assertEqual([("acc_wiring", "acc_wired=1")], self.qualities(found))
        self.assertEqual(("1",), shown(self.one(found), "ignition"))
        self.assertEqual([("state.ignition", "raised")], self.edges(found))
        for _ in range(100):
            found = self.report(speed=30.0)
            self.assertEqual(([], "0"), (self.qualities(found), self.one(found)["ignition"]))

    def test_late_reports_show_nothing(self) -> None:
        """A drive in records that the device itself calls late is not counted."""
        for _ in range(100):
            self.assertEqual([], self.qualities(self.report(without(OFF, 26), speed=30.0)))

    def test_no_fix_shows_nothing(self) -> None:
        """Without a fix the speed is the last one's, and shows nothing."""
        for _ in range(100):
            self.assertEqual([], self.qualities(self.report(speed=30.0, fix="V")))

    def test_copies_show_nothing(self) -> None:
        """Copies of a report are no drive, and no finding is lost with one."""
        for _ in range(18):
            self.report(speed=30.0)
        again = v1(self.now - 1, speed=30.0)
        for _ in range(30):
            self.clock.advance(15)
            self.assertEqual([], self.qualities(self.send(again)))
        self.assertEqual([("acc_wiring", "acc_wired=0")], self.qualities(self.report(speed=30.0)))

    def test_setting_over_finding(self) -> None:
        """What is set stands over what was found out."""
        for _ in range(30):
            self.report(speed=30.0)
        self.register(acc_wired="1")
        self.assertEqual(("0",), shown(self.one(self.report(speed=30.0)), "ignition"))
        self.register()
        self.assertEqual(("",), shown(self.one(self.report(speed=30.0)), "ignition"))

    def test_binary(self) -> None:
        """Binary frames have the same bit."""
        self.registry = {"acc_wired": "0"}
        self.begin()
        entry = self.one(self.send(binary(self.now)))
        self.assertEqual(("", False), (entry["ignition"], entry["data"]["ignition_bit"]))


class HemisphereTests(UnitCase):
    """Units that are on another side of the globe than their frames say."""

    def test_given(self) -> None:
        """What is set holds in every report, text and binary, alike ones included, whatever the letters say."""
        self.registry = {"hemisphere": "SW"}
        self.begin()
        for lat, lon in (("4219.0032,N", "00753.0002,E"), ("4219.0032,S", "00753.0002,W")):
            for _ in range(5):
                entry = self.one(self.report(speed=30.0, lat=lat, lon=lon))
                self.assertEqual(("-42.316720", "-7.883337"), shown(entry, "latitude", "longitude"))
        self.clock.advance(10)
        for flags in "E62A":
            self.clock.advance(10)
            entry = self.one(self.send(binary(self.now, flags=flags)))
            self.assertEqual(("-22.500000", "-114.000000"), shown(entry, "latitude", "longitude"), flags)

    def test_one_axis(self) -> None:
        """One letter settles one axis; the other is believed."""
        for letter, wanted in (
            ("S", ("-42.316720", "-7.883337")), ("N", ("42.316720", "-7.883337")), ("E", ("42.316720", "7.883337")),
        ):  # fmt: skip
            self.register(hemisphere=letter)
            self.report()
            self.register(hemisphere=letter)
            self.assertEqual(wanted, shown(self.one(self.report()), "latitude", "longitude"))

    def test_last_fix(self) -> None:
        """Coordinates that a report without a fix repeats lie on that side too, and are known as the last fix."""
        self.registry = {"hemisphere": "S"}
        self.begin()
        self.report()
        entry = self.one(self.report(fix="V"))
        self.assertEqual(-42.31672, entry["data"]["last_latitude"])
        self.assertEqual("2026-11-22T12:00:09.000Z", entry["data"]["last_fix_time"])

    def test_alarm(self) -> None:
        """An alarm says where it happened, on the side that is set."""
        self.registry = {"hemisphere": "S"}
        self.begin()
        self.report()
        alarm = self.one(self.report(without(OFF, 1)), "alarm.sos")
        self.assertEqual(-42.31672, alarm["data"]["latitude"])

    def test_found(self) -> None:
        """Ten alike fixes north of the equator in South African cells: told once, and nothing is corrected."""
        found = [self.report(cell=SOUTH_AFRICA, lon="00753.0002,E") for _ in range(100)]
        self.assertEqual([("hemisphere", "hemisphere=S")], [q for each in found for q in self.qualities(each)])
        self.assertEqual([9], [number for number, each in enumerate(found) if self.qualities(each)])
        self.assertEqual({"42.316720"}, {self.one(each)["latitude"] for each in found})

    def test_set_after_it_was_found(self) -> None:
        """The line that it names settles it."""
        for _ in range(20):
            self.report(cell=SOUTH_AFRICA, lon="00753.0002,E")
        self.register(hemisphere="S")
        for _ in range(20):
            found = self.report(cell=SOUTH_AFRICA, lon="00753.0002,E")
            self.assertEqual(([], "-42.316720"), (self.qualities(found), self.one(found)["latitude"]))

    def test_copies(self) -> None:
        """A parked unit that sends one frame again and again has one fix, not ten."""
        self.clock.advance(1)
        frame = v1(self.now, cell=SOUTH_AFRICA, lon="00753.0002,E")
        for _ in range(50):
            self.clock.advance(300)
            self.assertEqual([], self.qualities(self.send(frame)))

    def test_binary_is_believed(self) -> None:
        """The flags of binary frames are not doubted: the 45-byte form carries a network."""
        tail = "ff00 1409 00000000 028f 01 3354 13dd 01".replace(" ", "")
        for _ in range(30):
            self.clock.advance(10)
            frame = binary(self.now)[:29] + bytes.fromhex(tail)
            found = self.send(frame + v1(self.now, kind="V2"))
            first = self.of(found, "position")[0]
            self.assertEqual(("655", "22.500000"), (first["data"]["mcc"], first["latitude"]))
            self.assertEqual([], self.qualities(found))


class ClockTests(UnitCase):
    """Units whose clock is off by a constant."""

    def test_given_ahead(self) -> None:
        """A clock that is set to eight hours ahead is corrected in each report, marked, and live."""
        self.registry = {"time_offset_s": "28800"}
        self.begin()
        for _ in range(50):
            found = self.report(off=28_799.0, speed=10.0)
            entry = self.one(found)
            self.assertEqual("", entry["late"])
            self.assertEqual(self.now - 1, self.epoch(entry["time"]))
            self.assertEqual(self.now + 28_799, self.epoch(entry["data"]["device_time"]))
            self.assertEqual(("device-corrected", -28_800), self.marks(entry))
            self.assertEqual([], self.qualities(found))

    def test_given_behind(self) -> None:
        """So is one that is behind."""
        self.registry = {"time_offset_s": "-10800"}
        self.begin()
        for _ in range(50):
            entry = self.one(self.report(off=-10_802.0, speed=10.0))
            self.assertEqual(("", self.now - 2), (entry["late"], self.epoch(entry["time"])))
            self.assertEqual(("device-corrected", 10_800), self.marks(entry))

    def test_a_little(self) -> None:
        """A minute is corrected too, and nothing of the short way gets in between."""
        for offset in (60, -60):
            self.registry = {"time_offset_s": str(offset)}
            self.begin()
            for _ in range(30):
                entry = self.one(self.report(off=offset - 1.0))
                self.assertEqual(("", self.now - 1), (entry["late"], self.epoch(entry["time"])))
                self.assertEqual(("device-corrected", -offset), self.marks(entry))

    def epoch(self, text: str) -> float:
        """RFC 3339 text as epoch seconds."""
        from datetime import datetime

        return datetime.fromisoformat(text).timestamp()

    def marks(self, entry: dict[str, Any]) -> tuple[Any, Any]:
        """How the time was corrected."""
        return entry["data"].get("time_source"), entry["data"].get("time_correction_s")

    def test_late_by_the_corrected_time(self) -> None:
        """Whether a report is late by lag or by order follows from the corrected time."""
        self.registry = {"time_offset_s": "28800"}
        self.begin()
        self.assertEqual("lag", self.one(self.report(off=28_800 - 121.0))["late"])
        self.assertEqual("", self.one(self.report(off=28_800 - 119.0))["late"])
        self.assertEqual("", self.one(self.report(off=28_800 - 1.0))["late"])
        self.assertEqual("order", self.one(self.report(off=28_800 - 12.0))["late"])

    def test_future_by_the_corrected_time(self) -> None:
        """A corrected time more than five minutes ahead is refused; the device's own stands beside it."""
        self.registry = {"time_offset_s": "28800"}
        self.begin()
        entry = self.one(self.report(off=28_800 + 301.0))
        self.assertEqual((self.now, ("server", None)), (self.epoch(entry["time"]), self.marks(entry)))
        self.assertEqual(self.now + 28_800 + 301, self.epoch(entry["data"]["device_time"]))
        self.assertEqual(("device-corrected", -28_800), self.marks(self.one(self.report(off=28_800 + 300.0))))

    def test_frozen(self) -> None:
        """A clock that stands still is seen to, whatever it is off by: time of receipt, and the device's own beside."""
        for offset in (28_800, -60, 60):
            self.registry = {"time_offset_s": str(offset)}
            self.begin()
            self.clock.advance(10)
            stands = self.now + offset
            self.send(v1(stands))
            for word in (without(OFF, 9), OFF, without(OFF, 9)):
                self.clock.advance(300)
                entry = self.one(self.send(v1(stands, word, lat=f"4219.{self.now % 10_000:04.0f},N")))
                self.assertEqual(("frozen", ("server", None)), (entry["data"]["clock"], self.marks(entry)))
                self.assertEqual((self.now, ""), (self.epoch(entry["time"]), entry["late"]))
                self.assertEqual(stands, self.epoch(entry["data"]["device_time"]))

    def test_goes_on_after_it_stood(self) -> None:
        """A clock that stood still and goes on a minute later is believed again, also when it is off by a minute."""
        self.registry = {"time_offset_s": "-60"}
        self.begin()
        self.clock.advance(10)
        stands = self.now
        for n in range(3):
            self.send(v1(stands - 60, lat=f"4219.000{n},N"))
            self.clock.advance(20)
        entry = self.one(self.send(v1(stands)))
        self.assertEqual((stands + 60, None), (self.epoch(entry["time"]), entry["data"].get("clock")))

    def test_rollover_too(self) -> None:
        """A week rollover of a clock that is off beside it is corrected by both."""
        self.registry = {"time_offset_s": "3600"}
        self.begin()
        week = 1024 * 604_800
        entry = self.one(self.report(off=3600.0 - week - 1))
        self.assertEqual(
            (self.now - 1, ("device-corrected", week - 3600)), (self.epoch(entry["time"]), self.marks(entry))
        )
        self.assertEqual(self.now + 3600 - week - 1, self.epoch(entry["data"]["device_time"]))

    def test_found(self) -> None:
        """Live reports eight hours ahead: told once, with what settles it; nothing is corrected, times are refused."""
        found = [self.report(off=28_799.0, speed=10.0) for _ in range(100)]
        self.assertEqual([("clock", "time_offset_s=28800")], [q for each in found for q in self.qualities(each)])
        self.assertEqual({("server", None)}, {self.marks(self.one(each)) for each in found})

    def test_found_behind(self) -> None:
        """Live reports three hours behind are late, and told."""
        found = [self.report(off=-10_801.0) for _ in range(100)]
        self.assertEqual([("clock", "time_offset_s=-10800")], [q for each in found for q in self.qualities(each)])
        self.assertEqual({"lag"}, {self.one(each)["late"] for each in found})

    def test_settled(self) -> None:
        """The line that it names settles it."""
        for _ in range(20):
            self.report(off=28_799.0)
        self.register(time_offset_s="28800")
        for _ in range(20):
            found = self.report(off=28_799.0)
            self.assertEqual(([], ""), (self.qualities(found), self.one(found)["late"]))

    def test_stored_records(self) -> None:
        """Records of an hour ago, with the device's word that they are late or without it, are no clock that is off."""
        for word in (OFF, without(OFF, 26)):
            self.begin()
            for n in range(600):
                self.clock.advance(0.5)
                found = self.send(v1(self.now - 7200 + n * 9.5, word, speed=float(n % 10)))
                self.assertEqual([], self.qualities(found))

    def test_restart(self) -> None:
        """What leads to it outlives a restart of the gateway."""
        for _ in range(6):
            self.report(off=28_799.0)
        self.restart()
        found = [entry for _ in range(6) for entry in self.report(off=28_799.0)]
        self.assertEqual([("clock", "time_offset_s=28800")], self.qualities(found))


class BatteryTests(UnitCase):
    """What a battery figure is."""

    def battery(self, raw: int, every: float = 10.0) -> tuple[str, Any]:
        """The column and the raw figure of a report with this one."""
        self.found = self.report(cell=f"214,03,13140,5085,{raw}", every=every)
        entry = self.one(self.found)
        return entry["battery_pct"], entry["data"].get("battery_raw")

    def test_unknown(self) -> None:
        """Until it is known what the figure is, the column is empty; the figure is always there."""
        for raw in (1, 4, 6, 5):
            self.assertEqual(("", raw), self.battery(raw))
            self.assertEqual([], self.qualities(self.found))

    def test_index(self) -> None:
        """Set as an index, 1 to 6 are percent by the family's table, and no other figure is."""
        self.registry = {"battery": "index"}
        self.begin()
        for raw, percent in ((1, "0"), (2, "10"), (3, "20"), (4, "60"), (5, "80"), (6, "100"), (7, ""), (100, "")):
            self.assertEqual((percent, raw), self.battery(raw))
            self.assertEqual([], self.qualities(self.found))

    def test_percent(self) -> None:
        """Set as percent, it is that."""
        self.registry = {"battery": "percent"}
        self.begin()
        for raw in (1, 6, 7, 55, 100):
            self.assertEqual((str(raw), raw), self.battery(raw))

    def test_model(self) -> None:
        """So can it be for a model."""
        self.options = {"models": {"ST-903": {"battery": "percent"}}}
        self.registry = {"model": "ST-903"}
        self.begin()
        self.assertEqual(("6", 6), self.battery(6))

    def test_found_percent(self) -> None:
        """A figure above 6 can't be an index: told once, and from then on it is percent, over a restart too."""
        self.battery(5)
        self.assertEqual(("7", 7), self.battery(7))
        self.assertEqual([("battery", "battery=percent")], self.qualities(self.found))
        self.assertEqual(("5", 5), self.battery(5))
        self.restart()
        self.assertEqual(("6", 6), self.battery(6))
        self.assertEqual([], self.qualities(self.found))

    def test_found_index(self) -> None:
        """Twenty figures over a day of which none is above 6 are an index; told once."""
        for _ in range(19):
            self.assertEqual(("", 5), self.battery(5, every=DAY / 19 - 1))
        self.restart()
        self.assertEqual(("", 4), self.battery(4, every=10))
        self.assertEqual(("60", 4), self.battery(4, every=DAY / 19 + 20))
        self.assertEqual([("battery", "battery=index")], self.qualities(self.found))
        self.assertEqual(("100", 6), self.battery(6))
        self.assertEqual([], self.qualities(self.found))

    def test_a_day_is_not_enough(self) -> None:
        """Nineteen figures are too few, over however many days."""
        for _ in range(19):
            self.assertEqual(("", 5), self.battery(5, every=DAY))

    def test_a_wrong_clock_is_no_day(self) -> None:
        """A first report whose own clock is years behind does not make a day of minutes."""
        self.report(cell="214,03,13140,5085,5", off=-400 * DAY)
        for _ in range(40):
            self.assertEqual(("", 5), self.battery(5))

    def test_binary(self) -> None:
        """In binary frames F1 to F6 are read as the same index; 0, and what is neither, say nothing."""
        self.registry = {"battery": "index"}
        self.begin()
        for raw, percent in (
            (0xF1, "0"),
            (0xF4, "60"),
            (0xF6, "100"),
            (0x03, "20"),
            (0, ""),
            (0xF7, ""),
            (0xFF, ""),
            (0xF0, ""),
        ):
            self.clock.advance(10)
            entry = self.one(self.send(binary(self.now, battery=raw)))
            self.assertEqual((percent, raw), (entry["battery_pct"], entry["data"].get("battery_raw")))

    def test_odd_figures_show_nothing(self) -> None:
        """0, 101 to 240 and F0, F7 to FF are no percent, and do not make a unit one that says percent."""
        for raw in (0, 101, 0xC8, 0xF0, 0xF7, 0xFF):
            self.clock.advance(10)
            found = self.send(binary(self.now, battery=raw))
            self.assertEqual(("", []), (self.one(found)["battery_pct"], self.qualities(found)))
        self.assertNotIn("battery", self.session.memory)

    def test_marked_is_never_percent(self) -> None:
        """F5 of a unit that says percent is not 5 percent."""
        self.registry = {"battery": "percent"}
        self.begin()
        self.assertEqual(("", 0xF5), self.battery(0xF5))

    def test_heartbeat(self) -> None:
        """A heartbeat's figure is documented as percent."""
        entry = self.one(self.send(f"*HQ,{IDENT},HTBT,6#".encode()), "status")
        self.assertEqual(("6", 6), (entry["battery_pct"], entry["data"]["battery_raw"]))


class BitTests(UnitCase):
    """Which bit is which alarm, of a unit and of a model."""

    def levels(self, *bits: int, **more: Any) -> str:
        """The levels column of a report with these bits."""
        found: str = self.one(self.report(without(OFF, *bits), **more))["levels"]
        return found

    def test_default(self) -> None:
        """By default 17 is vibration, 0 is theft, and 18 is nothing."""
        self.assertEqual(["vibration", "theft", ""], [self.levels(bit) for bit in (17, 0, 18)])

    def test_registry(self) -> None:
        """A unit's own map, also when its reports are alike."""
        self.register(bits="17=,18=sos,0=vibration")
        self.report()
        self.register(bits="17=,18=sos,0=vibration")
        for bit, wanted in ((17, ""), (18, "sos"), (0, "vibration"), (2, "overspeed")):
            for _ in range(4):
                self.assertEqual(wanted, self.levels(bit))

    def test_model(self) -> None:
        """A model's map, and the unit's over it."""
        self.options = {"bits": "18=sos", "models": {"ST-906": {"bits": "18=tow"}}}
        self.begin()
        self.assertEqual("sos", self.levels(18))
        self.register(model="ST-906")
        self.assertEqual("tow", self.levels(18))
        self.register(model="ST-906", bits="18=crash")
        self.assertEqual("crash", self.levels(18))

    def test_back_to_the_default(self) -> None:
        """A model or a unit may take back what the family's options say."""
        self.options = {"bits": "18=sos", "models": {"ST-906": {"bits": ""}}}
        self.registry = {"model": "ST-906"}
        self.begin()
        for _ in range(3):
            self.assertEqual("", self.levels(18))
        self.register(bits="18=")
        for _ in range(3):
            self.assertEqual("", self.levels(18))

    def test_edges(self) -> None:
        """What is an alarm only for this unit is raised, and cleared a minute after it is gone, not before."""
        self.registry = {"bits": "18=sos"}
        self.begin()
        self.report()
        self.assertEqual([("alarm.sos", "raised")], self.edges(self.report(without(OFF, 18))))
        for _ in range(60):
            self.assertEqual([], self.edges(self.report(without(OFF, 18))))
        for _ in range(5):
            self.assertEqual([], self.edges(self.report()))
        self.assertEqual([("alarm.sos", "cleared")], self.edges(self.report()))

    def test_flicker(self) -> None:
        """An alarm of this unit only that flickers after many alike reports is still one alarm."""
        self.registry = {"bits": "18=sos"}
        self.begin()
        self.report()
        edges = []
        for _ in range(5):
            for _ in range(20):
                edges += self.edges(self.report(without(OFF, 18)))
            edges += self.edges(self.report())
        self.assertEqual([("alarm.sos", "raised")], edges)


class ConstantTests(UnitCase):
    """Bits that are always there are no alarms."""

    def stuck(self, *bits: int, acc: int = OFF, reports: int = 24, every: float = DAY / 20) -> list[dict[str, Any]]:
        """Reports with these bits, for longer than a day; what they lead to."""
        found = []
        for n in range(reports):
            found += self.report(without(acc, *bits), every=every, cell=f"214,03,13140,{n + 1}")
        return found

    def test_found(self) -> None:
        """An alarm in each of a new unit's reports for a day, and in twenty: told once, and an alarm no longer."""
        found = [self.report(without(OFF, 5), every=DAY / 19) for _ in range(30)]
        told = [number for number, each in enumerate(found) if self.qualities(each)]
        self.assertEqual([19], told)
        quality = self.one(found[19], "device.quality")["data"]
        self.assertEqual("constant", quality["name"])
        self.assertEqual({"reports": 20, "seconds": 86_400, "bits": [5]}, quality["evidence"])
        self.assertIn("bit 5", quality["reason"])
        self.assertEqual([("alarm.tamper", "active")], self.edges(found[0]))
        self.assertEqual(["tamper"] * 19 + [""] * 11, [self.one(each)["levels"] for each in found])
        self.assertEqual({"FFFFFBDF"}, {self.one(each)["status_word"] for each in found})

    def test_alike_reports_count(self) -> None:
        """A parked unit's reports are all alike but for their time; they count."""
        found = [entry for _ in range(400) for entry in self.report(without(OFF, 28), every=300.0)]
        self.assertEqual([("constant", "")], self.qualities(found))

    def test_hundred_reports_in_an_hour(self) -> None:
        """Less than a day is too short, however many reports there are."""
        self.assertEqual([], self.qualities([e for _ in range(300) for e in self.report(without(OFF, 5))]))
        self.assertEqual("tamper", self.one(self.report(without(OFF, 5)))["levels"])

    def test_nineteen_reports_in_a_month(self) -> None:
        """Nineteen reports are too few, over however many days."""
        self.assertEqual([], self.qualities(self.stuck(5, reports=19, every=2 * DAY)))

    def test_a_wrong_clock_is_no_day(self) -> None:
        """A new unit's first report, whose own clock is years behind, does not make a day of three minutes."""
        self.report(without(OFF, 1), off=-7000 * DAY)
        for _ in range(60):
            found = self.report(without(OFF, 1))
            self.assertEqual(([], "sos"), (self.qualities(found), self.one(found)["levels"]))

    def test_goes_away(self) -> None:
        """A bit that is once not there is no constant: whenever it comes, it is an alarm."""
        self.stuck(5, reports=10)
        self.report(cell="214,03,13140,77")
        found = self.stuck(5, reports=30)
        self.assertEqual([], self.qualities(found))
        self.assertEqual("tamper", self.of(found, "position")[-1]["levels"])

    def test_settled_and_goes_away(self) -> None:
        """So does one that was settled as a constant: it is raised when it comes back."""
        self.stuck(5)
        self.report(every=300)
        self.assertEqual([("alarm.tamper", "raised")], self.edges(self.report(without(OFF, 5), every=300)))

    def test_others_are_raised(self) -> None:
        """Beside a constant all other alarms are raised and cleared, in the same report, too."""
        self.stuck(5)
        self.report(without(OFF, 5))
        self.assertEqual(
            [("alarm.sos", "raised"), ("alarm.overspeed", "raised")], self.edges(self.report(without(OFF, 5, 1, 2)))
        )

    def test_power_cut_beside_a_constant(self) -> None:
        """A unit whose bit 28 is stuck still raises a power cut by bit 19, and is fed by the vehicle otherwise."""
        found = self.stuck(28)
        self.assertEqual("1", self.of(found, "position")[-1]["external_power"])
        self.clock.advance(70)
        self.assertEqual(["cleared"], [e["data"]["phase"] for e in self.of(found, "alarm.power.cut")][1:])
        found = self.report(without(OFF, 28, 19))
        self.assertEqual([("alarm.power.cut", "raised")], self.edges(found))
        self.assertEqual(("0", "power.cut"), shown(self.one(found), "external_power", "levels"))

    def test_late_is_no_constant_lateness(self) -> None:
        """With bit 26 stuck a unit's reports are late until that is known, and live from then on."""
        found = self.stuck(26)
        lates = [entry["late"] for entry in self.of(found, "position")]
        self.assertEqual(("device", ""), (lates[0], lates[-1]))
        self.assertEqual([("constant", "")], self.qualities(found))
        self.assertEqual([("alarm.sos", "raised")], self.edges(self.report(without(OFF, 26, 1))))

    def test_learns_with_a_stuck_late_bit(self) -> None:
        """From then on all else is found out of it, too: its wiring and its SIM card."""
        self.stuck(26)
        found = [entry for _ in range(40) for entry in self.report(without(OFF, 26), speed=30.0)]
        self.assertEqual([("acc_wiring", "acc_wired=0")], self.qualities(found))
        cells = "214,03,13140,5085"
        found = [e for card in CARDS for e in self.report(without(OFF, 26), kind="V6", cell=f"{cells},{card}F")]
        self.assertEqual(1, len(self.of(found, "device.sim.changed")))

    def test_relay_and_armed_are_never_hidden(self) -> None:
        """A unit that is cut or armed all the time says so all the time."""
        found = self.stuck(27, 9)
        self.assertEqual([], self.qualities(found))
        last = self.of(found, "position")[-1]
        self.assertEqual(("1", "armed"), shown(last, "immobilizer", "levels"))

    def test_not_of_a_known_unit(self) -> None:
        """A bit that comes on later is news, not a constant, however long it stays."""
        self.report()
        found = self.stuck(5, reports=40)
        self.assertEqual([], self.qualities(found))
        self.assertEqual([("alarm.tamper", "raised")], self.edges(found))

    def test_first_frame_without_a_status_word(self) -> None:
        """A new unit that begins with a bare keep-alive, a heartbeat or an answer is as new as any other."""
        for frame in (f"*HQ,{IDENT},#", f"*HQ,{IDENT},HTBT#", f"*HQ,{IDENT},V4,S20,034313,1,1#"):
            self.begin()
            self.send(frame.encode())
            self.assertEqual([("constant", "")], self.qualities(self.stuck(5)), frame)
            self.begin()
            self.send(frame.encode())
            self.restart()
            self.assertEqual([("constant", "")], self.qualities(self.stuck(5)), frame)

    def test_kept(self) -> None:
        """What leads to it, and what was settled, outlive a restart."""
        self.stuck(5, reports=12)
        self.restart()
        self.assertEqual([("constant", "")], self.qualities(self.stuck(5, reports=12)))
        self.restart()
        found = self.stuck(5, reports=3)
        self.assertEqual(([], []), (self.qualities(found), self.edges(found)))

    def test_custom_alarm_bit(self) -> None:
        """Bit 14, constant on many, is never an alarm, and nothing is said of it."""
        self.assertEqual([], self.stuck_events(14, 30, 18))

    def stuck_events(self, *bits: int) -> list[dict[str, Any]]:
        """Everything but positions and the session's own."""
        return [e for e in self.stuck(*bits) if e["type"] not in ("position", "device.connected")]


class SimTests(UnitCase):
    """A change of the SIM card."""

    def card(self, number: str, word: int = OFF, **more: Any) -> list[dict[str, Any]]:
        """A V6 with this card."""
        return self.report(word, kind="V6", cell=f"214,03,13140,5085,{number}F,", **more)

    def test_change(self) -> None:
        """Another card is one event with both numbers; the same one again is none, over a restart too."""
        self.assertEqual([], self.of(self.card(CARDS[0]), "device.sim.changed"))
        self.restart()
        self.assertEqual([], self.of(self.card(CARDS[0]), "device.sim.changed"))
        event = self.one(self.card(CARDS[1]), "device.sim.changed")
        self.assertEqual((CARDS[1], CARDS[0]), (event["data"]["iccid"], event["data"]["iccid_before"]))
        self.restart()
        self.assertEqual([], self.of(self.card(CARDS[1]), "device.sim.changed"))

    def test_other_types(self) -> None:
        """V19 and the answer to CXZT name the card, too."""
        self.card(CARDS[0])
        text = f"*HQ,{IDENT},SMS,XM_GT09_SW_33.0\nID:{IDENT}\nGSM:22\nICCID:{CARDS[1]}#".encode()
        self.clock.advance(10)
        found = self.send(text + v1(self.now))
        self.assertEqual(CARDS[1], self.one(found, "device.sim.changed")["data"]["iccid"])
        stamp = v1(self.now + 5, kind="V19", cell="")
        frame = stamp[:-9] + f",195.63.13.195,{CARDS[0]}?,FFFFFBFF#".encode()
        self.clock.advance(10)
        self.assertEqual(CARDS[0], self.one(self.send(frame), "device.sim.changed")["data"]["iccid"])

    def test_late(self) -> None:
        """A record that the device calls late names the card that it had then: no change, there and back."""
        self.card(CARDS[1])
        self.assertEqual([], self.of(self.card(CARDS[0], without(OFF, 26)), "device.sim.changed"))
        self.assertEqual([], self.of(self.card(CARDS[1]), "device.sim.changed"))

    def test_copy(self) -> None:
        """A copy of the report with the old card is no change back."""
        self.card(CARDS[0])
        old = v1(self.now - 1, kind="V6", cell=f"214,03,13140,5085,{CARDS[0]}F,")
        self.assertEqual(1, len(self.of(self.card(CARDS[1]), "device.sim.changed")))
        self.assertEqual([], self.of(self.send(old), "device.sim.changed"))
        self.assertEqual([], self.of(self.card(CARDS[1]), "device.sim.changed"))


class StartTests(UnitCase):
    """From which report on all this holds."""

    def test_first_frame(self) -> None:
        """The first frame of a registered unit, which waits for its registry, is read by it."""
        self.registry = {
            "acc_wired": "0", "hemisphere": "SE", "time_offset_s": "28800", "bits": "18=sos", "battery": "index",
        }  # fmt: skip
        self.begin()
        self.sink.waits = True
        self.clock.advance(10)
        self.send(v1(self.now + 28_800, without(ON, 18), cell="214,03,13140,5085,5"))
        self.assertEqual([], self.sink.events)
        self.sink.begun()
        found = self.send(b"")
        entry = self.one(found)
        self.assertEqual(
            ("", "-42.316720", "7.883337", "sos", "80", "2026-11-22T12:00:10.000Z"),
            shown(entry, "ignition", "latitude", "longitude", "levels", "battery_pct", "time"),
        )
        self.assertEqual(NOON + 10, self.now)

    def test_another_ident_on_the_connection(self) -> None:
        """Two units behind one connection are read each by its own settings."""
        self.registry = {"acc_wired": "0"}
        self.begin()
        self.clock.advance(10)
        found = self.send(v1(self.now, ON) + v1(self.now, ON, ident="9170225362") + v1(self.now + 1, ON))
        by_ident = [(entry["ident"], entry["ignition"]) for entry in self.of(found, "position")]
        self.assertEqual([(IDENT, ""), (IDENT, ""), ("9170225362", "1")], sorted(by_ident, key=lambda row: row[0]))
