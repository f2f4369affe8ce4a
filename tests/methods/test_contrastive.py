"""What a user of `simclr` and `moco` can choose, by way of params.yaml: losses, negatives, and what the deck warns of."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.losses.contrast import LOSSES
from miyagi.methods.base import build
from miyagi.recipes import RECIPES
from miyagi.settings import ContrastiveSettings, Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views
SOURCES = ("batch", "bank", "queue")


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture(scope="module")
def project():
    return params.read(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture
def make(project, encoder, info, digits):
    """make("{method: simclr, loss: jsd}"): the method of one more entry in the project's params.yaml."""

    def method(entry, seed=0):
        experiments = {**project.experiments, "x": yaml.safe_load(entry)}
        experiment = project.model_copy(update={"experiments": experiments}).experiment("x")
        torch.manual_seed(seed)
        return build(experiment.method, experiment.settings, copy.deepcopy(encoder), replace(info, n=len(digits[0])))

    return method


def train(method, batches, lr=3e-3):
    optimiser = optimizer(method, Pretrain())
    for group in optimiser.param_groups:
        group["lr"] = lr
    found = []
    for batch in batches:
        logged = method(batch, 0.5)
        optimiser.zero_grad()
        logged["loss"].backward()
        optimiser.step()
        method.after_step(0.5)
        found.append({name: float(value.detach()) for name, value in logged.items()})
    return found


def test_every_name_is_known():
    assert set(ContrastiveSettings.model_fields["loss"].annotation.__args__) == set(LOSSES)


@pytest.mark.parametrize("negatives", SOURCES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_every_loss_with_every_source_of_negatives(make, make_batch, name, loss, negatives):
    method = make(f"{{method: {name}, loss: {loss}, negatives: {negatives}, queue: 50}}")
    before = [p.detach().clone() for p in method.encoder.parameters()]
    found = train(method, [make_batch(method, RECIPE, i, n=24) for i in range(2)])
    assert all(math.isfinite(step["loss"]) and 0 <= step["accuracy"] <= 1 for step in found)
    assert all(not torch.equal(p, q) for p, q in zip(before, method.encoder.parameters(), strict=True))
    assert ("mi_bound" in found[0]) == (negatives == "batch" and loss in ("info_nce", "n_pair", "dv"))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_which_views_belong_together(make, make_batch, loss):
    method = make(f"{{method: simclr, loss: {loss}, temperature: 0.2}}")
    found = train(method, [make_batch(method, RECIPE, n=32)] * 20)
    assert found[-1]["accuracy"] > found[0]["accuracy"] + 0.1
    assert found[-1]["loss"] < found[0]["loss"]


@pytest.mark.parametrize(
    "entry",
    [
        "{method: simclr, l2_normalize: false, temperature: 50}",
        "{method: simclr, l2_normalize: false, temperature: 0.1}",
        "{method: simclr, temperature: 0.001}",
        "{method: simclr, number: 1}",
        "{method: simclr, negatives: bank, number: 1}",
        "{method: simclr, negatives: queue, queue: 1}",
        "{method: simclr, head: {kind: none}}",
        "{method: simclr, head: {kind: linear, out: 2}}",
        "{method: simclr, beta: 1.0, tau_plus: 0.1, temperature: 0.001}",
        "{method: simclr, loss: triplet, form: distance, l2_normalize: false, margin: 100}",
        "{method: simclr, loss: n_pair, l2_normalize: false}",
        "{method: moco, momentum: 0.5, queue: 64}",
        "{method: moco, momentum: 0.0, queue: 64}",
        "{method: moco, queue: 1}",
        "{method: moco, queue: 64, number: 1}",
        "{method: moco, queue: 64, l2_normalize: false, temperature: 50}",
        "{method: moco, queue: 64, head: {kind: none}}",
        "{method: moco, symmetric: true, negatives: batch}",
        "{method: moco, symmetric: true, queue: 64, loss: nce}",
    ],
)
def test_what_the_deck_warns_about_can_be_tried(make, make_batch, entry):
    method = make(entry)
    start = copy.deepcopy(method.encoder.state_dict())
    found = train(method, [make_batch(method, RECIPE, i, n=32) for i in range(4)])
    assert all(math.isfinite(step["loss"]) for step in found)
    assert all(torch.isfinite(p).all() for p in method.parameters())
    assert not torch.equal(method.encoder.state_dict()["blocks.conv1.0.weight"], start["blocks.conv1.0.weight"])


@pytest.mark.parametrize("name", ["simclr", "moco"])
@pytest.mark.parametrize(
    "how", ["negatives: bank, number: 5", "negatives: queue, loss: nce", "negatives: batch, number: 3"]
)
def test_a_resume_goes_on_with_the_same_numbers(make, make_batch, name, how):
    method = make(f"{{method: {name}, queue: 50, {how}}}")
    train(method, [make_batch(method, RECIPE, i, n=24) for i in range(3)])
    other = make(f"{{method: {name}, queue: 50, {how}}}", seed=1)
    other.load_state_dict(method.state_dict())
    batches = [make_batch(method, RECIPE, i, n=24) for i in (3, 4)]
    assert train(method, batches) == train(other, batches)


@pytest.mark.parametrize("negatives", ["bank", "queue"])
def test_simclrs_bank_and_queue_hold_its_own_earlier_views(make, make_batch, negatives):
    method = make(f"{{method: simclr, negatives: {negatives}, bank_momentum: 0.0, queue: 300}}")
    batch = make_batch(method, RECIPE, n=24)
    method(batch, 0.0)
    ((_, views),) = method._pending
    method.after_step(0.0)
    assert method._pending == [] and not views.requires_grad
    if negatives == "queue":
        assert torch.equal(method.negatives.queue.keys[:48], views)
    else:
        mean = torch.nn.functional.normalize(views[:24] + views[24:], dim=1)
        torch.testing.assert_close(method.negatives.bank.features[batch.index], mean)


def test_the_bound_says_how_many_candidates_there_are(make, make_batch):
    """mi_bound + loss is the logarithm of the candidates: the positive and the negatives."""
    for entry, candidates in (
        ("{method: simclr}", 2 * 24 - 1),
        ("{method: simclr, number: 5}", 6),
        ("{method: moco, negatives: batch}", 24),
        ("{method: moco, negatives: batch, symmetric: true}", 24),
    ):
        method = make(entry)
        logged = method(make_batch(method, RECIPE, n=24), 0.0)
        assert float(logged["mi_bound"] + logged["loss"].detach()) == pytest.approx(math.log(candidates), rel=1e-5)
    for entry in ("{method: simclr, beta: 1.0}", "{method: simclr, tau_plus: 0.1}", "{method: moco, queue: 9}"):
        method = make(entry)
        assert "mi_bound" not in method(make_batch(method, RECIPE, n=24), 0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_collapsed_network_finds_no_positive(make, make_batch, loss):
    method = make(f"{{method: simclr, loss: {loss}}}")
    method.head = torch.nn.Flatten()
    method.encoder.forward = lambda x: torch.eye(16)[:1].expand(len(x), 16)
    assert float(method(make_batch(method, RECIPE, n=8), 0.0)["accuracy"]) == 0


def test_fewer_negatives_are_an_easier_task(make, make_batch):
    batch, found = None, []
    for number in (1, 4, "null"):
        method = make(f"{{method: simclr, number: {number}}}")
        batch = batch or make_batch(method, RECIPE, n=64)
        found.append(float(method(batch, 0.0)["loss"].detach()))
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{method: simclr, loss: nt_xnet}", r"experiments\.x\.loss: Input should be 'info_nce', .*got 'nt_xnet'"),
        ("{method: simclr, number: 0}", r"experiments\.x\.number: .*greater than or equal to 1"),
        ("{method: moco, negatives: pile}", r"experiments\.x\.negatives: .*'batch', 'bank' or 'queue'"),
        (
            "{method: simclr, loss: triplet, beta: 1.0}",
            r"beta and tau_plus weigh the negatives of info_nce, not of triplet",
        ),
        (
            "{method: simclr, l2_normalize: false, tau_plus: 0.1}",
            r"tau_plus needs vectors of unit length: l2_normalize: true",
        ),
    ],
)
def test_what_cannot_be(make, entry, message):
    with pytest.raises(UserError, match=message):
        make(entry)
