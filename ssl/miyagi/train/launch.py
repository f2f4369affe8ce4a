"""The launcher of several processes: torchrun's agent, one machine, no restarts.

Nothing listens beyond this machine: torch's TCP store would listen on every interface and unpickle what it is sent, so
the processes meet in files, and gloo and nccl are told to use the loopback interface.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from miyagi.errors import UserError

STORE, LAUNCHER = "MIYAGI_STORE", "MIYAGI_LAUNCHER"
"""What a launcher tells its processes: the file in which they meet, and its own process id."""


def inside() -> bool:
    """Whether torchrun, or `launch`, started this process."""
    return dist.is_torchelastic_launched()


def rank() -> int:
    """This process's number among those that train together, known before they meet."""
    return int(os.environ["RANK"]) if inside() else 0


@contextmanager
def reported() -> Iterator[None]:
    """Leave an error where the launcher finds it."""
    try:
        yield
    except Exception as error:
        if inside():
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `miyagi ARGUMENTS` in several processes and wait for them; when one fails, all others are ended.

    Raises:
        UserError: what a process raised.
        SystemExit: a process ended otherwise than well (1), or this one was told to end (128 + the signal).
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # what happened is told below, in one line
    with tempfile.TemporaryDirectory(prefix="miyagi-") as folder:
        os.environ |= {STORE: f"{folder}/store", LAUNCHER: str(os.getpid()), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
        for backend in ("GLOO", "NCCL") if loopback else ():
            os.environ.setdefault(f"{backend}_SOCKET_IFNAME", str(loopback))
        config = LaunchConfig(
            1, 1, processes,
            run_id="miyagi", max_restarts=0, local_addr="127.0.0.1",
            rdzv_backend="c10d", rdzv_endpoint=f"{folder}/rendezvous",
            # Nobody else can join, so nobody has to be told every 5 s that this machine is alive.
            rdzv_configs={"store_type": "file", "keep_alive_interval": 86400},
            logs_specs=DefaultLogsSpecs(str(Path(folder) / "logs")),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "miyagi.cli", *arguments)
        except ChildFailedError as error:
            for failure in error.failures.values():
                if failure.exitcode == 2 and isinstance(failure.message, dict):
                    raise UserError(failure.message["message"].removeprefix("UserError: ")) from None
            number, first = error.get_first_failure()
            how = f"signal {first.signal_name()}" if first.exitcode < 0 else f"exit code {first.exitcode}"
            raise SystemExit(
                f"miyagi: process {number} of {processes} ended with {how}, and so did the others; "
                "run again to go on after the last whole epoch"
            ) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None


def die_with_the_launcher() -> None:
    """Each process has a session of its own, which a signal to the launcher's group does not reach."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1  # prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(launcher):  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)
