import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from objective_runs import grid_of, region_of
from objective_views import forward
from random_images import numbered
from torch import nn
from trainer_runs import assert_same, basic_unet

from dira_monai.networks.encoder_decoder import encode
from dira_monai.networks.heads import GlobalAverage
from dira_monai.objectives.objective import ObjectiveInputs
from dira_monai.objectives.voco import VoCo, overlap_loss
from dira_monai.transforms.grid_views import GridViews, overlap_shares
from dira_monai.transforms.intensity import GaussianNoise, IntensityJitter
from dira_monai.transforms.masking import Masking
from dira_monai.transforms.painting import InPainting
from dira_monai.utils.seeded_random import sample_seeds

every_grid = pytest.mark.parametrize(("patch_size", "grid"), [((5, 4), (3, 2)), ((4, 3, 5), (2, 3, 1))])


@every_grid
def test_overlap_is_the_share_of_voxels_that_a_base_holds(patch_size, grid):
    region = region_of(patch_size, grid)
    views = GridViews(patch_size, grid)(numbered(40, region), sample_seeds(0, 0, 40))
    assert views["query"].shape == (40, 1, *patch_size)
    assert views["bases"].shape == (40, math.prod(grid), 1, *patch_size)
    for query, bases, overlap in zip(views["query"], views["bases"], views["overlap"], strict=True):
        inside = set(query.flatten().tolist())
        counted = [len(inside & set(base.flatten().tolist())) / math.prod(patch_size) for base in bases]
        torch.testing.assert_close(overlap, torch.tensor(counted))
    torch.testing.assert_close(views["overlap"].sum(1), torch.ones(40))
    starts = {int(query.min()) for query in views["query"]}
    assert len(starts) > 10
    assert_same(views["query"], views["target"])
    images = torch.randint(0, 256, (2, 3, *region), dtype=torch.uint8)  # stored integers become shares
    bases = GridViews(patch_size, grid)(images, sample_seeds(1, 0, 2))["bases"]
    for n, cell in enumerate(itertools.product(*map(range, grid))):  # the cells of the grid in order
        box = tuple(slice(c * p, (c + 1) * p) for c, p in zip(cell, patch_size, strict=True))
        assert_same(bases[:, n], images[(slice(None), slice(None), *box)] / 255)


@pytest.mark.parametrize(
    ("shift", "share"),
    [((0, 0, 0), 1), ((2, 0, 0), 0.5), ((2, 3, 1), 0.5 * 0.5 * 0.8), ((4, 0, 0), 0), ((0, -6, 9), 0)],
)
def test_overlap_shares_of_known_shifts(shift, share):
    found = overlap_shares(torch.tensor([shift]), torch.zeros(1, 3, dtype=torch.long), (4, 6, 5))
    torch.testing.assert_close(found, torch.tensor([[float(share)]]))


def test_every_place_of_the_region_is_drawn():
    views = GridViews((3, 2), (2, 2))(numbered(600, (6, 4)), sample_seeds(0, 0, 600))
    corners = {int(query.min()) for query in views["query"]}
    assert corners == {row * 4 + column for row in range(4) for column in range(3)}


def test_views_do_not_depend_on_the_batch():
    changes = [IntensityJitter(probability=1.0), GaussianNoise(0.2, probability=1.0)]
    views = GridViews((4, 4), (2, 2), changes, [InPainting(2, (0.3, 0.5))], masking=Masking(0.5, (2, 2)))
    images, seeds = torch.rand(5, 1, 8, 8), sample_seeds(3, 0, 5)
    whole = views(images, seeds)
    parts = [views(images[i : i + 1], seeds[i : i + 1]) for i in range(5)]
    assert set(whole) == {"query", "whole", "target", "bases", "overlap", "mask"}
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, torch.cat([part[name] for part in parts]))
    assert not torch.equal(whole["query"], whole["target"])
    plain = views(images, seeds, distort=False)
    assert not {"mask", "whole"} & set(plain)
    assert torch.equal(whole["query"], whole["whole"].masked_fill(whole["mask"], 0))
    for name in ("target", "bases", "overlap"):
        assert_same(plain[name], whole[name])


def test_overlap_loss_of_known_values():
    similarity, overlap = torch.tensor([[0.0, 0.5], [1.0, 0.25]]), torch.tensor([[0.5, 0.5], [0.75, 0.0]])
    expected = -(math.log(0.5) + 0 + math.log(0.75) + math.log(0.75)) / 4
    torch.testing.assert_close(overlap_loss(similarity, overlap), torch.tensor(expected))


def test_overlap_loss_stays_finite_where_a_prediction_is_wholly_wrong():
    similarity = torch.tensor([1.0, 0.0], dtype=torch.bfloat16).requires_grad_()
    loss = overlap_loss(similarity, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor(6 * math.log(10)), rtol=0.01, atol=0)
    loss.backward()
    assert similarity.grad.isfinite().all()


def make_views(batch, spatial_dims, bases=3, side=16):
    shape = (1, *[side] * spatial_dims)
    overlap = F.normalize(torch.rand(batch, bases), p=1, dim=1)
    return {"query": torch.rand(batch, *shape), "bases": torch.rand(batch, bases, *shape), "overlap": overlap}


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_voco_equals_explicit_loops(spatial_dims, weight):
    network = basic_unet(spatial_dims)
    voco = VoCo(network, 8, regularization_weight=weight)
    views = make_views(4, spatial_dims)
    told = forward(voco, network, views)

    crops = [views["query"], *views["bases"].unbind(1)]
    projected = voco.projector(torch.cat([encode(network, crop)[-1] for crop in crops])).detach().double()
    torch.testing.assert_close(projected.mean(0), torch.zeros(8).double(), rtol=0, atol=1e-5)
    query, *bases = (rows / rows.norm(dim=1, keepdim=True) for rows in projected.split(4))
    bases = torch.stack(bases, dim=1)
    overlap = views["overlap"].double()
    prediction, between, hits, likeness = 0.0, 0.0, 0, 0.0
    for b in range(4):
        cosines = [float(query[b] @ bases[b, i]) for i in range(3)]
        for i in range(3):
            s, y = max(cosines[i], 0.0), float(overlap[b, i])
            prediction -= math.log(1 - abs(y - s)) / 12
            likeness += s * y / 4
        for i, j in itertools.combinations(range(3), 2):
            between += abs(float(bases[b, i] @ bases[b, j])) / 12
        hits += max(range(3), key=cosines.__getitem__) == int(overlap[b].argmax())
    found = [told[name].item() for name in ("prediction", "base_similarity", "accuracy", "overlap_similarity", "loss")]
    expected = [prediction, between, hits / 4, likeness, prediction + weight * between]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(told["query"].double(), query, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["key"].double(), bases[range(4), overlap.argmax(1)], rtol=1e-4, atol=1e-5)
    assert set(told) == {"loss", "query", "key", *voco.metrics}


def test_nothing_is_worse_than_equal_embeddings():
    network = basic_unet()
    voco = VoCo(network, 8).eval()  # in training the last batch norm forbids it
    views = make_views(3, 2, bases=4) | {"overlap": torch.eye(4)[:3]}
    views["query"], views["bases"] = (torch.ones_like(views[name]) for name in ("query", "bases"))
    told = forward(voco, network, views)
    worst = -3 / 4 * math.log(1e-6) + 1  # s = 1 where y is 0 for three bases of four, and |s_ij| = 1
    assert told["loss"].item() == pytest.approx(worst, rel=0.01)
    metrics = {name: told[name].item() for name in voco.metrics}
    assert "base crops are all alike or opposite (mean |cosine| 1.000)" in voco.diagnose(metrics)


class Averages(ObjectiveInputs):
    """Inputs of a frozen encoder whose deepest map is the image itself."""

    def encode(self, view):
        return view


def placed_crops(spatial_dims, count, epoch):
    """Views in float64 of an image whose first four channels show its four base crops; others hold noise of the query.

    So the average of a crop over the voxels is its overlap with each base, and numbers that say nothing.
    """
    grid = grid_of([4] * spatial_dims)
    cells = torch.eye(4).reshape(4, *grid)
    for axis in range(1, spatial_dims + 1):
        cells = cells.repeat_interleave(4, dim=axis)
    image = torch.cat([cells, torch.zeros_like(cells)])

    def disturb(images, draws):
        noise = torch.cat([torch.zeros(len(images), 4), 2 * draws.normal(4)], dim=1)
        return images + noise.reshape(-1, 8, *[1] * spatial_dims)

    views = GridViews([4] * spatial_dims, grid, [], [disturb])(
        image.expand(count, *image.shape), sample_seeds(0, epoch, count)
    )
    return {name: view.double() for name, view in views.items()}


def test_voco_learns_where_crops_were_taken(spatial_dims):
    """One linear layer by full batches: 80 steps end at the same place from any start, to a few percent."""
    learned, unseen = (placed_crops(spatial_dims, 64, epoch) for epoch in (0, 1))
    network = basic_unet(spatial_dims)

    def train(views):
        torch.manual_seed(0)
        voco = VoCo(network, 8)
        voco.projector = nn.Sequential(GlobalAverage(), nn.Linear(8, 8, bias=False)).double()
        optimizer = torch.optim.Adam(voco.projector.parameters(), lr=0.05)
        before = voco(Averages(network, unseen, [unseen["query"]]))
        for _ in range(80):
            optimizer.zero_grad()
            voco(Averages(network, views, [views["query"]]))["loss"].backward()
            optimizer.step()
        return before, voco(Averages(network, unseen, [unseen["query"]]))

    before, after = train(learned)
    _, misled = train(learned | {"overlap": learned["overlap"].roll(1, 0)})  # that of another crop
    # over six starts: accuracy 1, a guess 0.25; prediction 0.048 to 0.053, before 0.46 and misled 0.26 at least
    assert after["accuracy"] > 0.95
    assert after["prediction"] < 0.1 < 0.2 < min(before["prediction"], misled["prediction"])
    # 0.56 to 0.57, before and misled 0.31 at most; 0.004 to 0.013, before 0.22 at least
    assert max(before["overlap_similarity"], misled["overlap_similarity"]) < 0.4 < after["overlap_similarity"]
    assert after["base_similarity"] < 0.05 < 0.15 < before["base_similarity"]
