"""What an ST-907 says by SMS, beside how it is read; and what it is told."""

from __future__ import annotations

import json
from typing import Any, Final

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.commands import COMMANDS, Command
from gateway.decoding import decode
from gateway.devices.st907.settings import Options
from gateway.devices.st907.sms_texts import ALARMS
from gateway.errors import ConfigError, UnsupportedCommand
from gateway.events import ATTRIBUTES, STREAM_OF
from gateway.fields import rfc3339
from gateway.fleet.registering import RegistryError, check, shown
from gateway.interfaces import PASSWORD, SMSReading
from gateway.registry import Plugin
from tests.fakes import NOON

ST907: Final[Plugin] = next(plugin for plugin in registry.load() if plugin.name == "st907")

#: The one text of the family that is known to the letter (st907.md, 6.3), and when it came: its frames say so.
KNOWN: Final = (
    "http://maps.google.com/maps?q=+17.970767,+102.613425 Date:2006-08-17 Time:04:01:07 ID:9170225361 FIX:V "
    "Speed:0KM/H BAT:4"
)
KNOWN_AT: Final = 1_775_077_267.0 + 7 * 3600  # 2026-04-02 04:01:07 in UTC+7, and that is what it says
#: That of the look-alike.
OTHER: Final = (
    "http://maps.google.cn/maps?q=N40.93956,W008.53900 ID:9171072755 ACC:OFF GPS:A Speed:38.00KM/H 19-12-30 03:20:08"
)
OTHER_AT: Final = 1_577_676_008.0 - 8 * 3600 + 30

RCONF: Final = (
    "ST906(70SACD)_TQ_V_2.0 2024/06/07\r\nID:5226073533\r\nIP:1.2.3.4 5013\r\nUT:30,30,300\r\nVOLT:12.9V\r\n"
    "APN:internet.example.com\r\nGPS:A-24-23\r\nGSM:26"
)


def read(text: str, now: float = NOON, plugin: Plugin = ST907) -> SMSReading:
    """How a text is read."""
    return plugin.read_sms(text, {}, now)


def attributes(text: str, now: float = NOON) -> dict[str, Any]:
    """Attributes of the first event of a text."""
    return dict(read(text, now).events[0].attributes)


class PositionTests(SynchronousTestCase):
    """Texts with a place."""

    def test_known(self) -> None:
        """The known text: stale, so that its place is the last one; its week is 1024 too early, and local."""
        reading = read(KNOWN, KNOWN_AT - 7 * 3600 + 20)
        self.assertEqual(("position", "9170225361"), (reading.kind, reading.ident))
        (event,) = reading.events
        self.assertEqual(("position", "2026-04-01T21:01:07.000Z"), (event.type, rfc3339(event.time or 0)))
        self.assertEqual(
            {
                "valid": False,
                "last_latitude": 17.970767,
                "last_longitude": 102.613425,
                "battery_raw": 4,
                "battery_pct": 80,
                "message_type": "SMS",
            },
            event.attributes,
        )
        self.assertEqual("669", reading.answer.name if reading.answer else None)

    def test_other(self) -> None:
        """The look-alike's: letters before degrees, a date without its name."""
        reading = read(OTHER, OTHER_AT)
        (event,) = reading.events
        self.assertEqual(("position", "9171072755"), (reading.kind, reading.ident))
        self.assertEqual(OTHER_AT - 30, event.time)
        self.assertEqual(
            {
                "valid": True,
                "latitude": 40.93956,
                "longitude": -8.539,
                "speed_kmh": 38.0,
                "ignition": False,
                "message_type": "SMS",
            },
            event.attributes,
        )

    def test_forms(self) -> None:
        """Tokens in any order and case, between blanks or line breaks, with variants that are seen."""
        there = {"latitude": 52.5, "longitude": -13.25, "valid": True}
        for text in (
            "http://maps.google.com/maps?q=+52.5,-13.25 FIX:A",
            "http://maps.google.com/maps?q=52.5,-13.25\r\nfix:a",
            "ID:9170225361\nFIX:A\nhttps://maps.google.com/?q=52.5,-13.25",
            "http://maps.google.com/maps?f=q&q=52.5,-13.25&z=16 GPS:A",
            "lat:52.5 long:-13.25 FIX:A",
            "Lat: N52.5, Lon: W13.25 GPS: A",
            "latitude=52.5, longitude=-13.25 FIX:A",
            "http://maps.google.com/maps?q=N52.5,W013.25 FIX:A",
            "http://a.example/maps?q=52.5,-13.25 http://b.example/maps?q=1.5,2.5 FIX:A",
        ):
            found = attributes(text)
            self.assertEqual(there, {name: found.get(name) for name in there}, text)

    def test_nobody_vouches(self) -> None:
        """A place of which the text does not say that it is a fix is the last one."""
        found = attributes("http://maps.google.com/maps?q=1.5,2.5 Speed:9KM/H")
        self.assertEqual({"valid": False, "last_latitude": 1.5, "last_longitude": 2.5, "message_type": "SMS"}, found)

    def test_speed(self) -> None:
        """In km/h, with a blank before the unit or not; of a stale fix there is none."""
        for said, speed in (("Speed:38.5KM/H", 38.5), ("speed: 7 km/h", 7.0), ("Speed:12", None), ("Speed:KM/H", None)):
            found = attributes(f"http://maps.google.com/maps?q=1.5,2.5 {said} FIX:A")
            self.assertEqual(speed, found.get("speed_kmh"), said)
        self.assertNotIn("speed_kmh", attributes("http://maps.google.com/maps?q=1.5,2.5 Speed:9KM/H FIX:V"))

    def test_no_place(self) -> None:
        """Degrees that can't be are none: the text has no place, and is no fix."""
        for place in ("91.5,2.5", "1.5,181.5", "0.0,0.0", "1.5", ",", "", "nan,nan", "1,5 2,5", "٣.٥,٤.٥"):
            reading = read(f"http://maps.google.com/maps?q={place} ID:9170225361 FIX:A")
            self.assertEqual("position", reading.kind, place)
            self.assertEqual({"valid": False, "message_type": "SMS"}, reading.events[0].attributes, place)

    def test_battery(self) -> None:
        """A step of 20 %."""
        for said, percent in (("BAT:1", 20), ("BAT:5", 100), ("BAT:0", None), ("BAT:6", None), ("BAT:80", None)):
            self.assertEqual(percent, attributes(f"ID:9170225361 FIX:V {said}").get("battery_pct"), said)

    def test_more(self) -> None:
        """Ignition and supply."""
        found = attributes("ID:9170225361 FIX:V ACC:ON Power:OFF door:open")
        self.assertEqual((True, False), (found["ignition"], found["external_power"]))


class TimeTests(SynchronousTestCase):
    """Times are local, of a zone that nobody says, and may be some thousand weeks too early."""

    def text(self, when: float) -> str:
        """A text that says that it is of then."""
        date, time = rfc3339(when)[:10], rfc3339(when)[11:19]
        return f"http://maps.google.com/maps?q=1.5,2.5 Date:{date} Time:{time} ID:9170225361 FIX:A"

    def test_zones(self) -> None:
        """In whichever zone, and after whichever number of weeks: what was made a minute ago is of then."""
        for half_hours in range(-24, 29):
            for weeks in (0, 1024, 2048):
                made = NOON - 60
                event = read(self.text(made + half_hours * 1800 - weeks * 604_800), NOON).events[0]
                self.assertEqual(made, event.time, (half_hours, weeks))

    def test_too_late(self) -> None:
        """What is of none of the last minutes in any zone has no time that can be told; its own words stay."""
        for ago in (700, 1700):
            event = read(self.text(NOON - ago), NOON).events[0]
            self.assertIsNone(event.time, ago)
            self.assertEqual(rfc3339(NOON - ago)[:19], event.attributes["device_time"])
        event = read(self.text(NOON - 86_400 * 3), NOON).events[0]
        self.assertIsNone(event.time)

    def test_no_date(self) -> None:
        """Nonsense is no time; neither is a time without a date."""
        for said in (
            "Date:2026-13-40 Time:25:00:00",
            "Date:0000-00-00 Time:00:00:00",
            "Time:12:00:00",
            "99-99-99 99:99:99",
        ):
            event = read(f"http://maps.google.com/maps?q=1.5,2.5 {said}").events[0]
            self.assertIsNone(event.time, said)


class OtherTextTests(SynchronousTestCase):
    """Answers, configuration, alarms, and the rest."""

    def test_answers(self) -> None:
        """What says that something was done, or was not."""
        for text, accepted in (
            *(("SET OK", True), ("set ok!", True), ("\r\nSET OK\r\n", True), ("TIME ZONE SET OK, CURRENT: E08.", True)),
            *(("admin ok", True), ("apn ok", True), ("speed ok", True), ("ok", True), ("OK!", True)),
            *(
                ("ERROR", False),
                ("SET ERROR", False),
                ("password error", False),
                ("fail!", False),
                ("指令格式错误", False),
            ),
        ):
            reading = read(text)
            self.assertEqual(("answer", ""), (reading.kind, reading.answer.name if reading.answer else None), text)
            self.assertEqual(accepted, reading.answer.accepted if reading.answer else None, text)
        self.assertEqual("answer", read("101#15112345678 102# 103#").kind)

    def test_configuration(self) -> None:
        """In lines or in one line."""
        reading = read(RCONF)
        self.assertEqual(("configuration", "5226073533"), (reading.kind, reading.ident))
        found = reading.events[0].attributes
        self.assertEqual(
            ("1.2.3.4:5013", [30, 30, 300], 12.9, "internet.example.com", 26),
            tuple(found[name] for name in ("server", "intervals_s", "supply_v", "apn", "csq")),
        )
        self.assertEqual("status", reading.events[0].type)
        other = "XM_GT09_SW_33.0 2019/08/08 ID:9171072755 IP:27.aika168.com 8185 BAT:5 APN:internet GPS:V-13-9 GSM:22"
        self.assertEqual("27.aika168.com:8185", read(other).events[0].attributes["server"])

    def test_alarms(self) -> None:
        """What an alarm may say; where it was is a report before it."""
        for text, kind in (
            *(("Over speed alarm! Speed:85KM/H", "alarm.overspeed"), ("speed alarm", "alarm.overspeed")),
            *(("SOS alarm", "alarm.sos"), ("help me", "alarm.sos"), ("Shock alarm!", "alarm.vibration")),
            *(("Out of fence", "alarm.geofence.exit"), ("leaving area", "alarm.geofence.exit")),
            *(("fence alarm: exit", "alarm.geofence.exit"), ("Enter fence", "alarm.geofence.enter")),
            *(("in the area", "alarm.geofence.enter"), ("moving out of area", "alarm.geofence.exit")),
            *(("Power cut alarm", "alarm.power.cut"), ("Main power off", "alarm.power.cut")),
            *(("您的设备掉主电报警，请关注!", "alarm.power.cut"), ("Low battery", "alarm.battery.low")),
            *(
                ("battery is low", "alarm.battery.low"),
                ("door open alarm", "alarm.door"),
                ("move alarm", "alarm.vibration"),
            ),
        ):
            reading = read(text)
            self.assertEqual(("alarm", kind), (reading.kind, reading.events[-1].type if reading.events else None), text)
            both = read(f"{text} {KNOWN}", KNOWN_AT)
            self.assertEqual(("alarm", ["position", kind]), (both.kind, [event.type for event in both.events]), text)
            self.assertIsNone(both.answer, "nobody asked for it")
        reading = read("ACC alarm")
        self.assertEqual("st907.acc", reading.events[0].attributes["name"])

    def test_no_alarm(self) -> None:
        """The words that a report is made of are no alarm."""
        for text in (KNOWN, OTHER, "ID:9170225361 FIX:V Speed:0KM/H BAT:4 ACC:OFF Power:ON door:close"):
            self.assertEqual("position", read(text).kind, text)

    def test_own_patterns(self) -> None:
        """An operator's own come first, and may name what the contract has no word for."""
        own = {"vibration": "rattles", "seatbelt": "belt", "overspeed": "^zu schnell"}
        plugin = next(p for p in registry.load(options={"st907": {"sms_alarms": own}}) if p.name == "st907")
        for text, kind in (("it RATTLES", "vibration"), ("Zu schnell!", "overspeed"), ("SOS", "sos")):
            self.assertEqual(f"alarm.{kind}", read(text, plugin=plugin).events[0].type)
        event = read("no belt", plugin=plugin).events[0]
        self.assertEqual(("alarm.other", "st907.seatbelt"), (event.type, event.attributes["name"]))

    def test_bad_patterns(self) -> None:
        """What can't be one stops start-up, and is named."""
        for own, said in (({"sos": "("}, "'sos'"), ({"S O S": "x"}, "'S O S'"), ({"sos": 5}, "'sos'")):
            error = self.assertRaises(
                ConfigError, registry.load, options={"st907": {"sms_alarms": own}}, where="x.toml"
            )
            self.assertIn(said, str(error))
            self.assertIn("sms_alarms", str(error))

    def test_unmatched(self) -> None:
        """Anything else is nothing, and stays as it is."""
        for text in (
            "",
            " \r\n",
            "Your balance is 3.50 EUR",
            "\u202eabc \U0001f600",
            "x" * 5000,
            "ID:123",
            "http://x.y/z",
        ):
            self.assertEqual(SMSReading("unmatched"), read(text), text[:20])

    def test_names(self) -> None:
        """Each alarm is a type of the contract, but for the last, and its attributes are the contract's."""
        self.assertEqual(["acc"], [name for name in ALARMS if f"alarm.{name}" not in STREAM_OF])
        for text in (KNOWN, OTHER, RCONF, "SOS"):
            for event in read(text).events:
                self.assertEqual(set(), set(event.attributes) - set(ATTRIBUTES))

    @given(st.text(max_size=1200) | st.from_regex(r"(?s)(ID:\d{8,12}|FIX:[AV]|q=|Date:|Time:|[-+NSEW0-9.,: ]){1,40}"))
    def test_anything(self, text: str) -> None:
        """Whatever comes is read, and what it leads to can be published."""
        reading = read(text)
        for event in reading.events:
            self.assertIn(event.type, STREAM_OF)
            self.assertEqual(set(), set(event.attributes) - set(ATTRIBUTES))


class ToldTests(SynchronousTestCase):
    """What a unit is told."""

    ARGS: Final[dict[str, dict[str, Any]]] = {
        "interval.set": {"seconds": 60},
        "overspeed.set": {"speed_kmh": 90.4},
        "server.set": {"host": "203.0.113.7", "port": 8888},
        "apn.set": {"apn": "internet"},
    }
    TEXTS: Final = {
        "engine.stop": "940{password}",
        "engine.resume": "941{password}",
        "position.request": "669{password}",
        "interval.set": "805{password} 60",
        "overspeed.set": "122{password} 90",
        "reboot": "RESTART",
        "config.read": "RCONF",
        "server.set": "804{password} 203.0.113.7 8888",
        "apn.set": "803{password} internet",
    }

    def test_each(self) -> None:
        """Each command that it takes by SMS, as st907.md, 6.2 has it; and no other can be told."""
        by_sms = {name for name, support in ST907.commands.items() if "sms" in support.channels}
        self.assertEqual({*self.TEXTS}, by_sms)
        for name in COMMANDS:
            command = Command(name, self.ARGS.get(name, {}))
            if name in by_sms:
                self.assertEqual(self.TEXTS[name], ST907.sms(command, {}).template)
            else:
                self.assertRaises(UnsupportedCommand, ST907.sms, command, {})

    def test_refused(self) -> None:
        """What can't be a text says why."""
        for name, args, said in (
            ("interval.set", {"seconds": 40_000}, "5 to 18000"),
            ("apn.set", {"apn": "two words"}, "one word"),
            ("apn.set", {"apn": "{password}"}, "one word of printable ASCII"),
            ("server.set", {"host": "a b", "port": 1}, "host 'a b'"),
            ("server.set", {"host": "{password}.evil.example", "port": 1}, "host"),
        ):
            error = self.assertRaises(UnsupportedCommand, ST907.sms, Command(name, args), {})
            self.assertIn(said, str(error))

    def test_set_up(self) -> None:
        """The texts that have it report here, in their order."""
        texts = [
            one.template for one in ST907.set_up("203.0.113.7", 8888, "internet user pw", {}, 60, "+4915112345678")
        ]
        self.assertEqual(
            [
                "RCONF",
                f"4915112345678{PASSWORD} 1",
                f"803{PASSWORD} internet user pw",
                f"804{PASSWORD} 203.0.113.7 8888",
                f"710{PASSWORD}",
                f"805{PASSWORD} 60",
                f"809{PASSWORD} 300",
                "RCONF",
            ],
            texts,
        )
        self.assertEqual(7, len(ST907.set_up("h", 1, "a", {})))
        self.assertRaises(UnsupportedCommand, ST907.set_up, "h", 1, "a", {}, 1)
        self.assertRaises(UnsupportedCommand, ST907.set_up, "h", 1, "a b", {})
        self.assertRaises(UnsupportedCommand, ST907.set_up, "h", 1, "a", {}, None, "alice")

    def test_password(self) -> None:
        """The registry's, else the configured one, else the factory's; none is named where it can't be one."""
        own = next(p for p in registry.load(options={"st907": {"sms_password": "4711"}}) if p.name == "st907")
        self.assertEqual(("0000", "4711"), (ST907.sms_password({}), own.sms_password({})))
        self.assertEqual("12ab34", own.sms_password({"sms_password": "12ab34"}))
        error = self.assertRaises(UnsupportedCommand, own.sms_password, {"sms_password": "no way"})
        self.assertNotIn("no way", str(error))
        wrong = self.assertRaises(ConfigError, registry.load, options={"st907": {"sms_password": "hunter2!!"}})
        self.assertNotIn("hunter2", str(wrong))


class DecodeTests(SynchronousTestCase):
    """What an operator sees."""

    def test_decode(self) -> None:
        """C{gateway decode --sms} shows how a text is read, for him to try his patterns."""
        done = CliRunner().invoke(decode, ["--sms", "-"], input="power off ID:9170225361\n")
        self.assertEqual(0, done.exit_code, done.output)
        said = json.loads(done.output)
        self.assertEqual(("st907", "alarm", "9170225361"), (said["protocol"], said["kind"], said["ident"]))
        self.assertEqual("alarm.power.cut", said["events"][0]["type"])

    def test_hidden(self) -> None:
        """No password is shown: not by C{gateway plugins}, not with an error, not of a unit."""
        done = CliRunner().invoke(decode, ["--registry", "sms_password=4711", "-"], input="*HQ,9170225361,V0#")
        self.assertNotIn("4711", done.output)
        self.assertEqual({"sms_password": "****", "alias": "van"}, shown({"sms_password": "4711", "alias": "van"}))
        error = self.assertRaises(RegistryError, check, "9170225361", {"sms_password": "no way"})
        self.assertNotIn("no way", str(error))
        self.assertNotIn("4711", repr(Options(sms_password="4711")))
