"""Who may see the page: its token, the sessions of browsers that gave it, and the names that it may be called by."""

from __future__ import annotations

import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gateway.errors import StartError

#: How long a browser stays logged in, s, and how many do.
SESSION_S: Final = 12 * 3600.0
SESSIONS: Final = 200
#: Wrong tokens that are looked at, a second; more are turned away unseen.
WRONG_PER_S: Final = 5.0
#: Names of this very machine.
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def token(path: Path) -> str:
    """
    The token of a file, which is made where there is none.

    @raise StartError: when it can't be read or made, or holds none.
    """
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return _made(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: the token of the page can't be read: {error}") from error
    if not 16 <= len(text) <= 512 or not text.isascii() or not text.isprintable():
        raise StartError(f"{path}: no token of 16 to 512 characters stands there; without the file one is made")
    return text


def _made(path: Path) -> str:
    made = secrets.token_urlsafe(32)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(f"{made}\n")
    except OSError as error:
        raise StartError(f"{path}: the token of the page can't be written: {error.strerror}") from error
    return made


class Door:
    """Lets in who knows the token."""

    def __init__(self, token: str, hosts: Iterable[str]) -> None:
        """@param hosts: what a request may call us, besides names of this very machine; without ports."""
        self._token = token.encode()
        self._hosts = LOOPBACK | {host.lower().strip("[]") for host in hosts}
        #: of browsers, until when
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._wrong, self._wrong_at = 0.0, 0.0

    def calls_us(self, host: str) -> bool:
        """
        Whether a C{Host} header is a name of ours.

        A page of somebody else's whose name was made to lead here would have its own.
        """
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        return name.lower().strip("[]") in self._hosts

    def patient(self, now: float) -> bool:
        """Whether a token may be looked at: not after too many wrong ones."""
        self._wrong = max(self._wrong - (now - self._wrong_at) * WRONG_PER_S, 0.0)
        self._wrong_at = now
        return self._wrong < WRONG_PER_S

    def knows(self, token: str, now: float) -> bool:
        """Whether this is the token."""
        if hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return True
        self._wrong += 1
        self._wrong_at = now
        return False

    def enter(self, now: float) -> str:
        """A browser gave the token: its session from now on."""
        session = secrets.token_urlsafe(24)
        self._sessions[session] = now + SESSION_S
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def inside(self, session: str, now: float) -> bool:
        """Whether a session is one."""
        return self._sessions.get(session, 0.0) > now

    def leave(self, session: str) -> None:
        """It ends."""
        self._sessions.pop(session, None)
