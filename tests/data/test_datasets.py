from collections import Counter
from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda, Lambdad, RandRotated, ScaleIntensity, Transform
from trainer_runs import assert_same

from dira_monai.data import sampler as sampler_module
from dira_monai.data.datasets import PretrainDataset, SeededCacheDataset
from dira_monai.data.preprocessing import ToChannelsd, ToStoraged, check_intensity_range, intensity_transform
from dira_monai.data.sampler import SeededSampler
from dira_monai.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("seeded")


def make_sampler(monkeypatch, size, batch_size, process=0, processes=1, epoch=1, **options):
    monkeypatch.setattr(sampler_module, "rank", lambda: process)
    monkeypatch.setattr(sampler_module, "world_size", lambda: processes)
    sampler = SeededSampler(range(size), batch_size, **options)
    sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (10, {}),
        (3, {"epoch_length": 4}),
        (12, {"seed": 7}),
        (10, {"shuffle": False}),
        (5, {"shuffle": False, "samples": 12}),
    ],
)
def test_positions_of_two_processes_interleave_to_the_order_of_one(monkeypatch, size, options):
    alone = list(make_sampler(monkeypatch, size, 4, **options))
    first, second = (list(make_sampler(monkeypatch, size, 2, process, 2, **options)) for process in (0, 1))
    assert [pair for pairs in zip(first, second, strict=True) for pair in pairs] == alone
    assert len(alone) > 0


def test_a_single_image_a_step_is_refused_unless_it_is_enough():
    data = list(range(3))
    with pytest.raises(InputError, match="batch_size must be at least 2, since batch statistics need company, got 1"):
        SeededSampler(data, 1)
    assert sorted(index for index, _ in SeededSampler(data, 1, min_batch_size=1)) == data
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        SeededSampler(data, 0, min_batch_size=1)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("size", "batch_size", "epoch_length"), [(10, 4, None), (3, 4, None), (12, 2, 5), (50, 4, 2)])
def test_every_process_gets_full_batches(monkeypatch, size, batch_size, epoch_length, processes):
    for process in range(processes):
        sampler = make_sampler(monkeypatch, size, batch_size, process, processes, epoch_length=epoch_length)
        batches = epoch_length or -(-size // (batch_size * processes))
        assert len(list(sampler)) == len(sampler) == batches * batch_size


@pytest.mark.parametrize("size", [1, 5, 12])
def test_an_epoch_covers_all_indices_before_it_repeats_one(monkeypatch, size):
    indices = [index for index, _ in make_sampler(monkeypatch, size, 4, epoch_length=9)]
    for start in range(0, len(indices) - size + 1, size):
        assert sorted(indices[start : start + size]) == list(range(size))
    assert max(Counter(indices).values()) - min(Counter(indices).values()) <= 1


@pytest.mark.parametrize("changed", [{"epoch": 2}, {"seed": 1}])
def test_epochs_and_seeds_differ_in_order_and_seeds_and_repeat_exactly(monkeypatch, changed):
    first, again, second = (list(make_sampler(monkeypatch, 40, 4, **options)) for options in ({}, {}, changed))
    assert first == again
    assert [index for index, _ in first] != [index for index, _ in second]
    assert {seed for _, seed in first}.isdisjoint(seed for _, seed in second)
    assert len({seed for _, seed in first}) == 40
    assert [index for index, _ in first] != sorted(index for index, _ in first)


def test_validation_samples_are_the_same_in_every_epoch(monkeypatch):
    first, second = (list(make_sampler(monkeypatch, 10, 4, epoch=epoch, shuffle=False)) for epoch in (1, 2))
    assert first == second
    assert [index for index, _ in first] == list(range(10))
    training = list(make_sampler(monkeypatch, 10, 4, epoch=1))
    assert {seed for _, seed in first}.isdisjoint(seed for _, seed in training)


def test_validation_goes_through_the_data_as_often_as_its_samples_take(monkeypatch):
    pairs = list(make_sampler(monkeypatch, 3, 4, shuffle=False, samples=7))
    assert [index for index, _ in pairs] == [0, 1, 2, 0, 1, 2, 0]
    assert len({seed for _, seed in pairs}) == 7
    assert len(list(make_sampler(monkeypatch, 10, 4, shuffle=False, samples=4))) == 4


def make_dataset(images, region_size, **options):
    items = [{"image": image} for image in images]
    return PretrainDataset(items, Compose([]), region_size, **({"cache": "none"} | options))


def test_the_same_seed_gives_the_same_crop_and_others_other_crops(spatial_dims):
    image = torch.rand(2, *[12] * spatial_dims)
    dataset = make_dataset([image], [5, 4, 3][:spatial_dims])
    crops = [dataset[0, seed]["image"] for seed in range(30)]
    assert_same([dataset[0, seed]["image"] for seed in range(30)], crops)
    assert {crop.shape for crop in crops} == {(2, *[5, 4, 3][:spatial_dims])}
    assert len({crop.sum().item() for crop in crops}) > 20
    assert [dataset[0, seed]["seed"] for seed in (3, -4)] == [3, -4]
    assert_same(dataset[0], dataset[0, 0])


def test_crops_reach_every_place_of_the_image():
    image = torch.arange(7.0)[None, :, None] * 10 + torch.arange(5.0)[None, None]
    dataset = make_dataset([image], [4, 3])
    corners = Counter(dataset[0, seed]["image"][0, 0, 0].item() for seed in range(600))
    assert set(corners) == {10.0 * row + column for row in range(4) for column in range(3)}
    assert max(corners.values()) < 2.5 * min(corners.values())  # 50 each
    crop = dataset[0, 1]["image"]
    top, left = divmod(int(crop[0, 0, 0]), 10)
    assert_same(crop, image[:, top : top + 4, left : left + 3])


def test_an_axis_without_room_stays_whole(spatial_dims):
    image = torch.rand(1, *[6] * spatial_dims)
    assert_same(make_dataset([image], [6] * spatial_dims, min_foreground=0.9)[0, 5]["image"], image)
    image = torch.rand(1, 6, 9, *[6] * (spatial_dims - 2))
    crop = make_dataset([image], [6, 4, 6][:spatial_dims])[0, 3]["image"]
    left = image[0, 0].reshape(9, -1)[:, 0].tolist().index(crop.flatten()[0].item())
    assert_same(crop, image[:, :, left : left + 4])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32"])
def test_crops_prefer_foreground(dtype):
    image = torch.full((1, 64, 64), 0.02)  # air
    image[:, 24:] = 0.05
    stored = ToStoraged("image", dtype)({"image": image})["image"]
    shares = {}
    for wanted in (0.0, 0.5):
        dataset = make_dataset([stored], [16, 16], min_foreground=wanted)
        crops = [dataset[0, seed]["image"].float() / stored.max().float() for seed in range(60)]
        shares[wanted] = [(crop > 0.7).float().mean().item() for crop in crops]
    assert sum(share < 0.4 for share in shares[0.0]) > 8
    assert all(share >= 0.4 for share in shares[0.5])  # every fourth voxel is counted


def test_the_first_place_with_enough_foreground_is_taken_though_a_later_one_has_more():
    torch.manual_seed(0)
    image = torch.rand(1, 64, 64) * (torch.arange(64) / 32).clamp(max=1)[:, None].gt(torch.rand(64, 64))
    first, wanted = make_dataset([image], [32, 32]), make_dataset([image], [32, 32], min_foreground=0.5)
    pairs = [(first[0, seed]["image"], wanted[0, seed]["image"]) for seed in range(40)]
    enough = [pair for pair in pairs if (pair[0][:, ::4, ::4] > 0.03).float().mean() >= 0.5]
    assert len(enough) > 20
    for one, other in enough:
        assert_same(other, one)


def test_of_places_without_enough_foreground_the_best_is_taken():
    image = torch.zeros(1, 64, 64)
    image[:, 48:] = 1.0
    dataset = make_dataset([image], [32, 32], min_foreground=0.9)  # no place has more than half
    shares = [dataset[0, seed]["image"].mean().item() for seed in range(40)]
    first = [make_dataset([image], [32, 32])[0, seed]["image"].mean().item() for seed in range(40)]
    assert all(best >= share for best, share in zip(shares, first, strict=True))
    assert sum(shares) / 40 > 0.35
    assert sum(first) / 40 < 0.2


class Load(Transform):
    """Images by their number; counts its calls."""

    calls = 0

    def __call__(self, item):
        Load.calls += 1
        return {"image": torch.full((1, 8, 8), float(item["name"])).cumsum(1)}


@pytest.mark.parametrize(("cache", "calls"), [("ram", 3), ("none", 6)])
def test_every_cache_gives_the_same_samples(tmp_path, cache, calls):
    images = [torch.full((1, 8, 8), float(name)).cumsum(1) for name in range(3)]
    Load.calls = 0
    items = [{"name": name} for name in range(3)]
    dataset = PretrainDataset(items, Load(), [4, 4], cache=cache)
    plain = make_dataset(images, [4, 4])
    for _ in range(2):
        for index in range(3):
            assert_same(dataset[index, index + 9], plain[index, index + 9])
    assert len(dataset) == 3
    assert Load.calls == calls


def test_equal_channels_are_made_gray_and_gray_is_repeated():
    gray = torch.rand(1, 4, 5)
    color = gray.repeat(3, 1, 1)
    assert_same(ToChannelsd("image", 1)({"image": color})["image"], gray)
    assert_same(ToChannelsd("image", 3)({"image": gray})["image"], color)
    for image, channels in ((gray, 1), (color, 3)):
        assert ToChannelsd("image", channels)({"image": image})["image"] is image
    alpha = torch.cat([color, torch.ones(1, 4, 5)])
    assert_same(ToChannelsd("image", 1)({"image": alpha, "other": 3}), {"image": gray, "other": 3})


@pytest.mark.parametrize(("channels", "in_channels"), [(3, 1), (2, 1), (2, 3), (4, 2)])
def test_channels_that_differ_are_refused_with_the_name_of_the_file(channels, in_channels):
    image = MetaTensor(torch.rand(channels, 4, 4), meta={"filename_or_obj": "scan.png"})
    with pytest.raises(InputError, match=f"scan.png: has {channels} channels where in_channels is {in_channels}"):
        ToChannelsd("image", in_channels)({"image": image})
    with pytest.raises(InputError, match="image: has"):
        ToChannelsd("image", in_channels)({"image": image.as_tensor()})


@pytest.mark.parametrize(
    ("dtype", "factor", "bound"),
    [("uint8", 255, 0.5 / 255), ("int16", 32767, 0.5 / 32767), ("float16", 1, 2.0**-12), ("float32", 1, 0.0)],
)
def test_stored_images_are_near_the_originals(dtype, factor, bound):
    image = MetaTensor(torch.rand(1, 50, 50), meta={"filename_or_obj": "a"})
    image[0, 0, :2] = torch.tensor([0.0, 1.0])
    stored = ToStoraged("image", dtype)({"image": image, "path": "a"})
    assert set(stored) == {"image"}
    assert type(stored["image"]) is torch.Tensor
    assert stored["image"].dtype == getattr(torch, dtype)
    error = (stored["image"].double() / factor - image.as_tensor().double()).abs().max()
    assert error <= bound * 1.01  # float32 rounds the product
    assert stored["image"][0, 0, :2].tolist() == [0, factor]


def test_an_unknown_type_is_refused():
    with pytest.raises(InputError, match="dtype must be one of uint8, int16, float16, float32, got 'int8'"):
        ToStoraged("image", "int8")


def test_intensity_range_maps_its_ends_to_0_and_1_and_clips():
    image = torch.tensor([[[-3000.0, -1000.0, 0.0, 500.0, 1000.0, 3000.0]]])
    scaled = intensity_transform("image", [-1000, 1000])({"image": image})["image"]
    torch.testing.assert_close(torch.as_tensor(scaled), torch.tensor([[[0.0, 0.0, 0.5, 0.75, 1.0, 1.0]]]))


def test_without_a_range_each_image_has_its_own_percentiles():
    image = torch.arange(1001.0).reshape(1, 7, 143)
    for factor in (1.0, 30.0):
        scaled = torch.as_tensor(intensity_transform("image", None)({"image": factor * image})["image"])
        expected = ((image - 5) / 990).clamp(0, 1)  # percentiles 0.5 and 99.5 of 0..1000
        torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-4)


def items_with(*ranges):
    return [{"image": f"{i}.nii.gz", "range": list(values)} for i, values in enumerate(ranges)]


@pytest.mark.parametrize(
    ("values", "intensity_range"),
    [
        ((0, 255), (-1000, 1000)),  # MR or photographs in a CT window
        ((0, 400), (-1000, 1000)),
        ((0, 65535), (0, 255)),  # 16 bits read as 8
        ((0, 4095), (0, 255)),
        ((0, 1), (0, 255)),
        ((2000, 3000), (-1000, 1000)),  # outside
    ],
)
def test_values_that_do_not_suit_the_intensity_range_are_refused(values, intensity_range):
    message = rf"0\.nii\.gz: values from {values[0]} to {values[1]} do not suit intensity_range \[.*in 2 of 3 images"
    with pytest.raises(InputError, match=message):
        check_intensity_range(items_with(values, intensity_range, values), intensity_range)


@pytest.mark.parametrize(
    ("values", "intensity_range"),
    [
        ((-1024, 3071), (-1000, 1000)),  # CT
        ((-1000, 400), (-1000, 1000)),
        ((0, 255), (0, 255)),
        ((10, 180), (0, 255)),
        ((0, 65535), (0, 65535)),
        ((0, 400), None),  # percentiles suit everything
    ],
)
def test_values_that_suit_the_intensity_range_are_accepted(values, intensity_range):
    check_intensity_range(items_with(values, values), intensity_range)


def test_some_odd_images_are_no_reason_to_refuse():
    check_intensity_range(items_with((-1024, 3000), (0, 255)), [-1000, 1000])
    check_intensity_range([{"image": "unknown.png"}], [-1000, 1000])
    with pytest.raises(InputError, match="in 2 of 2 images"):
        check_intensity_range([*items_with((0, 9), (0, 9)), {"image": "unknown.png"}], [-1000, 1000])


OF_MODULE = RandRotated("image", prob=1)


def rotate_by(transform):
    return lambda sample: transform(sample)


@pytest.mark.parametrize(
    "hide",
    [
        lambda random: Lambda(random),
        lambda random: Lambda(rotate_by(random)),
        lambda random: Lambdad("image", Compose([random])),
        lambda random: partial(lambda change, sample: change["a"](sample), {"a": random}),
        lambda random: Lambda(random.__call__),
        lambda random: Lambda(lambda sample: OF_MODULE(sample)),
        lambda random: Lambda(lambda sample, own=(random,): own[0](sample)),
    ],
    ids=["lambda", "closure", "compose", "dictionary", "method", "global", "default"],
)
def test_a_hidden_random_transform_is_refused(hide):
    data, random = [{"image": torch.zeros(1, 4, 4)}], RandRotated("image", prob=1)
    SeededCacheDataset(data, Compose([random, Lambdad("image", Compose([ScaleIntensity()]))]), progress=False)
    with pytest.raises(
        InputError, match=r"the transform \w+ holds RandRotated, which no seed reaches there; name RandRo"
    ):
        SeededCacheDataset(data, Compose([random, hide(random)]), progress=False)
