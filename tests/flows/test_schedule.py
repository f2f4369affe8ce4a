"""The schedule on a real Prefect server: order, pools, retries, and what a failure takes with it."""

import threading
import time
from collections import Counter

import pytest

from flows.graph import Meta, Plan, Stage
from flows.stage import StageFailed
from miyagi.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def planned(name, *needs, stale="never run", **meta):
    return Stage(name, needs, Meta(**meta), stale)


class Watched:
    """An attempt that notes what ran when, and fails where it is told to."""

    def __init__(self, failures=()):
        self.failures = {name: list(errors) for name, errors in dict(failures).items()}
        self.began, self.running, self.most = [], Counter(), Counter()
        self.lock = threading.Lock()

    def __call__(self, stage):
        with self.lock:
            self.began.append(stage.name)
            self.running[stage.meta.pool] += 1
            self.running["all"] += 1
            for pool, number in self.running.items():
                self.most[pool] = max(self.most[pool], number)
        time.sleep(0.2)
        with self.lock:
            self.running[stage.meta.pool] -= 1
            self.running["all"] -= 1
        if self.failures.get(stage.name):
            raise self.failures[stage.name].pop(0)


def run(attempt, *stages, jobs=8, slots=8):
    """The states that the server has of the stages' tasks, by name."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.runtime import flow_run
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows import schedule

    ids, failed = [], []

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=jobs))
    def pipeline():
        ids.append(flow_run.id)
        try:
            schedule.run(Plan(stages), attempt, jobs=jobs, slots=slots)
        except schedule.PipelineFailed as error:
            failed.append(error)

    pipeline()
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 20
        while True:  # states arrive by way of events
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": ids}))
            states = {run.name: run.state.type.value for run in runs if run.state}
            if all(state in ("COMPLETED", "FAILED") for state in states.values()) and states.keys() == set(
                attempt.began
            ):
                return states, failed[0] if failed else None
            assert time.monotonic() < deadline, states
            time.sleep(0.2)


def test_each_stage_waits_for_what_it_needs_and_no_longer(server):
    attempt = Watched()
    stages = [
        planned("fresh", stale=None),
        planned("a", "fresh"),
        planned("b"),
        planned("a2", "a"),
        planned("end", "a2", "b"),
    ]
    states, failed = run(attempt, *stages)
    assert failed is None
    assert states == dict.fromkeys(("a", "b", "a2", "end"), "COMPLETED")
    assert set(attempt.began[:2]) == {"a", "b"} and attempt.began[2:] == ["a2", "end"]


def test_gpu_stages_fill_their_slots_and_no_more(server):
    attempt = Watched()
    gpu = [planned(f"g{i}", pool="gpu") for i in range(4)]
    run(attempt, *gpu, *(planned(f"c{i}") for i in range(3)), jobs=4, slots=1)
    assert attempt.most["gpu"] == 1 and attempt.most["cpu"] >= 2 and attempt.most["all"] <= 4
    attempt = Watched()
    run(attempt, *(planned(f"w{i}", pool="gpu", slots=2) for i in range(2)), planned("x", pool="gpu", slots=9), slots=3)
    assert attempt.most["gpu"] == 1  # each fills more than half of the node, one of them more than there is


def test_retries_are_what_meta_says_and_mistakes_are_not_tried_again(server):
    lost = StageFailed("lost: exit code 1")
    attempt = Watched(
        {"mends": [lost, lost], "wrong": [UserError("wrong: params.yaml: no")] * 3, "gives_up": [lost] * 3}
    )
    states, failed = run(
        attempt, planned("mends", retries=2), planned("wrong", retries=2), planned("gives_up", retries=1)
    )
    assert Counter(attempt.began) == {"mends": 3, "wrong": 1, "gives_up": 2}
    assert states == {"mends": "COMPLETED", "wrong": "FAILED", "gives_up": "FAILED"}
    assert sorted(str(failed).splitlines()) == ["lost: exit code 1", "wrong: params.yaml: no"]
    assert failed.mistake is False


def test_a_failure_takes_only_its_own_with_it(server):
    attempt = Watched({"bad": [UserError("bad: no")]})
    stages = [
        planned("bad"),
        planned("good"),
        planned("after", "bad"),
        planned("last", "after", "good"),
        planned("other", "good"),
    ]
    states, failed = run(attempt, *stages)
    assert states == {"bad": "FAILED", "good": "COMPLETED", "other": "COMPLETED"}
    assert str(failed) == "bad: no\nnot run because of that: after, last"
    assert failed.mistake is True
