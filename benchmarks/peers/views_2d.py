"""Two views of a gray image of 256 x 256 pixels by other libraries: as near to ours in work as each of them comes.

Ours: a random resized crop to 224 x 224, a flip, brightness and contrast, blur, then in-painting, out-painting or block
shuffling, and the clean target. What a peer does less is said with it. Every function returns a call that makes both
views of an image, or of a batch, and how many views that are.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from published import distort, xray_view

Work = tuple[Callable[[], Any], int]
SIZE, SOURCE = 224, 256


def gray() -> np.ndarray:
    """An image of noise, uint8: what it shows costs nothing."""
    return np.random.default_rng(0).integers(256, size=(SOURCE, SOURCE), dtype=np.uint8)


def published() -> Work:
    """The stand-in of the published code: three equal channels, PIL and NumPy."""
    picture = Image.fromarray(gray()).convert("RGB")
    return lambda: (xray_view(picture), xray_view(picture)), 2


def pillow() -> Work:
    """PIL and NumPy with care: gray, uint8 to the last step, changes of intensity as one table; all of the work."""
    picture = Image.fromarray(gray())

    def view() -> tuple[np.ndarray, np.ndarray]:
        crop = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, crop_box())
        if random.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        target = np.asarray(crop)
        if random.random() < 0.8:
            bright = np.clip(np.arange(256) * random.uniform(0.6, 1.4), 0, 255)
            mean, contrast = np.dot(crop.histogram(), bright) / SIZE**2, random.uniform(0.6, 1.4)
            table = np.clip(mean + contrast * (bright - mean), 0, 255)
            crop = crop.point(table.astype(np.uint8).tolist())
        if random.random() < 0.5:
            crop = crop.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
        return distort(np.asarray(crop)).astype(np.float32) / 255, target.astype(np.float32) / 255

    return lambda: (view(), view()), 2


def crop_box() -> tuple[float, float, float, float]:
    """A random box of 0.2 to 1 of the image."""
    side, ratio = SOURCE * random.uniform(0.2, 1) ** 0.5, random.uniform(0.75, 4 / 3) ** 0.5
    w, h = min(SOURCE, side * ratio), min(SOURCE, side / ratio)
    left, top = random.uniform(0, SOURCE - w), random.uniform(0, SOURCE - h)
    return left, top, left + w, top + h


def kornia() -> Work:
    """Kornia on a batch of 16 views; one erased box stands for the distortions, no block shuffling."""
    from kornia import augmentation as k

    images = torch.from_numpy(gray()).float().div(255).expand(16, 1, -1, -1).contiguous()
    crop = torch.nn.Sequential(k.RandomResizedCrop((SIZE, SIZE), scale=(0.2, 1.0)), k.RandomHorizontalFlip())
    change = torch.nn.Sequential(
        k.RandomBrightness((0.6, 1.4), p=0.8),
        k.RandomContrast((0.6, 1.4), p=0.8),
        k.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
        k.RandomErasing(p=0.35),
    )
    return lambda: change(crop(images)), 16


def torchvision() -> Work:
    """Torchvision v2 image by image, uint8 to the last step; one erased box, no block shuffling."""
    declare_detection()
    from torchvision.transforms import v2

    image = torch.from_numpy(gray())[None]
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=0.5),
            v2.RandomErasing(p=0.35),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return lambda: (chain(image), chain(image)), 2


def declare_detection() -> None:
    """Let torchvision be imported where its compiled part was built for another torch: transforms do not need it."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def monai() -> Work:
    """MONAI's own transforms without meta tensors: the same work with its holes and shuffled holes."""
    from monai import transforms as m
    from monai.data import set_track_meta

    set_track_meta(False)
    image = torch.from_numpy(gray())[None].float() / 255
    box = {"max_holes": 10, "max_spatial_size": 70}
    chain = m.Compose(
        [
            m.RandSpatialCrop(115, SOURCE, random_size=True),
            m.Resize((SIZE, SIZE), mode="bilinear"),
            m.RandFlip(0.5, 1),
            m.RandScaleIntensity(0.4, 0.8),
            m.RandAdjustContrast(0.8, (0.7, 1.4)),
            m.RandGaussianSmooth((0.1, 2.0), (0.1, 2.0), prob=0.5),
            m.OneOf(
                [
                    m.RandCoarseDropout(1, 10, fill_value=0, prob=1, **box),
                    m.RandCoarseDropout(1, 154, dropout_holes=False, fill_value=0, prob=1, max_spatial_size=174),
                    m.RandCoarseShuffle(10, 10, max_spatial_size=15, prob=1),
                    m.Identity(),
                ],
                (0.3, 0.05, 0.3, 0.35),
            ),
        ]
    )
    return lambda: (chain(image), chain(image)), 2


def lightly() -> Work:
    """Lightly's transform of MoCo-v2 on a color image, without distortions."""
    declare_detection()
    from lightly.transforms import MoCoV2Transform

    picture, chain = Image.fromarray(gray()).convert("RGB"), MoCoV2Transform(input_size=SIZE)
    return lambda: chain(picture), 2


def batchgenerators() -> Work:
    """batchgeneratorsv2, nnU-Net's: zoomed crop, mirroring, brightness, contrast, blur, blanked boxes; no shuffling."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    image = torch.from_numpy(gray())[None].float() / 255
    sizes = ((10, 70), (10, 70))
    chain = ComposeTransforms(
        [
            SpatialTransform((SIZE, SIZE), 0, True, p_scaling=1, scaling=(0.51, 1.14)),
            MirrorTransform((1,)),
            RandomTransform(MultiplicativeBrightnessTransform((0.6, 1.4), True), 0.8),
            RandomTransform(ContrastTransform(BGContrast((0.6, 1.4)), True, True), 0.8),
            RandomTransform(GaussianBlurTransform((0.1, 2.0), True, True), 0.5),
            RandomTransform(BlankRectangleTransform(sizes, 0, (1, 10)), 0.35),
        ]
    )
    return lambda: (chain(image=image), chain(image=image)), 2


def torchio() -> Work:
    """TorchIO on an image of one slice: zoom, crop, flip, gamma, blur, swapped patches; no painting."""
    import torchio as t

    image = t.ScalarImage(tensor=torch.from_numpy(gray())[None, :, :, None].float() / 255)
    chain = t.Compose(
        [
            t.RandomAffine((0.85, 1.9, 0.85, 1.9, 1, 1), 0),
            t.CropOrPad((SIZE, SIZE, 1)),
            t.RandomFlip(1),
            t.RandomGamma(0.4, p=0.8),
            t.RandomBlur((0.1, 2, 0.1, 2, 0, 0), p=0.5),
            t.RandomSwap((12, 12, 1), 10, p=0.3),
        ]
    )
    return lambda: (chain(image), chain(image)), 2
