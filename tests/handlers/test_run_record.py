"""The record of a run: what it holds, and that the digest tells data apart."""

import json
import shutil
import subprocess
from pathlib import Path

import ignite
import monai
import numpy as np
import pytest
import torch
from finetune_bundle import bundle, train, write_data
from finetune_bundle import overrides as finetune_overrides
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from pretrain_bundle import BUNDLES, overrides, run
from scan_files import noise, write_image, write_slice

import dira_monai
from dira_monai.bundle.run_json import read_starts
from dira_monai.data.digest import PART, data_sha256
from dira_monai.handlers.run_record import RunRecord, git_commit
from dira_monai.utils.errors import InputError

TINY = {"max_epochs": 1, "epoch_length": 1}


def write_listed(folder):
    """Three pictures and the list of them; the last is larger than both ends that are read together."""
    files = [write_image(folder / f"p{number}.png", noise(6, 8, seed=number)) for number in range(2)]
    files.append(write_image(folder / "large.png", noise(400, 500, seed=2)))
    entries = [{"image": str(file), "label": number} for number, file in enumerate(files)]
    return {"dataset_dir": str(folder), "training": entries[:2], "validation": entries[2:]}


@pytest.fixture
def listed(tmp_path):
    return write_listed(tmp_path / "data")


def test_a_copy_of_the_data_has_the_same_data_sha256(listed, tmp_path):
    first = data_sha256(listed)
    assert len(first) == 64
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copy)  # other dates
    text = json.dumps(listed).replace(str(tmp_path / "data"), str(tmp_path / "copy"))
    assert data_sha256(json.loads(text)) == first == data_sha256(listed)


def other_content(listed):
    write_image(Path(listed["training"][0]["image"]), noise(6, 8, seed=9))


def other_last_byte(listed):
    path = Path(listed["validation"][0]["image"])
    content = bytearray(path.read_bytes())
    assert len(content) > 2 * PART
    content[-1] ^= 1
    path.write_bytes(content)


def longer(listed):
    path = Path(listed["validation"][0]["image"])
    content = path.read_bytes()
    path.write_bytes(content[:PART] + bytes(7) + content[PART:])


def other_label(listed):
    listed["training"][0]["label"] = 7


def other_split(listed):
    listed["validation"].append(listed["training"].pop())


def other_name(listed):
    old = Path(listed["training"][0]["image"])
    listed["training"][0]["image"] = str(old.rename(old.with_name("renamed.png")))


@pytest.mark.parametrize("change", [other_content, other_last_byte, longer, other_label, other_split, other_name])
def test_other_data_have_another_data_sha256(listed, change):
    before = data_sha256(listed)
    change(listed)
    assert data_sha256(listed) != before


@pytest.mark.parametrize(
    ("share", "seen"),
    [(10, [*range(10)]), (9, [0, 1, 2, 3, 4, 6, 7, 8, 9]), (5, [0, 2, 4, 7, 9]), (1, [0, 9])],
)
def test_a_large_file_is_read_at_even_distances(tmp_path, monkeypatch, share, seen):
    file = tmp_path / "large"
    monkeypatch.setattr("dira_monai.data.digest.READ", share * PART)
    parts = np.random.default_rng(0).integers(0, 255, (10, PART), np.uint8)
    listed = {"training": [{"image": str(file)}]}

    def digest(changed=None):
        content = parts.copy()
        if changed is not None:
            content[changed, PART // 2] ^= 1
        file.write_bytes(content.tobytes())
        return data_sha256(listed)

    assert [number for number in range(10) if digest(number) != digest()] == seen


def test_of_a_long_list_some_files_are_read_and_all_measured(tmp_path, monkeypatch):
    files = [write_image(tmp_path / f"p{number}.png", noise(6, 8, seed=number)) for number in range(8)]
    listed = {"training": [{"image": str(file)} for file in files]}
    monkeypatch.setattr("dira_monai.data.digest.SAMPLE", 3)
    before, contents = data_sha256(listed), [file.read_bytes() for file in files]
    seen = {"content": 0, "size": 0}
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen["content"] += data_sha256(listed) != before
        file.write_bytes(content + b"1")
        seen["size"] += data_sha256(listed) != before
        file.write_bytes(content)
    assert seen == {"content": 3, "size": 8}
    assert data_sha256(listed) == before


def test_names_begin_below_the_common_folder():
    def placed(root):
        images = [{"image": f"{root}/{folder}/a.npy", "sha256": "1" * 64} for folder in ("first", "second")]
        return data_sha256({"training": images[:1], "validation": images[1:]})

    assert placed("") == placed("/data") == placed("/data/more/..")


def test_a_label_map_and_a_folder_of_slices_count(listed, tmp_path):
    label = write_image(tmp_path / "data/label.png", noise(6, 8, seed=3))
    piece = write_slice(tmp_path / "data/series/a.dcm", noise(6, 8))
    listed["training"] = [{"image": str(piece.parent), "label": str(label)}]
    known = [data_sha256(listed)]
    write_image(label, noise(6, 8, seed=4))
    known.append(data_sha256(listed))
    write_slice(piece, noise(6, 8, seed=5))
    known.append(data_sha256(listed))
    assert len(set(known)) == 3


def test_the_digest_of_a_prepared_image_is_that_of_the_list(listed):
    entry = listed["training"][0] | {"sha256": "1" * 64}
    before = data_sha256(listed | {"training": [entry]})
    assert data_sha256(listed | {"training": [entry | {"sha256": "2" * 64}]}) != before
    other_content(listed)
    assert data_sha256(listed | {"training": [entry]}) == before


def test_a_missing_file_is_named(listed):
    Path(listed["training"][0]["image"]).unlink()
    with pytest.raises(InputError, match=r"p0\.png cannot be read for the record of the run: No such file"):
        data_sha256(listed)


def git(folder, *words):
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_commit_is_told_with_a_mark_where_something_was_changed(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    file = tmp_path / "part.py"
    file.write_text("one\n")
    assert git_commit(file) == "unknown"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "other.py").write_text("other\n")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "--quiet", "--message", "Add another file")
    assert git_commit(file) == "unknown"  # in the folder, but not in the repository
    git(tmp_path, "add", "part.py")
    git(tmp_path, "commit", "--quiet", "--message", "Add the file")
    git(tmp_path, "tag", "v1")
    head = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert git_commit(file) == head
    file.write_text("two\n")
    assert git_commit(file) == f"{head}-dirty"


def begin(record):
    """Start an engine with the handler."""
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    record.attach(engine)
    engine.fire_event(Events.STARTED)
    return engine


def test_a_start_names_versions_data_and_the_configuration(listed, tmp_path):
    parser = ConfigParser({"output_dir": str(tmp_path / "out"), "rate": "$2 * 0.5", "datalist": listed})
    parser["record"] = {"_target_": "dira_monai.RunRecord", "output_dir": "@output_dir", "datalist": "@datalist"}
    engine = begin(parser.get_parsed_content("record"))
    engine.fire_event(Events.STARTED)  # a further round of a federation
    [start] = read_starts(tmp_path / "out/run.json")
    assert start["versions"]["torch"] == torch.__version__
    assert start["versions"]["monai"] == monai.__version__
    assert start["versions"]["ignite"] == ignite.__version__
    assert start["versions"]["dira_monai"] == dira_monai.__version__
    assert start["versions"]["python"].count(".") == 2
    assert start["git_commit"] == git_commit(Path(dira_monai.__file__).with_name("__init__.py"))
    assert start["images"] == {"training": 2, "validation": 1}
    assert start["data_sha256"] == data_sha256(listed)
    assert (start["device"], start["processes"]) == ("cpu", 1)
    assert start["config"]["rate"] == "$2 * 0.5"
    assert start["config"]["output_dir"] == str(tmp_path / "out")


def test_a_file_that_is_no_record_is_kept(listed, tmp_path):
    (tmp_path / "run.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"run\.json is no record of runs"):
        begin(RunRecord(str(tmp_path), listed))
    assert (tmp_path / "run.json").read_text() == "[1, 2]"


def test_pre_training_and_its_evaluation_record_each_start(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, restoration_weight=0, adversarial_weight=0)
    run(2, ["train"], options)
    run(2, ["train"], options | {"resume": True, "max_epochs": 2})
    run(2, ["train", "evaluate"], options)
    first, second = read_starts(tmp_path / "out/run.json")
    assert (first["config"]["resume"], second["config"]["resume"]) == (False, True)
    assert (first["config"]["max_epochs"], second["config"]["max_epochs"]) == (1, 2)
    assert first["config"]["train"]["trainer"]["max_epochs"] == "@max_epochs"
    [evaluated] = read_starts(tmp_path / "out/evaluation/run.json")
    assert {start["data_sha256"] for start in (first, second, evaluated)} == {first["data_sha256"]}
    assert first["images"] == {"training": 4, "validation": 1}


def test_pre_training_on_a_list_with_label_maps_and_test_images_records_its_start(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, restoration_weight=0, adversarial_weight=0)
    run(2, ["train"], options)
    made = json.loads((tmp_path / "out/datalist.json").read_text())
    made["test"] = [made["training"].pop()]
    for entry in made["training"] + made["test"]:
        entry["label"] = (
            f"labels/{entry['image']}"  # paths below the folder, as labeled writes them; nobody reads these
        )
    (tmp_path / "list.json").write_text(json.dumps(made))
    run(2, ["train"], options | {"dataset_dir": str(tmp_path / "list.json"), "output_dir": str(tmp_path / "labeled")})
    [start] = read_starts(tmp_path / "labeled/run.json")
    assert start["images"] == {"training": 3, "validation": 1, "test": 1}


@pytest.mark.parametrize("dims", [2, 3])
def test_visual_words_of_a_relative_folder_are_read(dims, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    for name in ("words.json", "training.npy", "validation.npy"):
        (tmp_path / "words" / name).write_text("before")
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[dims] / f"configs/{name}.json") for name in ("train", "transvw")])
    parser["words_dir"] = "words"
    datalist = parser.get_parsed_content("datalist")
    before = data_sha256(datalist)
    (tmp_path / "words/training.npy").write_text("behind")
    assert data_sha256(datalist) != before


def test_fine_tuning_records_its_start(tmp_path):
    kind = ("classification", 2)
    data = {2: write_data(tmp_path / "data", 2)}
    options = finetune_overrides(kind, data, tmp_path, **TINY)
    train(kind, options)
    [start] = read_starts(tmp_path / "out/run.json")
    made = json.loads((tmp_path / "out/datalist.json").read_text())
    assert start["images"] == {name: len(made[name]) for name in ("training", "validation")}
    assert start["config"]["network_def"]["_target_"] == "resnet10"
    assert (
        start["config"]["_meta_"]["version"]
        == json.loads((bundle(*kind) / "configs/metadata.json").read_text())["version"]
    )


def test_of_two_processes_only_the_first_writes(listed, tmp_path, monkeypatch):
    monkeypatch.setattr("dira_monai.handlers.run_record.rank", lambda: 1)
    begin(RunRecord(str(tmp_path / "out"), listed))
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("dira_monai.handlers.run_record.rank", lambda: 0)
    monkeypatch.setattr("dira_monai.handlers.run_record.world_size", lambda: 2)
    begin(RunRecord(str(tmp_path / "out"), listed))
    [start] = read_starts(tmp_path / "out/run.json")
    assert start["processes"] == 2


def test_files_that_a_run_does_not_read_count_by_name(listed, tmp_path):
    more = {"test": [{"image": "images/nowhere.nii.gz", "label": "labels/nowhere.nii.gz"}]}
    assert data_sha256(listed | more) == data_sha256(listed | more)
    assert data_sha256(listed | more) != data_sha256(listed)
    other = {"test": [{"image": "images/nowhere.nii.gz", "label": "labels/elsewhere.nii.gz"}]}
    assert data_sha256(listed | other) != data_sha256(listed | more)
