"""What an ST-907 answers to commands: C{V4} to those in frames, and for text what it would send by SMS."""

from __future__ import annotations

from typing import NamedTuple

from gateway.simulator.frames import Record, clock, position, word


class Configuration(NamedTuple):
    """
    What C{RCONF} asks for.

    @ivar model: hardware, firmware and the day that it is of.
    @ivar intervals_s: between two reports; the last is with the ignition off.
    @ivar volts: of the supply.
    @ivar gps: whether there is a fix, and two numbers about satellites.
    @ivar gsm: how strong the network is, 0 to 31.
    """

    model: str
    ident: str
    host: str
    port: int
    intervals_s: tuple[int, int, int]
    volts: float
    apn: str
    gps: str
    gsm: int


def v4(record: Record, command: str, said: str, stamp: str) -> bytes:
    """
    The full form, with a position.

    @param said: C{DONE} or C{ERROR}, or with some commands what they have set.
    @param stamp: the time of day in the command, which says what is answered.
    """
    return f"*HQ,{record.ident},V4,{command},{said},{stamp},{position(record, speed='.2f')},{word(record)}#".encode()


def area_v4(record: Record, command: str, said: str, stamp: str, area: str) -> bytes:
    """The form that fences are answered in: without a position, and without a date."""
    fields = ["*HQ", record.ident, "V4", command, said, stamp, clock(record), *filter(None, [area]), word(record)]
    return f"{','.join(fields)}#".encode()


def short_v4(ident: str, command: str, stamp: str, arguments: str) -> bytes:
    """The short form, which repeats the command and does not say what became of it."""
    return f"*HQ,{ident},V4,{command},{stamp}{',' if arguments else ''}{arguments}#".encode()


def sms(ident: str, text: str) -> bytes:
    """A text; ends of lines in it are such."""
    return f"*HQ,{ident},SMS,{text}#".encode()


def rconf(of: Configuration) -> str:
    """The configuration as a text."""
    return (
        f"{of.model}\nID:{of.ident}\nIP:{of.host} {of.port}\nUT:{','.join(map(str, of.intervals_s))}\n"
        f"VOLT:{of.volts:.1f}V\nAPN:{of.apn}\nGPS:{of.gps}\nGSM:{of.gsm}"
    )
