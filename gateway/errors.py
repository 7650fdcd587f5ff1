"""Every error that the gateway raises on purpose, one class for each way a caller can react."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class GatewayError(Exception):
    """The base of all of them."""


class StartError(GatewayError):
    """Something that stops start-up; its text is the one line that the operator reads."""


class ConfigError(StartError):
    """A configuration that can't be used: names the file, the section and the key."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class PluginError(StartError):
    """A device plugin that can't be used: names the plugin and where it comes from."""

    def __init__(self, plugin: str, origin: str, what: str) -> None:
        super().__init__(f"device plugin {plugin!r} ({origin}): {what}")
        self.plugin = plugin
        self.origin = origin


class DecodeError(GatewayError):
    """A frame that was delimited but can't be read; C{frame} holds its bytes."""

    def __init__(self, reason: str, frame: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.frame = frame


class MalformedHeader(GatewayError):
    """Bytes that are no header of the PROXY protocol; C{at} is the byte at which that shows, from 0."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(f"byte {at}: {what}")
        self.at = at


class CommandError(GatewayError):
    """A command that can't be carried out as it is asked for; its text says why, for whoever asked."""


class UnsupportedCommand(CommandError):
    """A command that a device does not know, or not like this."""


class NotReady(GatewayError):
    """Redis answered 'not now', or nobody answered: the same request is sent again later."""


class StepRefused(NotReady):
    """Redis refuses a step of a command, and not for a reason that is known to pass."""


class Refused(GatewayError):
    """Redis refuses these credentials, this user or this server for good, as things are."""


class BatchRefused(GatewayError):
    """Redis refuses a batch again and again, and not for a reason that passes."""


class JournalFull(GatewayError):
    """The journal can't take anything now: its limit, a full disk, a file that can't be written."""


class JournalNewer(StartError):
    """The journal was written by another version, which has to be the one that reads it."""


class JournalDamaged(GatewayError):
    """The journal's file can't be trusted."""


class UnknownMaster(Refused):
    """Sentinels answer, and none of them knows a master of this name."""


class CannotConfirm(GatewayError):
    """A server, as it is set up, can't give the confirmation that is asked for; the text says what it lacks."""


class ContractMismatch(GatewayError):
    """What a gateway says of its streams is not what a consumer needs: another version, prefix, stream or type."""


class UnreadableEntry(GatewayError):
    """An entry of a stream that is not what the contract says."""


class Later(GatewayError):
    """Raised by an application that can't handle an event now, through no fault of the event."""


@contextmanager
def converting(kinds: tuple[type[Exception], ...], reason: str, frame: bytes) -> Iterator[None]:
    """
    Turn the low-level errors of reading a frame into a L{DecodeError} at the boundary.

    @param kinds: what is translated, C{(ValueError, IndexError)} say.
    """
    try:
        yield
    except kinds as error:
        raise DecodeError(f"{reason}: {error}", frame) from error
