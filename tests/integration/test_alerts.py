"""The alert rules for Prometheus, by its own tool."""

from __future__ import annotations

import re
import shutil
import subprocess

from gateway.metrics import METRICS
from tests.integration.parts import CHECKOUT, RealPartsTestCase

RULES = CHECKOUT / "conf" / "alerts.yml"


class AlertTests(RealPartsTestCase):
    """C{conf/alerts.yml}."""

    def promtool(self, *words: str) -> str:
        """Run it."""
        tool = self.need(shutil.which("promtool"), "the alert rules need promtool (Debian's prometheus)")
        found = subprocess.run([tool, *words], cwd=CHECKOUT, capture_output=True, text=True)
        self.assertEqual(0, found.returncode, found.stdout + found.stderr)
        return found.stdout

    def test_rules(self) -> None:
        """Prometheus takes them, and the example of how to collect."""
        self.assertIn("SUCCESS", self.promtool("check", "rules", str(RULES)))
        self.promtool("check", "config", "--syntax-only", str(CHECKOUT / "conf" / "prometheus.yml"))

    def test_alerts(self) -> None:
        """They fire when they should, and not before."""
        self.assertIn("SUCCESS", self.promtool("test", "rules", "tests/alerts_test.yml"))

    def test_names(self) -> None:
        """Each metric that a rule names is one of the gateway's, with the labels that it uses."""
        used = set(re.findall(r"\bgateway_[a-z_]+", "\n".join(re.findall(r"expr: (.*)", RULES.read_text()))))
        there = set(METRICS) | {f"{name}_bucket" for name, d in METRICS.items() if d.kind == "histogram"}
        self.assertEqual(set(), used - there)
        for alert in re.findall(r"- alert: (\w+)(.*?)(?=- alert:|\Z)", RULES.read_text(), re.DOTALL):
            self.assertIn("action:", alert[1], alert[0])
