import colorsys
import csv
import json
import math

import monai.bundle
import numpy as np
import pytest
import torch
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import Image
from pretrain_bundle import BUNDLES, SHIPPED, SMALL, parsed, run
from random_images import random_images, streams
from scipy import ndimage

from dira_monai.data.preprocessing import ToChannelsd
from dira_monai.images.reader import ScanReader
from dira_monai.transforms.color import ColorJitter, Grayscale, Solarize, luma, rotate_hue
from dira_monai.transforms.compose import Compose
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.spatial import RandomResizedCrop, RandomRotation
from dira_monai.transforms.views import Views
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom, sample_seeds
from dira_monai.visualize.tiles import GAP, TITLE, draw_panel

LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(params=[(5, 4), (3, 4, 2)])
def shape(request):
    return request.param


def pixels(images):
    """Rows of red, green and blue of each image, float64, (B, n, 3)."""
    return images.flatten(2).transpose(1, 2).double().numpy()


def rotated(rgb, turns):
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)


def edge_colors():
    """Every color of the values 0, 0.4 and 1: gray, pure, and ties of two channels."""
    levels = torch.tensor([0.0, 0.4, 1.0])
    return torch.cartesian_prod(levels, levels, levels).T[None].reshape(1, 3, 9, 3)


@pytest.mark.parametrize("turns", [0.0, 0.1, -0.27, 0.5, 1 / 3])
@pytest.mark.parametrize(
    "images", [random_images(2, (5, 4), 3), random_images(2, (3, 4, 2), 3), edge_colors()], ids=["2d", "3d", "edges"]
)
def test_hue_is_rotated_as_colorsys_does(images, turns):
    result = rotate_hue(images, torch.full([len(images)], turns))
    expected = [[rotated(rgb, turns) for rgb in image] for image in pixels(images)]
    np.testing.assert_allclose(pixels(result), expected, atol=2e-6)


def test_each_sample_has_its_own_turn(shape):
    images = random_images(1, shape, 3).repeat(3, 1, *[1] * len(shape))
    third = rotate_hue(images, torch.tensor([0.0, 1 / 3, -1 / 3]))
    torch.testing.assert_close(third[0], images[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(third[1], images[0].roll(1, 0), rtol=0, atol=1e-6)  # red becomes green
    torch.testing.assert_close(third[2], images[0].roll(-1, 0), rtol=0, atol=1e-6)


def test_color_jitter_is_brightness_contrast_saturation_and_hue_in_this_order(shape):
    images = random_images(20, shape, 3)
    changed = ColorJitter(0.4, 0.3, 0.5, 0.2, probability=0.7)(images, streams(20))
    draws = streams(20)
    on = draws.bernoulli(0.7)
    draws.calls += 1  # the jitter's own chance
    brightness, contrast = (1 + s * draws.uniform(low=-1, high=1).double().numpy() for s in (0.4, 0.3))
    draws.calls += 1  # its gamma
    saturation, hue = (s * draws.uniform(low=-1, high=1).double().numpy() for s in (0.5, 0.2))
    assert 5 < on.sum() < 20
    for n, image in enumerate(pixels(images)):
        expected = image
        if on[n]:
            bright = np.clip(image * brightness[n], 0, 1)
            mixed = np.clip(bright.mean() + contrast[n] * (bright - bright.mean()), 0, 1)
            gray = (mixed @ LUMA)[:, None]
            vivid = np.clip(gray + (1 + saturation[n]) * (mixed - gray), 0, 1)
            expected = np.array([rotated(rgb, hue[n]) for rgb in vivid])
        np.testing.assert_allclose(pixels(changed[n : n + 1])[0], expected, atol=1e-5)
    assert torch.equal(changed[~on], images[~on])


def test_saturation_keeps_gray_values_and_its_factor_is_uniform(shape):
    images = random_images(1000, shape, 3, 0.4, 0.6)
    changed = ColorJitter(0, 0, 0.4, 0, probability=1.0)(images, streams(1000))
    torch.testing.assert_close(luma(changed), luma(images))
    away, before = (pixels(x - luma(x)) for x in (changed, images))
    factor = (away * before).sum((1, 2)) / (before**2).sum((1, 2))
    np.testing.assert_allclose(away, factor[:, None, None] * before, atol=1e-5)
    assert 0.6 - 1e-4 < factor.min() < 0.61
    assert 1.39 < factor.max() < 1.4 + 1e-4
    assert abs(factor.mean() - 1) < 4 * 0.8 / math.sqrt(12 * 1000)


def test_grayscale_makes_all_channels_the_luma_and_one_channel_has_no_color_to_change(shape):
    images = random_images(4, shape, 3)
    changed = Grayscale(probability=1.0)(images, streams(4))
    np.testing.assert_allclose(pixels(changed), np.repeat((pixels(images) @ LUMA)[..., None], 3, axis=-1), atol=1e-6)
    gray, draws = images[:, :1], streams(4)
    draws.calls += 1
    expected = IntensityJitter(0.4, 0.4, probability=1.0)(gray, draws)
    assert torch.equal(ColorJitter(0.4, 0.4, 0.4, 0.4, probability=1.0)(gray, streams(4)), expected)
    assert torch.equal(Grayscale(probability=1.0)(gray, streams(4)), gray)


@pytest.mark.parametrize("channels", [1, 3])
def test_solarize_inverts_what_is_bright(shape, channels):
    images = random_images(4, shape, 3)[:, :channels]
    images[0, 0, 0] = 0.7
    changed = Solarize(0.7, probability=1.0)(images, streams(4))
    array = images.numpy()
    np.testing.assert_allclose(changed.numpy(), np.where(array >= np.float32(0.7), 1 - array, array), atol=1e-7)
    assert changed[0, 0, 0].flatten()[0] == pytest.approx(0.3)


@pytest.mark.parametrize("change", [ColorJitter(probability=0.3), Grayscale(0.3), Solarize(0.5, 0.3)])
def test_probability_is_the_share_of_changed_samples(change):
    images = random_images(2000, (2, 2), 3)
    changed = (change(images, streams(2000)) != images).flatten(1).any(1).float().mean()
    assert abs(changed - 0.3) < 0.02 + 4 * math.sqrt(0.3 * 0.7 / 2000)  # of solarizing, some have nothing bright


@pytest.mark.parametrize(
    "change", [ColorJitter(0.4, 0.4, 0.4, 0.4, 0.8), Grayscale(0.5), Solarize(0.5, 0.5), RandomRotation(30)]
)
def test_a_sample_is_changed_alike_in_any_batch(change, shape):
    images = random_images(6, shape, 3)
    together = change(images, streams(6))
    for own in (slice(0, 6, 2), slice(1, 2)):
        assert torch.equal(change(images[own], SampleRandom(sample_seeds(0, 0, 6)[own])), together[own])


def turned(image, angles, planes, mode):
    """One channel read by SciPy at places turned by each angle in its plane, one after the other."""
    matrix = np.eye(image.ndim)
    for angle, (a, b) in zip(angles, planes, strict=True):
        step = np.eye(image.ndim)
        step[a, a] = step[b, b] = math.cos(angle)
        step[b, a] = math.sin(angle)
        step[a, b] = -step[b, a]
        matrix = step @ matrix
    middle = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, middle - matrix @ middle, order=1, mode=mode)


@pytest.mark.parametrize(
    ("padding_mode", "mode"), [("zeros", "grid-constant"), ("border", "nearest"), ("reflection", "mirror")]
)
@pytest.mark.parametrize(
    ("shape", "planes"), [((9, 6), [(0, 1)]), ((6, 5, 4), [(0, 1)]), ((6, 5, 4), [(1, 2), (0, 1), (0, 2)])]
)
def test_rotation_equals_scipys(shape, planes, padding_mode, mode):
    images = random_images(4, shape, 3)
    changed = RandomRotation(40, planes, padding_mode)(images, streams(4))
    angles = streams(4).uniform(len(planes), low=-1, high=1).double() * math.radians(40)
    for n, image in enumerate(images.double().numpy()):
        for channel, result in zip(image, changed[n].numpy(), strict=True):
            expected = turned(channel, angles[n].tolist(), planes, mode)
            np.testing.assert_allclose(result, expected, atol=1e-4)
    torch.testing.assert_close(RandomRotation(0, planes, padding_mode)(images, streams(4)), images, rtol=0, atol=1e-6)


def test_a_chain_of_crop_and_rotation_comes_before_the_target(shape):
    crop, rotation = RandomResizedCrop(shape, (0.5, 1.0)), RandomRotation(30)
    images, seeds = random_images(3, shape, 3), sample_seeds(0, 0, 3)
    chain = Compose([crop, rotation])
    draws = SampleRandom(seeds)
    assert torch.equal(chain(images, SampleRandom(seeds)), rotation(crop(images, draws), draws))
    views = Views(chain, flip_axes=())(images, seeds)
    assert torch.equal(views["query"], views["target"])
    assert (views["target"] - Views(crop, flip_axes=())(images, seeds)["target"]).abs().max() > 0.1


def test_cutout_is_in_painting_of_fixed_size(shape):
    images = torch.full((50, 3, *shape), 0.5)
    side = [1 / n for n in shape]
    cut = InPainting(3, (min(side), min(side)), margin=0, stop=0)(images, streams(50))
    holes = (cut == 0).flatten(2)
    assert torch.equal(holes.any(1), holes.all(1))  # in all channels
    assert (holes.all(1).sum(1) >= 1).all()
    assert holes.all(1).sum(1).max() == 3  # three voxels, where none meet
    assert ((cut == 0) | (cut == 0.5)).all()


def test_a_panel_shows_three_channels_in_color():
    target, distorted, restored = torch.rand(3, 2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    panel = np.asarray(draw_panel(target, distorted, restored, width=6))
    assert panel.shape == (2 * TITLE + 2 * (4 + GAP), 4 * (6 + GAP) + GAP, 3)
    for row in range(2):
        for column, images in enumerate((target, distorted, restored, (restored - target).abs())):
            top, left = 2 * TITLE + row * (4 + GAP), GAP + column * (6 + GAP)
            expected = (255 * images[row]).round().permute(2, 1, 0).numpy()  # the first axis goes to the right
            assert np.abs(panel[top : top + 4, left : left + 6] - expected).max() <= 1
    assert (panel[-1, -1] == 40).all()
    assert draw_panel(target[:, :2], distorted[:, :2], restored[:, :2]).mode == "L"


def write_lesions(folder, count=5, size=40):
    """Blobs of one hue on skin of another, with a slope of brightness: PNG files in RGB."""
    folder.mkdir(parents=True)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    rng = np.random.default_rng(0)
    for number in range(count):
        place, radius = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.6)
        blob = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / radius**2)[..., None]
        hues = (rng.uniform(0.02, 0.1), 0.4, 0.9), (0.03, 0.8, 0.3)
        skin, lesion = (np.array(colorsys.hsv_to_rgb(*color)) for color in hues)
        image = (blob * lesion + (1 - blob) * skin) * (1 + 0.1 * x[..., None])
        Image.fromarray((255 * image.clip(0, 1)).round().astype(np.uint8)).save(folder / f"lesion{number}.png")
    return folder


def test_color_files_arrive_as_red_green_and_blue(tmp_path):
    folder = write_lesions(tmp_path / "skin", 1)
    Image.open(folder / "lesion0.png").convert("RGBA").save(folder / "opaque.png")
    array = np.asarray(Image.open(folder / "lesion0.png"))
    for name in ("lesion0.png", "opaque.png"):
        image = EnsureChannelFirst()(LoadImage(ScanReader, image_only=True)(str(folder / name)))
        image = ToChannelsd("image", 3)({"image": image})["image"]
        np.testing.assert_array_equal(np.asarray(image), array.transpose(2, 1, 0))
    with pytest.raises(InputError, match=r"lesion0.png: has 3 channels where in_channels is 1"):
        ToChannelsd("image", 1)({"image": EnsureChannelFirst()(LoadImage(ScanReader)(str(folder / "lesion0.png")))})


def skin_views(method, count=200, **options):
    """What skin.json after a method makes of images of one color, patches of 35 pixels."""
    parser = parsed(2, ["train", method, "skin"], patch_size=[35, 35], local_size=[20, 20], **options)
    images = torch.tensor([0.8, 0.4, 0.3])[:, None, None].expand(count, 3, 40, 40)
    return parser.get_parsed_content("views")(images, sample_seeds(0, 0, count))


@pytest.mark.parametrize("method", ["barlow_twins", "byol", "simsiam", "pcrlv2"])
def test_skin_gives_both_views_of_any_method_its_colors(method):
    views = skin_views(method)
    for images in (views["query"], views["key"]):
        gray = (images.amax(1) - images.amin(1)).amax((1, 2)) < 1e-5
        assert abs(gray.float().mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 200)  # the others cannot become gray
        assert images[~gray].std(0).mean() > 0.02


@pytest.mark.parametrize("method", ["gravis", "pcrlv2"])
def test_skin_cuts_three_holes_into_each_whole_view_and_none_into_small_ones(method):
    views = skin_views(method, rotation_degrees=0)
    for images in (views["query"], views["key"]):
        cut = (images == 0).all(1).sum((1, 2))
        assert cut.max() == 3 * 5**2  # a seventh of 35 pixels a side, where the holes do not meet
        assert cut.min() >= 5**2
    assert ("local" in views) == (method == "pcrlv2")
    assert (views.get("local", torch.ones(1)) > 0).all()


def test_skin_keeps_the_crop_of_the_method_before():
    assert parsed(2, ["train", "pcrlv2", "skin"]).get_parsed_content("views#crop#steps#0#scale") == [0.3, 1.0]
    assert parsed(2, ["train", "gravis", "skin"]).get_parsed_content("views#crop#steps#0#scale") == [0.2, 1.0]


@pytest.fixture(scope="module")
def skin_run(tmp_path_factory):
    """The folder of a finished small run on color images."""
    folder = tmp_path_factory.mktemp("skin_run")
    paths = {"output_dir": str(folder / "out"), "ckpt_dir": str(folder / "models")}
    options = SMALL | SHIPPED[2] | paths | {"dataset_dir": str(write_lesions(folder / "skin")), "views_per_image": 3}
    options |= {"max_epochs": 1, "epoch_length": 2, "restoration_weight": 1, "adversarial_weight": 0.1}
    run(2, ["train", "gravis", "skin"], options)
    return folder


def test_the_2d_bundle_trains_on_color_images(skin_run):
    with open(skin_run / "out/metrics.csv") as file:
        (row,) = csv.DictReader(file)
    names = ("contrastive", "contrastive_accuracy", "contrastive_deviation", "restoration", "adversarial", "val_loss")
    assert all(math.isfinite(float(row[name])) for name in names)
    assert 0 < float(row["contrastive"]) < 1
    weights = torch.load(skin_run / "models/model.pt", weights_only=True)
    assert weights["encoder.conv1.weight"].shape[1] == 3
    assert weights["segmentation_head.0.weight"].shape[0] == 3
    assert not json.loads((skin_run / "out/datalist.json").read_text())["skipped"]
    with Image.open(skin_run / "out/panel.png") as panel:
        assert panel.mode == "RGB"
        assert np.ptp(np.asarray(panel).astype(int), axis=2).max() > 50  # colors, not gray


def test_a_color_image_is_restored_in_color(skin_run, tmp_path):
    paths = {"ckpt_dir": str(skin_run / "models"), "output_dir": str(tmp_path)}
    image = skin_run / "skin/lesion0.png"
    config = str(BUNDLES[2] / "configs/inference.json")
    monai.bundle.run(config_file=config, image=str(image), in_channels=3, **SHIPPED[2], **paths)
    before, shown, restored = (
        np.asarray(Image.open(file), float)
        for file in (image, *(tmp_path / f"lesion0/lesion0_{name}.png" for name in ("input", "restored")))
    )
    assert restored.shape == before.shape == (40, 40, 3)
    assert np.abs(before - shown).mean() < 2
