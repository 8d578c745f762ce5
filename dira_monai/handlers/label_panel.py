"""Pictures of what a fine-tuned network predicts beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Evaluator
from PIL import Image

from ..visualize.labels import center_of, class_map, draw_bars, draw_table, enlarge, paint
from ..visualize.tiles import save_panel


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
        self.rows: list[list[Image.Image]] = []
        self.notes: list[str] = []
        self.seen = 0

    def attach(self, engine: Evaluator) -> None:
        """Keep the chosen samples; draw when all are seen."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def start(self, engine: Evaluator) -> None:
        """Forget the last validation."""
        self.rows, self.notes, self.seen = [], [], 0

    def keep(self, engine: Evaluator) -> None:
        """Paint those of the batch's samples whose turn it is."""
        count = len(engine.data_loader.sampler)
        for sample in engine.state.output:
            if self.seen * self.samples // count >= len(self.rows):
                row, note = self._paint(sample)
                self.rows.append(row)
                self.notes.append(note)
            self.seen += 1

    def _paint(self, sample: dict[str, Any]) -> tuple[list[Image.Image], str]:
        """The pictures of one sample and a note on it."""
        image, truth, pred = sample["image"][0], sample["label"], sample["pred"]
        name = Path(str(getattr(sample["image"], "meta", {}).get("filename_or_obj", ""))).name
        if truth.ndim == 1:
            return [*enlarge([paint(image)]), draw_bars(self.class_names, truth, pred)], name
        truth, pred = class_map(truth), class_map(pred)
        center = center_of(truth)
        right, all_of_both = ((pred == truth) & (truth > 0)).sum(), (pred > 0).sum() + (truth > 0).sum()
        pictures = enlarge([paint(image, classes, center) for classes in (None, truth, pred)])
        return pictures, f"{name}   Dice of all classes together {float(2 * right / all_of_both.clamp(min=1)):.3f}"

    def draw(self, engine: Evaluator) -> None:
        """Write the pictures."""
        columns = len(self.rows[0])
        titles = ("image", "truth", "prediction") if columns == 3 else ("image", "probabilities; + is the truth")
        metrics = {name: value for name, value in engine.state.metrics.items() if name.startswith("val_mean")}
        caption = f"epoch {engine.state.epoch}   " + "   ".join(f"{k[4:]} {v:.3f}" for k, v in metrics.items())
        table = draw_table(self.rows, titles, self.notes, caption)
        save_panel(table, self.output_dir, engine.state.epoch)
