"""The pictures of a run at some of its epochs."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...visualize.html import data_uri, figure, grid, image


def choose_epochs(epochs: Sequence[int]) -> list[int]:
    """The 1st, 2nd, 4th, 8th, ... of the epochs and the last: about as many as the logarithm of their number."""
    places = [2**n - 1 for n in range(len(epochs).bit_length())]
    return [epochs[i] for i in places] + ([epochs[-1]] if epochs and epochs[-1] != epochs[places[-1]] else [])


class PanelHistory:
    """Panels of chosen epochs, each read and made small once."""

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / "panels"  # of the pictures that ``Panel`` and ``LabelPanel`` write
        self.kept: dict[int, str] = {}  # by epoch the pictures that are shown, as addresses that hold them

    def show(self, validated: Sequence[int]) -> str:
        """Figures, the newest first.

        Args:
            validated: epochs of this run that have a panel, in rising order.
        """
        files = {epoch: self.folder / f"epoch_{epoch:04d}.png" for epoch in choose_epochs(validated)}
        self.kept = {epoch: self.kept.get(epoch) or _read(path) for epoch, path in files.items() if path.is_file()}
        shown = sorted(self.kept.items(), reverse=True)
        return grid([figure(f"epoch {n}", image(uri, f"panel of epoch {n}")) for n, uri in shown], wide=True)


def _read(path: Path) -> str:
    with Image.open(path) as picture:
        return data_uri(picture)
