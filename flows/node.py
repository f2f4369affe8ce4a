"""What one machine can hold at once: trainings by its GPUs, everything by its cores."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from miyagi.errors import UserError
from miyagi.params import read_section
from miyagi.settings import Runtime


def name() -> str:
    """The node's name in limits: $MIYAGI_NODE, or the host's."""
    return os.environ.get("MIYAGI_NODE") or socket.gethostname()


def limit() -> str:
    """The concurrency limit whose slots the node's GPU stages take."""
    return f"gpu:{name()}"


def gpus() -> list[str]:
    """The GPUs of this process as CUDA names them: those of $CUDA_VISIBLE_DEVICES, or all that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))]


def slots(without: int) -> int:
    """Slots of GPU stages: $MIYAGI_GPU_SLOTS, which may let trainings share a GPU; else its GPUs, else `without` any.

    Raises:
        UserError: the variable is no positive number.
    """
    given = os.environ.get("MIYAGI_GPU_SLOTS")
    if given is None:
        return len(gpus()) or without
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"$MIYAGI_GPU_SLOTS is '{given}'; give the number of trainings that this node may run at once")
    return int(given)


def trainings(root: Path) -> int:
    """Trainings that the cores carry at once, each with runtime.threads of them; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // read_section(root / "params.yaml", "runtime", Runtime).threads)


def set_limit(name: str, slots: int, *, forget: bool = False) -> None:
    """Create a concurrency limit or give it its slots; `forget` those that a killed run seems to hold."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # another run has made it in the same moment
            client.upsert_global_concurrency_limit_by_name(name, slots)
        if forget:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))


@contextmanager
def holding(limit: str, slots: int = 1) -> Iterator[None]:
    """Wait for `slots` of a limit and hold them as a lease, which ends by itself where the holder is killed.

    A lease that cannot be renewed, because the server is down, does not end the work: its results are addressed by
    their content, so a stage that ran twice is a waste, no error.
    """
    from prefect.concurrency.sync import concurrency

    with concurrency(limit, slots, lease_duration=lease(), strict=True, raise_on_lease_renewal_failure=False):
        yield


def lease() -> float:
    """Seconds after which a killed holder's slots are free: $MIYAGI_LEASE; Prefect takes 60 or more."""
    return float(os.environ.get("MIYAGI_LEASE", "120"))
