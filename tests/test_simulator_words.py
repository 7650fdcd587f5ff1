"""What a simulated tracker writes, held against frames of the documentation, and how it reads what comes back."""

from __future__ import annotations

import calendar
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.simulator import answers, frames
from gateway.simulator.downlink import Command, Downlink, acknowledges, command
from gateway.simulator.frames import Cell, Neighbour, Record
from gateway.simulator.outbox import Outbox
from tests.simulator_fakes import IDENT, R12, V4, record, unit

HTBT = b"*HQ,9900000001,HTBT#"
V4_NBR = b"*HQ,9900000001,V4,NBR,20261122120001#"
S20 = b"*HQ,9900000001,S20,130305,1,1#"


def moment(date: str, clock: str) -> float:
    """The time that a frame names."""
    return calendar.timegm(time.strptime(date + clock, "%d%m%y%H%M%S"))


def told(ident: str, date: str, clock: str, **values: Any) -> Record:
    """A record of a parked car at the time that a frame names, but for these values."""
    return record(ident=ident, time=moment(date, clock), **values)


class EncoderTests(SynchronousTestCase):
    """Frames that a tracker sends of its own; where the documentation has one, it is that to the byte."""

    def test_no_fix(self) -> None:
        """Without a fix V1 is flagged V and has a place all the same; the binary form has its own flag for it."""
        made = told(
            "1234567890",
            "250523",
            "054356",
            latitude=42 + 19.0032 / 60,
            longitude=-7 - 53.0002 / 60,
            course_deg=213.0,
            conditions=frames.ACC_OFF | frames.DELAYED | 1 << 14,
            cell=Cell(214, 3, 13140, 2735),
            fix=False,
        )
        real = b"*HQ,1234567890,V1,054356,V,4219.0032,N,00753.0002,W,000.00,213,250523,FBFFBBFF,214,03,13140,2735#"
        self.assertEqual(real, frames.v1(made))
        flags = [frames.binary(made._replace(fix=fix)).hex()[43] for fix in (True, False)]
        self.assertEqual(["6", "4"], flags)

    def test_battery(self) -> None:
        """The battery, when it is said, is the fifth number after the status word."""
        made = told(
            "4106012736",
            "100117",
            "224434",
            latitude=18 + 27.3855 / 60,
            longitude=-67 - 5.7577 / 60,
            cell=Cell(310, 260, 49101, 1753),
            battery=5,
        )
        real = b"*HQ,4106012736,V1,224434,A,1827.3855,N,06705.7577,W,000.00,000,100117,FFFFFBFF,310,260,49101,1753,5#"
        self.assertEqual(real, frames.v1(made))

    def test_power_up(self) -> None:
        """V6 names the SIM, padded with F and followed by a comma; its numbers have no leading zeros."""
        made = told(
            "3177718238",
            "151222",
            "002926",
            latitude=35 + 14.4088 / 60,
            longitude=-97 - 33.2842 / 60,
            conditions=frames.ACC_OFF | frames.ON_BACKUP_BATTERY,
            cell=Cell(310, 260, 32936, 13641),
            fix=False,
        )
        real = (
            b"*HQ,3177718238,V6,002926,V,3514.4088,N,9733.2842,W,0.00,0.00,151222,FFF7FBFF,"
            b"310,260,32936,13641,8944501311217563382F,#"
        )
        self.assertEqual(real, frames.v6(made, "8944501311217563382"))
        self.assertIn(b",N,38.6508,W,", frames.v6(made._replace(longitude=-38.6508 / 60), ""))

    def test_sim(self) -> None:
        """V19 names the server, or a phone, and the SIM, and has the status word at its end."""
        made = told(
            "4209951296",
            "200417",
            "214452",
            latitude=52 + 1.0178 / 60,
            longitude=18 + 30.5029 / 60,
            conditions=frames.ACC_OFF | 1 << 30,
        )
        real = (
            b"*HQ,4209951296,V19,214452,A,5201.0178,N,01830.5029,E,000.00,000,200417,,"
            b"195.63.13.195,89480610500392633029,BFFFFBFF#"
        )
        self.assertEqual(real, frames.v19(made, "195.63.13.195", "89480610500392633029"))

    def test_neighbours(self) -> None:
        """NBR has cells in place of a position, and its date at the end."""
        cells = (Neighbour(8106, 32010, 23), Neighbour(8101, 22007, 25), Neighbour(8106, 42010, 5))
        made = told("4109179024", "100217", "103732", cell=Cell(722, 310, 0, 0), battery=5, neighbours=cells)
        # the documentation has six cells, and leaves some of them out
        real = b"*HQ,4109179024,NBR,103732,722,310,0,3,8106,32010,23,8101,22007,25,8106,42010,5,100217,FFFFFBFF,5#"
        self.assertEqual(real, frames.nbr(made))
        self.assertTrue(frames.nbr(made._replace(battery=None)).endswith(b",100217,FFFFFBFF#"))

    def test_link(self) -> None:
        """LINK has the signal, the satellites and the battery."""
        made = told("1600068860", "081116", "112137")
        self.assertEqual(b"*HQ,1600068860,LINK,112137,20,8,67,0,0,081116,FFFFFBFF#", frames.link(made, 20, 8, 67))

    def test_heartbeat(self) -> None:
        """HTBT may have the battery in it, or nothing."""
        self.assertEqual((HTBT, b"*HQ,9900000001,HTBT,100#"), (frames.htbt(IDENT), frames.htbt(IDENT, 100)))

    def test_words(self) -> None:
        """Status words that real devices have sent, by the conditions in them."""
        cut, parked = frames.ON_BACKUP_BATTERY | frames.BATTERY_REMOVED, frames.ACC_OFF
        for expected, conditions in (
            ("FFFFFBFD", parked | frames.SOS),
            ("FFFFF9FF", parked | frames.ARMED),
            ("FFFEFBFF", parked | frames.RECEIVER_FAULT),
            ("FFFFFFEF", frames.FENCE_ENTER),
            ("F7FFFBFF", parked | frames.RELAY_CUT),
            ("EFE7F9FF", parked | frames.ARMED | cut | frames.POWER_CUT),
            ("FFFFDFFF", frames.ENGINE_ON),
        ):
            self.assertEqual(expected, frames.word(record(conditions=conditions)))
        bits = {
            frames.THEFT: 0x00000001,
            frames.ILLEGAL_IGNITION: 0x00000008,
            frames.FENCE_EXIT: 0x00000080,
            frames.ANTENNA_OPEN: 0x00200020,
            frames.ANTENNA_SHORT: 0x00400040,
            frames.VIBRATION: 0x00020000,
            frames.WRONG_PASSWORD: 0x02000000,
        }
        self.assertEqual(list(bits.values()), list(bits))


class AnswerTests(SynchronousTestCase):
    """What a tracker answers to commands."""

    def test_full(self) -> None:
        """The full form echoes the time of day in the command, and has a position; but for the maker, who is HQ."""
        made = told(
            "2020916012",
            "220902",
            "050316",
            latitude=22 + 12.8745 / 60,
            longitude=113 + 46.6574 / 60,
            speed_kmh=14.28 * 1.852,
            course_deg=28.0,
            conditions=frames.ACC_OFF | frames.RELAY_CUT,
        )
        real = b"*TH,2020916012,V4,S20,DONE,130305,050316,A,2212.8745,N,11346.6574,E,14.28,028,220902,F7FFFBFF#"
        self.assertEqual(real.replace(b"*TH", b"*HQ"), answers.v4(made, "S20", "DONE", "130305"))

    def test_short(self) -> None:
        """The short form repeats the command and says no more."""
        expected = b"*HQ,9900000001,V4,S20,034313,1,1#"
        self.assertEqual(expected, answers.short_v4(IDENT, "S20", "034313", "1,1"))

    def test_configuration(self) -> None:
        """The configuration is a text of several lines in one frame."""
        real = (
            b"*HQ,5226073533,SMS,ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:5226073533\nIP:1.2.3.4 5013\nUT:30,30,300\n"
            b"VOLT:12.9V\nAPN:internet.example.com\nGPS:A-24-23\nGSM:26#"
        )
        text = answers.rconf(
            answers.Configuration(
                model="ST906(70SACD)_TQ_V_2.0 2024/06/07",
                ident="5226073533",
                host="1.2.3.4",
                port=5013,
                intervals_s=(30, 30, 300),
                volts=12.9,
                apn="internet.example.com",
                gps="A-24-23",
                gsm=26,
            )
        )
        self.assertEqual(real, answers.sms("5226073533", text))


class DownlinkTests(SynchronousTestCase):
    """What comes back: frames, text, and how they are told from each other."""

    def heard(self, *parts: bytes) -> list[bytes]:
        """What a tracker hears on one connection on which these bytes come."""
        reader = Downlink()
        return [found for part in parts for found in reader.receive(part)]

    def test_cut(self) -> None:
        """However the network cuts it, the same is heard; ends of lines, junk and other text are nothing."""
        stream = V4 + b"\r\n" + S20 + b"\x00 junk RCONF" + R12 + b"RCONF,0000\nRCON" + HTBT + b"RCONF#" + V4_NBR
        expected = [V4, S20, b"RCONF", R12, b"RCONF", HTBT, b"RCONF", V4_NBR]
        self.assertEqual(expected, self.heard(stream))
        self.assertEqual(expected, self.heard(*(bytes([byte]) for byte in stream)))
        for at in range(len(stream)):
            self.assertEqual(expected, self.heard(stream[:at], stream[at:]))

    def test_inside_a_frame(self) -> None:
        """A text command inside a frame is none, not even before the frame's end has come."""
        self.assertEqual([], self.heard(b"*HQ,9900000001,SMS,RCONF"))
        self.assertEqual([b"*HQ,9900000001,SMS,RCONF#"], self.heard(b"*HQ,9900000001,SMS,RCONF", b"#"))

    def test_endless(self) -> None:
        """What never ends is not kept for ever."""
        self.assertEqual([V4], self.heard(b"x" * 5000, V4))
        self.assertEqual([V4], self.heard(b"*" * 5000, V4))
        self.assertEqual([b"RCONF"], self.heard(b"x" * 5000 + b"RCO", b"NF"))

    def test_both(self) -> None:
        """An R12 of the same second right after a V4 is that answer's other half; another one counts."""
        later = R12.replace(b"120001", b"120002")
        for heard, stream in (
            ([V4], V4 + R12),
            ([V4, V4], V4 + R12 + V4 + R12),
            ([V4_NBR], V4_NBR + R12),
            ([V4, R12], V4 + R12 + R12),
            ([V4, later], V4 + later),
            ([R12, V4], R12 + V4),
            ([V4, HTBT, R12], V4 + HTBT + R12),
            ([V4.replace(b"01,V4", b"02,V4"), R12], V4.replace(b"01,V4", b"02,V4") + R12),
        ):
            self.assertEqual(heard, self.heard(stream))
            self.assertEqual(heard, self.heard(*(bytes([byte]) for byte in stream)))

    def test_commands(self) -> None:
        """Commands to this device, by their word, time of day and arguments; for others and acknowledgements: none."""
        for expected, heard in (
            (Command("S20", "130305", "1,1"), S20),
            (Command("R1", "130305"), b"*HQ,9900000001,R1,130305#"),
            (Command("S21", "130305", "17,1,N,2245.318"), b"*HQ,9900000001,S21,130305,17,1,N,2245.318#"),
            (Command("SCF", "130305", "0,0"), b"*HQ,9900000001,SCF,130305,0,0#"),
            (Command("RCONF"), b"RCONF"),
            (None, S20.replace(b"01,S20", b"02,S20")),
            (None, S20.replace(b"*HQ", b"*TH")),
            (None, S20.replace(b",130305", b"")),
            (None, R12),
            (None, V4),
            (None, HTBT),
        ):
            self.assertEqual(expected, command(heard, IDENT), heard)


class AcknowledgementTests(SynchronousTestCase):
    """What counts as the acknowledgement of which report."""

    def test_kinds(self) -> None:
        """V1 takes V4 or R12, NBR its own V4 or R12, a binary report R12 alone, and a heartbeat its echo."""
        reports = {
            frames.v1(record()): {V4, R12},
            frames.v1(record(fix=False, battery=3)): {V4, R12},
            frames.nbr(record()): {V4_NBR, R12},
            frames.binary(record()): {R12},
            frames.htbt(IDENT): {HTBT},
            frames.htbt(IDENT, 90): {HTBT},
            b"*HQ,9900000001,#": set(),
            frames.v6(record(), ""): set(),
        }
        for report, taken in reports.items():
            for answer in (V4, V4_NBR, R12, HTBT, S20, b"RCONF"):
                self.assertEqual(answer in taken, acknowledges(answer, IDENT, report), (answer, report))
                self.assertFalse(acknowledges(answer, "9900000002", report))

    def test_switched(self) -> None:
        """A gateway may go over from V4 to R12, or send both, between two reports: each is acknowledged once."""
        reader, outbox = Downlink(), Outbox(IDENT, 20, 20)
        made = [frames.v1(record(time=moment("221126", f"1200{n:02d}"))) for n in range(6)]
        for report in made:
            outbox.keep(report)
        outbox.due(1.0)
        settled = []
        for answer in (V4, R12.replace(b"120001", b"120005"), R12, V4 + R12, V4 + R12 + V4):
            settled += [outbox.receive(heard) for heard in reader.receive(answer)]
        self.assertEqual(made, [report.frame for report in settled if report])
        self.assertEqual((6, 0), (len(settled), len(outbox)))


class UnitTests(SynchronousTestCase):
    """What a tracker reports of itself."""

    def test_last_fix(self) -> None:
        """Without a fix place, speed and course are repeated, while the car drives on and time passes."""
        tracker = unit()
        tracker.car.go()
        fields = tracker.next().frame.split(b",")
        tracker.fix = False
        for _ in range(3):
            repeated = tracker.next().frame.split(b",")
            self.assertEqual((b"V", *fields[5:11]), (repeated[4], *repeated[5:11]))
            self.assertNotEqual(fields[3], repeated[3])
        tracker.fix = True
        self.assertNotEqual(fields[5:9], tracker.next().frame.split(b",")[5:9])

    def test_sims(self) -> None:
        """The number of a SIM is one, and another one after a change; it is not the same in two devices."""
        one, other = unit(), unit(ident="9900000002")
        numbers = [one.iccid, other.iccid]
        one.change_sim()
        numbers.append(one.iccid)
        self.assertEqual(3, len(set(numbers)))
        for number in numbers:
            self.assertRegex(number, r"^89\d{17}$")

    def test_cells(self) -> None:
        """Of the cells around the one in use is heard best."""
        tracker = unit()
        step = tracker.next_cells()
        fields = step.frame.decode().split(",")
        count = int(fields[7])
        self.assertEqual("NBR", fields[2])
        self.assertIn(count, range(3, 7))
        self.assertEqual(8 + 3 * count + 2, len(fields))
        levels = list(map(int, fields[10 : 8 + 3 * count : 3]))
        self.assertEqual(sorted(levels, reverse=True), levels)
        served = tracker.record().cell
        self.assertEqual([str(served.lac), str(served.cid)], fields[8:10])
