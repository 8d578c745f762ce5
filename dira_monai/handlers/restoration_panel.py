"""Pictures of restorations for a person to look at."""

from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor

from ..visualize.tiles import draw_panel, save_panel


class Panel:
    """Handler of the evaluator that draws its first samples, the same in every epoch.

    Files in ``output_dir``: ``panel.png``, the newest, and ``panels/epoch_0001.png`` and so on.

    Attributes:
        output_dir: folder of the pictures.
        samples: how many samples are drawn, at most one batch.
    """

    def __init__(self, output_dir: str, samples: int = 4) -> None:
        self.output_dir = Path(output_dir)
        self.samples = samples
        self.kept: tuple[Tensor, ...] = ()

    def attach(self, engine: Evaluator) -> None:
        """Keep samples of the first batch; draw when all metrics are known."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: setattr(self, "kept", ()))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def keep(self, engine: Engine) -> None:
        """Remember the first batch."""
        if not self.kept:
            names = ("label", "image", "pred")
            self.kept = tuple(engine.state.output[name][: self.samples].detach().clone() for name in names)

    @torch.no_grad()
    def draw(self, engine: Engine) -> None:
        """Write the pictures."""
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        shown = [f"{name[4:]} {metrics[name]:.2f} dB" for name in ("val_distorted_psnr", "val_psnr") if name in metrics]
        target, distorted, restored = self.kept
        caption = f"epoch {engine.state.epoch}   " + "   ".join(shown)
        panel = draw_panel(target, distorted, restored, caption)
        save_panel(panel, self.output_dir, engine.state.epoch)
        engine.state.panel = panel  # for TrainingLog
        engine.state.shared_panel = panel  # for RunBundle
