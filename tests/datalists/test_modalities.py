"""Several modalities of a case are one image: in lists, and in training and inference of two channels."""

import json

import finetune_bundle
import nibabel as nib
import numpy as np
import pretrain_bundle
import pytest
import SimpleITK
from labeled_files import LUNG, classify, entries, labels, reasons, segment, write_table
from scan_files import noise, read, refuses, write_image, write_nifti, write_series

from dira_monai import evaluate, infer
from dira_monai.datalists.layouts import join_modalities
from dira_monai.datalists.summary import summarize_datalist
from dira_monai.datalists.unlabeled import make_datalist

SCANS = ("flair", "t1", "t1ce")


def write_cases(root, shape=(6, 8, 5), count=6):
    """As BraTS 2018 has them: images in a folder of the case, beside their label map."""
    for case in range(count):
        folder = root / ("HGG", "LGG")[case % 2] / f"Brats18_{case}_1"
        for number, scan in enumerate(SCANS):
            write_nifti(folder / f"{folder.name}_{scan}.nii.gz", noise(*shape, seed=10 * case + number), (1, 1, 1))
        write_nifti(folder / f"{folder.name}_seg.nii.gz", noise(*shape, seed=case, high=2), (1, 1, 1))
    return root


@pytest.mark.parametrize(
    ("files", "modalities", "joined"),
    [
        (["a_t1.nii", "a_t1ce.nii", "a_flair.nii"], ["flair", "t1"], [["a_flair.nii", "a_t1.nii"]]),
        (
            ["IXI-T1/I1-T1.nii.gz", "IXI-T2/I1-T2.nii.gz"],
            ["t1", "t2"],
            [["IXI-T1/I1-T1.nii.gz", "IXI-T2/I1-T2.nii.gz"]],
        ),
        (["s/0/FLAIR.nii", "s/0/T1.nii", "s/1/T1.nii"], ["T1", "flair"], [["s/0/T1.nii", "s/0/FLAIR.nii"]]),
        (["B_001_0000.nii.gz", "B_001_0001.nii.gz"], ["0001", "0000"], [["B_001_0001.nii.gz", "B_001_0000.nii.gz"]]),
        (["ct/7.png", "pet/7.png", "pet/8.png"], ["ct", "pet"], [["ct/7.png", "pet/7.png"]]),
        (["0/pre/T1.nii", "0/orig/T1.nii", "0/pre/T2.nii"], ["pre/T1", "pre/T2"], [["0/pre/T1.nii", "0/pre/T2.nii"]]),
        (["dwi/s1_adc.nii", "dwi/s1_dwi.nii"], ["dwi", "adc"], [["dwi/s1_dwi.nii", "dwi/s1_adc.nii"]]),
    ],
)
def test_files_of_a_case(files, modalities, joined):
    assert join_modalities(files, modalities)[0] == joined


def test_lists_of_two_modalities(tmp_path):
    write_cases(tmp_path)
    words = r"_flair\.nii\.gz \+ .*_t1\.nii\.gz has 2 differing channels where in_channels is 1; pass --in_channels 2"
    refuses(words, make_datalist, tmp_path, modalities=["flair", "t1"], in_channels=1)
    (tmp_path / "HGG/Brats18_0_1/Brats18_0_1_t1.nii.gz").unlink()
    made = make_datalist(tmp_path, modalities="flair,t1")
    assert (made["in_channels"], made["patient_rule"], made["label_maps"]) == (2, "folder", 6)
    image = made["training"][0]["image"]
    array, _ = read(*(tmp_path / file for file in image))
    for channel, scan in enumerate(("flair", "t1")):
        assert image[channel].endswith(f"_{scan}.nii.gz")
        np.testing.assert_array_equal(array[..., channel], nib.load(tmp_path / image[channel]).get_fdata())
    (skipped,) = made["skipped"]
    assert skipped["reason"].endswith(
        "_flair.nii.gz needs one file of each modality beside it, found 1 of flair, 0 of t1."
    )
    assert "6 files of other modalities left out" in summarize_datalist(made)


@pytest.mark.parametrize("suffix", ["nii.gz", "mha"])
def test_files_on_other_grids_are_no_channels(tmp_path, suffix):
    for case, (shape, start) in enumerate([((4, 5, 6), (0, 0, 0)), ((4, 5, 6), (3, 0, 0)), ((4, 5, 7), (0, 0, 0))]):
        for scan, size, origin in (("t2", (4, 5, 6), (0, 0, 0)), ("adc", shape, start)):
            image = SimpleITK.GetImageFromArray(noise(*size, seed=case).T)
            image.SetOrigin(origin)
            SimpleITK.WriteImage(image, str(tmp_path / f"c{case}_{scan}.{suffix}"))
    write_nifti(tmp_path / "c3_t2.nii.gz", noise(4, 5, 6))
    write_nifti(tmp_path / "c3_adc.nii.gz", noise(4, 5, 6, seed=9))
    made = make_datalist(tmp_path, modalities="t2,adc", validation_fraction=0.5)
    assert len(made["training"]) == len(made["validation"]) == 1
    first, second = (skipped["reason"] for skipped in made["skipped"])
    assert first.startswith(f"c1_adc.{suffix} lies up to 3 mm away from c1_t2.{suffix}, so they are no channels of one")
    assert f"c2_adc.{suffix} has 4 x 5 x 7 voxels where c2_t2.{suffix} has 4 x 5 x 6" in second


def test_series_are_no_channels(tmp_path):
    for scan in ("T1w", "T2w"):
        write_series(tmp_path / "p1" / scan, noise(3, 4, 5))
    refuses("T1w/.* begins a DICOM series; convert series to NIfTI", make_datalist, tmp_path, modalities="T1w,T2w")


def test_labeled_lists_of_two_modalities(tmp_path):
    write_cases(tmp_path)
    refuses(r"shares the label map .*_seg\.nii\.gz with 2 other images; .* by --modalities", segment, tmp_path)
    made = segment(tmp_path, modalities="t1ce,flair")
    assert (made["in_channels"], len(entries(made)), made["skipped"]) == (2, 6, [])
    for entry in entries(made):
        case = entry["label"].removesuffix("_seg.nii.gz")
        assert entry["image"] == [f"{case}_t1ce.nii.gz", f"{case}_flair.nii.gz"]


def test_two_channels_from_pretraining_to_inference(tmp_path):
    data = write_cases(tmp_path / "data", (34, 36, 18))
    values = {"modalities": "t1,flair", "in_channels": 2, "intensity_range": [0, 200]}
    folders = {2: data, 3: data}
    options = pretrain_bundle.overrides(3, folders, tmp_path / "first", max_epochs=1, **values)
    pretrain_bundle.run(3, ["train"], options)
    kind, first = ("segmentation", 3), str(tmp_path / "first/models/model.pt")
    more = {"max_epochs": 1, "class_names": LUNG, "pretrained": first, **values}
    options = finetune_bundle.overrides(kind, folders, tmp_path / "second", **more)
    finetune_bundle.train(kind, options)
    listed = json.loads((tmp_path / "second/out/datalist.json").read_text())
    assert {len(entry["image"]) for entry in entries(listed)} == {2}
    found = infer(tmp_path / "second/out", data / "HGG")
    assert [row.status for row in found.rows] == ["done"] * 3
    assert all(row.file.endswith("_t1.nii.gz") for row in found.rows)
    words = "modalities is 'flair,t1' where it was 't1,flair' in the training"
    refuses(words, infer, tmp_path / "second/out", data / "HGG", modalities="flair,t1", output_dir=str(tmp_path / "x"))


@pytest.mark.parametrize("column", ["Brats18_{}_1", "Brats18_{}_1_t1.nii.gz", "Brats18_{}_1_flair"])
def test_classes_of_cases_by_a_table(tmp_path, column):
    write_cases(tmp_path)
    rows = [f"{column.format(case)},{('low', 'high')[case % 3 == 0]}" for case in range(6)]
    write_table(tmp_path, "\n".join(["ID,grade", *rows, f"{column.format(9)},low"]))
    options = {"modalities": "flair,t1", "file_column": "ID", "label_column": "grade"}
    made = classify(tmp_path, ["low", "high"], **options)
    assert (made["in_channels"], made["other_modalities"], made["label_maps"]) == (2, 6, 6)
    assert [reason.split(" does")[0] for reason in reasons(made).values()] == [column.format(9)]
    for entry in entries(made):
        case = entry["patient"]
        assert [file.rsplit("/", 1)[1] for file in entry["image"]] == [f"{case}_flair.nii.gz", f"{case}_t1.nii.gz"]
        assert entry["label"] == (int(case.split("_")[1]) % 3 == 0)


def test_classes_of_cases_by_folders(tmp_path):
    write_cases(tmp_path)
    made = classify(tmp_path, ["HGG", "LGG"], modalities="t1ce,t1,flair")
    assert labels(made) == [0, 0, 0, 1, 1, 1]
    assert {len(entry["image"]) for entry in entries(made)} == {3}
    assert len({entry["patient"] for entry in entries(made)}) == 6


def test_classes_of_two_pictures_from_training_to_inference(tmp_path):
    for case in range(12):
        for number, word in enumerate(("pre", "post")):
            write_image(tmp_path / f"data/{'ab'[case % 2]}/x{case}_{word}.png", noise(30, 34, seed=2 * case + number))
    options = finetune_bundle.overrides(("classification", 2), {2: tmp_path / "data"}, tmp_path / "run", max_epochs=1)
    options |= {"modalities": "post,pre", "in_channels": 2, "class_names": ["a", "b"], "intensity_range": [0, 200]}
    finetune_bundle.train(("classification", 2), options)
    run = tmp_path / "run/out"
    test = json.loads((run / "datalist.json").read_text())["test"]
    predictions = (evaluate(run) / "predictions.csv").read_text().splitlines()
    found = infer(run, tmp_path / "data")
    assert [row.status for row in found.rows] == ["done"] * 12
    assert {row.file.rsplit("_", 1)[1] for row in found.rows} == {"post.png"}
    known = {row.file: row for row in found.rows}
    for entry, line in zip(test, predictions, strict=True):
        file, *values = line.split(",")
        assert file.endswith(entry["image"][0])
        np.testing.assert_allclose([*map(float, values)], [*map(float, known[file].probabilities)], atol=1e-5)
