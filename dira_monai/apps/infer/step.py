"""What an evaluator does with one image: network, label map, picture and DICOM segmentation, or a note."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from monai.engines import SupervisedEvaluator
from monai.transforms import Orientation
from tqdm import tqdm

from ...bundle.config import BundleConfig
from ...dicom.headers import is_dicom
from ...images.dicom_seg.write import write_segmentation
from ...images.find import NIFTI_SUFFIXES
from ...images.place import copy_place, set_affine
from ...utils.errors import InputError
from ...utils.files import atomic_write
from ...visualize.labels import draw_overlay
from .loading import Loaded, shorten
from .table import DONE, FAILED, PAUSE, Inference, Result

CLOCK = 0.05  # seconds by which the time stamp of a new file may lie before its making


def companions(label_map: Path, ending: str) -> tuple[Path, Path, Path]:
    """A label map, its picture and its DICOM segmentation.

    Args:
        label_map: its file.
        ending: of its name, behind the name of the image.
    """
    stem = label_map.name.removesuffix(ending)
    return label_map, label_map.with_name(f"{stem}_overlay.png"), label_map.with_name(f"{stem}_seg.dcm")


class Step:
    """An evaluator's ``iteration_update``, in which the error of an image ends this image alone.

    Attributes:
        preprocessing: of the configuration, which inverts what its twin did while loading.

    Args:
        inference: whose rows are filled.
        config: of the bundle.
        ending: of the names of label maps; empty for classification.
        dicom_seg: also write label maps of DICOM series as DICOM segmentations.
        pictures: also draw label maps.
    """

    preprocessing: Any = None

    def __init__(
        self, inference: Inference, config: BundleConfig, ending: str, dicom_seg: bool = False, pictures: bool = True
    ) -> None:
        self.inference, self.ending = inference, ending
        self.class_names = list(config.build("class_names"))
        self.multi_label = not ending and bool(config.build("multi_label"))
        self.dims = int(config.build("spatial_dims"))
        self.dicom_seg, self.pictures = dicom_seg, pictures
        self.bar = tqdm(total=len(inference.rows), desc="inference", leave=False, disable=None)

    def __call__(self, engine: SupervisedEvaluator, loaded: Loaded) -> list[dict[str, Any]]:
        """The outputs of the image, or none."""
        row, start, clock = self.inference.rows[loaded.number], time.perf_counter(), time.time() - CLOCK
        engine.state.batch, engine.state.output = loaded.batch, []
        try:
            if loaded.batch is None:
                raise InputError(loaded.note)
            row.note = loaded.note
            self._finish(row, engine._iteration(engine, loaded.batch)[0], loaded.place)
            row.status = DONE
            self._write_dicom(row)
        except Exception as error:  # whatever networks and transforms raise
            row.status, row.note = FAILED, shorten(row.file, error)
            engine.state.batch = engine.state.output = []
            self._clear(row, clock)
        row.seconds = loaded.seconds + time.perf_counter() - start
        self.inference.save(PAUSE)
        self.bar.update()
        return engine.state.output

    def _finish(self, row: Result, output: dict[str, Any], place: np.ndarray | None) -> None:
        if not self.ending:
            self._note_classes(row, output["pred"].cpu().numpy())
            return
        label_map, picture, _ = self._files(row)
        nifti = label_map.name.lower().endswith(NIFTI_SUFFIXES)
        if place is not None and nifti:
            set_affine(label_map, place)
        if row.note and nifti and row.file.lower().endswith(NIFTI_SUFFIXES):
            copy_place(Path(row.file), label_map)  # so that programs which differ about the image put it there
        if self.pictures:
            self._draw(output, picture, row.file)

    def _files(self, row: Result) -> tuple[Path, Path, Path]:
        return companions(self.inference.output_dir / row.output, self.ending)

    def _write_dicom(self, row: Result) -> None:
        """Write the DICOM segmentation, where it is asked for; without it the image has failed, but has a label map."""
        if not self.dicom_seg:
            return
        if not (Path(row.file).is_dir() or is_dicom(Path(row.file))):
            row.note = "; ".join(filter(None, [row.note, "no DICOM, so no DICOM segmentation"]))
            return
        label_map, _, segmentation = self._files(row)
        try:
            write_segmentation(row.file, label_map, segmentation, self.class_names)
        except InputError as error:
            row.status, row.note = FAILED, f"has a label map, but no DICOM segmentation: {error}"

    def _note_classes(self, row: Result, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise InputError("the network's output holds NaN or infinity.")
        row.probabilities = [str(value) for value in values.tolist()]
        chosen = values >= 0.5 if self.multi_label else np.arange(len(values)) == values.argmax()
        row.predicted = "|".join(name for name, yes in zip(self.class_names, chosen, strict=True) if yes)

    def _draw(self, output: dict[str, Any], path: Path, caption: str) -> None:
        """Draw the label map over the image, both as the file has them."""
        image, classes = output["image"], output["pred"]
        if image.applied_operations:
            image = self.preprocessing.inverse({"image": image})["image"]
        if self.dims == 3:
            upright = Orientation("RAS", labels=None)
            image, classes = upright(image), upright(classes)
        shape = image.shape[1:]
        drawn = draw_overlay(image[0], classes.reshape(shape), self.class_names, Path(caption).name)
        with atomic_write(path) as file:
            drawn.save(file, format="PNG")

    def _clear(self, row: Result, since: float) -> None:
        """Remove what was begun for an image that failed, so that nobody takes it for a result."""
        if not row.output:
            return
        for path in self._files(row):
            if path.is_file() and path.stat().st_mtime >= since:
                path.unlink()
        if self._files(row)[0].is_file():
            row.note += "; the result of an earlier inference is kept"
        else:
            row.output = ""
