"""Patients are known by the names that public data sets give their files; where names leave it open, we ask."""

import pytest
from scan_files import noise, refuses, write_image

from dira_monai.datalists.layouts import LAYOUTS, match_names
from dira_monai.datalists.patients import choose_rule, find_patients
from dira_monai.datalists.splits import folder_splits, split_word
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.images.find import is_label_map, without_label_maps

BRATS = ("flair", "t1", "t1ce", "t2")
UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1009"
LAYOUT_FILES = {  # the files of each patient, as the documentation of the data set names them
    "CheXpert": [
        *([f"train/patient{p:05d}/study{s}/view1_frontal.jpg" for s in (1, 2)] for p in (1, 2, 3)),
        ["valid/patient64541/study1/view1_frontal.jpg", "valid/patient64541/study1/view2_lateral.jpg"],
    ],
    "UPENN-GBM, UCSF-PDGM": [
        [f"GBM/UPENN-GBM-{p:05d}_{time}/UPENN-GBM-{p:05d}_{time}_T1.nii.gz" for time in (11, 21)] for p in (1, 2, 30)
    ],
    "slices of two groups": [[f"{group}/z{p}.png"] for group, p in (("images", 1), ("images", 2), ("unlabeled", 3))],
    "ChestX-ray14": [[f"images_00{p}/images/0000000{p}_00{v}.png" for v in range(3)] for p in (1, 2, 3)],
    "MIMIC-CXR": [[f"files/p10/p1000{p}/s5041{s}/{p}{s}-ab.jpg" for s in (1, 2)] for p in ("0032", "0764", "0980")],
    "BraTS 2018": [
        [f"{grade}/Brats18_{case}_1/Brats18_{case}_1_{scan}.nii.gz" for scan in BRATS]
        for grade, case in (("HGG", "2013_10"), ("HGG", "CBICA_AAB"), ("LGG", "2013_0"), ("LGG", "TCIA_101"))
    ],
    "BraTS 2020": [[f"BraTS20_Training_00{c}/BraTS20_Training_00{c}_{s}.nii" for s in BRATS] for c in range(1, 7)],
    "BraTS 2023": [[f"BraTS-GLI-0000{c}-00{t}/BraTS-GLI-0000{c}-00{t}-t1c.nii.gz" for t in (0, 1)] for c in range(3)],
    "nnU-Net": [[f"imagesTr/BRATS_00{c}_000{m}.nii.gz" for m in range(4)] for c in range(3)],
    "Decathlon": [[f"{'imagesTr' if c < 3 else 'imagesTs'}/hippocampus_00{c}.nii.gz"] for c in range(5)],
    "BIDS": [
        [f"sub-{p}/ses-{s}/anat/sub-{p}_ses-{s}_{scan}.nii.gz" for s in (1, 2) for scan in ("T1w", "FLAIR")]
        for p in ("01", "02", "control3")
    ],
    "dcm2niix": [[f"scan{i}{end}.nii.gz" for end in ("", "_Eq_1", "_Tilt_1", "_ROI1")] for i in range(3)],
    "LUNA16": [[f"subset{k}/{UID}{k}{i}.mhd"] for k in range(6) for i in range(2)],
    "KiTS": [[f"case_0000{c}/imaging.nii.gz"] for c in range(3)],
    "ACDC": [[f"training/patient00{c}/patient00{c}_frame{f}.nii.gz" for f in ("01", "12")] for c in range(3)],
    "ISIC": [[f"ISIC_00243{c}.jpg"] for c in range(10, 20)],
    "BUSI": [[f"{name}/{name} ({i}).png"] for name in ("benign", "malignant", "normal") for i in (1, 2, 3)],
    "classes": [[f"{name}/img{i}.png"] for name in ("akiec", "bcc", "bkl", "df", "mel", "nv") for i in range(6)],
    "Kermany, chest": [
        *(
            [f"train/PNEUMONIA/person{p}_{kind}_{i}.jpeg" for i in (1, 2)]
            for p, kind in ((1, "bacteria"), (2, "virus"))
        ),
        *([f"train/NORMAL/IM-011{c}-0001.jpeg"] for c in (5, 6)),
    ],
    "Kermany, eye": [
        [f"train/{k}/{k}-{p}-{i}.jpeg" for i in (1, 2)] for k, p in (("CNV", 10), ("DME", 72), ("CNV", 8))
    ],
    "OASIS-1": [[f"disc{d}/OAS1_{p}_MR{d}/RAW/OAS1_{p}_MR{d}_mpr.img" for d in (1, 2)] for p in ("0001", "0061")],
    "ADNI": [[f"ADNI/002_S_{p}/MPR/2006-04-1{v}/S1/ADNI_002_S_{p}_I{v}.nii" for v in (7, 8)] for p in ("0295", "0413")],
    "IXI": [[f"IXI-{m}/IXI0{p}-HH-12{p}-{m}.nii.gz" for m in ("T1", "T2", "PD")] for p in (12, 13, 14)],
    "PROMISE12": [[f"Case0{c}.mhd"] for c in range(4)],
    "AMOS": [[f"images{part}/amos_000{c}.nii.gz"] for part, c in (("Tr", 1), ("Tr", 4), ("Va", 8), ("Ts", 2))],
    "TotalSegmentator": [[f"s000{c}/ct.nii.gz"] for c in range(6)],
    "DeepLesion": [[f"Images_png/00000{p}_0{s}_01/{k}.png" for s in (1, 2) for k in (103, 104)] for p in (1, 2)],
    "BCCD": [[f"JPEGImages/BloodImage_0000{c}.jpg"] for c in range(5)],
    "WMH": [
        [f"{site}/{p}/{kind}/{scan}.nii.gz" for kind in ("orig", "pre") for scan in ("FLAIR", "T1")]
        for site, p in (("Utrecht", 0), ("Singapore", 50), ("Amsterdam/GE3T", 100), ("Amsterdam/GE1T5", 150))
    ],
    "IDRiD": [
        [f"A/1. Original Images/{'a. Training' if p < 55 else 'b. Testing'} Set/IDRiD_{p:02d}.jpg"]
        for p in (1, 9, 55, 81)
    ],
    "LiTS": [[f"Training Batch {b}/volume-{c}.nii"] for b, c in ((1, 0), (1, 1), (2, 28), (2, 29))],
    "MURA": [[f"train/XR_WRIST/patient0000{p}/study1_positive/image{i}.png" for i in (1, 2)] for p in (1, 2)],
    "M&Ms": [[f"Training/Labeled/{c}/{c}_sa.nii.gz"] for c in ("A0S9V9", "A1D0Q7", "A1D9Z7", "A1E9Q1", "A2C0I1")],
    "DRIVE": [[f"training/images/2{c}_training.png"] for c in (1, 2)] + [["test/images/01_test.png"]],
    "BreakHis": [
        [f"benign/SOB/adenosis/SOB_B_A-14-{p}/{zoom}X/SOB_B_A-14-{p}-{zoom}-001.png" for zoom in (40, 100)]
        for p in ("22549AB", "22549CD", "29960AB")
    ],
    "CBIS-DDSM": [[f"jpeg/Mass-Training_P_0000{p}_{s}_CC/1-1.jpg" for s in ("LEFT", "RIGHT")] for p in (1, 4, 9)],
    "retinopathy": [[f"train/{p}_{side}.jpeg" for side in ("left", "right")] for p in (10, 13, 15)],
    "SPIDER": [[f"images/{p}_{scan}.mha" for scan in ("t1", "t2", "t2_SPACE")] for p in range(1, 5)],
    "no layout": [[f"{name}.png"] for name in ("liver", "knee", "a12", "b7", "x", "chest3")],
    "a counter": [[f"img_{index:04d}.png"] for index in range(9)],
    "Duke OCT": [[f"{name}/{p}/{i:03d}.png" for i in range(1, 8)] for name in ("AMD", "NORMAL") for p in (1, 2, 3)],
    "HECKTOR": [[f"imagesTr/{c}__{m}.nii.gz" for m in ("CT", "PT")] for c in ("CHGJ007", "CHGJ008", "CHUM001")],
    "slices": [[f"p{g}/slice{i}.png" for i in range(9)] for g in (1, 2, 3)],
    "PAPILA": [[f"FundusImages/RET00{p}{eye}.jpg" for eye in ("OD", "OS")] for p in (2, 3, 4)],
    "Kather": [[f"{k}/1{s}{k}_CRC-Prim-HE-0{s}_003.tif_Row_1_Col_{k}.tif" for k in (1, 2)] for s in (1, 2, 9)],
    "dates": [[f"P00{p}/20240{m}0{p}_001.png" for m in (1, 3)] for p in range(1, 7)],
    "dates and times": [[f"P00{p}/24010{p}_10_{m}0_1.png" for m in (1, 3)] for p in range(1, 7)],
    "films": [[f"P00{p}/clip{c}_000{f}.png" for c in (1, 2) for f in (1, 2, 3)] for p in range(1, 7)],
    "PET": [[f"patient{p}/pt_{t}.nii.gz" for t in (1, 2)] for p in range(1, 11)],
    "words": [[f"{name}/scan.png"] for name in ("one", "two", "three")],
    "Covid": [[f"{name}/{i}.png"] for name in ("COVID-19", "NonCOVID") for i in range(12)],
    "OCTA-500": [[f"OCTA_6M/Maps/{k}/{p}.bmp" for k in ("OCT(FULL)", "OCTA(FULL)")] for p in range(10001, 10006)],
    "states of processing": [[f"{k}/P{p:02d}.png" for k in ("raw", "enhanced")] for p in (7, 13, 21, 34, 48)],
    "years above patients": [
        [f"{year}/P{p:03d}/scan.nii.gz" for year in (2019, 2020, 2021) if (p + year) % 3] for p in range(13, 90, 11)
    ],
    "visits of patients 2001 to 2006": [[f"{p}/v{k}/{k}.nii.gz" for k in (1, 2)] for p in range(2001, 2007)],
    "before and after": [[f"{time}/P{p:03d}.nii.gz" for time in ("before", "follow-up")] for p in range(1, 8)],
    "operations": [[f"{time}/P{p:03d}.nii.gz" for time in ("preop", "postop")] for p in range(1, 8)],
    "slices of patients 2001 to 2006": [[f"{p}/{k:03d}.png" for k in range(9)] for p in range(2001, 2007)],
    "HAM10000": [
        [f"HAM10000_images_part_{part}/ISIC_00243{p}.jpg"] for part, p in ((1, 10), (1, 11), (2, 30), (2, 31))
    ],
    "AbdomenCT-1K": [
        [f"AbdomenCT-1K-ImagePart{part}/Case_0000{p}_0000.nii.gz"] for part, p in ((1, 1), (1, 2), (2, 7))
    ],
    "FIVES": [[f"{split}/Original/{p}_{k}.png"] for split in ("train", "test") for p, k in enumerate("AADDGGNN", 1)],
    "classes of splits": [
        [f"{'train' if p % 3 else 'val'}/{name}/{p}.jpg"] for name in ("cyst", "normal") for p in range(1, 19)
    ],
    "P0 of images": [[f"train/Train_P{p}_images/{k:03}.png" for k in range(9)] for p in range(8)],
    "days": [[f"{year}-03-{day}.png"] for year in (2021, 2022) for day in ("05", "17")],
    "exams of patients 2001 to 2006": [
        [f"{p}/E{7 * p + k}/{s}.png" for k in (0, 3) for s in (1, 2)] for p in range(2001, 2007)
    ],
    "exams of patients whose numbers are days": [
        [f"200101{p:02}/E{7 * p + k}/{s}.png" for k in (0, 3) for s in (1, 2)] for p in range(11, 17)
    ],
    "folders of images with numbers": [[f"train_image_{p}/{k:03}.png" for k in range(20)] for p in range(1, 9)],
    "sets with numbers": [[f"TrainingData{p}/{m}.nii.gz" for m in ("T1", "T2")] for p in range(1, 6)],
    "days above patients": [
        [f"{day}/P{p}/scan.nii.gz" for day in days]
        for p, days in ((3, ("2021-05-03", "2022-01-09")), (5, ("2022-01-09",)), (8, ("2021-05-03",)))
    ],
    "RibFrac": [
        [f"ribfrac-{part}/RibFrac{p}-image.nii.gz"]
        for part, first in (("train-images-1", 1), ("val-images", 421))
        for p in range(first, first + 3)
    ],
    "TopCoW": [[f"imagesTr/topcow_{m}_00{p}_0000.nii.gz" for m in ("ct", "mr")] for p in (1, 2, 3)],
    "MM-WHS": [[f"{m}_train/{m}_train_100{p}_image.nii.gz"] for m in ("ct", "mr") for p in (1, 2)],
    "CHASE_DB1": [[f"Image_{p:02d}{eye}.jpg" for eye in "LR"] for p in range(1, 6)],
    "CT-RATE": [
        [f"train/train_{p}/train_{p}_{s}/train_{p}_{s}_{k}.nii.gz" for s in "ab" for k in (1, 2)] for p in (1, 2, 3)
    ],
    "days before patients": [[f"202401{d}_P00{p}.nii.gz" for d in ("09", 12)[: p % 2 + 1]] for p in range(1, 7)],
    "times of patients": [[f"{time}/P{p:03d}.nii.gz" for time in ("baseline", "0 m", "12m")] for p in range(1, 7)],
    "names with times": [[f"P{p:03d}_{time}.nii.gz" for time in ("bl", "6months", "2y")] for p in range(1, 7)],
    "twice in the scanner": [[f"{time}/P{p:03d}.nii.gz" for time in ("scan", "rescan")] for p in range(1, 7)],
    "visits above patients": [[f"V{v}/P{p:03}/T1.nii.gz" for v in range(6)] for p in (13, 21, 34, 48, 52, 66)],
    "visits of numbers above patients": [
        [f"T{t}/{100012 + p}/ct.nii.gz" for t in range(3)] for p in (13, 21, 34, 48, 52, 66)
    ],
    "volunteers V1 to V6": [[f"V{v}/{k:03}.png" for k in range(1, 9)] for v in range(1, 7)],
    "exams of volunteers": [[f"V{v}/E{k}/T{m}.nii.gz" for k in (1, 2) for m in (1, 2)] for v in range(1, 9)],
    "days of mice M01 to M03": [
        [f"M{p:02}/D{k}/{m}.nii.gz" for k in range(6) for m in ("T1", "T2")] for p in (1, 2, 3)
    ],
    "e-ophtha": [
        [f"e_optha_MA/{group}/E00004{p}/DS{p}{k}.JPG" for k in "AB"]
        for group, numbers in (("MA", (10, 24, 31)), ("healthy", (57, 91)))
        for p in numbers
    ],
    "sexes": [[f"{p:02d}{'MF'[p % 2]}.png"] for p in range(1, 19)],
    "nicknames": [[f"{name}/{scan}.nii.gz" for scan in ("flair", "t1")] for name in ("anna", "bert", "carl")],
}


@pytest.mark.parametrize("name", LAYOUT_FILES)
def test_the_patients_of_public_data_sets(name):
    patients = LAYOUT_FILES[name]
    files = sorted(file for own in patients for file in own)
    found = find_patients(files, "", choose_rule(files))
    groups = {patient: {file for file, own in zip(files, found, strict=True) if own == patient} for patient in found}
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, patients))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([f"x{p}_{i}.png" for p in range(4) for i in range(3)], r"4 by --patient prefix1 \(such as x0: .* or 12 by"),
        (
            [f"GBM-{p}_{time}/GBM-{p}_{time}_T1.nii.gz" for p in (100, 101, 102) for time in (11, 21)],
            r"3 by --patient prefix2 \(such as GBM-100: .* or 6 by --patient folder",
        ),
        ([f"{p}{side}.png" for p in (10, 11, 12) for side in "ab"], r"3 by --patient prefix1 \(such as 10: .* or 6 by"),
        ([f"{p}_20252_{v}_0.nii.gz" for p in (1000, 1001) for v in (2, 3)], r"2 by --patient prefix1 \(such as 1000: "),
        ([f"{g}/{g}{i:x}.png" for g in range(5) for i in range(9)], "5 by --patient folder .* or 45 by --patient path"),
        ([f"{g}/{i}.png" for g in (0, 1) for i in range(50)], "2 by --patient folder .* or 100 by --patient path"),
        (
            [f"p{g}/{i}.png" for g in (1, 2, 3) for i in range(9)],
            "3 by --patient folder .* or 27 by --patient path",
        ),
        ([f"{c}/{p}_{i}.png" for c in ("a", "b") for p in (1, 2) for i in range(3)], "2 by --patient prefix1 "),
        (
            [f"{c}-00{p}_{m}.nii.gz" for c in ("01", "02") for p in (1, 2) for m in ("T2", "ADC")],
            "4 by --patient case ",
        ),
        (
            [f"{c}/{p}/{i:03d}.png" for c in ("AMD", "DME", "NORMAL") for p in (1, 2) for i in range(30)],
            r"6 by --patient folders \(such as AMD/1: AMD/1/000.png, ",
        ),
        (
            [f"studies/CT-{n // 3}/study_{n:04d}.nii.gz" for n in range(9)],  # MosMed: grades
            r"3 by --patient folder \(such as CT-0: .* or 9 by --patient file",
        ),
        ([f"case_{c}/patient_{c}{i}.png" for c in (1, 2) for i in (1, 2, 3)], "2 by --patient folder .* or 6 by"),
        (
            [f"Center_0{s}/Patient_0{p}/{m}.nii.gz" for s in (1, 7) for p in (1, 2) for m in ("T1", "FLAIR")],
            r"4 by --patient folders \(such as Center_01/Patient_01: .* or 2 by --patient name",
        ),
        (
            [f"{y}/P{p}.nii.gz" for y in range(2018, 2023) for p in range(y % 2, 9)],
            r"5 by --patient folder .* or 9 by --patient case \(such as P1: 2018/P1.nii.gz, 2019/P1",
        ),
        (
            [f"{k}/{p}.png" for k in ("cyst", "fat") for p in (11, 45, 82, 97) if (k, p) != ("fat", 97)],
            "4 by --patient case .* or 7 by --patient path",
        ),
        (
            [f"{y}/P{p}/ct.nii.gz" for y in (2019, 2020, 2021) for p in (1, 2, 3) if (p + y) % 3],
            "6 by --patient folders .* or 3 by --patient folder ",
        ),
        ([f"IMAGES/2020-01-0{1 + n // 3}_img{87 + n}.png" for n in range(27)], "9 by --patient .* or 27 by"),
        ([f"2021-05-0{d}/{p}/ct.nii.gz" for d in (3, 4, 5) for p in (1, 2)], "6 by --patient folders .* or 2 by"),
        (
            [f"train/{(p + k) % 5}/{9001695 + p}{leg}.png" for p in range(9) for k, leg in enumerate("LR")],
            r"5 by --patient folder .* or 9 by --patient case \(such as 9001695: ",
        ),
        (
            [f"imagesTr/p{p}_s{k}_0000.png" for p in range(4) for k in range(3)],  # slices that nnU-Net calls cases
            r"4 by --patient prefix1 \(such as p0: .* or 12 by",
        ),
        *(
            (
                [f"{v}/P{p:02}.nii.gz" for v in visits for p in range(1, 7)],
                "6 by --patient case .* or 12 by --patient path",
            )
            for visits in (("V1", "V2"), ("Y0", "Y1"), ("BL", "M06"))
        ),
        *(
            (
                [f"{v}/P{p:02}/{m}.nii.gz" for v in visits for p in range(1, 7) for m in ("T1", "T2")],
                "12 by --patient folders .* or 6 by --patient folder ",
            )
            for visits in (("V1", "V2"), ("Y0", "Y1"), ("BL", "M06"))
        ),
        (
            [f"V{v:02}/{9001104 + p}.png" for p in (1, 9, 17, 52) for v in range(6)],  # OAI
            "6 by --patient folder .* or 4 by --patient case ",
        ),
        (
            [f"{code}_{n}.jpg" for code in ("131368cc17e44240", "04a78ef00c5245e0", "7ad22d50d8a1fd") for n in (2, 31)],
            r"3 by --patient prefix1 \(such as 131368cc17e44240: .* or 6 by --patient file",  # films of Kvasir-Capsule
        ),
        ([f"{t}/P{p}.nii.gz" for t in ("test", "retest") for p in range(9)], "9 by --patient case .* or 18 by"),
        ([f"smith{c}/{c}{i}.png" for c in "ab" for i in (1, 2)], "2 by --patient folder .* or 4 by --patient path"),
    ],
)
def test_names_that_leave_open_what_a_patient_is(files, words):
    refuses(words, choose_rule, files)


def test_the_answers_are_rules():
    files = ["x0_1.png", "x0_2_t1.png", "a/x1_1.png"]
    assert find_patients(files, "", "prefix1") == ["x0", "x0", "x1"]
    assert find_patients(files, "", "case") == ["x0_1", "x0_2", "x1_1"]
    assert find_patients(["AMD/1/T1/001.png", "AMD/1/002.png"], "", "folders") == ["AMD/1", "AMD/1"]
    assert find_patients(files, "", "path") == ["x0_1", "x0_2", "a/x1_1"]
    assert set(LAYOUTS) <= {*LAYOUT_FILES, "TCGA", "OASIS", "INbreast", "Kermany", "patient"}


def test_the_splits_that_folders_name():
    names = {
        "a. Training Set": "Training",
        "b. Testing Set": "Testing",
        "Test_Set": "Test",
        "dataset-03test": "test",
        "latest": "latest",
        "val": "val",
        "dataset": "dataset",
        "TrainDataset": "Train",
        "trainval-image": "trainval",
        "ISIC_Validation_Input": "Validation",
        "MoNuSegTestData": "Test",
        "TestEasyDataset": "Test",
        "valImages": "val",
        "ribfrac-train-images-1": "train",
        "Testis": "Testis",
        "test-retest": "test-retest",
        "imagesVal": "imagesVal",  # of nnU-Net, where it is no split
    }
    assert {name: split_word(name) for name in names} == names
    assert folder_splits([f"Original Images/{name}/1.jpg" for name in list(names)[:3]]) == [
        "Training",
        "Testing",
        "Test",
    ]
    assert folder_splits(["Trainer/1.jpg", "b. Testing Set/2.jpg"]) == ["", ""]
    assert folder_splits(["1/ses-test/1.nii", "1/ses-retest/1.nii"]) == ["", ""]
    assert folder_splits(["stress_test_2021/a/1.nii", "stress_test_2021/b/2.nii"]) == ["", ""]
    for shared in ("TrainTest", "Train_and_Test", "Training_data", "data/train_test"):
        assert folder_splits([f"{shared}/train/1.png", f"{shared}/test/2.png"]) == ["train", "test"]
    tests = [f"{kind}/{split}/1.png" for kind in ("rapid_test_positive", "negative") for split in ("train", "test")]
    assert folder_splits(tests) == ["train", "test"] * 2
    assert folder_splits(["ACDC/MySetTraining/a/1.nii", "ACDC/MySetTestData/b/2.nii"]) == ["Training", "Test"]
    files = ["x/train/a/1.jpg", "x/x/train/a/1.jpg", "x/x/test/a/2.jpg", "x/sample.jpg", "x/unlabeled/7.jpg"]
    assert folder_splits(files) == ["train", "train", "test", "", ""]


def test_no_class_is_the_validation(tmp_path):
    names = ("akiec", "bcc", "bkl", "df", "mel", "nv")
    for number, name in enumerate(names):
        for index in range(6):
            write_image(tmp_path / name / f"img{index}.png", noise(6, 8, seed=6 * number + index))
    made = make_datalist(tmp_path)
    assert {entry["image"].split("/")[0] for entry in made["training"]} == {*names}
    assert made["patient_rule"] == "path"
    assert len({entry["patient"] for key in ("training", "validation") for entry in made[key]}) == 36


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.png", "labels/a.png"),
        ("imagesTr/la_003_0000.nii.gz", "labelsTr/la_003.nii.gz"),
        ("Case00.mhd", "Case00_segmentation.mhd"),
        ("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"),
        ("Training Batch 1/volume-3.nii", "Training Batch 1/segmentation-3.nii"),
        ("benign/benign (1).png", "benign/benign (1)_mask.png"),
        ("patient001_frame01.nii.gz", "patient001_frame01_gt.nii.gz"),
        ("A/A_sa.nii.gz", "A/A_sa_gt.nii.gz"),
        ("ISIC2018_Task1-2_Training_Input/ISIC_1.jpg", "ISIC2018_Task1_Training_GroundTruth/ISIC_1_segmentation.png"),
        ("sub-1/anat/sub-1_T1w.nii.gz", "derivatives/labels/sub-1/anat/sub-1_T1w_dseg.nii.gz"),
        ("images_structural/G_1/G_1_T1.nii.gz", "images_segm/G_1_segm.nii.gz"),
        ("rawdata/sub-1/ses-1/dwi/sub-1_ses-1_dwi.nii.gz", "derivatives/sub-1/ses-1/sub-1_ses-1_msk.nii.gz"),
        ("Image_01L.jpg", "Image_01L_1stHO.png"),
        ("testA_1.bmp", "testA_1_anno.bmp"),
        ("Utrecht/0/FLAIR.nii.gz", "Utrecht/0/wmh.nii.gz"),
        ("imagesVal/word_1.nii.gz", "labelsVal/word_1.nii.gz"),
        ("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz"),
        ("cxr_lungseg/images/7.png", "cxr_lungseg/masks/7.png"),
        ("scan1_ROI1.nii.gz", "scan1_roi.nii.gz"),
        ("HGG/X/X_flair.nii.gz", "HGG/X/X_seg.nii.gz"),
        ("images/x.png", "images/x_overlay.png"),
        ("MontgomerySet/CXR_png/MCUCXR_0001_0.png", "MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png"),
        ("Original/1.tif", "Ground Truth/1.tif"),
        ("ct_train/ct_train_1001_image.nii.gz", "ct_train/ct_train_1001_label.nii.gz"),
        ("img/img0001.nii.gz", "annotated/label0001.nii.gz"),
        ("IMD002_Dermoscopic_Image/IMD002.bmp", "IMD002_lesion/IMD002_lesion.bmp"),
        ("A. Segmentation/1. Original Images/IDRiD_1.jpg", "A. Segmentation/2. All Groundtruths/5. OD/IDRiD_1_OD.tif"),
        ("Cirrus/TRAIN001/oct.mhd", "Cirrus/TRAIN001/reference.mhd"),
        ("100307/T1w/T1w_acpc.nii.gz", "100307/T1w/aparc.a2009s+aseg.nii.gz"),
        ("trainval-image/0000.jpg", "trainval-mask/0000.jpg"),
        ("train/train/x.jpeg", "train_gt/train_gt/x.jpeg"),
        ("Test Set/Images/covid_1.png", "Test Set/Ground-truths/mask_covid_1.png"),
        ("TrainDataset/image/1.png", "TrainDataset/mask/1.png"),
        ("human liver/tissue images/1.png", "human liver/label masks modify/1.png"),
        ("ISIC2018_Task1-2_Training_Input/ISIC_1.jpg", "ISIC2018_Task2_Training_GroundTruth_v3/ISIC_1_globules.png"),
        ("1.img.nii.gz", "1.label.nii.gz"),
        ("Slide_01/01_1.png", "GT_01/01_1.png"),
        ("Dataset_BUSI_with_GT/benign/benign (4).png", "Dataset_BUSI_with_GT/benign/benign (4)_mask_1.png"),
        ("images and labels/1.png", "liver and tumor masks/1.png"),
        ("imagesTr/NLST_0001_0001.nii.gz", "masksTr/NLST_0001_0001.nii.gz"),
        ("e_optha_MA/MA/E0000404/DS7.JPG", "e_optha_MA/Annotation_MA/E0000404/DS7_MA.png"),
        ("images/im0001.png", "labels-ah/im0001.ah.png"),
        ("imagesTr/topcow_ct_001_0000.nii.gz", "cow_seg_labelsTr/topcow_ct_001.nii.gz"),
        ("PENGWIN_CT_train_images_part1/001.mha", "PENGWIN_CT_train_labels_2/001.mha"),
        ("1ADC_ss/MGHNICU_010-ADC_ss.mha", "3LABEL/MGHNICU_010.mha"),
        ("data/dataset1_0001_data.nii.gz", "data/dataset1_0001_mask_4label.nii.gz"),
        ("3Dircadb1.1/PATIENT_DICOM/image_0", "3Dircadb1.1/MASKS_DICOM/liver/image_0"),
    ],
)
def test_label_maps_by_their_names(image, label):
    assert (is_label_map(image), is_label_map(label)) == (False, True)


def test_partners_by_their_names():
    maps = [("a_seg", "a_seg.nii"), ("b/segmentation", "b/segmentation.nii"), ("c/7_gt", "c/7_gt.nii")]
    maps += [("m/ct_train_1001_label", "mmwhs.nii"), ("Training/label0001", "btcv.nii")]
    assert match_names(["m/ct_train_1001_image", "Training/img/img0001"], maps) == [["mmwhs.nii"], ["btcv.nii"]]
    wmh = [(f"{place}/wmh", f"{place}/wmh.nii") for place in ("Utrecht/0", "GE3T/100")]
    assert match_names(["Utrecht/0/pre/FLAIR", "GE3T/100/pre/FLAIR"], wmh) == [
        ["Utrecht/0/wmh.nii"],
        ["GE3T/100/wmh.nii"],
    ]
    longer = [(f"masks/{name}", name) for name in ("x_1_MA", "x_1_2_MA", "x_11_MA", "sub-2_label-GM_mask")]
    assert match_names(["i/x_1", "i/x_1_2", "i/sub-2_T1w"], longer) == [
        ["x_1_MA"],
        ["x_1_2_MA"],
        ["sub-2_label-GM_mask"],
    ]
    slices = [(f"{p}/brain/2_HGE_Seg", f"{p}.jpg") for p in ("049", "050")]
    assert match_names(["049/brain/2", "049/bone/2", "050/brain/2"], slices) == [["049.jpg"], [], ["050.jpg"]]
    assert match_names(["1/x_1", "2/x_1"], [("masks/x_1_MA", "x.png")]) == [[], []]  # of either
    fives = [(f"{split}/1_A", f"{split}.png") for split in ("train", "test")]  # of Ground truth, beside Original
    assert match_names(["train/Original/1_A", "test/Original/1_A"], fives) == [["train.png"], ["test.png"]]
    assert match_names(["train/Original/1_A", "test/Original/1_A"], fives[:1]) == [["train.png"], []]
    assert match_names(["data/x_01_data"], [("mask/x_01_mask_4label", "x.nii")]) == [["x.nii"]]
    for one, other in (
        ("1695{}", "LR"),
        ("topcow_{}_2", ("mr", "ct")),
        ("p1_{}", ("pre_op", "post_op")),
        ("12_{}", "lr"),
    ):
        image, map_, own = one.format(other[0]), one.format(other[1]), one.format(other[0]) + "_seg"
        assert match_names([image], [(map_, "x")]) == [[]]
        assert match_names([image], [(map_, "x"), (own, "y")]) == [["y"]]
    sliver = [(f"liver-seg00{p}", f"{p}.mhd") for p in (1, 2)]
    assert match_names(["liver-orig001", "liver-orig002"], sliver) == [["1.mhd"], ["2.mhd"]]
    busbra = [(f"mask_0001-{side}", side) for side in "lr"]
    assert match_names(["bus_0001-l", "bus_0001-r", "bus_0002-l"], busbra) == [["l"], ["r"], []]
    assert match_names(["train/DATA/DATA_000", "test/DATA/DATA_000"], [("test/MASK_000", "x")]) == [[], ["x"]]
    tasks = [(f"labels/Task001/segrap_000{p}", f"{p}.nii") for p in (1, 2)]  # flat beside a folder a case
    assert match_names([f"data/segrap_000{p}/image" for p in (1, 2)], tasks) == [["1.nii"], ["2.nii"]]
    weeks = [f"Patient-001/week-00{w}" for w in (0, 44)]
    below = [(f"{week}/native/segmentation_CT1_origspace", week) for week in weeks]
    assert match_names([f"{week}/CT1" for week in weeks], below) == [[week] for week in weeks]
    assert match_names([f"{week}/{scan}" for week in weeks for scan in ("CT1", "T2")], below) == [[]] * 4  # of either
    told = [*sliver, ("x_seg", "x.mhd")]  # names of which one is enough
    assert match_names(["liver-orig001", "x"], told) == [[], ["x.mhd"]]
    assert match_names(["a", "b/imaging", "c/7_t1", "c/8_t1", "d"], maps) == [
        ["a_seg.nii"],
        ["b/segmentation.nii"],
        ["c/7_gt.nii"],
        [],
        [],
    ]


def test_maps_of_distances_beside_images_are_no_images():
    files = [f"human liver/{kind}/1.png" for kind in ("tissue images", "distance maps", "mask binary")]
    assert without_label_maps(files) == files[:1]


def test_images_beside_labeled_ones_are_named_unlabeled():
    files = ["F_LabeledCase50/images/F_1_0000.nii.gz", "F_LabeledCase50/labels/F_1.nii.gz"]
    more = ["F_UnlabeledCase1-500/Case_1_0000.nii.gz", "F_LabeledCase50/lesions/F_1.nii.gz"]
    assert without_label_maps(files + more) == [files[0], more[0]]
