"""Bad values of every kind, thrown at all bundles and commands as a user gives them; each must be one sentence.

    python tests/torture/bad_values.py [--every 30] [--root CHECKOUT] [--jobs 2] [--log FILE]

Prints how often each kind of value came to a sentence that names it, to another sentence, to a stack trace, to nothing
(silent) or to no end within ``SECONDS``; the exit status is 1 where there is any of the last three. An inference.json
runs with MONAI alone, which says what it likes, so it is run by the command ``infer``.
"""

import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import finetune_bundle
import pretrain_bundle
from programs import run_python
from running import command_of
from wrong_commands import NOWHERE, bad_commands
from wrong_values import bad_values

from dira_monai.bundle.header_values import HEADER

SECONDS = 300
KINDS = [("pretrain", 2), ("pretrain", 3), *finetune_bundle.KINDS]
RUNS = (["train"], ["train", "evaluate"])
WAYS = ("words", "overlay", "args", "python")
OUTCOMES = ("sentence", "other sentence", "trace", "silent", "hang")
PYTHON = "from monai.bundle import run; nan, inf = float('nan'), float('inf'); run(config_file={!r}, **{!r})"


def bundle_of(root, kind):
    name = "pretrain" if kind[0] == "pretrain" else f"finetune_{kind[0]}"
    return root / f"bundles/dira_{name}_{kind[1]}d"


def bundle_cases(root):
    """Kind of value, bundle, files, and the bad value by its name."""
    for kind, files in itertools.product(KINDS, RUNS):
        own = json.loads((bundle_of(root, kind) / f"configs/{files[-1]}.json").read_text())
        for name in (name for name in HEADER if name in own):
            yield from ((what, kind, files, {name: value}) for what, value in bad_values(HEADER[name].rule.told))
        for name in ("batchsize", "output_dri", "intensity_rage"):
            yield "misspelt key", kind, files, {name: 1}
        yield "missing path", kind, files, {"dataset_dir": "/nowhere/at/all"}
        yield "unwritable folder", kind, files, {"output_dir": NOWHERE}
        if files == ["train"]:
            yield "unwritable folder", kind, files, {"ckpt_dir": NOWHERE}


def _is_typed(item):
    """Whether a command line makes something else of a value: a text, where one is meant, or of a text the number."""
    name, value = item
    told = HEADER[name].rule.told if name in HEADER else ""
    return isinstance(value, str) or any(rule in ("a path", "a text") for rule in told.split(", or "))


class Torture:
    """The small runs that all begin with, and what each bad value comes to.

    Attributes:
        root: checkout that is run.
        home: folder for everything.
    """

    def __init__(self, root, home):
        self.root, self.home = root, home
        self.scans = {
            "pretrain": {d: pretrain_bundle.write_scans(home / f"scans{d}", d, count=4, size=32) for d in (2, 3)},
            "finetune": {d: finetune_bundle.write_data(home / f"labeled{d}", d) for d in (2, 3)},
        }

    def options(self, kind, folder):
        """Of a training that lasts seconds."""
        if kind[0] == "pretrain":
            return pretrain_bundle.overrides(kind[1], self.scans["pretrain"], folder)
        return finetune_bundle.overrides(kind, self.scans["finetune"], folder)

    def finished(self, kind):
        return self.home / "finished" / bundle_of(self.root, kind).name

    def train(self, kind):
        """A run to evaluate and infer from."""
        words = command_of(bundle_of(self.root, kind), ["train"], self.options(kind, self.finished(kind)))
        assert (done := self.run(words)).returncode == 0, done.stderr

    def run(self, words):
        return run_python(words, timeout=SECONDS, cwd=self.home, HOME=str(self.home), PYTHONPATH=str(self.root))

    def words(self, number, what, kind, files, bad):
        """A command line with a bad value, given in one of the ways; the name that its sentence must have."""
        folder, bundle, way = self.home / "runs" / str(number), bundle_of(self.root, kind), WAYS[number % len(WAYS)]
        folder.mkdir(parents=True)
        options = self.options(kind, folder if files == ["train"] else self.finished(kind))
        # a part of a value (network_def#features) has no place in a bad one, which MONAI says by a trace
        options = {name: value for name, value in options.items() if name.split("#")[0] not in bad}
        (folder / "own.json").write_text(json.dumps(bad))
        if way == "words" and _is_typed(*bad.items()):
            way = "args"
        if way == "python" and None not in bad.values():  # which MONAI takes for no value at all
            paths = [str(bundle / f"configs/{file}.json") for file in files]
            return what, ["-c", PYTHON.format(paths, options | bad)], next(iter(bad))
        if way == "overlay":
            return what, command_of(bundle, [*files, str(folder / "own")], options), next(iter(bad))
        if way == "args":
            return what, [*command_of(bundle, files, options), "--args_file", f"{folder}/own.json"], next(iter(bad))
        return what, command_of(bundle, files, options | bad), next(iter(bad))

    def judge(self, case):
        """What came of a command line, and its last line."""
        _, words, named = case
        try:
            done = self.run(words)
        except subprocess.TimeoutExpired:
            return "hang", ""
        said = done.stderr.strip().splitlines()[-3:]
        if "Traceback" in done.stderr + done.stdout:
            return "trace", said[-1]
        if done.returncode == 0:
            return "silent", ""
        return "sentence" if named in " ".join(said) else "other sentence", " ".join(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=30, help="takes each Nth value, of commands three times as many")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="checkout that is run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--log", type=Path, default=os.devnull, help="file for each case and what came of it")
    given = parser.parse_args()
    os.nice(10)
    table = collections.defaultdict(collections.Counter)
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(given.jobs) as pool,
        open(given.log, "w") as log,
    ):
        torture = Torture(given.root, Path(name))
        list(pool.map(torture.train, KINDS))
        cases = itertools.islice(bundle_cases(given.root), None, None, given.every)
        work = [torture.words(number, *case) for number, case in enumerate(cases)]
        commands = bad_commands(torture.home, torture.scans)
        work += itertools.islice(commands, None, None, max(1, given.every // 3))
        print(len(work), "bad values", flush=True)
        for case, (outcome, said) in zip(work, pool.map(torture.judge, work), strict=True):
            table[case[0]][outcome] += 1
            print(json.dumps([outcome, *case, said]), file=log, flush=True)
            if outcome in OUTCOMES[2:]:
                print(f"{outcome}: {case[0]} of {case[2]}: {' '.join(case[1])}: {said}", flush=True)
    table["all"] = sum(table.values(), collections.Counter())
    print(f"{'kind of value':20}" + "".join(f"{outcome:>16}" for outcome in OUTCOMES))
    for what, counts in table.items():
        print(f"{what:20}" + "".join(f"{counts[outcome]:16}" for outcome in OUTCOMES))
    sys.exit(any(table["all"][outcome] for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    main()
