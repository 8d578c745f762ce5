"""Views of random images, and what an objective makes of them."""

import torch

from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.objective import ObjectiveInputs


def make_views(batch, spatial_dims=2, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 1, *[side] * spatial_dims)
    query, key = torch.rand(2, *shape, generator=generator)
    return {"query": query, "key": key, "seed": torch.randint(-(2**62), 2**62, (batch,), generator=generator)}


def forward(objective, network, views, features=None):
    """The outputs of an objective; the query is encoded unless its ``features`` are given."""
    features = encode(network, views["query"]) if features is None else features
    return objective(ObjectiveInputs(network, views, features))
