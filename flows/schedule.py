"""Runs a plan inside a flow: each stage is a Prefect task that starts as soon as what it needs is done.

The tasks carry no results and know no cache: what a stage makes, and whether it is needed, is DVC's business.
"""

import time
from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.child import Ended
from flows.graph import Plan, Stage
from miyagi.errors import UserError

Attempt = Callable[[Stage], None]


class PipelineFailed(Exception):
    """What failed, and what was not run because of it."""

    def __init__(self, failed: dict[str, BaseException], left: list[str]) -> None:
        self.mistake = all(isinstance(error, UserError) for error in failed.values())
        lines = [str(error) or type(error).__name__ for error in failed.values()]
        if left:
            lines.append(f"not run because of that: {', '.join(left)}")
        super().__init__("\n".join(lines))


def run(plan: Plan, attempt: Attempt, *, jobs: int, slots: int) -> None:
    """Run what is stale, `jobs` stages at once, of which GPU stages fill at most `slots`.

    A stage that fails for good takes those that need it with it; all others run.

    Args:
        plan: the stages, each behind what it needs.
        attempt: runs one stage; raises where it failed.
        jobs: stages at once.
        slots: for GPU stages; one that asks for more than there are gets all.

    Raises:
        PipelineFailed: at the end, where something failed.
    """
    waiting = {stage.name: stage for stage in plan.stale}
    total, done = len(waiting), 0
    running: dict[PrefectFuture[Any], tuple[Stage, float]] = {}
    failed: dict[str, BaseException] = {}
    left: list[str] = []

    def fits(stage: Stage) -> bool:
        taken = sum(min(other.meta.slots, slots) for other, _ in running.values() if other.meta.pool == "gpu")
        room = stage.meta.pool == "cpu" or taken + min(stage.meta.slots, slots) <= slots
        return room and len(running) < jobs

    while waiting or running:
        unfinished = {*waiting, *(stage.name for stage, _ in running.values())}
        for stage in list(waiting.values()):
            if any(name in failed or name in left for name in stage.needs):
                left.append(waiting.pop(stage.name).name)
            elif unfinished.isdisjoint(stage.needs) and fits(stage):
                running[_task(stage, attempt).submit()] = waiting.pop(stage.name), time.monotonic()
        if not running:
            continue
        future = next(as_completed(list(running)))
        stage, began = running.pop(future)
        error = future.result(raise_on_failure=False)
        if isinstance(error, BaseException):
            failed[stage.name] = error
        done += 1
        word = "FAILED" if stage.name in failed else "done"
        print(f"{stage.name}: {word} after {time.monotonic() - began:.1f} s ({done} of {total})", flush=True)
    if failed:
        raise PipelineFailed(failed, left)


def threads(number: int) -> Any:
    """The task runner of a flow that schedules: a thread for each stage that is waited for."""
    return ThreadPoolTaskRunner(max_workers=number)


def _task(stage: Stage, attempt: Attempt) -> Any:
    @task(
        name=stage.name,
        task_run_name=stage.name,
        tags={f"pool:{stage.meta.pool}"},
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=stage.meta.retries,
        retry_condition_fn=lambda _task, _run, state: _may_mend(state),
    )
    def run_stage() -> None:
        attempt(stage)

    return run_stage


def _may_mend(state: Any) -> bool:
    """Whether another attempt can end otherwise: a user's mistake stays one."""
    return not isinstance(state.result(raise_on_failure=False), UserError | Ended)
