"""Metrics of the package, from formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from dira_monai import InputError
from dira_monai.metrics import psnr, rank_collapse, retrieval_accuracy, retrieval_info_nce

BASIS = torch.eye(8)


@pytest.mark.parametrize(
    ("query", "key", "temperature", "expected"),
    [
        *((BASIS[:5], BASIS[:5], t, math.log(1 + 4 * math.exp(-1 / t))) for t in (0.1, 0.2, 1.0)),  # orthogonal
        (BASIS[[2] * 6].bfloat16(), BASIS[[2] * 6].bfloat16(), 0.2, math.log(6)),  # collapsed: chance
        (BASIS[:4], BASIS[:4].roll(1, 0), 0.2, math.log(math.exp(5) + 3)),  # the own key is one of three at cosine 0
    ],
)
def test_retrieval_info_nce(query, key, temperature, expected):
    assert retrieval_info_nce(query, key, temperature) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_retrieval_accuracy_counts_the_queries_nearest_to_their_own_key():
    basis = torch.eye(8)[:4]
    assert retrieval_accuracy(basis, basis) == 1
    assert retrieval_accuracy(basis, basis[[0, 2, 1, 3]]) == 0.5
    assert retrieval_accuracy(basis, basis.roll(1, 0)) == 0
    assert retrieval_accuracy(basis[[0] * 4], basis[[0] * 4]) == 0.25  # chance


@pytest.mark.parametrize("count", [4, 8, 16])
def test_rank_collapse_of_embeddings_that_use_all_directions_is_zero(count):
    basis = torch.eye(8).repeat(2, 1)[:count]
    assert rank_collapse(basis) == pytest.approx(0, abs=1e-6)
    isotropic = F.normalize(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert rank_collapse(isotropic) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("signs", [[1.0] * 16, [1.0, -1.0] * 8])
def test_rank_collapse_of_embeddings_along_one_direction_is_one(noise, signs):
    generator = torch.Generator().manual_seed(0)
    direction = F.normalize(torch.randn(32, generator=generator), dim=0)
    noises = noise * torch.randn(16, 32, generator=generator) / math.sqrt(32)
    embeddings = F.normalize(torch.tensor(signs)[:, None] * direction + noises, dim=1)
    assert rank_collapse(embeddings) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("used", [2, 4])
def test_rank_collapse_of_embeddings_that_use_some_directions(used):
    basis = torch.eye(8)[:used].repeat(8, 1)
    assert rank_collapse(basis) == pytest.approx(1 - (used - 1) / 7, abs=1e-5)


def test_rank_collapse_of_one_sample_is_unknown():
    assert math.isnan(rank_collapse(torch.eye(8)[:1]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rank_collapse_of_embeddings_that_overflowed_is_refused(value):
    embeddings = torch.eye(8)
    embeddings[3, 2] = value
    with pytest.raises(InputError, match="embeddings are not finite, so the network has diverged; lower learning_rate"):
        rank_collapse(embeddings)


@pytest.mark.parametrize(("error", "decibel"), [(1.0, 0.0), (0.01, 20.0), (1e-4, 40.0), (0.0, 120.0)])
def test_psnr(error, decibel):
    assert psnr(error) == pytest.approx(decibel)
    assert psnr(torch.tensor(error)) == pytest.approx(decibel)
