"""Short runs of every objective: trainers, and what one process or two made of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.handlers import ValidationHandler
from monai.networks.nets import PatchDiscriminator
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset
from trainer_runs import (
    basic_unet,
    genesis_unet,
    make_dataset,
    make_evaluator,
    make_views,
    record,
    run_epochs,
    states,
)

from dira_monai.data.datasets import PretrainDataset
from dira_monai.data.sampler import SeededSampler
from dira_monai.engines.trainer import DiRATrainer
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.networks.batch_norm import synchronize_batch_norm
from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.combined import CombinedObjective
from dira_monai.objectives.gravis import GraVIS
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.pcrlv2 import PCRLv2
from dira_monai.objectives.siamese import BarlowTwins, SimSiam
from dira_monai.objectives.simclr import SimCLR
from dira_monai.objectives.visual_words import VisualWords
from dira_monai.objectives.voco import VoCo
from dira_monai.optimizers.groups import param_groups_lars, trainable_parameters
from dira_monai.optimizers.lars import LARS
from dira_monai.transforms.grid_views import GridViews
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.spatial import RandomResizedCrop
from dira_monai.transforms.views import Views
from dira_monai.utils.distributed import world_size

CPU = torch.device("cpu")
ALONE = {"restoration_weight": 0.0, "adversarial_weight": 0.0}
WORDS = 3


class Stripes(Dataset):
    """Images whose brightness and frequency depend on their word."""

    def __init__(self, region_size, count=12):
        dims = len(region_size)
        noise = torch.rand(count, 1, *region_size, generator=torch.Generator().manual_seed(0))
        wave = torch.arange(region_size[0]).reshape(-1, *[1] * (dims - 1))
        words = torch.arange(count) % WORDS
        stripes = torch.stack([0.2 * word + 0.2 + 0.2 * torch.sin((word + 1.0) * wave) for word in words])
        self.images = (0.8 * stripes[:, None] + 0.1 * noise).clamp(0, 1)
        self.words = words.tolist()

    def __len__(self):
        return len(self.words)

    def __getitem__(self, item):
        index, seed = item
        return {"image": self.images[index], "word": self.words[index], "seed": seed}


def make_gratings(region_size):
    """Eight images, each of stripes of a width of its own."""
    x = torch.arange(region_size[0]).reshape(-1, *[1] * (len(region_size) - 1)).expand(region_size)
    images = [{"image": 0.5 + 0.5 * torch.sin(x * 0.15 * n)[None]} for n in range(1, 9)]
    return PretrainDataset(images, Compose([]), region_size, cache="none")


def grid_of(patch_size):
    return (2, 2, 1)[: len(patch_size)]


def region_of(patch_size, grid):
    return tuple(count * length for count, length in zip(grid, patch_size, strict=True))


def pyramid_views(patch_size):
    small = RandomResizedCrop([n // 2 for n in patch_size], (0.1, 0.3))
    crop, hole = RandomResizedCrop(patch_size, (0.3, 1)), InPainting(count=2, size=(0.2, 0.4))
    return Views(crop, [IntensityJitter()], [hole], local_crop=small, local_count=2)


def word_views(_patch_size):
    hole = InPainting(count=1, size=(0.2, 0.4))
    return Views(lambda images, _draws: images, (), [hole], count=1, flip_axes=())


class Method(NamedTuple):
    """How a method is trained in tests."""

    objective: Callable
    views: Callable = make_views
    network: Callable = genesis_unet
    region: Callable = lambda patch_size: patch_size
    dataset: Callable = make_dataset


METHODS = {
    "moco": Method(lambda network: MoCo(network, 8, queue_size=10, momentum=0.9)),
    "barlow_twins": Method(lambda network: BarlowTwins(network, 6, 5, scale=0.1, pooled_norm=True)),
    "simsiam": Method(lambda network: SimSiam(network, 6, 5, 3)),
    "byol": Method(lambda network: BYOL(network, 6, 5, momentum=0.5)),
    "simclr": Method(lambda network: SimCLR(network, 6, 5, temperature=0.5)),
    "combined": Method(lambda net: CombinedObjective([MoCo(net, 6, queue_size=9), BYOL(net, 6)], [1.0, 0.5])),
    "gravis": Method(
        lambda network: GraVIS(network, 8, pooled_norm=True, chunk_size=4),
        lambda patch_size: Views(RandomResizedCrop(patch_size, (0.6, 1.0)), [IntensityJitter()], count=3),
        basic_unet,
        dataset=make_gratings,
    ),
    "pcrl": Method(PCRLv2, pyramid_views),
    "voco": Method(
        lambda network: VoCo(network, 8, pooled_norm=True),
        lambda patch_size: GridViews(patch_size, grid_of(patch_size), [IntensityJitter()]),
        region=lambda patch_size: region_of(patch_size, grid_of(patch_size)),
    ),
    "words": Method(lambda network: VisualWords(network, WORDS, 16, pooled_norm=True), word_views, dataset=Stripes),
}


def make_run(
    method,
    spatial_dims=2,
    build=None,
    *,
    side=16,
    seed=0,
    loader=None,
    batch_size=4,
    epochs=2,
    epoch_length=2,
    optimizer="SGD",
    lr=0.05,
    **options,
):
    """A trainer with one of ``METHODS``, which restores but has no adversary unless ``options`` say so.

    Batches are shared by all processes; ``seed`` is of the weights.
    """
    torch.manual_seed(seed)
    method = METHODS[method]
    patch_size = (side,) * spatial_dims
    network = (build or method.network)(spatial_dims)
    objective = method.objective(network)
    if world_size() > 1:
        network, objective = (synchronize_batch_norm(module, CPU) for module in (network, objective))
    discriminator = PatchDiscriminator(spatial_dims, 4, 1, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    if optimizer == "LARS":
        made = LARS(param_groups_lars(network, objective, 0.01), lr=0.5)
    else:
        momentum = {"momentum": 0.9} if optimizer == "SGD" else {}
        made = getattr(torch.optim, optimizer)(trainable_parameters(network, objective), lr=lr, **momentum)
    if loader is None:
        dataset = method.dataset(method.region(patch_size))
        share = batch_size // world_size()
        loader = DataLoader(dataset, share, sampler=SeededSampler(dataset, share, epoch_length=epoch_length))
    return DiRATrainer(
        device=CPU,
        max_epochs=epochs,
        network=network,
        optimizer=made,
        loss_function=torch.nn.MSELoss(),
        objective=objective,
        views=method.views(patch_size),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
        train_data_loader=loader,
        **{"restoration_weight": 1.0, "adversarial_weight": 0.0} | options,
    )


def make_judge(trainer, dataset=None):
    """An evaluator of the objective's own loss, on the trainer's images unless others are given."""
    metric = Average(output_transform=lambda o: o["contrastive"])
    return make_evaluator(trainer, {"val_contrastive": metric}, dataset)


def train(trainer):
    """Losses and metrics of every iteration, gradients and queries of the first, and all states after a run."""
    outputs, gradients = record(trainer), []

    def keep(engine):
        gradients.extend(p.grad.clone() for p in engine.network.parameters() if p.grad is not None)

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), keep)
    trainer.run()
    names = [name for name, value in outputs[0].items() if value.ndim == 0]
    metrics = {name: torch.stack([output[name] for output in outputs]) for name in names}
    return {"metrics": metrics, "gradients": gradients, "query": outputs[0]["query"], "states": states(trainer)}


def train_and_validate(trainer, folder, epochs, **options):
    """States and validation metrics after so many epochs of a run with checkpoints in ``folder``."""
    evaluator = make_judge(trainer)
    for handler in (ValidationHandler(1, evaluator), Checkpoint(folder, evaluator, [], **options)):
        handler.attach(trainer)
    run_epochs(trainer, epochs)
    return states(trainer), dict(evaluator.state.metrics)
