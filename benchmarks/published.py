"""A plain stand-in of how the published code prepares samples and takes a step, to measure against; written from facts.

Not a line of anybody's code: what is done here in the same way is what costs time there. Samples go one by one through
PIL and NumPy, images have three equal channels, networks compute in float32 and in the usual memory layout, the key
branch has a decoder that nothing reads, and the discriminator gets gradients that nothing uses.
"""

import copy
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor, nn

QUEUE = 65536
NOISE = np.random.default_rng()


def box_of(share: tuple[float, float], sides: tuple[int, ...], margin: int = 0) -> tuple[slice, ...]:
    """A random box, as slices, each side a random share of the image's."""
    box = []
    for n in sides:
        size = max(1, int(n * random.uniform(*share)))
        start = random.randint(margin, max(margin, n - size - margin))
        box.append(slice(start, start + size))
    return tuple(box)


def xray_view(picture: Image.Image, size: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """A distorted view of an X-ray and the target, each (3, size, size), float32 in [0, 1]."""
    width, height = picture.size
    area = width * height * random.uniform(0.2, 1)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(width, round(math.sqrt(area * ratio))), min(height, round(math.sqrt(area / ratio)))
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    crop = picture.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    target = np.asarray(crop, np.float32) / 255
    if random.random() < 0.8:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
        random.shuffle(changes)
        for change in changes:
            crop = turn_hue(crop) if change is None else change(crop).enhance(random.uniform(0.6, 1.4))
    if random.random() < 0.5:
        crop = crop.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = distort(np.asarray(crop, np.float32) / 255)
    return view.transpose(2, 0, 1).copy(), target.transpose(2, 0, 1).copy()


def turn_hue(picture: Image.Image) -> Image.Image:
    """Another hue, which a gray picture does not show and pays for."""
    h, s, v = picture.convert("HSV").split()
    h = Image.fromarray((np.asarray(h).astype(int) + int(random.uniform(-0.1, 0.1) * 255)).astype(np.uint8))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def distort(image: np.ndarray) -> np.ndarray:
    """One of in-painting, out-painting and block shuffling, or none."""
    draw, sides = random.random(), image.shape[:2]
    if draw > 0.65:
        return image
    source = np.zeros_like(image) if 0.3 < draw <= 0.35 else image.copy()
    for _ in range(10):
        if draw <= 0.3:
            source[box_of((10 / 224, 70 / 224), sides, 3)] = 0
        elif draw <= 0.35:
            box = box_of((154 / 224, 174 / 224), sides, 3)
            source[box] = image[box]
        else:
            swap(source, image, box_of((10 / 224, 15 / 224), sides))
        if draw <= 0.35 and random.random() < 0.1:
            break
    return source


def swap(source: np.ndarray, image: np.ndarray, first: tuple[slice, ...]) -> None:
    """Exchange a box and another of its size."""
    second = []
    for side, n in zip(first, image.shape, strict=False):
        start = random.randint(0, n - (side.stop - side.start))
        second.append(slice(start, start + side.stop - side.start))
    source[first], source[tuple(second)] = image[tuple(second)], image[first]


def xray_sample(path: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Both views of a file, which is decoded each time."""
    picture = Image.open(path).convert("RGB")
    return xray_view(picture), xray_view(picture)


def cube_view(cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cube (x, y, z) in [0, 1] through elastic deformation and the whole Models Genesis chain, and the target."""
    target = cube.copy()
    for axis in range(3):
        if random.random() < 0.4:
            target = np.flip(target, axis)
    view = bend(target)
    if random.random() < 0.5:
        view = shuffle_pixels(view)
    if random.random() < 0.9:
        view = bezier(view)
    if random.random() < 0.9:
        view = paint(view)
    return np.ascontiguousarray(view), np.ascontiguousarray(target)


def bend(cube: np.ndarray) -> np.ndarray:
    """Elastic deformation within the slice: smoothed noise, 991 times."""
    places = list(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in cube.shape), indexing="ij"))
    for axis in range(2):
        places[axis] = places[axis] + 991 * gaussian_filter(NOISE.random(cube.shape) * 2 - 1, 8)
    return map_coordinates(cube, places, order=1, mode="reflect")


def shuffle_pixels(cube: np.ndarray, count: int = 10000) -> np.ndarray:
    """The voxels of 10,000 small blocks, shuffled one block after the other."""
    shuffled = cube.copy()
    for _ in range(count):
        sides = [(n, random.randint(1, n // 10)) for n in cube.shape]
        box = tuple(slice(s, s + size) for n, size in sides for s in [random.randint(0, n - size)])
        block = cube[box].flatten()
        NOISE.shuffle(block)
        shuffled[box] = block.reshape(shuffled[box].shape)
    return shuffled


def bezier(cube: np.ndarray, points: int = 100000) -> np.ndarray:
    """Intensities through a cubic Bezier curve of 100,000 points."""
    t = np.linspace(0, 1, points)
    xs, ys = (np.array([0, random.random(), random.random(), 1]) for _ in range(2))
    weights = np.array([math.comb(3, k) * t ** (3 - k) * (1 - t) ** k for k in range(4)])
    x, y = xs @ weights, ys @ weights
    if random.random() < 0.5:
        x = np.sort(x)
    else:
        x, y = np.sort(x), np.sort(y)
    return np.interp(cube, x, y)


def paint(cube: np.ndarray) -> np.ndarray:
    """Out-painting, or in-painting, of up to five boxes."""
    if random.random() < 0.8:
        painted = NOISE.random(cube.shape)
        for _ in range(5):
            box = box_of((3 / 7, 4 / 7), cube.shape, 3)
            painted[box] = cube[box]
            if random.random() < 0.05:
                break
        return painted
    painted = cube.copy()
    for _ in range(5):
        painted[box_of((1 / 6, 1 / 3), cube.shape, 3)] = random.random()
        if random.random() < 0.05:
            break
    return painted


class Generator(nn.Module):
    """U-Net and projector: everything computed in each branch.

    Attributes:
        unet: of one of the known classes.
        width: channels of its deepest map.
    """

    def __init__(self, unet: nn.Module, width: int) -> None:
        super().__init__()
        self.unet = unet
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and restored images."""
        from dira_monai.networks.encoder_decoder import decode, encode  # samples need no MONAI

        maps = encode(self.unet, images)
        return F.normalize(self.head(maps[-1].flatten(2).mean(2)), dim=1), decode(self.unet, maps).sigmoid()


class PublishedStep:
    """Both updates of the adversarial stage on a batch.

    Attributes:
        unet: the network to train.
        width: channels of its deepest map.
        discriminator: of images of one channel.
        device: of networks and batches.
    """

    def __init__(self, unet: nn.Module, width: int, discriminator: nn.Module, device: torch.device) -> None:
        self.device = device
        self.generator = Generator(unet, width).to(device)
        self.key_branch = copy.deepcopy(self.generator)
        self.key_branch.requires_grad_(False)
        self.discriminator = discriminator.to(device)
        self.optimizer = torch.optim.SGD(self.generator.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)
        self.judge_optimizer = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas=(0.5, 0.999))
        self.queue = F.normalize(torch.randn(128, QUEUE, device=device), dim=0)
        self.place = 0

    def __call__(self, query: Tensor, key: Tensor, target: Tensor) -> float:
        """The generator's loss.

        Args:
            query: distorted images, (B, 3, *spatial).
            key: others of the same patients.
            target: of the query.
        """
        embedding, restored = self.generator(query)
        with torch.no_grad():
            for own, learned in zip(self.key_branch.parameters(), self.generator.parameters(), strict=True):
                own.data = own.data * 0.999 + learned.data * 0.001
            order = torch.randperm(len(key), device=self.device)
            keys, _ = self.key_branch(key[order])
            keys = keys[order.argsort()]
        target = target[:, :1]
        logits = torch.cat([(embedding * keys).sum(1, keepdim=True), embedding @ self.queue.clone()], 1) / 0.2
        contrast = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))
        self.queue[:, self.place : self.place + len(keys)] = keys.T
        self.place = (self.place + len(keys)) % QUEUE
        judged = self.discriminator(restored)[-1]
        loss = contrast + 10 * F.mse_loss(restored, target) + 0.001 * F.mse_loss(judged, torch.ones_like(judged))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.judge_optimizer.zero_grad()
        real, false = self.discriminator(target)[-1], self.discriminator(restored.detach())[-1]
        verdict = (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(false, torch.zeros_like(false))) / 2
        verdict.backward()
        self.judge_optimizer.step()
        return loss.item()
