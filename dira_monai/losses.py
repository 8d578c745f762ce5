"""Losses of the discriminative and the adversarial part: pure functions that compute in float32 whatever they get."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def _similarities(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Dot products of every query with its key (column 0) and with the queue, float32, shape (B, 1 + K)."""
    with torch.autocast(query.device.type, enabled=False):  # autocast would take the product back to half precision
        query, key, queue = query.float(), key.detach().float(), queue.detach().float()
        positive = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
        return torch.cat([positive, query @ queue.T], dim=1)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """Contrastive loss of MoCo (He et al., 2020, https://arxiv.org/abs/1911.05722, eq. 1), mean over the batch.

    The gradient flows into ``query`` only.

    Args:
        query: embeddings of the first view, unit length, shape (B, D).
        key: embeddings of the second view from the momentum encoder, unit length, shape (B, D).
        queue: keys of earlier batches, unit length, shape (K, D).
        temperature: divisor of the cosine similarities, greater than 0.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    logits = _similarities(query, key, queue) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(query), dtype=torch.long))  # the positive is column 0


def contrastive_accuracy(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Share of the queries that are more similar to their own key than to every key of the queue, in [0, 1].

    A tie counts as a miss, so embeddings that have collapsed to one point score 0 and not 1.

    Args:
        query: embeddings of the first view, unit length, shape (B, D).
        key: embeddings of the second view, unit length, shape (B, D).
        queue: keys of earlier batches, unit length, shape (K, D).
    """
    positive, negative = _similarities(query, key, queue).tensor_split([1], dim=1)
    return (positive > negative).all(dim=1).float().mean()


class _Gan(NamedTuple):
    """What one form of the adversarial loss asks of a logit."""

    real: Callable[[Tensor], Tensor]  # discriminator's penalty of a real patch
    fake: Callable[[Tensor], Tensor]  # discriminator's penalty of a restored patch
    generator: Callable[[Tensor], Tensor]  # generator's penalty of a restored patch
    threshold: float  # a patch with a greater logit is taken for real


GANS = {
    "lsgan": _Gan(lambda d: (d - 1).square(), lambda d: d.square(), lambda d: (d - 1).square(), 0.5),
    "vanilla": _Gan(lambda d: F.softplus(-d), lambda d: F.softplus(d), lambda d: F.softplus(-d), 0.0),
    "hinge": _Gan(lambda d: F.relu(1 - d), lambda d: F.relu(1 + d), lambda d: -d, 0.0),
}


def _gan(name: str) -> _Gan:
    if name not in GANS:
        raise ValueError(f"gan must be one of {', '.join(GANS)}; got {name}.")
    return GANS[name]


def generator_loss(fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Adversarial loss of the restoring network: small where the discriminator takes its output for real.

    With D the logit of a restored patch: ``lsgan`` mean (D - 1)² (Mao et al., 2017, https://arxiv.org/abs/1611.04076),
    ``vanilla`` mean softplus(-D), the non-saturating form (Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661),
    ``hinge`` mean -D (Lim and Ye, 2017, https://arxiv.org/abs/1705.02894). DiRA uses ``lsgan``.

    MONAI's ``PatchAdversarialLoss`` is not used: its ``hinge`` gives the generator the discriminator's clipped loss,
    and its ``least_squares`` puts a LeakyReLU behind the logits unless told otherwise.

    Args:
        fake_logits: the discriminator's output for restored images, no activation, any shape.
        gan: ``lsgan``, ``vanilla`` or ``hinge``.

    Raises:
        ValueError: if ``gan`` is unknown.
    """
    return _gan(gan).generator(fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Loss of the discriminator: half of its mean penalty for real patches plus half of that for restored ones.

    The penalties of a real and of a restored patch with logit D are (D - 1)² and D² for ``lsgan``, softplus(-D) and
    softplus(D) for ``vanilla``, relu(1 - D) and relu(1 + D) for ``hinge``. Sources: see ``generator_loss``.
    Only ``lsgan`` is halved in its paper; the others are halved here as well, so that a weight keeps its meaning.

    Args:
        real_logits: the discriminator's output for the targets, no activation, any shape.
        fake_logits: its output for restored images, which the caller has detached from the restoring network.
        gan: ``lsgan``, ``vanilla`` or ``hinge``.

    Raises:
        ValueError: if ``gan`` is unknown.
    """
    form = _gan(gan)
    return 0.5 * (form.real(real_logits.float()).mean() + form.fake(fake_logits.float()).mean())


def discriminator_accuracy(real_logits: Tensor, fake_logits: Tensor, gan: str = "lsgan") -> Tensor:
    """Share of the patches that the discriminator judges rightly, in [0, 1]; real and restored ones count equally.

    A patch is taken for real where its logit is greater than 0.5 for ``lsgan`` (whose targets are 0 and 1), else 0.
    A discriminator that gives every patch the same logit scores 0.5.

    Args:
        real_logits: the discriminator's output for the targets, no activation, any shape.
        fake_logits: its output for restored images.
        gan: ``lsgan``, ``vanilla`` or ``hinge``.

    Raises:
        ValueError: if ``gan`` is unknown.
    """
    threshold = _gan(gan).threshold
    real, fake = real_logits.float() > threshold, fake_logits.float() <= threshold
    return 0.5 * (real.float().mean() + fake.float().mean())
