"""The handler that writes ``report.html``."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ...bundle.run_json import read_starts
from ...bundle.running_config import running_config, running_configs_folder
from ...engines.resumable import ResumableTrainer
from ...utils.distributed import rank
from ...utils.errors import find_cause
from ...utils.files import write_whole
from ...visualize.html import data_uri, figure, grid, image, page, paragraph, section, table
from ...visualize.tiles import COLUMNS
from ..training_log import read_rows
from .cases import CaseRecorder
from .curves import Rows, draw_curves
from .image_map import EmbeddingMap
from .judged import show_judged
from .panels import PanelHistory
from .values import read_shipped, show_values

LOGGER = logging.getLogger(__name__)
SHARE = 0.02  # of the run's time that writing the page between epochs may take


class HtmlReport:
    """Handler that leaves ``output_dir/report.html``: one file that shows the run, with no network and no server.

    The page has the curves of ``metrics.csv``, so that those of a resumed run are whole; the panels of the 1st, 2nd,
    4th, 8th, ... and the last validation; of a fine-tuning metrics and confusion of the classes, and the worst, median
    and best case of the best epoch, of those that process 0 validates; and the values of the run, first those that
    differ from the bundle's ``train.json``, with the reasons of a plan.

    As a handler of an evaluator, it leaves the page of an evaluation: metrics, classes and cases, panel, values.

    It is written when the run ends, and between epochs as often as takes ``SHARE`` of the time, so that a run that was
    stopped has one. Only process 0 writes. What goes wrong is a warning and does not end the run. The handler stands
    behind ``TrainingLog`` and the validation, and before ``Checkpoint``, which may load other weights.

    Attributes:
        output_dir: folder of the page, and of what the other handlers leave.
        evaluator: whose best epoch is named.
    """

    def __init__(self, output_dir: str, evaluator: Evaluator | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.config = running_config()
        self.configs_folder = running_configs_folder()
        self.cases = CaseRecorder()
        self.panels = PanelHistory(self.output_dir)
        self.embedding = EmbeddingMap(self.config)
        self.maps = ""
        self.written, self.cost = time.perf_counter(), 0.0

    def attach(self, engine: ResumableTrainer | Evaluator) -> None:
        """Register for the ends of epochs and of the run."""
        if rank() > 0:
            return
        if isinstance(engine, Evaluator):
            self.cases.attach(engine)
            engine.add_event_handler(Events.COMPLETED, self.evaluated)
        else:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
            engine.add_event_handler(Events.COMPLETED, self.completed)
            engine.add_event_handler(Events.STARTED, self.embedding.keep_beginning)
            if self.evaluator is not None:
                self.cases.attach(self.evaluator)

    def end_epoch(self, engine: ResumableTrainer) -> None:
        """Write the page, if the last time is long enough ago."""
        if time.perf_counter() - self.written > self.cost / SHARE:
            self._try(engine, lambda: self.write(engine, "so far"))

    def completed(self, engine: ResumableTrainer) -> None:
        """Write the page of the whole run, of a pre-training with a map of images."""

        def finish() -> None:
            self.maps = self.embedding.show(engine, self.evaluator)
            self.write(engine, "ended")
            print(f"report: {self.output_dir / 'report.html'}")

        self._try(engine, finish)

    def _try(self, engine: Engine, work: Callable[[], None]) -> None:
        """Do the work, or warn: days of training must not be lost for a page."""
        try:
            work()
        except Exception as error:
            path, epoch = self.output_dir / "report.html", engine.state.epoch
            LOGGER.warning(f"{path} of epoch {epoch} was not written ({find_cause(error)})", exc_info=error)

    def write(self, engine: ResumableTrainer, state: str) -> None:
        """Write the page.

        Args:
            engine: the trainer.
            state: how far the run is.
        """
        start = time.perf_counter()
        rows = [r for r in read_rows(self.output_dir / "metrics.csv") if int(r["epoch"]) <= engine.state.epoch]
        self._save(self._parts(engine, rows, state))
        self.written = time.perf_counter()
        self.cost = self.written - start

    def evaluated(self, engine: Evaluator) -> None:
        """Write the page of an evaluation."""
        self._try(engine, lambda: self._save(self._evaluation(engine)))

    def _save(self, parts: list[str]) -> None:
        name = (self.config or {}).get("_meta_", {}).get("name", "run")
        write_whole(self.output_dir / "report.html", page(f"{name}: {self.output_dir.resolve().name}", parts))

    def _evaluation(self, engine: Evaluator) -> list[str]:
        """The sections of the page of an evaluation."""
        metrics = {name: f"{float(value):.6g}" for name, value in engine.state.metrics.items()}
        panel = getattr(engine.state, "panel", None)
        return [
            paragraph(f"evaluation; {_now()}", soft=True),
            section("Metrics", table(["metric", "value"], metrics.items())),
            section("Classes and cases", show_judged(self.cases, metrics)),
            section("Panel", "" if panel is None else grid([figure("", image(data_uri(panel), "panel"))], wide=True)),
            section("Chosen values", self._values("train.json", "evaluate.json")),
            section("How it was run", self._origin()),
        ]

    def _values(self, *files: str) -> str:
        return show_values(self.config, read_shipped(self.configs_folder, files))

    def _parts(self, engine: ResumableTrainer, rows: Rows, state: str) -> list[str]:
        """The sections of the page."""
        validated = [int(row["epoch"]) for row in rows if any(n.startswith("val_") and v for n, v in row.items())]
        key_metric = None if self.evaluator is None else self.evaluator.state.key_metric_name
        judged = next((row for row in rows if int(row["epoch"]) == self.cases.epoch), {})
        return [
            self._summary(engine, rows, state),
            section("Curves", draw_curves(rows, key_metric)),
            section("Classes and cases", show_judged(self.cases, judged, f"validation of epoch {self.cases.epoch}")),
            section("Embedding map", self.maps),
            section("Panels through time", self._panels(validated)),
            section("Chosen values", self._values("train.json")),
            section("How it was run", self._origin()),
        ]

    def _panels(self, validated: list[int]) -> str:
        """Panels of chosen epochs, under what stands beside each other in them."""
        shown = self.panels.show(validated)
        tiles = ", ".join(COLUMNS) if self.embedding.begun else "image, truth, prediction"
        if any(case.truth for case in self.cases.cases):
            tiles = "image, probability of each class; + is the truth"
        return shown and paragraph(f"Left to right: {tiles}.", soft=True) + shown

    def _summary(self, engine: ResumableTrainer, rows: Rows, state: str) -> str:
        """A line of where the run stands, and of its best epoch."""
        told = [f"{state}: epoch {engine.state.epoch} of {engine.state.max_epochs}"]
        best = None if self.evaluator is None else self.evaluator.state
        if best is not None and best.best_metric_epoch > 0:
            told.append(f"best: epoch {best.best_metric_epoch}, {best.key_metric_name} {best.best_metric:.4g}")
        else:
            told.append("not validated")
        return paragraph("; ".join(told)) + paragraph(_now(), soft=True)

    def _origin(self) -> str:
        """What ``run.json`` says of the newest start."""
        starts = read_starts(self.output_dir / "run.json")
        if not starts:
            return ""
        return table([], _facts(starts[-1], len(starts)))


def _now() -> str:
    return datetime.now(UTC).strftime("written %Y-%m-%d %H:%M UTC")


def _facts(start: dict[str, Any], count: int) -> list[tuple[str, str]]:
    """Rows of the table of a start."""
    joined = {name: ", ".join(f"{k} {v}" for k, v in start.get(name, {}).items()) for name in ("images", "versions")}
    return [
        ("started", f"{start.get('time', '')}, start {count} in this folder"),
        ("command", " ".join(map(str, start.get("command", [])))),
        ("device", f"{start.get('device', '')}, {start.get('processes', 1)} process(es)"),
        ("images", joined["images"]),
        ("data_sha256", str(start.get("data_sha256", ""))),
        ("versions", joined["versions"]),
        ("git commit", str(start.get("git_commit", ""))),
    ]
