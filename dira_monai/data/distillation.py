"""Regions with what a frozen teacher makes of the image there, computed once for each image."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Transform
from torch import Tensor, nn

from ..networks.encoder_parts import encoder_names
from ..networks.image_features import deepest_map
from ..transforms.spatial import resample_along
from ..transforms.views import to_unit
from ..utils.distributed import on_first_process
from ..utils.errors import InputError
from ..utils.files import atomic_write
from ..utils.parallel import parallel_map
from ..weights.files import load_module, read_weights, unwrap, without_wrappers
from ..weights.pretrained import load_pretrained
from .datasets import PretrainDataset, read_stored

SAMPLE = 1000  # images at most, whose features tell mean and deviation


def load_teacher(network: nn.Module, path: str | Path | None) -> nn.Module:
    """A frozen copy of a network with the weights of a file, all of its encoder; the report is printed.

    Args:
        network: of ``NETWORKS``, a classifier whose encoder is known, as of MONAI, or any other one that gives maps of
            features (``deepest_map``), such as the encoders of timm.
        path: as ``load_pretrained`` takes it; published layouts go through the command import-weights first. Of another
            network a state dict with just its own names.

    Raises:
        InputError: if there is no file, or it does not fit.
    """
    if path is None:
        raise InputError("teacher must name the weights of an encoder, such as the folder of a run, got None")
    teacher = copy.deepcopy(network)
    if encoder_names(network):
        load_pretrained(teacher, path, minimum_coverage=1.0)
    else:
        load_module(teacher, without_wrappers(unwrap(read_weights(path), path)[0]), path, "teacher")
    return teacher.eval().requires_grad_(False)


class DistillationDataset(PretrainDataset):
    """A ``PretrainDataset`` whose samples have the ``teacher`` too: its deepest map of the region, (D, *cells).

    The teacher sees each image once, in windows of ``region_size`` that lie side by side, behind the end zeros. Its
    maps are kept as float16 in ``features_dir``, under a digest of teacher, region and image as it is prepared, so that
    nothing else is ever taken for them; that of a region is read between the cells by linear interpolation.

    Attributes:
        names: of the file of each image.
        cells: of the map of a window, along each axis.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Transform,
        region_size: Sequence[int],
        *,
        teacher: nn.Module,
        features_dir: str | Path,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, transform, region_size, **kwargs)
        self.folder = Path(features_dir)
        self.names, self.cells = on_first_process(lambda: self._prepare(teacher.to(device)))

    @property
    def statistics(self) -> Tensor:
        """Mean and standard deviation of each channel of the teacher over the images, float32, (2, D)."""
        step = -(-len(self.names) // SAMPLE)
        maps = [read_stored(self.folder / name).flatten(1).double() for name in self.names[::step]]
        mean = torch.stack([part.mean(1) for part in maps]).mean(0)
        square = torch.stack([part.square().mean(1) for part in maps]).mean(0)
        return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()]).float()

    def _more(self, place: int, start: Sequence[int]) -> dict[str, Tensor]:
        """The teacher's map of the region."""
        target = read_stored(self.folder / self.names[place])[None].float()
        for axis, (first, length, cells) in enumerate(zip(start, self.region_size, self.cells, strict=True), start=2):
            target = resample_along(target, first * cells / length + torch.arange(cells)[None], axis)
        return {"teacher": target[0]}

    def _prepare(self, teacher: nn.Module) -> tuple[list[str], list[int]]:
        """Names of the files, of which those that are missing are written, and the cells of a window."""
        known = hashlib.sha256(repr((type(teacher).__name__, self.region_size)).encode())
        for name, tensor in sorted(teacher.state_dict().items()):
            known.update(name.encode() + tensor.cpu().numpy().tobytes())
        device = next(teacher.parameters()).device

        def write(index: int) -> dict[str, Any]:
            image = self.images[index]["image"]
            digest = known.copy()
            digest.update(repr((image.dtype, tuple(image.shape))).encode() + image.numpy().tobytes())
            path = self.folder / f"{digest.hexdigest()[:32]}.npy"
            if not path.is_file():
                found = _tiled_map(teacher, to_unit(image).to(device), self.region_size)
                with atomic_write(path) as file:
                    np.save(file, found)
            return {"image": image, "name": path.name}

        def name_of(index: int) -> str:
            return (write(index) if self.stored is None else self.stored.load(index, write))["name"]

        names = list(parallel_map(name_of, range(len(self)), "features of the teacher", 1))
        window = torch.zeros(1, len(self.images[0]["image"]), *self.region_size, device=device)
        return names, list(deepest_map(teacher, window).shape[2:])


@torch.no_grad()
def _tiled_map(teacher: nn.Module, image: Tensor, window: Sequence[int]) -> np.ndarray:
    """The deepest map of windows side by side, float16, (D, *cells), of an image (C, *spatial)."""
    extent = image.shape[1:]
    missing = [-n % length for n, length in zip(extent, window, strict=True)]
    image = F.pad(image, [m for missed in reversed(missing) for m in (0, missed)])
    counts = [n // length for n, length in zip(image.shape[1:], window, strict=True)]
    rows = []
    for place in np.ndindex(*counts):
        box = tuple(slice(i * length, (i + 1) * length) for i, length in zip(place, window, strict=True))
        rows.append(deepest_map(teacher, image[(slice(None), *box)][None])[0].cpu())
    tiles = torch.stack(rows).unflatten(0, counts).movedim(len(counts), 0)  # (D, *counts, *cells)
    axes = range(len(counts))
    order = [0, *(part for axis in axes for part in (1 + axis, 1 + len(counts) + axis))]
    found = tiles.permute(order).reshape(len(tiles), *(counts[a] * rows[0].shape[1 + a] for a in axes)).half()
    if not found.isfinite().all():
        raise InputError(f"the teacher's features of an image of {list(extent)} voxels are not finite as float16")
    return found.numpy()
