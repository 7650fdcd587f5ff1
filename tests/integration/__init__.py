"""Tests against real parts: a Redis server, the gateway as its own process, sockets on the loopback interface."""
