"""Weights and states on disk: written whole or not at all, read back to the same numbers."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from .backbones import encoder_state
from .distributed import rank, world_size
from .errors import InputError
from .trainer import DiRATrainer

LOGGER = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
FORMAT = 1


def save_atomic(content: Any, path: str | Path) -> None:
    """Write with ``torch.save`` under a temporary name and rename, so that the file is the old one or the new one.

    Raises:
        InputError: if it cannot be written (disk full, no permission); the file that was there is kept.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        with suppress(OSError):  # none was made, or its folder is none
            temporary.unlink()
        kept = "the file of before is kept" if path.exists() else "nothing was written"
        raise InputError(f"{path}: cannot be written ({error}); {kept}") from error


def load_weights(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Content of a weight or checkpoint file, read with ``weights_only=True``.

    Raises:
        InputError: if the file is missing or not readable.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # an empty file gives an error without text
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def load_module(module: nn.Module, state: Mapping[str, Any], path: str | Path, part: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        InputError: if keys or shapes differ; names the file, the part and the first that do.
    """
    own = module.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own]
    wrong += [k for k in own if k in state and own[k].shape != state[k].shape]
    if wrong:
        raise InputError(
            f"{path}: {part} is of another network: {len(wrong)} of {len(own)} tensors do not fit, "
            f"first {', '.join(wrong[:3])}"
        )
    module.load_state_dict(state)


def random_states() -> dict[str, Any]:
    """States of torch's generators; nothing in this package draws from any other."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


class Checkpoint:
    """Handler that saves after every epoch, keeps the best weights, and resumes.

    Files in ``ckpt_dir``: ``checkpoint.pt`` (everything, for resuming), ``model_last.pt`` (plain state dict of the
    network after the last epoch), and, after each validation that is better than all before, ``model.pt`` (the
    network), ``encoder.pt`` (the part of it that encodes, same names) and ``objective.pt`` (projector, key branch,
    queue).

    Attributes:
        ckpt_dir: folder of the files.
        evaluator: whose best metric decides; None: every epoch is the best so far.
        schedulers: learning-rate schedulers to save, by name.
        resume: continue from ``checkpoint.pt``, if there is one.
        start_from: a ``checkpoint.pt`` of an earlier stage, whose network, objective and discriminator are taken over.
    """

    def __init__(
        self,
        ckpt_dir: str,
        evaluator: Evaluator | None = None,
        schedulers: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        start_from: str | None = None,
    ) -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.schedulers = dict(schedulers or {})
        self.resume = resume
        self.start_from = start_from

    def attach(self, engine: DiRATrainer) -> None:
        """Load when the engine starts, save when an epoch is completed."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: DiRATrainer) -> None:
        """Take over what ``resume`` or ``start_from`` name; all processes read the same file."""
        path = self.ckpt_dir / CHECKPOINT
        if self.resume and path.exists():
            self._resume(engine, path)
        elif self.start_from is not None:
            content = load_weights(self.start_from, engine.state.device)
            for name, part in engine.stateful().items():
                if not isinstance(part, nn.Module):
                    continue
                if name not in content:
                    raise InputError(f"{self.start_from}: holds no {name}; start_from takes the checkpoint.pt of a run")
                load_module(part, content[name], self.start_from, name)
            LOGGER.info(f"started from {self.start_from}, epoch {content['epoch']}")
        elif self.resume:
            LOGGER.info(f"nothing to resume: {path} does not exist; the run starts anew")

    def _resume(self, engine: DiRATrainer, path: Path) -> None:
        """Every state as it was after the last whole epoch."""
        content = load_weights(path, engine.state.device)
        for name, part in (engine.stateful() | self.schedulers).items():
            if name not in content:
                raise InputError(f"{path}: holds no {name}; it was made by another kind of run")
            if isinstance(part, nn.Module):
                load_module(part, content[name], path, name)
            else:
                part.load_state_dict(content[name])
        torch.set_rng_state(content["random"]["cpu"].cpu())
        if "cuda" in content["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([state.cpu() for state in content["random"]["cuda"]])
        engine.state.epoch, engine.state.iteration = content["epoch"], content["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = content["best_metric"]
            self.evaluator.state.best_metric_epoch = content["best_metric_epoch"]
        LOGGER.info(f"resumed from {path} after epoch {content['epoch']}")

    def save(self, engine: DiRATrainer) -> None:
        """Write the files of this epoch; the checkpoint last, so that it never names an epoch without weights."""
        if rank() == 0:
            best = None if self.evaluator is None else self.evaluator.state
            if best is None or best.best_metric_epoch in (-1, engine.state.epoch):  # -1: not yet validated
                save_atomic(engine.network.state_dict(), self.ckpt_dir / "model.pt")
                save_atomic(encoder_state(engine.network), self.ckpt_dir / "encoder.pt")
                save_atomic(engine.objective.state_dict(), self.ckpt_dir / "objective.pt")
            save_atomic(engine.network.state_dict(), self.ckpt_dir / "model_last.pt")
            save_atomic(self._content(engine), self.ckpt_dir / CHECKPOINT)
        if world_size() > 1:
            dist.barrier()

    def _content(self, engine: Engine) -> dict[str, Any]:
        """What ``checkpoint.pt`` holds."""
        content = {name: part.state_dict() for name, part in (engine.stateful() | self.schedulers).items()}
        content |= {"format": FORMAT, "epoch": engine.state.epoch, "iteration": engine.state.iteration}
        content["random"] = random_states()
        if self.evaluator is not None:
            content["best_metric"] = float(self.evaluator.state.best_metric)
            content["best_metric_epoch"] = self.evaluator.state.best_metric_epoch
        return content
