"""Archives where the package is not installed: they download, load, run, and hold what the hub is sent."""

import itertools
import json
import lzma
import shutil
import zipfile
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from programs import run_python
from running import command_of, load
from scan_files import noise, write_nifti
from zip_files import names_in, refusal, write_zip

from dira_monai import __version__
from dira_monai.cli.archives import pack
from dira_monai.sharing.archive import PACKAGE

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / "bundles").iterdir())
TINY = {  # networks in which a test takes no time
    "dira_pretrain_3d": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "dira_finetune_segmentation_3d": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "dira_finetune_classification_3d": {"features": [4, 4, 8, 8, 8, 4]},
    "dira_pretrain_2d": {"network_def#backbone": "resnet10"},
    "dira_finetune_segmentation_2d": {"network_def#backbone": "resnet10"},
    "dira_finetune_classification_2d": {"network_def#_target_": "resnet10"},
}


def tiny_bundle(name, folder):
    """One of this package's bundles with a tiny network of random weights."""
    bundle = shutil.copytree(ROOT / "bundles" / name, folder / name)
    for file in ("train.json", "inference.json"):
        parser = ConfigParser(json.loads((bundle / "configs" / file).read_text()))
        parser.update(TINY[name])
        (bundle / "configs" / file).write_text(json.dumps(parser.config))
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    torch.save(parser.get_parsed_content("network_def").state_dict(), bundle / "models/model.pt")
    return bundle


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A folder with the archives of all bundles."""
    folder = tmp_path_factory.mktemp("archives")
    for name in NAMES:
        assert list(pack(str(tiny_bundle(name, folder)), str(folder / f"{name}.zip")))
    return folder


def download(stranger, archives, name, folder):
    url = (archives / f"{name}.zip").as_uri()
    done = stranger("-m", "monai.bundle", "download", "--name", name, "--url", url, "--bundle_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder / name


def test_package_comes_along_where_a_config_names_it(archives):
    for name in NAMES:
        inside = {entry.removeprefix(f"{name}/") for entry in names_in(archives / f"{name}.zip")}
        own = {f"dira_monai/{p.relative_to(PACKAGE).as_posix()}" for p in PACKAGE.rglob("*.py")}
        own |= {f"dira_monai/{p.relative_to(PACKAGE).as_posix()}" for p in PACKAGE.rglob("study/ready/*.json")}
        own |= {"dira_monai/py.typed", "dira_monai/sharing/known.json"}
        assert {entry for entry in inside if entry.startswith("dira_monai/")} == own


def test_unchanged_bundle_has_no_row_of_code(command):
    assert command("pack", str(ROOT / "bundles/dira_pretrain_2d"), "dira_pretrain_2d.zip")[0] == 0
    status, output, errors = command("verify", "dira_pretrain_2d.zip")
    assert (status, errors) == (0, "")
    facts = [line for line in output.splitlines() if not line.startswith("dira_")]
    assert facts == []
    assert "dira_pretrain_2d.zip: 0 rows of code to read" in output.splitlines()[-1]
    assert command("unpack", "dira_pretrain_2d.zip", "out")[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_changed_names_in_configs_are_shown_and_numbers_are_not(command, archives, name):
    status, output, errors = command("verify", str(archives / f"{name}.zip"))
    assert (status, errors) == (0, "")
    shown = {line.strip() for line in output.splitlines() if line.startswith("    ")}
    assert shown == {f"{key}: {value}" for key, value in TINY[name].items() if isinstance(value, str)}
    status = command("unpack", str(archives / f"{name}.zip"), "out")[0]
    assert status == 0 or "rows of code above; if you trust what they run, say --trust True" in status
    assert (status == 0) == (not shown)


def test_archive_of_version_0_1_is_shown_and_unpacks(command, tmp_path):
    content = (ROOT / "tests/contract/archive_0.1.0.zip.xz").read_bytes()
    (tmp_path / "old.zip").write_bytes(lzma.decompress(content))
    status, output, _ = command("verify", "old.zip")
    assert status == 0
    assert "configs/train.json:\n" in output
    assert "    initialize#0: $dira_monai.plain_errors()" in output.splitlines()
    assert "dira_monai/anatomy.py:\n    differs from the dira_monai" in output
    assert "say --trust True" in command("unpack", "old.zip", "out")[0]
    assert command("unpack", "old.zip", "out", "--trust", "True")[0] == 0
    assert Path("out/dira_pretrain_3d/dira_monai/anatomy.py").is_file()


def test_other_code_under_the_name_of_this_package_is_shown(command, archives, tmp_path):
    name = "dira_pretrain_3d"
    assert "dira_monai: the same code as the" in command("verify", str(archives / f"{name}.zip"))[1]
    assert command("unpack", str(archives / f"{name}.zip"), "out")[0] == 0
    stored = tmp_path / "out" / name / "dira_monai/weights/stored/primitives_2d.md"  # of a whole copy of the package
    stored.parent.mkdir()
    stored.write_text("a card")
    assert command("pack", f"out/{name}", "same.zip")[0] == 0
    (tmp_path / "out" / name / "dira_monai/losses/adversarial.py").write_text("import os\n")
    (tmp_path / "out" / name / "dira_monai/more.py").write_text("import os\n")
    (tmp_path / "out" / name / "dira_monai/transforms/views.py").unlink()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    entries = [(path.relative_to(tmp_path / "out").as_posix(), path.read_bytes()) for path in files]
    write_zip(tmp_path / "bad.zip", *entries)
    lines = command("verify", "bad.zip")[1].splitlines()
    row = f"    differs from the dira_monai {__version__} that is installed here"
    shown = [line for line, following in itertools.pairwise(lines) if following == row]
    assert sorted(shown) == ["dira_monai/losses/adversarial.py:", "dira_monai/more.py:"]
    without = f"dira_monai: without 1 files of the {__version__} installed here, as dira_monai/transforms/views.py"
    assert without in lines
    assert "no SHA256SUMS" in lines[0]
    assert "is other code than the one that packs" in refusal(command, "pack", f"out/{name}", "again.zip")


def test_a_run_from_elsewhere_says_which_code_runs(command, archives, tmp_path):
    assert command("unpack", str(archives / "dira_pretrain_3d.zip"), "out")[0] == 0
    bundle = tmp_path / "out/dira_pretrain_3d"
    options = {"device": "$print('version', dira_monai.__version__) or 'cpu'"}
    words = [*command_of(bundle, ["train"], options), "--run_id", "device"]
    same = run_python(words)
    assert same.returncode == 0, same.stderr
    assert "that the bundle brings" not in same.stderr
    version = bundle / "dira_monai/utils/version.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', '"99.0"'))
    installed = run_python(words)
    assert f"version {__version__}" in installed.stdout
    (line,) = [line for line in installed.stderr.splitlines() if "that the bundle brings" in line]
    assert line == (
        f"dira_monai {__version__} in {PACKAGE.parent} runs, not the other code (99.0) that the bundle brings; "
        f"to run that: PYTHONPATH={bundle}"
    )
    packed = run_python(words, PYTHONPATH=str(bundle))
    assert "version 99.0" in packed.stdout, packed.stderr
    assert "that the bundle brings" not in packed.stderr


def test_archive_trains_and_restores_where_the_package_is_not_installed(archives, stranger, tmp_path):
    bundle = download(stranger, archives, "dira_pretrain_3d", tmp_path / "zoo")
    for number in range(4):
        write_nifti(tmp_path / "scans" / f"{number}.nii.gz", noise(48, 24, 24, seed=number, high=1000))
    options = "--dataset_dir=../../scans --patch_size=[32,16,16] --batch_size=2 --epoch_length=1 --max_epochs=1"
    options += " --val_samples=2 --queue_size=4 --discriminator_channels=4 --pooled_norm=True"
    words = ("-m", "monai.bundle", "run", "--config_file")
    done = stranger(*words, "configs/train.json", *options.split(), cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert (bundle / "models/checkpoint.pt").is_file()
    assert (bundle / "output/metrics.csv").is_file()
    options = "--image=../../scans/0.nii.gz --patch_size=[32,16,16]"
    done = stranger(*words, "configs/inference.json", *options.split(), cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert len(list((bundle / "restored").rglob("*restored.nii.gz"))) == 1


LOAD = """
import sys
import torch
from monai.bundle import load

sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    for workflow in ("train", "inference"):
        network = load(name, bundle_dir="zoo", workflow_type=workflow)
        saved = torch.load(f"zoo/{name}/models/model.pt", weights_only=True)
        state = network.state_dict()
        assert state.keys() == saved.keys() and all(torch.equal(state[key], saved[key]) for key in saved), name
        print("loaded", name, workflow)
"""


def test_every_bundle_loads_from_its_archive(archives, stranger, tmp_path):
    for name in NAMES:
        with zipfile.ZipFile(archives / f"{name}.zip") as archive:
            archive.extractall(tmp_path / "zoo")
    done = stranger("-c", LOAD, f"zoo/{NAMES[0]}", *NAMES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loaded ") == 12


class Hub:
    """What MONAI asks of huggingface_hub, kept in a folder instead."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def HfApi(self, token=None):  # noqa: N802 (its name there)
        return self

    def create_repo(self, **options):
        self.calls.append("create_repo")

    def upload_folder(self, repo_id, folder_path):
        shutil.copytree(folder_path, self.folder)
        return repo_id

    def create_tag(self, repo_id, tag, exist_ok):
        self.calls.append(tag)

    def snapshot_download(self, repo_id, revision, local_dir):
        shutil.copytree(self.folder, local_dir)


def test_what_the_hub_is_sent(command, archives, tmp_path, monkeypatch):
    name = "dira_finetune_segmentation_3d"
    assert command("unpack", str(archives / f"{name}.zip"), "clean")[0] == 0
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", hub)
    monai.bundle.push_to_hf_hub(repo="me/tiny", name=name, bundle_dir="clean", version="0.1.0")
    assert hub.calls == ["create_repo", "0.1.0"]
    card = (hub.folder / "README.md").read_text()
    front = "---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
    assert card == front + (ROOT / "bundles" / name / "docs/README.md").read_text()
    sent = {path.relative_to(hub.folder).as_posix() for path in hub.folder.rglob("*") if path.is_file()}
    packed = {entry.removeprefix(f"{name}/") for entry in names_in(archives / f"{name}.zip")}
    assert sent == packed | {"README.md"}
    assert {"LICENSE", "configs/metadata.json", "configs/train.json", "models/model.pt"} <= sent
    network = monai.bundle.load(name, bundle_dir="got", source="huggingface_hub", repo="me/tiny", version="0.1.0")
    saved = load(tmp_path / "hub/models/model.pt")
    assert all(torch.equal(tensor, saved[key]) for key, tensor in network.state_dict().items())
    assert command("verify", f"got/{name}")[0] == 0
