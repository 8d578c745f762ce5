"""Siamese runs, shared by several test files."""

import torch
from trainer_runs import (
    genesis_unet,
    make_trainer,
)

from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.combined import CombinedObjective
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.siamese import BarlowTwins, SimSiam
from dira_monai.objectives.simclr import SimCLR
from dira_monai.optimizers.groups import param_groups_lars, trainable_parameters
from dira_monai.optimizers.lars import LARS

KINDS = {
    "barlow_twins": lambda network: BarlowTwins(network, 6, 5, scale=0.1, pooled_norm=True),
    "simsiam": lambda network: SimSiam(network, 6, 5, 3),
    "byol": lambda network: BYOL(network, 6, 5, momentum=0.5),
    "simclr": lambda network: SimCLR(network, 6, 5, temperature=0.5),
    "combined": lambda network: CombinedObjective([MoCo(network, 6, queue_size=9), BYOL(network, 6)], [1.0, 0.5]),
}


def make_run(kind, spatial_dims=2, build=genesis_unet, prepare=lambda module: module, optimizer="SGD", **options):
    """A trainer with one of ``KINDS``."""
    trainer = make_trainer(build, patch_size=(16,) * spatial_dims, prepare=prepare, optimizer="SGD", **options)
    torch.manual_seed(1)
    trainer.objective = prepare(KINDS[kind](trainer.network))
    if optimizer == "LARS":
        trainer.optimizer = LARS(param_groups_lars(trainer.network, trainer.objective, 0.01), lr=0.5)
    else:
        trainer.optimizer = torch.optim.SGD(
            trainable_parameters(trainer.network, trainer.objective), lr=0.05, momentum=0.9
        )
    return trainer
