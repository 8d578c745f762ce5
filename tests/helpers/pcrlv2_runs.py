"""Pcrlv2 runs, shared by several test files."""

import torch
from objective_runs import make_objective_trainer
from trainer_runs import genesis_unet

from dira_monai.objectives.pcrlv2 import PCRLv2
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.spatial import RandomResizedCrop
from dira_monai.transforms.views import Views


def make_trainer(spatial_dims=2, build=genesis_unet, side=16, seed=0, **options):
    torch.manual_seed(seed)
    network = build(spatial_dims)
    crop = RandomResizedCrop((side,) * spatial_dims, (0.3, 1))
    small = RandomResizedCrop((side // 2,) * spatial_dims, (0.1, 0.3))
    views = Views(
        crop,
        [IntensityJitter()],
        [InPainting(count=2, size=(0.2, 0.4))],
        local_crop=small,
        local_count=2,
        flip_axes=[0],
    )
    weight = {"restoration_weight": 1.0} | options
    return make_objective_trainer(network, PCRLv2(network), views, (side,) * spatial_dims, **weight)
