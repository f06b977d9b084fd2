"""What the service counts and measures, for Prometheus.

The registry is our own: the client's default one would tell about the machine, and whatever a library adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.activity import RequestRecord
from agent.doors import Door, Shared
from agent.models.memory import resident_bytes
from agent.web.readiness import health_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STATES = ("unloaded", "loading", "ready", "failed")
OTHER = "other"
"""Stands for models that are not configured: callers may ask for any name, and each would be a series for ever."""


def own_version() -> str:
    """Ours, as it is installed."""
    try:
        return version("cvat-sidecar")
    except PackageNotFoundError:  # a bare clone
        return "unknown"


class Metrics:
    """The counters of one process; `on_end` and `on_batch` are what the activity and the pool tell."""

    def __init__(self, models: Callable[[], Iterable[str]] = tuple) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._models = models
        registry, name = self.registry, "cvat_sidecar_{}".format
        by_request = ("door", "kind", "model")
        self._requests = Counter(
            name("requests"), "Requests that have ended.", (*by_request, "outcome"), registry=registry
        )
        self._seconds = Histogram(
            name("request_seconds"), "How long requests took.", by_request, buckets=SECONDS, registry=registry
        )
        self._frames = Counter(name("frames"), "Frames that models have seen.", ("model",), registry=registry)
        self._batches = Histogram(
            name("batch_size"), "Frames in a batch.", ("model",), buckets=BATCHES, registry=registry
        )
        told = "Time spent by stage (model, and what requests tell); stages overlap."
        self._stages = Counter(name("stage_seconds"), told, ("model", "stage"), registry=registry)
        Gauge(name("build_info"), "1, with the version.", ("version",), registry=registry).labels(own_version()).set(1)

    def on_end(self, record: RequestRecord) -> None:
        """Counts a request that has ended."""
        labels = (record.door, record.kind, self._known(record.model))
        self._requests.labels(*labels, record.outcome).inc()
        self._seconds.labels(*labels).observe(max(0.0, record.seconds))
        for stage, seconds in record.stages.items():
            # The model's own time is told batch by batch, whoever asked.
            if stage not in ("model", "whole run"):
                self._stages.labels(labels[-1], stage).inc(max(0.0, seconds))

    def on_batch(self, model: str, frames: int, seconds: float) -> None:
        """Counts a batch that a model has seen."""
        self._frames.labels(model).inc(frames)
        self._batches.labels(model).observe(frames)
        self._stages.labels(model, "model").inc(max(0.0, seconds))

    def watch(self, now: Now) -> None:
        """Adds what is read when somebody asks."""
        self.registry.register(now)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _known(self, model: str) -> str:
        return model if model in tuple(self._models()) else OTHER


class Now(Collector):
    """What the service can tell of itself at this moment: models, lanes, doors, memory, whether service.toml holds."""

    def __init__(
        self,
        shared: Shared,
        doors: Callable[[], Sequence[Door]],
        not_taken: Callable[[], Sequence[str]],
        began: float,
    ) -> None:
        self._shared, self._doors, self._not_taken, self._began = shared, doors, not_taken, began

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._model_metrics()
        yield from self._lane_metrics()
        embeddings = self._shared.embeddings
        yield _gauge("embeddings_bytes", "What interactors keep of pictures.", (), [((), embeddings.bytes)])
        yield _gauge("embeddings_limit_bytes", "What they may keep.", (), [((), embeddings.limit)])
        yield _gauge("resident_bytes", "Memory that the process holds.", (), [((), resident_bytes())])
        yield _gauge("start_time_seconds", "When it began, since the epoch.", (), [((), self._began)])
        taken = float(not self._not_taken())
        yield _gauge("configuration_taken", "Whether service.toml holds as it was read last.", (), [((), taken)])
        health = [((door.name,), float(health_of(door).ok)) for door in self._doors()]
        yield _gauge("door_healthy", "Whether a door can do its work.", ("door",), health)

    def _model_metrics(self) -> Iterator[Metric]:
        records = self._shared.pool.records()
        yield _gauge("queue_depth", "Calls that wait for a model.", ("model",), [((r.id,), r.depth) for r in records])
        yield _gauge("model_users", "Requests that use it.", ("model",), [((r.id,), r.users) for r in records])
        memory = [((r.id,), r.memory) for r in records]
        yield _gauge("model_memory_bytes", "What it took when it was loaded.", ("model",), memory)
        states = [((r.id, state), float(r.status == state)) for r in records for state in STATES]
        yield _gauge("model_state", "1 for the state that it is in.", ("model", "state"), states)
        yield _counter("model_loads", "How often it was loaded.", [((r.id,), r.loads) for r in records])
        yield _counter("model_load_seconds", "What that took.", [((r.id,), r.load_seconds) for r in records])

    def _lane_metrics(self) -> Iterator[Metric]:
        lanes = [self._shared.lanes.interactive, self._shared.lanes.batch]
        yield _gauge(
            "lane_places", "Requests that it takes at once.", ("lane",), [((x.name,), x.places) for x in lanes]
        )
        yield _gauge("lane_taken", "Places that are taken.", ("lane",), [((x.name,), x.taken) for x in lanes])
        running = len(self._shared.activity.running())
        yield _gauge("requests_running", "Requests that are worked on.", (), [((), running)])


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"cvat_sidecar_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, samples: Samples) -> Metric:
    family = CounterMetricFamily(f"cvat_sidecar_{name}", text, labels=("model",))
    for values, value in samples:
        family.add_metric(values, value)
    return family
