"""torch's thread count is what was asked for, whatever FFCV does, each time in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from miyagi.data.betons import write_beton

WATCH = """
import sys, torch
from pathlib import Path
torch.set_num_threads(int(sys.argv[2]))
counts = []
def look(): counts.append(torch.get_num_threads())
from miyagi.data.threads import import_ffcv
import_ffcv(); look()
from miyagi.data.loader import Loader
loader = Loader(Path(sys.argv[1]), 4, workers=int(sys.argv[3])); look()
for _ in loader(0): look()
for _ in loader(1): look()
look()
print(counts)
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "x.beton"
    write_beton(path, np.zeros((12, 8, 8, 3), np.uint8), np.zeros(12, int))
    return path


@pytest.mark.parametrize(("threads", "workers"), [(2, 1), (1, 2)])
def test_after_import_after_loader_and_in_mid_epoch(beton, threads, workers):
    # After the import, after Loader(), at each of 2 x 3 batches, at the end.
    assert run(WATCH, beton, threads, workers) == str([threads] * 9)


def test_ffcv_alone_does_change_it():
    """The reason for threads.py; where this fails, FFCV has mended it and threads.py can go."""
    assert run("import torch; torch.set_num_threads(2); import ffcv; print(torch.get_num_threads())") == "1"
