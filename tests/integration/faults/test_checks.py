"""That the verification finds what it is for: a store that is right is broken by hand, in each way that matters."""

from __future__ import annotations

import json

from tests.integration.faults.rounds import RoundTestCase
from tests.integration.faults.stage import Stage


class CheckTests(RoundTestCase):
    """Two fleets have reported without any fault."""

    def test_what_is_wrong_is_found(self) -> None:
        """A report that is missing, one that is there twice, one in the wrong place and counters that lie are found."""
        stage = Stage(self, "stage", 1)
        self.addCleanup(stage.close)
        stage.start()
        stage.finish()
        self.assertEqual([], self.verify(stage).problems)
        client = stage.client
        # late ones may stand anywhere: one that is not, of a device that has reported since
        live = [(id_, entry) for id_, entry in client.xrange("gateway:position") if _live(entry)]
        newest = {entry["ident"]: entry["time"] for _, entry in live}
        first, entry = next((id_, entry) for id_, entry in live if entry["time"] < newest[entry["ident"]])

        client.hincrby(next(client.scan_iter("gateway:ledger:*")), "published", 1)
        self._found(stage, "does not balance", "frames published, and there are")
        client.hincrby(next(client.scan_iter("gateway:ledger:*")), "published", -1)
        self.assertEqual([], self.verify(stage).problems)

        again = client.xadd("gateway:position", entry)
        self._found(stage, "on a stream more than once", "out of order", "frames published, and there are")
        client.xdel("gateway:position", again)
        late = client.xadd("gateway:position", entry | {"id": "0" * 32, "late": "order"})
        self._found(stage, "frames published, and there are")
        client.xdel("gateway:position", late)
        self.assertEqual([], self.verify(stage).problems)

        client.xdel("gateway:position", first)
        self._found(stage, "1 acknowledged, but not on the stream", "frames published, and there are", settled_s=0.5)

    def _found(self, stage: Stage, *expected: str, settled_s: float = 0.0) -> None:
        problems = self.verify(stage, settled_s).problems
        self.assertEqual(len(expected), len(problems), problems)
        for part, problem in zip(expected, problems, strict=False):
            self.assertIn(part, problem)


def _live(entry: dict[str, str]) -> bool:
    return not entry["late"] and json.loads(entry["data"]).get("time_source") != "server"
