import math

import pytest
import torch
from random_images import numbered, random_images, streams

from dira_monai.transforms.compose import OneOf
from dira_monai.transforms.intensity import GaussianBlur, GaussianNoise, NonlinearIntensity
from dira_monai.transforms.masking import Masking
from dira_monai.transforms.painting import FILLS, InPainting, OutPainting, draw_boxes, paste, union_mask
from dira_monai.transforms.shuffling import BlockShuffling, LocalPixelShuffling, _overwrite


@pytest.fixture(params=[(24, 20), (12, 10, 14)])
def shape(request):
    return request.param


def coordinates(numbers, shape):
    """Where the voxels with these numbers are, one more axis at the end."""
    return torch.stack(torch.unravel_index(numbers.long(), shape), dim=-1)


def box_lengths(mask):
    """Lengths along each axis of the one box that the mask (*shape) consists of."""
    places = mask.nonzero()
    lengths = places.max(0).values - places.min(0).values + 1
    assert lengths.prod() == len(places)
    return lengths.tolist()


def same_voxels(changed, images):
    """Which samples hold the same values as before, in any order."""
    return (changed.flatten(1).sort().values == images.flatten(1).sort().values).all(1)


def test_boxes_have_all_lengths_and_all_places(shape):
    start, length, used = draw_boxes(streams(500), shape, 4, (0.2, 0.5), margin=0.1)
    assert used.all()
    for axis, extent in enumerate(shape):
        margin = round(0.1 * extent)
        allowed = set(range(round(0.2 * extent), round(0.5 * extent) + 1))
        assert set(length[..., axis].unique().tolist()) == allowed
        assert start[..., axis].min() == margin
        assert (start + length)[..., axis].max() == extent - margin


def test_lengths_and_places_of_boxes_are_uniform_and_independent(shape):
    start, length, _ = draw_boxes(streams(1000), shape, 4, (0.2, 0.5))
    low, high = (torch.tensor([round(share * n) for n in shape]) for share in (0.2, 0.5))
    room = torch.tensor(shape) - length
    place = (start + 0.5) / (room + 1)
    for share in ((length - low + 0.5) / (high - low + 1), place):
        torch.testing.assert_close(share.mean((0, 1)), torch.full([len(shape)], 0.5), rtol=0, atol=4 / math.sqrt(48000))
    rows = torch.cat([length.float().flatten(1), place.flatten(1)], 1).T
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 5 / math.sqrt(1000)


def test_boxes_larger_than_the_room_give_up_the_margin():
    start, length, _ = draw_boxes(streams(50), (10, 4), 1, (0.9, 1.5), margin=0.3)
    assert length[..., 0].min() == 9
    assert length[..., 1].unique().tolist() == [4]
    assert start.min() == 0
    assert ((start + length) <= torch.tensor([10, 4])).all()


def test_the_published_stop_rule_uses_six_and_a_half_boxes(shape):
    n = 4000
    used = draw_boxes(streams(n), shape, 10, (0.1, 0.3), stop=0.1).used
    number = used.sum(1)
    assert torch.equal(used, torch.arange(10) < number[:, None])  # the first ones are used
    expected = (1 - 0.9**10) / 0.1  # 6.5
    assert abs(number.float().mean() - expected) < 4 * number.float().std() / math.sqrt(n)
    for boxes in (1, 2, 5):
        share = 0.1 * 0.9 ** (boxes - 1)
        assert abs((number == boxes).float().mean() - share) < 4 * math.sqrt(share / n)
    for stop, expected in ((0.0, 6), (1.0, 1)):
        assert draw_boxes(streams(50), shape, 6, (0.1, 0.3), stop=stop).used.sum(1).eq(expected).all()


def test_box_mask_is_the_inside_of_the_box(shape):
    boxes = draw_boxes(streams(30), shape, 3, (0.1, 0.6), stop=0.5)
    for n in range(3):
        masks = union_mask(boxes.one(n), shape, torch.device("cpu"))
        for mask, start, length, used in zip(masks, *(part[:, n] for part in boxes), strict=True):
            expected = torch.zeros(1, *shape, dtype=torch.bool)
            inside = [slice(a, a + b) for a, b in zip(start.tolist(), length.tolist(), strict=True)]
            expected[(0, *inside)] = used
            assert torch.equal(mask, expected)
    masks = torch.stack([union_mask(boxes.one(n), shape, torch.device("cpu")) for n in range(3)])
    assert torch.equal(union_mask(boxes, shape, torch.device("cpu")), masks.any(0))


@pytest.mark.parametrize("painting", [InPainting, OutPainting])
def test_one_box_of_a_fixed_size(painting, shape):
    images = random_images(40, shape, low=0.1)
    changed = painting(1, (0.5, 0.5), margin=0.1)(images, streams(40))
    kept = changed == images
    assert changed[~kept].eq(0).all()
    for mask in (~kept if painting is InPainting else kept)[:, 0]:
        assert box_lengths(mask) == [n // 2 for n in shape]
        for axis, n in enumerate(shape):
            margin = round(0.1 * n)
            assert mask.movedim(axis, 0)[[*range(margin), *range(n - margin, n)]].logical_not().all()


@pytest.mark.parametrize(("shape", "lowest", "highest"), [((56, 56), 10, 70), ((28, 28, 28), 40, 70)])
def test_in_painting_as_published_takes_a_bounded_share(shape, lowest, highest):
    images = random_images(64, shape, low=0.1)
    changed = InPainting(10, (lowest / 224, highest / 224))(images, streams(64))
    share = changed.eq(0).flatten(1).float().mean(1)
    smallest, largest = ((round(side / 224 * shape[0]) / shape[0]) ** len(shape) for side in (lowest, highest))
    assert share.min() >= smallest
    assert share.max() <= 10 * largest
    assert share.max() > largest  # many boxes, not one
    assert torch.equal(changed[changed != 0], images[changed != 0])


def test_in_and_out_painting_share_the_image_between_them(shape):
    images = random_images(40, shape, low=0.1)
    holes, windows = (p(5, (0.2, 0.5))(images, streams(40)) for p in (InPainting, OutPainting))
    assert torch.equal(holes + windows, images)
    assert (holes == 0).logical_xor(windows == 0).all()
    assert torch.equal(OutPainting(1, (1.0, 1.0))(images, streams(40)), images)  # a window of the whole image


@pytest.mark.parametrize("painting", [InPainting, OutPainting])
def test_fill_with_noise(painting, shape):
    images = torch.full((40, 1, *shape), 2.0)
    changed = painting(3, (0.4, 0.5), fill="noise")(images, streams(40))
    noise = changed[changed != 2]
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 4 / math.sqrt(12 * len(noise))
    assert abs(noise.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / len(noise))
    assert len(noise.unique()) > 0.98 * len(noise)


def test_fill_with_one_constant_a_box(shape):
    images = torch.full((200, 1, *shape), 2.0)
    one = InPainting(1, (0.3, 0.3), fill="constant")(images, streams(200))
    values = torch.stack([changed[changed != 2].unique() for changed in one])
    assert values.shape == (200, 1)
    assert abs(values.mean() - 0.5) < 4 / math.sqrt(12 * 200)
    assert values.min() < 0.05
    assert values.max() > 0.95
    several = InPainting(3, (0.3, 0.3), stop=0.0, fill="constant")(images, streams(200))
    numbers = torch.tensor([len(changed[changed != 2].unique()) for changed in several])
    assert set(numbers.tolist()) <= {1, 2, 3}
    assert numbers.float().mean() > 2.5  # a box is seldom hidden by a later one
    outside = OutPainting(2, (0.3, 0.5), fill="constant")(images, streams(200))
    assert all(len(changed[changed != 2].unique()) == 1 for changed in outside)


def test_block_shuffling_keeps_every_voxel(shape):
    images = numbered(64, shape)
    changed = BlockShuffling(10, (0.1, 0.4))(images, streams(64))
    assert same_voxels(changed, images).all()
    assert (changed != images).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("shape", "share", "sides"),
    [
        ((24, 20), 0.25, [6, 5]),
        ((12, 10, 14), 0.4, [5, 4, 6]),
        ((12, 10, 14), 0.05, [1, 1, 1]),
        ((95, 3), 0.3, [29, 1]),  # 28.5 voxels in float64, a little more in float32
    ],
)
def test_one_swap_puts_each_block_in_the_place_of_the_other(shape, share, sides):
    images = numbered(60, shape)
    changed = BlockShuffling(1, (share, share))(images, streams(60))
    swapped = (changed != images).flatten(1).any(1)
    assert swapped.float().mean() > 0.9  # seldom does no try find room
    for sample in changed[swapped, 0]:
        move = sample - images[0, 0]
        there, back = move.max(), move.min()
        assert there == -back
        assert set(move.unique().tolist()) <= {back.item(), 0.0, there.item()}
        first, second = (move == there).nonzero(), (move == back).nonzero()
        assert box_lengths(move == there) == box_lengths(move == back) == sides  # whole blocks, so they are apart
        assert torch.equal(coordinates(sample[tuple(first.T)], shape), second)
        assert torch.equal(coordinates(sample[tuple(second.T)], shape), first)


def test_swapped_blocks_have_all_lengths(shape):
    images = numbered(400, shape)
    changed = BlockShuffling(1, (0.1, 0.3))(images, streams(400))
    lengths = torch.tensor([box_lengths(move) for move in (changed > images)[:, 0] if move.any()])
    for axis, n in enumerate(shape):
        assert lengths[:, axis].unique().tolist() == list(range(round(0.1 * n), round(0.3 * n) + 1))


@pytest.mark.parametrize("behavior", ["corrected", "reference"])
def test_swaps_follow_each_other_as_slices_of_numpy_do(shape, behavior):
    shuffling = BlockShuffling(6, (0.2, 0.4), behavior)
    images = torch.rand(3, 2, *shape)
    first, second, used = shuffling._pairs(streams(3), shape)
    expected = images.numpy().copy()
    for n, image in enumerate(expected):
        source = image.copy() if behavior == "reference" else image
        for start, length, other in zip(
            first.start[n][used[n]], first.length[n][used[n]], second[n][used[n]], strict=True
        ):
            a, b = (tuple(slice(int(s), int(s + m)) for s, m in zip(x, length, strict=True)) for x in (start, other))
            from_a, from_b = source[:, *a].copy(), source[:, *b].copy()
            image[:, *a] = from_b
            image[:, *b] = from_a
    assert torch.equal(shuffling(images, streams(3)), torch.from_numpy(expected))
    by_index = shuffling._swapped_by_index(images, first, second, used)  # as on a GPU
    assert torch.equal(by_index, torch.from_numpy(expected))


def test_boxes_are_pasted_as_their_union_says(shape):
    images, source = torch.rand(2, 30, 2, *shape).unbind()
    boxes = draw_boxes(streams(30), shape, 3, (0.1, 0.6), stop=0.5)
    expected = torch.where(union_mask(boxes, shape, torch.device("cpu")), source, images)
    paste(images.numpy(), source.numpy(), boxes)
    assert torch.equal(images, expected)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", [InPainting, OutPainting])
def test_painting_where_images_lie_is_that_of_a_gpu(kind, fill, shape):
    painting, images = kind(3, (0.2, 0.5), fill=fill), torch.rand(8, 2, *shape)
    before = images.clone()
    assert torch.equal(painting(images, streams(8)), painting.changed(images, streams(8)))
    assert torch.equal(images, before)


def test_the_last_of_several_values_at_a_place_is_kept():
    images, place = torch.zeros(2, 5), torch.tensor([1, 3, 1, 3, 1], dtype=torch.int32)
    values = torch.tensor([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    assert _overwrite(images, place, values).tolist() == [[0, 5, 0, 4, 0], [0, 10, 0, 9, 0]]
    assert images.sum() == 0


@pytest.mark.parametrize(
    "change",
    [
        LocalPixelShuffling(300, 0.3),
        BlockShuffling(6, (0.2, 0.4)),
        GaussianBlur((0.5, 1.5), 0.6),
        NonlinearIntensity(),
        OneOf([NonlinearIntensity(), InPainting(2, (0.2, 0.5)), GaussianNoise()], [0.3, 0.3, 0.3]),
    ],
)
def test_what_changes_images_where_they_lie_does_as_on_a_gpu(change, shape):
    images = torch.rand(12, 2, *shape)
    before = images.clone()
    torch.testing.assert_close(change(images, streams(12)), change.changed(images, streams(12)))
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(2, 1), (1, 1, 2)])
def test_block_shuffling_tries_until_it_finds_room(shape):
    images = numbered(4000, shape)
    swapped = BlockShuffling(1, (0.5, 0.5))(images, streams(4000)) != images
    share = swapped.flatten(1).all(1).float().mean()
    whole = numbered(20, (4, 4, 4))  # here no pair has room
    assert torch.equal(BlockShuffling(10, (0.75, 0.75))(whole, streams(20)), whole)
    assert 1 > share > 1 - 3 * 2**-8  # each of the eight tries finds the other voxel with probability 1/2


def test_reference_block_shuffling_doubles_and_loses_content(shape):
    images = numbered(64, shape)
    one = BlockShuffling(1, (0.4, 0.4), behavior="reference")(images, streams(64))
    assert 0 < same_voxels(one, images).sum() < 64  # blocks overlap in some samples
    many = BlockShuffling(10, (0.1, 0.2), behavior="reference")(images, streams(64))
    assert same_voxels(many, images).float().mean() < 0.5  # blocks are read from the undistorted image
    assert many.min() >= 0
    assert many.max() < math.prod(shape)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_pixels_come_from_within_one_block(shape, count):
    images = numbered(20, shape)
    changed = LocalPixelShuffling(count, 0.25)(images, streams(20))
    distance = (coordinates(changed, shape) - coordinates(images, shape)).abs()
    largest = distance.flatten(0, -2).max(0).values
    longest = torch.tensor([round(0.25 * n) for n in shape])
    assert (largest < longest).all()
    if count == 300:
        assert torch.equal(largest, longest - 1)


def test_one_pixel_block_is_a_permutation_of_its_own_voxels(shape):
    images = numbered(200, shape)
    changed = LocalPixelShuffling(1, 0.5)(images, streams(200))
    assert same_voxels(changed, images).all()
    moved = (changed != images).flatten(1).sum(1)
    block = math.prod((round(0.5 * n) + 1) / 2 for n in shape)  # mean number of voxels, of which one stays in place
    assert abs(moved.float().mean() - (block - 1)) < 4 * moved.float().std() / math.sqrt(200)


def test_all_orders_of_a_pixel_block_are_equally_likely():
    images = numbered(8000, (3, 1))
    changed = LocalPixelShuffling(1, 1.0)(images, streams(8000))[:, 0, :, 0]
    whole = changed[(changed[:, 0] != 0) & (changed[:, 2] != 2)]  # only a block of three voxels moves both ends
    orders, counts = whole.unique(dim=0, return_counts=True)
    assert orders.tolist() == [[1, 2, 0], [2, 0, 1], [2, 1, 0]]
    expected = 8000 / 3 / 6  # a third of the blocks has three voxels, which have six orders
    assert (counts - expected).abs().max() < 4 * math.sqrt(expected)


def test_more_pixel_blocks_change_more_voxels(shape):
    images = numbered(10, shape)
    shares = [
        (LocalPixelShuffling(n, 0.25)(images, streams(10)) != images).float().mean().item() for n in (1, 10, 100, 1000)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert shares[-1] > 0.7


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 6)])
def test_ten_thousand_pixel_blocks_of_models_genesis(shape):
    images = numbered(1, shape)
    changed = LocalPixelShuffling(10_000, 0.3)(images, streams(1))
    distance = (coordinates(changed, shape) - coordinates(images, shape)).abs().flatten(0, -2).max(0).values
    assert distance.tolist() == [round(0.3 * n) - 1 for n in shape]
    assert (changed != images).float().mean() > 0.5


def paint(value):
    return lambda images, draws: torch.full_like(images, value)


@pytest.mark.parametrize("probabilities", [(0.3, 0.05, 0.3), (0.25, 0.25, 0.5), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_one_of_chooses_with_the_probabilities(probabilities, spatial_dims):
    n = 4000
    images = torch.rand(n, 1, *[2] * spatial_dims, generator=torch.Generator().manual_seed(0))
    changed = OneOf([paint(v) for v in (2.0, 3.0, 4.0)], probabilities)(images, streams(n)).flatten(1)
    rest = torch.ones(n, dtype=torch.bool)
    for value, probability in zip((2, 3, 4), probabilities, strict=True):
        chosen = (changed == value).all(1)
        rest &= ~chosen
        assert abs(chosen.float().mean() - probability) <= 4 * math.sqrt(probability * (1 - probability) / n)
    assert torch.equal(changed[rest], images.flatten(1)[rest])
    assert rest.any() == (sum(probabilities) < 1)


def test_one_of_gives_each_distortion_only_its_own_samples():
    sizes = []

    def count(images, draws):
        assert len(images) == len(draws.seeds)
        sizes.append(len(images))
        return images

    one_of = OneOf([count, count], [0.5, 0.5])
    for batch in range(20):
        one_of(torch.rand(3, 1, 2, 2), streams(3, batch))
    assert sum(sizes) == 20 * 3
    assert min(sizes) > 0  # one without samples is not called


def test_one_of_begins_independent_streams():
    drawn = []

    def draw(images, draws):
        drawn.append(draws.uniform())
        return images

    n = 2000
    draws = streams(n)
    for _ in range(3):
        OneOf([draw], [1.0])(torch.zeros(n, 1, 1), draws)
    drawn.append(draws.uniform())
    assert (torch.corrcoef(torch.stack(drawn)) - torch.eye(4)).abs().max() < 4.5 / math.sqrt(n)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.75, 9), (0.5, 6), (0.01, 1), (0.99, 11)])
@pytest.mark.parametrize(("shape", "block"), [((12, 8), (3, 3)), ((6, 8, 3), (2, 4, 2))])  # 4 x 3 and 3 x 2 x 2 blocks
def test_masking_hides_so_many_blocks_of_every_sample(shape, block, ratio, hidden):
    images = random_images(50, shape, low=0.1)
    masked, mask = Masking(ratio, block, fill=0.05)(images, streams(50))
    assert mask.shape == images.shape
    assert mask.dtype == torch.bool
    assert torch.equal(masked, torch.where(mask, torch.tensor(0.05), images))
    corners = mask[(slice(None), 0, *(slice(None, None, b) for b in block))]  # the first voxel of each block
    assert (corners.flatten(1).sum(1) == hidden).all()
    places = torch.cartesian_prod(*map(torch.arange, shape))
    whole = corners[(slice(None), *(places // torch.tensor(block)).T)].reshape(50, *shape)
    assert torch.equal(mask[:, 0], whole)  # blocks are hidden as a whole, those that the border cuts as well
    assert len(corners.flatten(1).unique(dim=0)) > 5


def test_every_block_is_hidden_equally_often_and_one_mask_serves_all_channels():
    images = random_images(4000, (4, 4), low=0.1).expand(-1, 2, -1, -1)
    masked, mask = Masking(0.25, (2, 2))(images, streams(4000))
    share = mask[:, 0, ::2, ::2].float().mean(0)
    torch.testing.assert_close(share, torch.full((2, 2), 0.25), rtol=0, atol=4 * math.sqrt(0.25 * 0.75 / 4000))
    assert mask.shape == (4000, 1, 4, 4)
    assert torch.equal(masked[:, 0] == 0, mask[:, 0])
    assert torch.equal(masked[:, 0], masked[:, 1])
