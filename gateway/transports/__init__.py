"""Sockets: they read, hand over, write, close and pause; no parsing."""
