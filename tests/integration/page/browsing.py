"""Debian's Chromium on the page of a running gateway, with a fleet behind it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, free_port

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Page, sync_playwright
except ImportError:  # the test extra is not installed
    sync_playwright = None  # type: ignore[assignment]

#: Where Debian has it, and others.
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
#: How long the page may take on a machine that others use too, ms.
PATIENCE: Final = 20_000
#: Notes tasks of the page that held it up, in ms.
LONG_TASKS: Final = """
window.longTasks = [];
new PerformanceObserver((list) => { for (const one of list.getEntries()) window.longTasks.push(one.duration); })
  .observe({ type: "longtask", buffered: true });
"""


class BrowserCase(RealPartsTestCase):
    """A gateway with its page, and a browser."""

    redis: RedisServer
    running: Gateway

    def set_up(self, config: str = "") -> None:
        """Start Redis and the gateway."""
        self.need(sync_playwright, "the page's tests need the Python package playwright")
        self.chromium = self.need(next(filter(None, map(shutil.which, NAMES)), None), "the page's tests need chromium")
        self.redis = self.running_redis()
        self.web = free_port()
        path = self.directory / "page.toml"
        path.write_text(config)
        options = ["--web", f"127.0.0.1:{self.web}", "--config", str(path)]
        self.running = self.gateway(self.redis.url, options=options, workers=1)
        self.running.start()
        self.token = (self.running.data_dir / "web.token").read_text().strip()
        self.problems: list[str] = []
        self.asked: set[str] = set()

    @contextmanager
    def browser(self) -> Iterator[Any]:
        """Chromium."""
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=self.chromium, args=["--no-sandbox"])
            try:
                yield chromium
            finally:
                chromium.close()

    def page(self, browser: Any, width: int = 1280, height: int = 800, scheme: str = "light") -> Page:
        """A window with the page, logged in."""
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page: Page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.asked.add(re.sub(r"^(\w+://[^/]*).*", r"\1", request.url)))
        page.add_init_script(LONG_TASKS)
        page.goto(f"http://127.0.0.1:{self.web}/#token={self.token}")
        page.wait_for_selector("nav a")
        self.assertNotIn("token", page.url)
        return page

    def go(self, page: Any, where: str) -> None:
        """Show a view."""
        page.goto(f"http://127.0.0.1:{self.web}/#/{where}")

    def look_at(self, page: Any, view: str) -> None:
        """Hold a view against the rules of axe, and against its width; keep what it looks like for whoever is here."""
        shots = Path(self.directory) / "shots"
        shots.mkdir(exist_ok=True)
        width = page.viewport_size["width"]
        page.screenshot(path=str(shots / f"{view}-{width}.png"))
        found = Axe().run(page)
        serious = [
            f"{one['id']}: {[node['target'] for node in one['nodes']][:3]}"
            for one in found.response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        self.assertEqual([], serious, f"{view} at {width} px")
        wide = page.evaluate("document.documentElement.scrollWidth")
        self.assertLessEqual(wide, width, f"{view} is wider than {width} px")

    def nothing_wrong(self) -> None:
        """No script failed, nothing was refused by the policy, and nobody else was asked for anything."""
        self.assertEqual([], self.problems)
        self.assertEqual({f"http://127.0.0.1:{self.web}"}, self.asked)
