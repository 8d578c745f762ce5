"""Adversarial losses: pure functions that compute in float32 whatever they get.

``gan`` is ``lsgan``, ``vanilla``, ``hinge`` or ``wgan``; any other name raises a ``ValueError``. Logits are the
discriminator's output without activation, any shape: ``real_logits`` for the targets, ``fake_logits`` for restored
images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Gan(NamedTuple):
    """What one form of the adversarial loss asks of a logit."""

    real: Callable[[Tensor], Tensor]  # discriminator's penalty of a real patch
    fake: Callable[[Tensor], Tensor]  # discriminator's penalty of a restored patch
    generator: Callable[[Tensor], Tensor]  # generator's penalty of a restored patch
    threshold: float | None  # a patch with a greater logit is taken for real; None: only differences mean something


GANS = {
    "lsgan": _Gan(lambda d: (d - 1).square(), lambda d: d.square(), lambda d: (d - 1).square(), 0.5),
    "vanilla": _Gan(lambda d: F.softplus(-d), lambda d: F.softplus(d), lambda d: F.softplus(-d), 0.0),
    "hinge": _Gan(lambda d: F.relu(1 - d), lambda d: F.relu(1 + d), lambda d: -d, 0.0),
    "wgan": _Gan(lambda d: -d, lambda d: d, lambda d: -d, None),
}


def _gan(name: str) -> _Gan:
    if name not in GANS:
        raise ValueError(f"gan must be one of {', '.join(GANS)}; got {name}.")
    return GANS[name]


def generator_loss(fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Adversarial loss of the restoring network: small where the discriminator takes its output for real.

    With D the logit of a restored patch: ``lsgan`` mean (D - 1)² (Mao et al., 2017, https://arxiv.org/abs/1611.04076),
    ``vanilla`` mean softplus(-D), the non-saturating form (Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661),
    ``hinge`` mean -D (Lim and Ye, 2017, https://arxiv.org/abs/1705.02894), ``wgan`` mean -D (Arjovsky et al., 2017,
    https://arxiv.org/abs/1701.07875), which needs ``gradient_penalty``. DiRA uses ``lsgan``.

    MONAI's ``PatchAdversarialLoss`` is not used: its ``hinge`` gives the generator the discriminator's clipped loss,
    and its ``least_squares`` puts a LeakyReLU behind the logits by default.
    """
    return _gan(gan).generator(fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Loss of the discriminator: half of its mean penalty for real patches plus half of that for restored ones.

    The penalties of a real and of a restored patch with logit D are (D - 1)² and D² for ``lsgan``, softplus(-D) and
    softplus(D) for ``vanilla``, relu(1 - D) and relu(1 + D) for ``hinge``, -D and D for ``wgan``. Sources: see
    ``generator_loss``. Only ``lsgan`` is halved in its paper; the others are halved here as well, so that a weight
    keeps its meaning. The caller detaches ``fake_logits`` from the restoring network.
    """
    form = _gan(gan)
    return 0.5 * (form.real(real_logits.float()).mean() + form.fake(fake_logits.float()).mean())


def discriminator_accuracy(real_logits: Tensor, fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Share of patches that the discriminator classifies correctly, in [0, 1]; real and restored ones count equally.

    A patch is taken for real where its logit is greater than 0.5 for ``lsgan`` (whose targets are 0 and 1), else 0.
    A discriminator that gives every patch the same logit scores 0.5. The critic of ``wgan`` has no threshold: its loss
    does not change when all its logits grow alike, so it is refused.
    """
    threshold = _gan(gan).threshold
    if threshold is None:
        raise ValueError(f"gan must have a threshold between real and restored, {gan} has none.")
    real, fake = real_logits.float() > threshold, fake_logits.float() <= threshold
    return 0.5 * (real.float().mean() + fake.float().mean())


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Penalty that keeps a discriminator's slope at 1 (WGAN-GP, Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028).

    Mean over the samples of (|gradient| - 1)² at a random point between real and restored image, where the gradient is
    of the mean of that sample's map of logits. Of a conditional discriminator both inputs carry the same condition,
    which the point then carries too (the published code of stepwise pre-training concatenates the image with itself
    instead). Computed in float32 under autocast too, since it is differentiated twice.

    Args:
        discriminator: returns a list whose last entry is the map of logits; of each sample by itself, so no batch norm.
        real: targets, shape (B, C, *spatial), with the condition as further channels if there is one.
        fake: restorations, same shape.
        share: place of the point between real (1) and fake (0), in [0, 1], shape (B,).
    """
    share = share.to(real.device).reshape(-1, *[1] * (real.ndim - 1))
    with torch.autocast(real.device.type, enabled=False):
        point = torch.lerp(fake.detach().float(), real.detach().float(), share).requires_grad_(True)
        logits = discriminator(point)[-1].flatten(1).mean(dim=1)
        (slope,) = torch.autograd.grad(logits.sum(), point, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
