"""Short runs of any objective: a trainer of it, and what one process or two made of it."""

from datetime import timedelta

import torch
import torch.distributed as dist
from monai.handlers import ValidationHandler
from monai.networks.nets import PatchDiscriminator
from trainer_runs import make_evaluator, make_loader, record, run_epochs, states

from dira_monai.engines.trainer import DiRATrainer
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.networks.batch_norm import synchronize_batch_norm
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.utils.distributed import world_size

CPU = torch.device("cpu")


def make_objective_trainer(
    network, objective, views, region_size, *, loader=None, batch_size=4, epochs=2, epoch_length=2, **options
):
    """A trainer whose batches are shared by all processes; contrastive weight 1 and no adversary unless told."""
    if world_size() > 1:
        network, objective = (synchronize_batch_norm(module, CPU) for module in (network, objective))
    discriminator = PatchDiscriminator(len(region_size), 4, 1, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    settings = {"restoration_weight": 0.0, "adversarial_weight": 0.0, "lr": 0.05} | options
    parameters = trainable_parameters(network, objective)
    return DiRATrainer(
        device=CPU,
        max_epochs=epochs,
        network=network,
        optimizer=torch.optim.SGD(parameters, lr=settings.pop("lr"), momentum=0.9),
        loss_function=torch.nn.MSELoss(),
        objective=objective,
        views=views,
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
        train_data_loader=loader or make_loader(region_size, batch_size // world_size(), epoch_length=epoch_length),
        **settings,
    )


def train(trainer):
    """Losses and metrics of every iteration, and all states after a run."""
    outputs = record(trainer)
    trainer.run()
    names = [name for name, value in outputs[0].items() if value.ndim == 0]
    metrics = {name: torch.stack([output[name] for output in outputs]) for name in names}
    return {"metrics": metrics, "states": states(trainer)}


def train_and_validate(trainer, folder, epochs, **options):
    """States and validation metrics after so many epochs of a run with checkpoints in ``folder``."""
    evaluator = make_evaluator(trainer)
    for handler in (ValidationHandler(1, evaluator), Checkpoint(folder, evaluator, [], **options)):
        handler.attach(trainer)
    run_epochs(trainer, epochs)
    return states(trainer), dict(evaluator.state.metrics)


def _work(process, folder, runs):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=process, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save({name: train(make()) for name, make in runs.items()}, f"{folder}/{process}.pt")
    dist.destroy_process_group()


def in_two_processes(folder, runs):
    """What ``train`` gives of each of the trainers that the functions in ``runs`` make, in either process."""
    torch.multiprocessing.spawn(_work, (str(folder), runs), nprocs=2)
    return [torch.load(folder / f"{process}.pt", weights_only=True) for process in (0, 1)]
