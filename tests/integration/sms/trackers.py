"""Trackers behind an SMSC, as ST-907s are in the ways that matter: they obey texts, and report where they are told."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tests.integration.fleet import IGNITION_OFF, v1
from tests.integration.sms.peers import SMSC

#: The same with the bit low that says that the relay is open.
CUT: Final = f"{int(IGNITION_OFF, 16) & ~(1 << 27):08X}"
ANSWER_S: Final = 0.05


@dataclass
class Phone:
    """
    A tracker with a SIM.

    @ivar manner: C{good}; C{silent}: it answers nothing; C{mute}: it obeys, and answers nothing; C{absent}: it takes
        all, and never reports; C{stranger}: it has another ident.
    @ivar loses: one text in so many does not come to it.
    """

    ident: str
    number: str
    password: str = "0000"
    manner: str = "good"
    loses: float = 0.0
    server: tuple[str, int] | None = None
    cut: bool = False
    texts: list[str] = field(default_factory=list)
    reports: int = 0


class Trackers:
    """All of them."""

    def __init__(self, smsc: SMSC, phones: list[Phone], seed: int = 1) -> None:
        self._smsc = smsc
        self.phones = {phone.number.removeprefix("+"): phone for phone in phones}
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        smsc.on_heard = self._heard

    def _heard(self, heard: dict[str, Any]) -> None:
        text = heard.get("submit")
        if text is None or not text["taken"]:
            return
        phone = self.phones.get(text["to"])
        if phone is None:
            return
        with self._lock:
            lost = self._dice.random() < phone.loses
        if not lost:
            threading.Timer(ANSWER_S, self._come, (phone, text["text"])).start()

    def _come(self, phone: Phone, text: str) -> None:
        phone.texts.append(text)
        if phone.manner == "silent":
            return
        said = self._obey(phone, text)
        with self._lock:
            lost = self._dice.random() < phone.loses
        if said and not lost and phone.manner != "mute":
            self._smsc.deliver(phone.number, said)

    def _obey(self, phone: Phone, text: str) -> str:
        if text == "RCONF":
            host, port = phone.server or ("0.0.0.0", 0)
            ident = phone.ident if phone.manner != "stranger" else "9179999999"
            about = f"ID:{ident}\r\nIP:{host} {port}\r\nUT:20,20,300\r\nVOLT:12.9V\r\nGSM:26"
            return f"ST907(TEST)_TQ_V_2.0 2024/06/07\r\n{about}"
        found = re.fullmatch(r"(803|804|805|809|710|940|941)([0-9A-Za-z]{4})(?: (.*))?", text)
        if found is None or found[2] != phone.password:
            return ""
        if found[1] == "804":
            host, number = (found[3] or "").split(" ")
            phone.server = (host, int(number))
            if phone.manner != "absent":
                threading.Timer(0.3, self.report, (phone,)).start()
        if found[1] in ("940", "941"):
            phone.cut = found[1] == "940"
        return "SET OK"

    def report(self, phone: Phone) -> None:
        """It reports to where it was told, over TCP."""
        if phone.server is None:
            return
        word = CUT if phone.cut else IGNITION_OFF
        try:
            with socket.create_connection(phone.server, 5) as connection:
                connection.sendall(v1(phone.ident, int(time.time()), word))
                connection.settimeout(5)
                if connection.recv(1000):
                    phone.reports += 1
        except OSError:
            return


class Car(threading.Thread):
    """
    A tracker with a link: it reports once a second that it stands, answers a cut over data, and can be out of coverage.

    @ivar cuts: how often it was told to cut over data.
    """

    def __init__(self, phone: Phone, port: int) -> None:
        super().__init__(daemon=True)
        self.phone = phone
        self._port = port
        self.covered = threading.Event()
        self.covered.set()
        self.cuts = 0
        self._over = False

    def end(self) -> None:
        """It ends."""
        self._over = True
        self.join(20)

    def run(self) -> None:
        """Report, as long as it lasts."""
        while not self._over:
            if not self.covered.is_set():
                time.sleep(0.05)
                continue
            try:
                with socket.create_connection(("127.0.0.1", self._port), 2) as connection:
                    self._drive(connection)
            except OSError:
                time.sleep(0.3)

    def _drive(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        due, rest = 0.0, b""
        while not self._over and self.covered.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + 1.0
                connection.sendall(self._report())
            try:
                data = connection.recv(4096)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("closed")
            rest += data
            while b"#" in rest:
                frame, _, rest = rest.partition(b"#")
                self._obey(frame.lstrip(), connection)

    def _obey(self, frame: bytes, connection: socket.socket) -> None:
        fields = frame.decode("latin-1").split(",")
        if len(fields) >= 6 and fields[2] == "S20":
            self.cuts += 1
            self.phone.cut = fields[4:6] == ["1", "1"]
            stamp = time.strftime("%H%M%S,%d%m%y", time.gmtime())
            told = ",".join(fields[4:6])
            connection.sendall(f"*HQ,{self.phone.ident},V4,S20,{fields[3]},{told},{stamp}#".encode())

    def _report(self) -> bytes:
        now = time.gmtime()
        word = CUT if self.phone.cut else IGNITION_OFF
        clock, date = time.strftime("%H%M%S", now), time.strftime("%d%m%y", now)
        place = "A,4230.0000,N,00730.0000,E,000.00,122"
        return f"*HQ,{self.phone.ident},V1,{clock},{place},{date},{word},214,03,13140,5085#".encode()
