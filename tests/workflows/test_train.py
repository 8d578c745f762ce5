"""Pre-training and fine-tuning in one call: the numbers of MONAI's command, and what is refused."""

import json
import os
import sys
from collections import Counter

import finetune_bundle
import pretrain_bundle
import pytest
from running import assert_equal_states, causes, load

import dira_monai
from dira_monai import InputError, finetune, pretrain
from dira_monai.__main__ import main
from dira_monai.apps.planning import labels as planned_labels
from dira_monai.cli.deferred import parse_values
from dira_monai.images import facts, stock
from dira_monai.images.find import first_file, read_image

FEW = {"max_epochs": 1, "epoch_length": 2}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where runs go that name no folder; the working folder stays empty."""
    monkeypatch.setenv("DIRA_RUNS", str(tmp_path / "runs"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "runs"
    assert [*(tmp_path / "here").iterdir()] == []


def small(dims, **more):
    return pretrain_bundle.SMALL | pretrain_bundle.OWN[dims] | FEW | {"hours": None} | more


def small_labeled(kind, **more):
    return finetune_bundle.SMALL | finetune_bundle.OWN[kind] | FEW | {"hours": None} | more


def last_config(run):
    return json.loads((run / "run.json").read_text())["starts"][-1]["config"]


@pytest.mark.parametrize(("dims", "method"), [(2, None), (3, "simsiam,masked_dira")])
def test_pretrain_gives_the_weights_of_the_bundle(dims, method, pretrain_scans, tmp_path):
    run = pretrain(pretrain_scans[dims], method=method, run=tmp_path / "run", **small(dims))
    files = ["train", *(method or "").split(",")][: 3 if method else 1]
    options = pretrain_bundle.overrides(dims, pretrain_scans, tmp_path, **FEW)
    pretrain_bundle.run(dims, files, options)
    assert run == tmp_path / "run"
    for name in ("model.pt", "objective.pt"):
        assert_equal_states(load(run / "models" / name), load(tmp_path / "models" / name))


def test_values_that_are_not_given_are_planned_and_kept(finetune_scans, tmp_path, capsys):
    given = {"network_def#backbone": "resnet10", "device": "cpu", "batch_size": 2, **FEW}
    run = finetune(finetune_scans[2], task="segmentation", run=tmp_path / "my run", **given)
    planned = {name: value for name, value in json.loads((run / "plan.json").read_text()).items() if name != "_desc_"}
    config = last_config(run)
    assert planned["label_values"] == [0, 255]  # so that a folder is enough
    assert planned == {name: config[name] for name in planned}
    assert given == {name: config["network_def"]["backbone"] if "#" in name else config[name] for name in given}
    assert not planned.keys() & given.keys()
    out = capsys.readouterr().out
    assert "the label maps hold the values 0, 255" in out
    assert f'; measure: dira-monai evaluate "{run}"; use: dira-monai infer "{run}" IMAGES' in out
    finetune(finetune_scans[2], task="segmentation", run=run, resume=True, **given | {"max_epochs": 2})
    config = last_config(run)
    assert planned == {name: config[name] for name in planned}


@pytest.fixture
def reads(monkeypatch):
    """How often each file was read as a whole for the list of images and for the plan."""
    counts = Counter()

    def read(image, directory=".", resample=True):
        counts.update([os.path.join(directory, first_file(image))])
        return read_image(image, directory, resample)

    for module in (facts, stock, planned_labels):
        monkeypatch.setattr(module, "read_image", read)
    return counts


def test_an_image_is_listed_once_for_plan_and_training(finetune_scans, pretrain_scans, reads, tmp_path):
    """The plan itself reads a sample of 16 images, and label maps for their classes."""
    labels = {"network_def#backbone": "resnet10", "device": "cpu", "batch_size": 2, **FEW}
    plain = small(3) | {"device": "cpu"}
    planned = {name: value for name, value in plain.items() if name != "hours"}
    for hours in ({}, {"hours": None}):
        pretrain(pretrain_scans[3], run=tmp_path / f"pretrain{len(hours)}", **planned, **hours)
        assert {*reads.values()} == {1 if hours else 2}, hours
        reads.clear()
    run = finetune(finetune_scans[2], task="segmentation", run=tmp_path / "finetune", **labels)
    assert len(reads) == 32
    assert {*reads.values()} == {2}
    reads.clear()
    finetune(finetune_scans[2], task="segmentation", run=run, resume=True, **labels | {"max_epochs": 2})
    assert not reads


@pytest.mark.parametrize("kind", [("segmentation", 2), ("classification", 3)])
def test_finetune_gives_the_weights_of_the_bundle(kind, finetune_scans, tmp_path, capsys):
    task, dims = kind
    start = None
    if task == "segmentation":
        start = pretrain(finetune_scans[dims], run=tmp_path / "start", **small(dims))
    run = finetune(finetune_scans[dims], task=task, pretrained=start, run=tmp_path / "run", **small_labeled(kind))
    seen = "4 of 4 test images or their patients are in"
    assert (f"warning: {seen} {start}/datalist.json, which is allowed" in capsys.readouterr().out) == bool(start)
    options = finetune_bundle.overrides(kind, finetune_scans, tmp_path, **FEW)
    finetune_bundle.train(kind, options | ({"pretrained": str(start / "models/model.pt")} if start else {}))
    assert_equal_states(load(run / "models/model.pt"), load(tmp_path / "models/model.pt"))


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_weights_of_the_package_bring_their_network(task, finetune_scans, tmp_path, capsys):
    values = small_labeled((task, 2))
    own = {name: values.pop(name) for name in [*values] if name.startswith("network_def")}
    run = finetune(finetune_scans[2], task=task, pretrained="primitives_2d", run=tmp_path / "run", **values)
    told = capsys.readouterr().out
    assert "pretrained: primitives_2d -> " in told
    assert "coverage: 100.0% of the encoder" in told
    assert "pretraining_list" not in told
    network = last_config(run)["network_def"]
    assert own
    assert "resnet10" in (network["_target_"], network.get("backbone"))
    assert last_config(run)["pretrained"] == "primitives_2d"


def test_a_pretraining_begins_with_weights_of_the_package(pretrain_scans, tmp_path, capsys):
    values = {name: value for name, value in small(2).items() if not name.startswith("network_def")}
    run = pretrain(pretrain_scans[2], pretrained="primitives_2d", run=tmp_path / "run", **values)
    assert "coverage: 100.0% of the encoder" in capsys.readouterr().out
    assert last_config(run)["network_def"]["decoder_channels"] == [96, 48, 24, 16, 8]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_weights_of_the_package_for_another_bundle_are_refused(task, finetune_scans, home, capsys):
    suits = "dira_finetune_segmentation_2d, dira_finetune_classification_2d, dira_pretrain_2d"
    sentence = f"primitives_2d: is for {suits}, the data and the task are for dira_finetune_{task}_3d"
    words = ["--task", task, "--pretrained", "primitives_2d"]
    both(sentence, finetune_scans[3], "finetune", words, capsys, task=task, pretrained="primitives_2d")


def test_values_arrive_as_python_has_them(pretrain_scans, home, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "--bath_size", "null"])  # words of another program
    values = small(3, intensity_range=None, tensorboard=False, crop_scale=[0.5, 1.0])
    run = pretrain(pretrain_scans[3], **values)
    del values["hours"]
    config = last_config(run)
    assert {name: config[name] for name in values if "#" not in name} == {
        n: v for n, v in values.items() if "#" not in n
    }
    assert config["network_def"]["features"] == pretrain_bundle.UNET["features"]
    assert run == home / f"pretrain_{pretrain_scans[3].name}"
    assert not (run / "tensorboard").exists()


def test_a_run_is_never_overwritten(pretrain_scans, home, capsys):
    first, second = (pretrain(pretrain_scans[2], **small(2, cache="ram")) for _ in range(2))
    assert second == home / f"{first.name}_2"
    assert capsys.readouterr().out.count(f"run: {second}") == 2  # at the start and at the end
    with pytest.raises(InputError, match=f"{first}: holds a run already; name another folder"):
        pretrain(pretrain_scans[2], run=first, **small(2))
    pretrain(pretrain_scans[2], run=first, **small(2, max_epochs=2, resume=True))
    assert len(json.loads((first / "run.json").read_text())["starts"]) == 2
    assert load(first / "models/checkpoint.pt")["epoch"] == 2


def test_a_start_that_fails_leaves_nothing(pretrain_scans, home):
    with pytest.raises(InputError, match="do not suit intensity_range"):
        pretrain(pretrain_scans[2], **small(2, intensity_range=[5000, 9000]))
    assert [*home.iterdir()] == []


def both(sentence, data, verb, words, capsys, **options):
    """The same refusal of the function and of the command."""
    with pytest.raises(InputError) as raised:
        getattr(dira_monai, verb)(data, **options)
    sys.argv = ["dira-monai", verb, str(data), *words]
    with pytest.raises(SystemExit) as ended:
        main()
    assert sentence in str(raised.value)
    assert ended.value.code == f"error: {raised.value}"


REFUSED = [
    ("--bath_size is no value of the configuration; did you mean --batch_size?", {"bath_size": 3}),
    ("--metod is no value of the configuration; did you mean --method?", {"metod": "simsiam"}),
    ("the options: patch_size#eps is no value of the configuration", {"patch_size#eps": 1}),
    ("method simsam is neither a file nor one of autoencoder, barlow_twins, byol,", {"method": "simsam"}),
    ("method skin is neither a file nor one of", {"method": "skin"}),  # in 2D alone
    ("--spacing null: write None instead of null", {"spacing": "null"}),
    ("--patch_size [32, 32, 'null']: write None instead of null", {"patch_size": "[32, 32, null]"}),
    ("--resume false: write False instead of false", {"resume": "false"}),
    ("--batch_size must be a whole number from 1 to 1000000, got True", {"batch_size": True}),
    ("--output_dir cannot be given: name the folder of the run by --run", {"output_dir": "x"}),
    ("name the folder of the run that goes on by --run", {"resume": True}),
    ("--run True: name a folder, or leave --run out for a new one", {"run": "True"}),
    ("dims must be 2 or 3, got 4", {"dims": 4}),
    (
        "network_def cannot be built (BasicUNet.__init__() got an unexpected keyword argument 'width')",
        {"network_def#width": 4},
    ),
]


@pytest.mark.parametrize(("sentence", "options"), REFUSED, ids=lambda value: next(iter(value), "") and str(value)[:40])
def test_refused_in_one_sentence(sentence, options, pretrain_scans, home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook"])
    words = [f"--{name}={value}" for name, value in options.items()]
    if "patch_size" in options:
        options = {"patch_size": [32, 32, "null"]}
    both(sentence, pretrain_scans[3], "pretrain", words, capsys, **options)
    assert not home.exists() or [*home.iterdir()] == []


def test_words_of_the_command_line_become_values():
    words = {"spacing": "None", "crop_scale": "[0.5, 1]", "words_dir": "2024_01", "resume": "True", "gan": "wgan"}
    parsed = {"spacing": None, "crop_scale": [0.5, 1], "words_dir": "2024_01", "resume": True, "gan": "wgan"}
    assert parse_values(words) == parsed


def test_a_configuration_file_of_your_own_is_a_method(pretrain_scans, tmp_path):
    (tmp_path / "mine.json").write_text('{"temperature": 0.5}')
    methods = ["simsiam", tmp_path / "mine.json"]
    config = last_config(pretrain(pretrain_scans[2], method=methods, run=tmp_path / "run", **small(2)))
    assert (config["temperature"], config["objective_def"]["_target_"]) == (0.5, "dira_monai.SimSiam")


def test_tasks_and_several_processes(finetune_scans, monkeypatch):
    with pytest.raises(InputError, match="task must be segmentation or classification, got 'detection'"):
        finetune(finetune_scans[2], task="detection")
    with pytest.raises(InputError, match=r"--pretrined is no value .* did you mean --pretrained\?"):
        finetune(finetune_scans[2], task="segmentation", pretrined="x")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match=r"torchrun -m monai\.bundle run, with multi_gpu_train\.json"):
        pretrain(finetune_scans[2])


def test_other_errors_are_not_hidden(pretrain_scans, tmp_path):
    with pytest.raises(RuntimeError) as raised:
        pretrain(pretrain_scans[3], run=tmp_path / "run", **small(3, optimizer_arguments={"betas": 3}))
    assert "'int' object is not subscriptable" in causes(raised.value)
