"""How alike patients are: features of whole images, from an auto-encoder trained on them or from any encoder."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from tqdm import tqdm

from ...networks.encoder_decoder import decode, encode, without_skips
from ...networks.heads import global_average_pool
from ...transforms.views import to_unit
from ...utils.errors import InputError
from ...utils.seeded_random import sample_seeds

FEATURES = (16, 32, 64, 128, 256, 16)  # channels of the auto-encoder; a patient has 256 features


def thumbnail(image: Tensor, size: Sequence[int]) -> Tensor:
    """A whole image in [0, 1], (C, *spatial), at another size by averages over areas, uint8, (C, *size)."""
    return (F.interpolate(image[None], size=list(size), mode="area")[0] * 255).round().to(torch.uint8)


def make_autoencoder(spatial_dims: int, in_channels: int, seed: int) -> BasicUNet:
    """An auto-encoder with random weights that the seed determines; the random state outside stays.

    A ``BasicUNet`` whose skip connections are fed zeros, with batch norm: instance norm would make the averages of a
    map nearly equal for all patients.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BasicUNet(spatial_dims, in_channels, in_channels, features=FEATURES, norm="batch")


def train_autoencoder(
    network: nn.Module,
    images: Tensor,
    *,
    steps: int,
    batch_size: int = 8,
    seed: int = 0,
    learning_rate: float = 1e-3,
) -> list[float]:
    """Train to restore images from the deepest map alone: mean squared errors of all steps; the network is changed.

    As TransVW: MSE, Adam, whole images. Deviations: a number of steps with a constant rate, where TransVW halves the
    rate and stops by a validation loss.

    Args:
        network: one of the known U-Nets, on its device.
        images: uint8, (N, C, *size).
        steps: of the optimizer, at least 1.
        batch_size: images a step.
        seed: of the order of the images.
        learning_rate: of Adam.

    Raises:
        InputError: if the error is not finite.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    rounds = math.ceil(steps * batch_size / len(images))
    orders = sample_seeds(seed, 2, rounds * len(images)).reshape(rounds, -1).argsort(dim=1).flatten()
    network.train()
    errors = list[float]()
    bar = tqdm(orders[: steps * batch_size].split(batch_size), "training the auto-encoder", leave=False, disable=None)
    for chosen in bar:
        batch = to_unit(images[chosen].to(device))
        restored = decode(network, without_skips(encode(network, batch))).sigmoid()
        loss = F.mse_loss(restored, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
        if not math.isfinite(errors[-1]):
            raise InputError(f"the auto-encoder's error is not finite in step {len(errors)}; try fewer steps.")
        bar.set_postfix(mse=f"{errors[-1]:.4f}")
    return errors


@torch.no_grad()
def patient_features(network: nn.Module, images: Tensor, batch_size: int = 8) -> Tensor:
    """Global average of the deepest map of each uint8 image (N, C, *size), float32 on the CPU, (N, D).

    The network, on its device, is left in evaluation mode.
    """
    device = next(network.parameters()).device
    network.eval()
    parts = [global_average_pool(encode(network, to_unit(part.to(device)))[-1]) for part in images.split(batch_size)]
    return torch.cat(parts).cpu()


def nearest(features: Tensor, reference: Tensor, count: int) -> list[int]:
    """Numbers of at most ``count`` of N patients (N, D), nearest to a reference (D,) first, by Euclidean distance."""
    distances = torch.linalg.vector_norm(features.double() - reference.double(), dim=1)
    return distances.argsort(stable=True)[:count].tolist()
