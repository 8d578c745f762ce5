"""The handler that writes weights and states whole or not at all, and reads them back to the same numbers."""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import Evaluator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..data.sampler import SeededSampler
from ..engines.evaluator import DiRAEvaluator
from ..engines.precision import AUTOMATIC, autocast
from ..engines.preemption import spare_workers
from ..engines.resumable import ResumableTrainer
from ..utils.distributed import on_first_process, rank, world_size
from ..utils.errors import InputError, check_integers
from ..utils.locking import lock_folder
from ..utils.resuming import fast_forward, load_optimizer, load_random_states, random_states
from ..weights.files import find_not_finite, load_module, load_weights, on_cpu, save_atomic

LOGGER = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
FORMAT = 1


class Checkpoint:
    """Handler that saves after every epoch, keeps the best weights, and resumes.

    Files in ``ckpt_dir``: ``checkpoint.pt`` (everything, for resuming), ``checkpoint_1.pt`` and so on (those before
    it), ``model_last.pt`` (plain state dict of the network after the last epoch), and, after each validation that is
    better than all before in the same stage, what the trainer exports: ``model.pt`` (the network); in pre-training also
    ``encoder.pt`` (the part of it that encodes, same names) and ``objective.pt`` (projector, key branch, queue).
    Weights that are not finite are never saved.

    A signal (see ``Preemption``) lets the step end, saves, and ends the run with the status 128 + its number; a resumed
    run goes on behind that very step. In a validation it waits for the end of the epoch, and in the last epoch it does
    nothing.

    A further round of a federation, in which the engine goes on, loads nothing.

    Attributes:
        ckpt_dir: folder of the files.
        evaluator: whose best metric decides; None: every epoch is the best so far.
        schedulers: of learning rates, stepped with every iteration; a resumed run puts them where they belong.
        resume: continue from ``checkpoint.pt``, if there is one.
        start_from: a ``checkpoint.pt`` of an earlier stage, whose network, objective and discriminator are taken over.
        keep: how many checkpoints stay, at least 1.
        minutes: time after which ``checkpoint.pt`` is written inside an epoch too; None: at the ends of epochs alone.
    """

    def __init__(
        self,
        ckpt_dir: str,
        evaluator: Evaluator | None = None,
        schedulers: Sequence[LRScheduler] = (),
        *,
        resume: bool = False,
        start_from: str | None = None,
        keep: int = 2,
        minutes: float | None = None,
    ) -> None:
        check_integers(1, keep_checkpoints=keep)
        if minutes is not None and not minutes > 0:
            raise InputError(f"checkpoint_minutes must be above 0, or None, got {minutes!r}.")
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.schedulers = schedulers
        self.resume = resume
        self.start_from = start_from
        self.keep = keep
        self.minutes = minutes
        self.saved = 0.0  # when, on a clock that never goes back

    def attach(self, engine: ResumableTrainer) -> None:
        """Load when the engine starts, save when an epoch is completed, and inside it where that is asked for."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.STARTED, self.start_clock)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_stage)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save_inside)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        spare_workers(*(e.data_loader for e in (engine, self.evaluator) if e is not None))

    def start_clock(self, engine: ResumableTrainer) -> None:
        """Count the minutes from now on."""
        self.saved = time.monotonic()

    def start_stage(self, engine: ResumableTrainer) -> None:
        """Tell the evaluator the stage of the epoch; in a new one, whose losses are others, the best begins anew."""
        if self.evaluator is None:
            return
        state, epoch = self.evaluator.state, engine.state.epoch
        state.stage = engine.stage(epoch)
        if epoch > 1 and state.stage != engine.stage(epoch - 1):
            state.best_metric, state.best_metric_epoch = -1, -1  # as MONAI's evaluators begin

    def load(self, engine: ResumableTrainer) -> None:
        """Take over what ``resume`` or ``start_from`` name; all processes read the same file."""
        if engine.state.iteration > 0:  # a further round of a federation, which has put its weights into the network
            return
        on_first_process(lambda: lock_folder(self.ckpt_dir))
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
        _keep_precision(engine, self.evaluator, content, path)
        for name, part in engine.to_save().items():
            if name not in content:
                raise InputError(f"{path}: holds no {name}; it was made by another kind of run")
            if isinstance(part, nn.Module):
                load_module(part, content[name], path, name)
            elif isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, content[name], content.get("kinds", {}).get(name), path)
            elif content[name]:  # the scaler of a run in another precision has no state
                part.load_state_dict(content[name])
        load_random_states(content["random"])
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["epoch"] * engine.state.epoch_length + self._enter(engine, content, path)
        for scheduler in self.schedulers:
            fast_forward(scheduler, engine.state.iteration)
        if self.evaluator is not None:
            self.evaluator.state.best_metric = content["best_metric"]
            self.evaluator.state.best_metric_epoch = content["best_metric_epoch"]
        LOGGER.info(f"resumed from {path} after epoch {content['epoch']}, iteration {engine.state.iteration}")

    @staticmethod
    def _enter(engine: ResumableTrainer, content: dict[str, Any], path: Path) -> int:
        """Go to where in its epoch the run was saved; the number of iterations that this leaves out."""
        inside = content.get("inside")
        if inside is None:
            return 0
        if inside["epoch_length"] != engine.state.epoch_length:
            LOGGER.warning(
                f"{path} was saved after {inside['iterations']} of {inside['epoch_length']} iterations of an epoch, "
                f"which now has {engine.state.epoch_length}: it begins anew with the weights of then"
            )
            return 0
        engine.sums, engine.summed = inside["sums"], inside["iterations"]
        if isinstance(sampler := engine.data_loader.sampler, SeededSampler):
            sampler.start = inside["iterations"] * engine.data_loader.batch_size
        first = Events.ITERATION_STARTED(
            once=content["iteration"] + 1
        )  # the loader, which starts anew, draws before it
        engine.add_event_handler(first, lambda _: load_random_states(content["random"]))
        return inside["iterations"]

    def save_inside(self, engine: ResumableTrainer) -> None:
        """After a step that does not end its epoch: save where a signal or the minutes ask for it; end for a signal."""
        if engine.state.iteration % engine.state.epoch_length == 0 or not engine.accumulation()[1]:
            return
        due = self.minutes is not None and time.monotonic() - self.saved > 60 * self.minutes
        number, due = engine.preemption.agree(due)
        if number or due:
            on_first_process(lambda: self._check(engine))
            self._write(engine)
        if number:
            self._end(engine, number)

    def _end(self, engine: ResumableTrainer, number: int) -> None:
        """End the run as its signal has it."""
        if rank() == 0:
            print(
                f"{signal.Signals(number).name}: training stopped in epoch {engine.state.epoch} after iteration "
                f"{engine.state.iteration}, all of it saved in {self.ckpt_dir / CHECKPOINT}; --resume True goes on",
                file=sys.stderr,
            )
        raise SystemExit(128 + number)

    def _check(self, engine: ResumableTrainer) -> None:
        """Nothing, where all weights and buffers are finite.

        Raises:
            InputError: names the first part and tensor that are not; nothing of it is saved.
        """
        for name, part in engine.to_save().items():
            broken = find_not_finite(part.state_dict()) if isinstance(part, nn.Module) else None
            if broken is not None:
                raise InputError(
                    f"epoch {engine.state.epoch}, iteration {engine.state.iteration}: {broken} of {name} is not finite;"
                    f" training stopped, the files of before in {self.ckpt_dir} are kept; try a lower learning_rate or "
                    "gradient_clip 1.0"
                )

    def save(self, engine: ResumableTrainer) -> None:
        """Write the files of this epoch; the checkpoint last, so that it never names an epoch without weights."""
        on_first_process(lambda: self._check(engine))
        if rank() == 0:
            best = None if self.evaluator is None else self.evaluator.state
            if best is None or best.best_metric_epoch in (-1, engine.state.epoch):  # -1: not yet validated
                for name, state in engine.export_states().items():
                    save_atomic(on_cpu(state), self.ckpt_dir / name)
            save_atomic(on_cpu(engine.network.state_dict()), self.ckpt_dir / "model_last.pt")
        self._write(engine)
        number, _ = engine.preemption.agree()
        if number and engine.state.epoch < engine.state.max_epochs:
            self._end(engine, number)

    def _write(self, engine: ResumableTrainer) -> None:
        """Write the checkpoint, behind which those of before move up; all processes wait for it."""
        path = self.ckpt_dir / CHECKPOINT
        if rank() == 0:
            content = self._content(engine)
            kept = [path, *(path.with_name(f"checkpoint_{number}.pt") for number in range(1, self.keep))]
            for older, newer in zip(kept[:1:-1], kept[-2:0:-1], strict=True):
                if newer.exists():
                    os.replace(newer, older)
            if len(kept) > 1 and path.exists():  # it must never be missing, so it is copied
                _copy(path, kept[1])
            save_atomic(content, path)
        if world_size() > 1:
            dist.barrier()
        self.saved = time.monotonic()

    def _content(self, engine: ResumableTrainer) -> dict[str, Any]:
        """What ``checkpoint.pt`` holds."""
        content = {name: part.state_dict() for name, part in engine.to_save().items()}
        iteration, length = engine.state.iteration, engine.state.epoch_length
        content |= {"format": FORMAT, "epoch": iteration // length, "iteration": iteration, "random": random_states()}
        content["precision"] = engine.precision
        optimizers = {n: part for n, part in engine.to_save().items() if isinstance(part, torch.optim.Optimizer)}
        content["kinds"] = {name: type(part).__name__ for name, part in optimizers.items()}
        if done := iteration % length:
            content["inside"] = {"iterations": done, "epoch_length": length, "sums": engine.sums}
        if self.evaluator is not None:
            content["best_metric"] = float(self.evaluator.state.best_metric)
            content["best_metric_epoch"] = self.evaluator.state.best_metric_epoch
        return content


def _keep_precision(
    trainer: ResumableTrainer, evaluator: Evaluator | None, content: dict[str, Any], path: Path
) -> None:
    """Go on in the precision of before where ``auto`` chooses another one now: a resumed run is as an unbroken one."""
    before = content.get("precision", trainer.precision)
    if not trainer.precision_measured or before == trainer.precision:
        return
    if before not in AUTOMATIC:
        raise InputError(f"{path}: was trained in {before}, which auto never chooses; give --precision {before}")
    LOGGER.info(f"{path} was trained in {before}: this run goes on in it; --precision {trainer.precision} changes that")
    trainer.precision = before
    trainer.context = autocast(trainer.state.device, before)
    if isinstance(evaluator, DiRAEvaluator):  # MONAI's own validates in float32
        evaluator.context = trainer.context


def _copy(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the disk has no such names."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
