"""Archives of bundles: what goes in, what is refused, and what is told of their files."""

import hashlib
import json
import os
import pickle
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from zip_files import Touch, names_in, refusal, write_zip

from dira_monai.sharing import archive


@pytest.fixture
def bundle(tmp_path):
    """A bundle of stock MONAI that was used, with what runs leave behind."""
    folder = tmp_path / "tiny"
    texts = {
        "LICENSE": "Apache License, Version 2.0",
        "configs/metadata.json": json.dumps({"version": "0.1.0", "monai_version": "1.6.1"}),
        "configs/inference.json": json.dumps({"in_channels": 1}),
        "docs/README.md": "# Tiny\n",
        "output/datalist.json": "[]",
        "events.log": "a patient's name",
        ".secret": "",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "models").mkdir()
    torch.save({"weight": torch.ones(1, 2)}, folder / "models/model.pt")
    torch.save({"optimizer": {}}, folder / "models/checkpoint.pt")
    return folder


PACKED = [
    "LICENSE",
    "SHA256SUMS",
    "configs/inference.json",
    "configs/metadata.json",
    "docs/README.md",
    "models/model.pt",
]
METADATA = ("a/configs/metadata.json", "{}")


def test_what_belongs_goes_in_and_the_rest_is_named(command, bundle):
    status, output, errors = command("pack", "tiny", "tiny.zip")
    assert (status, errors) == (0, "")
    assert sorted(names_in("tiny.zip")) == [f"tiny/{name}" for name in PACKED]
    lines = output.splitlines()
    left_out = [f"left out: {name}" for name in ("events.log", "models/checkpoint.pt", "output/datalist.json")]
    assert [line for line in lines if line.startswith("left out")] == left_out
    digest = hashlib.sha256(Path("tiny.zip").read_bytes()).hexdigest()
    assert lines[-1] == f"tiny.zip: 5 files, sha256 {digest}"
    status, output, _ = command("pack", "tiny", "tiny.zip", "--include", "models/checkpoint.pt")
    assert "tiny/models/checkpoint.pt" in names_in("tiny.zip")


def test_large_files_are_named_as_the_model_zoo_lists_them(command, bundle, monkeypatch):
    monkeypatch.setattr("dira_monai.cli.archives.LARGE", 1000)
    digest = hashlib.sha256((bundle / "models/model.pt").read_bytes()).hexdigest()
    large = [line for line in command("pack", "tiny", "tiny.zip")[1].splitlines() if "large_files" in line]
    wanted = f"path: models/model.pt, hash_type: sha256, hash_val: {digest}"
    assert large == [f"for large_files.yml of the Model Zoo: {wanted}"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("tiny", "tiny.tar"), "the file must end with .zip"),
        (("none", "none.zip"), "none: is no bundle"),
        (("tiny", "tiny.zip", "--include=models/none.pt"), "models/none.pt: no such file, but include names it"),
    ],
)
def test_what_cannot_be_packed(command, bundle, words, reason):
    assert reason in refusal(command, "pack", *words)
    assert os.listdir() == ["tiny"]


def test_weights_of_another_network_than_the_configs_name_are_not_packed(command, bundle):
    network = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1, "bias": False}
    (bundle / "configs/train.json").write_text(json.dumps({"network_def": network}))
    assert command("pack", "tiny", "fits.zip")[0] == 0
    torch.save({"weight": torch.ones(1, 3)}, bundle / "models/model.pt")
    reason = "train.json: 1 of 1 tensors do not fit, first weight; pack the folder of the run instead"
    assert reason in refusal(command, "pack", "tiny", "tiny.zip")
    assert not Path("tiny.zip").exists()


@pytest.mark.parametrize("name", ["train", "inference"])
def test_configs_with_other_values_than_the_training_are_not_packed(command, bundle, name):
    other = json.loads((bundle / "configs/inference.json").read_text()) | {"class_names": ["a", "b"], "spacing": None}
    for config in ("train", "inference"):
        (bundle / f"configs/{config}.json").write_text(json.dumps(other))

    def trained(**values):
        starts = [{"config": {"class_names": ["old"]}}, {"config": {"spacing": "$None"} | values}]
        (bundle / "output/run.json").write_text(json.dumps({"starts": starts}))

    trained(class_names=["a", "b"])
    assert command("pack", "tiny", "tiny.zip")[0] == 0
    (bundle / f"configs/{name}.json").write_text(json.dumps(other | {"class_names": ["b", "a"]}))
    reason = f"{name}.json: class_names is ['b', 'a'] where it was ['a', 'b'] in the training, by tiny/output/run.json"
    assert reason in refusal(command, "pack", "tiny", "other.zip")
    trained(class_names=["b", "a"], spacing=[1, 1])
    (bundle / f"configs/{name}.json").write_text(json.dumps(other))
    assert "class_names is ['a', 'b'] where it was" in refusal(command, "pack", "tiny", "other.zip")
    (bundle / "models/model.pt").unlink()
    assert command("pack", "tiny", "tiny.zip")[0] == 0


def test_same_bundle_gives_the_same_bytes(command, bundle, tmp_path):
    command("pack", "tiny", "first.zip")
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other/tiny"
    for name in reversed(PACKED):
        if name != "SHA256SUMS":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, copy / name)
            os.utime(copy / name, (1, 1))
            (copy / name).chmod(0o700)
    command("pack", "other/tiny", "second.zip")
    assert Path("first.zip").read_bytes() == Path("second.zip").read_bytes()
    (copy / "LICENSE").write_text("MIT License")
    command("pack", "other/tiny", "second.zip")
    assert Path("first.zip").read_bytes() != Path("second.zip").read_bytes()


def test_unpacked_files_are_those_that_were_packed(command, bundle):
    command("pack", "tiny", "tiny.zip")
    status, output, errors = command("unpack", "tiny.zip", "new/place")
    assert (status, errors, output.splitlines()[-1]) == (0, "", "new/place/tiny: unpacked")
    found = sorted(path.relative_to("new/place/tiny").as_posix() for path in Path("new").rglob("*") if path.is_file())
    assert found == PACKED
    rows = [line.split("  ") for line in Path("new/place/tiny/SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in rows] == [name for name in PACKED if name != "SHA256SUMS"]
    for digest, name in rows:
        content = (bundle / name).read_bytes()
        assert Path("new/place/tiny", name).read_bytes() == content
        assert hashlib.sha256(content).hexdigest() == digest
    assert "new/place/tiny: is there already" in refusal(command, "unpack", "tiny.zip", "new/place")
    assert os.listdir("new/place") == ["tiny"]


def test_a_file_that_changes_meanwhile_is_told_as_it_was_packed(command, bundle, monkeypatch):
    entry = archive._entry

    def changing(name, size):
        if name.endswith("LICENSE"):
            (bundle / "LICENSE").write_text("x" * (size + 1))
        return entry(name, size)

    monkeypatch.setattr(archive, "_entry", changing)
    command("pack", "tiny", "tiny.zip")
    assert (bundle / "LICENSE").read_text().startswith("xx")
    assert command("verify", "tiny.zip")[0] == 0


@pytest.mark.parametrize("words", [["no.zip"], ["tiny.zip", "--max_gb=abc"], ["tiny.zip", "--max_gb=0"]])
def test_a_refused_archive_leaves_no_folder(command, bundle, words):
    command("pack", "tiny", "tiny.zip")
    reason = "max_gb must be a number" if words[1:] else "no.zip: cannot be unpacked"
    assert reason in refusal(command, "unpack", words[0], "new", *words[1:])
    assert sorted(os.listdir()) == ["tiny", "tiny.zip"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: (b / "configs/metadata.json").unlink(), "is no bundle"),
        (lambda b: (b / "docs/more.md").symlink_to(b / "events.log"), "docs/more.md is a link"),
        (lambda b: torch.save(torch.nn.Linear(1, 1), b / "models/model.pt"), "models/model.pt holds a Python object"),
        (lambda b: (b / "models/model.pt").write_bytes(b"no weights"), "models/model.pt cannot be read"),
        (lambda b: (b / "docs/cases.pkl").write_bytes(b""), "docs/cases.pkl is a pickle"),
    ],
)
def test_what_nobody_should_be_sent_is_not_packed(command, bundle, change, reason):
    change(bundle)
    assert reason in refusal(command, "pack", "tiny", "tiny.zip")
    assert not Path("tiny.zip").exists()


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("/a/x", "")], "may leave its folder"),
        ([("a/../../x", "")], "may leave its folder"),
        ([("..", "")], "may leave its folder"),
        ([("a/./x", "")], "may leave its folder"),
        ([("a\\..\\..\\x", "")], "may leave its folder"),
        ([("a/C:x", "")], "may leave its folder"),
        ([("a/\u202egpj.x", "")], "may leave its folder"),
        ([("a/torch.py.", "")], "not every system reads alike"),
        ([("a/torch.py ", "")], "not every system reads alike"),
        ([("a/docs./x", "")], "not every system reads alike"),
        ([("a/docs/AUX.txt", "")], "not every system reads alike"),
        ([("a/con", "")], "not every system reads alike"),
        ([("a/Lpt1 .md/x", "")], "not every system reads alike"),
        ([(link("a/models"), "/etc")], "is a link or device"),
        ([("a/x", "1"), ("a/X", "2")], "is there twice"),
        ([("a/x", "1"), ("a/x", "2")], "is there twice"),
        ([("a/\u00e9", "1"), ("a/e\u0301", "2")], "is there twice"),
        ([("a/docs/x", "1"), ("a/Docs/y", "2")], "is there twice"),
        ([(f"a/{number}", "") for number in range(10_001)], "must hold at most 10000 files, got 10001"),
        ([("a/x", ""), ("b/x", "")], "must hold one folder, named as the bundle, got a, b"),
        ([("readme.txt", "")], "must hold one folder"),
        ([(".git/config", "")], "must hold one folder"),
        ([], "must hold one folder"),
        ([("a/x", "1"), ("a/x/y", "2")], "cannot be unpacked"),
        ([("a/zeros", bytes(3_000_000))], "must unpack to at most 0.002 GB, got 0.003"),
        ([("a/LICENSE", "")], "is no bundle"),
        ([METADATA, ("a/x.pyc", "")], "a: x.pyc is compiled code"),
        ([METADATA, ("a/x.so", "")], "a: x.so is compiled code"),
        ([METADATA, ("a/x.PKL", "")], "a: x.PKL is a pickle"),
        ([METADATA, ("a/weights.bin", pickle.dumps([1]))], "a: weights.bin is a pickle"),
        ([METADATA, ("a/SHA256SUMS", f"{'0' * 64}  LICENSE\n")], "LICENSE is missing"),
        ([METADATA, ("a/SHA256SUMS", "")], "configs/metadata.json is not listed"),
        ([METADATA, ("a/SHA256SUMS", f"{'0' * 64}  configs/metadata.json\n")], "configs/metadata.json was altered"),
    ],
)
def test_archive_is_refused(command, tmp_path, entries, reason):
    write_zip(tmp_path / "a.zip", *entries)
    assert reason in refusal(command, "verify", "a.zip", "--max_gb=0.002")
    assert reason in refusal(command, "unpack", "a.zip", "out", "--trust=True", "--max_gb=0.002")
    assert os.listdir() == ["a.zip"]


def test_damaged_archive_is_refused(command, bundle):
    command("pack", "tiny", "tiny.zip")
    content = Path("tiny.zip").read_bytes()
    for damaged in (content[:-30], content.replace(b"Apache", b"Apathy"), b"", content.replace(b"\0\0\0\0PK", b"\0\0")):
        Path("bad.zip").write_bytes(damaged)
        assert "bad.zip: cannot be unpacked" in refusal(command, "verify", "bad.zip")


def test_entries_that_zipfile_could_not_judge_are_refused(command, tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", ("a/x", "1")).read_bytes())
    content[6] |= 1  # the flag for encryption, in the entry's header and in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    assert "'a/x' is encrypted" in refusal(command, "verify", "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/x", "1")
    assert "'a/x' is compressed in a way other than deflate" in refusal(command, "verify", "b.zip")


def test_a_directory_that_tells_a_giant_size_is_not_read(command, tmp_path):
    content = write_zip(tmp_path / "a.zip", METADATA).read_bytes()
    end = content.index(b"PK\5\6")
    (tmp_path / "a.zip").write_bytes(
        content[:end] + content[end:].replace(content[end + 12 : end + 16], b"\xff\xff\xff\x7f")
    )
    assert "cannot be unpacked" in refusal(command, "verify", "a.zip")


def test_names_that_no_other_system_has_are_not_packed(command, bundle):
    (bundle / "docs/aux.md").write_text("")
    assert "docs/aux.md: is a name that not every system reads alike; name it otherwise" in refusal(
        command, "pack", "tiny", "tiny.zip"
    )


def test_entry_with_two_names_is_refused(command, tmp_path):
    content = write_zip(tmp_path / "a.zip", METADATA, ("a/docs/read.md", "1")).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"read.md", b"rea\0.md"))  # zipfile reads the name up to there
    assert "a path that may leave its folder" in refusal(command, "verify", "a.zip")
    entry = zipfile.ZipInfo("a/x")
    entry.orig_filename = "a/y"  # as Python 3.13 has it where an entry brings a second name in Unicode
    assert archive._problem(entry) == "is a name that not every system reads alike"


def test_nothing_is_run_by_looking(command, tmp_path):
    torch.save({"state": Touch()}, tmp_path / "model.pt")
    config = {"imports": ["$import os", "$os.mkdir('was_run')"], "initialize": ["$os.mkdir('was_run')"]}
    entries = [METADATA, ("a/configs/train.json", json.dumps(config)), ("a/torch.py", "import os; os.mkdir('was_run')")]
    write_zip(tmp_path / "a.zip", *entries)
    status, output, _ = command("verify", "a.zip")
    assert status == 0
    assert output.splitlines()[3:-1] == [
        "configs/train.json:",
        "    imports#1: $os.mkdir('was_run')",
        "    initialize#0: $os.mkdir('was_run')",
        "torch.py:",
        "    other file",
    ]
    assert "a.zip: 3 rows of code to read before it is run; other plain values" in output.splitlines()[-1]
    write_zip(tmp_path / "b.zip", *entries, ("a/models/model.pt", (tmp_path / "model.pt").read_bytes()))
    assert "a: models/model.pt holds a Python object (posix.mkdir)" in refusal(command, "verify", "b.zip")
    assert not Path("was_run").exists()


def test_code_is_unpacked_only_where_it_is_trusted(command, bundle):
    (bundle / "scripts").mkdir()
    (bundle / "scripts/own.py").write_text("print('hello')\n")
    command("pack", "tiny", "tiny.zip")
    status, output, _ = command("unpack", "tiny.zip", "out")
    assert "scripts/own.py:\n    other file" in output
    assert status == "error: tiny.zip: 1 row of code above; if you trust what they run, say --trust True"
    assert not Path("out").exists()
    assert command("unpack", "tiny.zip", "out", "--trust", "True")[0] == 0
    assert Path("out/tiny/scripts/own.py").is_file()


def test_what_is_shown_cannot_hide_itself_on_the_screen(command, bundle):
    text = "$os.system('''ls\r\x1b[2K\u202e" + 1000 * "\n" + "''')"
    (bundle / "configs/inference.json").write_text(json.dumps({"a": text}))
    shown = command("verify", "tiny")[1]
    assert r"    a: $os.system('''ls\r\x1b[2K\u202e" + 1000 * r"\n" + "''')" in shown.splitlines()  # in full
