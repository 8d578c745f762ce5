"""Planted maps, shared by several test files."""

import numpy as np
import torch
from torch import nn


def cube(low, high, spatial_dims):
    """A box with the same ends along every axis."""
    return [low] * spatial_dims + [high] * spatial_dims


def fill(array, box, value=1.0):
    low, high = np.split(np.asarray(box), 2)
    array[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = value
    return array


def planted(spatial_dims, weight=((1.0, 0.0), (0.0, 1.0))):
    """Channels x and 1 - x, averaged; the logits weigh them."""
    conv, pool = {2: (nn.Conv2d, nn.AdaptiveAvgPool2d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[spatial_dims]
    network = nn.Sequential(conv(1, 2, 1), pool(1), nn.Flatten(), nn.Linear(2, len(weight)))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(network[0].weight.shape))
        network[0].bias.copy_(torch.tensor([0.0, 1.0]))
        network[3].weight.copy_(torch.tensor(weight))
    return network
