"""`python -m flows.pipeline`: what is stale in this checkout, many stages at once; --cluster: by a cluster's workers.

Stages, their order and what `meta:` says of them are read from `dvc.yaml`. What each stage says is in
`.miyagi/flows/STAGE.log`.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil

from flows import checkout, graph, node, stage
from flows.child import Children, Ended
from miyagi.errors import UserError

ENDED = "flows: ended, and every stage with it; what they reached is kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, run, and give the exit code: 1 for a stage that failed, 2 for a mistake that the user can mend."""
    args = _parser().parse_args(arguments)
    root = Path.cwd()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # what happens is told here, once
    try:
        if args.cluster:
            _on_cluster(root, args.targets)
            return 0
        plan = graph.plan(root, args.targets, force=args.force)
        print(described(plan, verbose=args.dry_run), flush=True)
        if not args.dry_run and plan.stale:
            carried = node.trainings(root)
            slots = node.slots(min(carried, args.jobs or carried))
            # One stage more than the machine carries: each spends its first seconds on imports.
            return run(root, plan, args.force, args.jobs or max(carried, slots) + 1, slots)
    except UserError as error:
        print(f"flows: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Ended):
        print(ENDED, file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m flows.pipeline", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a stage or a group of them; default: all")
    parser.add_argument("--force", action="store_true", help="run everything, whether it is stale or not")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument(
        "--jobs", type=int, help="stages at once; default: one more than GPUs, or than cores / runtime.threads"
    )
    parser.add_argument("--cluster", action="store_true", help="run this revision on $PREFECT_API_URL's workers")
    return parser


def described(plan: graph.Plan, *, verbose: bool) -> str:
    """The plan as text: a line a stage with its pool and why it is stale, and a line of counts."""
    lines = []
    if verbose and plan.stages:
        width = max(len(planned.name) for planned in plan.stages)
        lines = [f"{planned.name:{width}}  {planned.meta.pool}  {planned.stale or '-'}" for planned in plan.stages]
    return "\n".join([*lines, f"{len(plan.stages)} stages, {len(plan.stale)} to run"])


def run(root: Path, plan: graph.Plan, force: bool, jobs: int, slots: int) -> int:
    """Run a plan in the checkout at `root`: `jobs` stages at once, GPU stages in `slots`; give the exit code.

    The Prefect server is an ephemeral one where no other is named.
    """
    (root / ".miyagi").mkdir(exist_ok=True)  # where Prefect, once it is imported, makes its home
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows import schedule

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended is ended, by whatever signal
    with _alone(root):
        began = time.monotonic()
        with get_client(sync_client=True) as client:
            client.hello()
        print(f"Prefect server: {time.monotonic() - began:.1f} s to start", flush=True)
        limit, ephemeral = node.limit(), "PREFECT_API_URL" not in os.environ
        node.set_limit(limit, slots, forget=ephemeral)
        children, devices = Children(), _Devices(node.gpus())

        def ended(*_: object) -> None:
            # Not where an exception would arrive: between here and there Prefect can lose it.
            children.end()
            if ephemeral:
                _leave()
            raise KeyboardInterrupt

        def attempt(planned: graph.Stage) -> None:
            bring = partial(stage.run, children, root, planned.name, force=force, timeout=planned.meta.timeout)
            if planned.meta.pool == "cpu":
                bring()
                return
            wanted = min(planned.meta.slots, slots)
            with node.holding(limit, wanted), devices.taken(wanted) as extra:
                bring(extra=extra)

        @flow(name="pipeline", persist_result=False, task_runner=schedule.threads(jobs))
        def pipeline() -> None:
            signal.signal(signal.SIGINT, ended)
            signal.signal(signal.SIGTERM, ended)  # in place of Prefect's, which a flow begins with
            try:
                schedule.run(plan, attempt, jobs=jobs, slots=slots)
            except BaseException:
                children.end()
                raise

        began = time.monotonic()
        try:
            pipeline()
        except schedule.PipelineFailed as error:
            print("\n".join(f"flows: {line}" for line in str(error).splitlines()), file=sys.stderr)
            return 2 if error.mistake else 1
        print(f"{len(plan.stale)} stages in {time.monotonic() - began:.1f} s", flush=True)
        return 0


def _leave() -> NoReturn:
    """Exit at once: Ctrl-C in a terminal ends an ephemeral server too, and Prefect would ask it for minutes."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    print(ENDED, file=sys.stderr, flush=True)
    os._exit(130)


class _Devices:
    """This run's GPUs, the least used first: a stage sees those it took, and no others."""

    def __init__(self, names: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._uses = dict.fromkeys(names, 0)

    @contextmanager
    def taken(self, number: int) -> Iterator[dict[str, str]]:
        with self._lock:
            mine = sorted(self._uses, key=lambda device: self._uses[device])[:number]
            for device in mine:
                self._uses[device] += 1
        try:
            yield {"CUDA_VISIBLE_DEVICES": ",".join(sorted(mine))} if mine else {}
        finally:
            with self._lock:
                for device in mine:
                    self._uses[device] -= 1


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One pipeline a checkout: two would start every stage twice, and forget each other's slots."""
    file = root / ".miyagi" / "flows" / "lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another pipeline runs in this checkout; wait for it, or end it ({file})") from None
        yield


def _on_cluster(root: Path, targets: Sequence[str]) -> None:
    """Run HEAD's pipeline on the workers, then take its results without executing anything."""
    wanted = checkout.revision(root)
    graph.plan(root, targets)  # a mistake in dvc.yaml or in the targets is told here, not by a worker
    if "PREFECT_API_URL" not in os.environ:
        raise UserError("$PREFECT_API_URL names no server; `make cluster-up` starts a small one: docs/cluster.md")
    (root / ".miyagi").mkdir(exist_ok=True)  # where Prefect, once it is imported, makes its home
    from flows import cluster

    cluster.submit(wanted, targets)
    done = subprocess.run(
        [*stage.DVC, "--wait-for-lock", "repro", "--pull", *targets], cwd=root, env=stage.environment(root), check=False
    )
    if done.returncode:
        raise UserError("the workers are done, but `dvc repro --pull` failed here, see above")


if __name__ == "__main__":
    sys.exit(main())
