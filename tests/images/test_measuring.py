import json
import os
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from scan_files import noise, write_image, write_nifti

from dira_monai.cli import data as commands
from dira_monai.datalists import label_maps
from dira_monai.images import measuring
from dira_monai.images.facts import measure_image
from dira_monai.images.measuring import keep_facts, measure_each
from dira_monai.utils.errors import InputError


@pytest.fixture
def names(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"{number}.png", noise(4, 5, seed=number))
    return [f"{number}.png" for number in range(6)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(measuring, "PERIOD", 0)


class Reader:
    """Measures images, and stops at one as Ctrl+C does."""

    def __init__(self, stop=None):
        self.stop, self.read = stop, []

    def measure(self, name, directory):
        if self.stop and name >= self.stop:
            raise KeyboardInterrupt
        self.read.append(name)
        return measure_image(name, directory)

    def all_of(self, names, folder):
        with keep_facts(folder / "list.json"):
            return measure_each(self.measure, names, folder, workers=1)


def test_who_is_stopped_goes_on(names, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        Reader("4.png").all_of(names, tmp_path)
    assert capsys.readouterr().out == ""
    later = Reader()
    assert later.all_of(names, tmp_path) == [measure_image(name, tmp_path) for name in names]
    assert later.read == ["4.png", "5.png"]
    said = "of 4 images that were checked before a stop, those that stay the same are not read again"
    assert capsys.readouterr().out == f"{tmp_path / 'list.json'}: {said}\n"
    assert not list(tmp_path.glob(".*"))  # and a further list is made anew
    assert (again := Reader()).all_of(names, tmp_path)
    assert again.read == names


def test_half_a_line_and_changed_files_are_measured_anew(names, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Reader("4.png").all_of(names, tmp_path)
    kept = tmp_path / ".list.json.facts"
    kept.write_text(kept.read_text()[:-9])  # of 3.png
    state = (tmp_path / "1.png").stat()
    os.utime(tmp_path / "1.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(KeyboardInterrupt):
        (second := Reader("5.png")).all_of(names, tmp_path)
    assert second.read == ["1.png", "3.png", "4.png"]
    assert (last := Reader()).all_of(names, tmp_path) == [measure_image(name, tmp_path) for name in names]
    assert last.read == ["5.png"]


def test_unreadable_images_are_tried_again(names, tmp_path):
    (tmp_path / "2.png").write_bytes(b"none")
    state = (tmp_path / "2.png").stat()
    for _ in range(2):
        with pytest.raises(InputError, match=r"2\.png"), keep_facts(tmp_path / "list.json"):
            measure_each(measure_image, names, tmp_path, strict=True, workers=1)
    (tmp_path / "2.png").write_bytes((tmp_path / "3.png").read_bytes())
    os.utime(tmp_path / "2.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    with keep_facts(tmp_path / "list.json"):
        found = measure_each(measure_image, names, tmp_path)
    assert found == [measure_image(name, tmp_path) for name in names]


def test_other_versions_and_options_measure_anew(names, tmp_path, monkeypatch):
    def keep(version, option):
        monkeypatch.setattr(measuring, "__version__", version)
        calls = []

        def measure(name, directory, option):
            calls.append(name)
            if name == "4.png" and len(calls) == 5:
                raise KeyboardInterrupt
            return {"option": option}

        with suppress(KeyboardInterrupt), keep_facts(tmp_path / "list.json"):
            measure_each(partial(measure, option=option), names[:5], tmp_path, workers=1)
        return len(calls)

    assert [keep("1", "a"), keep("1", "b"), keep("2", "a")] == [5, 5, 5]
    assert keep("1", "a") == 1


@pytest.mark.parametrize("parts", [["0.mhd", "0.raw"], ["0.hdr", "0.img"], ["0/1.dcm"]])
def test_what_lies_in_several_files_is_measured_anew(parts, tmp_path):
    for part in parts:
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).write_text("1")
    item = parts[0].split("/")[0]

    def measure(name, directory):
        return {"found": (tmp_path / parts[-1]).read_text()}

    with suppress(KeyboardInterrupt), keep_facts(tmp_path / "list.json"):
        measure_each(measure, [item], tmp_path)
        raise KeyboardInterrupt
    (tmp_path / parts[-1]).write_text("2")
    with keep_facts(tmp_path / "list.json"):
        assert measure_each(measure, [item], tmp_path) == [{"found": "2"}]


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b"4\n", b'[["a"], {}]\n', b"[1]\n", b'["a", "b", "c"]\n', b'["a", 1]\n']
)
def test_a_damaged_file_is_no_obstacle(damage, names, tmp_path):
    (tmp_path / ".list.json.facts").write_bytes(damage)
    assert Reader().all_of(names, tmp_path) == [measure_image(name, tmp_path) for name in names]


def test_a_list_that_cannot_be_written_loses_nothing(names, tmp_path):
    (tmp_path / "list.json").mkdir()
    with pytest.raises(InputError, match=r"list\.json: cannot be written"):
        [*commands.datalist(str(tmp_path), output=str(tmp_path / "list.json"))]
    assert len((tmp_path / ".list.json.facts").read_text().split()) >= len(names)


def test_short_work_leaves_no_file(names, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "PERIOD", 60)
    with pytest.raises(KeyboardInterrupt):
        Reader("4.png").all_of(names, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_cannot_be_written(names, tmp_path):
    (tmp_path / ".list.json.facts").mkdir()
    with pytest.raises(InputError, match=r"\.list\.json\.facts: cannot be written \(.*\); name another folder"):
        Reader().all_of(names, tmp_path)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_stopped_list_is_the_one_of_a_whole_run(dims, tmp_path, monkeypatch, capsys):
    write, ending = (write_image, "png") if dims == 2 else (write_nifti, "nii.gz")
    for number in range(8):
        shape = [6 + number, 7, 8][:dims]
        for folder in ("images", "labels"):
            (tmp_path / "scans" / folder).mkdir(parents=True, exist_ok=True)
        write(tmp_path / "scans" / "images" / f"p{number}.{ending}", noise(*shape, seed=number))
        label = (noise(*shape, seed=number) > 127).astype(np.uint8) * 255
        write(tmp_path / "scans" / "labels" / f"p{number}.{ending}", label)
    given = {"task": "segmentation", "class_names": ["background", "x"], "label_threshold": 127, "workers": 1}

    def lines_of(name):
        return [*commands.labeled(str(tmp_path / "scans"), output=str(tmp_path / name), **given)]

    whole = lines_of("whole.json")
    original, left = label_maps.measure_values, iter(range(5))

    def stops(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patched:
        patched.setattr(label_maps, "measure_values", stops)
        with pytest.raises(KeyboardInterrupt):
            lines_of("stopped.json")
    assert not (tmp_path / "stopped.json").exists()
    assert lines_of("stopped.json") == [line.replace("whole.json", "stopped.json") for line in whole]
    assert "of 5 images that were checked before a stop" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "stopped.json"))
    assert first == second


def test_images_that_are_named_as_label_maps(names, tmp_path):
    write_image(tmp_path / "mask_9.png", noise(9, 9))
    last = [*commands.datalist(str(tmp_path), output=str(tmp_path / "list.json"))][-1]
    assert "6 training and 1 validation images" in last
    assert json.loads((tmp_path / "list.json").read_text())["named_as_maps"] == 1
