import copy
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from random_images import random_images

from dira_monai.transforms.compose import OneOf
from dira_monai.transforms.dictionary import RandDistortiond
from dira_monai.transforms.intensity import GaussianBlur, GaussianNoise, IntensityJitter, NonlinearIntensity
from dira_monai.transforms.masking import Masking
from dira_monai.transforms.painting import InPainting, OutPainting
from dira_monai.transforms.shuffling import BlockShuffling, LocalPixelShuffling
from dira_monai.transforms.spatial import ElasticDeformation, RandomResizedCrop
from dira_monai.transforms.views import Views, to_unit
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom, sample_seeds

# every change, such that it acts on every sample, for patches of any number of axes
CHANGES = {
    "crop": lambda shape: RandomResizedCrop(shape),
    "elastic": lambda shape: ElasticDeformation(1.0, 1.5),
    "jitter": lambda shape: IntensityJitter(0.4, 0.4, gamma=0.5, probability=1.0),
    "blur": lambda shape: GaussianBlur(probability=1.0),
    "nonlinear": lambda shape: NonlinearIntensity(),
    "in-painting": lambda shape: InPainting(10, (0.1, 0.3)),
    "in-painting constant": lambda shape: InPainting(3, (0.1, 0.3), fill="constant"),
    "out-painting": lambda shape: OutPainting(2, (0.5, 0.8)),
    "blocks": lambda shape: BlockShuffling(5, (0.1, 0.3)),
    "blocks reference": lambda shape: BlockShuffling(5, (0.1, 0.3), behavior="reference"),
    "pixels": lambda shape: LocalPixelShuffling(
        20, 0.4 if max(shape) < 10 else 0.08
    ),  # of large blocks tables are huge
    "one of": lambda shape: OneOf([GaussianBlur((1, 2), 1.0), InPainting(10, (0.1, 0.3))], [0.5, 0.5]),
}
NOISES = {  # one number a voxel, not the same in each channel
    "noise": lambda shape: GaussianNoise(0.2, probability=1.0),
    "in-painting noise": lambda shape: InPainting(2, (0.2, 0.4), fill="noise"),
    "out-painting noise": lambda shape: OutPainting(2, (0.5, 0.8), fill="noise"),
}
SPLITS = [[1, 1, 1, 1, 1], [2, 3], [4, 1]]


@pytest.fixture(params=[(9, 7), (5, 7, 6)])
def shape(request):
    return request.param


def erase(images, draws):
    return torch.zeros_like(images)


def keep(images, draws):
    return images


def views_of_all_kinds(shape, **options):
    return Views(
        RandomResizedCrop(shape),
        [IntensityJitter(gamma=0.2), GaussianBlur(), GaussianNoise()],
        [
            ElasticDeformation(1.0, 1.5),
            OneOf(
                [InPainting(10, (0.1, 0.3)), OutPainting(2, (0.5, 0.8)), LocalPixelShuffling(20, 0.4)], [0.3, 0.3, 0.4]
            ),
        ],
        flip_axes=range(len(shape)),
        **options,
    )


def views_of_many(shape, **options):
    """Four views, two small ones, and a masked first one."""
    small = RandomResizedCrop([n // 2 for n in shape], scale=(0.1, 0.3))
    masking = Masking(0.5, [2] * len(shape))
    return views_of_all_kinds(
        shape, **{"count": 4, "local_crop": small, "local_count": 2, "masking": masking} | options
    )


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def assert_equal_but_for_rounding(found, expected, atol=1e-6):
    """Images in [0, 1] agree to 1e-6: the last bits of a matrix product depend on the batch on some CPUs."""
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def assert_same_on_any_split(change, images, seeds):
    """Each sample's result, a tuple of tensors, is the same in every batch."""
    together = change(images, seeds)
    for split in SPLITS:
        parts = [change(a, b) for a, b in zip(images.split(split), seeds.split(split), strict=True)]
        for whole, pieces in zip(together, zip(*parts, strict=True), strict=True):
            assert_equal_but_for_rounding(torch.cat(pieces), whole)
    reverse = change(images.flip(0), seeds.flip(0))
    for whole, backwards in zip(together, reverse, strict=True):
        assert_equal_but_for_rounding(backwards.flip(0), whole)


@pytest.mark.parametrize("name", CHANGES | NOISES)
def test_a_sample_is_changed_the_same_in_any_batch(name, shape):
    change = (CHANGES | NOISES)[name](shape)
    assert_same_on_any_split(
        lambda images, seeds: (change(images, SampleRandom(seeds)),), random_images(5, shape, 2), sample_seeds(0, 0, 5)
    )


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", CHANGES | NOISES)
@pytest.mark.parametrize("shape", [(183, 181), (33, 35, 31)])  # threads share the work from 32,768 voxels on
def test_a_large_sample_is_changed_the_same_in_any_batch(name, shape):
    change = (CHANGES | NOISES)[name](shape)
    images, seeds = random_images(2, shape), sample_seeds(0, 0, 2)
    together = change(images, SampleRandom(seeds))
    for sample in range(2):
        alone = change(images[sample : sample + 1], SampleRandom(seeds[sample : sample + 1]))
        # float32 holds a position of 183 pixels to 1.5e-5 of a pixel, in which the image changes by less than 1
        assert_equal_but_for_rounding(alone[0], together[sample], atol=1.5e-5)


@pytest.mark.parametrize("make", [views_of_all_kinds, views_of_many])
def test_views_of_a_sample_are_the_same_in_any_batch(make, shape):
    views = make(shape)
    assert_same_on_any_split(
        lambda images, seeds: tuple(views(images, seeds).values()),
        random_images(5, [n + 3 for n in shape], 2),
        sample_seeds(0, 0, 5),
    )


@pytest.mark.parametrize("name", CHANGES | NOISES)
def test_each_sample_of_a_batch_has_its_own_parameters(name, shape):
    images = random_images(1, shape).repeat(6, 1, *[1] * len(shape))
    changed = (CHANGES | NOISES)[name](shape)(images, SampleRandom(sample_seeds(0, 0, 6)))
    assert len(torch.cat([changed, images[:1]]).flatten(1).unique(dim=0)) == 7  # none is like another or unchanged


@pytest.mark.parametrize("name", CHANGES | NOISES)
def test_a_change_leaves_its_input_alone_and_stays_in_range(name, shape):
    images = random_images(20, shape, 2).mul(3).sub(1).clamp(0, 1)  # a third is 0, a third is 1
    before = images.clone()
    changed = (CHANGES | NOISES)[name](shape)(images, SampleRandom(sample_seeds(0, 0, 20)))
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-6  # weights of interpolation sum to 1 up to rounding


@pytest.mark.parametrize("name", CHANGES)
def test_all_channels_of_a_sample_get_the_same_change(name, shape):
    images = random_images(8, shape).repeat(1, 3, *[1] * len(shape))
    changed = CHANGES[name](shape)(images, SampleRandom(sample_seeds(0, 0, 8)))
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))


@pytest.mark.parametrize(
    ("dtype", "largest"), [(torch.uint8, 255), (torch.int16, 32767), (torch.float16, 1), (torch.float64, 1)]
)
def test_to_unit_maps_the_largest_stored_value_to_one(dtype, largest):
    unit = to_unit(torch.tensor([0, largest], dtype=dtype))
    assert unit.dtype == torch.float32
    assert unit.tolist() == [0, 1]


def test_query_is_the_target_without_changes(shape):
    views = Views(RandomResizedCrop(shape), flip_axes=range(len(shape)))
    out = views(random_images(20, shape), sample_seeds(0, 0, 20))
    assert torch.equal(out["query"], out["target"])
    assert (out["key"] != out["query"]).flatten(1).any(1).all()


@pytest.mark.parametrize("target_flip", ["corrected", "reference"])
def test_flips_of_input_and_target(shape, target_flip):
    n, axis = 1000, len(shape) - 1
    images = random_images(n, shape)
    out = Views(keep, flip_axes=[axis], flip_probability=0.3, target_flip=target_flip)(images, sample_seeds(0, 0, n))
    mirrored = {}
    for view in ("query", "key"):
        same, mirror = ((out[view] == i).flatten(1).all(1) for i in (images, images.flip(axis + 2)))
        assert (same ^ mirror).all()
        mirrored[view] = mirror.float()
        assert abs(mirrored[view].mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / n)
    assert abs(torch.corrcoef(torch.stack(list(mirrored.values())))[0, 1]) < 4 / math.sqrt(n)
    assert torch.equal(out["target"], out["query"] if target_flip == "corrected" else images)


def test_flips_read_with_the_crop_are_those_after_it(shape):
    images, seeds = random_images(4, shape, channels=2), sample_seeds(0, 0, 4)
    crop = RandomResizedCrop([n // 2 for n in shape])
    views = [
        Views(step, [IntensityJitter()], flip_axes=range(len(shape)))(images, seeds)
        for step in (crop, lambda images, draws: crop(images, draws))
    ]
    assert all(torch.equal(views[0][name], view) for name, view in views[1].items())


def test_each_axis_is_flipped_by_itself(shape):
    d, n = len(shape), 1600
    images = random_images(1, shape).repeat(n, 1, *[1] * d)
    query = Views(keep, flip_axes=range(d))(images, sample_seeds(0, 0, n))["query"]
    _, counts = query.flatten(1).unique(dim=0, return_counts=True)
    share = 2.0**-d
    assert len(counts) == 2**d
    assert (counts / n - share).abs().max() < 4.5 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(
    ("options", "flipped"),
    [
        ({"flip_axes": ()}, False),
        ({"flip_axes": (0, 1), "flip_probability": 0.0}, False),
        ({"flip_axes": [0], "flip_probability": 1.0}, True),
    ],
)
def test_flips_that_are_certain(shape, options, flipped):
    images = random_images(30, shape)
    for view in Views(keep, **options)(images, sample_seeds(0, 0, 30)).values():
        assert torch.equal(view, images.flip(2) if flipped else images)


def test_the_target_is_the_clean_view(shape):
    images, seeds = random_images(20, shape), sample_seeds(0, 0, 20)
    out = views_of_all_kinds(shape)(images, seeds)
    clean = Views(RandomResizedCrop(shape), flip_axes=range(len(shape)))(images, seeds)["target"]
    assert torch.equal(out["target"], clean)
    assert (out["query"] != clean).flatten(1).any(1).all()
    assert (out["query"] != out["key"]).flatten(1).any(1).all()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_target_undergoes_the_first_photometric_steps_of_its_view(shape, steps):
    photometric = [IntensityJitter(probability=1.0), GaussianNoise(probability=1.0)]
    options = {"flip_axes": [0], "flip_probability": 1.0}
    images, seeds = random_images(4, shape), sample_seeds(0, 0, 4)
    out = Views(RandomResizedCrop(shape), photometric, [erase], target_steps=steps, **options)
    expected = Views(RandomResizedCrop(shape), photometric[:steps], **options)(images, seeds)["query"]
    made = out(images, seeds)
    assert torch.equal(made["target"], expected)
    assert made["query"].eq(0).all()
    plain = Views(RandomResizedCrop(shape), photometric, target_steps=steps, **options)(images, seeds)
    assert torch.equal(plain["query"], Views(RandomResizedCrop(shape), photometric, **options)(images, seeds)["query"])
    with pytest.raises(InputError, match="needs target_steps 0"):
        Views(keep, target_flip="reference", target_steps=1)


def test_both_views_are_distorted_unless_told_not_to(shape):
    images, seeds = random_images(4, shape), sample_seeds(0, 0, 4)
    views = Views(RandomResizedCrop(shape), [IntensityJitter(probability=1.0)], [erase])
    out = views(images, seeds)
    assert out["query"].eq(0).all()
    assert out["key"].eq(0).all()
    plain = Views(RandomResizedCrop(shape), [IntensityJitter(probability=1.0)])(images, seeds)
    for name, view in views(images, seeds, distort=False).items():
        assert torch.equal(view, plain[name])
    assert not torch.equal(plain["query"], plain["target"])
    assert torch.equal(out["target"], plain["target"])


def test_changes_are_applied_in_order_and_those_of_further_views_may_be_others():
    views = Views(keep, [lambda x, d: x + 1, lambda x, d: x * 2], [lambda x, d: x + 10, lambda x, d: x * 3])
    out = views(torch.full((1, 1, 1), 0.5), sample_seeds(0, 0, 1))
    assert out["query"] == out["key"] == ((0.5 + 1) * 2 + 10) * 3
    assert out["target"] == 0.5
    add = [lambda x, d: x + 1], [lambda x, d: x + 2]
    out = Views(keep, add[0], other_photometric=add[1], count=3)(torch.full((1, 1, 1), 0.5), sample_seeds(0, 0, 1))
    assert (out["query"], out["target"], out["key"], out["more"]) == (1.5, 0.5, 2.5, 2.5)
    none = Views(keep, add[0], other_photometric=[])(torch.ones(1, 1, 1), sample_seeds(0, 0, 1))
    assert (none["query"], none["key"]) == (2, 1)


def test_two_views_and_their_changes_are_drawn_independently(shape):
    drawn = []

    def record(images, draws):
        drawn.append(draws.uniform())
        return images

    n = 2000
    Views(record, [record, record], [record])(torch.zeros(n, 1, *[1] * len(shape)), sample_seeds(0, 0, n))
    assert [len(part) for part in drawn] == [2 * n] * 4  # both views at once
    drawn = [half for part in drawn for half in part.chunk(2)]
    assert (torch.corrcoef(torch.stack(drawn)) - torch.eye(8)).abs().max() < 4.5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("dtype", "largest", "step"),
    [(torch.uint8, 255, 1 / 255), (torch.int16, 32767, 1 / 32767), (torch.float16, 1, 2**-11), (torch.float32, 1, 0)],
)
def test_views_do_not_depend_on_how_images_are_stored(shape, dtype, largest, step):
    images, seeds = random_images(10, shape), sample_seeds(0, 0, 10)
    scaled = images * largest
    stored = (scaled if dtype.is_floating_point else scaled.round()).to(dtype)
    before = stored.clone()
    views = views_of_all_kinds(shape)
    expected = views(images, seeds)
    for name, view in views(stored, seeds).items():
        assert view.dtype == torch.float32
        torch.testing.assert_close(view, expected[name], rtol=0, atol=2 * step + 1e-6)  # jitter stretches rounding
    assert torch.equal(stored, before)


def test_views_are_plain_tensors_without_gradient(shape):
    images = MetaTensor(random_images(2, shape)).requires_grad_()
    for view in views_of_all_kinds(shape)(images, sample_seeds(0, 0, 2)).values():
        assert type(view) is torch.Tensor
        assert not view.requires_grad


def test_the_number_of_views(shape):
    images, seeds = random_images(3, [n + 3 for n in shape], 2), sample_seeds(0, 0, 3)
    found = {count: views_of_all_kinds(shape, count=count)(images, seeds) for count in (1, 2, 3, 5)}
    assert {count: set(views) for count, views in found.items()} == {
        1: {"query", "target"},
        2: {"query", "target", "key"},
        3: {"query", "target", "key", "more"},
        5: {"query", "target", "key", "more"},
    }
    assert found[5]["more"].shape == (3, 3, 2, *shape)
    for views in found.values():
        assert all(torch.equal(view, found[5][name]) for name, view in views.items() if name != "more")
    assert torch.equal(found[3]["more"], found[5]["more"][:, :1])  # those that are there stay as they are
    all_views = torch.stack([found[5]["query"], found[5]["key"], *found[5]["more"].unbind(1)], dim=1)
    assert len(all_views.flatten(0, 1).flatten(1).unique(dim=0)) == 15


def test_small_views_are_cropped_changed_and_not_distorted(shape):
    images, seeds = random_images(4, [n + 3 for n in shape]), sample_seeds(0, 0, 4)
    size = [n // 2 for n in shape]
    crop = RandomResizedCrop(size, scale=(0.1, 0.3))

    def darken(images, draws):
        return images / 2

    views = Views(keep, [darken], [lambda x, d: x * 0], local_crop=crop, local_count=3)
    local = views(images, seeds)["local"]
    assert local.shape == (4, 3, 1, *size)
    assert local.max() <= 0.5
    assert (local > 0).any()
    assert len(local.flatten(0, 1).flatten(1).unique(dim=0)) == 12
    whole = Views(keep, local_crop=lambda x, d: x, local_count=1, flip_axes=())(images, seeds)
    assert torch.equal(whole["local"][:, 0], images)


def test_masking_hides_parts_of_the_first_view_alone(shape):
    images, seeds = random_images(6, shape), sample_seeds(0, 0, 6)
    views, plain = views_of_many(shape), views_of_many(shape, masking=None)
    out, bare = views(images, seeds), plain(images, seeds)
    assert out["mask"].shape == (6, 1, *shape)
    assert torch.equal(out["query"], bare["query"].masked_fill(out["mask"], 0))
    assert torch.equal(out["whole"], bare["query"])
    assert all(torch.equal(out[name], bare[name]) for name in ("target", "key", "more", "local"))
    assert "mask" not in views(images, seeds, distort=False)  # there is nothing to restore then
    assert torch.equal(views(images, seeds, distort=False)["query"], plain(images, seeds, distort=False)["query"])


def meta_image(shape, seed=0):
    affine = torch.diag(torch.tensor([0.7, 0.8, 2.5, 1.0], dtype=torch.float64))
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(image, affine=affine, meta={"filename_or_obj": "scan.nii"})


@pytest.mark.parametrize("name", CHANGES | NOISES)
def test_rand_distortiond_is_the_batched_change(name, shape):
    distortion = (CHANGES | NOISES)[name](shape)
    transform = RandDistortiond("image", distortion).set_random_state(3)
    image = meta_image(shape)
    before = image.clone()
    changed = transform({"image": image})["image"]
    expected = distortion(image.as_tensor()[None], SampleRandom(torch.tensor([transform.seed])))[0]
    assert torch.equal(changed.as_tensor(), expected)
    assert not torch.equal(changed.as_tensor(), before.as_tensor())
    assert torch.equal(image.as_tensor(), before.as_tensor())


@pytest.mark.parametrize("kind", [MetaTensor, np.ndarray])
def test_rand_distortiond_keeps_the_kind_of_image_and_what_is_known_of_it(kind):
    image = meta_image((6, 5, 4)) if kind is MetaTensor else meta_image((6, 5, 4)).numpy()
    before = copy.copy(image)
    changed = RandDistortiond("image", InPainting(3, (0.2, 0.5)))({"image": image})["image"]
    assert isinstance(changed, kind)
    assert changed.dtype == image.dtype
    assert (image == before).all()
    assert (changed == 0).any()
    if kind is MetaTensor:
        assert torch.equal(changed.affine, image.affine)
        assert changed.meta["filename_or_obj"] == "scan.nii"


@pytest.mark.parametrize("prob", [0.0, 0.3])
def test_rand_distortiond_changes_a_share_of_the_samples(prob):
    transform = RandDistortiond("image", lambda images, draws: 1 - images, prob=prob).set_random_state(0)
    image = torch.full((1, 2, 2), 0.25)
    results = torch.stack([transform({"image": image})["image"] for _ in range(500)])
    share = results.eq(0.75).float().mean()
    assert torch.equal(results.eq(0.25), ~results.eq(0.75))
    assert abs(share - prob) <= 4 * math.sqrt(prob * (1 - prob) / 500)


def test_rand_distortiond_changes_all_keys_alike_and_no_other(shape):
    image, other = meta_image(shape), meta_image(shape, seed=1)
    transform = RandDistortiond(["a", "b", "c"], InPainting(3, (0.2, 0.5)), allow_missing_keys=True)
    out = transform.set_random_state(0)({"a": image, "b": other, "rest": image})
    assert out["rest"] is image
    assert set(out) == {"a", "b", "rest"}
    assert torch.equal(out["a"] == 0, out["b"] == 0)
    assert (out["a"] == 0).any()
    with pytest.raises(KeyError, match="Key `c`"):
        RandDistortiond(["a", "c"], keep)({"a": image})


def test_rand_distortiond_in_a_pipeline(shape):
    image = meta_image(shape)
    pipeline = Compose(
        [
            RandDistortiond("image", RandomResizedCrop(shape)),
            RandDistortiond("image", InPainting(3, (0.2, 0.5))),
            RandDistortiond("image", LocalPixelShuffling(20, 0.4), prob=0.5),
        ]
    )
    first = pipeline.set_random_state(1)({"image": image})["image"]
    second = pipeline({"image": image})["image"]
    again = pipeline.set_random_state(1)({"image": image})["image"]
    assert torch.equal(first.as_tensor(), again.as_tensor())
    other = pipeline.set_random_state(2)({"image": image})["image"]
    assert len(torch.stack([first.as_tensor(), second.as_tensor(), other.as_tensor()]).unique(dim=0)) == 3
    pipeline.set_random_state(1)({"image": image})
    seeds = [transform.seed for transform in pipeline.transforms]
    assert len(set(seeds)) == 3
