"""torch's thread count is what was asked for, whatever FFCV does, each time in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from miyagi.data.betons import write_beton
from miyagi.data.threads import waited

WATCH = """
import sys, psutil, torch
from pathlib import Path
counts = []
def look(): counts.append(torch.get_num_threads())
torch.set_num_threads(2)
from miyagi.data import threads
threads.WORTH_TELLING = 0.0
for _ in range(2): threads.import_ffcv(); look()
torch.use_deterministic_algorithms(True)  # what torch fills then would be filled by two threads
from miyagi.data.loader import Loader
for workers, size in ((1, 8), (2, 8), (1, 224), (2, 224)):  # 224: by way of the decoder
    before = psutil.Process().num_threads()
    loader = Loader(Path(sys.argv[1]), 4, size=size, workers=workers); look()
    for _ in loader(0): look()
    for _ in loader(1): look()
    look()
    print(psutil.Process().num_threads() - before, end=" ")
print(counts)
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "x.beton"
    write_beton(path, np.zeros((12, 8, 8, 3), np.uint8), np.zeros(12, int))
    return path


def test_after_import_after_loader_and_in_mid_epoch(beton):
    done = run(WATCH, beton)
    # After each import; with each loader after Loader(), at each of 2 x 3 batches, at the end.
    started, counts = done.stdout.split("[")
    assert counts.strip("]\n").split(", ") == ["2"] * (2 + 4 * 8)
    # A decoding thread starts none of torch's own; the two loaders of one worker share it.
    assert started.split() == ["0", "0", "1", "2"]
    # What takes long is told, once.
    (line,) = (line for line in done.stderr.splitlines() if "ffcv" in line)
    assert line.startswith("miyagi: importing ffcv, once a process, took ")


def test_ffcv_alone_does_change_it():
    """The reason for threads.py; where this fails, FFCV has mended it and threads.py can go."""
    assert run("import torch; torch.set_num_threads(2); import ffcv; print(torch.get_num_threads())").stdout == "1\n"


def test_a_short_wait_is_not_told(capsys):
    waited("the tide", 0.9)
    assert capsys.readouterr().err == ""
    waited("the tide", 61.04)
    assert capsys.readouterr().err == "miyagi: the tide took 61.0 s\n"
