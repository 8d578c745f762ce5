import csv
import os

from dira_monai.utils.files import write_csv


def test_a_table_keeps_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9, 1.png")
    write_csv(tmp_path / "a.csv", [["file", "value"], [name, None]])
    assert (tmp_path / "a.csv").read_bytes() == b'file,value\r\n"caf\xe9, 1.png",\r\n'
    with (tmp_path / "a.csv").open(newline="", errors="surrogateescape") as file:
        assert [*csv.reader(file)] == [["file", "value"], [name, ""]]
