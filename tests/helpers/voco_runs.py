"""Voco runs, shared by several test files."""

import torch
from objective_runs import make_objective_trainer
from trainer_runs import genesis_unet

from dira_monai.objectives.voco import VoCo
from dira_monai.transforms.grid_views import GridViews
from dira_monai.transforms.intensity import IntensityJitter


def region_of(patch_size, grid):
    return tuple(count * length for count, length in zip(grid, patch_size, strict=True))


def make_trainer(spatial_dims=2, build=genesis_unet, seed=0, **options):
    torch.manual_seed(seed)
    network = build(spatial_dims)
    grid = (2, 2, 1)[:spatial_dims]
    patch_size = (16,) * spatial_dims
    voco = VoCo(network, 8, pooled_norm=True)
    return make_objective_trainer(
        network, voco, GridViews(patch_size, grid, [IntensityJitter()]), region_of(patch_size, grid), **options
    )
