"""Where voxels are taken from: random resized crops, flips, rotation and elastic deformation, in 2D and 3D alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom


def resample(images: Tensor, positions: Tensor, padding_mode: str = "border") -> Tensor:
    """Images (B, C, *spatial) read by linear interpolation, shape (B, C, *out).

    Args:
        images: float.
        positions: voxel positions to read, one channel for each axis in the order of the axes, shape (B, d, *out).
        padding_mode: what lies outside, as in ``torch.nn.functional.grid_sample``.
    """
    extent = torch.tensor(images.shape[2:], device=positions.device, dtype=positions.dtype)
    extent = extent.reshape(1, -1, *[1] * (positions.ndim - 2))
    grid = 2 * positions / (extent - 1).clamp(min=1) - 1
    grid = grid.flip(1).movedim(1, -1)  # grid_sample names the axes backwards
    return F.grid_sample(images, grid, align_corners=True, padding_mode=padding_mode)


def resample_along(images: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Images (B, C, *spatial) read at voxel positions (B, n) along ``axis``, from 2, shape (B, C, ..., n, ...).

    The border is repeated outside. One axis after the other costs a fraction of ``resample``, and gives the same where
    positions are those of a box.
    """
    shape = [len(positions), *(positions.shape[1] if n == axis else 1 for n in range(1, images.ndim))]
    size = [*images.shape[:axis], -1, *images.shape[axis + 1 :]]
    below, above, share = (part.reshape(shape) for part in _neighbors(positions, images.shape[axis]))
    return images.gather(axis, below.expand(size)).lerp_(images.gather(axis, above.expand(size)), share)


def _neighbors(positions: Tensor, extent: int) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels below and above each position and the share of the latter, each (B, n)."""
    place = positions.clamp(0, extent - 1)
    below = place.floor().clamp(max=max(0, extent - 2))
    share, below = place - below, below.long()
    return below, (below + 1).clamp(max=extent - 1), share


def _resample_each(images: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Images (B, C, *spatial) on the CPU read as by ``resample_along`` along all axes, shape (k B, C, *out).

    One after the other, so that they stay in the caches, and by whole lines, which costs half of gathering voxels.
    Positions, (k B, n) for each axis, are those of all images, k times.
    """
    sizes, lines = [rows.shape[1] for rows in positions], []
    for axis, (rows, extent) in enumerate(zip(positions, images.shape[2:], strict=True), start=1):
        below, above, share = _neighbors(rows, extent)
        share = share.reshape(*share.shape, *[1] * (len(sizes) - axis))
        lines.append(list(zip(below.unbind(), above.unbind(), share.unbind(), strict=True)))
    read = images.new_empty(len(positions[0]), images.shape[1], *sizes)
    sources = images.unbind() * (len(read) // len(images))
    for result, part, *own in zip(read.flatten(1), sources, *lines, strict=True):
        for below, above, share in own:
            part = part.index_select(1, below).lerp_(part.index_select(1, above), share).flatten(0, 1)
        result.copy_(part)
    return read


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Images mirrored along the axes that ``flipped``, bool, shape (B, d), on the CPU, marks for each sample."""
    images = images.clone()
    for axis, chosen in enumerate(flipped.unbind(1)):
        rows = chosen.nonzero()[:, 0].to(images.device, non_blocking=True)
        if len(rows) > 0:
            images.index_copy_(0, rows, images.index_select(0, rows).flip(axis + 2))
    return images


@dataclass(eq=False)
class RandomResizedCrop:
    """A random box of the image, resized to ``patch_size`` by linear interpolation.

    As the crop of MoCo-v2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297) and of DiRA, for any number of axes.
    Two deviations: a box that is longer than the image along an axis is cut to it, where torchvision draws again; and
    each axis has its own stretch, drawn log-uniformly and centred, so the ratio of two sides has a triangular
    distribution.

    Attributes:
        patch_size: size of the result, voxels.
        scale: least and largest share of area or volume that the box covers, in (0, 1].
        aspect: largest ratio of two sides of the box to those of the image, at least 1.
    """

    patch_size: Sequence[int]
    scale: Sequence[float] = (0.2, 1.0)
    aspect: float = 4 / 3

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"crop scale must be two rising numbers in (0, 1], got {list(self.scale)}")
        self.patch_size = tuple(self.patch_size)

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Crops of float images (B, C, *spatial), shape (B, C, *patch_size)."""
        return self.read(images, self.draw(images.shape[2:], draws))

    def draw(self, shape: Sequence[int], draws: SampleRandom) -> list[Tensor] | None:
        """Positions along each axis, (B, n), at which an image of a shape is read; None: the image is what is read."""
        if self.scale[0] == 1 == self.aspect and tuple(shape) == self.patch_size:
            return None
        extent = torch.tensor(shape, dtype=torch.float32)
        share = draws.uniform(1, low=self.scale[0], high=self.scale[1]) ** (1 / len(shape))
        stretch = draws.uniform(len(shape), low=-0.5, high=0.5) * math.log(self.aspect)
        size = extent * (share * torch.exp(stretch - stretch.mean(1, keepdim=True))).clamp(max=1)  # (B, d)
        start = draws.uniform(len(shape)) * (extent - size)
        centers = [(torch.arange(length) + 0.5) / length for length in self.patch_size]
        return [start[:, axis, None] + center * size[:, axis, None] - 0.5 for axis, center in enumerate(centers)]

    @staticmethod
    def read(images: Tensor, positions: list[Tensor] | None, flipped: Tensor | None = None) -> Tensor:
        """Images at positions of ``draw``, mirrored along the axes that ``flipped`` marks, as ``flip_where`` does.

        Positions may be those of several views: of all images, and again of all images.
        """
        if positions is None:
            if flipped is None:
                return images
            return flip_where(torch.cat([images] * (len(flipped) // len(images))), flipped)
        if flipped is not None:
            marks = flipped[:, :, None].unbind(1)
            positions = [torch.where(mark, rows.flip(1), rows) for mark, rows in zip(marks, positions, strict=True)]
        if images.device.type == "cpu":
            return _resample_each(images, positions)
        images = torch.cat([images] * (len(positions[0]) // len(images)))
        for axis, rows in enumerate(positions, start=2):
            images = resample_along(images, rows.to(images.device, non_blocking=True), axis)
        return images


@dataclass(eq=False)
class RandomRotation:
    """Images turned about their middle by random angles, read by linear interpolation.

    As the rotation of GraVIS and PCRLv2, which read the nearest pixel; what comes from outside is black as there,
    unless ``padding_mode`` says otherwise. Each plane is turned by an angle of its own, one after the other. Angles are
    in voxels: where voxels are not square in a plane, shapes shear.

    Attributes:
        degrees: largest angle; drawn from -degrees .. degrees.
        planes: pairs of axes; in 3D (0, 1) turns about axis 2.
        padding_mode: what lies outside: zeros, border or reflection.
    """

    degrees: float = 10.0
    planes: Sequence[Sequence[int]] = ((0, 1),)
    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        if self.padding_mode not in ("zeros", "border", "reflection"):
            raise InputError(f"padding_mode must be zeros, border or reflection, got {self.padding_mode!r}")
        if any(len(set(plane)) != 2 for plane in self.planes):
            raise InputError(f"planes must be pairs of different axes, got {[list(plane) for plane in self.planes]}")

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Turned images, same shape; refused where a plane names an axis that they lack."""
        shape = images.shape[2:]
        if max(map(max, self.planes), default=0) >= len(shape):
            planes = [list(plane) for plane in self.planes]
            raise InputError(f"planes {planes} must name axes below {len(shape)}, the number of the images' axes")
        middle = [(n - 1) / 2 for n in shape]
        index = [torch.arange(n, device=images.device) - half for n, half in zip(shape, middle, strict=True)]
        places = [axis.expand(len(images), *shape) for axis in torch.meshgrid(*index, indexing="ij")]  # from the middle
        angles = draws.uniform(len(self.planes), low=-1, high=1) * math.radians(self.degrees)
        for (a, b), angle in zip(self.planes, angles.unbind(1), strict=True):
            angle = angle.to(images.device).reshape(-1, *[1] * len(shape))
            cosine, sine = angle.cos(), angle.sin()
            places[a], places[b] = cosine * places[a] - sine * places[b], sine * places[a] + cosine * places[b]
        positions = torch.stack([place + half for place, half in zip(places, middle, strict=True)], dim=1)
        return resample(images, positions, self.padding_mode)


@dataclass(eq=False)
class ElasticDeformation:
    """Images bent by a smooth random field of displacements, the first distortion of TransVW's chain.

    White noise is smoothed by a Gaussian (periodically, in the frequency domain) and scaled to the wanted strength.
    TransVW (Haghighi et al., 2021, https://arxiv.org/abs/2102.10680) smooths U(-1, 1) with sigma 8 voxels and
    multiplies by 991, which displaces by 3.8 voxels root-mean-square, within the slice only.

    Attributes:
        magnitude: root-mean-square displacement along one axis, voxels.
        smoothness: sigma of the Gaussian, voxels.
        axes: the axes along which voxels move; None for all.
    """

    magnitude: float = 3.8
    smoothness: float = 8.0
    axes: Sequence[int] | None = None

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        shape, device = images.shape[2:], images.device
        axes = list(range(len(shape)) if self.axes is None else self.axes)
        units = [2 / max(1, shape[axis] - 1) for axis in sorted(axes, reverse=True)]  # a voxel, for grid_sample
        if axes == [0, 1] and len(shape) == 3:  # slices that are bent within themselves: as images, at a tenth the cost
            slices = images.flatten(0, -2).t().contiguous()  # a plain transpose, which copies fast
            moves = self._field(draws, units, shape, (4, 0, 2, 3, 1), device)
            bent = _moved(slices.reshape(-1, *images.shape[1:-1]), moves.flatten(0, 1))
            return bent.reshape(slices.shape).t().contiguous().reshape(images.shape)
        moves = self._field(draws, units, shape, (0, *range(2, images.ndim), 1), device)
        if len(axes) < len(shape):
            still = moves.new_zeros(*moves.shape[:-1], len(shape))
            still[..., [len(shape) - 1 - axis for axis in sorted(axes, reverse=True)]] = moves
            moves = still
        return _moved(images, moves)

    def _field(
        self,
        draws: SampleRandom,
        units: Sequence[float],
        shape: Sequence[int],
        order: Sequence[int],
        device: torch.device,
    ) -> Tensor:
        """Smoothed noise of root mean square ``magnitude`` in each of some units, (B, units, *shape) in another order.

        Of noise that is smoothed so much only low frequencies are left: it is drawn in steps of half a sigma, beyond
        whose frequencies the Gaussian leaves 3e-9.
        """
        coarse = [math.ceil(n / max(1.0, self.smoothness / 2)) for n in shape]
        spread = [_smoothing(self.smoothness, few, n) for few, n in zip(coarse, shape, strict=True)]
        noise = draws.normal(len(units), *coarse, device=device)
        mean = noise.flatten(2).mean(2).reshape(*noise.shape[:2], *[1] * len(shape))
        noise = noise - mean  # it would only shift the whole image
        power = math.prod(matrix.square().sum().item() / n for matrix, n in zip(spread, shape, strict=True))
        power = max(1e-12, power - 1 / math.prod(coarse))  # less that of the mean
        strength = torch.tensor(units).to(device, non_blocking=True) * (self.magnitude / math.sqrt(power))
        field = noise.permute(*order) * strength
        for place in reversed(range(field.ndim)):
            if order[place] > 1:
                matrix, rest = spread[order[place] - 2].to(device), field.shape[place + 1 :]
                field = (matrix @ field.flatten(place + 1)).unflatten(-1, rest)
        return field


def _moved(images: Tensor, moves: Tensor) -> Tensor:
    """Images read at places that are moved, in the units of ``grid_sample``, (B, *spatial, d), the last axis first."""
    here = torch.meshgrid(*(torch.linspace(-1, 1, n, device=images.device) for n in images.shape[2:]), indexing="ij")
    grid = moves.add_(torch.stack(here[::-1], dim=-1))
    return F.grid_sample(images, grid, align_corners=True, padding_mode="reflection")


@lru_cache(maxsize=32)
def _smoothing(sigma: float, few: int, many: int) -> Tensor:
    """What makes ``many`` values of ``few`` on a circle, smoothed by a Gaussian of ``sigma`` steps, (many, few)."""
    frequency = torch.fft.rfftfreq(few, many / few, dtype=torch.float64)
    response = torch.exp(-2 * (math.pi * sigma * frequency).square())
    spectrum = torch.fft.rfft(torch.eye(few, dtype=torch.float64)) * response
    return torch.fft.irfft(spectrum, many).T.float() * many / few
