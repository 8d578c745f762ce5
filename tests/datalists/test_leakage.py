"""Images of patients that a training has seen are found, by whatever names them."""

import json
from pathlib import Path

import numpy as np
import pytest
from labeled_files import classify
from planted_scans import write_table
from scan_files import write_image, write_slice

from dira_monai import InputError
from dira_monai.datalists.leakage import find_leaks


def leak_files(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_image(tmp_path / f"{name}.png", np.arange(6).reshape(2, 3))
    return write_table(tmp_path / "p.csv", "file,patient", "a,1", "b.png,1", "c,2", "d.png,3")


def raw_datalist(tmp_path, training, validation, **rest):
    lists = {
        name: [{"image": f"{image}.png", "patient": patient} for image, patient in entries]
        for name, entries in (("training", training), ("validation", validation))
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"dataset_dir": str(tmp_path)} | lists | rest))
    return path


def folder_study(root, places):
    """Twelve images of six patients, and the datalist that is made of them; ``places`` by patient and number."""
    for patient in range(6):
        for number in range(2):
            write_image(root / places(patient, number) / "x.png", np.arange(6).reshape(2, 3) + patient)
    return root


def listed(root, path, **options):
    made = classify(root, ["ill", "well"], **options)
    path.write_text(json.dumps(made))
    return made


def test_leak_by_folder_in_a_larger_folder(tmp_path):
    root = folder_study(tmp_path / "data", lambda patient, number: f"images/p{patient}/s{number}")
    rows = [f"images/p{patient}/s0/x.png,{('ill', 'well')[patient % 2]}" for patient in range(6)]
    write_table(root / "labels.csv", "file,label", *rows)
    made = listed(root, tmp_path / "list.json")
    assert made["patient_rule"] == "folder"
    trained, tested = (made[key][0]["patient"] for key in ("training", "test"))
    write_image(root / "masks" / "x.png", np.arange(6).reshape(2, 3))  # the shared folder is no more images
    images = [f"images/{patient}/s1/x.png" for patient in (trained, tested)]
    leaks, rule = find_leaks(images, root, tmp_path / "list.json")
    assert leaks == [{"image": images[0], "patient": trained, "list": "training", "by": "patient"}]
    assert rule == "folder"
    below = [image.removeprefix("images/") for image in images]
    assert [leak["image"] for leak in find_leaks(below, root / "images", tmp_path / "list.json")[0]] == below[:1]


def test_a_folder_elsewhere_names_no_patient(tmp_path):
    root = folder_study(tmp_path / "data", lambda patient, number: f"p{patient}/s{number}")
    entries = [{"image": f"p{patient}/s0/x.png", "patient": f"p{patient}"} for patient in range(6)]
    lists = {"dataset_dir": str(root), "training": entries[:4], "validation": entries[4:], "patient_rule": "folder"}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    write_image(tmp_path / "boxed/p1/s2/x.png", np.arange(6).reshape(2, 3))
    with pytest.raises(InputError, match=r"p1/s2/x\.png lies in no folder of a patient below .*data as .*by --patient"):
        find_leaks(["p1/s2/x.png"], tmp_path / "boxed", tmp_path / "list.json")
    table = write_table(
        tmp_path / "p.csv", "file,patient", *(f"p{n}/s{s}/x.png,p{n}" for n in range(6) for s in (0, 2))
    )
    (leak,), _ = find_leaks(["p1/s2/x.png"], tmp_path / "boxed", tmp_path / "list.json", str(table))
    assert (leak["patient"], leak["by"]) == ("p1", "patient")


@pytest.mark.parametrize("split", ["", "train/"])
def test_leak_by_folder_below_class_folders(tmp_path, split):
    def place(patient, number):
        return f"{split}{('ill', 'well')[patient % 2]}/p{patient}/s{number}"

    root = folder_study(tmp_path / "data", place)
    if split:
        root.joinpath("test/ill").mkdir(parents=True)
        root.joinpath("train/ill/p0").rename(root / "test/ill/p0")
        root.joinpath("test/well").mkdir()
        root.joinpath("train/well/p1").rename(root / "test/well/p1")
    made = listed(root, tmp_path / "list.json")
    assert made["patient_rule"] == "folder"
    tested, trained = made["test"][0], made["training"][0]
    assert find_leaks([tested["image"]], root, tmp_path / "list.json")[0] == []
    more = str(Path(trained["image"]).parent.with_name("s9") / "x.png")
    write_image(root / more, np.arange(6).reshape(2, 3))
    assert find_leaks([more], root, tmp_path / "list.json")[0] == [
        {"image": more, "patient": trained["patient"], "list": "training", "by": "patient"}
    ]


def test_folders_that_are_not_the_patients_of_the_list(tmp_path):
    root = folder_study(tmp_path, lambda patient, number: f"p{patient}/s{number}")
    entries = [{"image": f"p{patient}/s0/x.png", "patient": str(patient)} for patient in range(6)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries[:4], "validation": entries[4:]}))
    with pytest.raises(
        InputError, match=r"no folder in the paths of .*list\.json is the patient in all of its entries"
    ):
        find_leaks(["p1/s1/x.png"], root, tmp_path / "list.json", "folder")


@pytest.mark.parametrize("place", ["below", "above", "elsewhere"])
def test_leak_by_the_table_of_the_labels(tmp_path, place, monkeypatch):
    images, root = tmp_path / "data/images", tmp_path / "data"
    for index in range(12):
        write_image(images / f"{index}.png", np.arange(6).reshape(2, 3) + index)
    rows = [f"images/{index}.png,{('ill', 'well')[index % 2]},p{index // 2}" for index in range(12)]
    table = write_table(root / "labels.csv", "file,label,patient", *rows)
    if place == "elsewhere":
        table = table.rename(tmp_path / "elsewhere.csv")
        table.write_text(table.read_text().replace("images/", "data/images/"))
    directory = root if place == "below" else images
    made = listed(directory, tmp_path / "list.json", labels=str(table) if place == "elsewhere" else None)
    assert made["patient_rule"] == ("labels.csv" if place == "below" else str(table))
    entry, left = made["training"].pop(), made["training"][0]["patient"]
    assert entry["patient"] == made["training"][-1]["patient"] != left  # the other image of that patient stays
    (tmp_path / "list.json").write_text(json.dumps(made))
    (tmp_path / "work").mkdir()
    write_table(tmp_path / "work/labels.csv", "file,patient")  # not that of the list
    monkeypatch.chdir(tmp_path / "work")
    assert find_leaks([entry["image"]], directory, tmp_path / "list.json") == (
        [{"image": entry["image"], "patient": entry["patient"], "list": "training", "by": "patient"}],
        str(table),
    )


def test_a_table_may_have_the_word_dicom_in_its_path(tmp_path):
    leak_files(tmp_path)
    (tmp_path / "dicom").mkdir()
    table = write_table(tmp_path / "dicom/p.csv", "file,patient", "a,x", "b,x", "c,y")
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"rule .*dicom/p\.csv gives b\.png the patient 'x' where .* has '1'"):
        find_leaks(["a.png"], tmp_path, datalist, str(table))


def test_dicom_and_other_files(tmp_path):
    for name, patient in (("one", "p1"), ("two", "p1"), ("six", "p6")):
        write_slice(tmp_path / name / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient=patient)
    for name in "abc":
        write_image(tmp_path / f"{name}.png", np.arange(6).reshape(2, 3))
    entries = [{"image": "two", "patient": "p1"}, {"image": "b.png", "patient": "b"}]  # a folder is a series
    lists = {"training": entries, "validation": [{"image": "c.png", "patient": "c"}], "patient_rule": "dicom and file"}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    boxed = ["a.png", "b.png", ["one/1.dcm"], ["six/1.dcm"], ["two/1.dcm"]]
    leaks, rule = find_leaks(boxed, tmp_path, tmp_path / "list.json")
    assert [(leak["image"], leak["patient"], leak["by"]) for leak in leaks] == [
        ("b.png", "b", "image"),
        ("one/1.dcm", "p1", "patient"),
        ("two/1.dcm", "p1", "image"),
    ]
    assert rule == "dicom and file"
    lists["training"][1]["patient"] = "other"
    (tmp_path / "list.json").write_text(json.dumps(lists))
    with pytest.raises(InputError, match=r"rule file gives b\.png the patient 'b' where .* has 'other'"):
        find_leaks(boxed, tmp_path, tmp_path / "list.json")


def test_leak_by_patient(tmp_path):
    table = str(leak_files(tmp_path))
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    leaks, rule = find_leaks(["a.png", "d.png"], tmp_path, datalist, table)
    assert leaks == [{"image": "a.png", "patient": "1", "list": "training", "by": "patient"}]
    assert rule == table
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")], patient_rule=table)
    assert find_leaks(["a.png", "d.png"], tmp_path, datalist) == (leaks, table)  # auto: that of the datalist


def test_leak_through_a_link(tmp_path):
    leak_files(tmp_path / "scans")
    (tmp_path / "linked").symlink_to(tmp_path / "scans")
    datalist = raw_datalist(tmp_path / "scans", [("b", "b")], [("c", "c")])
    leaks, _ = find_leaks(["c.png"], tmp_path / "linked", datalist)
    assert leaks == [{"image": "c.png", "patient": "c", "list": "validation", "by": "image"}]


def test_rule_that_differs_from_the_datalist(tmp_path):
    leak_files(tmp_path)
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"rule file gives b\.png the patient 'b' where .*list\.json has '1'"):
        find_leaks(["a.png"], tmp_path, datalist, "file")


def test_leak_needs_patients(tmp_path):
    leak_files(tmp_path)
    table = write_table(tmp_path / "few.csv", "file,patient", "b,1", "c,2")
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"a\.png has no patient in the patient table .*few\.csv"):
        find_leaks(["a.png"], tmp_path, datalist, str(table))
    content = json.loads(datalist.read_text())
    del content["validation"][0]["patient"]
    datalist.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has no 'patient' in entry 0 of 'validation'"):
        find_leaks(["a.png"], tmp_path, datalist, "file")
    datalist.write_text("[")
    with pytest.raises(InputError, match=r"list\.json is not valid JSON"):
        find_leaks(["a.png"], tmp_path, datalist)


def test_series_names_its_patient(tmp_path):
    write_slice(tmp_path / "one" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient="p1", series="1.1")
    write_slice(tmp_path / "two" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient="p1", series="1.2")
    entries = [{"image": ["two/1.dcm"], "patient": "p1"}, {"image": ["six/1.dcm"], "patient": "p3"}]
    content = {
        "dataset_dir": str(tmp_path),
        "training": entries[:1],
        "validation": entries[1:],
        "patient_rule": "dicom",
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    leaks, _ = find_leaks([["one/1.dcm"]], tmp_path, tmp_path / "list.json")
    assert leaks == [{"image": "one/1.dcm", "patient": "p1", "list": "training", "by": "patient"}]
