"""What the Model Zoo checks of a contribution (its ci/verify_bundle.py), step by step, for all bundles; docs/zoo.md."""

import ast
import hashlib
import json
import re
import shlex
import shutil
import sys
import unittest
import zipfile
from pathlib import Path

import fire
import monai.bundle
import numpy as np
import pytest
import torch
from meta_schema import SCHEMA
from monai.bundle import ConfigParser
from running import assert_equal_states, load, load_script
from torch.jit.frontend import NotSupportedError

import dira_monai

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / "bundles").iterdir())
PAGE = (ROOT / "docs/zoo.md").read_text()
LARGE = 25e6  # bytes of a file that the zoo does not take
MADE_BY_RUNS = ("models", "output", "restored", "prediction")  # not in git, except for an empty models


def network_of(folder, **options):
    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser.update(options)
    return parser.get_parsed_content("network_def")


def copy_of(name, folder):
    """The bundle as git holds it: without weights."""
    shutil.copytree(ROOT / "bundles" / name, folder / name, ignore=shutil.ignore_patterns(*MADE_BY_RUNS))
    (folder / name / "models").mkdir()
    return folder / name


@pytest.fixture(scope="module", params=NAMES)
def contributed(request, tmp_path_factory):
    """A bundle as it is contributed: with weights of its own network, here random ones, and the schema at hand."""
    folder = copy_of(request.param, tmp_path_factory.mktemp("zoo") / "models")
    torch.manual_seed(3)
    torch.save(network_of(folder).state_dict(), folder / "models/model.pt")
    (folder / "eval").mkdir()
    (folder / "eval/schema.json").write_text(json.dumps(SCHEMA))
    yield folder
    shutil.rmtree(folder)  # hundreds of megabytes


@pytest.fixture
def inside(contributed, monkeypatch):
    """The contributed bundle, with its folder as the working directory."""
    monkeypatch.chdir(contributed)
    return contributed


def documented(name):
    """The one line of docs/zoo.md that begins so behind ``python -m monai.bundle``, as words."""
    (line,) = re.findall(rf"^python -m monai\.bundle ({name} .*)$", PAGE, re.MULTILINE)
    return shlex.split(line)


def call(words, **more):
    """Run a command of monai.bundle in this process, its words understood as on the command line."""
    command, *options = words
    options += [f"--{key}={value}" for key, value in more.items()]
    fire.Fire(getattr(monai.bundle, command), command=options)


def missing_files(folder):
    """Files that the zoo calls necessary or preferred and that are not there."""
    wanted = ("configs/metadata.json", "LICENSE", "models/model.pt", "configs/inference.json")
    return [name for name in wanted if not (folder / name).is_file()]


def test_files_are_there_once_there_are_weights(contributed, tmp_path):
    assert missing_files(contributed) == []
    bare = copy_of(contributed.name, tmp_path)
    assert missing_files(bare) == ["models/model.pt"]
    assert [path for path in bare.rglob("*") if path.stat().st_size > LARGE] == []
    assert (bare / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "No data comes with this bundle and no weights do." in (bare / "docs/data_license.txt").read_text()


def test_name_and_version_can_be_told_apart(contributed):
    metadata = json.loads((contributed / "configs/metadata.json").read_text())
    released = f"{contributed.name}_v{metadata['version']}"
    assert re.fullmatch(r"(.+)_v(\d.*)", released).groups() == (contributed.name, metadata["version"])
    assert next(iter(metadata["changelog"])) == metadata["version"]  # the newest first
    assert metadata["name"]
    assert not [other for other in NAMES if contributed.name in other and contributed.name != other]


def test_metadata_pass(inside, capsys):
    call(documented("verify_metadata"))
    broken = json.loads(Path("configs/metadata.json").read_text())
    del broken["network_data_format"]["outputs"]["pred"]["dtype"]
    Path("eval/broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="dtype"):
        call(documented("verify_metadata"), meta_file="eval/broken.json")


def test_channels_and_type_of_the_default_network_pass(inside):
    call(documented("verify_net_in_out"), device="cpu")


def test_default_network_is_scripted_with_its_weights(inside):
    call(documented("ckpt_export"))
    assert Path("models/model.pt").stat().st_size > LARGE  # so that the page speaks of large files
    script, metadata, extra = monai.data.load_net_with_metadata(
        "models/model.ts", map_location="cpu", more_extra_files=("inference.json",)
    )
    assert isinstance(script, torch.jit.ScriptModule)
    weights = load("models/model.pt")
    assert_equal_states({name: script.state_dict()[name] for name in weights}, dict(weights))
    wanted = json.loads(Path("configs/metadata.json").read_text())
    assert metadata["network_data_format"] == wanted["network_data_format"]
    assert json.loads(extra["inference.json"]) == json.loads(Path("configs/inference.json").read_text())


SWIN = {"_target_": "SwinUNETR", "in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("name", "network", "shape"),
    [
        ("dira_finetune_segmentation_2d", {"network_def#backbone": "resnet18"}, [1, 1, 64, 64]),
        ("dira_finetune_segmentation_3d", {"network_def": SWIN}, [1, 1, 64, 32, 32]),
    ],
)
def test_networks_that_cannot_be_scripted_are_traced(name, network, shape, tmp_path, monkeypatch):
    monkeypatch.chdir(copy_of(name, tmp_path))
    plain = network_of(Path(), **network).eval()
    torch.save(plain.state_dict(), "models/model.pt")
    with pytest.raises((RuntimeError, NotSupportedError), match=r"downsample|Compiled functions"):
        call(documented("ckpt_export"), **network)
    (options,) = re.findall(r"`(--use_trace True --input_shape) ", PAGE)
    call([*documented("ckpt_export"), *options.split(), str(shape)], **network)
    image, script = torch.rand(shape), torch.jit.load("models/model.ts")
    with torch.no_grad():
        torch.testing.assert_close(script(image), plain(image), rtol=1e-3, atol=1e-3)
        if "network_def" not in network:
            with pytest.raises(RuntimeError):  # and gives no other numbers
                script(torch.rand(*shape[:-1], 2 * shape[-1]))


REQUIRED_KEYS = {
    "inference": "bundle_root device network_def inferer output_dir",
    "train": """bundle_root device dataset_dir output_dir train#trainer train#trainer#max_epochs train#dataset
        train#dataset#data train#handlers train#preprocessing train#inferer validate#evaluator validate#handlers
        validate#dataset validate#dataset#data validate#preprocessing validate#inferer validate#key_metric
        val_interval""",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", REQUIRED_KEYS)
def test_config_has_the_keys_that_the_zoo_names(name, kind):
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / name / f"configs/{kind}.json")
    assert [key for key in REQUIRED_KEYS[kind].split() if key not in parser] == []


@pytest.mark.parametrize("name", NAMES)
def test_metadata_name_every_package_and_no_file_a_private_path(name):
    configs = ROOT / "bundles" / name / "configs"
    text = "".join(path.read_text() for path in configs.glob("*.json") if path.name != "metadata.json")
    found = re.findall(r'"\$import (\w+)', text) + re.findall(r'"_target_": "(\w+)\.', text)
    packages = {{"ignite": "pytorch-ignite", "dira_monai": "dira-monai"}.get(module, module) for module in found}
    metadata = json.loads((configs / "metadata.json").read_text())
    required = metadata["required_packages_version"]
    assert packages - sys.stdlib_module_names - {"torch", "monai", "numpy"} <= required.keys()
    assert required["dira-monai"] == dira_monai.__version__
    assert re.findall(r'"/\w|/home/|/Users/|[A-Z]:\\', text) == []


@pytest.fixture
def unit(contributed, monkeypatch):
    """The unit test as the zoo runs it: under the name that a bundle has there, beside the folder ``models``."""
    zoo = contributed.parents[1]
    monkeypatch.chdir(zoo)
    copied = zoo / "ci/unit_tests/test_another_name.py"
    if not copied.exists():
        copied.parent.mkdir(parents=True)
        (zoo / "models/another_name").symlink_to(contributed)
    shutil.copy(ROOT / "tests/helpers/zoo_unit.py", copied)
    return load_script(copied)


def test_unit_test_of_the_zoo_passes_and_leaves_the_bundle_as_it_was(contributed, unit):
    def files():
        return {path: path.stat().st_mtime_ns for path in contributed.rglob("*") if path.is_file()}

    before, outcome = files(), unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(unit).run(outcome)
    assert outcome.testsRun == 1
    assert not outcome.errors + outcome.failures, "\n".join(text for _, text in outcome.errors + outcome.failures)
    assert files() == before


def test_onnx_export_computes_the_same(unit, inside, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="onnx, of the extra onnx, is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, of the extra onnx, is not installed")
    from onnx.reference import ReferenceEvaluator

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where MONAI leaves a copy of the weights
    network = unit.small_network()
    plain = network_of(inside, **network).eval()
    torch.save(plain.state_dict(), tmp_path / "model.pt")
    image = torch.rand(1, 1, *next(iter(unit.small_images().values())))
    paths = {"ckpt_file": tmp_path / "model.pt", "filepath": tmp_path / "model.onnx"}
    traced = {"use_trace": True} if torch.__version__ < "2.9" else {}  # 2.8 exports no scripted FlexibleUNet
    call(documented("onnx_export"), **paths, input_shape=list(image.shape), **network, **traced)
    model = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    (given,) = model.proto_.graph.input
    assert [axis.dim_value for axis in given.type.tensor_type.shape.dim] == list(image.shape)  # all are fixed
    (computed,) = model.run(None, {model.input_names[0]: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(computed, plain(image).numpy(), rtol=1e-3, atol=1e-4)


def test_weights_come_back_from_where_large_files_name_them(tmp_path, monkeypatch):
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    folder, kept = copy_of(NAMES[0], tmp_path), tmp_path / "kept.pt"
    torch.save({"weight": torch.rand(5)}, kept)
    block = block.replace("https://HOST/model.pt", kept.as_uri())
    monkeypatch.chdir(folder)
    Path("large_files.json").write_text(block.replace("SHA256", "0" * 64))
    refused = (RuntimeError, "sha256 check") if monai.__version__ == "1.6.0" else (ValueError, "sha256 hash check")
    with pytest.raises(refused[0], match=refused[1]):
        call(documented("download_large_files"))
    Path("models/model.pt").unlink(missing_ok=True)
    Path("large_files.json").write_text(block.replace("SHA256", hashlib.sha256(kept.read_bytes()).hexdigest()))
    call(documented("download_large_files"))
    assert Path("models/model.pt").read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("kind", ["train", "inference"])
@pytest.mark.parametrize("name", ["dira_pretrain_3d", "dira_finetune_segmentation_3d"])
def test_archive_is_received_and_loaded(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"features": [4, 4, 8, 8, 8, 4]}
    kept = network_of(copy_of(name, tmp_path), **{f"network_def#{key}": value for key, value in small.items()})
    torch.save(kept.state_dict(), tmp_path / name / "models/model.pt")
    (line,) = re.findall(r"^python -m zipfile (.*)$", PAGE, re.MULTILINE)
    zipfile.main(shlex.split(line.replace("NAME", name)))
    words = documented("download --name NAME --url")
    call([word.replace("NAME", name).replace("file://DIR", tmp_path.as_uri()) for word in words])
    network = monai.bundle.load(name, bundle_dir="received", workflow_type=kind, device="cpu", net_override=small)
    assert_equal_states(dict(network.state_dict()), dict(kept.state_dict()))


SECTIONS = """
    Authors, Tags, Model Description, Data, Preprocessing, Training configuration, Input and output, Performance,
    MONAI Bundle Commands, System Configuration, Limitations, Citation Info, References, License
"""


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_the_sections_of_the_zoos_template(name):
    text = (ROOT / "bundles" / name / "docs/README.md").read_text()
    assert text.startswith("# DiRA ")
    wanted = [section.strip() for section in SECTIONS.split(",")]
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in wanted] == wanted
    assert not re.search(r"^##.*\n+##? ", text, re.MULTILINE)  # no empty section


@pytest.mark.parametrize("name", NAMES)
def test_readme_names_configs_and_options_that_exist(name):
    folder = ROOT / "bundles" / name
    text = (folder / "docs/README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"-m monai\.bundle run (.*)$", text, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line.rstrip("`"))
        given = words[words.index("--config_file") + 1]
        parser = ConfigParser()
        parser.read_config([str(folder / file) for file in (ast.literal_eval(given) if given[0] == "[" else [given])])
        options = [word[2:] for word in words if word.startswith("--") and word != "--config_file"]
        assert [option for option in options if option not in parser] == []
