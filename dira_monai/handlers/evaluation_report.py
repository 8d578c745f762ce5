"""The metrics of an evaluation as lines and as ``evaluation.json``."""

import math
from pathlib import Path

from ignite.engine import Events
from monai.engines import Evaluator

from ..utils.files import write_json


class EvaluationReport:
    """Handler of an evaluator: prints its metrics and writes them to ``output_dir/evaluation.json``, null for nan."""

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir) / "evaluation.json"

    def attach(self, engine: Evaluator) -> None:
        """Register for the end of the validation."""
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Evaluator) -> None:
        """Print and write the metrics."""
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        for name, value in metrics.items():
            print(f"{name:>28} {value:.4f}")
        defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        write_json(self.path, defined, indent=2)
        print(f"written to {self.path}")
