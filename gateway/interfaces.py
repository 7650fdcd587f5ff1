"""What a device plugin provides, what it is given, and the values that pass between it and the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from zope.interface import Attribute, Interface

from gateway.commands import Command
from gateway.errors import DecodeError
from gateway.events import Event

#: The major version of this file; a device that names another one stops start-up.
API = 1

Transport = Literal["tcp", "udp"]

#: Where the password of a unit stands in a text that is not to be seen by anybody but the unit.
PASSWORD: Final = "{password}"

#: States that have a column of their own.
COLUMNS_OF_STATES: Final = ("ignition", "immobilizer")
#: What the registry says of an ident that is not in it.
_NOT_REGISTERED: Final[Mapping[str, str]] = MappingProxyType({})


class Kept(dict[str, Any]):
    """
    What is kept with an ident's session: a small dict of JSON values that a plugin fills, and as attributes what else
    is known of the unit.

    @ivar registry: what applications wrote of the ident, text by field.
    @ivar new: no level of the ident was known before the message that is judged.
    @ivar again: the message has come before: it is read as the unit's others are, and nothing is learned from it.
    @ivar resends: how often, at most, one report came again on the connection on which it had come before, although
        it was no parked unit's.
    @ivar look_at: a report that is like the one before it is to be learned from, too, when its device time is that or
        later, UTC epoch seconds; it is not stored.
    @ivar own: the plugin's, to keep what follows from all this at hand; it is not stored, and gone when the registry
        changes.
    """

    __slots__ = ("again", "look_at", "new", "own", "registry", "resends")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.registry: Mapping[str, str] = _NOT_REGISTERED
        self.new = True
        self.again = False
        self.resends = 0
        self.look_at = inf
        self.own: Any = None


#: C{memory(ident)}: what is kept with an ident's session.
Memory = Callable[[str], Kept]


class NO(NamedTuple):
    """Not this device's, nor will any longer prefix be."""

    reason: str


class MORE(NamedTuple):
    """
    More bytes are needed.

    @ivar claim: what the bytes so far are worth, 0-100.
    """

    claim: int
    reason: str


class YES(NamedTuple):
    """
    This device's.

    @ivar confidence: 40 header shape, 60 header and id, 80 known type or consistent length, 90 a well-formed
        frame, 100 a checksum.
    """

    confidence: int
    reason: str


Answer = NO | MORE | YES


class Levels(dict[str, bool]):
    """
    Levels with what follows from them, worked out once; a device whose messages share them gives one to each.

    @ivar on: those that are on, in their order; C{off}: the others.
    @ivar shown: the names of the alarms and states that are on, without what tells those of one type apart.
    """

    __slots__ = ("off", "on", "shown")

    def __init__(self, levels: Mapping[str, bool]) -> None:
        super().__init__(levels)
        self.on = tuple(name for name, is_on in levels.items() if is_on)
        self.off = frozenset(name for name, is_on in levels.items() if not is_on)
        apart = dict.fromkeys(name.partition(":")[0] for name in self.on)
        self.shown = [name for name in apart if name not in COLUMNS_OF_STATES]


class CommandAnswer(NamedTuple):
    """
    What a frame says of a command that its device got.

    @ivar name: what the device calls the command: see L{Downlink}.
    @ivar token: what it repeats of the command to tell which one it was; empty: nothing.
    @ivar accepted: whether it says that it obeys; None: it does not say.
    @ivar values: the parameters that it repeats, as they stand there; empty: none.
    """

    name: str
    token: str = ""
    accepted: bool | None = None
    values: tuple[str, ...] = ()


class Message(NamedTuple):
    """
    One decoded frame.  (A NamedTuple: half the price of a frozen dataclass on the hot path.)

    @ivar raw: the frame as delimited.
    @ivar ident: who says it; None: whoever the connection belongs to.
    @ivar events: what it says.
    @ivar levels: level name -> on or off, for those that the frame speaks of; the gateway makes the edges.
    @ivar reply: gives the acknowledgement for the time at which it is sent (UTC epoch seconds), or None.
    @ivar refusal: bytes for a device that is not let in.
    @ivar unavailable: bytes instead of the reply while nothing can be stored.
    @ivar error: why the frame can't be read; its outcome is then C{undecodable}.
    @ivar same: messages with the same object here say the same in all but time, latitude, longitude, altitude, speed
        and course of their one C{position}, levels included; it spares working out again what follows from that.
        None: nothing is promised.
    @ivar alike: as C{same}, but what they say in C{data} may differ as well, by a cell say; only beside C{same}.
    @ivar close: the stream ends with this frame: nothing after it counts, and it is closed once its reply went out.
    @ivar answer: what it says of a command; None: it answers none.
    """

    raw: bytes
    ident: str | None = None
    events: Sequence[Event] = ()
    levels: Mapping[str, bool] = {}
    reply: Callable[[float], bytes] | None = None
    refusal: bytes = b""
    unavailable: bytes = b""
    error: DecodeError | None = None
    close: bool = False
    same: object = None
    alike: object = None
    answer: CommandAnswer | None = None


class IDevice(Interface):
    """
    A kind of tracker: one stateless object that a plugin module calls C{device}.

    Built-in devices are modules of C{gateway.devices}; others register the
    object under the entry point group C{gateway.devices}.
    """

    api = Attribute("L{API} of the gateway that the device was written for, an int.")
    name = Attribute("The C{protocol} of each of its events: lower-case letters, digits, underscore; a str.")
    priority = Attribute("An int; of two answers that are worth the same the smaller priority wins.")
    options = Attribute("A frozen dataclass whose fields, each with a default, are the keys of C{[devices.NAME]}.")

    def detect(prefix: bytes, transport: Transport) -> Answer:
        """
        Say whether a stream that begins like this, or a whole datagram, is this device's.

        Pure; C{prefix} holds 1,024 bytes at most.  NO is final for every
        longer prefix, nothing at all is C{MORE(0)}, and a YES of 80 or more
        does not become NO before its frame ends.
        """

    def decoder(options: Any, memory: Memory) -> IDecoder:
        """Make what reads one connection or one datagram, with an instance of C{options}."""


class ILearningDevice(IDevice):
    """A device whose units differ: what is set or was found out of one decides how it is read."""

    def learn(message: Message, options: Any, kept: Kept, now: float) -> Message:
        """
        Say what a message means of this very unit; called when all that is known of the unit is there.

        It may change the attributes of the message's events, C{kept}, and give another message with the same
        C{raw} and C{ident}.  Messages with one object as C{same} have to come out alike, too, unless it is taken away.

        @param kept: of the ident that says it.
        @param now: when it was received, UTC epoch seconds.
        """


class IDatagramDevice(IDevice):
    """A device that can tell at a glance what a datagram is, if it is what nearly all are."""

    def datagrams(options: Any, memory: Memory) -> Callable[[bytes], Message | None]:
        """
        Make what reads datagrams that are one good frame and nothing else.

        It gives the message for which a fresh detection, with a YES of 60 or more, and a fresh decoder would lead to
        that one message, with its ident; None: those are asked.
        """


class Support(NamedTuple):
    """
    How a device knows a command.

    @ivar channels: over which it can be told: C{data}, any link on which it reports; C{sms}.
    @ivar certainty: C{certain}, C{likely} or C{disputed}: how sure it is that its units obey.
    @ivar note: what there is to know besides, and where that comes from.
    """

    channels: tuple[str, ...]
    certainty: str
    note: str = ""


class Downlink(NamedTuple):
    """
    A command as a device is told it.

    @ivar data: the bytes.
    @ivar name: what its answer calls it.
    @ivar token: what its answer repeats to tell which one it was; empty: nothing.
    @ivar expected: the parameters that an answer repeats if it was understood; an answer without any is none the worse.
    @ivar answered: whether the device says anything at all when it obeys.
    @ivar more: whether it can be told in another form, should it say that it did something else.
    """

    data: bytes
    name: str
    token: str = ""
    expected: tuple[str, ...] = ()
    answered: bool = True
    more: bool = False


class ICommandDevice(IDevice):
    """A device that can be told something."""

    commands = Attribute("L{gateway.commands.COMMANDS} that it knows: name -> L{Support}.")

    def encode(ident: str, command: Command, options: Any, kept: Kept, now: float, form: int) -> Downlink:
        """
        Say how a unit is told something over data.

        @param kept: of the unit.
        @param now: when it is sent, UTC epoch seconds; two commands to one unit are never of the same second.
        @param form: 0, or which of its other forms, after one whose answer said something else.
        @raise UnsupportedCommand: when it can't be told like this; the text says why.
        """


class Fact(NamedTuple):
    """
    One thing that a frame says, for people.

    @ivar where: the number of the field, or the offsets of the bytes.
    @ivar raw: the field as it stands there, or the bytes in hex.
    @ivar name: what it is, by the document's or the contract's name.
    @ivar meaning: what it says, with its unit, how sure that is, and why it is not used where it is not.
    """

    where: str
    raw: str
    name: str
    meaning: str


class IExplainingDevice(IDevice):
    """A device that can tell what each part of a frame means."""

    def explain(frame: bytes, options: Any, registry: Mapping[str, str]) -> Sequence[Fact]:
        """
        Everything that a frame says, in its order; of a frame that can't be read, what can.

        @param frame: as delimited.
        @param registry: what applications wrote of its unit.
        """


class SMSText(NamedTuple):
    """
    A text to a unit.

    @ivar template: as it is sent, L{PASSWORD} in the place of the unit's password.
    @ivar name: what an answer to it is called in L{SMSReading.answer}.
    @ivar meaning: what it does.
    @ivar certainty: C{certain}, C{likely} or C{disputed}: how sure it is that units obey.
    @ivar answered: whether the unit answers it with a text at all.
    @ivar once: it does harm, or is no use, when it comes twice.
    @ivar asks: the kind of text that answers it, see L{SMSReading}.
    @ivar moves: from when it is obeyed on the unit may report to whom it names.
    """

    template: str
    name: str
    meaning: str = ""
    certainty: str = "likely"
    answered: bool = True
    once: bool = False
    asks: Literal["answer", "configuration", "position"] = "answer"
    moves: bool = False


class SMSReading(NamedTuple):
    """
    What a text of a unit says.

    @ivar kind: C{position}; C{alarm}; C{configuration}; C{answer}: to a text that it was sent, and nothing else;
        C{unmatched}: it could not be read, and is shown as it is.
    @ivar ident: who it says it is; None: it does not say.
    @ivar events: positions, alarms, states and status as L{Event}s, the frame's as those of L{Message}.
    @ivar answer: which text it answers, by its C{name}; an empty name: any; None: it answers nothing.
    """

    kind: Literal["position", "alarm", "configuration", "answer", "unmatched"]
    ident: str | None = None
    events: Sequence[Event] = ()
    answer: CommandAnswer | None = None


class ISMSDevice(IDevice):
    """A device whose units can be told something by SMS, and tell something by SMS."""

    def set_up(
        host: str, port: int, apn: str, options: Any, registry: Mapping[str, str], interval_s: int | None, control: str
    ) -> Sequence[SMSText]:
        """
        Say which texts have a unit report to a gateway, in the order in which they are sent.

        @param interval_s: seconds between reports with the ignition on; None: as they usually are.
        @param control: a number that alarms are to be sent to, E.164; empty: none.
        @raise UnsupportedCommand: when they can't be written: an APN with a blank, say; the text says why.
        """

    def sms(command: Command, options: Any, registry: Mapping[str, str]) -> SMSText:
        """
        Say how a unit is told a command that it knows over C{sms}.

        @raise UnsupportedCommand: when it can't be told like this; the text says why.
        """

    def sms_password(options: Any, registry: Mapping[str, str]) -> str:
        """The password of a unit: what the registry says in C{sms_password}, else the configured one."""

    def read_sms(text: str, options: Any, registry: Mapping[str, str], now: float) -> SMSReading:
        """
        Say what a text of a unit says; nothing raises.

        @param now: when it was received, UTC epoch seconds.
        """


class IDecoder(Interface):
    """All state of one stream: bytes in, messages out; no I/O and no clock."""

    deadline = Attribute("Seconds of silence after which C{finish} is wanted, or None.")
    rest = Attribute("The bytes that are held because no frame of them is whole yet.")

    def receive(data: bytes, now: float) -> Sequence[Message]:
        """
        Take bytes as they come and return what they complete.

        What it returns depends on the bytes, never on where a read ended.
        A frame that can't be read is a message with C{error}; nothing raises.

        @param now: UTC epoch seconds.
        """

    def finish(now: float) -> Sequence[Message]:
        """Decide what can be decided without more bytes: after silence, at the end of a stream or datagram."""


class ISink(Interface):
    """Where batches go, and where the state of devices comes from."""

    def begin(idents: Sequence[str], take: bool = True) -> Any:
        """
        Take the sessions of these idents and read what is kept of them.

        @param take: else they are left to whoever holds them.
        @return: a Deferred of a list of L{gateway.session.Stored}, in their order; C{unknown} ones where nobody can be
            asked for a while.
        """

    def read(idents: Sequence[str]) -> Any:
        """As L{begin}, and it waits as long as it takes."""

    def quarantine(group: bytes, reason: str) -> Any:
        """
        Keep what is refused for good, and by the dead stream too.

        @param group: as in a L{gateway.tickets.Batch}.
        @return: a Deferred that fires once it is kept, or logged where even that fails.
        """

    def store(batch: Any) -> Any:
        """
        Append a L{gateway.tickets.Batch}; only one may be under way.

        @return: a Deferred of a L{gateway.tickets.Answer}; it waits until the batch is stored.
        """
