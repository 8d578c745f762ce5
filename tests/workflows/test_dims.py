import json

import pytest
from scan_files import noise, write_image, write_nifti, write_slice

from dira_monai import InputError
from dira_monai.workflows.dims import choose_dims


def write(folder, *names):
    """Images of random numbers: of two axes where the name says so, or the format has no more."""
    for name in names:
        if name.endswith(".png"):
            write_image(folder / name, noise(4, 5))
        else:
            write_nifti(folder / name, noise(4, 5) if "slice" in name else noise(4, 5, 6))
    return folder


@pytest.mark.parametrize(
    ("dims", "names"),
    [
        (2, ["a.png", "b/c.png"]),
        (2, ["slice.nii.gz"]),
        (2, ["a.png", "slice.nii.gz"]),
        (3, ["a.nii.gz", "b.nii"]),
        (3, ["images/a.nii.gz", "labels/a.png"]),
    ],
)
def test_a_folder(dims, names, tmp_path):
    assert choose_dims(write(tmp_path, *names)) == dims


def test_dicom(tmp_path):
    for number in range(3):
        write_slice(tmp_path / f"ct/{number}", noise(4, 5, seed=number), position=(0, 0, number), number=number)
        write_slice(tmp_path / f"xray/{number}", noise(4, 5, seed=number), position=None, patient=f"p{number}")
    assert choose_dims(tmp_path / "ct") == 3
    assert choose_dims(tmp_path / "xray") == 2
    with pytest.raises(InputError, match=r"has 2D images \(xray/\d\) and 3D images \(ct/0\)"):
        choose_dims(tmp_path)


def test_a_list(tmp_path):
    folder = write(tmp_path / "in", "a.png", "b.png", "c.nii.gz", "d.nii.gz")
    lists = {2: {"training": [{"image": "a.png"}], "validation": [{"image": "b.png"}]}}
    lists[3] = {"training": [{"image": "c.nii.gz"}], "validation": [{"image": "d.nii.gz"}]}
    for dims, content in lists.items():
        path = tmp_path / f"{dims}.json"
        path.write_text(json.dumps(content | {"dataset_dir": str(folder)}))
        assert choose_dims(path) == dims
    (folder / "datalist.json").write_text(json.dumps(lists[2] | {"spatial_dims": 3}))  # what is said counts
    assert choose_dims(folder) == 3
    shapes = {name: [{**entry, "shape": [1, 2, 3]} for entry in entries] for name, entries in lists[2].items()}
    path.write_text(json.dumps(shapes))
    assert choose_dims(path) == 3


@pytest.mark.parametrize(
    ("sentence", "names"),
    [
        (r"has 2D images \(a.png\) and 3D images \(b.nii.gz\); give --dims 2 or --dims 3", ["a.png", "b.nii.gz"]),
        (r"has 2D images \(slice.nii.gz\) and 3D images \(a.nii.gz\); give", ["a.nii.gz", "b.nii.gz", "slice.nii.gz"]),
        ("holds no PNG, JPEG", []),
    ],
)
def test_mixed_or_unclear(sentence, names, tmp_path):
    with pytest.raises(InputError, match=sentence):
        choose_dims(write(tmp_path, *names))


def test_broken_files(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no image tells whether it is 2D or 3D .*a\.nii\.gz.*give --dims 2"):
        choose_dims(tmp_path)
    write(tmp_path, "b.nii.gz")
    assert choose_dims(tmp_path) == 3
    with pytest.raises(InputError, match="does not exist"):
        choose_dims(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"the datalist .*list.json does not exist"):
        choose_dims(tmp_path / "list.json")
