"""Features of images by the encoder of a run, as a table."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import SpatialPad
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..bundle.config import BundleConfig, read_config
from ..data.trained_on import find_run_list, tell_seen
from ..datalists.checks import LISTS, check_datalist
from ..datalists.io import make_absolute, read_datalist
from ..datalists.rows import find_unlabeled
from ..images.find import Image, find_images, first_file, map_files
from ..images.stock import OUR_READER, tell_picture
from ..networks.encoder_parts import encoder_names
from ..networks.image_features import image_features
from ..transforms.views import to_unit
from ..utils.errors import InputError, find_cause
from ..utils.files import atomic_write, user_path, write_csv
from ..weights.files import load_module, load_weights
from .run_folder import find_finished

SUFFIXES = (".csv", ".npy")


def embed(
    run: str | Path,
    data: str | Path,
    *,
    output: str | Path | None = None,
    device: str | None = None,
    num_workers: int = 0,
) -> Path:
    """Write the features of images by the encoder of a run: the global average of its deepest map, float32.

    Images are prepared by ``bundle/configs/inference.json`` of the run, and seen through windows of its patches, see
    ``image_features``.

    Args:
        run: folder of a run, which is ``output_dir`` of a training.
        data: folder of images, or datalist, of which all lists are taken.
        output: table to write: .csv has a row an image, its file and its features; .npy has the features alone, shape
            (N, D), and the .csv beside it the files. By default embeddings/DATA.csv in the folder of the run.
        device: such as cpu or cuda:0; None: the GPU, if there is one.
        num_workers: processes that read images.

    Returns:
        The file of the features.

    Raises:
        InputError: if there is no such run, no image, an image cannot be prepared, or the network has no known encoder.
    """
    folder, bundle = find_finished(run)
    path = _output(output, folder, data)
    config = read_config(bundle, None, ("inference.json",), "embedding", device)
    if "class_names" not in config.parser:  # a pre-training, which has read its images so
        config.parser["reader"] = OUR_READER
    images = _find_images(data)
    network, weights = config.build_network(), bundle / "models/model.pt"
    tell_seen(images, find_run_list(weights))
    load_module(network, load_weights(weights), weights, type(network).__name__)
    if not encoder_names(network):
        raise InputError(f"{folder}: the encoder of {type(network).__name__} is not known")
    features = _encode(network, images, config, num_workers)
    _write(path, [first_file(image) for image in images], features)
    return path


def _output(output: str | Path | None, folder: Path, data: str | Path) -> Path:
    name = Path(data).absolute().name.removesuffix(".json")
    path = user_path(output) if output else folder / "embeddings" / f"{name}.csv"
    if path.suffix not in SUFFIXES:
        raise InputError(f"output must end with .csv or .npy, got {path}")
    return path


def _find_images(data: str | Path) -> list[Image]:
    """The images of a datalist or folder, their paths absolute."""
    root = user_path(data).absolute()
    listed = root if root.suffix == ".json" else root / "datalist.json"
    if listed.is_file() or root.suffix == ".json":
        content = read_datalist(listed)
        check_datalist(content, listed)
        lists = [name for name in LISTS if name in content]
        make_absolute(content, listed, lists=lists)
        return [entry["image"] for name in lists for entry in content[name]]
    found = find_unlabeled(find_images(root), root)
    if not found:
        raise InputError(f"{root}: holds no image that can be read")
    return [map_files(image, lambda file: f"{root}{os.sep}{file}") for image in found]


class _Images(Dataset):
    """Prepared images, (C, *spatial) in [0, 1] with the size of the window at least."""

    def __init__(self, images: Sequence[Image], config: BundleConfig, window: Sequence[int]) -> None:
        self.images, self.config = images, config
        self.preprocessing = config.build("preprocessing")
        self.pad = SpatialPad(window)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        try:
            tell_picture(image, self.config.parser["reader"])
            prepared = self.pad(self.preprocessing({"image": image})["image"])
        except Exception as error:  # transforms raise whatever they like
            raise InputError(f"{first_file(image)} cannot be prepared: {find_cause(error)}") from error
        return to_unit(torch.as_tensor(prepared).as_subclass(Tensor))


def _encode(network: nn.Module, images: Sequence[Image], config: BundleConfig, num_workers: int) -> np.ndarray:
    """Features, shape (N, D), float32."""
    window = config.build("patch_size" if "patch_size" in config.parser else "image_size")
    loader = DataLoader(_Images(images, config, window), batch_size=None, num_workers=num_workers)
    device = config.build("device")
    rows = [image_features(network, image.to(device), window) for image in tqdm(loader, "images", disable=None)]
    return torch.stack(rows).numpy()


def _write(path: Path, files: Sequence[str], features: np.ndarray) -> None:
    """The table, in which numbers have all digits of float32; or numbers and files apart."""
    table = path.suffix == ".csv"
    head = ["file", *([f"f{channel}" for channel in range(features.shape[1])] if table else [])]
    rows = [
        [file, *([f"{value:.9g}" for value in row] if table else [])] for file, row in zip(files, features, strict=True)
    ]
    write_csv(path.with_suffix(".csv"), [head, *rows])
    if not table:
        with atomic_write(path) as target:
            np.save(target, features)
