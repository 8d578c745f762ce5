import os

import numpy as np
import pytest
from scan_files import noise, write_image, write_nifti, write_series

from dira_monai.datalists import unlabeled as listing
from dira_monai.datalists.io import load_datalist, write_datalist
from dira_monai.datalists.prepare import PHANTOMS, prepare_data
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.phantoms import chest as phantom
from dira_monai.utils.distributed import on_first_process
from dira_monai.utils.errors import InputError


def prepare(source, output, **options):
    given = {"spatial_dims": 2, "in_channels": 1, "seed": 0, **options}
    return prepare_data(None if source is None else str(source), str(output), **given)


def test_prepare_data_writes_and_announces(flawed, tmp_path, capsys):
    data = prepare(flawed, tmp_path / "out", patch_size=[7, 7])
    kept = tmp_path / "out" / "datalist.json"
    assert data == load_datalist(kept)
    assert os.path.isabs(data["training"][0]["image"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "16 training and 1 validation images of 17 patients (by file: p00, p01, p02, p04, p06, ...), 4 skipped "
        "(the first: p03.png"
    )
    assert first.endswith(f"See {kept})")
    assert second == "17 of 17 images are smaller than the region of 7 x 7 and padded"
    prepare(flawed, tmp_path / "out", patch_size=[7, 7], image_size=10)
    assert len(capsys.readouterr().out.splitlines()) == 1  # 6 x 8 become 8 x 10


def test_prepare_data_says_nothing_of_images_that_are_large_enough(pictures, tmp_path, capsys):
    prepare(pictures, tmp_path / "out", patch_size=6)
    assert capsys.readouterr().out == (
        "19 training and 1 validation images of 20 patients (by file: p00, p01, p02, p03, p04, ...), 0 skipped\n"
    )
    with pytest.raises(InputError, match=r"patch_size \[6, 6, 6\] has 3 axes where the images of .* have 2"):
        prepare(pictures, tmp_path / "out", patch_size=[6, 6, 6])


@pytest.fixture
def made(count_calls):
    """Grows when images are read."""
    return count_calls(listing, "measure_each")


def test_prepare_data_reuses_its_list(flawed, tmp_path, made):
    first = prepare(flawed, tmp_path / "out")
    assert prepare(flawed, tmp_path / "out") == first
    assert len(made) == 1
    write_image(flawed / "new.png", noise(6, 8))
    assert len(prepare(flawed, tmp_path / "out")["training"]) == len(first["training"]) + 1
    (flawed / "new.png").unlink()
    assert prepare(flawed, tmp_path / "out") == first
    prepare(flawed, tmp_path / "out", seed=1)
    prepare(flawed, tmp_path / "out", seed=1, validation_fraction=0.3)
    prepare(flawed, tmp_path / "out", seed=1, validation_fraction=0.3, in_channels=3)
    assert len(made) == 6
    (tmp_path / "out" / "datalist.json").write_text("{")
    prepare(flawed, tmp_path / "out", seed=1)
    assert len(made) == 7


def test_a_run_that_goes_on_keeps_its_list(pictures, tmp_path, made, capsys):
    first = prepare(pictures, tmp_path / "out")
    write_image(pictures / "new.png", noise(6, 8))
    assert prepare(pictures, tmp_path / "out", resume=True) == first
    assert "out/datalist.json: files of" in (told := capsys.readouterr().out)
    assert "have changed since this run began; it goes on with its list as it is" in told
    assert len(made) == 1
    assert prepare(pictures, tmp_path / "out", resume=True, seed=1) != first


def test_a_changed_file_is_read_again_whatever_its_date(pictures, tmp_path):
    first = prepare(pictures, tmp_path / "out")
    file = sorted(pictures.rglob("*.png"))[0]
    write_image(file, np.zeros((6, 8)))
    os.utime(file, (0, 0))  # as copies have it that keep their dates
    (pictures / "gone.png").symlink_to("nowhere.png")
    again = prepare(pictures, tmp_path / "out")
    assert [skip["image"] for skip in again["skipped"]] == sorted([file.name, "gone.png"])
    assert len(again["training"] + again["validation"]) == len(first["training"] + first["validation"]) - 1
    assert prepare(pictures, tmp_path / "out") == again


def test_prepare_data_reuses_lists_of_series(tmp_path, made):
    for index in range(3):
        write_series(tmp_path / "scans" / str(index), noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    first = prepare(tmp_path / "scans", tmp_path / "out", spatial_dims=3)
    assert prepare(tmp_path / "scans", tmp_path / "out", spatial_dims=3) == first
    assert len(made) == 1


@pytest.mark.parametrize("name", ["scans/datalist.json", "other.json"])
def test_prepare_data_takes_a_given_list(pictures, tmp_path, made, name):
    given = make_datalist(pictures, validation_fraction=0.5)
    write_datalist(given, tmp_path / name)
    source = pictures if name.startswith("scans") else tmp_path / name
    assert len(prepare(source, tmp_path / "out")["validation"]) == 8
    assert len(made) == 1
    assert load_datalist(tmp_path / "out/datalist.json") == load_datalist(tmp_path / name)
    with pytest.raises(InputError, match=r"\.json was made for in_channels 1 where the network has 3"):
        prepare(source, tmp_path / "out", in_channels=3)


def test_prepare_data_of_a_missing_folder(tmp_path):
    for name in ("none", "none.json"):
        with pytest.raises(InputError, match=f"{name} does not exist"):
            prepare(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize(("spatial_dims", "kind"), [(2, "xray"), (3, "ct")])
@pytest.mark.parametrize("source", [None, ""])
def test_prepare_data_makes_phantoms_once(tmp_path, monkeypatch, capsys, spatial_dims, kind, source):
    drawn = []

    def write_phantoms(directory, kind, count, seed):
        drawn.append((kind, seed))
        for index in range(4):
            write_nifti(directory / "images" / f"{index}.nii.gz", noise(*(4, 5, 6)[:spatial_dims]))
            write_nifti(directory / "labels" / f"{index}.nii.gz", noise(4, 5, 6, high=2))

    monkeypatch.setattr(phantom, "write_phantoms", write_phantoms)
    data = prepare(source, tmp_path / "out", spatial_dims=spatial_dims, seed=5)
    assert data["dataset_dir"] == str(tmp_path / "out" / "phantom" / f"{kind}_seed_5" / "images")
    assert len(data["training"]) + len(data["validation"]) == 4
    assert capsys.readouterr().out.startswith(f"No dataset_dir is given: making {PHANTOMS[spatial_dims][1]} synthetic")
    prepare(source, tmp_path / "out", spatial_dims=spatial_dims, seed=5)
    assert "No dataset_dir" not in capsys.readouterr().out
    assert drawn == [(kind, 5)]
    other = prepare(source, tmp_path / "out", spatial_dims=spatial_dims, seed=6)
    assert drawn == [(kind, 5), (kind, 6)]
    assert other["dataset_dir"] != data["dataset_dir"]
    assert prepare(source, tmp_path / "out", spatial_dims=spatial_dims, seed=5) == data
    assert len(drawn) == 2


def test_killed_phantoms_are_completed(tmp_path, monkeypatch):
    seen = []

    def write_phantoms(directory, kind, count, seed):
        seen.append(directory)
        write_nifti(directory / "images" / f"{len(seen)}.nii.gz", noise(4, 5, 6))
        if len(seen) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "write_phantoms", write_phantoms)
    with pytest.raises(KeyboardInterrupt):
        prepare(None, tmp_path, spatial_dims=3)
    data = prepare(None, tmp_path, spatial_dims=3)
    assert seen[0] == seen[1]
    assert sorted(data["training"][0]["image"][-8:] + data["validation"][0]["image"][-8:]) == sorted("1.nii.gz2.nii.gz")


def test_first_of_several_processes_prepares_and_tells(pictures, tmp_path, distribute):
    sent = []
    distribute(0, lambda box: sent.append(box[0]))
    assert prepare(pictures, tmp_path / "out") == sent[0]
    with pytest.raises(InputError, match="none does not exist"):
        prepare(tmp_path / "none", tmp_path / "out")
    assert isinstance(sent[1], InputError)
    with pytest.raises(RuntimeError, match="KeyError: 'image'") as told:
        on_first_process(lambda: {}["image"])
    assert isinstance(told.value.__cause__, KeyError)
    assert str(sent[2]) == "KeyError: 'image'"


def test_other_processes_wait_for_the_first(tmp_path, distribute, capsys):
    answer = {"training": []}
    distribute(1, lambda box: box.__setitem__(0, answer))
    assert prepare(tmp_path / "none", tmp_path / "out") is answer
    distribute(1, lambda box: box.__setitem__(0, InputError("the first failed.")))
    with pytest.raises(InputError, match="the first failed"):
        prepare(tmp_path / "none", tmp_path / "out")
    assert capsys.readouterr().out == ""
