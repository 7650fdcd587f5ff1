"""TLS for trackers that can: who we are, read from files, and read anew when these are renewed."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from zope.interface import implementer

from gateway.errors import StartError
from gateway.transports.tcp import TrackerFactory


class Encrypted(BufferingTLSTransport):
    """A tracker's connection."""

    def loseConnection(self) -> None:
        """
        Say good-bye, and close once that has gone out.

        By itself it would wait for the tracker to say so, too; and that is never read, as nothing is any more.
        """
        super().loseConnection()
        self.transport.loseConnection()  # type: ignore[union-attr]  # it was connected


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """A certificate and its key."""

    def __init__(self, certificate: str, key: str) -> None:
        """@raise StartError: naming the file, when they can't be read or do not go together."""
        self._files = certificate, key
        self._context = self._read()

    def _read(self) -> SSL.Context:
        certificate, key = self._files
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        for name, file, use in (
            ("certificate", certificate, context.use_certificate_chain_file),
            ("key", key, context.use_privatekey_file),
        ):
            try:
                use(file)
            except SSL.Error as error:
                raise StartError(f"section [tls], key {name!r}: {file} can't be used: {_words(error)}") from error
        return context

    def reload(self) -> None:
        """Read the files anew; connections that are there go on as they began.  Raises as L{__init__}."""
        self._context = self._read()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def around(self, factory: TrackerFactory) -> TLSMemoryBIOFactory:
        """The factory for a port that speaks TLS, whose connections are trackers as all others."""
        wrapped = TLSMemoryBIOFactory(self, False, factory)
        wrapped.noisy = False
        wrapped.protocol = Encrypted
        return wrapped


def _words(error: SSL.Error) -> str:
    """What OpenSSL says, or that it says nothing: no such file."""
    reasons = [str(row[-1]) for row in error.args[0]] if error.args else []
    return ", ".join(dict.fromkeys(reason for reason in reasons if reason)) or "it can't be read"
