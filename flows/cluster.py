"""The flows of the deployments in prefect.yaml: a revision's pipeline, and one stage of it on a worker.

`pipeline` plans in a clone and starts a flow run `run-stage` for each stale stage, in the pool that its `meta:` names.
`run-stage` holds the lease `stage:REVISION:NAME` while it clones, pulls, runs and pushes: DVC's run cache has no lock
across hosts, so two pipelines of one revision would train everything twice. The same lease tells of the dead: a run
that is said to be running, but holds no lease, has lost its machine, and is run again elsewhere.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from flows import checkout, graph, node, schedule, stage
from flows.checkout import Revision
from flows.child import Children, Ended
from flows.graph import Pool
from miyagi.errors import UserError

MOST = 256
"""Stages of one pipeline that may be in flight at once; the workers' own limits say how many of them run."""
LOST = 3
"""How many machines may be lost under one attempt at a stage."""
POLL, SLOWEST_POLL = 2.0, 30.0
"""Seconds between two looks at a run: at first, and at one that takes long."""
UNLEASED = 20.0
"""Seconds for which a run may be without its lease: before it takes it, and after it gave it back."""


@flow(name="pipeline", flow_run_name="{revision}", persist_result=False, task_runner=schedule.threads(MOST))
def pipeline(repository: str, revision: str, targets: list[str] | None = None) -> None:
    """Run what is stale at `revision` of `repository`; targets as in `python -m flows.pipeline`."""
    log = get_run_logger()
    wanted = Revision(repository, revision)
    with checkout.clone(wanted, checkout.workspace()) as root:
        plan = graph.plan(root, targets or (), missing=True)
    log.info("%d stages, %d to run", len(plan.stages), len(plan.stale))
    live: set[UUID] = set()

    def attempt(planned: graph.Stage) -> None:
        for _ in range(LOST):
            ended = _stage_run(wanted, planned, live)
            if ended.state and ended.state.is_completed():
                return
            message = (ended.state.message or ended.state.name or "") if ended.state else ""
            log.warning("%s: %s", planned.name, message)
            if ended.state and ended.state.is_cancelled():
                raise Ended(f"{planned.name}: cancelled")
            if not (ended.state and ended.state.is_crashed()):
                mistake = message.partition("UserError: ")[2]
                raise UserError(mistake) if mistake else stage.StageFailed(f"{planned.name}: {message}")
        raise stage.StageFailed(f"{planned.name}: {LOST} workers were lost under it")

    with _cancelling(live):
        schedule.run(plan, attempt, jobs=MOST, slots=MOST)


@flow(name="run-stage", flow_run_name="{name}", persist_result=False)
def run_stage(
    repository: str, revision: str, name: str, pool: Pool, slots: int = 1, timeout: float | None = None
) -> None:
    """Run one stage of `revision`: clone, pull, run, push. Where another run is at it, wait and take its results."""
    log = get_run_logger()
    wanted, children = Revision(repository, revision), Children()
    lease = lease_of(wanted, name)
    node.set_limit(lease, 1)
    with node.holding(lease), _gpus(pool, slots), checkout.clone(wanted, checkout.workspace()) as root:
        try:
            stage.run_alone(children, root, name, timeout=timeout)
        finally:  # also when the flow run is cancelled, which arrives as an exception
            children.end()
            log.info("its log on %s: %s", node.name(), stage.log_of(root, name))


@flow(name="sweep-worker", flow_run_name="{experiment}", persist_result=False)
def sweep_worker(repository: str, revision: str, experiment: str, pool: Pool = "gpu") -> None:
    """Run trials of an experiment's sweep beside those that run it already; it has to have a `storage`."""
    wanted, children = Revision(repository, revision), Children()
    with _gpus(pool, 1), checkout.clone(wanted, checkout.workspace()) as root:
        *_, sweep = graph.plan(root, [f"sweep@{experiment}"], missing=True).stages
        try:
            stage.work_on_sweep(children, root, experiment, sweep.needs)
        finally:
            children.end()


def lease_of(wanted: Revision, name: str) -> str:
    """The concurrency limit, of one slot, that a stage of a revision is run under."""
    return f"stage:{wanted.commit}:{name}"


def submit(wanted: Revision, targets: Sequence[str]) -> None:
    """Start the deployment `pipeline` and wait for it.

    Raises:
        UserError: there is no such deployment, or it did not end well; the message is the run's own.
    """
    parameters = {"repository": wanted.repository, "revision": wanted.commit, "targets": list(targets)}
    try:
        run = _started("pipeline/pipeline", parameters)
        print(f"pipeline {wanted.commit[:12]}: flow run {run.name}", flush=True)
        live = {run.id}
        with _cancelling(live):
            run = _waited(run, None)
    except ObjectNotFound as error:
        raise UserError(
            "the server has no deployment 'pipeline': `prefect deploy --all`, see docs/cluster.md"
        ) from error
    except httpx.ConnectError as error:
        raise UserError("$PREFECT_API_URL does not answer; is the server up?") from error
    if not run.state or not run.state.is_completed():
        raise UserError(f"pipeline {wanted.commit[:12]}: {run.state.message if run.state else 'no state'}")


@contextmanager
def _gpus(pool: Pool, slots: int) -> Iterator[None]:
    if pool == "cpu":
        yield
        return
    there = node.slots(1)
    node.set_limit(node.limit(), there)
    with node.holding(node.limit(), min(slots, there)):
        yield


def _stage_run(wanted: Revision, planned: graph.Stage, live: set[UUID]) -> FlowRun:
    meta = planned.meta
    parameters = {
        "repository": wanted.repository, "revision": wanted.commit, "name": planned.name,
        "pool": meta.pool, "slots": meta.slots, "timeout": meta.timeout,
    }  # fmt: skip
    run = _started(f"run-stage/{meta.pool}", parameters)
    live.add(run.id)
    try:
        return _waited(run, lease_of(wanted, planned.name))
    finally:
        live.discard(run.id)


def _started(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    run = run_deployment(deployment, parameters=parameters, timeout=0)
    assert isinstance(run, FlowRun)  # outside of a coroutine it is
    return run


def _waited(run: FlowRun, lease: str | None) -> FlowRun:
    """The run, once it has ended; one that runs without its `lease` is told to have crashed."""
    began = time.monotonic()
    missed: float | None = None
    with get_client(sync_client=True) as client:
        while not (run.state and run.state.is_final()):
            # A long run is looked at seldom: 256 of them together ask 17 times a second.
            time.sleep(POLL if missed else min(SLOWEST_POLL, POLL + (time.monotonic() - began) / 20))
            try:
                run = client.read_flow_run(run.id)
                if lease is None or not (run.state and run.state.is_running()) or _held(client, lease):
                    missed = None
                    continue
                missed = missed or time.monotonic()
                if time.monotonic() - missed > UNLEASED:
                    client.set_flow_run_state(run.id, Crashed(message="its worker was lost"), force=True)
            except httpx.HTTPError:  # the server or its database restarts; what runs goes on
                missed = None
    return run


def _held(client: SyncPrefectClient, lease: str) -> bool:
    try:
        return bool(client.read_global_concurrency_limit_by_name(lease).active_slots)
    except ObjectNotFound:  # the run has not come so far
        return False


@contextmanager
def _cancelling(live: set[UUID]) -> Iterator[None]:
    """When this run is ended, what it started on workers is cancelled too."""
    try:
        yield
    except BaseException:
        with get_client(sync_client=True) as client:
            for run in list(live):
                client.set_flow_run_state(run, Cancelling())
        raise
