"""Gravis runs, shared by several test files."""

import torch
from monai.networks.nets import PatchDiscriminator
from monai.transforms import Compose
from torch.utils.data import DataLoader
from trainer_runs import basic_unet

from dira_monai.data.datasets import PretrainDataset
from dira_monai.data.sampler import SeededSampler
from dira_monai.engines.trainer import DiRATrainer
from dira_monai.networks.batch_norm import synchronize_batch_norm
from dira_monai.objectives.gravis import GraVIS
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.spatial import RandomResizedCrop
from dira_monai.transforms.views import Views
from dira_monai.utils.distributed import world_size

CPU = torch.device("cpu")


def make_gratings(spatial_dims, batch_size, epoch_length):
    """A loader of eight images, each of stripes of a width of its own."""
    x = torch.arange(16).reshape(-1, *[1] * (spatial_dims - 1)).expand([16] * spatial_dims)
    images = [{"image": 0.5 + 0.5 * torch.sin(x * 0.15 * n)[None]} for n in range(1, 9)]
    dataset = PretrainDataset(images, Compose([]), [16] * spatial_dims, cache="none")
    sampler = SeededSampler(dataset, batch_size, epoch_length=epoch_length)
    return DataLoader(dataset, batch_size, sampler=sampler)


def make_trainer(spatial_dims=2, *, count=3, batch_size=4, epochs=4, epoch_length=2, adam=False, **options):
    """A trainer of GraVIS alone with the settings that one process and two share."""
    torch.manual_seed(0)
    patch_size = (16,) * spatial_dims
    prepare = (lambda module: synchronize_batch_norm(module, CPU)) if world_size() > 1 else (lambda module: module)
    network = basic_unet(spatial_dims)
    gravis = prepare(GraVIS(network, 8, pooled_norm=True, **options))
    parameters = trainable_parameters(network, gravis)
    discriminator = PatchDiscriminator(spatial_dims, 4, 1, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    return DiRATrainer(
        device=CPU,
        max_epochs=epochs,
        network=network,
        optimizer=torch.optim.Adam(parameters) if adam else torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
        loss_function=torch.nn.MSELoss(),
        objective=gravis,
        views=Views(RandomResizedCrop(patch_size, (0.6, 1.0)), [IntensityJitter()], count=count),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
        train_data_loader=make_gratings(spatial_dims, batch_size, epoch_length),
        restoration_weight=0.0,
        adversarial_weight=0.0,
    )
