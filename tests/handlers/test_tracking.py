"""MONAI's tracking switch and the bundles' own values write losses and metrics to MLflow and TensorBoard."""

import csv
import json
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from finetune_bundle import KINDS, bundle, config, later, train, write_data
from finetune_bundle import overrides as finetune_overrides
from monai.bundle import ConfigParser
from pretrain_bundle import overrides, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dira_monai.bundle.run_json import read_starts
from dira_monai.handlers.mlflow_names import legal_names

TINY = {"epoch_length": 1, "max_epochs": 2}
LOSSES = {"loss", "contrastive", "restoration", "adversarial", "discriminator"}


def numbers_of(folder):
    """The numbers of each epoch in metrics.csv, without its other columns."""
    others = ("epoch", "iteration", "stage")
    rows = csv.DictReader((folder / "out/metrics.csv").open())
    return [{key: float(value) for key, value in row.items() if key not in others and value} for row in rows]


def tracked(uri):
    """Of every run, oldest first: its name, status and, of each metric, the values in their order."""
    mlflow = pytest.importorskip("mlflow", reason='mlflow is not installed (pip install -e ".[tracking]")')
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], order_by=["start_time ASC"])
    return [
        (
            run.info.run_name,
            run.info.status,
            {name: [m.value for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics},
        )
        for run in runs
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A database without runs: MLflow makes one by all changes of its tables since its first version, in seconds."""
    mlflow = pytest.importorskip("mlflow", reason='mlflow is not installed (pip install -e ".[tracking]")')
    file = tmp_path_factory.mktemp("mlflow") / "mlruns.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(store, tmp_path):
    (tmp_path / "out").mkdir()
    return f"sqlite:///{shutil.copy(store, tmp_path / 'out')}"


def switched(way, uri):
    """Options that log to ``uri``: the header value ``mlflow``, or MONAI's switch, which logs there by default.

    That of MONAI 1.6.0 logs to a folder by default, which MLflow 3.13 and later refuse.
    """
    if way == "mlflow":
        return {"mlflow": uri}
    return {"tracking": "mlflow"} | ({"tracking_uri": uri} if monai.__version__ == "1.6.0" else {})


def check_history(metrics, rows):
    """Every number of metrics.csv stands in MLflow, in its epoch."""
    for name in dict.fromkeys(name for row in rows for name in row):
        expected = [row[name] for row in rows if name in row]
        assert metrics[name] == pytest.approx(expected, rel=1e-4), name


def test_the_switch_logs_every_loss_of_pre_training(pretrain_scans, tmp_path, uri):
    (tmp_path / "out/mlruns.db").unlink()  # MLflow makes it
    options = overrides(2, pretrain_scans, tmp_path, **TINY, stage_epochs=[0, 0, 2])
    run(2, ["train"], options | switched("tracking", uri))
    [(_, status, metrics)] = tracked(uri)
    assert status == "FINISHED"
    assert LOSSES | {"val_loss", "val_mse"} <= metrics.keys()
    check_history(metrics, numbers_of(tmp_path))
    assert len(metrics["train_loss"]) == 2  # one an iteration
    [saved] = (tmp_path / "out").glob("config_*.json")
    assert json.loads(saved.read_text())["max_epochs"] == 2


def test_the_header_value_logs_every_loss_of_pre_training_and_evaluation(pretrain_scans, tmp_path, uri):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, stage_epochs=[0, 0, 2], mlflow=uri)
    run(2, ["train"], options)
    run(2, ["train", "evaluate"], options)
    (name, status, metrics), (_, ended, evaluated) = tracked(uri)
    assert (name, status, ended) == (str(tmp_path / "out"), "FINISHED", "FINISHED")
    assert metrics.keys() >= LOSSES
    check_history(metrics, numbers_of(tmp_path))
    told = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert {key: values[-1] for key, values in evaluated.items()} == pytest.approx(told)


@pytest.mark.parametrize("way", ["tracking", "mlflow"])
def test_fine_tuning_is_logged(way, tmp_path, uri):
    kind = ("classification", 2)
    options = finetune_overrides(kind, {2: write_data(tmp_path / "data", 2)}, tmp_path, **TINY)
    train(kind, options | switched(way, uri))
    [(_, status, metrics)] = tracked(uri)
    assert status == "FINISHED"
    assert {"loss", "val_mean_auc", "learning_rate"} <= metrics.keys()
    check_history(metrics, numbers_of(tmp_path))


NAMES = {  # of classes, and those that MLflow gets for them: two that would be equal, a path, one as it is
    "tumor (core)": "tumor _core__2",
    "tumor [core]": "tumor _core__3",
    "tumor _core_": "tumor _core_",
    "left//right": "left__right",
    "µ: a-b.c": "µ: a-b.c",
}


def test_names_that_mlflow_refuses():
    assert legal_names(NAMES) == NAMES
    validation = pytest.importorskip("mlflow.utils.validation", reason="mlflow is not installed")
    for name in NAMES.values():
        validation._validate_metric_name(name)


@pytest.mark.parametrize(("way", "dims"), [("tracking", 2), ("mlflow", 3)])
def test_classes_of_any_name_are_logged(way, dims, tmp_path, uri):
    kind = ("segmentation", dims)
    options = finetune_overrides(kind, {dims: write_data(tmp_path / "data", dims)}, tmp_path, **TINY)
    names = ["tumor (core)", "tumor [core]"][: dims - 1]
    options |= switched(way, uri) | {"class_names": ["background", *names]}
    train(kind, options)
    files = [str(bundle(*kind) / f"configs/{name}.json") for name in ("train", "evaluate")]
    own = later(options) | {"output_dir": options["output_dir"]} | switched(way, uri)
    monai.bundle.run(config_file=files, **own)
    told = dict(csv.reader((tmp_path / "out/evaluation/metrics.csv").open()))
    (_, _, trained), (_, _, evaluated) = tracked(uri)
    for name, legal in zip(names, ["tumor _core_", "tumor _core__2"][: dims - 1], strict=True):
        key, logged = f"val_dice_{name}", f"val_dice_{legal}"
        assert trained[logged] == pytest.approx([row[key] for row in numbers_of(tmp_path)], rel=1e-4)
        assert evaluated[logged][-1] == pytest.approx(float(told[key]), rel=1e-4)


def write_untrained(kind, options):
    """The list of images and random weights, where a training would leave them."""
    parser = ConfigParser(config(kind, "train"))
    parser.update(options)
    parser.get_parsed_content("train#dataset#data")  # makes the list
    folder = Path(options["ckpt_dir"])
    folder.mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")


WAYS = [(kind, "tracking") for kind in KINDS] + [(KINDS[0], "mlflow")]


@pytest.mark.parametrize(
    ("kind", "way"), WAYS, ids=lambda value: "_".join(map(str, value)) if value in KINDS else value
)
def test_an_evaluation_of_fine_tuning_is_a_run_that_ends(kind, way, tmp_path, uri):
    options = finetune_overrides(kind, {kind[1]: write_data(tmp_path / "data", kind[1])}, tmp_path)
    write_untrained(kind, options)
    files = [str(bundle(*kind) / f"configs/{name}.json") for name in ("train", "evaluate")]
    own = later(options) | {"output_dir": options["output_dir"]} | switched(way, uri)
    monai.bundle.run(config_file=files, **own)
    [(_, status, metrics)] = tracked(uri)
    assert status == "FINISHED"
    told = {name: float(value) for name, value in csv.reader((tmp_path / "out/evaluation/metrics.csv").open())}
    assert told
    assert {name: values[-1] for name, values in metrics.items()} == pytest.approx(told, rel=1e-4, nan_ok=True)
    [start] = read_starts(tmp_path / "out/evaluation/run.json")
    assert start["images"] == {"test": len(json.loads((tmp_path / "out/datalist.json").read_text())["test"])}
    assert (start["config"]["split"], start["config"]["ckpt_dir"]) == ("test", str(tmp_path / "models"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_the_switch_records_an_inference(kind, tmp_path, uri):
    options = finetune_overrides(kind, {kind[1]: write_data(tmp_path / "data", kind[1])}, tmp_path)
    write_untrained(kind, options)
    image = str(min((tmp_path / "data/images").iterdir()))
    own = later(options) | {"datalist": [image], "output_dir": str(tmp_path / "out")} | switched("tracking", uri)
    monai.bundle.run(config_file=str(bundle(*kind) / "configs/inference.json"), **own)
    [(_, status, metrics)] = tracked(uri)
    assert (status, metrics) == ("FINISHED", {})
    [saved] = (tmp_path / "out").glob("config_*.json")
    assert json.loads(saved.read_text())["datalist"] == [image]


def test_the_switch_ends_the_run_of_an_evaluation_of_pre_training(pretrain_scans, tmp_path, uri):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, stage_epochs=[2, 0, 0])
    run(2, ["train"], options)
    run(2, ["train", "evaluate"], options | switched("tracking", uri))
    [(_, status, metrics)] = tracked(uri)
    assert status == "FINISHED"
    told = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert {key: values[-1] for key, values in metrics.items()} == pytest.approx(told)


def scalars(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_has_the_numbers_of_the_table_and_of_the_evaluation(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, stage_epochs=[0, 0, 2])
    run(2, ["train"], options)
    check_history(scalars(tmp_path / "out/tensorboard"), numbers_of(tmp_path))
    run(2, ["train", "evaluate"], options)
    told = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    evaluated = scalars(tmp_path / "out/evaluation/tensorboard")
    assert {key: evaluated[key][0] for key in told} == pytest.approx(told, rel=1e-4)


def test_tensorboard_can_be_left_out(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, stage_epochs=[2, 0, 0], tensorboard=False)
    run(2, ["train"], options)
    run(2, ["train", "evaluate"], options)
    assert len(numbers_of(tmp_path)) == 2
    assert not list(tmp_path.rglob("tensorboard"))
