"""The documentation: every command would be understood, every link leads on."""

import ast
import inspect
import json
import re
import shlex

import monai.bundle
import pytest
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from pages import PAGES, ROOT, SITE, blocks, commands
from run_docs import ELSEWHERE, script

import dira_monai
from dira_monai.__main__ import COMMANDS, load_command
from dira_monai.workflows.study.grid import DEFAULTS

BUNDLES = sorted((ROOT / "bundles").iterdir())

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# commands


def option_names(words):
    """Names of the options, whether the value follows behind a space or an equals sign."""
    return [word[2:].split("=")[0] for word in words if word.startswith("--")]


@pytest.fixture(scope="module")
def known():
    """The commands of the package as fire gets them."""
    return {word: load_command(word) for word in COMMANDS}


def check_package(words, whole, known):
    """Nothing, if ``dira-monai`` takes the words: command, options, and, of a whole one, all arguments."""
    name, *rest = words
    assert name in known, f"no command {name}"
    signature = inspect.signature(known[name])
    options = option_names(rest)
    names = [*signature.parameters, "help"]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        files = [file for bundle in BUNDLES for file in bundle.glob("configs/*.json")]
        names += [key for file in files for key in json.loads(file.read_text())]
    names += DEFAULTS if name == "study" else []
    assert [option for option in options if option.split("#")[0] not in names] == []
    if whole and "help" not in options:
        behind = ["", *rest]  # the word before each
        plain = [w for w, before in zip(rest, behind, strict=False) if not (w + " " + before).count("--")]
        signature.bind(*plain, **dict.fromkeys(options))


def config_files(words, folder):
    """Paths that ``--config_file`` names, below the folder, but for ``plan.json``, which the command plan writes.

    None where it names none. In zoo is what was downloaded; the bundle that a training leaves has the
    values of its own bundle.
    """
    value = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "--config_file"), None)
    if value is None:
        return None
    names = ast.literal_eval(value) if value.startswith("[") else [value]
    if "output/bundle/" in value:  # evaluate.json in there is two files in one
        names = [name.replace("output/bundle/", "") for name in names]
        names = [re.sub("evaluate.json$", other, names[0]) for other in ("train.json", "evaluate.json")]
    return [folder / re.sub("^zoo/", "bundles/", name) for name in names if name != "plan.json"]


def unknown_options(function, words, files):
    """Options that are neither arguments of MONAI's function nor ids of the merged configuration."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    known = [*inspect.signature(function).parameters, "key"]  # which stands for any
    known += DEFAULT_MLFLOW_SETTINGS["configs"] if "--tracking" in words else []
    return [
        option
        for option in option_names(words)
        if not (option in known or option in parser or is_argument(option, parser))
    ]


def is_argument(option, parser):
    """Whether the option is an argument of something that the configuration makes, which may be left out there."""
    section, _, _ = option.rpartition("#")
    return bool(section) and section in parser and "_target_" in parser[section]


def check_bundle(words, page):
    """Nothing, if ``python -m monai.bundle`` takes the words, from the page's root or the folder of a bundle."""
    function = getattr(monai.bundle, words[0])
    places = [page.parents[1]] if page not in SITE else [ROOT, *BUNDLES]
    wrong = []
    for place in places:
        files = config_files(words, place)
        if files is None:
            return  # a fragment, which names the command alone
        if all(file.is_file() for file in files):
            wrong.append(unknown_options(function, words, files))
    assert wrong, "no such configuration file"
    assert [] in wrong, f"unknown options {wrong}"


def check_script(words):
    """Nothing, if the script is in the repository and its text has the options."""
    source = (ROOT / words[0]).read_text()
    assert [option for option in option_names(words[1:]) if f'"--{option}"' not in source] == []


def check_make(words):
    targets = re.findall(r"^([a-z0-9][a-z0-9_-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = [word for word in words if "=" not in word]
    assert [word for word in asked if word not in targets] == []


def check_command(words, whole, page, known):
    """Nothing, if what the words start would take them; programs of others are not looked at."""
    if "monai.bundle" in words[:-1]:
        check_bundle(words[words.index("monai.bundle") + 1 :], page)
    elif "dira_monai" in words[:-1]:
        check_package(words[words.index("dira_monai") + 1 :], whole, known)
    elif words[0] == "dira-monai":
        check_package(words[1:], whole, known)
    elif words[0] == "make":
        check_make(words[1:])
    elif scripts := [i for i, word in enumerate(words) if word.endswith(".py")]:
        check_script(words[scripts[0] :])


@every_page
def test_every_command_would_be_understood(page, known):
    for words, whole in commands(page):
        try:
            check_command(words, whole, page, known)
        except (AssertionError, TypeError, AttributeError, OSError) as error:
            pytest.fail(f"{page.relative_to(ROOT)}: {shlex.join(words)}: {error}")


def test_the_checks_of_commands_can_fail(known):
    bundle = "python -m monai.bundle run --config_file bundles/dira_pretrain_3d/configs/train.json --dataset_dir D"
    page = ROOT / "README.md"
    for good in (
        bundle,
        "python -m dira_monai datalist D --output F",
        "dira-monai pretrain D --method simsiam --network_def#features [8] --temperature 0.1",
        "make test",
        "python benchmarks/methods.py --dims 3",
    ):
        check_command(good.split(), True, page, known)
    for bad in (
        f"{bundle} --no_such_value 1",
        bundle.replace("train.json", "nothing.json"),
        "python -m dira_monai datalists D",
        "dira-monai finetune D",
        "dira-monai pretrain D --tempertaure 0.1",
        "python -m dira_monai datalist D --outputs F",
        "python -m dira_monai datalist",
        "make tests",
        "python benchmarks/methods.py --dim 3",
    ):
        with pytest.raises((AssertionError, TypeError)):
            check_command(bad.split(), True, page, known)


def test_commands_are_found_on_the_pages():
    found = [shlex.join(words) for page in SITE for words, _ in commands(page)]
    assert len(found) > 60
    assert sum("dira_monai" in text for text in found) > 20
    assert any(text.startswith("make demo") for text in found)


def test_the_script_that_runs_the_pages_leaves_out_only_what_is_there():
    texts = [text for page in PAGES for _, _, text in blocks(page)]
    assert len(texts) > 60
    left = {why for text in texts for why in script(text, ROOT)[1].values()}
    assert left == set(ELSEWHERE.values())
    assert sum(bool(script(text, ROOT)[0]) for text in texts) > 55


# links


def anchors(page):
    """Headings as the addresses that GitHub makes of them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@every_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{target}: no such file"
        assert not heading or heading in anchors(path), f"{target}: the headings are {anchors(path)}"


def test_the_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text()
    missing = [page.name for page in SITE[1:] if page.name != "README.md" and f"]({page.name}" not in index]
    assert missing == [], "give each a line in docs/README.md"


# code


def defined():
    """Names as the pages write them, ``module.function`` and ``Class.method``, with those of base classes."""
    yield from (f"dira_monai.{name}" for name in dira_monai.__all__)
    for path in (ROOT / "dira_monai").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield f"{path.stem}.{node.name}"
            if isinstance(node, ast.ClassDef):
                kind = getattr(dira_monai, node.name, None)
                methods = dir(kind) if kind else [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
                yield from (f"{node.name}.{method}" for method in methods)


@pytest.mark.parametrize("name", ["method", "objectives"])
def test_formulas_stand_where_the_page_says(name):
    text = (ROOT / f"docs/{name}.md").read_text()
    asked = set(re.findall(r"`([A-Za-z]\w+\.\w+)`", text))
    others = {word for word in asked if word.endswith((".json", ".py", ".pt", ".csv")) or word.startswith("torch.")}
    assert len(asked - others) > 5
    assert sorted(asked - others - {*defined()}) == []
