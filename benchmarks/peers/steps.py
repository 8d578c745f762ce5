"""Training steps by other means, with the bundles' own networks: what is compared is how the step is done."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from published import PublishedStep
from workloads import PATCH, read_bundle

from dira_monai.networks.encoder_decoder import feature_channels

from .views_2d import Work, declare_detection

BATCH = 8


def lightly() -> Work:
    """MoCo-v2 of lightly's parts on the bundle's encoder in 2D, channels last: the stage ``di``."""
    declare_detection()
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum

    backbone = read_bundle(2).get_parsed_content("network_def").encoder.to(memory_format=torch.channels_last)
    head = MoCoProjectionHead(2048, 2048, 128)
    key_backbone, key_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(key_backbone)
    deactivate_requires_grad(key_head)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(65536, 128))
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], 0.03, 0.9, weight_decay=1e-4)
    views = [torch.rand(BATCH, 1, *PATCH[2]).to(memory_format=torch.channels_last) for _ in range(2)]

    def step() -> float:
        update_momentum(backbone, key_backbone, 0.999)
        update_momentum(head, key_head, 0.999)
        query = head(backbone(views[0])[-1].mean((2, 3)))
        with torch.no_grad():
            shuffled, order = batch_shuffle(views[1])
            key = batch_unshuffle(key_head(key_backbone(shuffled)[-1].mean((2, 3))), order)
        loss = criterion(query, key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, BATCH


def published(dims: int, device: str = "cpu", **values: Any) -> PublishedStep:
    """The stand-in of the published code in its last stage: float32, usual memory layout, three channels in 2D."""
    parser = read_bundle(dims, in_channels=3 if dims == 2 else 1, **values)
    parser["network_def#out_channels"] = parser["discriminator_def#in_channels"] = 1
    network, judge = (parser.get_parsed_content(name) for name in ("network_def", "discriminator_def"))
    return PublishedStep(network, feature_channels(network), judge, torch.device(device))


def published_2d() -> Work:
    """The stand-in in 2D."""
    step, views = published(2), [torch.rand(BATCH, 3, *PATCH[2]) for _ in range(3)]
    return lambda: step(*views), BATCH


def published_3d() -> Work:
    """The stand-in in 3D."""
    step, views = published(3), [torch.rand(BATCH, 1, *PATCH[3]) for _ in range(3)]
    return lambda: step(*views), BATCH


def plain_genesis() -> Work:
    """A plain training loop of restoration in 3D, channels last, with freed memory kept as ours keeps it."""
    from dira_monai import tune_malloc

    tune_malloc()
    network = read_bundle(3, ["genesis"]).get_parsed_content("network_def").to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    view, target = (torch.rand(BATCH, 1, *PATCH[3]) for _ in range(2))

    def step() -> float:
        loss = F.mse_loss(network(view).sigmoid(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, BATCH
