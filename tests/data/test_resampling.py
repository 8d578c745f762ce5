"""Images and label maps on another grid, by the configurations as they are shipped: edges and borders stay."""

import nibabel as nib
import numpy as np
import pytest
import torch
from finetune_bundle import KINDS, ROOT
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Resize
from PIL import Image

from dira_monai import ResampleLabeld
from dira_monai.data.resampling import low_pass
from dira_monai.utils.errors import InputError

RADIUS = 20  # voxels of the result, along its coarsest axis
CASES = [  # file: shape and voxel size; what the configuration makes of it; radius in units of the file
    ((300, 300), (1, 1), {}, RADIUS * 300 / 224),
    ((448, 448), (1, 1), {}, RADIUS * 2),
    ((1024, 1024), (1, 1), {}, RADIUS * 1024 / 224),
    ((500, 380), (1, 1), {"image_size": [200, 190]}, RADIUS * 2.5),
    ((84, 84, 84), (1, 1, 1), {"image_size": [56, 56, 56]}, RADIUS * 1.5),
    ((90, 90, 50), (0.5, 0.5, 1), {"spacing": [1, 1, 1], "axcodes": "RAS"}, RADIUS),
    ((96, 96, 64), (0.7, 0.7, 1), {"spacing": [1, 1, 1.25], "image_size": [66, 66, 51]}, RADIUS * 1.25),
]
CLASSES = {"class_names": ["background", "ball"]}


def built(kind, name, options, *parts):
    task = "pretrain" if kind[0] == "pretrain" else f"finetune_{kind[0]}"
    parser = ConfigParser()
    parser.read_config(str(ROOT / f"bundles/dira_{task}_{kind[1]}d/configs/{name}.json"))
    parser.update(options)
    return [parser.get_parsed_content(part) for part in parts]


def distances(shape, affine, center):
    """Of the voxels of a grid from a point, in units of the affine."""
    rank = len(shape)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(grid @ affine[:rank, :rank].T + affine[:rank, -1] - center, axis=-1)


def write_ball(folder, shape, sizes, radius):
    """An image with the share of each voxel that lies in a ball, its label map, and the center."""
    center = (np.array(shape) - 1) / 2 * sizes + np.array([0.3, -0.21, 0.13])[: len(shape)]
    affine = np.diag([*sizes, *[1.0] * (4 - len(shape))])
    distance = distances(shape, affine, center)
    share, inside = np.clip((radius - distance) / min(sizes) + 0.5, 0, 1), distance < radius
    files = {key: str(folder / f"{key}{'.png' if len(shape) == 2 else '.nii'}") for key in ("image", "label")}
    if len(shape) == 2:
        Image.fromarray((255 * share.T).round().astype(np.uint8)).save(files["image"])
        Image.fromarray(255 * inside.T.astype(np.uint8)).save(files["label"])
    else:
        nib.save(nib.Nifti1Image((2000 * share - 1000).astype(np.float32), affine), files["image"])
        nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), files["label"])
    return files, inside, center


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def centroid(image):
    return np.array([(image * place).sum() / image.sum() for place in np.indices(image.shape)])


@pytest.mark.parametrize(("shape", "sizes", "options", "radius"), CASES)
def test_a_perfect_prediction_is_right_in_training_and_in_the_file(tmp_path, shape, sizes, options, radius):
    files, inside, center = write_ball(tmp_path, shape, sizes, radius)
    kind, options = ("segmentation", len(shape)), options | CLASSES
    sample = Compose(*built(kind, "train", options, "prepared"))(files)
    image, label = (sample[key][0].numpy() for key in ("image", "label"))
    np.testing.assert_allclose(centroid(label), centroid(image), atol=0.05)
    affine = sample["image"].affine.numpy()
    distance = distances(image.shape, affine, center)
    assert dice(label > 0, distance < radius) >= 0.99
    preprocessing, postprocessing = built(kind, "inference", options, "preprocessing", "postprocessing")
    loaded = preprocessing({"image": files["image"]})["image"]
    torch.testing.assert_close(loaded.as_tensor(), sample["image"].as_tensor())
    share = np.clip((radius - distance) / np.diag(affine)[: len(shape)].max() + 0.5, 0, 1)
    prediction = MetaTensor(torch.tensor(np.stack([1 - share, share])), meta=loaded.meta)
    back = Compose(postprocessing.transforms[:2])  # inversion and arg max
    found = back({"image": loaded, "pred": prediction})["pred"][0].numpy()
    assert dice(found > 0, inside) >= 0.99


def test_probabilities_carry_edges_of_a_small_disc_that_labels_lose(tmp_path):
    """A disc of 20 pixels in a file of 1024 has 4.4 of 224."""
    files, inside, center = write_ball(tmp_path, (1024, 1024), (1, 1), radius=20)
    preprocessing, postprocessing = built(("segmentation", 2), "inference", CLASSES, "preprocessing", "postprocessing")
    loaded = preprocessing({"image": files["image"]})["image"]
    depth = (20 - distances(loaded.shape[1:], loaded.affine.numpy(), center)) * 224 / 1024  # pixels inside the edge
    back = Compose(postprocessing.transforms[:2])
    for share, least, most in ((np.clip(depth / 2 + 0.5, 0, 1), 0.99, 1), (depth > 0, 0.92, 0.97)):
        prediction = MetaTensor(torch.tensor(np.stack([1.0 - share, share]), dtype=torch.float32), meta=loaded.meta)
        found = back({"image": loaded, "pred": prediction})["pred"][0].numpy()
        assert least <= dice(found > 0, inside) <= most


@pytest.mark.parametrize("shape", [(7, 5), (6, 5, 4)])
def test_each_voxel_gets_the_class_with_the_largest_share(shape):
    """Against linear interpolation of one channel a class."""
    label = torch.randint(0, 4, (1, *shape), generator=torch.Generator().manual_seed(0)).float()
    size = [4, 9, 3][: len(shape)]
    scale = np.divide(shape, size)
    affine = np.diag([*scale, *[1.0] * (4 - len(shape))])
    affine[: len(shape), -1] = (scale - 1) / 2
    image = MetaTensor(torch.zeros(1, *size), affine=affine, meta={"original_affine": np.eye(4)})
    found = ResampleLabeld("label")({"image": image, "label": MetaTensor(label)})["label"]
    channels = torch.nn.functional.one_hot(label[0].long(), 4).movedim(-1, 0)[None].double()
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    shares = torch.nn.functional.interpolate(channels, size=size, mode=mode)[0]
    clear = shares.topk(2, dim=0).values.diff(dim=0)[0] < -1e-4
    assert clear.float().mean() > 0.5
    assert torch.equal(found[0][clear].long(), shares.argmax(0)[clear])
    np.testing.assert_array_equal(found.affine, affine)


def test_a_label_map_on_the_grid_of_its_image_stays():
    label = MetaTensor(torch.randint(0, 300, (1, 5, 4, 3)).float(), affine=np.diag([-2.0, 1, 3, 1]))
    image = MetaTensor(torch.zeros(2, 5, 4, 3), affine=label.affine + 1e-9)
    assert torch.equal(ResampleLabeld("label")({"image": image, "label": label})["label"], label)


def test_a_tilt_in_the_affine_of_the_label_map_alone_moves_nothing():
    """MONAI reads the image of a tilted series without it."""
    label = torch.randint(0, 9, (1, 6, 7, 5), generator=torch.Generator().manual_seed(0)).float()
    upright, tilted = np.diag([-1.0, -1, 3, 1]), np.diag([-1.0, -1, 3, 1])
    tilted[1, 2] = 0.9
    turn = Orientationd(["image", "label"], axcodes="LPI", labels=None)
    files = {"image": (label, upright), "label": (label, tilted)}
    loaded = {key: MetaTensor(x, affine=a, meta={"original_affine": a}) for key, (x, a) in files.items()}
    turned = turn(loaded)
    found = ResampleLabeld("label")(turned)
    assert torch.equal(found["label"].as_tensor(), turned["image"].as_tensor())
    np.testing.assert_array_equal(found["label"].affine, turned["image"].affine)


def test_a_label_map_that_is_turned_is_refused():
    affine, other = np.diag([1.0, -1, 1, 1]), np.eye(4)
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=affine, meta={"original_affine": other})
    label = MetaTensor(torch.zeros(1, 8, 8, 8), meta={"filename_or_obj": "a.nii", "original_affine": other})
    with pytest.raises(InputError, match=r"^a\.nii is turned against its image: their affines differ\.$"):
        ResampleLabeld("label")({"image": image, "label": label})


@pytest.mark.parametrize("kind", [*KINDS, ("pretrain", 2), ("pretrain", 3)], ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_a_constant_image_stays_constant(tmp_path, kind):
    task, dims = kind
    value, shape = 180, [(97, 301), (61, 45, 80)][dims - 2]
    if dims == 2:
        Image.fromarray(np.full(shape, value, np.uint8)).save(file := str(tmp_path / "flat.png"))
    else:
        nib.save(nib.Nifti1Image(np.full(shape, value, np.int16), np.eye(4)), file := str(tmp_path / "flat.nii"))
    options = {"intensity_range": [0, 255], "axcodes": None, "spacing": [1.5] * dims}
    if task == "pretrain":
        parts = built(kind, "inference", options | {"image_size": 32}, "preprocessing")
    else:
        options |= {"image_size": [32, 24, 20][:dims], "class_names": ["a", "b"], "label_threshold": None}
        options |= {"label_values": [0, value]} if task == "segmentation" else {}
        parts = built(kind, "inference", options, "preprocessing")
        parts.append(Compose(*built(kind, "train", options, "fixed_transforms")))
    for transform in parts:
        image = transform({"image": file, "label": file if task == "segmentation" else 1})["image"]
        assert max(image.shape) == 32
        torch.testing.assert_close(image.as_tensor(), torch.full(image.shape, value / 255), atol=1e-6, rtol=0)


def test_the_low_pass_is_that_of_monai_away_from_the_border():
    image = torch.rand(2, 60, 90, 50, generator=torch.Generator().manual_seed(0))
    plain = Resize((20, 30, 50), mode="trilinear")(low_pass(image, (20, 30, 50)))
    stock = Resize((20, 30, 50), mode="trilinear", anti_aliasing=True)(image)
    torch.testing.assert_close(plain[:, 3:-3, 3:-3], stock[:, 3:-3, 3:-3], atol=1e-4, rtol=0)
    assert (plain - stock)[:, 0].abs().max() > 0.05  # where MONAI takes zeros from outside
