"""Two or more views of each image, and the clean target of the first."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .compose import Compose, Distortion, Steps
from .fusion import VolumeFusion
from .masking import Masking
from .primitives import Primitives
from .spatial import RandomResizedCrop, flip_where


def to_unit(images: Tensor) -> Tensor:
    """Stored images as float32 in [0, 1]: uint8 divided by 255, int16 by 32767, floats as they are."""
    if images.dtype.is_floating_point:
        return images.float()
    return images.float().div_(torch.iinfo(images.dtype).max)


@dataclass(eq=False)
class Views:
    """Query, key and target of DiRA for a batch of images.

    Each view: crop and flip, then photometric changes, then distortions. The target is the first view between two of
    these steps, ``target_steps``: 0, as published, has brightness restored too, which nothing in the view tells.
    Input and target stay aligned, unlike in the published code, which mirrors the input but not the target;
    ``target_flip="reference"`` restores that.

    Attributes:
        crop: the spatial step, such as ``RandomResizedCrop``.
        photometric: changes of intensity, applied in order.
        distortions: what is to be undone, applied in order, in both views as in DiRA.
        other_photometric: of all views but the first; None: as of that one.
        fusion: what mixes first views of a batch with each other, or paints primitives into them, before the masking;
            None: nothing is mixed.
        masking: what hides parts of the first view, last of all; None: nothing is hidden.
        count: number of views of each image, at least 1.
        local_crop: that of small views, such as a ``RandomResizedCrop`` of small boxes.
        local_count: number of small views of each image.
        flip_axes: axes that are mirrored, each by itself.
        flip_probability: of mirroring an axis.
        target_flip: "corrected" (mirrored like the input) or "reference" (never mirrored).
        target_steps: how many of the photometric steps, from the first, the target undergoes like its view.
    """

    crop: Distortion
    photometric: Steps = ()
    distortions: Steps = ()
    _: KW_ONLY
    other_photometric: Steps | None = None
    fusion: VolumeFusion | Primitives | None = None
    masking: Masking | None = None
    count: int = 2
    local_crop: Distortion | None = None
    local_count: int = 0
    flip_axes: Sequence[int] = (0,)
    flip_probability: float = 0.5
    target_flip: str = "corrected"
    target_steps: int = 0

    def __post_init__(self) -> None:
        if self.target_flip not in ("corrected", "reference"):
            raise InputError(f"target_flip must be corrected or reference, got {self.target_flip!r}")
        if self.count < 1:
            raise InputError(f"the number of views must be at least 1, got {self.count}")
        if self.local_count > 0 and self.local_crop is None:
            raise InputError(f"{self.local_count} small views need a local_crop")
        if self.target_steps > 0 and self.target_flip == "reference":
            raise InputError(f"target_flip reference needs target_steps 0, got {self.target_steps}")
        self.other_photometric = self.photometric if self.other_photometric is None else self.other_photometric

    @torch.no_grad()
    def __call__(self, images: Tensor, seeds: Tensor, distort: bool = True) -> dict[str, Tensor]:
        """Views of the images, each (B, C, *patch_size), float32 in [0, 1].

        Args:
            images: shape (B, C, *spatial), uint8, int16 or float in [0, 1], on any device.
            seeds: one int64 for each sample, shape (B,), on the CPU: the same seed gives the same views in any batch,
                but with ``VolumeFusion``, which mixes in the sample before it.
            distort: False leaves the distortions out (stage `di` has nothing to restore).

        Returns:
            ``query``, the first input, and ``target``, what it is to be restored to; with masking, ``whole``, the query
            before it was masked, and ``mask``, True where it is, (B, 1, *patch_size); with fusion, ``share``,
            the class of each voxel, (B, 1, *patch_size); of a second view ``key``; of all further ones
            ``more``, shape (B, count - 2, C, *patch_size); of small views ``local``, shape
            (B, local_count, C, *local_patch_size).
        """
        images = to_unit(images.as_subclass(torch.Tensor))
        draws = SampleRandom(seeds.cpu())
        others = self.other_photometric
        if others is None or others is self.photometric:
            inputs, targets = self._views(images, draws, self.count, self.crop, self.photometric, distort)
        else:
            inputs, targets = self._views(images, draws, 1, self.crop, self.photometric, distort)
            inputs += self._views(images, draws, self.count - 1, self.crop, others, distort)[0]
        views = {"query": inputs[0], "target": targets[0]}
        if self.count > 1:
            views["key"] = inputs[1]
        if self.count > 2:
            views["more"] = torch.stack(inputs[2:], dim=1)
        if self.local_crop is not None and self.local_count > 0:
            small, _ = self._views(images, draws, self.local_count, self.local_crop, self.photometric, distort=False)
            views["local"] = torch.stack(small, dim=1)
        if self.fusion is not None:
            views = self.fusion.fuse(views, draws.rows(torch.arange(len(seeds))))
        if self.masking is not None and distort:
            views = self.masking.hide(views, draws.rows(torch.arange(len(seeds))))
        return views

    def _views(
        self, images: Tensor, draws: SampleRandom, count: int, crop: Distortion, photometric: Steps, distort: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """So many views of each image, and their clean targets: made as one batch, which saves calls."""
        if count == 0:
            return [], []
        own = SampleRandom(torch.cat([draws.rows(torch.arange(len(images))).seeds for _ in range(count)]))
        if isinstance(crop, RandomResizedCrop) and self.target_flip == "corrected":  # mirrored while it is read
            positions = crop.draw(images.shape[2:], own)
            target = view = crop.read(images, positions, self._flipped(own, images.ndim - 2))
        else:
            target = crop(torch.cat([images] * count), own)
            view = flip_where(target, self._flipped(own, images.ndim - 2))
        view = Compose(photometric[: self.target_steps])(view, own)
        if self.target_flip == "corrected":
            target = view
        view = Compose([*photometric[self.target_steps :], *(self.distortions if distort else ())])(view, own)
        return list(view.chunk(count)), list(target.chunk(count))

    def _flipped(self, draws: SampleRandom, spatial_dims: int) -> Tensor:
        """Which axes of which samples are mirrored, bool, (B, d), on the CPU."""
        flipped = torch.zeros(len(draws.seeds), spatial_dims, dtype=torch.bool)
        flipped[:, list(self.flip_axes)] = draws.uniform(len(self.flip_axes)) < self.flip_probability
        return flipped
