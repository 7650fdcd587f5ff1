"""What a simulated tracker writes, held against frames of the documentation."""

from __future__ import annotations

import calendar
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.simulator import answers, frames
from gateway.simulator.frames import Cell, Neighbour, Record
from tests.test_simulator import IDENT, record

HTBT = b"*HQ,9900000001,HTBT#"


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
