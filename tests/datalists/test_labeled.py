"""Lists of labeled data: refused arguments, what MONAI reads of them, their summary."""

import pytest
from labeled_files import LISTS, classify, segment, ten, write_maps, write_table
from monai.data import load_decathlon_datalist

from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.options import LabelOptions
from dira_monai.datalists.summary import describe_labeled, summarize_datalist
from dira_monai.utils.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_threshold": 1, "label_values": [0, 1]}, "label_threshold and label_values exclude each other"),
        ({"label_threshold": "a"}, "label_threshold must be a number that separates 2 classes, got 'a' for 2"),
        ({"label_threshold": 1, "class_names": ["a", "b", "c"]}, "separates 2 classes, got 1 for 3"),
        ({"label_values": [0, 0]}, r"label_values must be 2 different values, one a class, got \[0, 0\]"),
        ({"class_names": ["a"]}, r"class_names must be a list of at least 2 different names, got \['a'\]"),
        ({"class_names": ["a", "a"]}, r"at least 2 different names, got \['a', 'a'\]"),
        ({"class_names": "ab"}, "at least 2 different names, got 'ab'"),
        ({"multi_label": True}, "multi_label is invalid for the task segmentation, got True"),
        ({"test_fraction": 1}, "test_fraction must be at least 0 and below 1, got 1"),
        ({"validation_fraction": 0}, "validation_fraction must lie between 0 and 1, got 0"),
        ({"exclude_patients_of": "boxes"}, r"exclude_patients_of must be a split of the data \(\), got 'boxes'"),
    ],
)
def test_arguments_that_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        segment(write_maps(tmp_path, 2, count=3), **options)


def test_a_task_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="task must be segmentation or classification, got 'detection'"):
        LabelOptions(task="detection", class_names=["a", "b"]).check()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_monai_reads_the_lists_of_segmentation(tmp_path, spatial_dims):
    made = segment(write_maps(tmp_path / "data", spatial_dims))
    write_datalist(made, tmp_path / "out" / "datalist.json")
    for key in LISTS:
        read = load_decathlon_datalist(tmp_path / "out" / "datalist.json", True, key, made["dataset_dir"])
        assert [(entry["image"], entry["label"]) for entry in read] == [
            (f"{tmp_path}/data/{entry['image']}", f"{tmp_path}/data/{entry['label']}") for entry in made[key]
        ]


@pytest.mark.parametrize("multi_label", [False, True])
def test_monai_reads_the_lists_of_classification(tmp_path, multi_label):
    head = "file,healthy,ill" if multi_label else "file,label"
    text, names = ten(["1,0", ",1", "0,1"] if multi_label else ["healthy", "ill", "ill"], head)
    made = classify(write_table(tmp_path / "data", text, names), multi_label=multi_label)
    write_datalist(made, tmp_path / "datalist.json")
    for key in LISTS:
        read = load_decathlon_datalist(tmp_path / "datalist.json", False, key, made["dataset_dir"])
        assert [(entry["image"], entry["label"]) for entry in read] == [
            (f"{tmp_path}/data/{entry['image']}", entry["label"]) for entry in made[key]
        ]


def test_describe_labeled(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda index: f",p{index // 3},")
    write_table(tmp_path, text + "".join(f"gone{index},ill,p,\n" for index in range(5)) + "x0,ill,p,odd\n", names)
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("x0,ill,p,odd\n", ""))
    made = classify(tmp_path, test_fraction=0)
    table, notes = describe_labeled(made).splitlines()[:5], describe_labeled(made).splitlines()[5:]
    counts = {key: len(made[key]) for key in LISTS}
    assert table[0].split() == ["training", "validation", "test"]
    assert table[1].split() == ["images", *map(str, counts.values())]
    assert table[2].split() == ["patients", "3", "1", "0"]
    ill = [sum(entry["label"] for entry in made[key]) for key in LISTS]
    assert table[3].split() == ["healthy", *(str(counts[key] - n) for key, n in zip(LISTS, ill, strict=True))]
    assert table[4].split() == ["ill", *map(str, ill)]
    assert notes[0] == "5 skipped, patients by labels.csv"
    assert notes[1].startswith("skipped: gone0 does not exist")
    assert notes[4] == "skipped: ... and 2 more"


def test_describe_lists_of_version_0_1():
    entries = {key: [{"image": f"{key}.png", "label": 0, "patient": key}] for key in LISTS}
    old = {"class_names": ["healthy"], "left_out": {"labeled unclear": 2}, **entries}
    assert describe_labeled(old).endswith("left out: 2 labeled unclear")
    assert summarize_datalist(old | {"left_out": {"test": 3}}).endswith("0 skipped, 3 of split test left out")
