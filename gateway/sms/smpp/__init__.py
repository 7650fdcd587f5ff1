"""SMPP 3.4: a codec without I/O, and a client that keeps a transceiver bound to an SMSC."""
