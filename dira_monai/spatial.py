"""Where voxels are taken from: random resized crops, flips, rotation and elastic deformation, in 2D and 3D alike."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Draws
from .errors import InputError


def resample(images: Tensor, positions: Tensor, padding_mode: str = "border") -> Tensor:
    """Images read at the given positions by linear interpolation.

    Args:
        images: shape (B, C, *spatial).
        positions: voxel positions to read, one channel for each axis in the order of the axes, shape (B, d, *out).
        padding_mode: what lies outside, as in ``torch.nn.functional.grid_sample``.

    Returns:
        Shape (B, C, *out).
    """
    extent = torch.tensor(images.shape[2:], device=positions.device, dtype=positions.dtype)
    extent = extent.reshape(1, -1, *[1] * (positions.ndim - 2))
    grid = 2 * positions / (extent - 1).clamp(min=1) - 1
    grid = grid.flip(1).movedim(1, -1)  # grid_sample names the axes backwards
    return F.grid_sample(images, grid, align_corners=True, padding_mode=padding_mode)


def resample_along(images: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Images read along one axis at the given positions by linear interpolation; the border is repeated outside.

    One axis after the other costs a fraction of ``resample``, and gives the same where positions are those of a box.

    Args:
        images: shape (B, C, *spatial).
        positions: voxel positions to read, shape (B, n).
        axis: of ``images``, from 2.

    Returns:
        Shape (B, C, ..., n, ...).
    """
    extent = images.shape[axis]
    place = positions.clamp(0, extent - 1)
    below = place.floor().clamp(max=max(0, extent - 2))
    shape = [len(place), *(place.shape[1] if n == axis else 1 for n in range(1, images.ndim))]
    share, below = (place - below).reshape(shape), below.long()
    above = (below + 1).clamp(max=extent - 1)
    if axis == images.ndim - 1:
        size = [*images.shape[:-1], -1]
        first, second = (images.gather(axis, index.reshape(shape).expand(size)) for index in (below, above))
        return first.lerp_(second, share)
    lines = images.flatten(1, axis - 1).flatten(3)  # (B, lines, extent, voxels of a line)
    start = torch.arange(len(lines) * lines.shape[1], device=images.device).reshape(len(lines), -1, 1) * extent
    rows = lines.reshape(-1, lines.shape[-1])
    size = [*images.shape[:axis], place.shape[1], *images.shape[axis + 1 :]]
    first, second = (rows.index_select(0, (start + index[:, None]).flatten()).reshape(size) for index in (below, above))
    return first.lerp_(second, share)


def _mesh(coordinates: Sequence[Tensor]) -> Tensor:
    """One (B, n) row of positions for each axis, spread to (B, d, *n)."""
    shape = [c.shape[1] for c in coordinates]
    spread = []
    for axis, c in enumerate(coordinates):
        view = [1] * len(shape)
        view[axis] = shape[axis]
        spread.append(c.reshape(len(c), *view).expand(-1, *shape))
    return torch.stack(spread, dim=1)


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Images mirrored along the axes that ``flipped``, bool, shape (B, d), on the CPU, marks for each sample."""
    for axis, chosen in enumerate(flipped.unbind(1)):
        rows = chosen.nonzero()[:, 0].to(images.device, non_blocking=True)
        if len(rows) > 0:
            images = images.index_copy(0, rows, images.index_select(0, rows).flip(axis + 2))
    return images


class RandomResizedCrop:
    """A random box of the image, resized to ``patch_size`` by linear interpolation.

    As the crop of MoCo-v2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297) and of DiRA, for any number of axes.
    Two deviations: a box that is longer than the image along an axis is cut to it, where torchvision draws again; and
    each axis has its own stretch, drawn log-uniformly and centred, so the ratio of two sides has a triangular
    distribution.

    Attributes:
        patch_size: size of the result, voxels.
        scale: smallest and largest share of the area (2D) or volume (3D) that the box covers, in (0, 1].
        aspect: largest ratio of two sides of the box to those of the image, at least 1.
    """

    def __init__(self, patch_size: Sequence[int], scale: Sequence[float] = (0.2, 1.0), aspect: float = 4 / 3) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise InputError(f"crop scale must be two rising numbers in (0, 1], got {list(scale)}")
        self.patch_size = tuple(patch_size)
        self.scale = scale
        self.aspect = aspect

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Crops of float images (B, C, *spatial), shape (B, C, *patch_size)."""
        d = images.ndim - 2
        extent = torch.tensor(images.shape[2:], dtype=torch.float32)
        share = draws.uniform(1, low=self.scale[0], high=self.scale[1]) ** (1 / d)
        stretch = draws.uniform(d, low=-0.5, high=0.5) * math.log(self.aspect)
        size = extent * (share * torch.exp(stretch - stretch.mean(1, keepdim=True))).clamp(max=1)  # (B, d)
        start = draws.uniform(d) * (extent - size)
        for axis, length in enumerate(self.patch_size):
            centers = (torch.arange(length) + 0.5) / length
            positions = start[:, axis, None] + centers * size[:, axis, None] - 0.5
            images = resample_along(images, positions.to(images.device, non_blocking=True), axis + 2)
        return images


class RandomRotation:
    """Images turned about their middle by random angles, read by linear interpolation.

    As the rotation of GraVIS and PCRLv2, which read the nearest pixel; what comes from outside is black as there,
    unless ``padding_mode`` says otherwise. Angles are in voxels: where voxels are not square in a plane, shapes shear.

    Attributes:
        degrees: largest angle; drawn from -degrees .. degrees.
        planes: pairs of axes, each turned by an angle of its own, one after the other; in 3D (0, 1) turns about axis 2.
        padding_mode: what lies outside: zeros, border or reflection.
    """

    def __init__(
        self, degrees: float = 10.0, planes: Sequence[Sequence[int]] = ((0, 1),), padding_mode: str = "zeros"
    ) -> None:
        if padding_mode not in ("zeros", "border", "reflection"):
            raise InputError(f"padding_mode must be zeros, border or reflection, got {padding_mode!r}")
        if any(len(set(plane)) != 2 for plane in planes):
            raise InputError(f"planes must be pairs of different axes, got {[list(plane) for plane in planes]}")
        self.degrees = degrees
        self.planes = planes
        self.padding_mode = padding_mode

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Turned images, same shape.

        Raises:
            InputError: if a plane names an axis that the images lack.
        """
        shape = images.shape[2:]
        if max(map(max, self.planes), default=0) >= len(shape):
            planes = [list(plane) for plane in self.planes]
            raise InputError(f"planes {planes} must name axes below {len(shape)}, the number of the images' axes")
        index = [torch.arange(n, device=images.device)[None] - (n - 1) / 2 for n in shape]
        places = list(_mesh([row.expand(len(images), -1) for row in index]).unbind(1))  # from the middle
        angles = draws.uniform(len(self.planes), low=-1, high=1) * math.radians(self.degrees)
        for (a, b), angle in zip(self.planes, angles.unbind(1), strict=True):
            angle = angle.to(images.device).reshape(-1, *[1] * len(shape))
            cosine, sine = angle.cos(), angle.sin()
            places[a], places[b] = cosine * places[a] - sine * places[b], sine * places[a] + cosine * places[b]
        middle = [(n - 1) / 2 for n in shape]
        positions = torch.stack([place + half for place, half in zip(places, middle, strict=True)], dim=1)
        return resample(images, positions, self.padding_mode)


class Chain:
    """Several changes one after the other, as one: such as a crop and a rotation as the spatial step of ``Views``.

    Attributes:
        steps: each takes images and ``Draws``.
    """

    def __init__(self, steps: Sequence[Callable[[Tensor, Draws], Tensor]]) -> None:
        self.steps = steps

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Changed images."""
        for step in self.steps:
            images = step(images, draws)
        return images


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

    def __init__(self, magnitude: float = 3.8, smoothness: float = 8.0, axes: Sequence[int] | None = None) -> None:
        self.magnitude = magnitude
        self.smoothness = smoothness
        self.axes = axes

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Deformed images, same shape."""
        shape = images.shape[2:]
        axes = list(range(len(shape)) if self.axes is None else self.axes)
        field = self._field(draws, len(axes), shape, images.device)
        if axes == [0, 1] and len(shape) == 3:
            return self._in_plane(images, field)
        everywhere = torch.zeros(len(images), len(shape), *shape, device=images.device)
        everywhere[:, axes] = field
        index = [torch.arange(n, device=images.device, dtype=torch.float32)[None] for n in shape]
        return resample(images, _mesh(index) + everywhere, padding_mode="reflection")

    @staticmethod
    def _in_plane(images: Tensor, field: Tensor) -> Tensor:
        """Volumes whose slices are bent within themselves: as images, which costs a tenth."""
        slices, moves = (part.movedim(-1, 1).flatten(0, 1) for part in (images, field))
        index = [torch.arange(n, device=images.device, dtype=torch.float32)[None] for n in images.shape[2:-1]]
        bent = resample(slices, _mesh(index) + moves, padding_mode="reflection")
        return bent.unflatten(0, (len(images), -1)).movedim(1, -1).contiguous()

    def _field(self, draws: Draws, axes: int, shape: Sequence[int], device: torch.device) -> Tensor:
        """Smoothed noise of root mean square ``magnitude``, (B, axes, *shape).

        Of noise that is smoothed so much only low frequencies are left: it is drawn in steps of half a sigma, beyond
        whose frequencies the Gaussian leaves 3e-9, and made finer by zeros in the frequency domain.
        """
        step = max(1.0, self.smoothness / 2)
        coarse = [math.ceil(n / step) for n in shape]
        exponent = torch.zeros([])
        for axis, (n, wide) in enumerate(zip(coarse, shape, strict=True)):
            frequency = (torch.fft.rfftfreq if axis == len(shape) - 1 else torch.fft.fftfreq)(n, wide / n)
            exponent = exponent + frequency.square().reshape([-1 if a == axis else 1 for a in range(len(shape))])
        response = torch.exp(-2 * (math.pi * self.smoothness) ** 2 * exponent)
        response[(0,) * len(shape)] = 0  # a mean displacement would only shift the whole image
        variance = torch.fft.irfftn(response.square(), s=coarse).flatten()[0]  # Parseval, for white noise
        factor = self.magnitude / variance.clamp(min=1e-12).sqrt() * math.prod(shape) / math.prod(coarse)
        places = list(range(2, 2 + len(shape)))
        noise = draws.normal(axes, *coarse, device=device)
        spectrum = torch.fft.rfftn(noise, dim=places) * (response * factor).to(device, non_blocking=True)
        for place, n, wide in zip(places[:-1], coarse, shape, strict=False):
            spectrum = _widen(spectrum, place, n, wide)
        return torch.fft.irfftn(spectrum, s=list(shape), dim=places)


def _widen(spectrum: Tensor, axis: int, length: int, wide: int) -> Tensor:
    """A spectrum of ``length`` frequencies along an axis with zeros between its positive and its negative ones."""
    positive = (length + 1) // 2
    first, last = spectrum.narrow(axis, 0, positive), spectrum.narrow(axis, positive, length - positive)
    zeros = [*spectrum.shape[:axis], wide - length, *spectrum.shape[axis + 1 :]]
    return torch.cat([first, spectrum.new_zeros(zeros), last], dim=axis)
