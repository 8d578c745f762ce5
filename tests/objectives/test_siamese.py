"""Barlow Twins, SimSiam and BYOL."""

import pytest
import torch
import torch.nn.functional as F
from objective_runs import METHODS
from objective_views import forward, make_views
from reference import GOLDEN, normal
from torch import nn
from trainer_runs import basic_unet, genesis_unet

from dira_monai.losses.barlow_twins import barlow_twins, cross_correlation
from dira_monai.losses.contrastive import negative_cosine
from dira_monai.metrics import embedding_std
from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.siamese import BarlowTwins, SimSiam


def golden_twins():
    z1 = normal(11, (8, 32))
    return z1, z1 + 0.5 * normal(12, (8, 32))


def correlation_by_hand(z1, z2):
    """The definition, in float64."""
    z1, z2 = (z.double() - z.double().mean(0) for z in (z1, z2))
    spread1, spread2 = ((z.square().mean(0) + 1e-5).sqrt() for z in (z1, z2))
    return torch.einsum("ni,nj->ij", z1, z2) / len(z1) / torch.outer(spread1, spread2)


def test_barlow_twins_equals_the_published_value():
    torch.testing.assert_close(barlow_twins(*golden_twins()), torch.tensor(GOLDEN["barlow_twins"]["loss"]))


@pytest.mark.parametrize("weight", [0.0, 0.0051, 1.0])
def test_barlow_twins_equals_explicit_loops(weight):
    z1, z2 = normal(1, (6, 4)), 3 * normal(2, (6, 4)) + 5
    expected = correlation_by_hand(z1, z2)
    torch.testing.assert_close(cross_correlation(z1, z2), expected.float())
    loss = ((torch.eye(4) - expected).square() * (weight + (1 - weight) * torch.eye(4))).sum()
    torch.testing.assert_close(barlow_twins(z1, z2, weight), loss.float(), rtol=1e-5, atol=1e-6)


def test_equal_views_with_independent_components_have_no_loss():
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    torch.testing.assert_close(barlow_twins(signs, signs), torch.tensor(0.0), atol=1e-8, rtol=0)
    repeated = signs[:, [0, 0]]  # two equal components: C is all ones
    torch.testing.assert_close(barlow_twins(repeated, repeated, 0.5), torch.tensor(1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [1, 3])
def test_components_that_do_not_vary_correlate_nothing(rows):
    z = torch.full((rows, 4), 7.0, requires_grad=True)
    loss = barlow_twins(z, z.detach())
    loss.backward()
    assert loss == 4
    assert z.grad.isfinite().all()


def test_negative_cosine_gives_the_published_loss_of_simsiam():
    p1, p2, z1, z2 = (normal(seed, (6, 24)) for seed in (21, 22, 23, 24))
    loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
    torch.testing.assert_close(loss, torch.tensor(GOLDEN["simsiam"]["loss"]))


def test_negative_cosine_equals_the_formula_and_stops_one_gradient():
    prediction, embedding = (200 * normal(s, (3, 5)).requires_grad_() for s in (1, 2))
    a, b = prediction.detach().double(), embedding.detach().double()
    expected = -((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    loss = negative_cosine(prediction, embedding)
    torch.testing.assert_close(loss.detach(), expected.float())
    assert torch.autograd.grad(loss, embedding, allow_unused=True) == (None,)


def test_deviation_is_0_of_equal_and_1_of_evenly_spread_embeddings():
    assert embedding_std(torch.ones(3, 4)) == 0
    both = torch.cat([torch.eye(4), -torch.eye(4)])  # every component: mean 0, variance 1 / 4
    torch.testing.assert_close(embedding_std(5 * both), torch.tensor(1.0))


def layers(module):
    """Widths of the linear layers, whether each has a bias, and the number of norms."""
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    widths = [linear[0].in_features, *(m.out_features for m in linear)]
    return widths, [m.bias is not None for m in linear], [m.affine for m in norms]


def test_heads_are_those_of_the_papers_in_proportion_to_the_network():
    network = basic_unet()  # 8 channels at the bottom, where the papers have 2,048
    assert layers(BarlowTwins(network).projector) == ([8, 32, 32, 32], [False] * 3, [True, True])
    simsiam = SimSiam(network)
    assert layers(simsiam.projector) == ([8, 8, 8, 8], [False] * 3, [True, True, False])
    assert layers(simsiam.predictor) == ([8, 2, 8], [False, True], [True])
    byol = BYOL(network)
    assert layers(byol.projector) == ([8, 16, 256], [False, True], [True])
    assert layers(byol.predictor) == ([256, 16, 256], [False, True], [True])
    assert layers(SimSiam(network, pooled_norm=True).projector)[2] == [False, True, True, False]


def test_barlow_twins_compares_both_views_of_the_network(spatial_dims):
    network = basic_unet(spatial_dims)
    twins = METHODS["barlow_twins"].objective(network)
    views = make_views(5, spatial_dims)
    told = forward(twins, network, views)
    z1, z2 = (twins.projector(encode(network, views[name])[-1]) for name in ("query", "key"))
    expected = correlation_by_hand(z1.detach(), z2.detach())
    off = expected - expected.diagonal().diag()
    loss = (1 - expected.diagonal()).square().sum() + 0.0051 * off.square().sum()
    torch.testing.assert_close(told["loss"].detach(), 0.1 * loss.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(told["diagonal"], expected.diagonal().mean().float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told["off_diagonal"], (off.abs().sum() / 30).float(), rtol=1e-3, atol=1e-4)
    for name, z in (("query", z1), ("key", z2)):
        standard = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(told[name], F.normalize(standard.detach(), dim=1))


def test_simsiam_stops_the_gradient_at_the_embeddings(spatial_dims):
    network = basic_unet(spatial_dims)
    simsiam = METHODS["simsiam"].objective(network)
    views = make_views(4, spatial_dims)
    told = forward(simsiam, network, views)
    told["loss"].backward()
    found = [p.grad.clone() for p in simsiam.parameters()]
    simsiam.zero_grad()

    z1, z2 = (simsiam.projector(encode(network, views[name])[-1]) for name in ("query", "key"))
    p1, p2 = simsiam.predictor(z1), simsiam.predictor(z2)
    loss = torch.zeros([])
    for p, z in ((p1, z2.detach()), (p2, z1.detach())):
        loss = loss - ((p / p.norm(dim=1, keepdim=True)) * (z / z.norm(dim=1, keepdim=True))).sum(1).mean() / 2
    torch.testing.assert_close(told["loss"], loss)
    torch.testing.assert_close(told["query"], F.normalize(p1, dim=1))
    torch.testing.assert_close(told["key"], F.normalize(z2, dim=1).detach())
    loss.backward()
    torch.testing.assert_close(found, [p.grad for p in simsiam.parameters()])


def test_byol_predicts_the_unit_keys_of_the_other_view(spatial_dims):
    network = genesis_unet(spatial_dims)
    byol = METHODS["byol"].objective(network)
    with torch.no_grad():
        for parameter in [*byol.key_encoder.parameters(), *byol.key_projector.parameters()]:
            parameter += 0.1 * torch.randn_like(parameter)  # no longer the network's
    views = make_views(4, spatial_dims)
    told = forward(byol, network, views)
    own = [byol.predictor(byol.projector(encode(network, views[name])[-1])) for name in ("query", "key")]
    keys = [byol.key_projector(encode(byol.key_encoder, views[name])[-1]) for name in ("query", "key")]
    own, keys = ([x / x.norm(dim=1, keepdim=True) for x in both] for both in (own, keys))
    expected = (own[0] - keys[1]).square().sum(1).mean() + (own[1] - keys[0]).square().sum(1).mean()
    torch.testing.assert_close(told["loss"], expected)
    torch.testing.assert_close(told["query"], own[0])
    torch.testing.assert_close(told["key"], keys[1])


@pytest.mark.parametrize("images", [4, 8, 16, 64])
@pytest.mark.parametrize(("rank", "ill"), [(1, True), (2, True), (64, False)])
def test_barlow_twins_tells_few_dimensions_from_independent_components(rank, ill, images):
    found = []
    for _ in range(20):
        z = torch.randn(images, rank) @ (torch.randn(rank, 64) if rank < 64 else torch.eye(64))
        correlation = cross_correlation(z, z + 0.1 * z.std() * torch.randn(images, 64))  # of two views that agree
        found.append([correlation.diagonal().mean(), (correlation.abs().sum() - correlation.trace()) / (64 * 63)])
    metrics = dict(zip(BarlowTwins.metrics, torch.tensor(found).mean(0).tolist(), strict=True))
    assert metrics["diagonal"] > 0.9
    assert ("repeat each other" in (BarlowTwins(basic_unet()).diagnose(metrics) or "")) == ill


def test_a_collapsed_simsiam_is_found_by_its_metric():
    network = basic_unet()
    simsiam = SimSiam(network).eval()  # with running statistics that fit no batch: mean 0, variance 1
    simsiam.projector[-1].running_mean -= 1000
    views = make_views(4)
    told = forward(simsiam, network, views)
    assert simsiam.diagnose({"deviation": float(told["deviation"])}) is not None
