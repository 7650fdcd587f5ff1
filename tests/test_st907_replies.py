"""How an ST-907 is acknowledged: the policy of each unit, how often, and R12 for one that sends again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.units import IDENT, OFF, SPAIN, UnitCase, binary, v1

#: One frame of each type, with C{%d} for what has to differ between two of them.
FRAMES: Final = {
    "V1": "*HQ,9170225361,V1,1200%02d,A,4219.0032,N,00753.0002,W,000.00,122,221126,FFFFFBFF,214,03,13140,5085#",
    "V1 of another width": "*HQ,9170225361,V1,1200%02d,A,4219.0032,N,753.0002,W,0.00,122,221126,FFFFFBFF#",
    "V2": "*HQ,9170225361,V2,1200%02d,0,4219.0032,N,00753.0002,W,0.25,0,221126,FFFFFFFF,d6,3,  db,d75b#",
    "VI1": "*HQ,9170225361,VI1,1200%02d,0,4219.0032,N,00753.0002,W,0.25,0,221126,FFFFFFFF#",
    "V5": "*HQ,9170225361,V5,1200%02d,V,4219.0032,N,00753.0002,W,0.00,0,221126,FFFFBBFF,214,03,21019,2033,292#",
    "V6": "*HQ,9170225361,V6,1200%02d,V,4219.0032,N,753.0002,W,0.00,0,221126,FFF7FBFF,214,03,3293,1364,89445013112,#",
    "V8": "*HQ,9170225361,V8,1200%02d,A,4219.0032,N,53.0002,W,0.00,170,221126,FFFFF9FF,0,0,0,0,22,31,126,0#",
    "V19": "*HQ,9170225361,V19,1200%02d,A,4219.0032,N,00753.0002,W,000.00,000,221126,,195.63.13.195,8948,BFFFFBFF#",
    "NBR": "*HQ,9170225361,NBR,1200%02d,214,03,0,2,8106,32010,23,8101,22007,25,221126,FFFFFBFF,5#",
    "HTBT": "*HQ,9170225361,HTBT#",
    "HTBT with a battery": "*HQ,9170225361,HTBT,100#",
    "V0": "*HQ,9170225361,V0#",
    "V3": "*HQ,9170225361,V3,1200%02d,21403,01,001450,011473,158,-62,0292,0,X,221126,FFFFFBFF#",
    "V4": "*HQ,9170225361,V4,S20,DONE,130305,1200%02d,A,4219.0032,N,00753.0002,W,14.28,028,221126,F7FFFBFF#",
    "V4, short": "*HQ,9170225361,V4,S20,034313,1,1#",
    "LINK": "*HQ,9170225361,LINK,1200%02d,20,8,67,0,0,221126,FFFFFBFF#",
    "VP1": "*HQ,9170225361,VP1,A,4219.0032,N,00753.0002,W,0.48,0.0000,221126#",
    "XT": "*HQ,9170225361,XT,1,100#",
    "SMS": "*HQ,9170225361,SMS,SET OK#",
    "an unknown type": "*HQ,9170225361,ALRM,1,2#",
    "a bare frame": "*HQ,9170225361,#",
}

V4: Final = b"*HQ,9170225361,V4,V1,20261122120005#"
V4_NBR: Final = b"*HQ,9170225361,V4,NBR,20261122120005#"
R12: Final = b"*HQ,9170225361,R12,120005#"

#: What each policy answers to each type; all others get nothing.
POLICIES: Final = {
    "none": {},
    "v4": {
        "V1": V4, "V1 of another width": V4, "NBR": V4_NBR, "$": R12, "X": R12,
        "HTBT": b"*HQ,9170225361,HTBT#", "HTBT with a battery": b"*HQ,9170225361,HTBT#", "V0": b"*HQ,9170225361,V0#",
    },
    "r12": {
        **dict.fromkeys(("V1", "V1 of another width", "V2", "VI1", "V5", "V6", "V8", "V19", "NBR", "$", "X"), R12),
        "HTBT": b"*HQ,9170225361,HTBT#", "HTBT with a battery": b"*HQ,9170225361,HTBT#", "V0": b"*HQ,9170225361,V0#",
    },
    "both": {
        "V1": V4 + R12, "V1 of another width": V4 + R12, "NBR": V4_NBR + R12,
        **dict.fromkeys(("V2", "VI1", "V5", "V6", "V8", "V19", "$", "X"), R12),
        "HTBT": b"*HQ,9170225361,HTBT#", "HTBT with a battery": b"*HQ,9170225361,HTBT#", "V0": b"*HQ,9170225361,V0#",
    },
}  # fmt: skip


class ReplyCase(UnitCase):
    """A device that reports and is answered."""

    def answer(self, frame: bytes) -> bytes:
        """What the device is told after this frame; the clock stands at five seconds past noon."""
        self.send(frame)
        return b"".join(self.answers())

    def copies(self, count: int, every: float = 1.0) -> list[bytes]:
        """One report, so many times on this connection; what each is answered, without its time."""
        frame = v1(self.now)
        found = []
        for _ in range(count):
            self.clock.advance(every)
            found += self.kinds(self.answer(frame))
        return found

    @staticmethod
    def kinds(answer: bytes) -> list[bytes]:
        """What an answer is: C{V4}, C{R12}, C{V4+R12}, C{-}."""
        parts = [part.split(b",")[2] for part in answer.split(b"#") if part]
        return [b"+".join(parts) or b"-"]

    def next(self, **more: str) -> list[bytes]:
        """What a report of its own is answered."""
        self.clock.advance(10)
        return self.kinds(self.answer(v1(self.now, **more)))  # type: ignore[arg-type]  # text alone


class PolicyTests(ReplyCase):
    """Which types are answered what."""

    def frames(self) -> list[tuple[str, bytes]]:
        """Each type once; X after a frame that says whose it is."""
        text = [
            (name, (frame % n if "%" in frame else frame).encode()) for n, (name, frame) in enumerate(FRAMES.items())
        ]
        dollar = binary(self.now + 100)
        return [*text, ("$", dollar), ("X", b"X" + bytes.fromhex("0000981499") + dollar[6:])]

    def check(self, policy: str) -> None:
        """All types against the table of a policy."""
        self.clock.advance(5)
        for name, frame in self.frames():
            self.assertEqual(POLICIES[policy].get(name, b""), self.answer(frame), f"{policy}: {name}")

    def test_by_default(self) -> None:
        """Nothing set: V1 and NBR get V4 with the time, heartbeats come back, binary frames get R12."""
        self.check("v4")

    def test_each_of_the_family(self) -> None:
        """The policy of the options."""
        for policy in POLICIES:
            self.setUp()
            self.options = {"reply": policy}
            self.begin()
            self.check(policy)

    def test_each_of_a_unit(self) -> None:
        """The policy of the registry, which stands over the options', from the first frame of the session on."""
        for policy in POLICIES:
            self.setUp()
            self.options = {"reply": "none" if policy != "none" else "both"}
            self.registry = {"reply": policy}
            self.begin()
            self.check(policy)

    def test_model(self) -> None:
        """The policy of a model."""
        self.options = {"models": {"ST-901L": {"reply": "r12"}}}
        self.registry = {"model": "ST-901L"}
        self.begin()
        self.assertEqual([b"R12"], self.next())

    def test_over_udp(self) -> None:
        """Datagrams are answered alike."""
        for policy in POLICIES:
            self.setUp()
            self.registry = {"reply": policy}
            self.begin()
            self.clock.advance(5)
            for name, frame in self.frames():
                if name != "X":
                    self.connect(transport="udp")
                    self.assertEqual(POLICIES[policy].get(name, b""), self.answer(frame), f"{policy}: {name}")

    def test_maker(self) -> None:
        """Answers carry the maker's code that the device itself uses; a binary frame after a text frame that one's."""
        self.registry = {"reply": "both"}
        self.begin()
        for maker in ("HQ", "hq", "TH", "DC", "XY", "RS"):
            self.connect()
            self.clock.advance(10)
            head = f"*{maker},{IDENT},".encode()
            answer = self.answer(v1(self.now, maker=maker))
            self.assertEqual(
                [head + b"V4,V1", head + b"R12"], [part.rpartition(b",")[0] for part in answer.split(b"#")[:2]]
            )
            self.assertEqual(head + b"HTBT#", self.answer(head + b"HTBT,77#"))
            self.assertTrue(self.answer(binary(self.now + 1)).startswith(head + b"R12,"))

    def test_empty_ident(self) -> None:
        """A frame without an ident is answered to who the connection belongs to, by that one's policy."""
        self.registry = {"reply": "r12"}
        self.begin()
        self.next()
        self.clock.advance(10)
        self.assertRegex(self.answer(v1(self.now, ident="")), rb"\*HQ,9170225361,R12,\d{6}#")

    def test_each_unit_its_own(self) -> None:
        """Two units behind one connection are answered each by its own policy, in order."""
        self.registry = {"reply": "r12"}
        self.begin()
        self.clock.advance(5)
        other = "9170225362"
        answer = self.answer(
            v1(self.now) + v1(self.now, ident=other) + v1(self.now + 1) + v1(self.now + 1, ident=other)
        )
        V4_OTHER = V4.replace(IDENT.encode(), other.encode())
        self.assertEqual(R12 + V4_OTHER + R12 + V4_OTHER, answer)

    def test_on_the_fly(self) -> None:
        """A change of the registry holds from the next answer on, on the connection that there is."""
        self.assertEqual([b"V4"], self.next())
        self.register(reply="both")
        self.assertEqual([b"V4+R12"], self.next())
        self.register(reply="none")
        self.assertEqual([b"-"], self.next())
        self.register()
        self.assertEqual([b"V4"], self.next())

    def test_first_frame(self) -> None:
        """The first frame of a session is answered by the registry, though it was read before that was known."""
        self.registry = {"reply": "r12"}
        self.begin()
        self.sink.waits = True
        self.send(v1(self.now) + binary(self.now + 1))
        self.assertEqual([], self.answers())
        self.clock.advance(5)
        self.sink.begun()
        self.assertEqual(R12 + R12, self.answer(b""))

    def test_undecodable(self) -> None:
        """What can't be read is not answered, whatever the policy is."""
        self.registry = {"reply": "both"}
        self.begin()
        self.next()
        self.assertEqual(b"", self.answer(b"*HQ,9170225361,V1,1#*HQ,91,V1,120000#"))

    def test_not_let_in(self) -> None:
        """A unit that the registry does not let in gets nothing."""
        self.registry = {"reply": "both", "enabled": "0"}
        self.begin()
        self.assertEqual([b"-"], self.next())


class IntervalTests(ReplyCase):
    """How often a unit is answered."""

    def each(self, count: int, every: float) -> list[bytes]:
        """So many reports; what each is answered."""
        found = []
        for _ in range(count):
            self.clock.advance(every)
            found += self.kinds(self.answer(v1(self.now)))
        return found

    def test_each_report(self) -> None:
        """By default each report is answered, however fast they come."""
        self.assertEqual([b"V4"] * 20, self.each(20, 1))

    def test_interval(self) -> None:
        """With reply_interval_s the first report is answered, and then one as soon as so much has passed."""
        self.registry = {"reply_interval_s": "30"}
        self.begin()
        self.assertEqual([b"V4", b"-", b"-"] * 3, self.each(9, 10))
        self.assertEqual([b"V4"] * 3, self.each(3, 30))
        self.assertEqual([b"-", b"V4"], self.each(2, 29))

    def test_of_the_options(self) -> None:
        """It can be set for the family and for a model."""
        self.options = {"reply_interval_s": 30, "models": {"ST-901": {"reply_interval_s": 0}}}
        self.begin()
        self.assertEqual([b"V4", b"-", b"-", b"V4"], self.each(4, 10))
        self.register(model="ST-901")
        self.assertEqual([b"V4"] * 4, self.each(4, 10))

    def test_over_udp(self) -> None:
        """It is the unit's, not the datagram's."""
        self.registry = {"reply_interval_s": "30", "reply": "r12"}
        self.begin()
        found = []
        for _ in range(6):
            self.connect(transport="udp")
            found += self.each(1, 10)
        self.assertEqual([b"R12", b"-", b"-"] * 2, found)

    def test_over_connections(self) -> None:
        """Nor is it the connection's."""
        self.registry = {"reply_interval_s": "30"}
        self.begin()
        found = []
        for port in range(6):
            self.connect(port)
            found += self.each(1, 10)
        self.assertEqual([b"V4", b"-", b"-"] * 2, found)

    def test_heartbeats(self) -> None:
        """Heartbeats come back each time."""
        self.registry = {"reply_interval_s": "300"}
        self.begin()
        for _ in range(5):
            self.clock.advance(10)
            self.assertEqual(b"*HQ,9170225361,HTBT#", self.answer(b"*HQ,9170225361,HTBT#"))
        self.assertEqual([b"V4", b"-"], self.each(2, 10))

    def test_types_without_an_answer(self) -> None:
        """A report that is not answered anyhow does not use up the turn of the next one."""
        self.registry = {"reply_interval_s": "30"}
        self.begin()
        self.assertEqual([b"-"], self.next(kind="V2"))
        self.assertEqual([b"V4"], self.next())

    def test_one_that_sends_again(self) -> None:
        """A unit that sends again is answered each time, whatever the interval is."""
        self.registry = {"reply_interval_s": "300"}
        self.begin()
        self.assertEqual([b"V4", b"-", b"R12", b"R12"], self.copies(4))
        self.assertEqual([b"R12"] * 5, self.each(5, 10))


class ResendTests(ReplyCase):
    """A unit that does not take V4 for an answer gets R12."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(0.4567)  # as real clocks do, between two milliseconds

    def test_third_copy(self) -> None:
        """The third copy of a report on one connection is answered R12, and so is every later report."""
        self.assertEqual([b"V4", b"V4", b"R12", b"R12"], self.copies(4))
        self.assertEqual([b"R12"] * 5, [kind for _ in range(5) for kind in self.next()])
        self.assertEqual([b"R12"], self.next(kind="V6"))

    def test_not_the_first_on_its_connection(self) -> None:
        """So it is for a report that is not the first of its connection."""
        self.next()
        self.clock.advance(10)
        self.assertEqual([b"V4", b"V4", b"R12"], self.copies(3))

    def test_two_copies(self) -> None:
        """Two are not enough: an answer may be lost."""
        for _ in range(5):
            self.assertEqual([b"V4", b"V4"], self.copies(2))
        self.assertEqual([b"V4"], self.next())

    def test_several_records(self) -> None:
        """A unit that sends three records in turn again and again is seen as well, and told once."""
        frames = [v1(self.now - 3000 + n) for n in range(3)]
        found, told = [], []
        for _ in range(4):
            for frame in frames:
                self.clock.advance(2)
                told += self.qualities(self.send(frame))
                found += self.kinds(b"".join(self.answers()))
        self.assertEqual([b"V4"] * 6 + [b"R12"] * 6, found)
        for _ in range(5):
            self.clock.advance(10)
            told += self.qualities(self.send(v1(self.now)))
        self.assertEqual([("resends", "reply=r12")], told)

    def test_told(self) -> None:
        """It is told once, with what settles it, together with the next report of its own."""
        self.copies(5)
        self.clock.advance(10)
        quality = self.one(self.send(v1(self.now)), "device.quality")["data"]
        self.assertEqual(
            ("resends", "reply=r12", {"copies": 4}), tuple(quality[n] for n in ("name", "setting", "evidence"))
        )
        self.restart()
        self.assertEqual([], [q for _ in range(5) for q in self.qualities(self.report())])

    def test_restart(self) -> None:
        """It stays so over a restart of the gateway, also when nothing but copies came since."""
        for after in (True, False):
            self.setUp()
            self.copies(4)
            if after:
                self.next()
            self.restart()
            self.assertEqual([b"R12"] * 3, [kind for _ in range(3) for kind in self.next()])

    def test_copies_before_a_restart_do_not_count(self) -> None:
        """A unit that sends its report again because the gateway was away is not one that sends again."""
        frame = v1(self.now)
        for _ in range(6):
            self.clock.advance(3)
            self.assertEqual([b"V4"], self.kinds(self.answer(frame)))
            self.restart()
            self.clock.advance(3)
            self.assertEqual([b"V4"], self.kinds(self.answer(frame)))
            self.restart()

    def test_reconnects(self) -> None:
        """Nor is one whose copies come on a connection each: the answer to the first may have been lost with it."""
        frame = v1(self.now)
        for port in range(10):
            self.connect(port)
            self.clock.advance(3)
            self.assertEqual([b"V4"], self.kinds(self.answer(frame)))

    def test_parked(self) -> None:
        """Nor is a parked unit that repeats its newest report at its interval, of ten seconds and more."""
        for every in (10.0, 20.0, 300.0):
            self.assertEqual([b"V4"] * 20, self.copies(20, every))

    def test_parked_with_a_wrong_clock(self) -> None:
        """Nor is one whose clock is hours ahead, 1,024 weeks behind, or was put right."""
        for offset in (28_800, -1024 * 604_800, 3600 * 24 * 400):
            self.begin()
            frame = v1(self.now + offset)
            for _ in range(10):
                self.clock.advance(60)
                self.assertEqual([b"V4"], self.kinds(self.answer(frame)), offset)
            self.assertEqual([b"V4"], self.next())

    def test_parked_with_an_offset(self) -> None:
        """Nor is one whose clock is corrected."""
        for offset in (28_800, -3600):
            self.registry = {"time_offset_s": str(offset)}
            self.begin()
            frame = v1(self.now + offset)
            for _ in range(10):
                self.clock.advance(60)
                self.assertEqual([b"V4"], self.kinds(self.answer(frame)), offset)

    def test_old_record_at_the_interval(self) -> None:
        """But one that sends an old record again is, however slowly: that is no parked unit's newest report."""
        self.next()
        frame = v1(self.now - 3000)
        found = []
        for _ in range(4):
            self.clock.advance(30)
            found += self.kinds(self.answer(frame))
        self.assertEqual([b"V4", b"V4", b"R12", b"R12"], found)

    def test_heartbeats_are_no_copies(self) -> None:
        """Heartbeats and other frames without a time are never copies."""
        for _ in range(10):
            self.clock.advance(1)
            self.answer(b"*HQ,9170225361,HTBT#")
        self.assertEqual([b"V4"], self.next())

    def test_binary(self) -> None:
        """Copies of a binary frame count, too: its text reports get R12 from then on."""
        frame = binary(self.now)
        for _ in range(3):
            self.clock.advance(1)
            self.assertEqual([b"R12"], self.kinds(self.answer(frame)))
        self.assertEqual([b"R12"], self.next())

    def test_over_udp(self) -> None:
        """Over UDP the sender's address and port stand for the connection."""
        frame = v1(self.now)
        found = []
        for _ in range(4):
            self.connect(transport="udp")
            self.clock.advance(1)
            found += self.kinds(self.answer(frame))
        self.assertEqual([b"V4", b"V4", b"R12", b"R12"], found)

    def test_set_otherwise(self) -> None:
        """C{none} and C{both} stay what they are, r12 is R12 anyhow; nothing is told of them."""
        for policy, kind in (("none", b"-"), ("both", b"V4+R12"), ("r12", b"R12")):
            self.registry = {"reply": policy}
            self.begin()
            self.assertEqual([kind] * 6, self.copies(6))
            self.clock.advance(10)
            found = self.send(v1(self.now))
            self.assertEqual(([], [kind]), (self.qualities(found), self.kinds(b"".join(self.answers()))))

    def test_set_afterwards(self) -> None:
        """What is set for the unit after the switch holds."""
        self.copies(5)
        self.next()
        for policy, kind in (("none", b"-"), ("both", b"V4+R12"), ("v4", b"V4"), ("r12", b"R12")):
            self.register(reply=policy)
            self.assertEqual([kind], self.next())

    def test_alike_reports(self) -> None:
        """A device that reports every second with alike reports is none that sends again."""
        for n in range(200):
            self.clock.advance(1)
            self.assertEqual([b"V4"], self.kinds(self.answer(v1(self.now, OFF, cell=SPAIN, speed=float(n % 5)))))

    def together(self, frames: Sequence[bytes]) -> list[bytes]:
        """Several frames in one read."""
        self.clock.advance(1)
        return [part.split(b",")[2] for part in self.answer(b"".join(frames)).split(b"#") if part]

    def test_in_one_read(self) -> None:
        """Three copies in one read are no re-sending: none of them was answered before the last one came."""
        frame = v1(self.now)
        self.assertEqual([b"V4"] * 3, self.together([frame] * 3))
