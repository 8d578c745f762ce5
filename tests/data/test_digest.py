"""The digest of a run's data tells data apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from listed_files import write_listed
from monai.bundle import ConfigParser
from pretrain_bundle import BUNDLES
from scan_files import noise, write_image, write_slice

from dira_monai.data.digest import PART, data_sha256
from dira_monai.utils.errors import InputError


@pytest.fixture
def listed(tmp_path):
    return write_listed(tmp_path / "data")


def test_a_copy_of_the_data_has_the_same_data_sha256(listed, tmp_path):
    first = data_sha256(listed)
    assert len(first) == 64
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copy)  # other dates
    text = json.dumps(listed).replace(str(tmp_path / "data"), str(tmp_path / "copy"))
    assert data_sha256(json.loads(text)) == first == data_sha256(listed)


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    assert len(content) > 2 * PART
    content[-1] ^= 1
    path.write_bytes(content)


def insert_bytes(path):
    content = path.read_bytes()
    path.write_bytes(content[:PART] + bytes(7) + content[PART:])


CHANGES = {  # of the list, its first small file and its large one
    "content": lambda listed, small, large: write_image(small, noise(6, 8, seed=9)),
    "last byte": lambda listed, small, large: flip_last_byte(large),
    "size": lambda listed, small, large: insert_bytes(large),
    "label": lambda listed, small, large: listed["training"][0].update(label=7),
    "split": lambda listed, small, large: listed["validation"].append(listed["training"].pop()),
    "name": lambda listed, small, large: listed["training"][0].update(image=str(small.rename(f"{small}.renamed.png"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_data_have_another_digest(listed, change):
    before = data_sha256(listed)
    CHANGES[change](listed, *(Path(listed[part][0]["image"]) for part in ("training", "validation")))
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
    write_image(Path(listed["training"][0]["image"]), noise(6, 8, seed=9))
    assert data_sha256(listed | {"training": [entry]}) == before


def test_a_missing_file_is_named(listed):
    Path(listed["training"][0]["image"]).unlink()
    with pytest.raises(InputError, match=r"p0\.png cannot be read for the record of the run: No such file"):
        data_sha256(listed)


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


def test_files_that_a_run_does_not_read_count_by_name(listed, tmp_path):
    more = {"test": [{"image": "images/nowhere.nii.gz", "label": "labels/nowhere.nii.gz"}]}
    assert data_sha256(listed | more) == data_sha256(listed | more)
    assert data_sha256(listed | more) != data_sha256(listed)
    other = {"test": [{"image": "images/nowhere.nii.gz", "label": "labels/elsewhere.nii.gz"}]}
    assert data_sha256(listed | other) != data_sha256(listed | more)
