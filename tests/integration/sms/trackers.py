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
