"""The bundle that a training leaves: its weights with an inference and an evaluation that need no further value."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.transforms import SpatialPad

from ..bundle.running_config import running_config, running_configs_folder
from ..data.datasets import PretrainDataset, is_stored
from ..data.preprocessing import stored_unit
from ..engines.resumable import ResumableTrainer
from ..images.find import Image
from ..sharing.agreement import agree, check_network, check_postprocessing, needs_own_reader, parse, prepare_image
from ..sharing.archive import METADATA
from ..sharing.bundle_folder import is_same_file, place_file, write_bundle
from ..sharing.config_parts import copy_parts, undo_overlay
from ..sharing.evaluation_config import (
    make_evaluation_config,
    make_pretraining_evaluation,
    parts_of_package,
    require_package,
)
from ..sharing.inference_config import add_suffixes, keep_image, make_inference_config, read_by_package
from ..sharing.metadata import make_metadata
from ..sharing.model_card import PICTURE, make_card
from ..sharing.run_facts import RunFacts, count_patients, find_modality, find_suffixes, finite, resolve_values
from ..sharing.test_scores import CARD, NAME, kept_scores, show_scores
from ..utils.distributed import rank
from ..utils.errors import InputError, find_cause
from ..utils.resuming import load_random_states, random_states
from .training_log import read_rows

OTHER_IMAGE = "preprocessing of inference.json prepares images otherwise than the training does"


class RunBundle:
    """Handler that keeps ``output_dir/bundle`` with the best weights, and ``run.json`` beside ``ckpt_dir/model.pt``.

    The bundle's inference and evaluation have the values of this training. They are tried out before they are written:
    the network, the preparation of an image and the treatment of the output must be those of the training; where they
    cannot be, one line says why there is no bundle, and the training goes on. Only process 0 writes. The
    random numbers of the training are not touched.

    Stands behind ``Checkpoint``, which writes the weights.

    Attributes:
        bundle: its folder.
        ckpt_dir: folder of the weights.
        evaluator: that chooses the best epoch.
        config: merged configuration of the training.
        configs: folder of its configuration files; None outside of a workflow of MONAI.
        made: the configurations of the bundle by their names in it, once they were tried out.
    """

    def __init__(self, output_dir: str, ckpt_dir: str, evaluator: Evaluator) -> None:
        self.output_dir = Path(output_dir)
        self.bundle = self.output_dir / "bundle"
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.config = copy_parts(running_config() or {})
        self.configs = running_configs_folder()
        self.made: dict[str, dict[str, Any]] = {}
        self.failure = ""

    def attach(self, engine: ResumableTrainer) -> None:
        """Register for starts, where a resumed run may find weights without their bundle, and for ends of epochs."""
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self.resumed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.update)
            engine.add_event_handler(Events.COMPLETED, self.complete)

    def resumed(self, engine: ResumableTrainer) -> None:
        """Write what the run could not write any more when it was broken off."""
        if engine.state.epoch > 0:
            self.update(engine)

    def update(self, engine: ResumableTrainer) -> None:
        """Write the bundle if there are new weights; where it failed, only the end tries again."""
        if not self.failure and not is_same_file(self.ckpt_dir / "model.pt", self.bundle / "models/model.pt"):
            self.write(engine)

    def complete(self, engine: ResumableTrainer) -> None:
        """Write the bundle once more, or say again why there is none: the first time is far above."""
        self.write(engine)
        print(self.failure, end="")

    def write(self, engine: ResumableTrainer) -> None:
        """Write the bundle, or say why not."""
        if not (self.ckpt_dir / "model.pt").is_file():
            return
        states = random_states()
        try:
            if (record := self.output_dir / "run.json").is_file():
                place_file(record, self.ckpt_dir / record.name)
            self.made = self.made or self._make_configs(engine)
            names = ["model.pt", *(["objective.pt"] if "objective_def" in self.config else [])]
            write_bundle(self.bundle, self._files(engine), {name: self.ckpt_dir / name for name in names})
            self.failure = ""
        except Exception as error:  # a training of days must not end for want of a bundle
            shutil.rmtree(self.bundle, ignore_errors=True)  # of an earlier run, whose weights are no longer the newest
            failure = f"{self.bundle}: no bundle of this run is made: {find_cause(error)}\n"
            print(failure if failure != self.failure else "", end="")
            self.failure = failure
        finally:
            load_random_states(states)

    def _read(self, name: str) -> str:
        """A file of the bundle that is trained.

        Raises:
            InputError: if it is missing.
        """
        if self.configs is None:
            raise InputError("the training does not run from the files of a bundle")
        path = self.configs.parent / name
        if not path.is_file():
            raise InputError(f"{path} is missing")
        return path.read_text("utf-8")

    def _make_configs(self, engine: ResumableTrainer) -> dict[str, dict[str, Any]]:
        """Inference and evaluation, tried out."""
        template, overlay = (json.loads(self._read(f"configs/{name}.json")) for name in ("inference", "evaluate"))
        config = self._config_of_one_process()
        inference = make_inference_config(config, template)
        dataset = self.evaluator.data_loader.dataset
        add_suffixes(inference, [source_of(entry) for entry in dataset.data])
        if isinstance(dataset, PretrainDataset):
            if needs_own_reader(inference, [source_of(entry) for entry in engine.data_loader.dataset.data]):
                read_by_package(inference)
            check_pretraining_image(inference, dataset)
            evaluation = make_pretraining_evaluation(config, overlay, inference)
        else:
            self._check_image(inference, dataset)
            check_postprocessing(inference, config, dataset[0])
            evaluation = make_evaluation_config(config, overlay, inference)
        check_network(inference, engine.network, (parse(inference).build("in_channels"), *self._shape(inference)))
        made = {"configs/inference.json": inference, "configs/evaluate.json": evaluation}
        return {name: require_package(config) for name, config in made.items()}

    def _config_of_one_process(self) -> dict[str, Any]:
        """The configuration without what makes it one of several processes."""
        try:
            base, parallel = (json.loads(self._read(f"configs/{name}.json")) for name in ("train", "multi_gpu_train"))
        except InputError:  # a copy of a bundle for one process
            return self.config
        return undo_overlay(self.config, base, parallel)

    def _check_image(self, inference: dict[str, Any], dataset: Any) -> None:
        """Refuse another preparation of images; where the training has its own transforms, these are taken."""
        image, expected = dataset.data[0]["image"], dataset[0]["image"]
        if not agree(prepare_image(inference, image), expected):
            modes = parse(self.config, "the configuration of the training").build("modes")
            inference["preprocessing"]["transforms"] = keep_image(self.config["fixed_transforms"], modes)
            if not agree(prepare_image(inference, image), expected):
                raise InputError(OTHER_IMAGE)

    def _shape(self, inference: Mapping[str, Any]) -> tuple[int, ...]:
        """Voxels of an input of the network."""
        values = resolve_values(inference)
        size = values.get("patch_size") or values["image_size"]
        return tuple(size or self.evaluator.data_loader.dataset[0]["image"].shape[1:])

    def _files(self, engine: Engine) -> dict[str, bytes]:
        """Content of all files but the weights."""
        facts, picture = self._facts(engine), self._picture()
        metadata = make_metadata(json.loads(self._read("configs/metadata.json")), facts)
        card = make_card(self._read("docs/README.md"), facts, metadata, picture is not None)
        if scores := kept_scores(self.bundle, self.ckpt_dir / "model.pt"):
            metadata, card = metadata | {NAME: scores}, show_scores(card, scores)
        texts = {name: json.dumps(config, indent=4) + "\n" for name, config in self.made.items()}
        texts |= {METADATA: json.dumps(metadata, indent=4) + "\n", CARD: card}
        texts |= {name: self._read(name) for name in ("LICENSE", "configs/logging.conf")}
        return {name: text.encode() for name, text in texts.items()} | ({PICTURE: picture} if picture else {})

    def _picture(self) -> bytes | None:
        """The panel of the newest validation if that is the best, else the one that is there."""
        state = self.evaluator.state
        if getattr(state, "shared_panel", None) is not None and state.epoch == state.best_metric_epoch:
            file = io.BytesIO()
            state.shared_panel.save(file, "PNG")
            return file.getvalue()
        there = self.bundle / PICTURE
        return there.read_bytes() if there.is_file() else None

    def _facts(self, engine: Engine) -> RunFacts:
        """What is known of the run."""
        inference = self.made["configs/inference.json"]
        lists = {"training": engine.data_loader.dataset.data, "validation": self.evaluator.data_loader.dataset.data}
        listed = self.output_dir / "datalist.json"
        if listed.is_file():
            lists["test"] = json.loads(listed.read_text("utf-8")).get("test", [])
        values = resolve_values(inference)
        images = [source_of(entry) for entry in lists["training"]]
        epoch = max(self.evaluator.state.best_metric_epoch, 0) or engine.state.epoch
        return RunFacts(
            values=values,
            network=type(engine.network).__name__,
            shape=self._shape(inference),
            images={name: len(entries) for name, entries in lists.items()},
            patients=count_patients(lists),
            suffixes=find_suffixes(images),
            modality=find_modality(images[0], values["intensity_range"]),
            phantoms=str(self.output_dir / "phantom") in str(images[0]),
            epoch=epoch,
            metrics=self._metrics(epoch),
            started_from=bool(self.config.get("pretrained")),
            need_package=[Path(name).stem for name, config in self.made.items() if parts_of_package(config)],
        )

    def _metrics(self, epoch: int) -> dict[str, float]:
        """Of the validation in an epoch: also those of before a resumed run was broken off."""
        rows = [row for row in read_rows(self.output_dir / "metrics.csv") if row["epoch"] == str(epoch)]
        newest = rows[-1] if rows else {}
        return finite({name: float(value) for name, value in newest.items() if name[:4] == "val_" and value})


def source_of(entry: Mapping[str, Any]) -> Image:
    """The image of an entry of a list, also of one that the command prepare has stored."""
    return entry.get("source", entry["image"])


def check_pretraining_image(inference: Mapping[str, Any], dataset: PretrainDataset) -> None:
    """Refuse another preparation of images than that of a pre-training, which pads them and rounds them to be stored.

    Those of the command prepare were compared with the values of the training when it began.

    Raises:
        InputError: if an image differs.
    """
    image = dataset.data[0]["image"]
    if not is_stored(image):
        stored = dataset.images[0]["image"]
        own = SpatialPad(dataset.region_size)(prepare_image(inference, image))
        if not agree(own, stored.float() / stored_unit(stored), 1e-2):
            raise InputError(OTHER_IMAGE)
