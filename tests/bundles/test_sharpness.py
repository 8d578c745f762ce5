"""What depends on the size of the patch: how sharp views are, and how far images are bent and moved."""

import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from pretrain_bundle import ROOT, parsed

from dira_monai.phantoms.chest import chest_xray
from dira_monai.transforms.painting import OutPainting
from dira_monai.utils.seeded_random import SampleRandom, sample_seeds


def laplacian_power(images):
    """Mean square of the discrete Laplacian, of images (B, 1, H, W)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(images, kernel).square().mean().item()


def test_views_of_twice_the_patch_are_sharper():
    side = 64
    picture = torch.tensor(chest_xray(3).image, dtype=torch.float32)[None, None]
    picture = (picture + 8 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))) / 255
    power = []
    for region in ({}, {"region_size": [2 * side, 2 * side]}):
        parser = parsed(2, ["train"], patch_size=[side, side], photometric=[], **region)
        stored = F.interpolate(picture, size=parser.get_parsed_content("region_size"), mode="area")
        views = parser.get_parsed_content("views")(stored.expand(40, -1, -1, -1), sample_seeds(0, 0, 40), distort=False)
        power.append(laplacian_power(views["query"]))
    seen = laplacian_power(F.interpolate(picture, size=[side, side], mode="area"))
    assert power[0] < 0.5 * power[1] < power[1] < 2 * seen
    assert power[1] > 0.5 * seen


@pytest.mark.parametrize("name", ["train", "simclr", "byol", "barlow_twins", "gravis", "pcrlv2", "skin"])
def test_blur_is_a_share_of_the_patch(name):
    sigmas = []
    for side in (64, 224):
        views = parsed(2, ["train", name], patch_size=[side, side]).get_parsed_content("views")
        steps = [*views.photometric, *views.other_photometric]
        sigmas.append(torch.tensor([step.sigma for step in steps if hasattr(step, "sigma")]))
    torch.testing.assert_close(sigmas[1], torch.tensor([[0.1, 2.0]]).expand_as(sigmas[1]))
    torch.testing.assert_close(sigmas[0], sigmas[1] * 64 / 224)


@pytest.mark.parametrize(("spatial_dims", "name", "own"), [(3, "train", 64), (3, "transvw", 64), (2, "transvw", 128)])
def test_bending_is_a_share_of_the_patch(spatial_dims, name, own):
    for side in (own, own // 2):
        parser = parsed(spatial_dims, ["train", name], patch_size=[side] * spatial_dims)
        bent = parser.get_parsed_content("distortions")[0]
        assert (bent.magnitude, bent.smoothness) == (3.8 * side / own, 8 * side / own)


@pytest.mark.parametrize(
    ("bundle", "own"), [("segmentation_2d", 224), ("classification_2d", 224), ("classification_3d", 64)]
)
def test_fine_tuning_moves_images_by_a_share_of_them(bundle, own):
    parser = ConfigParser()
    parser.read_config(str(ROOT / f"bundles/dira_finetune_{bundle}/configs/train.json"))
    place = next(i for i, step in enumerate(parser["augmentation"]) if "translate_range" in step)
    for side in (own, own // 2):
        size = [side] * parser["spatial_dims"]
        parser.update({"image_size": size} | ({"patch_size": size} if "patch_size" in parser else {}))
        moved = parser.get_parsed_content(f"augmentation#{place}#translate_range")
        assert moved == [6 * side / own] * len(size)


@pytest.mark.parametrize(("spatial_dims", "names", "least"), [(2, ["train"], 0.4), (3, ["train"], 0.5)])
def test_out_painting_leaves_enough_to_match_two_views(spatial_dims, names, least):
    chain = parsed(spatial_dims, names).get_parsed_content("distortions")[-1]
    (painting,) = [step for step in chain.distortions if isinstance(step, OutPainting)]
    marked = torch.full((100, 1, *[64] * spatial_dims), 2.0)
    left = (painting(marked, SampleRandom(sample_seeds(0, 0, 100))) == 2).flatten(1).float().mean(1)
    assert left.min() > least
    published = parsed(3, ["train", "transvw"]).get_parsed_content("kept_window")
    assert published == parsed(3, ["train", "reference"]).get_parsed_content("kept_window") == [0.4286, 0.5714]
