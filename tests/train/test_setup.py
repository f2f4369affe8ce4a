import pytest
import torch

from miyagi.errors import UserError
from miyagi.settings import Runtime
from miyagi.train.setup import on_gpu, require_compiler, set_up


@pytest.fixture(autouse=True)
def _restore():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_determinism(threads):
    torch.use_deterministic_algorithms(False)
    assert set_up(Runtime(threads=threads, device="cpu")) == torch.device("cpu")
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu():
    assert set_up(Runtime(device="auto")) == torch.device("cpu")
    with pytest.raises(UserError, match=r"runtime\.device: cuda.*use `auto` or `cpu`"):
        set_up(Runtime(device="cuda"))


def test_compiling_for_a_cpu_needs_a_compiler(monkeypatch):
    require_compiler(torch.device("cuda"))  # there torch brings its own
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"runtime\.compile: there is no no-such-compiler; .*CXX"):
        require_compiler(torch.device("cpu"))


def test_a_gpu_only_where_it_is_wanted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [on_gpu(Runtime(device=device)) for device in ("auto", "cpu", "cuda")] == [True, False, True]


FAULTS = """
import resource, sys, torch
from miyagi.train.setup import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
def work():
    for _ in range(20):
        torch.ones(32 << 20)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept():
    """Twenty tensors of 128 MiB, one after the other: 655,360 pages of 4 KiB where each is mapped anew.

    The heap may still grow by one of them, where something small has come to lie in the freed block.
    """
    import subprocess
    import sys

    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("keep", "give back")
    }
    assert faults["keep"] < 0.1 * faults["give back"]
