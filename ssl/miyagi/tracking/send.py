"""How a run's events get to MLflow. Sending the same events twice changes nothing.

A run is found by its tag `miyagi.journal`. MLflow drops a metric that it already has with the same step, time and
value, and overwrites params, tags and artifacts with themselves. So a journal is always sent whole: nothing has to be
remembered about what was sent before, and a store that lost a run gets all of it.
"""

import logging
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from miyagi.files import file_digest
from miyagi.paths import Paths
from miyagi.tracking.journal import Event, locked
from miyagi.tracking.store import Store, connect, load

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")
"""What MLflow answers when it will never take this; anything else may work later."""


def name_of(key: str) -> str:
    """`key` as MLflow takes it: other characters than letters, digits and `_./ :-` become `_`, at most 250 of them."""
    clean = posixpath.normpath("/" + re.sub(r"[^\w./ :-]", "_", key).lstrip("/"))
    return clean[1:251].rstrip("/") or "_"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys and strings; a string over MLflow's limit of 6,000 characters is cut, marked."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = str(value).encode("utf-8", "replace").decode()  # half characters come from undecodable file names
            flat[name_of(f"{prefix}{key}")] = text if len(text) <= 6000 else text[:5990] + " [cut]"
    return flat


def _chunks(values: list[T], size: int) -> Iterator[list[T]]:
    return (values[i : i + size] for i in range(0, len(values), size))


@contextmanager
def _silence() -> Iterator[None]:
    """Keep urllib3's line about each retry off the terminal: one line of ours says it."""
    logger = logging.getLogger("urllib3.connectionpool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass
class Sender:
    """Sends the events of one run. `start` is the run's first event."""

    paths: Paths
    store: Store
    start: Event
    run_id: str = field(default="", init=False)
    parent_id: str = field(default="", init=False)

    def send(self, events: list[Event]) -> list[str]:
        """Send `events`; any that were sent before do no harm.

        Returns:
            One line for each thing that MLflow did not take and never will: a changed file, a refused value.

        Raises:
            Exception: whatever MLflow raises when the store cannot be used now.
        """
        with _silence():
            if not self.run_id:
                self._open()
            client, notes = connect(self.store.uri), self._batches(events)
            for event in events:
                if event["event"] == "finish":
                    self._finish(client, event)
            # Last: a run whose artifacts cannot be stored is complete but for them.
            for event in events:
                if event["event"] == "out" and event["artifact"]:
                    notes += self._artifact(client, event)
        return notes

    def _open(self) -> None:
        """Get or create the MLflow experiment, the parent run and the run, one process at a time."""
        name, key = self.start["mlflow_experiment"], self.start["experiment"]
        load(self.store.uri)  # takes a second, so not with the lock in hand
        with ExitStack() as stack:
            if self.store.uri.startswith("http"):
                connect(self.store.uri).get_experiment_by_name(name)  # a dead server is found before anybody waits
            try:
                stack.enter_context(locked(self.paths.scratch / "tracking" / "lock"))
            except TimeoutError:
                raise
            except OSError:
                pass  # no lock without a scratch folder; a server can still take the run
            client = connect(self.store.uri)
            found = client.get_experiment_by_name(name)
            place = found.experiment_id if found else client.create_experiment(name, self.store.artifacts)
            tags = dict(self.start["tags"])
            if key:
                parent = {"miyagi.experiment": key, "miyagi.role": "experiment"}
                self.parent_id = self._run(client, place, parent, key)
                tags["mlflow.parentRunId"] = self.parent_id
            identity = {"miyagi.journal": self.start["journal"]}
            self.run_id = self._run(client, place, identity, self.start["name"], tags)

    def _run(
        self,
        client: "MlflowClient",
        place: str,
        identity: Mapping[str, str],
        name: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """The id of the run whose tags are `identity`, created with `tags` too if there is none."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        found = client.search_runs([place], query, order_by=["attributes.start_time ASC"], max_results=1)
        if found:
            return str(found[0].info.run_id)
        created = client.create_run(place, self.start["time"], {**identity, **(tags or {})}, run_name=name)
        return str(created.info.run_id)

    def _batches(self, events: list[Event]) -> list[str]:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        params: list[Param] = []
        tags: list[RunTag] = []
        own: list[Metric] = []
        headline: list[Metric] = []
        for event in events:
            params += [Param(key, value) for key, value in event.get("params", {}).items()]
            target = headline if event["event"] == "headline" and self.parent_id else own
            step, when = event.get("step", 0), event["time"]
            target += [Metric(key, value, when, step) for key, value in event.get("metrics", {}).items()]
            if event["event"] == "out":
                tags.append(RunTag(name_of(f"miyagi.out.{event['path']}"), f"{event['md5']} {event['size']}"))
            if event.get("error"):
                tags.append(RunTag("miyagi.error", event["error"]))
        # MLflow takes at most 1,000 things a call, of which 100 params and 100 tags.
        pieces = zip_longest(_chunks(own, 800), _chunks(params, 100), _chunks(tags, 100), fillvalue=())
        calls = [(self.run_id, *piece) for piece in pieces]
        calls += [(self.parent_id, piece, (), ()) for piece in _chunks(headline, 800)]
        notes = []
        for run, metrics, some_params, some_tags in calls:
            try:
                connect(self.store.uri).log_batch(run, metrics, some_params, some_tags)
            except MlflowException as error:
                if error.error_code not in REFUSED:
                    raise
                notes.append(f"{self.start['name']}: MLflow refused a batch: {str(error).splitlines()[0][:200]}")
        return notes

    def _finish(self, client: "MlflowClient", event: Event) -> None:
        client.set_terminated(self.run_id, event["status"], event["time"])
        # The parent shows how its latest stage ended; a replay of an old journal does not turn it back.
        if self.parent_id and (client.get_run(self.parent_id).info.end_time or 0) <= event["time"]:
            client.set_terminated(self.parent_id, event["status"], event["time"])

    def _artifact(self, client: "MlflowClient", event: Event) -> list[str]:
        path = self.paths.root / event["path"]
        try:
            same = path.stat().st_size == event["size"] and file_digest(path, "md5") == event["md5"]
        except OSError:
            same = False
        if not same:
            return [f"{self.start['name']}: {event['path']} has changed or gone; only its md5 and size are logged"]
        folder = posixpath.dirname(event["path"])
        client.log_artifact(self.run_id, str(path), folder or None)
        return []
