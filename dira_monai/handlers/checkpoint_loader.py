"""Handlers that load weights when an engine starts; a file that is missing or does not fit ends in a sentence."""

import logging
from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from ..weights.files import load_module, load_weights
from .checkpoint import CHECKPOINT

LOGGER = logging.getLogger(__name__)


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
        """Load the file; ``state.weights_file`` of the engine then names it."""
        load_module(self.module, load_weights(self.load_path), self.load_path, type(self.module).__name__)
        engine.state.weights_file = self.load_path


class LocalObjective(StrictCheckpointLoader):
    """Handler that gives an evaluator the objective with which this client of a federation has trained last.

    A federation exchanges the network alone and evaluates it in a workflow of its own, whose heads and key branch are
    new. MONAI disables every handler named ``CheckpointLoader`` there: those would load weights over the global ones.
    Behind one that has loaded, which is no federation, this one does nothing.

    Args:
        ckpt_dir: folder in which the client's training leaves ``checkpoint.pt``.
        module: the evaluator's objective.
    """

    def __init__(self, ckpt_dir: str, module: nn.Module) -> None:
        super().__init__(f"{Path(ckpt_dir) / CHECKPOINT}", module)

    def load(self, engine: Engine) -> None:
        """Load the objective, if nothing else was loaded and this client has trained at all."""
        if hasattr(engine.state, "weights_file"):
            return
        if Path(self.load_path).is_file():
            load_module(self.module, load_weights(self.load_path)["objective"], self.load_path, "objective")
        else:
            LOGGER.warning(f"{self.load_path} does not exist yet: contrastive metrics are those of untrained heads")
