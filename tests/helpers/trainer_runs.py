"""Trainer runs, shared by several test files."""

import copy
from functools import partial
from types import SimpleNamespace

import torch
from ignite.engine import Events
from ignite.metrics import EpochMetric, MeanSquaredError
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.networks.nets import BasicUNet, FlexibleUNet, PatchDiscriminator
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import Compose
from torch.utils.data import DataLoader

from dira_monai.data.datasets import PretrainDataset
from dira_monai.data.sampler import SeededSampler
from dira_monai.engines.evaluator import DiRAEvaluator
from dira_monai.engines.trainer import DiRATrainer
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.metrics import retrieval_info_nce
from dira_monai.networks.genesis_unet import GenesisUNet
from dira_monai.objectives.moco import MoCo
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.transforms.intensity import IntensityJitter
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.spatial import RandomResizedCrop
from dira_monai.transforms.views import Views


def basic_unet(spatial_dims=2, **options):
    """Group norm, so a sample's maps do not depend on its batch."""
    norm = ("group", {"num_groups": 2})
    return BasicUNet(spatial_dims, 1, 1, features=(4, 4, 8, 8, 8, 4), norm=norm, **options)


def genesis_unet(spatial_dims=2):
    """Batch norm."""
    return GenesisUNet(spatial_dims, features=(2, 4, 6, 8))


def flexible_unet(spatial_dims=2):
    """Batch norm, and the network of the 2D bundle."""
    return FlexibleUNet(
        1, 1, "resnet10", spatial_dims=spatial_dims, decoder_channels=(8, 8, 4, 4, 2), pre_conv=None, norm="batch"
    )


def make_views(patch_size, **options):
    return Views(RandomResizedCrop(patch_size), [IntensityJitter()], [InPainting(count=2, size=(0.2, 0.4))], **options)


def make_dataset(patch_size, count=8):
    images = torch.rand(count, 1, *patch_size, generator=torch.Generator().manual_seed(0))
    return PretrainDataset([{"image": image} for image in images], Compose([]), patch_size, cache="none")


def make_loader(patch_size, batch_size=4, num_workers=0, dataset=None, **options):
    dataset = dataset or make_dataset(patch_size)
    sampler = SeededSampler(dataset, batch_size, **options)
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers)


def make_trainer(
    build=basic_unet,
    *,
    patch_size=(16, 16),
    seed=0,
    objective=None,
    optimizer="Adam",
    loader=None,
    prepare=lambda module: module,
    views=None,
    **options,
):
    """A trainer of four epochs of two batches of four unless told otherwise; ``seed`` is of the weights.

    ``objective`` holds options of MoCo, or makes another objective; ``views`` holds options of ``Views``.
    """
    torch.manual_seed(seed)
    network = prepare(build(len(patch_size)))
    if not callable(objective):
        objective = partial(MoCo, network, 8, **{"queue_size": 10, "momentum": 0.9, **(objective or {})})
    objective = prepare(objective())
    shown = 2 if options.get("conditional") else 1
    discriminator = PatchDiscriminator(len(patch_size), 4, shown, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    rate = {"lr": 0.1, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.01}
    kind = getattr(torch.optim, optimizer)
    defaults = {
        "device": torch.device("cpu"),
        "max_epochs": 4,
        "loss_function": torch.nn.MSELoss(),
        "adversarial_weight": 0.1,
        "discriminator_optimizer": kind(discriminator.parameters(), **rate),
    }
    return DiRATrainer(
        network=network,
        optimizer=kind(trainable_parameters(network, objective), **rate),
        objective=objective,
        discriminator=discriminator,
        views=make_views(patch_size, **(views or {})),
        train_data_loader=make_loader(patch_size, epoch_length=2) if loader is None else loader,
        **(defaults | options),
    )


def make_evaluator(trainer, metrics=None, dataset=None, **options):
    dataset = dataset or trainer.data_loader.dataset
    squared_error = MeanSquaredError(output_transform=lambda o: (o["pred"].flatten(), o["label"].flatten()))
    embeddings = from_engine(["query", "key"])
    contrastive = EpochMetric(retrieval_info_nce, output_transform=embeddings, check_compute_fn=False)
    return DiRAEvaluator(
        device=torch.device("cpu"),
        val_data_loader=make_loader(None, batch_size=3, dataset=dataset, seed=1, shuffle=False),
        network=trainer.network,
        objective=trainer.objective,
        views=trainer.views,
        key_val_metric=metrics or {"val_mse": squared_error},
        additional_metrics={} if metrics else {"val_contrastive": contrastive},
        metric_cmp_fn=lambda value, best: value < best,
        **options,
    )


def make_run(folder, *, metrics=None, resume=False, start_from=None, log=None, val_interval=1, saving=None, **options):
    """Trainer and evaluator with the handlers of the bundles in their order; ``log`` makes the ``TrainingLog``.

    ``saving`` holds options of ``Checkpoint``.
    """
    trainer = make_trainer(**options)
    evaluator = make_evaluator(trainer, metrics, precision=trainer.precision)
    scheduler = WarmupCosineSchedule(trainer.optimizer, warmup_steps=1, t_total=8, warmup_multiplier=0.1)
    handlers = [
        LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
        *([] if log is None else [log(evaluator)]),
        ValidationHandler(val_interval, evaluator),
        Checkpoint(folder, evaluator, [scheduler], resume=resume, start_from=start_from, **(saving or {"keep": 1})),
    ]
    for handler in handlers:
        handler.attach(trainer)
    return SimpleNamespace(trainer=trainer, evaluator=evaluator, scheduler=scheduler)


def states(trainer):
    """Copies of all states of a trainer."""
    return copy.deepcopy({name: part.state_dict() for name, part in trainer.to_save().items()})


def assert_same(first, second):
    """Equal bit for bit."""
    torch.testing.assert_close(numbers_of(first), numbers_of(second), rtol=0, atol=0)


def numbers_of(content):
    """The same content, whose texts are numbers too."""
    if isinstance(content, dict):
        return {name: numbers_of(value) for name, value in content.items()}
    return list(content.encode()) if isinstance(content, str) else content


def differs(first, second):
    """Whether two state dicts of equal keys differ anywhere."""
    return any(not torch.equal(tensor, second[name]) for name, tensor in first.items())


def record(trainer, event=Events.ITERATION_COMPLETED):
    """The list that the outputs of all iterations will be in."""
    outputs = []
    trainer.add_event_handler(event, lambda engine: outputs.append(dict(engine.state.output)))
    return outputs


def record_views(trainer):
    """The list that the views of all iterations will be in."""
    views, made = trainer.views, []
    trainer.views = lambda *args, **kwargs: made.append(views(*args, **kwargs)) or made[-1]
    return made


def run_epochs(trainer, epochs):
    """Run, and stop after so many epochs as if ended there."""
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=epochs), trainer.terminate)
    trainer.run()
    return trainer
