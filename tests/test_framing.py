"""The buffer that frame splitters work on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.framing import FrameBuffer


class FrameBufferTests(SynchronousTestCase):
    """Bytes that are no whole frame yet."""

    def test_add_and_take(self) -> None:
        """Bytes come out in the order in which they went in."""
        buffer = FrameBuffer()
        buffer.add(b"abc")
        buffer.add(b"def")
        self.assertEqual(b"abcd", buffer.take(4))
        self.assertEqual(b"ef", buffer.data)
        self.assertEqual(b"ef", buffer.take(10))
        self.assertEqual(b"", buffer.data)

    def test_find(self) -> None:
        """The end of a frame is found wherever the reads were cut."""
        buffer = FrameBuffer()
        for byte in b"abc":
            buffer.add(bytes([byte]))
            self.assertEqual(-1, buffer.find(b"#"))
        buffer.add(b"#d#")
        self.assertEqual(3, buffer.find(b"#"))
        self.assertEqual(b"abc#", buffer.take(4))
        self.assertEqual(1, buffer.find(b"#"))

    def test_looks_once(self) -> None:
        """A search goes on where the one before stopped, and starts anew after a frame was taken."""
        buffer = FrameBuffer()
        buffer.add(b"abc")
        buffer.find(b"#")
        self.assertEqual(3, buffer.scanned)
        buffer.add(b"d")
        buffer.take(1)
        self.assertEqual(0, buffer.scanned)
