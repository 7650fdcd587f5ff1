"""All scenarios: they are in the table once their modules are imported."""

from __future__ import annotations

from gateway.simulator import alarms, trips
from gateway.simulator.registry import SCENARIOS, about

__all__ = ["SCENARIOS", "about", "alarms", "trips"]
