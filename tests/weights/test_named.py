"""Weights that come with the package: what the files hold, by an independent reader, and which name means them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from dira_monai.networks.encoder_decoder import output_layer
from dira_monai.utils.errors import InputError
from dira_monai.weights import named
from dira_monai.weights.files import read_weights
from dira_monai.weights.named import FOLDER, find_named, networks_of
from dira_monai.weights.pretrained import load_pretrained

FILES = sorted(FOLDER.glob("*.safetensors"))
OWN = FOLDER / "primitives_2d.safetensors"


def read_by_hand(path):
    """Tensors of a file of safetensors: 8 bytes of length, a header in JSON, numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    numbers = content[8 + length :]
    assert {entry["dtype"] for entry in header.values()} == {"F16"}
    return {
        name: np.frombuffer(numbers[slice(*entry["data_offsets"])], np.float16).reshape(entry["shape"])
        for name, entry in header.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_weights_are_small_half_precise_and_have_a_card(path):
    assert path.stat().st_size < 12e6
    assert all(np.isfinite(tensor).all() for tensor in read_by_hand(path).values())
    card = path.with_suffix(".md").read_text()
    assert all(word in card for word in ("Trained on", "License", "Results", path.stem))


def build(dims, values):
    """The U-Net of a segmentation with three classes and some values of its configuration, as the bundle builds it."""
    bundle = Path(__file__).parents[2] / f"bundles/dira_finetune_segmentation_{dims}d/configs/train.json"
    parser = ConfigParser(ConfigParser.load_config_file(bundle) | {"class_names": ["background", "one", "two"]})
    for name, value in values.items():
        parser[name] = value
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_name_fills_its_network_wholly_but_for_the_output(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dims = int(path.stem[-2])
    network = build(dims, networks_of(path)[f"dira_finetune_segmentation_{dims}d"])
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_pretrained(network, path.stem, minimum_coverage=1)
    assert "coverage: 100.0% of the encoder" in capsys.readouterr().out
    expected = read_by_hand(path)
    output = output_layer(network).state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            assert (name.rpartition("head.")[2] in output) == (name not in expected)
            assert torch.equal(tensor, torch.tensor(expected[name]).float() if name in expected else fresh[name])


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_named("primitives_2d") == OWN
    (tmp_path / "primitives_2d/models").mkdir(parents=True)
    torch.save({"x": torch.ones(1)}, tmp_path / "primitives_2d/models/model.pt")
    assert find_named("primitives_2d") is None
    assert read_weights("primitives_2d").keys() == {"x"}


def test_a_folder_without_weights_hides_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "primitives_2d/images").mkdir(parents=True)
    assert find_named("primitives_2d") == OWN


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    content = bytearray(OWN.read_bytes())
    content[-1000] ^= 1
    (tmp_path / OWN.name).write_bytes(content)
    monkeypatch.setattr(named, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"primitives_2d\.safetensors: is damaged, its checksum differs; install"):
        read_weights("primitives_2d")


def test_names_and_values_are_told_where_they_are_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="primitives_3d: no such checkpoint; the package has weights of the names p"):
        read_weights("primitives_3d")
    with pytest.raises(InputError, match=r'give the values of their network: .+"network_def#backbone": "resnet10"'):
        load_pretrained(build(2, {"network_def#backbone": "resnet18"}), "primitives_2d")


@pytest.mark.parametrize("name", [None, "primitives_4d", "../stored/primitives_2d", "sub/primitives_2d", ""])
def test_other_names_are_none_of_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_named(name) is None


def test_safetensors_of_others_are_read_in_float32_and_damaged_ones_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    numbers = np.float16([[1.5, -2]])
    header = json.dumps({"x": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + numbers.tobytes()
    path.write_bytes(content)
    assert torch.equal(read_weights(path)["x"], torch.tensor([[1.5, -2]]))
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"other\.safetensors: cannot be read as a checkpoint \(.+\)"):
        read_weights(path)
