"""Each value of a foreign config that may be code is shown; those of the shipped bundles are known."""

import json
import re
import sys
from pathlib import Path

import pytest

from dira_monai.sharing.audit import check_files, unknown_values
from dira_monai.sharing.known import CALLED, FILE, collect_digests, list_values

BUNDLES = sorted((Path(__file__).parents[2] / "bundles").iterdir())
TRAIN = json.loads((BUNDLES[-1] / "configs/train.json").read_text())


def rows(config, name="configs/train.json"):
    return [*unknown_values(name, json.dumps(config).encode())]


def test_known_values_are_those_of_the_shipped_bundles():
    advice = "the configs of the bundles have changed: python -m dira_monai.sharing.known bundles"
    assert json.loads(FILE.read_text()) == collect_digests(BUNDLES), advice


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_shipped_bundles_have_no_row(bundle):
    names = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    files = {name: path for name, path in names.items() if re.match(r"LICENSE|(configs|docs)/", name)}
    assert len(files) >= 9
    assert check_files(bundle.name, files)[1] == {}


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        # names bound as arguments, modules under other names or as attributes, whatever an expression says
        ({"a": "$(lambda open: open)(print)"}, ["a: $(lambda open: open)(print)"]),
        ({"a": "$numpy.load('a')"}, ["a: $numpy.load('a')"]),
        ({"a": "$@network.training.os"}, ["a: $@network.training.os"]),
        ({"a": ["$1", ["$2"]], "b": {"c": " $3"}}, ["a#0: $1", "a#1#0: $2", "b#c:  $3"]),
        # a handler that writes a file of any name, readers that are named, files that may hold pickles
        ({"handlers": [{"_target_": "LogfileHandler"}]}, ["handlers#0#_target_: LogfileHandler"]),
        (
            {"a": {"reader": "print", "allow_pickle": True, "n": 1}},
            ["a#reader: print", "a#allow_pickle: true", "a#n: 1"],
        ),
        # what is called, in every form
        ({"_target_": "print", "a#_target_": "print"}, ["_target_: print", "a#_target_: print"]),
        ({"a": {"_target_": ["print"]}, "b::_target_": "@c"}, ["a#_target_#0: print", "b::_target_: @c"]),
        ({"network_def": {"_mode_": "debug"}}, ["network_def#_mode_: debug"]),  # pdb runs what .pdbrc says
        ({"optimizer_name": "sys", "reader": "print"}, ["optimizer_name: sys", "reader: print"]),
        ({"mlflow": "https://host", "_desc_": "as in https://arxiv.org"}, ["mlflow: https://host"]),
        # references and macros, which reach other files too
        ({"a": "@imports#0", "b": "%docs/a.json::c"}, ["a: @imports#0", "b: %docs/a.json::c"]),
        ({"+imports": ["$import os", "$import scripts"]}, ["+imports#1: $import scripts"]),
        # a known value at another place
        (
            {"run": ["$import os"], "a": {"b": "$@train#trainer.run()"}},
            ["run#0: $import os", "a#b: $@train#trainer.run()"],
        ),
        # names that would become code themselves
        ({"imports": {"'] or print() #": "$import os"}}, ["imports#'] or print() #: $import os"]),
        # plain values at the top, where users change them, are not shown; nor are descriptions, but for expressions
        ({"a": "text", "class_names": ["a", "b"], "b": [1, True, None], "c": {"_desc_": "text"}}, []),
        ({"c": {"_desc_": "$1"}}, ["c#_desc_: $1"]),
        ({"network_def#features": [1, 2], "network_def": {"features": [3]}}, []),  # numbers where numbers are
        ({"network_def": {"features": ["a"]}}, ["network_def#features#0: a"]),
    ],
)
def test_what_differs_is_shown(config, shown):
    assert rows(config) == shown


def test_known_values_stay_known_beside_others():
    config = json.loads(json.dumps(TRAIN))
    config["max_epochs"], config["imports"] = 3, ["$import numpy.random", *config["imports"]]
    config["train"]["handlers"].insert(0, {"_target_": "print"})
    assert rows(config) == ["imports#0: $import numpy.random", "train#handlers#0#_target_: print"]


def test_metadata_is_text_but_for_what_monai_evaluates():
    metadata = {"changelog": {"0.1.0": "first"}, "authors": "$1", "a": {"_target_": "print"}}
    assert rows(metadata, "configs/metadata.json") == ["authors: $1", "a#_target_: print"]


@pytest.mark.parametrize(
    "use", [r"getattr\([^)]*?@(\w+)", r"optimizer_class\(@(\w+)", r'"(?:reader|writer)": "@(\w+)"']
)
def test_names_by_which_shipped_configs_find_code_are_compared(use):
    text = "".join(path.read_text() for bundle in BUNDLES for path in bundle.glob("configs/*.json"))
    names = set(re.findall(use, text))
    assert names <= CALLED


def test_each_value_is_visited_once():
    places = [shown for shown, _, _ in list_values("configs/a.json", {"a": {"b": [*range(20_000)]}})]
    assert places == [f"a#b#{number}" for number in range(20_000)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *(
            (name, "other file")
            for name in ("conftest.py", "scripts/a.PY", "models/model.ts", "docs/a.ipynb", ".pdbrc")
        ),
        *((name, "other file") for name in ("a.pth.txt", "sitecustomize.py", "pytest.ini", "setup.cfg", "docs/a.png")),
        ("configs/logging.conf", "other file"),
        ("configs/.json", "cannot be read as a config"),
        ("docs/more/b.YML", "cannot be read as a config"),
        *((name, None) for name in ("LICENSE", "README.md", "docs/README.md", "docs/data_license.txt")),
        *((name, None) for name in ("models/model.onnx", "models/.gitkeep", ".gitattributes")),
    ],
)
def test_files_that_no_shipped_bundle_has_are_shown(tmp_path, name, shown):
    path = tmp_path / "file"
    path.write_text("a: b: c")
    found = check_files("a", {name: path})[1]
    assert list(found) == [name] * bool(shown)
    assert all(row[0].startswith(shown) for row in found.values())


def test_yaml_is_read_or_said_to_be_unread(monkeypatch):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = yaml.safe_dump({"a": {"_target_": "print"}, "b": "$1"}).encode()
    assert [*unknown_values("a.yaml", text)] == ["a#_target_: print", "b: $1"]
    many = ["a0: &a0 [[], []]", *(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9))]
    for text_with_aliases in ("\n".join(many).encode(), b"a: &a {b: *a}", b"a: &a {b: 1}\nc: {<<: [*a, *a]}"):
        assert "it has aliases" in "".join(unknown_values("a.yml", text_with_aliases))
    assert "more than 1000000 values" in "".join(unknown_values("a.json", b"[%s0]" % (b"0," * 1_000_001)))
    monkeypatch.setitem(sys.modules, "yaml", None)
    unread = "cannot be read as a config (reading YAML needs the package PyYAML)"
    assert [*unknown_values("a.yaml", text)] == [unread]


@pytest.mark.parametrize("text", ["\ufeff{}", "{", "[" * 100_000, "1" * 5000, "\xff"])
def test_config_that_cannot_be_read_is_shown(text):
    content = text.encode("latin-1") if text == "\xff" else text.encode()
    (row,) = unknown_values("a.json", content)
    assert row.startswith("cannot be read as a config")


def test_config_too_large_to_read_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("dira_monai.sharing.audit.MAX_CONFIG", 1000)
    (tmp_path / "large.json").write_text(" " * 999 + "{}")
    assert check_files("a", {"large.json": tmp_path / "large.json"})[1] == {"large.json": ["too large to be read"]}
