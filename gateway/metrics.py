"""
What gateways say of themselves in their heartbeats, as metrics for Prometheus.

Counting costs an addition of an int where it happens; names, labels and text
are made here, when somebody asks.  What is of a process has the labels
C{gateway}, its instance, and C{worker}, its number, which is empty where there
are none.  C{instance} is no label: Prometheus puts its own there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.histogram import Counts
from gateway.ledger import OUTCOMES, Beat

#: The labels of what is of a process.
PROCESS: Final = ("gateway", "worker")


class Definition(NamedTuple):
    """
    A metric: C{counter}, C{gauge} or C{histogram}, its labels, and what it is.

    The name of a counter ends in C{_total}.
    """

    kind: str
    labels: tuple[str, ...]
    meaning: str


#: Counter of a process -> the metric that it is, and what that is.
COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "received": ("gateway_received_frames_total", "frames that came, and connections that were never recognised"),
    "connections": ("gateway_connections_total", "TCP connections that were made"),
    "paused": ("gateway_paused_total", "times that reading was paused, as too much waited to be stored"),
    "came_back": ("gateway_came_back_total", "devices that came back from another gateway or worker"),
    "stood_still": ("gateway_stood_still_total", "times that the process did nothing for some seconds"),
    "udp_unsent": ("gateway_udp_unsent_total", "datagrams that could not be sent"),
    "begun_unknown": ("gateway_begun_unknown_total", "sessions that began without their state, as Redis was away"),
    "plugin_errors": ("gateway_plugin_errors_total", "errors of device plugins"),
    "faults": ("gateway_faults_total", "states of devices that Redis refused, or that can't be read"),
    "redis_down": ("gateway_redis_down_total", "times that Redis was lost, or could not be connected to"),
    "not_now": ("gateway_redis_not_now_total", "times that Redis did not take a batch, which was sent again"),
    "not_confirmed": ("gateway_redis_not_confirmed_total", "batches that were not confirmed in time, and sent again"),
    "already": ("gateway_redis_already_total", "batches that were sent again, and there already"),
    "resent": ("gateway_redis_resent_total", "batches that were sent again, as Redis had lost them"),
    "producer_restarts": ("gateway_producer_restarts_total", "times that Redis had lost more than was kept"),
    "journal_begun": ("gateway_journal_begun_total", "times that the journal was begun to be written"),
    "journaled": ("gateway_journaled_frames_total", "frames that went to the journal"),
    "drained": ("gateway_drained_frames_total", "frames that went from the journal to Redis"),
    "replayed": ("gateway_replayed_frames_total", "frames of an earlier run that went under the number they had"),
    "journal_full": ("gateway_journal_full_total", "times that the journal did not take a batch"),
    "journal_expired": ("gateway_journal_expired_frames_total", "frames that waited in the journal for too long"),
    "journal_damaged": ("gateway_journal_damaged_total", "journals that were damaged"),
    "quarantined": ("gateway_quarantined_total", "groups of events that Redis refused for good, put aside"),
    "trimmed_unread": ("gateway_trimmed_unread_entries_total", "entries that were trimmed before a group had them"),
    "commands": ("gateway_commands_total", "commands that were taken"),
    "commands_sent": ("gateway_commands_sent_total", "commands that were written to a device"),
    "commands_rejected": ("gateway_commands_rejected_total", "commands that make no sense, or can't be done"),
    "commands_handed": ("gateway_commands_handed_total", "commands that were handed to another gateway or worker"),
    "sms_received": ("gateway_sms_received_total", "texts that came in by SMS"),
    "sms_unknown": ("gateway_sms_unknown_total", "texts of numbers that no device has, or that more than one has"),
    "sms_turned_away": ("gateway_sms_turned_away_total", "texts of devices that the registry disables"),
    "sms_unmatched": ("gateway_sms_unmatched_total", "texts of devices that could not be read"),
    "command_errors": ("gateway_command_errors_total", "errors of our own in handling commands"),
}
#: Beginning of a counter's name -> the metric and the label that the rest of it is the value of.
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "limited_": ("gateway_limited_total", "limit"),
    "closed_": ("gateway_closed_connections_total", "reason"),
    "paused_": ("gateway_slowed_total", "limit"),
    "sms_out_": ("gateway_sms_out_total", "outcome"),
}
#: Field of a heartbeat -> the metric that it is.
FIELDS: Final[Mapping[str, str]] = {
    "since": "gateway_start_time_seconds",
    "ready": "gateway_ready",
    "connections": "gateway_open_connections",
    "pending": "gateway_pending_frames",
    "sms_ready": "gateway_sms_ready",
}
#: The same for what its journal held, for streams, and for groups.
JOURNAL: Final[Mapping[str, str]] = {
    "rows": "gateway_journal_batches",
    "frames": "gateway_journal_frames",
    "bytes": "gateway_journal_bytes",
    "quarantined": "gateway_journal_quarantined",
    "limit": "gateway_journal_limit_bytes",
    "oldest": "gateway_journal_oldest_timestamp_seconds",
}
#: The same for what it measured.
HISTOGRAMS: Final[Mapping[str, str]] = {
    "wait": "gateway_stored_seconds",
    "store": "gateway_batch_seconds",
    "batch": "gateway_batch_frames",
    "lag": "gateway_reactor_lag_seconds",
}
STREAM: Final[Mapping[str, str]] = {
    "entries": "gateway_stream_entries",
    "added": "gateway_stream_added_entries_total",
    "limit": "gateway_stream_limit_entries",
    "groups": "gateway_stream_groups",
}
GROUP: Final[Mapping[str, str]] = {
    "lag": "gateway_group_lag_entries",
    "pending": "gateway_group_pending_entries",
    "consumers": "gateway_group_consumers",
    "behind_s": "gateway_group_behind_seconds",
    "idle_s": "gateway_group_idle_seconds",
}

#: How the client calls a kind.
FAMILY: Final[Mapping[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
#: All metrics that there are, by name.
METRICS: Final[Mapping[str, Definition]] = {
    "gateway_info": Definition("gauge", (*PROCESS, "host", "version"), "always 1: who runs where"),
    "gateway_ready": Definition(
        "gauge", PROCESS, "1: what comes is stored in Redis, and nobody misses anything; else 0"
    ),
    "gateway_sms_ready": Definition("gauge", PROCESS, "1: SMS can be sent; else 0; absent where none are"),
    "gateway_problems": Definition("gauge", PROCESS, "required consumer groups that lose entries, or are about to"),
    "gateway_start_time_seconds": Definition("gauge", PROCESS, "when it started, UTC epoch seconds"),
    "gateway_open_connections": Definition("gauge", PROCESS, "TCP connections that are open"),
    "gateway_pending_frames": Definition("gauge", PROCESS, "frames that wait to be stored"),
    "gateway_frames_total": Definition("counter", (*PROCESS, "outcome"), "frames by what became of them"),
    "gateway_detected_total": Definition(
        "counter",
        (*PROCESS, "protocol"),
        "connections and datagrams by whose they were found to be, none: nobody's; a usual datagram is not looked into",
    ),
    "gateway_stored_seconds": Definition(
        "histogram", PROCESS, "from the receipt of a frame until it was stored and could be acknowledged"
    ),
    "gateway_batch_seconds": Definition("histogram", PROCESS, "how long Redis, or the journal, took for a batch"),
    "gateway_batch_frames": Definition("histogram", PROCESS, "frames in a batch"),
    "gateway_reactor_lag_seconds": Definition("histogram", PROCESS, "how late a timer of every 0.25 s came"),
    "gateway_limited_total": Definition(
        "counter", (*PROCESS, "limit"), "connections and new devices that were turned away by a limit"
    ),
    "gateway_sms_out_total": Definition(
        "counter",
        (*PROCESS, "outcome"),
        "what became of texts to devices; one that is temporary is sent again",
    ),
    "gateway_slowed_total": Definition(
        "counter", (*PROCESS, "limit"), "times that a connection, or the port for new ones, was left unread for a while"
    ),
    "gateway_closed_connections_total": Definition("counter", (*PROCESS, "reason"), "connections that were cut"),
    **{name: Definition("counter", PROCESS, meaning) for name, meaning in COUNTERS.values()},
    "gateway_other_total": Definition("counter", (*PROCESS, "counter"), "counters that this version has no name for"),
    "gateway_journal_batches": Definition("gauge", PROCESS, "batches in the journal"),
    "gateway_journal_frames": Definition("gauge", PROCESS, "frames in the journal"),
    "gateway_journal_bytes": Definition("gauge", PROCESS, "what the journal takes on the disk"),
    "gateway_journal_limit_bytes": Definition("gauge", PROCESS, "what the journal may take on the disk"),
    "gateway_journal_quarantined": Definition("gauge", PROCESS, "groups of events in the journal's quarantine"),
    "gateway_journal_oldest_timestamp_seconds": Definition(
        "gauge", PROCESS, "when the first batch in the journal was gathered; none: it is empty"
    ),
    "gateway_stream_entries": Definition("gauge", ("stream",), "entries of a stream"),
    "gateway_stream_added_entries_total": Definition("counter", ("stream",), "entries that were ever added to it"),
    "gateway_stream_limit_entries": Definition("gauge", ("stream",), "entries that it may have, by memory or rule"),
    "gateway_stream_groups": Definition("gauge", ("stream",), "its consumer groups: 0 where nobody reads"),
    "gateway_group_lag_entries": Definition("gauge", ("stream", "group"), "entries that a group has still to be given"),
    "gateway_group_pending_entries": Definition(
        "gauge", ("stream", "group"), "entries that it was given and has not acknowledged"
    ),
    "gateway_group_consumers": Definition("gauge", ("stream", "group"), "its consumers"),
    "gateway_group_behind_seconds": Definition(
        "gauge", ("stream", "group"), "age of the oldest entry that it was not given or has not acknowledged"
    ),
    "gateway_group_idle_seconds": Definition(
        "gauge", ("stream", "group"), "since one of its consumers asked for something"
    ),
}

#: A metric's name, the values of its labels, and its figure.
Sample = tuple[str, tuple[str, ...], float | Counts]


def families(beats: Iterable[Beat]) -> Iterator[Metric]:
    """
    Heartbeats as metrics; what they do not say is absent.

    @param beats: of processes that run.
    """
    found: dict[str, dict[tuple[str, ...], float | Counts]] = {}
    for beat in beats:
        for name, labels, value in _samples(beat):
            found.setdefault(name, {})[labels] = value
    for name, (kind, labels_of, meaning) in METRICS.items():
        if name not in found:
            continue
        family = FAMILY[kind](name, meaning, labels=labels_of)
        for labels, value in found[name].items():
            if isinstance(value, Counts):
                family.add_metric(labels, _buckets(value), value.total)
            else:
                family.add_metric(labels, value)
        yield family


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    """As Prometheus has them: each with all that is below it."""
    bounds = [*map(floatToGoString, counts.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counts.counts), strict=True))


def _samples(beat: Beat) -> Iterator[Sample]:
    """What one process says, with names and labels."""
    instance, _, number = beat.instance.partition("/")
    process, content = (instance, number), beat.content
    yield "gateway_info", (*process, beat.host, str(content.get("version", ""))), 1
    problems = content.get("problems")
    if isinstance(problems, list):
        yield "gateway_problems", process, len(problems)
    yield from _named(content, FIELDS, process)
    yield from _named(beat.journal, JOURNAL, process)
    counters = content.get("counters")
    if isinstance(counters, Mapping):
        # one that counts nothing yet is 0: what is absent has no rate
        for name, n in {**dict.fromkeys((*OUTCOMES, *COUNTERS), 0), **dict(_figures(counters))}.items():
            yield _counted(name, process, n)
    for name, n in _figures(content.get("detected")):
        yield "gateway_detected_total", (*process, name or "none"), n
    measured = content.get("histograms")
    for name, row in measured.items() if isinstance(measured, Mapping) else ():
        counts = Counts.read(row)
        if name in HISTOGRAMS and counts is not None:
            yield HISTOGRAMS[name], process, counts
    for stream, figures in _tables(content.get("streams")):
        yield from _named(figures, STREAM, (stream,))
    for stream, groups in _tables(content.get("groups")):
        for group, figures in _tables(groups):
            yield from _named(figures, GROUP, (stream, group))


def _counted(name: str, process: tuple[str, ...], n: float) -> Sample:
    if name in OUTCOMES:
        return "gateway_frames_total", (*process, name), n
    if name in COUNTERS:
        return COUNTERS[name][0], process, n
    for start, (metric, _) in FAMILIES.items():
        if name.startswith(start):
            return metric, (*process, name.removeprefix(start)), n
    return "gateway_other_total", (*process, name), n


def _named(content: Mapping[str, Any], names: Mapping[str, str], labels: tuple[str, ...]) -> Iterator[Sample]:
    for name, n in _figures(content):
        if name in names:
            yield names[name], labels, n


def _figures(content: Any) -> Iterator[tuple[str, float]]:
    """What is a number; a heartbeat may be of another version."""
    if isinstance(content, Mapping):
        yield from ((name, n) for name, n in content.items() if isinstance(n, (int, float)))


def _tables(content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, Mapping):
        yield from ((name, its) for name, its in content.items() if isinstance(its, Mapping))


class HeartbeatCollector(Collector):
    """Heartbeats for a registry of C{prometheus_client}."""

    def __init__(self, beats: Callable[[], Iterable[Beat]]) -> None:
        """@param beats: asked whenever the metrics are."""
        self._beats = beats

    def collect(self) -> Iterator[Metric]:
        return families(self._beats())


def text(beats: Iterable[Beat]) -> str:
    """Metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(HeartbeatCollector(lambda: beats))
    return generate_latest(registry).decode()
