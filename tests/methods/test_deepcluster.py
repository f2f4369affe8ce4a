import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from miyagi.data.rng import Key, fold
from miyagi.errors import UserError
from miyagi.methods.deepcluster import DeepCluster, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import ViewRecipe

RECIPE = RECIPES["none"].views


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return DeepCluster(Settings(clusters=6, pca=8), encoder, info)


@pytest.fixture
def batches(method, make_batch):
    return [make_batch(method, RECIPE, epoch) for epoch in (0, 1)]


def test_the_labels_are_scikit_learns_on_the_same_features(method, batches):
    method.train()
    statistics = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    method.before_epoch(0, batches[::-1])
    assert method.encoder.training
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in method.encoder.state_dict().items())
    with torch.no_grad():
        features = torch.cat([method.encoder.eval()(batch.views[0]) for batch in batches]).double().numpy()
    vectors = normalize(PCA(8, whiten=True, svd_solver="full").fit_transform(features))
    seed = fold(*Key(0, 1), "deepcluster/kmeans") % 2**32  # the key of the first batch that came
    theirs = KMeans(6, n_init=1, max_iter=20, random_state=seed).fit(vectors)
    assert adjusted_rand_score(theirs.labels_, method.labels.numpy()) == 1
    sizes = np.bincount(method.labels.numpy(), minlength=6)
    np.testing.assert_allclose(method.weight.numpy(), 256 / (6 * sizes), rtol=1e-6)
    assert float(method.weight[method.labels].mean()) == pytest.approx(1)  # each cluster weighs 1 / 6 of the whole


def test_the_order_of_the_images_does_not_matter(method, batches):
    method.before_epoch(0, batches)
    labels = method.labels.clone()
    whole, order = batches[0], torch.randperm(128)
    shuffled = type(whole)([whole.views[0][order]], whole.index[order], whole.label[order], whole.key)
    method.before_epoch(0, [shuffled, batches[1]])
    assert torch.equal(method.labels, labels)


def test_the_loss_by_hand(method, batches):
    method.before_epoch(0, batches)
    method.weight.copy_(torch.arange(6) + 1.0)
    with torch.no_grad():
        method.head[0].weight.zero_()
        logged = method.eval()(batches[0], 0.0)  # every answer is 1 / 6
    target = method.labels[:128]
    assert float(logged["loss"]) == pytest.approx(float((target + 1.0).mean()) * np.log(6), rel=1e-5)


def test_empty_clusters(method, batches):
    features = np.array([[0.0, 0.0], [1.0, 5.0], [7.0, 2.0]], np.float32)[np.arange(30) % 3]
    method.assign(torch.arange(30), features, 0)  # three different vectors, six clusters
    labels = method.labels[:30]
    assert len(labels.unique()) == 3
    assert torch.equal(labels.view(10, 3), labels[:3].expand(10, 3))
    assert torch.allclose(method.weight[labels], torch.tensor(1.0))
    assert torch.isfinite(method.weight).all()
    assert (method.labels[30:] == -1).all()


def test_each_epoch_has_new_labels_and_a_new_classifier(method, batches):
    method.before_epoch(0, batches)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    assert {"labels", "weight"} <= state.keys()  # they survive a resume
    assert float(method.head[0].weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert (method.head[0].bias == 0).all()
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    method.before_epoch(1, batches)
    assert adjusted_rand_score(method.labels.numpy(), state["labels"].numpy()) < 0.9
    assert not torch.equal(method.head[0].weight, state["head.0.weight"])


def test_clusters_that_last_several_epochs(encoder, info, make_batch):
    method = DeepCluster(Settings(clusters=6, pca=8, reassign=2), encoder, info)
    batches = [make_batch(method, RECIPE, epoch) for epoch in (0, 1)]
    method.before_epoch(2, batches)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with torch.no_grad():
        next(method.encoder.parameters()).add_(0.3)
    changed = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    method.before_epoch(3, iter(()))  # no pass over the data
    kept = {name: tensor for name, tensor in method.state_dict().items() if not name.startswith("encoder.")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.items())
    assert all(torch.equal(tensor, changed[name]) for name, tensor in method.encoder.state_dict().items())
    method.before_epoch(4, batches[:1])
    assert not torch.equal(method.head[0].weight, state["head.0.weight"])
    assert (method.labels[128:] == -1).all() and (method.labels[:128] >= 0).all()


def test_an_image_without_a_label_has_no_loss(method, batches):
    method.before_epoch(0, batches[:1])
    method.labels[:32] = -1
    with torch.no_grad():
        method.head[0].weight.zero_()
        loss = method.eval()(batches[0], 0.0)["loss"]
    weight = method.weight[method.labels[32:128]]
    assert float(loss) == pytest.approx(float(weight.sum()) / 128 * np.log(6), rel=1e-5)
    assert torch.isfinite(method(batches[1], 0.0)["loss"])  # nobody has one


def test_clusters_are_of_the_images_as_they_are(method):
    """Clusters of the views that are trained on would teach the encoder what it knows already."""
    assert [view.recipe for view in method.views_before] == [None]
    assert method.views[0].recipe is not None
    assert all(recipe != ViewRecipe() for recipe in RECIPES[Settings().recipe].views)


def test_shuffled_labels_are_worse(method, batches):
    from miyagi.settings import Pretrain
    from miyagi.train.loop import optimizer

    method.before_epoch(0, batches)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    losses = []
    for shuffled in (False, True):
        method.load_state_dict(state)
        if shuffled:
            method.labels.copy_(method.labels[torch.randperm(256)])
        optimiser = optimizer(method, Pretrain(lr=0.01))
        for step in range(24):
            loss = method(batches[step % 2], 0.0)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] < losses[1] - 0.3


def test_more_clusters_than_images(encoder, info, batches):
    with pytest.raises(
        UserError, match="deepcluster: clusters: 300 clusters need as many vectors, and there are only 256"
    ):
        DeepCluster(Settings(clusters=300), encoder, info).before_epoch(0, batches)


def test_pictures(method, batches):
    method.before_epoch(0, batches)
    with torch.no_grad():
        shown = method.eval().show(batches[0])
        assert torch.equal(shown["image"], batches[0].views[0])
        batch = batches[0]
        twice = type(batch)([batch.views[0][torch.arange(8) // 2]], batch.index[:8], batch.label[:8], batch.key)
        assert torch.equal(*method.show(twice).values())  # the most alike is its copy
