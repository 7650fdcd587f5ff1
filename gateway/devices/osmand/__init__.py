"""Phones as trackers: Traccar Client, OsmAnd and other apps that speak OsmAnd's protocol over HTTP."""

from gateway.devices.osmand.device import device

__all__ = ["device"]
