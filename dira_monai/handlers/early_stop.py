"""A stop when the key metric no longer improves."""

from ignite.engine import Engine, Events
from monai.engines import Evaluator


class EarlyStop:
    """Handler that ends the training when the key metric has not improved for so many epochs.

    It counts epochs from the evaluator's best one, which the checkpoint keeps, so a resumed run stops where an unbroken
    one does. MONAI's ``EarlyStopHandler`` counts validations, and compares scores in another way than the evaluator.

    Attributes:
        evaluator: whose best epoch counts; the handler must stand behind its ``ValidationHandler``.
        patience: epochs, at least 1; None: the training is never ended early.
    """

    def __init__(self, evaluator: Evaluator, patience: int | None) -> None:
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Register for the ends of epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check)

    def check(self, engine: Engine) -> None:
        """End the run, if it is time."""
        best = self.evaluator.state.best_metric_epoch
        if self.patience is None or best < 1 or self.evaluator.state.epoch != engine.state.epoch:
            return  # no validation in this epoch
        if engine.state.epoch - best >= self.patience:
            engine.logger.info(f"no improvement since epoch {best}: stopped after epoch {engine.state.epoch}")
            engine.terminate()
