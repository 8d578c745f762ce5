import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scan_files import noise, write_image, write_nifti

from dira_monai.__main__ import COMMANDS, FORMER
from dira_monai.phantoms import chest as phantom

ARCHIVE = Path(__file__).parents[1] / "contract/archive_0.1.0.zip.xz"


@pytest.fixture
def folder(tmp_path):
    for index in range(4):
        write_nifti(tmp_path / "scans" / f"{index}.nii.gz", noise(4, 5, 6, seed=index))
    write_nifti(tmp_path / "scans" / "labels.nii.gz", noise(4, 5, 6, high=2))
    write_nifti(tmp_path / "scans" / "zero.nii.gz", np.zeros((4, 5, 6)))
    for name in ("x", "y"):
        write_image(tmp_path / "scans" / f"{name}.png", noise(4, 5))
    return tmp_path


def test_datalist(command, folder):
    status, output, errors = command(
        "datalist", "scans", "--output=lists/l.json", "--validation_fraction=0.4", "--seed=2"
    )
    assert (status, errors) == (0, "")
    written = json.loads((folder / "lists" / "l.json").read_text())
    assert (len(written["training"]), len(written["validation"]), written["seed"]) == (3, 1, 2)
    lines = output.splitlines()
    assert lines[0].startswith("image ")
    assert lines[-3:] == [
        "skipped: x.png and 1 more: has 2 spatial dimensions where spatial_dims is 3",
        "skipped: zero.nii.gz: holds the value 0 everywhere",
        "lists/l.json: 3 training and 1 validation images of 4 patients (by file: 0, 1, 2, 3), 3 skipped, "
        "1 label maps left out",
    ]


def test_name_that_looks_like_a_number(command, folder):
    (folder / "scans").rename(folder / "2024_01")
    status, _, errors = command("datalist", "2024_01")
    assert (status, errors) == (0, "")
    assert (folder / "datalist.json").is_file()


def test_words_of_scores_are_taken_as_written(command, folder):
    evaluation = folder / "2024_01" / "evaluation"
    evaluation.mkdir(parents=True)
    (evaluation / "metrics.csv").write_text("val_mean_dice,0.5\n")
    assert command("scores", "2024_01")[1].split() == ["2024_01", "val_mean_dice", "0.5000"]


@pytest.mark.parametrize("name", [*COMMANDS, *FORMER])
def test_every_command_is_listed_with_what_it_does(command, name):
    listed = " ".join(command("--help")[2].split())
    status, _, text = command(name, "--help")
    assert status == 0
    assert "GROUP" not in text
    first = " ".join(text.split(f"dira_monai {name} - ")[1].split("\n\n")[0].split())
    assert f"{FORMER.get(name, name)} {first}" in listed


def test_input_error_is_one_line_and_status_1(folder):
    words = [sys.executable, "-m", "dira_monai", "datalist", "scans", "--strict"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: zero.nii.gz holds the value 0 everywhere.\n"
    assert not (folder / "datalist.json").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_command_whose_output_nobody_reads_ends_quietly(folder, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    words, environment = [sys.executable, "-m", "dira_monai", "datalist", "scans"], {"PYTHONUNBUFFERED": unbuffered}
    with open(writer, "wb") as closed:
        done = subprocess.run(words, cwd=folder, env=os.environ | environment, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(json.loads((folder / "datalist.json").read_text())["training"]) == 3


@pytest.mark.parametrize("words", [["--outptu=x.json"], ["more"], ["--output=x.json", "--strickt"]])
def test_mistyped_option_does_nothing(command, folder, words):
    status, output, errors = command("datalist", "scans", *words)
    assert (status, output) == (2, "")
    assert f"Could not consume arg: {words[-1].split('=')[0]}" in errors
    assert sorted(path.name for path in folder.iterdir()) == ["scans"]


def test_phantom(command, monkeypatch):
    asked = []
    monkeypatch.setattr(phantom, "write_phantoms", lambda *words, **options: asked.append((words, options)))
    assert command("phantom", "p", "--kind", "xray", "--count", "3") == (0, "3 xray phantoms in p/images\n", "")
    assert asked == [(("p",), {"kind": "xray", "count": 3, "seed": 0})]


LIGHT = [["--help"], ["scores", "."], ["verify", "packed.zip"], ["unpack", "packed.zip", ".", "--trust", "True"]]
LIGHT += [["bundles", "copies"]]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_start_without_torch(words, tmp_path):
    (tmp_path / "packed.zip").write_bytes(lzma.decompress(ARCHIVE.read_bytes()))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/metrics.csv").write_text("val_mean_dice,0.5\n")
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print([name for name in ('torch', 'monai') if name in sys.modules]))\n"
        f"sys.argv[1:] = {words}\n"
        "runpy.run_module('dira_monai', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_the_help_of_every_command_starts_without_torch():
    code = (
        "import sys\n"
        "from dira_monai.__main__ import COMMANDS, load_command\n"
        "print([word for word in COMMANDS if load_command(word) and {'torch', 'monai'} & {*sys.modules}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
