"""What a store does in Redis by calls of a script of its own, beside batches and outside of their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import txredisapi

from gateway.errors import NotReady, StepRefused
from gateway.sinks.blocking import NOT_NOW
from gateway.sinks.connection import Layout, RedisConnection
from gateway.sinks.script import Script


class Scripted:
    """A store; each call raises L{NotReady} when it is not known that it took effect, which it may have."""

    def __init__(self, name: str, connection: Callable[[], RedisConnection | None], layout: Layout) -> None:
        """
        @param name: the file of its script.
        @param connection: gives the connection while Redis is there.
        """
        self._connection = connection
        self._layout = layout
        self._script = Script.load(name)

    @property
    def ready(self) -> bool:
        """Whether Redis is there."""
        return self._connection() is not None

    async def _call(self, key: str, *args: str | bytes | int) -> Any:
        """Call the script; C{key}: any of its keys."""
        script = self._script
        try:
            return await self._command("EVALSHA", script.sha, "1", key, *args)
        except StepRefused as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self._command("EVAL", script.text, "1", key, *args)

    async def _command(self, *args: str | bytes | int) -> Any:
        """
        Any command.

        @raise StepRefused: Redis refuses it for good.
        """
        connection = self._connection()
        if connection is None:
            raise NotReady("Redis is away")
        try:
            return await connection.command(*args)
        except txredisapi.ResponseError as error:
            text = str(error)
            raise NotReady(text) if text.startswith(NOT_NOW) else StepRefused(text) from error
        except txredisapi.ConnectionError as error:
            raise NotReady(str(error) or "the connection is lost") from error
