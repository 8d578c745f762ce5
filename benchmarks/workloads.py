"""What the benchmarks run of our own: views and training steps of the bundles, as configured there, on noise."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from dira_monai import pretrain_preprocessing, tune_malloc
from dira_monai.phantoms.chest import chest_xray

ROOT = Path(__file__).resolve().parents[1]
PATCH = {2: [224, 224], 3: [64, 64, 32]}
BENT = {"_target_": "dira_monai.ElasticDeformation", "axes": [0, 1]}
# a step needs no files: the length of the data set is all that the trainer asks for
NO_FILES = {"train#dataset": "$torch.utils.data.TensorDataset(torch.zeros(4096))", "train#handlers": []}


def bundle(dims: int, name: str = "train") -> str:
    """A file of the pre-training bundle for so many axes."""
    return str(ROOT / "bundles" / f"dira_pretrain_{dims}d" / "configs" / f"{name}.json")


def read_bundle(dims: int, overlays: Sequence[str] = (), **values: Any) -> ConfigParser:
    """The configuration of a pre-training bundle, of patches of the benchmarks' size, with further values."""
    parser = ConfigParser()
    parser.read_config([bundle(dims), *(bundle(dims, name) for name in overlays)])
    for name, value in ({"patch_size": PATCH[dims], "stage_epochs": "$None"} | values).items():
        parser[name] = value
    return parser


def make_views(dims: int, batch_size: int = 8, device: str = "cpu", **values: Any) -> tuple[Callable[[], Any], int]:
    """A call that makes two views of each of some images, with other random numbers each time; and how many views.

    In 2D with DiRA's distortions, in 3D with elastic deformation and all of Models Genesis.
    """
    tune_malloc()  # as a run's first line does
    parser = read_bundle(dims, ["genesis"] if dims == 3 else [], views_per_image=2, **values)
    if dims == 3:
        parser["distortions"] = [BENT, *parser["distortions"]]
    views, size = parser.get_parsed_content("views"), parser.get_parsed_content("region_size")
    regions = torch.randint(256, (batch_size, 1, *size), dtype=torch.uint8, device=device)
    seeds = itertools.count(step=batch_size)
    return lambda: views(regions, torch.arange(batch_size) + next(seeds)), 2 * batch_size


def make_step(
    dims: int,
    method: str = "dira",
    batch_size: int = 8,
    device: str = "cpu",
    **values: Any,
) -> tuple[Callable[[], Any], int]:
    """A whole training step on views that are ready, and how many images it takes.

    Args:
        dims: 2 or 3.
        method: ``di``, ``dir`` or ``dira``, stages of train.json, or the name of an overlay.
        batch_size: images of a step.
        device: cpu or cuda.
        values: further values of the configuration.
    """
    tune_malloc()  # as a run's first line does
    stages = {"di": [1, 0, 0], "dir": [0, 1, 0], "dira": [0, 0, 1]}
    given = NO_FILES | {"batch_size": batch_size, "device": f"$torch.device('{device}')", "queue_size": 65536}
    given |= {"max_epochs": 1, "epoch_length": 1000}
    if method in stages:
        given["stage_epochs"] = stages[method]
    parser = read_bundle(dims, [] if method in stages else [method], **(given | values))
    trainer = parser.get_parsed_content("train#trainer")
    size = parser.get_parsed_content("region_size")
    images = torch.randint(256, (batch_size, 1, *size), dtype=torch.uint8)
    batch = {"image": images, "seed": torch.arange(batch_size)}
    trainer.state.epoch, trainer.state.epoch_length = 1, 1000
    distort = trainer.weights_at(1).restores
    ready = trainer.views(images.to(trainer.state.device), batch["seed"], distort=distort)
    trainer.views = lambda *_, **__: dict(ready)

    def step() -> float:
        trainer.state.iteration += 1
        return trainer._iteration(trainer, batch)["loss"].item()

    return step, batch_size


def write_volumes(count: int = 4, side: int = 80) -> list[dict[str, str]]:
    """NIfTI files of noise in [-1000, 1000] and label maps of four classes, in a temporary folder; the pairs."""
    folder, noise, pairs = Path(tempfile.mkdtemp()), np.random.default_rng(0), []
    for number in range(count):
        blocks = noise.integers(4, size=[side // 16] * 3, dtype=np.uint8)
        values = {
            "images": noise.integers(-1000, 1000, [side] * 3, np.int16),
            "labels": np.kron(blocks, np.ones([16] * 3)),
        }
        pairs.append({key.removesuffix("s"): str(folder / key / f"{number}.nii.gz") for key in values})
        for key, array in values.items():
            (folder / key).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), np.eye(4)), folder / key / f"{number}.nii.gz")
    return pairs


def make_finetuning(**values: Any) -> tuple[Callable[[], Any], int]:
    """Epochs of the 3D segmentation bundle, two patches of 64 x 64 x 64 a step, and how many volumes they take."""
    tune_malloc()
    pairs, folder = write_volumes(), ROOT / "bundles" / "dira_finetune_segmentation_3d" / "configs"
    parser = ConfigParser()
    parser.read_config(str(folder / "train.json"))
    given = {"device": "$torch.device('cpu')", "train#dataset#data": pairs, "train#handlers": [], "max_epochs": 1000}
    for name, value in (given | values).items():
        parser[name] = value
    trainer = parser.get_parsed_content("train#trainer")
    trainer.state.epoch = 1

    def epoch() -> float:
        for batch in trainer.data_loader:
            loss = trainer._iteration(trainer, batch)["loss"].item()
        return loss

    return epoch, len(pairs)


def write_pictures(count: int = 4) -> list[str]:
    """PNG files of synthetic X-rays, 224 x 224, in a temporary folder."""
    folder = Path(tempfile.mkdtemp())
    for seed in range(count):
        Image.fromarray(chest_xray(seed, 224).image).save(folder / f"{seed}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def make_pictures() -> tuple[Callable[[], Any], int]:
    """Preparing a picture as the cache and the command prepare do, from its file to 8 bits of 256 x 256."""
    tune_malloc()
    images = {"in_channels": 1, "axcodes": None, "spacing": None, "intensity_range": [0, 255], "image_size": 256}
    prepare, files = pretrain_preprocessing([256, 256], "uint8", **images), itertools.cycle(write_pictures())
    return lambda: prepare({"image": next(files)}), 1
