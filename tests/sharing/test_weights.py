"""Files of weights are read without torch: tensors and numbers pass, all else is refused by one sentence."""

import copy
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from zip_files import Touch, write_zip

from dira_monai.sharing.archive import MAX_PART
from dira_monai.sharing.audit import check_files
from dira_monai.sharing.weights import check_weight_file
from dira_monai.utils.errors import InputError

ROOT = Path(__file__).parents[2]
LINEAR = torch.nn.Linear(3, 2)
QUANTIZED = torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)


class Copies:
    """A dictionary made of another."""

    def __reduce__(self):
        return OrderedDict, ([("a", 1)],)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        LINEAR.state_dict(),
        {"weight": LINEAR.weight, "view": torch.ones(4, 4)[1:3, ::2].T, "empty": torch.ones(0, 3)},
        {"kinds": [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.int8, torch.bool, torch.complex64)]},
        {"optimizer": torch.optim.Adam(LINEAR.parameters()).state_dict(), "random": torch.get_rng_state()},
        {"best": np.float64(0.5), "step": np.int64(3), "shape": torch.Size([1, 2]), "device": torch.device("cpu")},
    ],
)
def test_tensors_and_numbers_pass(tmp_path, content, zipped):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    check_weight_file(tmp_path / "a.pt", "a.pt")


def test_checkpoint_of_a_training_passes():
    check_weight_file(ROOT / "tests/contract/checkpoint_0.1.0.pt", "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": Touch()}, r"a.pt holds a Python object \(posix.mkdir\) besides tensors"),
        (LINEAR, r"a.pt holds a Python object \(torch.nn.modules.linear.Linear\)"),
        ({"a": Copies()}, "a.pt cannot be read as a checkpoint"),
        ({"a": torch.ones(1).expand(10**9)}, "a.pt holds a view, a tensor of 1000000000 numbers in a storage of 1"),
        ({"a": torch.ones(4).as_strided((3, 2), (1, 1))}, "a.pt holds a view, a tensor of 6 numbers in a storage of 4"),
        ({"a": torch.ones(2).to_sparse()}, r"a.pt holds a Python object \(torch._utils._rebuild_sparse_tensor\)"),
        ({"a": QUANTIZED}, r"a.pt holds a Python object \(torch._utils._rebuild_qtensor\)"),
        ({"a": 2 ** (8 * 300)}, "it holds a number of more than 255 bytes"),
        ({(1, 2): 3}, "a dictionary has other keys than texts and whole numbers"),
        ({2**61 - 1: 3}, "a dictionary has other keys than texts and whole numbers"),
        ({"a": torch.ones(10**9, device="meta")}, "a.pt holds a tensor on the meta device, which has no numbers"),
    ],
)
def test_what_is_no_weight_is_refused(tmp_path, monkeypatch, content, reason, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=reason):
        check_weight_file(Path("a.pt"), "a.pt")
    assert not Path("was_run").exists()


def test_damaged_or_compressed_weights_are_refused(tmp_path):
    plain, other = tmp_path / "plain.pt", tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source:
        entries = [(entry.filename, source.read(entry)) for entry in source.infolist()]
    write_zip(other, *entries)
    torch.load(other, weights_only=True)  # torch takes it
    with pytest.raises(InputError, match=r"other.pt is compressed to fill the memory"):
        check_weight_file(other, "other.pt")
    content = plain.read_bytes()
    for damaged in (b"", b"no weights", content[:-30], pickle.dumps([1]), content.replace(b"PK\1\2", b"PK\1\3")):
        other.write_bytes(damaged)
        with pytest.raises(InputError, match=r"other.pt cannot be read as a checkpoint"):
            check_weight_file(other, "other.pt")
    with pytest.raises(InputError, match=r"docs/a.md is a pickle or may hold one"):
        check_files("a", {"docs/a.md": other.rename(tmp_path / "a.md")})


def test_storage_shorter_than_it_says_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source:
        entries = [(entry.filename, source.read(entry)) for entry in source.infolist()]
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        for name, content in entries:
            target.writestr(name, content[:999] if name.endswith("/data/0") else content)
    with pytest.raises(InputError, match="storage 0 is shorter than it says"):
        check_weight_file(tmp_path / "b.pt", "b.pt")


def test_a_legacy_storage_that_the_file_does_not_hold_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pt").read_bytes()
    assert b"M\xe8\x03" in content  # 1000 as a pickle has it
    (tmp_path / "b.pt").write_bytes(content.replace(b"M\xe8\x03", b"J\x00\x00\x00\x7f"))
    with pytest.raises(InputError, match=r"storage .* is shorter than it says"):
        check_weight_file(tmp_path / "b.pt", "b.pt")


def test_entries_upon_each_other_and_giant_pickles_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as target:
        target.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        target.writestr("a/data/0", bytes(100_000))
        for number in range(1, 5):
            entry = copy.copy(target.getinfo("a/data/0"))
            entry.filename = f"a/data/{number}"
            target.filelist.append(entry)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        target.writestr("b/data.pkl", bytes(MAX_PART + 1))
    for name, reason in (("a.pt", "its entries lie upon each other"), ("b.pt", "its data.pkl has 16777217 bytes")):
        with pytest.raises(InputError, match=reason):
            check_weight_file(tmp_path / name, name)


def test_pickles_of_later_protocols_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt", pickle_protocol=4)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(bytearray(b"ab"), protocol=5))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match=f"{name} cannot be read as a checkpoint .pickled with a protocol above 2"):
            check_weight_file(tmp_path / name, name)


@pytest.mark.parametrize(("name", "reason"), [(".pt", "cannot be read as a checkpoint"), (".pkl", "is a pickle")])
def test_files_that_are_named_as_a_suffix_are_checked(tmp_path, name, reason):
    (tmp_path / name).write_bytes(pickle.dumps([1], protocol=0))
    with pytest.raises(InputError, match=rf"a: models/{name} {reason}"):
        check_files("a", {f"models/{name}": tmp_path / name})


@pytest.mark.parametrize("prefix", [b"", b"PK\3\4" + bytes(60)], ids=["comment", "prefix"])
def test_weights_with_content_outside_their_entries_are_refused(tmp_path, prefix):
    (tmp_path / "a.pt").write_bytes(prefix)
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as target:
        target.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        target.comment = b"" if prefix else b"further"
    with pytest.raises(InputError, match="its zip file has further content"):
        check_weight_file(tmp_path / "a.pt", "a.pt")
