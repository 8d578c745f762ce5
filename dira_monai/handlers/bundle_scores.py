"""The test scores of a run in the model card of its bundle."""

import json
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines import Evaluator

from ..bundle.running_config import running_config
from ..sharing.archive import METADATA
from ..sharing.bundle_folder import is_same_file
from ..sharing.run_facts import count_patients, finite
from ..sharing.test_scores import make_scores, write_scores
from ..utils.distributed import rank
from ..weights.files import load_weights


class BundleScores:
    """Handler of an evaluator: writes metrics of the run's own test images into the card of ``run/bundle``.

    Metrics of other images, and of other weights than those in the bundle, are not written.

    Args:
        run: folder of the run, ``output_dir`` of the training.
        datalist_file: list that is evaluated.
        split: which of its lists.
    """

    def __init__(self, run: str, datalist_file: str | None, split: str) -> None:
        self.bundle = Path(run) / "bundle"
        self.datalist = Path(run) / "datalist.json"
        self.own = split == "test" and datalist_file is not None and is_same_file(Path(datalist_file), self.datalist)
        self.tolerance = (running_config() or {}).get("surface_tolerance")

    def attach(self, engine: Evaluator) -> None:
        """Register for the end of the evaluation."""
        if rank() == 0 and self.own and (self.bundle / METADATA).is_file():
            engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Evaluator) -> None:
        """Write the metrics, or say why not."""
        weights = self.bundle / "models/model.pt"
        state, measured = load_weights(weights), engine.network.state_dict()
        if state.keys() != measured.keys() or not all(torch.equal(state[name], measured[name].cpu()) for name in state):
            print(f"{self.bundle}: its model card does not get these scores, which are of other weights")
            return
        entries = json.loads(self.datalist.read_text("utf-8"))["test"]
        patients = count_patients({"test": entries}).get("test")
        scores = make_scores(finite(engine.state.metrics), len(entries), patients, weights, self.tolerance)
        write_scores(self.bundle, scores)
