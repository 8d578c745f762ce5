"""Handlers that write weights and states whole or not at all, and read them back to the same numbers."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..engines.resumable import ResumableTrainer
from ..utils.distributed import rank, world_size
from ..utils.errors import InputError
from ..utils.resuming import fast_forward, load_optimizer, load_random_states, random_states
from ..weights.files import load_module, load_weights, on_cpu, save_atomic

LOGGER = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
FORMAT = 1


class StrictCheckpointLoader:
    """Handler that loads a plain state dict when the engine starts; it must fit exactly.

    MONAI's ``CheckpointLoader`` gives a stack trace where the file is missing or does not fit; this one a sentence.

    Attributes:
        load_path: the file.
        module: what it is loaded into.
    """

    def __init__(self, load_path: str, module: nn.Module) -> None:
        self.load_path = load_path
        self.module = module

    def attach(self, engine: Engine) -> None:
        """Register for the start."""
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Engine) -> None:
        """Load the file."""
        load_module(self.module, load_weights(self.load_path), self.load_path, type(self.module).__name__)


class LocalObjective(StrictCheckpointLoader):
    """Handler that gives an evaluator the objective with which this client of a federation has trained last.

    A federation exchanges the network alone and evaluates it in a workflow of its own, whose heads and key branch are
    new. MONAI disables every handler named ``CheckpointLoader`` there: those would load weights over the global ones.

    Args:
        ckpt_dir: folder in which the client's training leaves ``checkpoint.pt``.
        module: the evaluator's objective.
    """

    def __init__(self, ckpt_dir: str, module: nn.Module) -> None:
        super().__init__(f"{Path(ckpt_dir) / CHECKPOINT}", module)

    def load(self, engine: Engine) -> None:
        """Load the objective, if this client has trained at all."""
        if Path(self.load_path).is_file():
            load_module(self.module, load_weights(self.load_path)["objective"], self.load_path, "objective")
        else:
            LOGGER.warning(f"{self.load_path} does not exist yet: contrastive metrics are those of untrained heads")


class Checkpoint:
    """Handler that saves after every epoch, keeps the best weights, and resumes.

    Files in ``ckpt_dir``: ``checkpoint.pt`` (everything, for resuming), ``model_last.pt`` (plain state dict of the
    network after the last epoch), and, after each validation that is better than all before, what the trainer exports:
    ``model.pt`` (the network); in pre-training also ``encoder.pt`` (the part of it that encodes, same names) and
    ``objective.pt`` (projector, key branch, queue).

    A further round of a federation, in which the engine goes on, loads nothing.

    Attributes:
        ckpt_dir: folder of the files.
        evaluator: whose best metric decides; None: every epoch is the best so far.
        schedulers: of learning rates, stepped with every iteration; a resumed run puts them where they belong.
        resume: continue from ``checkpoint.pt``, if there is one.
        start_from: a ``checkpoint.pt`` of an earlier stage, whose network, objective and discriminator are taken over.
    """

    def __init__(
        self,
        ckpt_dir: str,
        evaluator: Evaluator | None = None,
        schedulers: Sequence[LRScheduler] = (),
        *,
        resume: bool = False,
        start_from: str | None = None,
    ) -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.schedulers = schedulers
        self.resume = resume
        self.start_from = start_from

    def attach(self, engine: ResumableTrainer) -> None:
        """Load when the engine starts, save when an epoch is completed."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: ResumableTrainer) -> None:
        """Take over what ``resume`` or ``start_from`` name; all processes read the same file."""
        if engine.state.iteration > 0:  # a further round of a federation, which has put its weights into the network
            return
        path = self.ckpt_dir / CHECKPOINT
        if self.resume and path.exists():
            self._resume(engine, path)
            return
        if self.resume:
            LOGGER.info(f"nothing to resume: {path} does not exist; the run starts anew")
        if self.start_from is not None:
            self._start_from(engine, self.start_from)
        if world_size() > 1:
            dist.barrier()  # start_from may be the very file that process 0 moves now
        if path.exists() and rank() == 0:
            os.replace(path, path.with_name("checkpoint_before.pt"))
            LOGGER.info(f"{path} of an earlier run is kept as checkpoint_before.pt; --resume True would have gone on")

    @staticmethod
    def _start_from(engine: ResumableTrainer, path: str) -> None:
        """Network, objective and discriminator of an earlier stage."""
        content = load_weights(path, engine.state.device)
        for name, part in engine.to_save().items():
            if not isinstance(part, nn.Module):
                continue
            if name not in content:
                raise InputError(f"{path}: holds no {name}; start_from takes the checkpoint.pt of a run")
            load_module(part, content[name], path, name)
        LOGGER.info(f"started from {path}, epoch {content['epoch']}")

    def _resume(self, engine: ResumableTrainer, path: Path) -> None:
        """Every state as it was after the last whole epoch."""
        content = load_weights(path, engine.state.device)
        for name, part in engine.to_save().items():
            if name not in content:
                raise InputError(f"{path}: holds no {name}; it was made by another kind of run")
            if isinstance(part, nn.Module):
                load_module(part, content[name], path, name)
            elif isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, content[name])
            elif content[name]:  # the scaler of a run in another precision has no state
                part.load_state_dict(content[name])
        load_random_states(content["random"])
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["epoch"] * engine.state.epoch_length
        for scheduler in self.schedulers:
            fast_forward(scheduler, engine.state.iteration)
        if self.evaluator is not None:
            self.evaluator.state.best_metric = content["best_metric"]
            self.evaluator.state.best_metric_epoch = content["best_metric_epoch"]
        LOGGER.info(f"resumed from {path} after epoch {content['epoch']}")

    def save(self, engine: ResumableTrainer) -> None:
        """Write the files of this epoch; the checkpoint last, so that it never names an epoch without weights."""
        if rank() == 0:
            best = None if self.evaluator is None else self.evaluator.state
            if best is None or best.best_metric_epoch in (-1, engine.state.epoch):  # -1: not yet validated
                for name, state in engine.export_states().items():
                    save_atomic(on_cpu(state), self.ckpt_dir / name)
            save_atomic(on_cpu(engine.network.state_dict()), self.ckpt_dir / "model_last.pt")
            save_atomic(self._content(engine), self.ckpt_dir / CHECKPOINT)
        if world_size() > 1:
            dist.barrier()

    def _content(self, engine: Engine) -> dict[str, Any]:
        """What ``checkpoint.pt`` holds."""
        content = {name: part.state_dict() for name, part in engine.to_save().items()}
        content |= {"format": FORMAT, "epoch": engine.state.epoch, "iteration": engine.state.iteration}
        content["random"] = random_states()
        if self.evaluator is not None:
            content["best_metric"] = float(self.evaluator.state.best_metric)
            content["best_metric_epoch"] = self.evaluator.state.best_metric_epoch
        return content
