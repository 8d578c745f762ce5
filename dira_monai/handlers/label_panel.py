"""Pictures of what a fine-tuned network predicts beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Evaluator

from ..visualize.labels import center_of, draw_bars, paint
from ..visualize.tiles import Row, draw_grid, make_tile, save_panel
from .report.cases import file_of


class LabelPanel:
    """Handler of an evaluator that draws some of its samples, the same in every epoch, with truth and prediction.

    The samples are spread evenly over the validation list. Segmentation shows the image, the truth and the prediction
    in color, of volumes the slices through the middle of the truth. Classification shows the image and a bar for each
    class. Only process 0 has the handler.

    Files in ``output_dir``: ``panel.png``, the newest, and ``panels/epoch_0001.png`` and so on.

    Attributes:
        output_dir: folder of the pictures.
        class_names: words for the classes.
        samples: how many samples are drawn.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str], samples: int = 4) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.samples = samples
        self.rows: list[Row] = []
        self.seen = 0

    def attach(self, engine: Evaluator) -> None:
        """Keep the chosen samples; draw when all are seen."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def start(self, engine: Evaluator) -> None:
        """Forget the last validation."""
        self.rows, self.seen = [], 0

    def keep(self, engine: Evaluator) -> None:
        """Paint those of the batch's samples whose turn it is."""
        count = len(engine.data_loader.sampler)
        for sample in engine.state.output:
            if self.seen * self.samples // count >= len(self.rows):
                self.rows.append(self._paint(sample))
            self.seen += 1

    def _paint(self, sample: dict[str, Any]) -> Row:
        """The pictures of one sample under a line about it."""
        image, truth, pred = sample["image"][0], sample["label"], sample["pred"]
        name = file_of(sample)
        if truth.ndim == 1:
            return Row([make_tile(paint(image)), draw_bars(self.class_names, truth, pred)], [[name]])
        truth, pred = truth.argmax(dim=0), pred.argmax(dim=0)
        center = center_of(truth)
        right, all_of_both = ((pred == truth) & (truth > 0)).sum(), (pred > 0).sum() + (truth > 0).sum()
        dice = float(2 * right / all_of_both.clamp(min=1))
        tiles = [make_tile(paint(image, classes, center)) for classes in (None, truth, pred)]
        return Row(tiles, [[f"{name}   Dice of all classes together {dice:.3f}"]])

    def draw(self, engine: Evaluator) -> None:
        """Write the pictures."""
        first, *others = self.rows
        segmented = len(first.tiles) == 3
        titles = ("image", "truth", "prediction") if segmented else ("image", "probabilities; + is the truth")
        metrics = {name: value for name, value in engine.state.metrics.items() if name.startswith("val_mean")}
        caption = f"epoch {engine.state.epoch}   " + "   ".join(f"{k[4:]} {v:.3f}" for k, v in metrics.items())
        panel = draw_grid([Row(first.tiles, [[caption], titles, *first.lines]), *others])
        save_panel(panel, self.output_dir, engine.state.epoch)
        engine.state.panel = panel  # for TrainingLog
        # for RunBundle, whose folder is shared: names of files may be those of patients
        engine.state.shared_panel = draw_grid(
            [Row(first.tiles, [[caption], titles]), *(Row(r.tiles, []) for r in others)]
        )
