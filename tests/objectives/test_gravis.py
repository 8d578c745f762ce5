import math

import pytest
import torch
import torch.nn.functional as F
from objective_runs import ALONE, make_run
from objective_views import forward
from reference import GOLDEN, normal
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_runs import basic_unet, record

from dira_monai.losses.smooth_ap import ranking_accuracy, smooth_ap
from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.gravis import GraVIS
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.spatial import RandomResizedCrop
from dira_monai.transforms.views import Views
from dira_monai.utils.seeded_random import sample_seeds

every_attention = pytest.mark.parametrize("attention", ["smooth_ap", "uniform"])


def published_embeddings():
    return 0.5 * normal(31, (12, 8))


def explicit_loss(z, views, temperature, attention):
    """The formula over all triplets, of which those of one pair i, j are added up at once; float64."""
    z = z.double()
    n = len(z)
    similarity = z @ z.T

    def step(x):
        return 1 / (1 + torch.exp((-x / temperature).clamp(-50, 50)))

    total = torch.zeros([], dtype=torch.float64)
    for i in range(n):
        group = range(i // views * views, i // views * views + views)
        for j in group:
            ahead = step(similarity[i] - similarity[i, j])
            positive = 1 + ahead[[k for k in group if k != j]].sum()
            everyone = 1 + ahead[[k for k in range(n) if k != j]].sum()
            weight = positive if attention == "smooth_ap" else 1
            total = total + weight / (weight + everyone - positive)
    return 1 - total / (n * views)


def value_and_gradient(loss, z, *arguments, **options):
    z = z.detach().clone().requires_grad_()
    value = loss(z, *arguments, **options)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach().double(), gradient.double()


def test_smooth_ap_equals_the_published_value():
    loss = smooth_ap(published_embeddings(), 4, temperature=0.2)
    torch.testing.assert_close(loss, torch.tensor(GOLDEN["gravis"]["loss"]))


@every_attention
@pytest.mark.parametrize(
    ("images", "views", "temperature"), [(3, 4, 0.2), (5, 2, 1.0), (1, 3, 0.2), (2, 6, 0.05), (2, 20, 0.2)]
)
def test_smooth_ap_equals_the_loop_over_all_triplets(images, views, temperature, attention):
    z = 0.7 * normal(images, (images * views, 5))
    ours = value_and_gradient(smooth_ap, z, views, temperature, attention)
    expected = value_and_gradient(explicit_loss, z.double(), views, temperature, attention)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@every_attention
@pytest.mark.parametrize("chunk_size", [1, 5, 12, 100])
def test_chunks_change_neither_value_nor_gradient(chunk_size, attention):
    z = published_embeddings()
    whole = value_and_gradient(smooth_ap, z, 4, attention=attention)
    parts = value_and_gradient(smooth_ap, z, 4, attention=attention, chunk_size=chunk_size)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        self.elements = max([self.elements, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
        return result


@pytest.mark.parametrize(("chunk_size", "largest"), [(None, 24 * 2 * 24), (5, 5 * 2 * 24)])
def test_only_the_ranks_of_own_views_are_held(chunk_size, largest):
    with LargestTensor() as mode:
        value_and_gradient(smooth_ap, normal(0, (24, 4)), 2, chunk_size=chunk_size)
    assert mode.elements <= max(largest, 24 * 24)  # not 24 * 24 * 24


@every_attention
@pytest.mark.parametrize(("images", "views"), [(3, 2), (4, 5)])
def test_smooth_ap_of_perfect_groups_vanishes_with_the_temperature(images, views, attention):
    z = torch.eye(images).repeat_interleave(views, dim=0)
    losses = [smooth_ap(z, views, temperature, attention).item() for temperature in (1.0, 0.2, 0.05, 0.01)]
    assert losses == sorted(losses, reverse=True)
    negative = (images - 1) * views / (1 + math.exp(5))  # similarity 0 against 1 at temperature 0.2
    positive = 1 + (views - 1) / 2 if attention == "smooth_ap" else 1
    assert losses[1] == pytest.approx(negative / (positive + negative), rel=1e-4)
    assert 0 <= losses[-1] < 1e-15
    value, gradient = value_and_gradient(smooth_ap, normal(0, (views, 3)), views, attention=attention)
    assert value == 0  # a single image has nothing to rank
    assert not gradient.any()


@pytest.mark.parametrize(("images", "views"), [(3, 2), (4, 5)])
def test_smooth_ap_of_collapsed_embeddings_is_chance(images, views):
    z, n = torch.ones(images * views, 3), images * views
    torch.testing.assert_close(smooth_ap(z, views), torch.tensor(1 - (views + 1) / (n + 1)))
    torch.testing.assert_close(smooth_ap(z, views, attention="uniform"), torch.tensor(1 - 2 / (n - views + 2)))


def test_attention_weighs_a_misplaced_view_by_one_over_the_rank_of_the_positive():
    first, second = torch.eye(2)
    near, temperature = torch.stack([first, 0.9 * first, 0.5 * first]), 0.02
    slopes = {}
    for attention in ("smooth_ap", "uniform"):
        other = second.clone().requires_grad_()
        smooth_ap(torch.cat([near, other[None], second.expand(2, 2)]), 3, temperature, attention).backward()
        slopes[attention] = other.grad[0]
    # nearly all of the slope is that of the shortest row as anchor and positive, whose soft rank is 3
    assert slopes["uniform"] / slopes["smooth_ap"] == pytest.approx(3, rel=0.02)
    assert slopes["smooth_ap"] > 0


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_smooth_ap_of_huge_embeddings_is_finite(chunk_size):
    z = (3e4 * normal(0, (12, 8)).clamp(-2, 2)).half()  # scores of 1e9, which float16 does not have
    value, gradient = value_and_gradient(smooth_ap, z, 4, temperature=0.01, chunk_size=chunk_size)
    assert 0 < value < 1
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [smooth_ap, ranking_accuracy])
@pytest.mark.parametrize(("rows", "views"), [(5, 2), (4, 1), (0, 2)])
def test_rows_that_are_no_groups_are_refused(rows, views, loss):
    with pytest.raises(ValueError, match=f"at least 2 of each image, got {rows} rows and {views} views"):
        loss(torch.rand(rows, 3), views)


@pytest.mark.parametrize(("images", "views"), [(3, 2), (4, 3), (1, 2)])
def test_ranking_accuracy_equals_a_loop(images, views):
    z = normal(5, (images * views, 2)) + 2 * normal(6, (images, 2)).repeat_interleave(views, dim=0)
    hits = []
    for i, row in enumerate(z):
        order = [k for k in (-(z @ row)).argsort().tolist() if k != i]
        hits.append({k // views for k in order[: views - 1]} == {i // views})
    torch.testing.assert_close(ranking_accuracy(z, views), torch.tensor(hits).float().mean())
    assert images == 1 or 0 < sum(hits) < len(hits)


def test_ranking_accuracy_of_collapsed_embeddings_is_zero():
    assert ranking_accuracy(torch.ones(6, 3), 2) == 0


def make_views(count, spatial_dims, batch=3):
    images = torch.rand(count, batch, 1, *[16] * spatial_dims)
    views = {"query": images[0]} | ({"key": images[1]} if count > 1 else {})
    return views | ({"more": images[2:].transpose(0, 1)} if count > 2 else {}), images


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("normalized", [False, True])
def test_gravis_ranks_the_embeddings_of_all_views(spatial_dims, count, normalized):
    network = basic_unet(spatial_dims)
    views, images = make_views(count, spatial_dims)
    gravis = GraVIS(network, 6, 5, temperature=0.3, attention="uniform", normalized=normalized, chunk_size=2)
    told = forward(gravis, network, views)
    with torch.no_grad():
        pooled = [encode(network, view)[-1].flatten(2).mean(2) for view in images]
        first, _, last = gravis.projector
        rows = torch.stack([last(F.relu(first(p))) for p in pooled], dim=1)  # (B, V, D)
    assert rows.shape == (3, count, 6)
    unit = F.normalize(rows, dim=2)
    everyone = (unit if normalized else rows).flatten(0, 1)
    torch.testing.assert_close(told["loss"].detach(), smooth_ap(everyone, count, 0.3, "uniform"))
    torch.testing.assert_close(told["accuracy"], ranking_accuracy(everyone, count))
    spread = unit.flatten(0, 1).double().var(0, correction=0).sqrt().mean() * math.sqrt(6)
    torch.testing.assert_close(told["deviation"].double(), spread, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close((told["query"], told["key"]), (unit[:, 0], unit[:, 1]))
    assert set(told) == {"loss", "query", "key", *gravis.metrics}


def test_gravis_ranks_the_papers_twenty_views_as_the_loop_over_all_triplets():
    network = basic_unet()
    make = Views(RandomResizedCrop((16, 16), (0.6, 1.0)), [IntensityJitter()], count=20)
    views = make(torch.rand(2, 1, 20, 20), sample_seeds(0, 0, 2))
    assert views["more"].shape == (2, 18, 1, 16, 16)
    gravis = GraVIS(network, 6, temperature=0.01)
    told = forward(gravis, network, views)
    with torch.no_grad():
        images = torch.cat([views["query"][:, None], views["key"][:, None], views["more"]], dim=1).flatten(0, 1)
        rows = gravis.projector.raw(encode(network, images)[-1])  # image by image
        expected = explicit_loss(rows, 20, 0.01, "smooth_ap")
    torch.testing.assert_close(told["loss"].detach().double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(told["accuracy"], ranking_accuracy(rows, 20))


def test_gravis_learns_to_group_views(spatial_dims):
    options = {"batch_size": 8, "epochs": 1, "epoch_length": 25, "optimizer": "Adam", "lr": 0.001}
    trainer = make_run("gravis", spatial_dims, **options, **ALONE)
    outputs = record(trainer)
    trainer.run()
    losses = [output["contrastive"].item() for output in outputs]
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])
    assert {"contrastive_accuracy", "contrastive_deviation", "query", "key"} <= set(outputs[0])
    assert outputs[-1]["contrastive_accuracy"] > outputs[0]["contrastive_accuracy"]
    assert outputs[-1]["contrastive_deviation"] > 0.3
