"""
What an ST-907 is asked to tell, from its bytes to the entries of a real Redis: what it says, over TCP and over UDP,
what is set for it and found out of it, and that no alarm is lost or doubled when the gateway or Redis is killed.

The devices of L{StreamTests} tell their stories to one gateway, before its first test; each test looks at one thing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from tests.integration.fleet import Client, Datagrams, event_id, v1
from tests.integration.parts import RealPartsTestCase, entries, journaled, wait_for

ON: Final = 0xFFFFFFFF
OFF: Final = 0xFFFFFBFF

TCP, UDP, PARKED, KNOWN, CHANGED, CARDS, LATE, ODD, UNWIRED, AGAIN = (f"91702253{n:02}" for n in range(10))

#: A report may be so old and still be live here, so that a story of minutes can be told at once.
CONFIG: Final = "[events]\nlate_after = 3600.0\n"
#: How long before now a story begins.
AGO: Final = 1_500.0

#: Seconds since the last report of a story, and the bits of its status word that are 0, ACC being on.
STORY: Final = (
    (0, ()),
    (10, (2,)),
    (10, ()),
    (70, (4,)),
    (10, (7,)),
    (10, (27,)),
    (10, ()),
    (70, (1, 17, 0)),
    (10, (1, 28, 19, 20)),
    (10, ()),
    (70, ()),
)


def word(acc: int, *bits: int) -> str:
    """A status word with these conditions there, in hex."""
    for bit in bits:
        acc &= ~(1 << bit)
    return f"{acc:08X}"


def began() -> float:
    """A whole second some time ago."""
    return float(int(time.time()) - AGO)


class Stream:
    """The entries of one device, oldest first, with C{data} as an object."""

    def __init__(self, client: Any, ident: str) -> None:
        self.positions = self._of(client, "position", ident)
        self.events = self._of(client, "event", ident)
        self.links = self._of(client, "link", ident)

    @staticmethod
    def _of(client: Any, name: str, ident: str) -> list[dict[str, Any]]:
        found = entries(client, f"gateway:{name}")
        return [{**entry, "data": json.loads(entry["data"])} for entry in found if entry["ident"] == ident]

    def edges(self, kind: str = "") -> list[tuple[str, str]]:
        """Alarms and states in their order, as type and phase; C{kind}: those whose type begins so."""
        return [(e["type"], e["data"]["phase"]) for e in self.events if "phase" in e["data"] and kind in e["type"]]

    def event(self, kind: str, phase: str = "") -> dict[str, Any]:
        """The only event of a type."""
        (found,) = [e for e in self.events if e["type"] == kind and phase in ("", e["data"].get("phase"))]
        return found


class StreamTests(RealPartsTestCase):
    """What is on the streams."""

    told: ClassVar[dict[str, Stream]] = {}
    answered: ClassVar[dict[str, list[bytes]]] = {}
    sent: ClassVar[dict[str, list[bytes]]] = {}

    def setUp(self) -> None:
        """Let all devices tell their stories, the first time."""
        super().setUp()
        if not self.told:
            self._tell()

    def _tell(self) -> None:
        redis = self.running_redis()
        client = redis.client
        client.hset(f"gateway:registry:{KNOWN}", mapping={"reply": "r12", "acc_wired": "0", "device_id": "van 7"})
        running = self.running_gateway(redis.url, config=CONFIG)
        with Client(running.port) as link, Datagrams(running.port) as datagrams:
            self._story(link, TCP)
            self._story(datagrams, UDP)
        stories: Sequence[Callable[[Client], None]] = (
            *(self._parked, self._known, self._cards, self._late, self._odd, self._unwired, self._again),
            lambda link: self._changed(link, client),
        )
        for story in stories:
            with Client(running.port) as link:
                story(link)
        for ident in (TCP, UDP, PARKED, KNOWN, CHANGED, CARDS, LATE, ODD, UNWIRED, AGAIN):
            self.told[ident] = Stream(client, ident)

    def _say(self, link: Client | Datagrams, ident: str, frame: bytes, answers: int = 1) -> list[bytes]:
        """Send a frame, and wait until it is answered, which is when it is stored."""
        link.send(frame)
        found = link.answers(answers) if answers else []
        self.assertEqual(answers, len(found), frame)
        self.sent.setdefault(ident, []).append(frame)
        self.answered.setdefault(ident, []).extend(found)
        return found

    def _story(self, link: Client | Datagrams, ident: str) -> None:
        at = began()
        for after, bits in STORY:
            at += after
            self._say(link, ident, v1(ident, at, word(ON, *bits)))

    def _parked(self, link: Client) -> None:
        """A clock that stands still: four reports of one second; the power is cut in the second and the third."""
        at = float(int(time.time()) - 60)
        for bits in ((), (19,), (19, 28), (9,)):
            self._say(link, PARKED, v1(PARKED, at, word(OFF, *bits)))

    def _known(self, link: Client) -> None:
        for n in range(2):
            self._say(link, KNOWN, v1(KNOWN, began() + n, word(ON)))

    def _changed(self, link: Client, client: Any) -> None:
        """The registry is changed while the device reports ten times a second."""
        at = began()
        self._say(link, CHANGED, v1(CHANGED, at, word(ON)))
        client.hset(f"gateway:registry:{CHANGED}", mapping={"reply": "r12", "acc_wired": "0", "device_id": "van 8"})
        client.xadd("gateway:registry:changes", {"ident": CHANGED})

        def changed() -> bool:
            nonlocal at
            at += 1
            time.sleep(0.1)
            return b"R12" in self._say(link, CHANGED, v1(CHANGED, at, word(ON)))[0]

        wait_for("the registry's change to hold", changed, 5.0)
        self._say(link, CHANGED, v1(CHANGED, at + 1, word(ON)))

    def _cards(self, link: Client) -> None:
        """Two cards, one after the other; V6 is not answered, so a V1 after each shows that it is stored."""
        for n, card in enumerate(("8944501311217563382F", "8944501311217563382F", "8948061050039263302F")):
            v6 = v1(CARDS, began() + 2 * n).replace(b",V1,", b",V6,").replace(b"#", f",{card},#".encode())
            self._say(link, CARDS, v6 + v1(CARDS, began() + 2 * n + 1))

    def _late(self, link: Client) -> None:
        """Live, a record with an alarm that the device calls late, live again without and then with the alarm."""
        for n, bits in enumerate(((), (26, 1), (), (1,))):
            self._say(link, LATE, v1(LATE, began() + n, word(ON, *bits)))

    def _odd(self, link: Client) -> None:
        self._say(link, ODD, v1(ODD, began()) + f"*HQ,{ODD},ALRM,7,what?#".encode() + v1(ODD, began() + 1), 2)

    def _unwired(self, link: Client) -> None:
        """A drive of five minutes at 34 km/h with the ignition off."""
        for n in range(16):
            self._say(link, UNWIRED, v1(UNWIRED, began() + 20 * n, word(OFF)))

    def _again(self, link: Client) -> None:
        """One report four times on one connection, then two others."""
        at = began()
        for second in (at, at, at, at, at + 1, at + 2):
            self._say(link, AGAIN, v1(AGAIN, second, word(ON)))

    # -- the seven things that are asked of the device

    def both(self) -> list[tuple[str, Stream]]:
        """The device that told its story over TCP, and the one over UDP."""
        return [(ident, self.told[ident]) for ident in (TCP, UDP)]

    def test_1_identification(self) -> None:
        """Each entry says whose it is, of which kind of device, and how it came; the id is that of the bytes."""
        for ident, told in self.both():
            self.assertEqual([event_id(ident, frame) for frame in self.sent[ident]], [e["id"] for e in told.positions])
            self.assertEqual({"st907"}, {entry["protocol"] for entry in told.positions + told.events})
            self.assertEqual({"tcp" if ident == TCP else "udp"}, {entry["transport"] for entry in told.positions})
            self.assertEqual(["device.connected"], [entry["type"] for entry in told.links])

    def test_2_location(self) -> None:
        """Each report is a valid fix at the place and the time that its bytes say."""
        for ident, told in self.both():
            for frame, entry in zip(self.sent[ident], told.positions, strict=True):
                fields = frame.decode().split(",")
                minutes = float(fields[5][2:])
                self.assertEqual(f"{42 + minutes / 60:.6f}", entry["latitude"])
                self.assertEqual(f"{7 + minutes / 60:.6f}", entry["longitude"])
                self.assertEqual(("1", ""), (entry["valid"], entry["late"]))
                stamp = fields[3]
                self.assertEqual(f"{stamp[:2]}:{stamp[2:4]}:{stamp[4:]}.000Z", entry["time"][11:])

    def test_3_speed(self) -> None:
        """18.47 knots are 34.21 km/h."""
        for _, told in self.both():
            self.assertEqual({("34.21", "122")}, {(e["speed_kmh"], e["course_deg"]) for e in told.positions})

    def test_4_overspeed(self) -> None:
        """Overspeed is raised where its bit comes, with how fast and where, and cleared a minute after it went."""
        for _, told in self.both():
            self.assertEqual(["raised", "cleared"], [phase for _, phase in told.edges("alarm.overspeed")])
            alarm = told.event("alarm.overspeed", "raised")
            report = told.positions[1]
            self.assertEqual(("overspeed", report["id"]), (report["levels"], alarm["data"]["position_id"]))
            self.assertEqual((34.21, report["time"]), (alarm["data"]["speed_kmh"], alarm["time"]))
            self.assertEqual(float(report["latitude"]), alarm["data"]["latitude"])
            cleared = told.event("alarm.overspeed", "cleared")["data"]
            self.assertEqual((alarm["id"], 10.0), (cleared["raised_id"], cleared["duration_s"]))

    def test_5_geofence(self) -> None:
        """Entering a fence and leaving one are alarms of their own."""
        for _, told in self.both():
            for at, kind in ((3, "geofence.enter"), (4, "geofence.exit")):
                self.assertEqual(["raised", "cleared"], [phase for _, phase in told.edges(f"alarm.{kind}")])
                self.assertEqual(told.positions[at]["id"], told.event(f"alarm.{kind}", "raised")["data"]["position_id"])
                self.assertEqual(kind, told.positions[at]["levels"])

    def test_6_relay(self) -> None:
        """The relay's state is a column of each report; a change is an event at once, both ways."""
        for _, told in self.both():
            self.assertEqual(["0"] * 5 + ["1"] + ["0"] * 5, [entry["immobilizer"] for entry in told.positions])
            self.assertEqual(["raised", "cleared"], [phase for _, phase in told.edges("state.immobilizer")])
            cut = told.event("state.immobilizer", "raised")["data"]
            free = told.event("state.immobilizer", "cleared")["data"]
            self.assertEqual((True, told.positions[5]["id"]), (cut["immobilizer"], cut["position_id"]))
            self.assertEqual((False, told.positions[6]["id"]), (free["immobilizer"], free["position_id"]))

    def test_7_alarms(self) -> None:
        """SOS, vibration, theft and a power cut, some in one report: each is raised and cleared on its own, once."""
        for _, told in self.both():
            alarms = ("sos", "vibration", "theft", "power.cut")
            for kind in alarms:
                self.assertEqual(["raised", "cleared"], [phase for _, phase in told.edges(f"alarm.{kind}")], kind)
            raised = {kind: told.event(f"alarm.{kind}", "raised")["data"]["position_id"] for kind in alarms}
            first, second = told.positions[7]["id"], told.positions[8]["id"]
            self.assertEqual({"sos": first, "vibration": first, "theft": first, "power.cut": second}, raised)
            self.assertEqual({"sos", "vibration", "theft"}, set(told.positions[7]["levels"].split(",")))
            self.assertEqual(["1"] * 8 + ["0"] + ["1"] * 2, [entry["external_power"] for entry in told.positions])
            self.assertEqual(7 * 2 + 2 + 1, len(told.edges()), "seven alarms, the relay, and the ignition")

    def test_same_over_both(self) -> None:
        """Both transports lead to the same, event by event."""
        tcp, udp = (told.edges() for _, told in self.both())
        self.assertEqual(tcp, udp)

    # -- one unit and its ways

    def test_parked_with_a_frozen_clock(self) -> None:
        """A parked unit whose clock stands still raises a power cut live: by our time, and as such."""
        told = self.told[PARKED]
        first, *others = told.positions
        self.assertEqual(3, len(others))
        for entry in others:
            data = entry["data"]
            self.assertEqual(
                ("server", "frozen", first["time"]), tuple(data[n] for n in ("time_source", "clock", "device_time"))
            )
            self.assertEqual(("", entry["received"]), (entry["late"], entry["time"]))
        self.assertEqual([("alarm.power.cut", "raised")], told.edges("alarm"))
        alarm = told.event("alarm.power.cut")
        self.assertNotIn("late", alarm["data"])
        self.assertEqual((others[0]["id"], others[0]["received"]), (alarm["data"]["position_id"], alarm["time"]))
        self.assertEqual(["1", "0", "0", "1"], [entry["external_power"] for entry in told.positions])

    def test_registered_before(self) -> None:
        """The first frame of a registered unit is read and answered by its registry."""
        told = self.told[KNOWN]
        self.assertEqual([b"R12", b"R12"], [answer.split(b",")[2] for answer in self.answered[KNOWN]])
        for entry in told.positions:
            self.assertEqual(
                ("van 7", "", True), (entry["device_id"], entry["ignition"], entry["data"]["ignition_bit"])
            )
        self.assertEqual([], told.edges("ignition"))

    def test_registry_changes(self) -> None:
        """A change of the registry holds from the next report on once it is read: answers, columns and key."""
        told = self.told[CHANGED]
        kinds = [answer.split(b",")[2] for answer in self.answered[CHANGED]]
        self.assertEqual((b"V4", [b"R12", b"R12"]), (kinds[0], kinds[-2:]))
        first, last = told.positions[0], told.positions[-1]
        self.assertEqual(("", "1"), (first["device_id"], first["ignition"]))
        self.assertEqual(("van 8", "", True), (last["device_id"], last["ignition"], last["data"]["ignition_bit"]))

    def test_sim_card(self) -> None:
        """Another SIM card is one event with both numbers; the same one again is none."""
        event = self.told[CARDS].event("device.sim.changed")
        self.assertEqual("8948061050039263302", event["data"]["iccid"])
        self.assertEqual("8944501311217563382", event["data"]["iccid_before"])

    def test_late_alarm(self) -> None:
        """An alarm in a record that the device calls late is published as late, and the live one after it as well."""
        told = self.told[LATE]
        self.assertEqual(["", "device", "", ""], [entry["late"] for entry in told.positions])
        late, live = (event for event in told.events if event["type"] == "alarm.sos")
        self.assertEqual(("raised", "device"), (late["data"]["phase"], late["data"]["late"]))
        self.assertEqual("raised", live["data"]["phase"])
        self.assertNotIn("late", live["data"])

    def test_unknown_type(self) -> None:
        """A message of a type that nobody knows is a status with its text."""
        (entry,) = [entry for entry in self.told[ODD].positions if entry["type"] == "status"]
        self.assertEqual(f"*HQ,{ODD},ALRM,7,what?#", entry["data"]["raw_text"])
        self.assertEqual("ALRM", entry["data"]["message_type"])

    def test_acc_not_wired(self) -> None:
        """A drive with the ignition off: told once with the line that settles it, and the column is empty since."""
        told = self.told[UNWIRED]
        quality = told.event("device.quality")["data"]
        self.assertEqual(("acc_wiring", "acc_wired=0"), (quality["name"], quality["setting"]))
        self.assertEqual(["0"] * 9 + [""] * 7, [entry["ignition"] for entry in told.positions])

    def test_sends_again(self) -> None:
        """A unit that sends one report for the third time is answered R12 from then on, and that is told once."""
        kinds = [answer.split(b",")[2] for answer in self.answered[AGAIN]]
        self.assertEqual([b"V4"] * 2 + [b"R12"] * 4, kinds)
        told = self.told[AGAIN]
        self.assertEqual(3, len(told.positions))
        self.assertEqual("reply=r12", told.event("device.quality")["data"]["setting"])


class EdgeTests(RealPartsTestCase):
    """No edge is lost or doubled, whoever is killed."""

    def setUp(self) -> None:
        """A device that has raised SOS, and whose relay is cut."""
        super().setUp()
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=CONFIG)
        self.at = began()
        self.ident = "9170225400"
        self.link = self.connect()
        for bits in ((), (1, 27), (1, 27)):
            self.say(*bits)

    def connect(self) -> Client:
        """A connection to the gateway."""
        link = Client(self.running.port)
        self.addCleanup(link.socket.close)
        return link

    def report(self, *bits: int, after: int = 10) -> bytes:
        """The device's next report."""
        self.at += after
        return v1(self.ident, self.at, word(ON, *bits))

    def say(self, *bits: int, after: int = 10) -> bytes:
        """Report, and wait for the answer."""
        self.link.send(self.report(*bits, after=after))
        (answer,) = self.link.answers(1)
        return answer

    def drained(self) -> None:
        """Wait until what was written to the disk while Redis was away is on the streams."""
        wait_for("the journal to be drained", lambda: journaled(self.running.data_dir) == 0, detail=self.running.tail)

    @property
    def told(self) -> Stream:
        """What is on the streams."""
        return Stream(self.redis.client, self.ident)

    def test_gateway_is_killed(self) -> None:
        """A raised alarm outlives a kill -9 of the gateway: not raised again, and cleared by the one that raised it."""
        self.running.kill()
        self.running.start()
        self.link = self.connect()
        self.say(1, 27)
        self.say(1, 27)
        raised = [("alarm.sos", "raised"), ("state.immobilizer", "raised")]
        self.assertEqual(raised, sorted(self.told.edges()[1:]), "after the ignition")
        self.say()
        self.say(after=70)
        cleared = self.told.event("alarm.sos", "cleared")["data"]
        self.assertEqual(self.told.event("alarm.sos", "raised")["id"], cleared["raised_id"])
        self.assertEqual(40.0, cleared["duration_s"])
        self.assertEqual(5, len(self.told.edges()))

    def test_gateway_is_killed_in_the_hold_off(self) -> None:
        """Killed while the alarm's minute of hold-off runs, it is cleared once, by the report after that minute."""
        self.say(27)
        self.running.kill()
        self.running.start()
        self.link = self.connect()
        self.say(27)
        self.assertEqual(["raised"], [phase for _, phase in self.told.edges("sos")])
        self.say(27, after=60)
        self.say(27, after=60)
        self.assertEqual(["raised", "cleared"], [phase for _, phase in self.told.edges("sos")])

    def test_redis_is_killed(self) -> None:
        """Edges that come while Redis is away are there once when it is back, in order, and none is doubled."""
        self.redis.kill()
        story = [self.report(1), self.report(2, after=70), self.report(2, 1), self.report(27), self.report(after=70)]
        for frame in story:
            self.link.send(frame)
        self.assertEqual(len(story), len(self.link.answers(len(story))))
        self.redis.start()
        self.say(after=70)
        self.drained()
        edges = self.told.edges()
        for name, times in (("sos", 2), ("overspeed", 1), ("immobilizer", 2)):
            phases = [phase for kind, phase in edges if kind.endswith(name)]
            self.assertEqual(["raised", "cleared"] * times, phases, name)
        self.assertEqual(10 + 1, len(edges), "and the ignition")
        ids = [event["id"] for event in self.told.events]
        self.assertEqual(len(ids), len(set(ids)))

    def test_both_are_killed(self) -> None:
        """Killed while Redis is away: what was answered is published, and so is each edge once, also if sent again."""
        self.redis.kill()
        story = [self.report(1), self.report(1, 2)]
        for frame in story:
            self.link.send(frame)
        self.assertEqual(2, len(self.link.answers(2)))
        self.running.kill()
        self.redis.start()
        self.running.start()
        self.link = self.connect()
        for frame in story:
            self.link.send(frame)
        self.assertEqual(2, len(self.link.answers(2)))
        self.drained()
        wanted = [
            ("alarm.overspeed", "raised"), ("alarm.sos", "raised"), ("state.ignition", "active"),
            ("state.immobilizer", "cleared"), ("state.immobilizer", "raised"),
        ]  # fmt: skip
        self.assertEqual(wanted, sorted(self.told.edges()))
