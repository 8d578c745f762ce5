"""How long a step of a bundle's own trainer lasts on a device: measured."""

import contextlib
import io
import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import Dataset, decollate_batch
from torch import Tensor
from torch.utils.data import DataLoader

from ...bundle.config import read_config

WARM = 1  # steps that are not measured: memory is fetched, kernels are chosen
STEPS = 3  # steps whose median is taken, fewer where they last
LONG = 1.0  # seconds after which no further step is begun: what lasts so long does not vary by much
CPU_BATCH = 4  # images of a measured step on a CPU, where an image takes as long in a batch of any size


def measure_step(config: str, values: Mapping[str, Any], device: str, task: str, sizes: Mapping[str, Any]) -> float:
    """Seconds of a step of the configuration's trainer, in its dearest stage, on random images of the planned sizes.

    Args:
        config: folder of the bundle, or configuration files.
        values: of the plan and of the user, by their ids.
        device: such as cuda:0.
        task: pretrain, segmentation or classification.
        sizes: ``batch``, ``channels``, ``size`` of an image that the loader gives, ``classes``.

    Raises:
        InputError: if the trainer cannot be built.
        torch.OutOfMemoryError: if the batch does not fit.
    """
    batch = sizes["batch"] if device.startswith("cuda") else min(sizes["batch"], CPU_BATCH)
    data = Dataset(decollate_batch(_random_batch(task, {**sizes, "batch": batch})))
    bundle = read_config(config, values, purpose="the measurement of a step")
    parser = bundle.parser
    for name in ("stage_epochs", "class_weights", "weights", "pretrained", "start_from"):
        if name in parser:
            parser[name] = None
    parser["device"] = f"$torch.device('{device}')"
    parser["max_epochs"] = 1
    parser["train#handlers"] = []
    parser["train#dataloader"] = DataLoader(data, batch_size=batch, sampler=[*range(batch)] * (WARM + STEPS))
    with _untold():
        trainer = bundle.build("train#trainer")
    times = [time.perf_counter()]

    def note(engine: Engine) -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        if len(times) > 1 + WARM and times[-1] - times[WARM] > LONG:
            engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    laps = [after - before for before, after in zip(times[WARM:], times[WARM + 1 :], strict=False)]
    return statistics.median(laps) * sizes["batch"] / batch


@contextlib.contextmanager
def _untold() -> Iterator[None]:
    """Keep what a trainer says of its data to itself: these few random images are not those of the run."""
    objectives = logging.getLogger("dira_monai.objectives")
    before = objectives.level
    objectives.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        objectives.setLevel(before)


def _random_batch(task: str, sizes: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the loader of a task gives: images in [0, 1], and seeds or labels."""
    count, classes = sizes["batch"], sizes["classes"]
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, sizes["channels"], *sizes["size"], generator=random)
    if task == "pretrain":
        return {"image": images, "seed": torch.arange(count)}
    if task == "segmentation":
        return {"image": images, "label": (images[:, :1] * classes).floor()}
    return {"image": images, "label": torch.eye(classes)[torch.arange(count) % classes]}
