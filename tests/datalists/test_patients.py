import pytest
from labeled_files import images_of
from planted_scans import write_table
from scan_files import noise, refuses, write_image, write_nifti, write_series

from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.utils.errors import InputError


def test_dicom_patients_stay_together(tmp_path):
    for index in range(6):
        write_series(tmp_path / str(index), noise(3, 4, 5), series=f"1.2.{index}", patient=f"p{index // 2}")
    made = make_datalist(tmp_path)
    assert made["patient_rule"] == "dicom"
    assert [len(entry["image"]) for entry in made["training"]] == [3] * 4
    assert {entry["patient"] for entry in made["training"]} | {made["validation"][0]["patient"]} == {"p0", "p1", "p2"}
    assert made["validation"][0]["patient"] == made["validation"][1]["patient"]


def test_patients_of_dicom_that_differ_in_case_alone(tmp_path):
    for index, patient in enumerate(("ID3", "id3", "ID4 ", "ID4")):
        write_series(tmp_path / str(index), noise(3, 4, 5, seed=index), series=f"1.2.{index}", patient=patient)
    refuses("has the patients ID3 and id3, which differ in case alone; say who is who by", make_datalist, tmp_path)
    table = tmp_path / "patients.csv"
    table.write_text("file,patient\n0,ID3\n1,ID3\n2,ID4\n3,ID4\n")
    made = make_datalist(tmp_path, patient=str(table))
    assert sorted(entry["patient"] for key in ("training", "validation") for entry in made[key]) == 2 * ["ID3"] + 2 * [
        "ID4"
    ]


def test_dicom_without_a_patient_goes_by_the_study(tmp_path):
    for index in range(4):
        study = {"StudyInstanceUID": f"1.9.{index // 2}", "patient": ""}
        write_series(tmp_path / str(index), noise(3, 4, 5), series=f"1.2.{index}", **study)
    made = make_datalist(tmp_path)
    assert sorted(entry["patient"] for entry in made["training"] + made["validation"]) == ["1.9.0"] * 2 + ["1.9.1"] * 2


def test_auto_rule_takes_five_folders_as_patients_and_asks_of_fewer(tmp_path):
    def write(folder):
        for scan in range(3):
            path = tmp_path / "images" / f"f{folder}" / "study" / f"{folder}_{scan}.png"
            write_image(path, noise(4, 4, seed=3 * folder + scan))

    for folder in range(4):
        write(folder)
    doubt = (
        r"12 files do not tell who is a patient: 4 by --patient folder \(such as f0: images/f0/study/0_0\.png, "
        r".*\) or 12 by --patient path \(such as images/f0/0_0: images/f0/study/0_0\.png\); give one of these"
    )
    refuses(doubt, make_datalist, tmp_path)
    assert make_datalist(tmp_path, patient="file")["patient_examples"] == ["0_0", "0_1", "0_2", "1_0", "1_1"]
    write(4)
    made = make_datalist(tmp_path)
    assert (made["patient_rule"], made["patient_examples"]) == ("folder", ["f0", "f1", "f2", "f3", "f4"])
    assert len(made["validation"]) == 3


def test_dicom_and_other_files_together(tmp_path):
    write_series(tmp_path / "a", noise(3, 4, 5), patient="someone")
    write_nifti(tmp_path / "b" / "other.nii.gz", noise(4, 5, 6))
    made = make_datalist(tmp_path)
    assert made["patient_rule"] == "dicom and file"
    assert {entry["patient"] for entry in made["training"] + made["validation"]} == {"someone", "other"}


def test_patients_of_a_table(pictures, tmp_path, monkeypatch):
    rows = [f"p{i:02d}.png,{i // 4}" for i in range(19)]
    table = write_table(tmp_path / "t.csv", "file,patient_group", *rows)
    made = make_datalist(pictures, patient=str(table))
    assert made["patient_rule"] == str(table)
    monkeypatch.chdir(table.rename(pictures / "t.csv").parent)
    assert make_datalist(pictures, patient="t.csv") == made | {
        "patient": "t.csv",
        "patient_rule": "t.csv",
    }  # from the folder of the images
    assert made["skipped"] == [{"image": "p19.png", "reason": "p19.png has no patient in the patient table."}]
    assert {entry["patient"] for entry in made["validation"]} < {"0", "1", "2", "3", "4"}
    assert len(made["validation"]) in (3, 4)


def test_columns_of_a_table(pictures, tmp_path):
    rows = [f"x,p{i:02d},{i // 4}" for i in range(20)]  # names without suffixes
    table = str(write_table(tmp_path / "t.csv", "file,scan,who", *rows))
    made = make_datalist(pictures, patient=table, patient_column="who", file_column="scan")
    assert len(made["training"]) == 16
    refuses(
        r"t\.csv has no column patient, .*its columns are file, scan, who: name one by --p",
        make_datalist,
        pictures,
        patient=table,
    )
    with pytest.raises(InputError, match=r"t\.csv has no column what"):
        make_datalist(pictures, patient=table, patient_column="who", file_column="what")


def test_split_of_a_table(pictures, tmp_path):
    splits = ["train"] * 12 + ["val"] * 5 + ["test"] * 3
    rows = [f"p{i:02d}.png,{i},{split}" for i, split in enumerate(splits)]
    table = str(write_table(tmp_path / "t.csv", "image,patient_id,split", *rows))
    made = make_datalist(pictures, patient=table)
    assert images_of(made["training"]) == [f"p{i:02d}.png" for i in range(12)]
    assert images_of(made["validation"]) == [f"p{i:02d}.png" for i in range(12, 17)]
    assert made["excluded"] == {"test": 3}
    drawn = make_datalist(pictures, patient=table, validation_fraction=0.5)
    assert (len(drawn["training"]), len(drawn["validation"]), drawn["excluded"]) == (9, 8, {"test": 3})


def test_table_that_splits_a_patient(pictures, tmp_path):
    rows = [f"p{i:02d}.png,{i // 2},{'val' if i % 2 else 'train'}" for i in range(20)]
    table = str(write_table(tmp_path / "t.csv", "file,patient,split", *rows))
    with pytest.raises(InputError, match=r"has 10 patients in both training and validation: 0, 1, 2, \.\.\.\.$"):
        make_datalist(pictures, patient=table)


def test_a_table_whose_patients_or_columns_may_be_the_same(pictures, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("file,patient\n" + "".join(f"p{i:02d}.png,{'0' * (i % 2)}7\n" for i in range(20)))
    refuses(
        "has the patients 7 and 07, which differ in leading zeros alone", make_datalist, pictures, patient=str(table)
    )
    table.write_text("file,Patient ID,PatientID\n" + "".join(f"p{i:02d}.png,a{i},b{i // 2}\n" for i in range(20)))
    refuses("the columns Patient ID and PatientID mean the same", make_datalist, pictures, patient=str(table))
    made = make_datalist(pictures, patient=str(table), patient_column="PatientID")
    assert {entry["patient"] for key in ("training", "validation") for entry in made[key]} == {
        f"b{i}" for i in range(10)
    }


def test_a_row_without_a_path_of_files_in_several_folders(tmp_path):
    for index, name in enumerate(("a/1", "a/2", "b/1", "b/3", "T1/a/4", "T2/a/4")):
        write_image(tmp_path / f"{name}.png", noise(6, 8, seed=index))
    table = tmp_path / "patients.csv"
    table.write_text("file,patient\n1.png,p1\n2.png,p2\n3.png,p3\n4.png,p4\n")
    refuses("names 1.png, which lies in a and in b; write its path", make_datalist, tmp_path, patient=str(table))
    table.write_text("file,patient\na/1.png,p1\nb/1.png,p5\n2.png,p2\n3.png,p3\n4.png,p4\n")
    made = make_datalist(tmp_path, patient=str(table))
    found = {entry["image"]: entry["patient"] for key in ("training", "validation") for entry in made[key]}
    assert found == {
        **{"a/1.png": "p1", "b/1.png": "p5", "a/2.png": "p2", "b/3.png": "p3"},
        **{"T1/a/4.png": "p4", "T2/a/4.png": "p4"},  # two images of one patient
    }


def test_table_that_contradicts_itself(pictures, tmp_path):
    table = str(write_table(tmp_path / "t.csv", "file,patient", "p00.png,1", "p00.png,2"))
    refuses(r"t\.csv gives p00\.png two patients", make_datalist, pictures, patient=table)
