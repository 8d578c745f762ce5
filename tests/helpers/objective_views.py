"""Objective views, shared by several test files."""

import torch


def make_views(batch, spatial_dims=2, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 1, *[side] * spatial_dims)
    query, key = torch.rand(2, *shape, generator=generator)
    return {"query": query, "key": key, "seed": torch.randint(-(2**62), 2**62, (batch,), generator=generator)}
