"""Images and label maps on another grid, where borders stay as bright as they are and edges where they are."""

from collections.abc import Hashable, Mapping, Sequence
from functools import reduce
from itertools import product

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms import MapTransform
from torch import Tensor

from ..utils.errors import InputError

SLAB = 2**20  # voxels of a volume that are resampled at once, which takes 64 bytes each
TIE = 1e-6  # shares that differ by less are equal


def low_pass(image: Tensor, size: Sequence[float]) -> Tensor:
    """The image without details that are lost when it is resized, (C, *spatial).

    The Gaussian is that of ``Resize(anti_aliasing=True)`` of MONAI and scikit-image, with sigma (s - 1) / 2 where an
    axis shrinks by the factor s. But outside of the image its border goes on, where MONAI takes zeros and so darkens
    it: a constant image stays constant. Configurations of fine-tuning have the same in stock MONAI, as ``low_pass``.

    Args:
        image: float.
        size: voxels of the image after it is resized; what grows is not changed.
    """
    factors = [voxels / wanted for voxels, wanted in zip(image.shape[1:], size, strict=True)]
    kernels = [gaussian_1d(torch.tensor(max(0.0, factor - 1) / 2), normalize=True) for factor in factors]
    return separable_filtering(image[None], kernels, "replicate")[0]


class ResampleLabeld(MapTransform):
    """Label maps on the grid of their image, which was resampled before.

    Each voxel gets the class with the largest share by linear interpolation, as in nnU-Net; of equal shares the lowest
    class. So edges stay where they are, which MONAI's ``nearest`` moves by up to half a voxel. Time and memory do not
    depend on the number of classes. Label maps are not smoothed before, since small lesions would vanish.

    Args:
        keys: of the label maps, which have the orientation of the image.
        reference: key of the image.
        allow_missing_keys: leave out what a sample lacks.
    """

    def __init__(self, keys: KeysCollection, reference: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The sample with label maps (1, *spatial) of the size and the affine of the image.

        Raises:
            InputError: if a label map is turned against its image.
        """
        sample = dict(data)
        image = sample[self.reference]
        for key in self.key_iterator(sample):
            label = sample[key]
            places = _find_places(label, image)
            rows = max(1, SLAB // image[0, 0].numel())
            slabs = [slice(start, start + rows) for start in range(0, len(places[0]), rows)]
            parts = [_resample(label[0].numpy(), [places[0][slab], *places[1:]]) for slab in slabs]
            meta = label.meta | {"affine": image.affine, "spatial_shape": np.array(image.shape[1:])}
            sample[key] = MetaTensor(torch.as_tensor(np.concatenate(parts)[None]), meta=meta)
        return sample


def _find_places(label: MetaTensor, image: MetaTensor) -> list[np.ndarray]:
    """Where the voxels of the image lie along each axis of the label map, in voxels of the latter.

    The files have the same voxels, as lists check; their affines may differ, where MONAI makes a tilted series upright.
    """
    shape = image.shape[1:]
    before, own, other = label.affine, label.meta.get("original_affine"), image.meta.get("original_affine")
    if own is not None and other is not None:  # pictures have none
        before = np.asarray(other) @ np.linalg.solve(np.asarray(own), np.asarray(before))
    between = np.linalg.solve(np.asarray(before, float), np.asarray(image.affine, float))
    turn = between[: len(shape), : len(shape)]
    scale = turn.diagonal()
    if scale.min() <= 0 or (np.abs(turn - np.diag(scale)) @ shape).max() > 0.5:
        raise InputError(f"{label.meta.get('filename_or_obj')} is turned against its image: their affines differ.")
    return [scale[axis] * np.arange(count) + between[axis, -1] for axis, count in enumerate(shape)]


def _resample(label: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """The class with the largest share at places along each axis of a label map (*spatial)."""
    corners, weights = [], []
    for ends in product(*map(_find_ends, places, label.shape)):
        corners.append(label[np.ix_(*(voxels for voxels, _ in ends))])
        weights.append(reduce(np.multiply.outer, (weight for _, weight in ends)))
    around, shares = np.stack(corners), np.stack(weights)
    result, mixed = corners[0], (around != around[0]).any(0)
    around, shares = around[:, mixed], shares[:, mixed]
    sums = np.stack([(shares * (around == corner)).sum(0) for corner in around])
    result[mixed] = np.where(sums > sums.max(0) - TIE, around, np.inf).min(0)
    return result


def _find_ends(places: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The voxels below and above places along an axis of ``count`` voxels, and their weights."""
    low = np.floor(places)
    above = (places - low).astype(np.float32)
    voxels = [np.clip(low + step, 0, count - 1).astype(int) for step in (0, 1)]
    return [(voxels[0], 1 - above), (voxels[1], above)]
