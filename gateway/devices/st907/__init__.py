"""SinoTrack ST-907 and the other trackers that speak H02: C{*HQ,...#} text, C{$} and C{X} binary frames."""

from gateway.devices.st907.device import device

__all__ = ["device"]
