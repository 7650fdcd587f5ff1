"""What an ST-907 is told, byte by byte, and what its frames say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.commands import COMMANDS, Command
from gateway.devices.st907 import device
from gateway.devices.st907.raw import switches
from gateway.devices.st907.settings import Options
from gateway.devices.st907.units import learn
from gateway.errors import UnsupportedCommand
from gateway.interfaces import CommandAnswer, Downlink, ICommandDevice, Kept
from tests.fakes import NOON
from tests.units import binary

IDENT: Final = "9170225361"
#: 2026-11-22T12:00:07Z
NOW: Final = NOON + 7.9


def encode(
    name: str, *, form: int = 0, options: Options | None = None, kept: Kept | None = None, **args: Any
) -> Downlink:
    """A command as an ST-907 is told it."""
    return device.encode(IDENT, Command(name, args), options, Kept() if kept is None else kept, NOW, form)


class Told(NamedTuple):
    """
    A command, and how it goes out.

    @ivar stamped: whether its answer repeats the time.
    """

    name: str
    args: Mapping[str, Any]
    data: str
    expected: tuple[str, ...] = ()
    form: int = 0
    answered: bool = True
    more: bool = False
    stamped: bool = True


NORTH_EAST: Final = {
    "min_latitude": 22.7553, "max_latitude": 22.774 + 1e-9, "min_longitude": 112.55388, "max_longitude": 113.6104,
}  # fmt: skip
SOUTH_WEST: Final = {"min_latitude": -34.0, "max_latitude": -0.5, "min_longitude": -58.99999999, "max_longitude": 0.0}

# fmt: off
TOLD: Final = (
    Told("engine.stop", {}, "S20,120007,1,1", ("1", "1")),
    Told("engine.resume", {}, "S20,120007,1,0", ("1", "0"), more=True),
    Told("engine.resume", {}, "S20,120007,0,0", ("0", "0"), form=1),
    Told("interval.set", {"seconds": 60}, "S17,120007,60"),
    Told("overspeed.set", {"speed_kmh": 120.0}, "S14,120007,65,0,1,10", ("65", "0", "1", "10")),
    Told("overspeed.set", {"speed_kmh": 185.2}, "S14,120007,100,0,1,10", ("100", "0", "1", "10")),
    # so little is not none
    Told("overspeed.set", {"speed_kmh": 0.5}, "S14,120007,1,0,1,10", ("1", "0", "1", "10")),
    Told("overspeed.set", {"speed_kmh": 0.0}, "S14,120007,0,0,1,10", ("0", "0", "1", "10")),
    Told("geofence.set", {**NORTH_EAST, "number": 17, "alarm": "leave"},
         "S21,120007,17,1,N,2245.318,2246.440,E,11233.233,11336.624",
         ("17", "1", "N", "2245.318", "2246.440", "E", "11233.233", "11336.624")),
    Told("geofence.set", {**SOUTH_WEST, "alarm": "enter"},
         "S21,120007,1,3,S,0030.000,3400.000,W,00000.000,05900.000",
         ("1", "3", "S", "0030.000", "3400.000", "W", "00000.000", "05900.000")),
    Told("geofence.clear", {"number": 17}, "S21,120007,17,0", ("17", "0")),
    Told("geofence.clear", {}, "S21,120007,0,0", ("0", "0")),
    Told("alarm.clear", {}, "R7,120007", answered=False),
    Told("arm", {}, "SCF,120007,0,0"),
    Told("disarm", {}, "SCF,120007,1,1"),
    Told("reboot", {}, "R1,120007", stamped=False),
    Told("server.set", {"host": "203.0.113.7", "port": 8888}, "S23,120007,203.0.113.7:8888", ("203.0.113.7:8888",)),
    Told("apn.set", {"apn": "internet.example"}, "S24,120007,internet.example", ("internet.example",)),
    Told("password.set", {"old": "0000", "new": "1234"}, "S1,120007,0000,1234"),
)

REFUSED: Final[tuple[tuple[str, dict[str, Any], str], ...]] = (
    ("position.request", {}, "over data"),
    ("cancel", {"ref": "r"}, "over data"),
    ("geofence.set", {**NORTH_EAST, "min_latitude": -1.0}, "equator"),
    ("geofence.set", {**NORTH_EAST, "min_longitude": -1.0}, "Greenwich"),
    ("geofence.set", {**NORTH_EAST, "min_latitude": 22.774 - 1e-6}, "near"),
    ("server.set", {"host": "gps.example.com", "port": 1}, "IPv4"),
    ("server.set", {"host": "::1", "port": 1}, "IPv4"),
    ("server.set", {"host": "1.2.3.4#", "port": 1}, "IPv4"),
    ("apn.set", {"apn": "two words"}, "blank"),
    ("apn.set", {"apn": "a,b"}, "','"),
    ("apn.set", {"apn": "a#*HQ,1,S20,120000,1,1"}, "'#'"),
    ("apn.set", {"apn": "a*"}, "'*'"),
    ("apn.set", {"apn": "a\n"}, "ASCII"),
    ("apn.set", {"apn": "\u00fc"}, "ASCII"),
    ("apn.set", {"apn": ""}, "ASCII"),
    ("password.set", {"old": "0,0", "new": "1"}, "','"),
    ("password.set", {"old": "0000", "new": "1 2"}, "blank"),
    ("raw", {"text": "\u00fc"}, "no bytes"),
    ("raw", {"hex": "2"}, "no bytes"),
)

#: Bytes that may switch the engine.
SWITCHES: Final = (
    b"*HQ,9170225361,S20,120000,1,1#", b"*TH,000,S20,120000,1,1#", b"*hq,9170225361,s20,120000,1,1#",
    b"*HQ,9170225361,S20#", b"*HQ,9170225361, S20 ,120000,1,0#", b"*HQ,9170225361,S 2 0,120000,1,1#",
    b"*HQ,9170225361,S\r\n20,120000,1,1#", b"*HQ,9170225361,S\x002\x000,120000#", b"*HQ,9170225361,S\xa020,1,1#",
    b"*HQ,9170225361,S020,120000,1,1#", b"*HQ,9170225361,S200,1,1#", b"S20", b"s20,1,1", b"*HQ,1,\xd320,120000,1,1#",
    b"*HQ,9170225361,R7,120000#*HQ,9170225361,S20,120001,1,1#", b"*HQ,1,S14,120000,*HQ,1,S20,1,1#", b"xx*HQ,,S20,,#",
    b"*HQ,9170225361,V1,120000#\r\n*XX,1,s20,1", b"$\x91\x70S20",
    b"9400000", b"9410000", b"940", b" 9400000", b"\r\n9400000", b"9 4 0 0000", b"9400000#", b"940abcd",
    b"RCONF\n9410000", b"RCONF 9410000", b"*HQ,9170225361,R7,120000#9400000", b"*HQ,9170225361,9400000#",
    b"*9400000#", b"\xb9\xb4\xb00000",
)
#: Bytes that do not.
HARMLESS: Final = (
    b"RCONF", b"8040000 203.0.113.7 8888", b"8050000 940", b"*HQ,9410000001,R7,120000#", b"*HQ,1,D1,094000,940#",
    b"*HQ,9170225361,S2,120000,0151#", b"*HQ,9170225361,S21,120000,1,1,S,2012.345,2112.345,E,00940.000,01000.000#",
    b"*HQ,9170225361,R12,941000#", b"\x00\x01\xff", b"1220000 120",
)

BLOCK: Final = "A,2212.8745,N,11346.6574,E,14.28,028,220902"
#: What follows C{V4}, and what it says.
V4: Final = (
    # SinoTrack's document and Traccar's samples
    (f"S20,DONE,130305,050316,{BLOCK},F7FFFBFF", CommandAnswer("S20", "130305", True)),
    (f"S20,OK,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S20", "130305", True)),
    (f"S20,ERROR,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S20", "130305", False)),
    (f"S17,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S17", "130305")),
    (f"S14,100,10,1,3,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S14", "130305", None, ("100", "10", "1", "3"))),
    (f"S23,165.165.33.250:8800,130305,050316,{BLOCK},FFFFFBFF",
     CommandAnswer("S23", "130305", None, ("165.165.33.250:8800",))),
    (f"S24,thit.gd,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S24", "130305", None, ("thit.gd",))),
    (f"S1,OK,pass_word,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S1", "130305", True, ("pass_word",))),
    (f"R8,ERROR,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("R8", "130305", False)),
    # the newer document
    ("D1,30,65535,062108,062225,A,2235.0086,N,11354.3668,E,000.00,000,160716,FFFFBBFF,460,00,10342,3721",
     CommandAnswer("D1", "062108", None, ("30", "65535"))),
    ("SCF,061837,061955, A,2235.0086,N,11354.3668,E,000.00,000,160716,FFFFB9FF,460,00,10342,3721",
     CommandAnswer("SCF", "061837")),
    ("S20,OK,061158,061202, A,2235.0086,N,11354.3668,E,000.00,000,160716F7FFBBFF,460,00,10342,3721",
     CommandAnswer("S20", "061158", True)),
    ("S71,01,062328, 062355, A,2235.0086,N,11354.3668,E,000.00,000,160716,FFFFB9FF,460,00,10342,3721",
     CommandAnswer("S71", "062328", None, ("01",))),
    # exlive's
    ("S21,17,1,130305,050316,N,2245.318,2246.452,E,11233.232,11365.175,FFFFFBFF",
     CommandAnswer("S21", "130305", None, ("17", "1", "N", "2245.318", "2246.452", "E", "11233.232", "11365.175"))),
    ("S21,17,0,130305,050316,FFFFFBFF", CommandAnswer("S21", "130305", None, ("17", "0"))),
    ("S21,17,0, 130305,050316,FFFFFBFF", CommandAnswer("S21", "130305", None, ("17", "0"))),
    # a CJ730: Traccar issue 5417
    ("S20,034313,1,1", CommandAnswer("S20", "034313", None, ("1", "1"))),
    # the same with what else units put into their frames
    ("S20,034313,1,1 ", CommandAnswer("S20", "034313", None, ("1", "1"))),
    ("S20,034313,1,1,", CommandAnswer("S20", "034313", None, ("1", "1"))),
    (" s20 , 034313 ,1 , 1, ,", CommandAnswer("S20", "034313", None, ("1", "1"))),
    ("S20,034313,DONE", CommandAnswer("S20", "034313", True)),
    ("S20,DONE", CommandAnswer("S20", "", True)),
    ("S20,ERROR", CommandAnswer("S20", "", False)),
    ("S20,FAIL,130305", CommandAnswer("S20", "130305", False)),
    ("s20,done,130305,050316", CommandAnswer("S20", "130305", True)),
    ("S20", CommandAnswer("S20")),
    ("S20,", CommandAnswer("S20")),
    ("R8,ERROR", CommandAnswer("R8", "", False)),
    ("S1,OK,pw", CommandAnswer("S1", "", True, ("pw",))),
    ("S23,1.2.3.4:8800,130305", CommandAnswer("S23", "130305", None, ("1.2.3.4:8800",))),
    ("S20,DONE,130305,050316,f7fffbff", CommandAnswer("S20", "130305", True)),
    ("S20,DONE,130305,050316,F7FFFBFF,", CommandAnswer("S20", "130305", True)),
    ("S20,1,1,130305,FFFFFBFF", CommandAnswer("S20", "130305", None, ("1", "1"))),
    ("S20,DONE,130305,050316,220902,FFFFFBFF", CommandAnswer("S20", "130305", True)),
    ("S20,DONE,FFFFFBFF", CommandAnswer("S20", "", True)),
    # passwords that look like times, and words that look like answers
    ("S1,OK,123456", CommandAnswer("S1", "", True, ("123456",))),
    ("S1,OK,123456,130305,050316,FFFFFBFF", CommandAnswer("S1", "130305", True, ("123456",))),
    (f"S1,OK,123456,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S1", "130305", True, ("123456",))),
    (f"S1,OK,DONE,130305,050316,{BLOCK},FFFFFBFF", CommandAnswer("S1", "130305", True, ("DONE",))),
    # figures that are no time
    ("S14,240000,1", CommandAnswer("S14", "", None, ("240000", "1"))),
    ("", None),
    (",130305", None),
)

CONFIGURATION: Final = (
    "ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nIP:1.2.3.4 5013\nUT:30,30,300\nVOLT:12.9V\n"
    "APN:internet.example.com\nGPS:A-24-23\nGSM:26"
)
# fmt: on


def answer(frame: str) -> CommandAnswer | None:
    """What a frame says of a command."""
    made = device.decoder(Options(), lambda ident: Kept())
    (message,) = [*made.receive(frame.encode("latin-1"), NOON), *made.finish(NOON)]
    assert message.error is None, (frame, message.error)
    return message.answer


class EncodeTests(SynchronousTestCase):
    """Commands on their way out."""

    def test_table(self) -> None:
        """Each command has its bytes, and says what its answer looks like."""
        for case in TOLD:
            name = case.data.partition(",")[0]
            wanted = Downlink(
                f"*HQ,{IDENT},{case.data}#".encode(),
                name,
                "120007" if case.stamped else "",
                case.expected,
                case.answered,
                case.more,
            )
            self.assertEqual(wanted, encode(case.name, form=case.form, **case.args), case)

    def test_all(self) -> None:
        """What it says to know over data it can be told, and nothing else; all of the vocabulary is accounted for."""
        self.assertTrue(ICommandDevice.providedBy(device))
        told = {case.name for case in TOLD} | {"config.read", "raw"}
        self.assertEqual(told, {name for name, support in device.commands.items() if "data" in support.channels})
        self.assertEqual({*COMMANDS} - {"cancel"}, {*device.commands})
        for name, support in device.commands.items():
            self.assertTrue(support.note, name)

    def test_refused(self) -> None:
        """What can't be told is refused with the reason, and never becomes a broken frame."""
        for name, args, word in REFUSED:
            error = self.assertRaises(UnsupportedCommand, encode, name, **args)
            self.assertIn(word, str(error), (name, args))

    def test_secret(self) -> None:
        """The reason does not show a password."""
        error = self.assertRaises(UnsupportedCommand, encode, "password.set", old="0000", new="s,cret")
        self.assertNotIn("cret", str(error))

    def test_maker(self) -> None:
        """The maker's code is the one that is kept of the unit; one that is none is dropped."""
        for kept, maker in (({"maker": "TH"}, "TH"), ({"maker": "hq"}, "hq"), ({}, "HQ"), ({"maker": "#S"}, "HQ")):
            self.assertEqual(f"*{maker},{IDENT},R7,120007#".encode(), encode("alarm.clear", kept=Kept(kept)).data)
        for wrong in (5, None, "H", "HQ,", "\u00e4\u00e4", ["HQ"]):
            self.assertEqual(
                f"*HQ,{IDENT},R7,120007#".encode(), encode("alarm.clear", kept=Kept({"maker": wrong})).data
            )

    def test_idents(self) -> None:
        """An IMEI is told in the same way; an ident that would break the frame is refused."""
        command = Command("alarm.clear")
        told = device.encode("353505510948929", command, None, Kept(), NOW, 0)
        self.assertEqual(b"*HQ,353505510948929,R7,120007#", told.data)
        self.assertRaises(UnsupportedCommand, device.encode, "1#2", command, None, Kept(), NOW, 0)

    def test_interval_commands(self) -> None:
        """Which command sets the interval is set for all units, for a model, or for one."""
        kept = Kept()
        kept.registry = {"interval_command": "S71"}
        named = Kept()
        named.registry = {"model": "ST-903"}
        options = Options(models={"ST-903": {"interval_command": "D1"}})
        for one, data in ((Kept(), "S17,120007,30"), (named, "D1,120007,30"), (kept, "S71,120007,22,30")):
            told = encode("interval.set", kept=one, options=options, seconds=30)
            self.assertEqual(f"*HQ,{IDENT},{data}#".encode(), told.data)
            self.assertEqual((data.partition(",")[0], "120007"), (told.name, told.token))

    def test_configuration(self) -> None:
        """RCONF is a text without a frame, and what answers it repeats nothing."""
        self.assertEqual(Downlink(b"RCONF", "RCONF"), encode("config.read"))

    def test_raw(self) -> None:
        """Bytes go out as they are; of those that have an answer it is known what it looks like."""
        frame = "*HQ,9170225361,s26,120000#"
        cases: tuple[tuple[dict[str, Any], Downlink], ...] = (
            ({"text": frame}, Downlink(frame.encode(), "S26", "120000")),
            ({"hex": frame.encode().hex()}, Downlink(frame.encode(), "S26", "120000")),
            ({"text": "*HQ,1,S14,120000,100,10,1,3#"}, Downlink(b"*HQ,1,S14,120000,100,10,1,3#", "S14", "120000")),
            ({"text": "*HQ,1,R1,120000#"}, Downlink(b"*HQ,1,R1,120000#", "R1")),
            ({"text": "*HQ,1,R7,120000#"}, Downlink(b"*HQ,1,R7,120000#", "R7", "120000", answered=False)),
            ({"text": "cxzt"}, Downlink(b"cxzt", "RCONF")),
            ({"text": "8050000 20"}, Downlink(b"8050000 20", "raw", answered=False)),
            ({"hex": "00ff"}, Downlink(b"\x00\xff", "raw", answered=False)),
        )
        for args, wanted in cases:
            self.assertEqual(wanted, encode("raw", **args))

    def test_engine_in_raw(self) -> None:
        """What may switch the engine is refused as raw in every spelling; what does not goes through."""
        for data in SWITCHES:
            error = self.assertRaises(UnsupportedCommand, encode, "raw", hex=data.hex())
            self.assertIn("use engine.stop / engine.resume", str(error), data)
        for data in HARMLESS:
            self.assertEqual(data, encode("raw", hex=data.hex()).data)

    @given(
        st.tuples(st.sampled_from("Ss"), st.sampled_from("2"), st.sampled_from("0")),
        st.lists(st.binary(max_size=3).map(lambda data: re.sub(rb"[!-~\x80-\xff]", b"", data)), min_size=4, max_size=4),
        st.binary(max_size=20),
        st.binary(max_size=20),
    )
    def test_any_spelling(self, letters: tuple[str, ...], gaps: list[bytes], before: bytes, after: bytes) -> None:
        """S20 in any case, with blanks and control characters around and in it, within any bytes."""
        said = b"".join(gap + letter.encode() for gap, letter in zip(gaps, letters, strict=False))
        self.assertTrue(switches(before + said + gaps[3] + after))

    @settings(max_examples=300)
    @given(st.data())
    def test_one_frame(self, data: st.DataObject) -> None:
        """Whatever the arguments are: one frame of printable ASCII with one C{*} and one C{#}, or none."""
        name = data.draw(st.sampled_from([name for name in device.commands if name not in ("raw", "config.read")]))
        kinds = {
            int: st.integers(-1, 10**6),
            float: st.floats(-400, 400),
            str: st.text(max_size=20)
            | st.text("S20*#, 1", max_size=20)
            | st.sampled_from(["1.2.3.4", "leave", "enter"]),
        }
        args = {key: data.draw(kinds[one.kind]) for key, one in COMMANDS[name].parameters.items()}
        if "alarm" in args:
            args["alarm"] = data.draw(st.sampled_from(["leave", "enter"]))
        ident, maker = data.draw(st.just(IDENT) | st.text(max_size=12)), data.draw(st.text(max_size=3))
        try:
            told = device.encode(
                ident, Command(name, args), None, Kept({"maker": maker}), NOW, data.draw(st.integers(0, 2))
            )
        except UnsupportedCommand:
            return
        self.assertRegex(told.data.decode("ascii"), r"\A\*[A-Za-z]{2},[!-+\--~]+,[A-Z0-9]+,120007(?:,[!-+\--~]+)*#\Z")
        self.assertEqual((1, 1), (told.data.count(b"*"), told.data.count(b"#")))


class AnswerTests(SynchronousTestCase):
    """Frames that say something of a command."""

    def test_v4(self) -> None:
        """Each form of V4, whoever made the unit."""
        for maker in ("HQ", "TH", "hq"):
            for said, wanted in V4:
                self.assertEqual(wanted, answer(f"*{maker},2020916012,V4,{said}#"), said)

    def test_password(self) -> None:
        """An answer repeats the new password: it is for whoever compares it, and in nothing that is published."""
        for said in (
            f"S1,OK,secret,130305,050316,{BLOCK},FFFFFBFF",
            "S1,OK,secret",
            "S1,secret,130305,050316,FFFFFBFF",
        ):
            [message] = device.decoder(None, lambda ident: Kept()).receive(f"*HQ,{IDENT},V4,{said}#".encode(), NOW)
            self.assertNotIn("secret", repr(message.events))
            self.assertRegex(message.events[0].attributes["reply_text"], r"^S1(,OK)?,\*\*\*$")
            assert message.answer is not None
            self.assertIn("secret", message.answer.values)

    def test_nothing(self) -> None:
        """A V4 that ends right there answers nothing."""
        self.assertIsNone(answer("*HQ,2020916012,V4#"))

    def test_own(self) -> None:
        """What is sent and what comes back for it fit together, in the full form and in the short one."""
        for case in TOLD:
            told = encode(case.name, form=case.form, **case.args)
            parameters = ",".join(["", *told.expected])
            for said in (
                f"{told.name}{parameters},120007,120009,{BLOCK},FFFFFBFF",
                f"{told.name},120007{parameters}",
                f"{told.name}{parameters},120007,120009,FFFFFBFF",
            ):
                found = answer(f"*HQ,{IDENT},V4,{said}#")
                self.assertEqual(CommandAnswer(told.name, "120007", None, told.expected), found, said)

    def test_sms(self) -> None:
        """A text that says how the unit is set up answers RCONF; another one answers nothing."""
        one_line = CONFIGURATION.replace("\n", " ")
        for text, wanted in (
            (CONFIGURATION, CommandAnswer("RCONF")),
            (one_line, CommandAnswer("RCONF")),
            ("ID:5226073533\nUT:30,30,300", CommandAnswer("RCONF")),
            ("ID:5226073533 IP:1.2.3.4 5013", CommandAnswer("RCONF")),
            ("SET OK", None),
            ("ID:5226073533", None),
            ("ID:5226073533 BAT:4", None),
            ("IP:1.2.3.4 5013 UT:30", None),
            ("VALID:1 SKIP:1", None),
        ):
            self.assertEqual(wanted, answer(f"*HQ,5226073533,SMS,{text}#"), text)

    def test_started(self) -> None:
        """V6 says that the unit has started, which is all that a reboot is answered with."""
        frame = (
            "*HQ,3177718238,V6,002926,V,3514.4088,N,9733.2842,W,0.00,0.00,151222,FFF7FBFF,"
            "310,260,32936,13641,8944501311217563382F,#"
        )
        self.assertEqual(CommandAnswer("R1"), answer(frame))

    def test_others(self) -> None:
        """Other reports answer nothing."""
        for kind in ("V1", "V2", "V5", "V8"):
            self.assertIsNone(answer(f"*HQ,{IDENT},{kind},120000,{BLOCK},FFFFFBFF#"), kind)
        self.assertIsNone(answer(f"*HQ,{IDENT},HTBT#"))

    @given(
        st.text("0123456789,.:ADEKNORSV \u00e9", max_size=60), st.sampled_from(["", ",FFFFFBFF", f",{BLOCK},FFFFFBFF"])
    )
    def test_anything(self, said: str, end: str) -> None:
        """No answer makes a V4 that can't be read, and what it has is trimmed."""
        made = device.decoder(Options(), lambda ident: Kept())
        (message,) = made.receive(f"*HQ,{IDENT},V4,{said}{end}#".encode("latin-1"), NOON)
        found = message.answer
        if found is not None:
            self.assertTrue(found.name)
            self.assertRegex(found.token, r"\A(?:[0-9]{6})?\Z")
            for text in (found.name, *found.values):
                self.assertEqual(text.strip(), text)


class MakerTests(SynchronousTestCase):
    """Which maker's code is kept of a unit."""

    def learned(self, kept: Kept, maker: str, *, again: bool = False) -> Kept:
        """What is kept after a report with this code."""
        frame = f"*{maker},{IDENT},V1,120000,A,4221.1699,N,00752.5296,W,018.47,122,221126,FFFFFFFF#"
        (message,) = device.decoder(Options(), lambda ident: kept).receive(frame.encode(), NOON)
        kept.again = again
        learn(message, Options(), kept, NOON)
        return kept

    def test_kept(self) -> None:
        """A code that is not HQ is kept, and forgotten when the unit has HQ."""
        kept = self.learned(Kept(), "HQ")
        self.assertNotIn("maker", kept)
        self.assertEqual("TH", self.learned(kept, "TH")["maker"])
        self.assertEqual("hq", self.learned(kept, "hq")["maker"])
        self.assertNotIn("maker", self.learned(kept, "HQ"))

    def test_repeated(self) -> None:
        """A report that has come before shows nothing of the unit as it is now."""
        self.assertNotIn("maker", self.learned(Kept(), "TH", again=True))

    def test_binary(self) -> None:
        """Binary frames have none, and leave it as it is."""
        frame = binary(NOON)
        kept = Kept({"maker": "TH"})
        made = device.decoder(Options(), lambda ident: kept)
        for message in made.receive(frame, NOON):
            learn(message, Options(), kept, NOON)
        self.assertEqual("TH", kept["maker"])
