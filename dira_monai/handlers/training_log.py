"""What a person sees of a run: a line an epoch, TensorBoard, metrics.csv, a last line; and a stop on invalid losses."""

import csv
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..engines.resumable import ResumableTrainer
from ..utils.distributed import world_size
from ..utils.errors import InputError
from ..utils.files import write_csv
from .mlflow_names import name_for_mlflow


class TrainingLog:
    """Handler that shows and records a run, and stops it when a loss is not finite. Only process 0 has it.

    Losses are summed where they are computed and read every ``interval`` iterations, so the device need not wait.
    Each epoch is a line of losses and key metric; a terminal has a progress bar besides. Written to ``output_dir``:
    ``metrics.csv`` (one row an epoch) and ``tensorboard``, with the panel of the 1st, 2nd, 4th, 8th, ... and last
    validation. At the end one line says where everything is.

    Attributes:
        output_dir: folder of the files.
        ckpt_dir: folder of the weights, for the last line.
        evaluator: whose metrics are recorded as well.
        next_step: what to do with the weights, for the last line.
        tensorboard: write the folder ``tensorboard``.
        mlflow: where MLflow logs the run, such as ``sqlite:///runs.db``; None: nowhere.
        interval: iterations between two looks at the losses.
    """

    def __init__(
        self,
        output_dir: str,
        ckpt_dir: str,
        evaluator: Evaluator | None = None,
        next_step: str = "",
        tensorboard: bool = True,
        interval: int = 10,
        mlflow: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.next_step = next_step
        self.tensorboard = tensorboard
        self.mlflow = mlflow
        self.interval = interval
        self.opened = False
        self.rows: list[dict[str, Any]] = []
        self.images = 0
        self.started = 0.0
        self.means: dict[str, float] = {}  # of the newest epoch, and of its validation
        self.line: list[str] = []  # of the epoch, until it is shown
        self.validations = 0
        self.bar = tqdm(disable=True)
        self.writer: SummaryWriter | None = None

    def attach(self, engine: ResumableTrainer) -> None:
        """Register for the engine's events."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self.validated)
        if self.mlflow is not None:
            self._attach_mlflow(engine, self.mlflow)

    def _attach_mlflow(self, engine: ResumableTrainer, uri: str) -> None:
        """Let MLflow log engine and evaluator in one run, which ends with the training."""
        name = str(self.output_dir)
        MLFlowHandler(uri, iteration_log=False, run_name=name, close_on_complete=True).attach(engine)
        if self.evaluator is not None:
            handler = MLFlowHandler(uri, iteration_log=False, run_name=name)
            name_for_mlflow([handler])
            handler.attach(self.evaluator)

    def _open(self, engine: ResumableTrainer) -> None:
        """Open files and bar; a resumed run goes on in them behind its last whole epoch."""
        self.opened = True
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.rows = [r for r in read_rows(self.output_dir / "metrics.csv") if int(r["epoch"]) < engine.state.epoch]
        if self.tensorboard:
            self.writer = SummaryWriter(str(self.output_dir / "tensorboard"), purge_step=engine.state.iteration + 1)
        total = engine.state.max_epochs * engine.state.epoch_length
        self.bar = tqdm(total=total, initial=engine.state.iteration, unit="it", mininterval=0.5, disable=None)

    def start_epoch(self, engine: ResumableTrainer) -> None:
        """Begin the epoch's means; open the files before the first one, when a resumed state is in place."""
        if not self.opened:
            self._open(engine)
        self._tell()
        if engine.state.iteration % engine.state.epoch_length == 0:  # else a run was resumed inside the epoch
            engine.sums, engine.summed = {}, 0
        self.images, self.started = 0, time.perf_counter()
        self.stage = engine.stage(engine.state.epoch)
        self.bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs} {self.stage}".rstrip())

    def iteration(self, engine: ResumableTrainer) -> None:
        """Add the losses; every ``interval`` iterations, look at them."""
        for name, value in engine.step_metrics().items():
            engine.sums[name] = engine.sums.get(name, 0) + value.detach().float()
        engine.summed += 1
        self.images += len(engine.state.batch["image"]) * world_size()
        self.bar.update()
        if engine.summed % self.interval == 0 or engine.summed == 1:
            self._look(engine)

    def _look(self, engine: ResumableTrainer) -> dict[str, float]:
        """Means of the epoch so far, shown.

        Raises:
            InputError: if one is not finite.
        """
        means = {name: float(value) / engine.summed for name, value in engine.sums.items()}
        parts = engine.losses[1:]
        broken = [name for name in parts if not math.isfinite(means.get(name, 0.0))]
        if broken or not math.isfinite(means["loss"]):
            raise InputError(
                f"epoch {engine.state.epoch}, iteration {engine.state.iteration}: "
                f"the {broken[0] if broken else 'total'} loss is not finite; training stopped, the checkpoint of the "
                f"last whole epoch in {self.ckpt_dir} is kept; try a lower learning_rate or gradient_clip 1.0"
            )
        self.bar.set_postfix(self._shown(engine, means) | {"img/s": f"{self.rate:.1f}"})
        return means

    @staticmethod
    def _shown(engine: ResumableTrainer, means: dict[str, float]) -> dict[str, str]:
        """The losses that a line has room for: the parts, or the total where there are none."""
        return {name: f"{means[name]:.3g}" for name in engine.losses[1:] or engine.losses if name in means}

    @property
    def rate(self) -> float:
        """Images per second of this epoch, over all processes, without validation."""
        return self.images / max(time.perf_counter() - self.started, 1e-9)

    def end_epoch(self, engine: ResumableTrainer) -> None:
        """Record the epoch's means; validation and checkpoints come after this handler."""
        means = self._look(engine) | engine.epoch_metrics()
        means["learning_rate"] = engine.optimizer.param_groups[-1]["lr"]
        means["images_per_second"] = self.rate
        self.means = engine.state.epoch_metrics = means  # for CollapseMonitor
        engine.state.metrics.update(means)  # where MONAI's own trackers look
        row = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "stage": self.stage} | means
        self.rows.append(row)
        self.line = [f"epoch {engine.state.epoch}/{engine.state.max_epochs} {self.stage}".rstrip() + ":"]
        self.line += [f"{name} {value}" for name, value in self._shown(engine, means).items()]
        self._record(means)

    def validated(self, engine: Engine) -> None:
        """Add the evaluator's metrics to the epoch's row."""
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        self.rows[-1] |= metrics
        self.means |= metrics
        self._record(metrics)
        key = engine.state.key_metric_name
        best = " (best)" if engine.state.best_metric_epoch == self.rows[-1]["epoch"] else ""
        self.line += [f"{key} {metrics[key]:.4g}{best}"] if key in metrics else []
        self.validations += 1
        if self.validations & (self.validations - 1) == 0:
            self._add_panel()

    def _tell(self) -> None:
        """Show the line of the epoch that is over."""
        if self.line:
            head, *numbers = self.line
            self.bar.write(f"{head} {', '.join(numbers)}")
            sys.stdout.flush()  # a log file is read while the run goes on
        self.line = []

    def _add_panel(self) -> None:
        """Give TensorBoard the panel of the newest validation, where one was drawn."""
        panel = None if self.evaluator is None else getattr(self.evaluator.state, "panel", None)
        if self.writer is not None and panel is not None:
            pixels = np.asarray(panel.convert("RGB"))
            self.writer.add_image("panel", pixels, int(self.rows[-1]["iteration"]), dataformats="HWC")

    def _record(self, metrics: dict[str, float]) -> None:
        """Write metrics of the newest row."""
        if self.writer is not None:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, int(self.rows[-1]["iteration"]))
        write_rows(self.output_dir / "metrics.csv", self.rows)

    def completed(self, engine: ResumableTrainer) -> None:
        """Say where everything is."""
        self._tell()
        if self.validations & (self.validations - 1):
            self._add_panel()
        self._close()
        best = -1 if self.evaluator is None else self.evaluator.state.best_metric_epoch
        validated = f" (best: epoch {best}), panel {self.output_dir / 'panel.png'}" if best > 0 else " (not validated)"
        bundle = f"; bundle {self.output_dir / 'bundle'}" if (self.output_dir / "bundle").is_dir() else ""
        print(
            f"done: weights {self.ckpt_dir / 'model.pt'}{validated}, "
            f"logs {self.output_dir / 'metrics.csv'} and tensorboard beside it{bundle}; {self.next_step}"
        )

    def failed(self, engine: ResumableTrainer, error: Exception) -> None:
        """Close the files and let the error go on."""
        self._tell()
        self._close()
        raise error

    def _close(self) -> None:
        """End bar and event file, if the run came as far as to open them."""
        self.opened = False
        self.bar.close()
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows whose columns may differ, whole or not at all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[f"{v:.6g}" if isinstance(v, float) else v for v in map(row.get, names)] for row in rows]
    write_csv(path, [names, *cells])


def name_finetuning(spatial_dims: int, ckpt_dir: str) -> str:
    """What to do with the weights of a pre-training, for the last line of its log."""
    tasks = " or ".join(f"dira_finetune_{task}_{spatial_dims}d" for task in ("segmentation", "classification"))
    return f"fine-tune: {tasks} with the same network and --pretrained {ckpt_dir}/model.pt"
