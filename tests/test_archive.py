"""Archives of bundles: what goes in, what is refused, what is told of their code, and that they run alone."""

import hashlib
import json
import logging.config
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from running import ENVIRONMENT, load
from scan_files import noise, write_nifti

from dira_monai.archive import PACKAGE, _problem
from dira_monai.archive_command import pack
from dira_monai.config_code import suspects
from dira_monai.expression_code import judge_expression

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "bundles").iterdir())
TINY = {  # networks in which a test takes no time
    "dira_pretrain_3d": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "dira_finetune_segmentation_3d": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "dira_finetune_classification_3d": {"features": [4, 4, 8, 8, 8, 4]},
    "dira_pretrain_2d": {"network_def#backbone": "resnet10"},
    "dira_finetune_segmentation_2d": {"network_def#backbone": "resnet10"},
    "dira_finetune_classification_2d": {"network_def#_target_": "resnet10"},
}


@pytest.fixture
def bundle(tmp_path):
    """A bundle of stock MONAI that was used, with what runs leave behind."""
    folder = tmp_path / "tiny"
    texts = {
        "LICENSE": "Apache License, Version 2.0",
        "configs/metadata.json": json.dumps({"version": "0.1.0", "monai_version": "1.6.1"}),
        "configs/inference.json": json.dumps(
            {"network_def": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1, "bias": False}}
        ),
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


def names_in(archive):
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


def write_zip(path, *entries):
    """A zip file that its author wrote by hand: names or ZipInfo, with contents."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refusal(command, *words):
    """The sentence that a command ends with; it prints nothing else."""
    status, output, _ = command(*words)
    assert output == ""
    assert status.startswith("error: ")
    return status


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
    monkeypatch.setattr("dira_monai.archive.LARGE", 1000)
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
    shutil.copyfile(bundle / "configs/inference.json", bundle / "configs/train.json")
    torch.save({"weight": torch.ones(1, 3)}, bundle / "models/model.pt")
    reason = "train.json: 1 of 1 tensors do not fit, first weight; write the values of the training into that file"
    assert reason in refusal(command, "pack", "tiny", "tiny.zip")
    assert os.listdir() == ["tiny"]


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: (b / "configs/metadata.json").unlink(), "is no bundle"),
        (lambda b: (b / "docs/more.md").symlink_to(b / "events.log"), "docs/more.md is a link"),
        (lambda b: torch.save(torch.nn.Linear(1, 1), b / "models/model.pt"), "models/model.pt: holds a Python object"),
        (lambda b: (b / "models/model.pt").write_bytes(b"no weights"), "models/model.pt: cannot be read"),
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
        ([(link("a/models"), "/etc")], "is a link or device"),
        ([("a/x", "1"), ("a/X", "2")], "is there twice"),
        ([("a/x", "1"), ("a/x", "2")], "is there twice"),
        ([("a/\u00e9", "1"), ("a/e\u0301", "2")], "is there twice"),
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
    assert os.listdir("out") == []
    assert sorted(os.listdir()) == ["a.zip", "out"]


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


def test_entry_with_two_names_is_refused(command, tmp_path):
    content = write_zip(tmp_path / "a.zip", METADATA, ("a/docs/read.md", "1")).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"read.md", b"rea\0.md"))  # zipfile reads the name up to there
    assert "a path that may leave its folder" in refusal(command, "verify", "a.zip")
    entry = zipfile.ZipInfo("a/x")
    entry.orig_filename = "a/y"  # as Python 3.13 has it where an entry brings a second name in Unicode
    assert _problem(entry) == "is a name that not every system reads alike"


class Touch:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


def test_nothing_is_run_by_looking(command, tmp_path):
    torch.save({"state": Touch()}, tmp_path / "model.pt")
    config = {"imports": ["$import os", "$os.mkdir('was_run')"], "initialize": ["$os.mkdir('was_run')"]}
    entries = [METADATA, ("a/configs/train.json", json.dumps(config)), ("a/torch.py", "import os; os.mkdir('was_run')")]
    write_zip(tmp_path / "a.zip", *entries)
    status, output, _ = command("verify", "a.zip")
    assert status == 0
    assert [line for line in output.splitlines() if line.startswith("look at")] == [
        "look at configs/train.json: imports#1: uses os.mkdir: $os.mkdir('was_run')",
        "look at configs/train.json: initialize#0: uses os.mkdir: $os.mkdir('was_run')",
        "look at torch.py: code of its own",
    ]
    write_zip(tmp_path / "b.zip", *entries, ("a/models/model.pt", (tmp_path / "model.pt").read_bytes()))
    assert "a: models/model.pt: holds a Python object (posix.mkdir)" in refusal(command, "verify", "b.zip")
    assert not Path("was_run").exists()


def test_code_is_unpacked_only_where_it_is_trusted(command, bundle):
    (bundle / "scripts").mkdir()
    (bundle / "scripts/own.py").write_text("print('hello')\n")
    command("pack", "tiny", "tiny.zip")
    status, output, _ = command("unpack", "tiny.zip", "out")
    assert "look at scripts/own.py: code of its own" in output
    assert status == "error: tiny.zip: 1 thing above may run code; if you trust it, say --trust True"
    assert os.listdir("out") == []
    assert command("unpack", "tiny.zip", "out", "--trust", "True")[0] == 0
    assert Path("out/tiny/scripts/own.py").is_file()


@pytest.mark.parametrize(
    "text",
    """
    __import__('os')|eval('1')|exec('1')
    open(@file, 'w')|open(*@words)|os.system('ls')|os.remove(@file)|[os][0].system|sys.modules|subprocess.run('ls')
    torch.load(@file, weights_only=False)|torch.hub.load('a')|torch.os.system('ls')|np.load(@file, allow_pickle=True)
    monai.bundle.run()|monai.utils.run_cmd(['ls'])|monai.apps.download_url(@url)|@network.__class__|().__class__
    getattr(os, 'sys' + 'tem')|getattr(@a, @b)|(lambda o=os: o)().system|[open('f', 'w') for _ in [lambda open: 0]]
    np.testing|torch.utils|dira_monai.files|np.test(extra_argv=@words)|monai.data.dataset.shutil|__local_refs['a']
    monai.networks.nets.resnet.hf_hub_download|monai.data.utils.optional_import('os')|dira_monai.archive.zipfile.ZipFile
    monai.transforms.LoadImage('a.Reader')|monai.handlers.LogfileHandler('.', 'a.py')|getattr(torch.optim, @name)
    '@a'.system|datetime.sys|@a.copy(@b)|map(@a.replace, @b)|@a.replace(*@words, 'b')|@a.replace('b')|print('a')
    (@folder / 'f.csv').write_text|(@folder / @name).write_text('a')|(@folder / 'a.py').write_text('a')
    pathlib.Path.replace('a', 'b')|map(pathlib.Path, @a)|getattr(torch.optim, 'a', **open('a', 'w'))(1)
    getattr(torch.optim, a=open(1, 'w'))(1)|getattr(torch.optim, **@b)(1)|getattr(torch.optim, '__doc__')(1)|pathlib.os
    torch.PyTorchFileWriter('a.py')|monai.data.utils.optional_import|monai.transforms.utils.optional_import
    (@folder / '../a.csv').write_text('a')|[0][0#::]
    pathlib.Path('f').write_text('a')|pathlib.Path('f').unlink()|torch.distributed.run.main()|globals()|a b
    """.replace("\n", "|").split("|"),
)
def test_expressions_that_reach_out_are_told(text):
    assert not text.strip() or judge_expression(text.strip())


@pytest.mark.parametrize(
    "text",
    """
    @a + '/models'|@train#dataset.classes|[3 * n // 2 for n in @patch_size]|len(@a::b)
    pathlib.Path(@a, 'b') / 'c'
    lambda o: (o['pred'].flatten(), o['label'].flatten())|getattr(torch.optim, @name)(@parameters, lr=@rate)
    torch.device('cuda' if torch.cuda.is_available() else 'cpu')|@network.eval()|json.load(open(@file))
    (@folder / 'table.csv').write_text('a')|@a.replace('a', 'b')|@a.copy()|datetime.timedelta(hours=1)|@a#b[0]
    int(os.environ['LOCAL_RANK'])|os.path.join(@a, 'b')|{f'val_{k}': v for k, v in @figures.items()}
    monai.handlers.from_engine(['pred'])|torch.distributed.is_initialized() or 1|dira_monai.bundle_root()
    """.replace("\n", "|").split("|"),
)
def test_expressions_that_compute_are_plain(text):
    assert not text.strip() or judge_expression(text.strip()) is None


@pytest.mark.parametrize(
    ("config", "places"),
    [
        ({"a": {"_target_": "os.system", "command": "ls"}}, ["a#_target_"]),
        ({"a": [{"_target_": "torch.os.system"}]}, ["a#0#_target_"]),
        ({"a#_target_": "subprocess.run", "b::_target_": "scripts.Own"}, ["a#_target_", "b::_target_"]),
        ({"a": {"_target_": "@b"}, "b": "os.system"}, ["a#_target_"]),
        ({"a": {"_target_": "run_cmd"}}, ["a#_target_"]),  # short names are any of MONAI's
        ({"a": {"_target_": "no_such_name"}}, ["a#_target_"]),
        ({"a": {"_target_": "LoadImaged", "reader": "other.Reader"}}, ["a#reader"]),
        ({"a_reader": "ITKReader", "b": {"reader": "@a_reader"}, "writer": ["nibabelwriter", "print"]}, ["writer#1"]),
        (
            {"a": {"_target_": "dira_monai.archive_command.unpack"}, "b": {"_target_": "monai.data.utils"}},
            ["a#_target_", "b#_target_"],
        ),
        ({"a": {"_target_": ["Compose"]}, "b": {"_target_": None}}, ["a#_target_", "b#_target_"]),
        ({"a": {"_mode_": "debug"}, "b": {"_mode_": "callable"}}, ["a#_mode_"]),  # pdb runs what .pdbrc says
        ({"a": {"weights_only": "$0"}, "b": {"weights_only": True, "allow_pickle": False}}, ["a#weights_only"]),
        (
            {"a": {"filename": "torch.py"}, "b": {"filename": "@a"}, "c": {"filename": "t.csv"}},
            ["a#filename", "b#filename"],
        ),
        ({"tracking_uri": "https://host", "_desc_": "as in https://arxiv.org"}, ["tracking_uri"]),
        ({"a": "%", "b": {"imports": ["$import os"]}, "c": "@#####a"}, ["a", "b#imports#0", "c"]),
        ({"+imports": ["$import os"], "imports": ["$@#0.abort()"]}, ["imports#0"]),
        ({"a": "%/elsewhere/b.json::c"}, ["a"]),
        ({"imports": ["$import os", "$import numpy as np", "$import torch.distributed"]}, []),
        (
            {"imports": ["$import scripts", "$from os import system", "$ import os as np"]},
            [f"imports#{n}" for n in (0, 1, 2)],
        ),
        (
            {"imports": ["$import numpy as n", "$import os, shutil", "$import", "$import os.__main__"]},
            [f"imports#{n}" for n in range(4)],
        ),
        (
            {"a": "$import os", "b": "$@imports#0.replace('a', 'b')", "c": "%imports::0", "d": ["@imports#0"]},
            [*"abc", "d#0"],
        ),
        ({"a": {"_target_": "torch.nn.Linear"}, "b": {"_target_": "Compose"}, "c": "%a", "d": "os.system"}, []),
    ],
)
def test_what_a_config_calls_is_told_with_its_place(config, places):
    assert [line.split(": ")[1] for line in suspects("train.json", json.dumps(config).encode())] == places


CALL = "open('was_run', 'w')"
HIDDEN_CODE = {  # configs that make a file was_run when MONAI evaluates them
    "after what is no comment": {"a": f"$[1, 2][0#{CALL}\n]"},
    "in a key": {"k": {"b": 0}, f"k::b or {CALL} or @k": {"c": "$@#b"}},
    "in a frame": {"a": f"$(x for x in [1]).gi_frame.f_builtins['eval'](\"{CALL}\")"},
    "in a module's inside": {"a": f"$getattr(torch.optim, '__builtins__')['eval'](\"{CALL}\")"},
    "in a module": {"a": f'$(lambda m: m.runstring("{CALL}", {{}}))(np.testing)'},
    "of imports elsewhere": {
        "b": {"imports": ["$import os"]},
        "a": "$@b['imp' + 'orts'][0].mkfifo('was_run')",
    },
    "as a reader": {"a": {"_target_": "LoadImage", "reader": "open", "file": "was_run", "mode": "w"}},
    "as a reader by reference": {
        "b": "os.mkdir",
        "a": {"_target_": "LoadImage", "reader": "@b", "path": "was_run"},
    },
    "as a reader of an expression": {"a": "$monai.transforms.LoadImage('os.mkdir', path='was_run')"},
    "by moving": {"imports": ["$import pathlib"], "a": "$pathlib.Path('plain.md').replace('was_run')"},
    "by moving without a path": {"imports": ["$import pathlib"], "a": "$pathlib.Path.replace('plain.md', 'was_run')"},
    "by linking": {"imports": ["$import pathlib"], "a": "$pathlib.Path('plain.md').link_to('was_run')"},
    "by unpacking": {
        "b": {"_target_": "dira_monai.archive.zipfile.ZipFile", "file": "plain.zip"},
        "a": "$@b.extractall()",
    },
    "in an array": {
        "b": {"_target_": "LoadImage", "reader": "NumpyReader", "allow_pickle": True},
        "a": "$@b('plain.md')",
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", HIDDEN_CODE)
def test_code_that_a_config_hides_is_told(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain.md").write_bytes(pickle.dumps(Touch(), 0))
    write_zip(tmp_path / "plain.zip", ("was_run", ""))
    config = HIDDEN_CODE[way]
    assert list(suspects("train.json", json.dumps(config).encode()))
    assert not Path("was_run").exists()
    parser = ConfigParser(json.loads(json.dumps(config)))
    for key in config:
        with suppress(Exception):
            parser.get_parsed_content(key)
    assert Path("was_run").exists()  # else it is no attack


@pytest.mark.parametrize(("words", "plain"), [("weights_only=True", True), ("weights_only=False", False), ("", False)])
def test_weights_that_are_read_as_tensors_alone_are_plain(words, plain):
    assert (judge_expression(f"torch.load('model.pt', {words})") is None) == plain


def test_configs_of_this_package_are_plain():
    files = sorted((ROOT / "bundles").glob("*/configs/*.json"))
    assert len(files) > 50
    assert [line for file in files for line in suspects(file.name, file.read_bytes())] == []


LOGGING = """[loggers]
keys=root
[logger_root]
handlers=console
[handlers]
keys=console
[formatters]
keys=
[handler_console]
"""
CALLS = {  # what makes a file was_run when Python reads it as a logging configuration
    "class=eval\nargs=(\"open('was_run', 'w')\",)": ["class", "args"],
    "class=StreamHandler\nargs=(open('was_run', 'w'),)": ["args"],
    "class=StreamHandler\nargs=()\nkwargs={'stream': open('was_run', 'w')}": ["kwargs"],
    "class=StreamHandler\nx=', open('was_run', 'w'))[1:] + ('\nargs=('%(x)s',)": ["args"],
    "class=FileHandler\nargs=('was_run',)": ["class", "args"],  # whose lines may be a program
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("text", CALLS)
def test_code_in_a_logging_configuration_is_told(command, bundle, tmp_path, text):
    (bundle / "configs/logging.conf").write_text(LOGGING + text)
    values = [line.partition("=")[2] for line in text.splitlines() if line.partition("=")[0] in CALLS[text]]
    told = [line for line in command("verify", "tiny")[1].splitlines() if line.startswith("look at")]
    place = "look at configs/logging.conf: handler_console: is evaluated"
    assert told == [f"{place}: {value}" for value in values]
    assert not Path("was_run").exists()
    root = logging.getLogger()
    before = root.handlers[:]
    with suppress(AttributeError, TypeError, ValueError):
        logging.config.fileConfig(bundle / "configs/logging.conf", disable_existing_loggers=False)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.handlers[:] = before
    assert Path("was_run").exists()


def test_plain_logging_configuration_is_not_told(command, bundle):
    shutil.copyfile(ROOT / "bundles" / NAMES[0] / "configs/logging.conf", bundle / "configs/logging.conf")
    assert "look at" not in command("verify", "tiny")[1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "code of its own") for name in ("conftest.py", "scripts/a.PY", "models/model.ts", "docs/a.ipynb")),
        *(
            (name, "of a kind that is not known to be plain")
            for name in (".pdbrc", ".git/config", "Makefile", "docs/a.html", "models/model.mar", "a.txt.zip", ".md")
        ),
        ("configs/.json", "cannot be read as a config"),
        ("docs/more/b.YML", "cannot be read as a config"),
        ("configs/other.INI", "cannot be read"),
        *((name, None) for name in ("docs/a.md", "docs/a.nii.gz", "NOTICE", ".gitattributes", "models/model.onnx")),
    ],
)
def test_files_that_something_may_run_are_told(command, bundle, name, reason):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("a: b: c")
    told = [line for line in command("verify", "tiny")[1].splitlines() if line.startswith("look at")]
    assert len(told) == bool(reason)
    assert all(line.startswith(f"look at {name}: {reason}") for line in told)


def test_config_too_large_to_judge_is_told(command, bundle, monkeypatch):
    monkeypatch.setattr("dira_monai.code_check.MAX_CONFIG", 1000)
    (bundle / "configs/large.json").write_text(" " * 999 + "{}")
    assert "look at configs/large.json: too large to be read" in command("verify", "tiny")[1]


def test_weights_that_would_fill_the_memory_are_refused(command, bundle):
    plain = Path("plain.pt")
    torch.save({"weight": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source:
        write_zip(bundle / "models/model.pt", *[(entry.filename, source.read(entry)) for entry in source.infolist()])
    torch.load(bundle / "models/model.pt", weights_only=True)  # torch takes it
    assert "models/model.pt is damaged, or compressed to fill the memory" in refusal(command, "verify", "tiny")
    (bundle / "models/model.pt").unlink()
    content = plain.read_bytes()
    (bundle / "docs/a.md").write_bytes(content.replace(b"PK\1\2", b"PK\1\3"))
    assert "docs/a.md is a pickle or may hold one" in refusal(command, "verify", "tiny")


def test_what_is_told_cannot_hide_itself_on_the_screen(command, bundle):
    text = "$os.system('''ls\r\x1b[2K\u202e" + 1000 * "\n" + "''')"
    (bundle / "configs/inference.json").write_text(json.dumps({"a": text}))
    (told,) = [line for line in command("verify", "tiny")[1].split("\n") if "os.system" in line]
    assert told.startswith(r"look at configs/inference.json: a: uses os.system: $os.system('''ls\r\x1b[2K\u202e\n\n")
    assert re.fullmatch(r".{500} \.\.\. \(2\d\d\d characters\)", told.removeprefix("look at "))


def test_yaml_is_judged_or_said_to_be_unread(monkeypatch):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = yaml.safe_dump({"a": {"_target_": "os.system"}, "b": "$os.remove('a')"}).encode()
    assert [line.split(": ")[1] for line in suspects("a.yaml", text)] == ["a#_target_", "b"]
    bomb = ["a0: &a0 [[], []]", *(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9))]
    assert "more than 1000000 values" in "".join(suspects("a.yml", "\n".join(bomb).encode()))
    monkeypatch.setitem(sys.modules, "yaml", None)
    unread = ["a.yaml: : cannot be read as a config (reading YAML needs the package PyYAML)"]
    assert [line.replace("yaml: cannot", "yaml: : cannot") for line in suspects("a.yaml", text)] == unread


@pytest.mark.parametrize(
    "text", ["\ufeff{}", "{", "[" * 100_000, '{"a": "$' + "-" * 50_000 + '1"}', "1" * 5000, "\xff"]
)
def test_config_that_cannot_be_read_is_told(text):
    told = list(suspects("a.json", text.encode("latin-1") if text == "\xff" else text.encode()))
    assert len(told) == 1
    assert "cannot be" in told[0]


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


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Runs Python as someone who has all packages but this one; the folder to begin in is empty."""
    links = tmp_path_factory.mktemp("packages")
    for place in (Path(p) for p in reversed(sys.path) if p.endswith("site-packages")):
        for path in place.iterdir():
            if "dira_monai" not in path.name and not path.name.endswith(".pth"):
                (links / path.name).unlink(missing_ok=True)
                (links / path.name).symlink_to(path)
    home = tmp_path_factory.mktemp("home")
    environment = ENVIRONMENT | {"PYTHONPATH": str(links), "HOME": str(home)}

    def run(*words, cwd=home):
        words = [sys.executable, "-S", *map(str, words)]  # -S: no .pth file brings an editable install along
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)

    assert "No module named 'dira_monai'" in run("-c", "import dira_monai").stderr
    return run


def download(stranger, archives, name, folder):
    url = (archives / f"{name}.zip").as_uri()
    done = stranger("-m", "monai.bundle", "download", "--name", name, "--url", url, "--bundle_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder / name


def test_package_comes_along_where_a_config_names_it(archives):
    for name in NAMES:
        inside = {entry.removeprefix(f"{name}/") for entry in names_in(archives / f"{name}.zip")}
        own = {f"dira_monai/{p.relative_to(PACKAGE).as_posix()}" for p in PACKAGE.rglob("*.py")} | {
            "dira_monai/py.typed"
        }
        assert {entry for entry in inside if entry.startswith("dira_monai/")} == own


@pytest.mark.parametrize("name", NAMES)
def test_own_archives_are_plain(command, archives, name):
    status, output, errors = command("verify", str(archives / f"{name}.zip"))
    assert (status, errors) == (0, "")
    assert "look at" not in output
    assert output.splitlines()[-1].endswith(f"{name}.zip: the configs are plain")
    assert command("unpack", str(archives / f"{name}.zip"), "out")[0] == 0


def test_other_code_under_the_name_of_this_package_is_told(command, archives, tmp_path):
    name = "dira_pretrain_3d"
    assert "dira_monai: the same code as the" in command("verify", str(archives / f"{name}.zip"))[1]
    assert command("unpack", str(archives / f"{name}.zip"), "out")[0] == 0
    (tmp_path / "out" / name / "dira_monai/losses.py").write_text("import os\n")
    (tmp_path / "out" / name / "dira_monai/more.py").write_text("import os\n")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    write_zip(
        tmp_path / "bad.zip", *[(path.relative_to(tmp_path / "out").as_posix(), path.read_bytes()) for path in files]
    )
    _, output, _ = command("verify", "bad.zip")
    told = [line.split(":")[0] for line in output.splitlines() if "differs from the dira_monai" in line]
    assert told == ["look at dira_monai/losses.py", "look at dira_monai/more.py"]
    assert "no SHA256SUMS" in output
    assert "is other code than the one that packs" in refusal(command, "pack", f"out/{name}", "again.zip")


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
