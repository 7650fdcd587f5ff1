"""The osmand plugin: its options, and the decoder of one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from zope.interface import implementer

from gateway.devices.osmand import detect, http, locations
from gateway.errors import DecodeError
from gateway.interfaces import API, NO, Answer, IDecoder, IDevice, Memory, Message, Transport

_UDP = NO("HTTP is not spoken over UDP")


@dataclass(frozen=True, slots=True)
class Options:
    """
    C{[devices.osmand]}.

    @ivar speed_unit: what the parameter C{speed} is in; JSON always has metres per second.
    """

    speed_unit: str = "knots"

    def __post_init__(self) -> None:
        if self.speed_unit not in locations.UNITS:
            raise ValueError(f"key 'speed_unit': {self.speed_unit!r} is none of {', '.join(locations.UNITS)}")


@implementer(IDevice)
class OsmAnd:
    """Phones: Traccar Client, OsmAnd and other apps that report over HTTP as OsmAnd does."""

    api = API
    name = locations.NAME
    priority = 20
    options = Options

    def detect(self, prefix: bytes, transport: Transport) -> Answer:
        return _UDP if prefix and transport == "udp" else detect.detect(prefix)

    def decoder(self, options: Any, memory: Memory) -> IDecoder:
        decoder: IDecoder = Decoder(options)
        return decoder


@implementer(IDecoder)
class Decoder:
    """The requests of one stream."""

    __slots__ = ("_speed_kmh", "_splitter")

    #: The end of a request shows in its bytes; no silence decides anything.
    deadline: Final = None

    def __init__(self, options: Options) -> None:
        self._speed_kmh = locations.UNITS[options.speed_unit]
        self._splitter = http.Splitter()

    @property
    def rest(self) -> bytes:
        return self._splitter.rest

    def receive(self, data: bytes, now: float) -> Sequence[Message]:
        return [self._message(request, now) for request in self._splitter.split(data)]

    def finish(self, now: float) -> Sequence[Message]:
        return ()

    def _message(self, request: http.Request, now: float) -> Message:
        if request.status:
            return _unread(request, None, request.status, request.fault)
        ident: str | None = None
        try:
            ident, found = locations.unpack(request.target, request.body)
            read = [locations.read(given, self._speed_kmh) for given in found]
        except ValueError as error:
            return _unread(request, ident, HTTPStatus.BAD_REQUEST, str(error))
        except RecursionError:
            return _unread(request, ident, HTTPStatus.BAD_REQUEST, "the JSON is nested too deeply")
        reply = http.response(HTTPStatus.OK, request.keep)
        # a state at several times is no edge: the events of several locations say each their own
        on = read[0].attributes if len(read) == 1 else {}
        return Message(
            request.raw,
            ident,
            locations.events(ident, read, request.raw, now),
            {"ignition": on["ignition"]} if "ignition" in on else {},
            lambda now: reply,
            http.response(HTTPStatus.FORBIDDEN, request.keep, "this device is not let in"),
            _unavailable(request),
            close=not request.keep,
        )


def _unavailable(request: http.Request) -> bytes:
    return http.response(HTTPStatus.SERVICE_UNAVAILABLE, request.keep, "can't be stored now: send it again later")


def _unread(request: http.Request, ident: str | None, status: int, why: str) -> Message:
    """A request that can't be read, answered with the reason."""
    reply = http.response(status, request.keep, why)
    error = DecodeError(why, request.raw)
    unavailable = _unavailable(request)
    return Message(
        request.raw, ident, reply=lambda now: reply, unavailable=unavailable, error=error, close=not request.keep
    )


device = OsmAnd()
