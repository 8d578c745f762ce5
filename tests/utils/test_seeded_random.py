import math

import pytest
import torch

from dira_monai.utils.seeded_random import SampleRandom, sample_seeds

WRAP = 2**64 - 1


def splitmix64(state, count):
    """The published generator, in Python integers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & WRAP
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WRAP
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WRAP
        numbers.append(z ^ (z >> 31))
    return numbers


def streams(count, seed=0):
    return SampleRandom(sample_seeds(seed, 0, count))


def largest_correlation(rows):
    """The largest correlation between two different rows, without its sign."""
    return (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max()


def test_the_reference_gives_the_published_numbers():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(1234567, 3) == published


@pytest.mark.parametrize("seed", [0, 1, -1, 1234567, 2**63 - 1, -(2**63)])
def test_uniform_equals_splitmix64(seed):
    draws = SampleRandom(torch.tensor([7, seed]))
    for start in splitmix64(seed & WRAP, 3):  # one start for each call
        expected = [(z >> 40) / 2**24 for z in splitmix64(start, 6)]
        assert draws.uniform(2, 3)[1].flatten().tolist() == expected


def lowbias32(x, key):
    """The published hash, with a key added in its middle, in Python integers."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D + key) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def test_the_hash_gives_the_published_numbers():
    """Of https://nullprogram.com/blog/2018/07/31/: a bijection, which leaves zero as it is."""
    assert lowbias32(0, 0) == 0
    assert len({lowbias32(n, 0) for n in range(2**16)}) == 2**16


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1])
def test_many_numbers_equal_the_hash(seed):
    draws = SampleRandom(torch.tensor([7, seed]))
    for state in splitmix64(seed & WRAP, 2):  # one for each call
        numbers = (draws.uniform(5000)[1] * 2**24).long().tolist()
        places = [n * 0x9E3779B9 + state & 0xFFFFFFFF for n in (0, 1, 4999)]
        assert [numbers[n] for n in (0, 1, 4999)] == [lowbias32(place, state >> 32) >> 8 for place in places]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (5, 3), (-4, 100), (2**62, 7)])
def test_sample_seeds_equal_splitmix64(seed, epoch):
    base = splitmix64(splitmix64(seed & WRAP, 1)[0], epoch + 1)[-1]
    assert [number & WRAP for number in sample_seeds(seed, epoch, 4).tolist()] == splitmix64(base, 4)


def test_sample_seeds_differ_by_seed_epoch_and_position():
    seeds = torch.cat([sample_seeds(seed, epoch, 50) for seed in range(20) for epoch in range(20)])
    assert seeds.dtype == torch.int64
    assert len(seeds.unique()) == 20 * 20 * 50


def test_sample_seeds_do_not_depend_on_the_count():
    assert torch.equal(sample_seeds(1, 2, 9)[:4], sample_seeds(1, 2, 4))


def test_uniform_has_the_moments_and_the_range_of_its_distribution():
    numbers = streams(16).uniform(2**14).double()
    n = numbers.numel()
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    assert abs(numbers.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs(numbers.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)  # the variance of (U - 1/2)**2 is 1/180


@pytest.mark.parametrize("power", [6, 12, 18, 24])  # the highest six of the 24 bits, the next six, ...
def test_uniform_fills_all_bins_alike(power):
    numbers = (streams(4).uniform(2**14).double() * 2**power).long() % 64
    expected = numbers.numel() / 64
    chi_square = ((numbers.flatten().bincount(minlength=64) - expected) ** 2 / expected).sum()
    assert abs(chi_square - 63) < 4 * math.sqrt(2 * 63)


def new_streams():
    draws, everyone = streams(1), torch.arange(1)
    own = [draws.rows(everyone).uniform(4096) for _ in range(10)]
    return torch.cat(own + [draws.uniform(4096) for _ in range(10)])


@pytest.mark.parametrize(
    "rows",
    [
        lambda: streams(40).uniform(4096),
        lambda: SampleRandom(torch.arange(40)).uniform(4096),  # RandDistortiond has small seeds
        lambda: torch.cat([draws.uniform(4096) for draws in [streams(1)] for _ in range(40)]),
        new_streams,
    ],
    ids=["samples", "samples of small seeds", "calls", "streams of rows"],
)
def test_streams_are_independent(rows):
    assert largest_correlation(rows()) < 5 / math.sqrt(4096)


def test_neighboring_numbers_are_independent():
    numbers = streams(1).uniform(2**16 + 8)[0]
    rows = torch.stack([numbers[lag : lag + 2**16] for lag in range(8)])
    assert largest_correlation(rows) < 4.5 / math.sqrt(2**16)


def test_a_sample_draws_the_same_in_any_batch():
    seeds = sample_seeds(3, 1, 6)
    together, alone, mixed = SampleRandom(seeds), SampleRandom(seeds[4:5]), SampleRandom(seeds[[4, 0, 2]])
    for draw in ("uniform", "normal", "uniform"):
        first = getattr(together, draw)(5, 3)[4]
        assert torch.equal(first, getattr(alone, draw)(5, 3)[0])
        assert torch.equal(first, getattr(mixed, draw)(5, 3)[0])


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3, 1)])
@pytest.mark.parametrize("samples", [0, 1, 3])
def test_shapes(samples, shape):
    draws = streams(samples)
    for numbers in (draws.uniform(*shape), draws.normal(*shape)):
        assert numbers.shape == (samples, *shape)
        assert numbers.dtype == torch.float32
    assert draws.bernoulli(0.5).shape == (samples,)


def test_bounds_stretch_the_unit_interval():
    expected = -0.5 + 2.5 * streams(3).uniform(50)
    torch.testing.assert_close(streams(3).uniform(50, low=-0.5, high=2.0), expected)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_a_given_device_changes_no_number(draw):
    numbers = getattr(streams(3), draw)(4, device=torch.device("cpu"))
    assert torch.equal(numbers, getattr(streams(3), draw)(4))


def test_normal_has_the_moments_and_the_shares_of_its_distribution():
    numbers = streams(16).normal(2**14).double()
    n = numbers.numel()
    z = (numbers - numbers.mean()) / numbers.std()
    assert abs(numbers.mean()) < 4 / math.sqrt(n)
    assert abs(numbers.std() - 1) < 4 / math.sqrt(2 * n)
    assert abs((z**3).mean()) < 4 * math.sqrt(6 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(24 / n)
    for limit in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(limit / math.sqrt(2))
        bound = 4 * math.sqrt(share * (1 - share) / n)
        assert abs((numbers.abs() > limit).double().mean() - share) < bound


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.8, 1.0])
def test_chance(probability):
    n = 20000
    chosen = streams(n).bernoulli(probability)
    assert chosen.dtype == torch.bool
    assert abs(chosen.double().mean() - probability) <= 4 * math.sqrt(probability * (1 - probability) / n)


def test_rows_follow_the_sample_and_not_its_place():
    seeds = sample_seeds(0, 0, 5)
    everyone = SampleRandom(seeds).rows(torch.arange(5)).uniform(8)
    assert torch.equal(SampleRandom(seeds).rows(torch.tensor([3, 1])).uniform(8), everyone[[3, 1]])
    assert torch.equal(SampleRandom(seeds[[4, 3]]).rows(torch.tensor([1])).uniform(8), everyone[[3]])
    assert SampleRandom(seeds).rows(torch.tensor([], dtype=torch.long)).uniform(8).shape == (0, 8)
