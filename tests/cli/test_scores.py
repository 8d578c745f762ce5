import pytest

from dira_monai.cli.scores import compare_scores, read_scores
from dira_monai.utils.errors import InputError


def evaluated(folder, text):
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation/metrics.csv").write_text(text)
    return folder


def test_runs_stand_side_by_side(tmp_path):
    first = evaluated(tmp_path / "a", "val_mean_dice,0.5\nval_hd95_mm,3.25\n")
    second = evaluated(tmp_path / "b", "val_mean_dice,0.75\nval_extra,nan\n")
    (second / "panel.png").write_bytes(b"")
    head, *rows, picture = compare_scores([first, second]).splitlines()
    assert head.split() == [str(first), str(second)]
    assert [row.split() for row in rows] == [
        ["val_mean_dice", "0.5000", "0.7500"],
        ["val_hd95_mm", "3.2500", "-"],
        ["val_extra", "-", "nan"],
    ]
    assert picture == f"picture: {second / 'panel.png'}"
    assert read_scores(first) == {"val_mean_dice": 0.5, "val_hd95_mm": 3.25}


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs at least one output folder"):
        compare_scores([])
    with pytest.raises(InputError, match=r"metrics\.csv: no such file; run train.json with evaluate\.json"):
        read_scores(tmp_path)
    broken = evaluated(tmp_path / "c", "val_mean_dice;0.5\n")
    with pytest.raises(InputError, match=r"metrics\.csv: not a table of names and numbers"):
        read_scores(broken)
