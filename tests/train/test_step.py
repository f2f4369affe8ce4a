"""What a step can be made of: accumulated parts, recomputed activations, fp16 with a scaler, compiled networks."""

import pytest
import torch

from miyagi.data.manifest import data_info, read_manifest
from miyagi.train import checkpoint
from miyagi.train.distributed import ALONE
from tests.methods.test_ddp import near
from tests.train.test_distributed import Stop, same, trainer


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make(project):
    facts = project.beton("digits", "train"), data_info(read_manifest(project.manifest("digits")))
    return lambda *args, **settings: trainer(*facts, ALONE, *args, **settings)


def interrupted(make, folder, *args, **settings):
    """A training that is stopped after its first epoch and taken up by a fresh process's trainer."""
    cut = make(*args, **settings)

    def stop(row, rate):
        raise Stop

    with pytest.raises(Stop):
        cut.fit(folder, on_epoch=stop)
    resumed = make(*args, **settings)
    resumed.fit(folder)
    return resumed


def test_accumulated_parts_make_the_step_of_the_whole_batch(make, tmp_path):
    plain = {"norm": "group", "epochs": 1, "optimizer": "sgd", "lr": 0.1}
    whole, parts = make("supervised", **plain), make("supervised", accumulate=4, **plain)
    steps, forward = [], parts.method.forward
    after_step = parts.method.after_step

    def counted(batch, progress):
        steps.append(len(batch))
        return forward(batch, progress)

    def stepped(progress):
        steps.append("step")
        after_step(progress)

    parts.method.forward, parts.method.after_step = counted, stepped
    (want,), (got,) = whole.fit(tmp_path / "whole"), parts.fit(tmp_path / "parts")
    assert steps == [12, 12, 12, 12, "step"] * 2
    assert got["lr"] == want["lr"]
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
    for name, value in whole.method.state_dict().items():
        near(parts.method.state_dict()[name], value, name)


def test_accumulating_takes_negatives_away(make, tmp_path):
    """A part's own views are all the negatives there are: that is what settings.py says of `accumulate`."""
    whole, parts = make("simclr", epochs=1), make("simclr", epochs=1, accumulate=4)
    (want,), (got,) = whole.fit(tmp_path / "whole"), parts.fit(tmp_path / "parts")
    assert got["loss"] < want["loss"] - 1  # log(2 x 48 - 1) against log(2 x 12 - 1)


def test_checkpointing_changes_nothing(make, tmp_path):
    plain, less = make(), make(checkpointing=True)
    assert same(less.fit(tmp_path / "less"), plain.fit(tmp_path / "plain"))
    assert same(less.state(), plain.state())


def test_fp16_resumes_with_its_scale(make, tmp_path):
    whole = make("simclr", "fp16")
    # Twice the scale every third step: a scaler that started anew would be seen.
    whole.step.scaler.set_growth_interval(3)
    history = whole.fit(tmp_path / "whole")
    state = checkpoint.load(tmp_path / "whole")
    assert state["scaler"] == whole.step.scaler.state_dict()
    assert state["scaler"]["scale"] != 65536 or state["scaler"]["_growth_tracker"] > 0
    assert all(p.dtype == torch.float32 for p in whole.method.parameters())

    def grows(*args, **settings):
        fresh = make(*args, **settings)
        fresh.step.scaler.set_growth_interval(3)
        return fresh

    resumed = interrupted(grows, tmp_path / "cut", "simclr", "fp16")
    assert same(resumed.state(), whole.state())
    assert history[-1]["loss"] == pytest.approx(make().fit(tmp_path / "fp32")[-1]["loss"], rel=0.02)


def test_a_step_whose_gradients_overflow_is_left_out(make, tmp_path):
    made = make("supervised", "fp16", epochs=1)
    made.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {name: p.detach().clone() for name, p in made.method.named_parameters()}
    seen = []
    made.method.after_backward = lambda progress: seen.append(
        all(p.grad.isfinite().all() for p in made.method.parameters())
    )
    made.fit(tmp_path)
    assert seen == [False, False]
    assert all(torch.equal(p, before[name]) for name, p in made.method.named_parameters())
    assert made.step.scaler.get_scale() == 2.0**58


def test_gradients_are_unscaled_when_the_method_looks_at_them(make, tmp_path):
    """A method clips or drops gradients between the backward pass and the step."""
    seen = {}
    for precision in ("fp32", "fp16"):
        made = make("supervised", precision, epochs=1)
        norms = seen.setdefault(precision, [])
        made.method.after_backward = lambda progress, made=made, norms=norms: norms.append(
            float(torch.stack([p.grad.norm() for p in made.method.parameters()]).norm())
        )
        made.fit(tmp_path / precision)
    assert seen["fp16"][-1] == pytest.approx(seen["fp32"][-1], rel=0.2)


@pytest.mark.slow  # compiling takes a minute on two busy cores
def test_compiled(make, tmp_path):
    """Near the eager training, and as exact in a rerun and a resume."""
    settings = {"name": "supervised", "checkpointing": False}
    eager, compiled = make(**settings), make(**settings, compile=True)
    names = list(compiled.method.state_dict())
    want, got = eager.fit(tmp_path / "eager"), compiled.fit(tmp_path / "compiled")
    assert list(compiled.method.state_dict()) == names == list(eager.method.state_dict())
    assert compiled.method.encoder._compiled_call_impl is not None
    for a, b in zip(got, want, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    for name, value in eager.method.state_dict().items():
        torch.testing.assert_close(compiled.method.state_dict()[name], value, rtol=0.02, atol=2e-3, msg=name)
    resumed = interrupted(make, tmp_path / "cut", **settings, compile=True)
    assert same(resumed.state(), compiled.state())


@pytest.mark.slow
def test_compiled_and_recomputed(make, tmp_path):
    settings = {"name": "supervised", "epochs": 1}
    eager, both = make(**settings), make(**settings, compile=True, checkpointing=True)
    want, got = eager.fit(tmp_path / "eager"), both.fit(tmp_path / "both")
    assert got[0]["loss"] == pytest.approx(want[0]["loss"], rel=1e-3)
    for name, value in eager.method.state_dict().items():
        torch.testing.assert_close(both.method.state_dict()[name], value, rtol=0.02, atol=2e-3, msg=name)
