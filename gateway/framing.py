"""
The buffer that frame splitters work on: it looks for the end of a frame in each byte once.

How much it may hold is its splitter's to say, which alone knows how long a
frame may get.
"""

from __future__ import annotations


class FrameBuffer:
    """
    Bytes of a stream that are not a whole frame yet.

    @ivar data: what is held.
    @ivar scanned: how far into C{data} a search for the end of the frame already went.
    """

    __slots__ = ("data", "scanned")

    def __init__(self) -> None:
        self.data = b""
        self.scanned = 0

    def add(self, data: bytes) -> None:
        """Append what was read."""
        self.data = self.data + data if self.data else data

    def take(self, size: int) -> bytes:
        """Remove and return the first C{size} bytes."""
        head = self.data[:size]
        self.data = self.data[size:]
        self.scanned = 0
        return head

    def find(self, end: bytes) -> int:
        """Where C{end}, a single byte, stands, or -1; the next search goes on where this one stopped."""
        at = self.data.find(end, self.scanned)
        if at < 0:
            self.scanned = len(self.data)
        return at
