"""What a configuration of somebody else's would run is told, however it is hidden; plain configurations are not."""

import json
import os
import pickle
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from dira_monai.sharing.audit import suspects
from dira_monai.sharing.audit_expressions import judge_expression

ROOT = Path(__file__).parents[2]


class Touch:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize(
    "text",
    """
    __import__('os')|eval('1')|exec('1')
    open(@file, 'w')|open(*@words)|os.system('ls')|os.remove(@file)|[os][0].system|sys.modules|subprocess.run('ls')
    torch.load(@file, weights_only=False)|torch.hub.load('a')|torch.os.system('ls')|np.load(@file, allow_pickle=True)
    monai.bundle.run()|monai.utils.run_cmd(['ls'])|monai.apps.download_url(@url)|@network.__class__|().__class__
    getattr(os, 'sys' + 'tem')|getattr(@a, @b)|(lambda o=os: o)().system|[open('f', 'w') for _ in [lambda open: 0]]
    np.testing|torch.utils|dira_monai.files|np.test(extra_argv=@words)|monai.data.dataset.shutil|__local_refs['a']
    monai.networks.nets.resnet.hf_hub_download|monai.data.utils.optional_import('os')|dira_monai.sharing.archive.zipfile.ZipFile
    monai.transforms.LoadImage('a.Reader')|monai.handlers.LogfileHandler('.', 'a.py')|getattr(torch.optim, @name)
    '@a'.system|datetime.sys|@a.copy(@b)|map(@a.replace, @b)|@a.replace(*@words, 'b')|@a.replace('b')|print('a')
    (@folder / 'f.csv').write_text|(@folder / @name).write_text('a')|(@folder / 'a.py').write_text('a')
    pathlib.Path.replace('a', 'b')|map(pathlib.Path, @a)|getattr(torch.optim, 'a', **open('a', 'w'))(1)
    getattr(torch.optim, a=open(1, 'w'))(1)|getattr(torch.optim, **@b)(1)|getattr(torch.optim, '__doc__')(1)|pathlib.os
    torch.PyTorchFileWriter('a.py')|monai.data.utils.optional_import|monai.transforms.utils.optional_import
    (@folder / '../a.csv').write_text('a')|[0][0#::]
    pathlib.Path('f').write_text('a')|pathlib.Path('f').unlink()|torch.distributed.run.main()|globals()|a b
    torch.utils.data.datapipes.utils.decoder.basichandlers('pickle', @a)|torch.utils.data.IterDataPipe()
    torch.compile(@a)|@network.compile(options=@a)|np.genfromtxt(@a)|monai.data.CSVDataset('a')|os.environ|np.lib.format
    torch.nn.functional.torch.nn.Linear(1, 1)|monai.data.utils.np.array([1])|@a.read(@b, allow_pickle=@c)
    torch.distributed.init_process_group('gloo', init_method=@a)|[0 for os.environ['A'] in ['x']]|[0 for @a.b in [1]]
    getattr(torch.optim, @name)('__doc__')|monai.engines.SupervisedTrainer(@a)|@a(*@b, weights_only=False)
    importlib.util.find_spec('scripts.own')|importlib.util.find_spec(@a)|importlib.import_module('os')|importlib.util
    torch.distributed.FileStore('f', 1)|torch.distributed.recv_object_list(@a)|torch.cuda.gds.GdsFile('f', 66)
    torch.cuda.CUDAPluggableAllocator('plain.md', 'a', 'b')
    """.replace("\n", "|").split("|"),
)
def test_expressions_that_reach_out_are_told(text):
    assert not text.strip() or judge_expression(text.strip())


@pytest.mark.parametrize(
    "text",
    """
    @a + '/models'|@train#dataset.classes|[3 * n // 2 for n in @patch_size]|len(@a::b)
    pathlib.Path(@a, 'b') / 'c'
    lambda o: (o['pred'].flatten(), o['label'].flatten())|getattr(torch.optim, @name)(@parameters, lr=@rate)
    torch.device('cuda' if torch.cuda.is_available() else 'cpu')|@network.eval()|json.load(open(@file))
    (@folder / 'table.csv').write_text('a')|@a.replace('a', 'b')|@a.copy()|datetime.timedelta(hours=1)|@a#b[0]
    int(os.environ['LOCAL_RANK'])|os.environ.get('A', 1)|torch.distributed.init_process_group(@a, timeout=@b)
    os.path.join(@a, 'b')|{f'val_{k}': v for k, v in @figures.items()}
    monai.handlers.from_engine(['pred'])|torch.distributed.is_initialized() or 1|dira_monai.bundle_root()
    importlib.util.find_spec('dira_monai') is None
    """.replace("\n", "|").split("|"),
)
def test_expressions_that_compute_are_plain(text):
    assert not text.strip() or judge_expression(text.strip()) is None


@pytest.mark.parametrize(
    ("config", "places"),
    [
        ({"a": {"_target_": "os.system", "command": "ls"}}, ["a#_target_"]),
        ({"a": [{"_target_": "torch.os.system"}]}, ["a#0#_target_"]),
        ({"a#_target_": "subprocess.run", "b::_target_": "scripts.Own"}, ["a#_target_", "b::_target_"]),
        ({"a": {"_target_": "@b"}, "b": "os.system"}, ["a#_target_"]),
        ({"a": {"_target_": "run_cmd"}}, ["a#_target_"]),  # short names are any of MONAI's
        ({"a": {"_target_": "no_such_name"}}, ["a#_target_"]),
        ({"a": {"_target_": "torch.utils.data.datapipes.utils.decoder.basichandlers"}}, ["a#_target_"]),
        ({"a": {"_target_": "monai.networks.trt_compiler.trt_compile"}}, ["a#_target_"]),
        ({"a": {"_target_": "monai.networks.nets.transchex.BertPreTrainedModel.from_pretrained"}}, ["a#_target_"]),
        ({"a": {"_target_": "LMDBDataset"}}, ["a#_target_"]),
        ({"a": {"_target_": "ignite.handlers.Checkpoint"}, "b": {"_target_": "ignite.metrics.Loss"}}, ["a#_target_"]),
        ({"a": {"_target_": "PerceptualLoss"}}, ["a#_target_"]),  # of a medical network: fetches its code and runs it
        ({"a": {"_target_": "ignite.handlers.VisdomLogger", "server": "host"}}, ["a#_target_"]),
        (
            {"a": {"_target_": "WandBStatsHandler"}, "b": {"_target_": "ClearMLStatsHandler"}},
            [f"{k}#_target_" for k in "ab"],
        ),
        ({"a": {"_target_": "torch.utils.data.DataLoader"}}, []),
        ({"a": {"_target_": "LoadImaged", "reader": "other.Reader"}}, ["a#reader"]),
        ({"a_reader": "ITKReader", "b": {"reader": "@a_reader"}, "writer": ["nibabelwriter", "print"]}, ["writer#1"]),
        (
            {"a": {"_target_": "dira_monai.cli.archives.unpack"}, "b": {"_target_": "monai.data.utils"}},
            ["a#_target_", "b#_target_"],
        ),
        ({"a": {"_target_": ["Compose"]}, "b": {"_target_": None}}, ["a#_target_", "b#_target_"]),
        ({"a": {"_mode_": "debug"}, "b": {"_mode_": "default"}}, ["a#_mode_"]),  # pdb runs what .pdbrc says
        ({"a": {"_target_": "Compose", "compile_kwargs": {"b": 1}}}, ["a#compile_kwargs", "a#compile_kwargs#b"]),
        ({"a": {"_target_": "CSVDataset"}, "b": {"_target_": "TorchVision"}}, [f"{key}#_target_" for key in "ab"]),
        ({"a": {"_target_": "torch.nn.functional.torch.save"}}, ["a#_target_"]),
        ({"a": {"weights_only": "$0"}, "b": {"weights_only": True, "allow_pickle": False}}, ["a#weights_only"]),
        (
            {"a": {"filename": "torch.py"}, "b": {"filename": "@a"}, "c": {"filename": "t.csv"}},
            ["a#filename", "b#filename"],
        ),
        ({"tracking_uri": "https://host", "_desc_": "as in https://arxiv.org"}, ["tracking_uri"]),
        ({"a": "%", "b": {"imports": ["$import os"]}, "c": "@#####a"}, ["a", "b#imports#0", "c"]),
        ({"+imports": ["$import os"], "imports": ["$@#0.abort()"]}, ["imports#0"]),
        ({"a": "%/elsewhere/b.json::c"}, ["a"]),
        ({"imports": ["$import os", "$import numpy as np", "$import torch.distributed"]}, []),
        (
            {"imports": ["$import scripts", "$from os import system", "$ import os as np"]},
            [f"imports#{n}" for n in (0, 1, 2)],
        ),
        (
            {"imports": ["$import numpy as n", "$import os, shutil", "$import", "$import os.__main__"]},
            [f"imports#{n}" for n in range(4)],
        ),
        (
            {"a": "$import os", "b": "$@imports#0.replace('a', 'b')", "c": "%imports::0", "d": ["@imports#0"]},
            [*"abc", "d#0"],
        ),
        ({"a": {"_target_": "torch.nn.Linear"}, "b": {"_target_": "Compose"}, "c": "%a", "d": "os.system"}, []),
    ],
)
def test_what_a_config_calls_is_told_with_its_place(config, places):
    assert [line.split(": ")[1] for line in suspects("train.json", json.dumps(config).encode())] == places


CALL = "open('was_run', 'w')"
HIDDEN_CODE = {  # configs that make a file was_run when MONAI evaluates them
    "after what is no comment": {"a": f"$[1, 2][0#{CALL}\n]"},
    "in a key": {"k": {"b": 0}, f"k::b or {CALL} or @k": {"c": "$@#b"}},
    "in a frame": {"a": f"$(x for x in [1]).gi_frame.f_builtins['eval'](\"{CALL}\")"},
    "in a module's inside": {"a": f"$getattr(torch.optim, '__builtins__')['eval'](\"{CALL}\")"},
    "in a module": {"a": f'$(lambda m: m.runstring("{CALL}", {{}}))(np.testing)'},
    "of imports elsewhere": {
        "b": {"imports": ["$import os"]},
        "a": "$@b['imp' + 'orts'][0].mkfifo('was_run')",
    },
    "as a reader": {"a": {"_target_": "LoadImage", "reader": "open", "file": "was_run", "mode": "w"}},
    "as a reader by reference": {
        "b": "os.mkdir",
        "a": {"_target_": "LoadImage", "reader": "@b", "path": "was_run"},
    },
    "as a reader of an expression": {"a": "$monai.transforms.LoadImage('os.mkdir', path='was_run')"},
    "by moving": {"imports": ["$import pathlib"], "a": "$pathlib.Path('plain.md').replace('was_run')"},
    "by moving without a path": {"imports": ["$import pathlib"], "a": "$pathlib.Path.replace('plain.md', 'was_run')"},
    "by linking": {"imports": ["$import pathlib"], "a": "$pathlib.Path('plain.md').link_to('was_run')"},
    "by unpacking": {
        "b": {"_target_": "dira_monai.sharing.archive.zipfile.ZipFile", "file": "plain.zip"},
        "a": "$@b.extractall()",
    },
    "by another spelling": {"imports": ["$import re"], "a": f"$__loc\U0001d4b6l_refs['imports::0'].enum.bltns.{CALL}"},
    "in the inside of a module": {
        "n": "__getattribute__",
        "a": f"$getattr(torch.optim, @n)('__builtins__')['eval'](\"{CALL}\")",
    },
    "as a class that is called later": {
        "b": {"_target_": "NumpyReader", "_mode_": "callable"},
        "a": "$@b(allow_pickle=True).read('plain.md')",
    },
    "in a module under another's name": {
        "a": {
            "_target_": "torch.nn.functional.torch.fx.graph_module.reduce_graph_module",
            "body": {"_code": "def forward(self): pass"},
            "import_block": f"{CALL}\n",
        }
    },
    "in what a data pipe decodes": {
        "imports": ["$import pathlib"],
        "a": "$torch.utils.data.datapipes.utils.decoder.basichandlers('pickle', pathlib.Path('plain.md').read_bytes())",
    },
    "in an array": {
        "b": {"_target_": "LoadImage", "reader": "NumpyReader", "allow_pickle": True},
        "a": "$@b('plain.md')",
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", HIDDEN_CODE)
def test_code_that_a_config_hides_is_told(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain.md").write_bytes(pickle.dumps(Touch(), 0))
    with zipfile.ZipFile("plain.zip", "w") as archive:
        archive.writestr("was_run", "")
    config = HIDDEN_CODE[way]
    assert list(suspects("train.json", json.dumps(config).encode()))
    assert not Path("was_run").exists()
    parser = ConfigParser(json.loads(json.dumps(config)))
    for key in config:
        with suppress(Exception):
            parser.get_parsed_content(key)
    assert Path("was_run").exists()  # else it is no attack


@pytest.mark.parametrize(("words", "plain"), [("weights_only=True", True), ("weights_only=False", False), ("", False)])
def test_weights_that_are_read_as_tensors_alone_are_plain(words, plain):
    assert (judge_expression(f"torch.load('model.pt', {words})") is None) == plain


def test_no_config_has_a_key_twice():
    def unique(pairs):
        names = [name for name, _ in pairs]
        assert [name for name in names if names.count(name) > 1] == []
        return dict(pairs)

    for path in (ROOT / "bundles").glob("*/configs/*.json"):
        json.loads(path.read_text(), object_pairs_hook=unique)


def test_configs_of_this_package_are_plain():
    files = sorted((ROOT / "bundles").glob("*/configs/*.json"))
    assert len(files) > 50
    assert [line for file in files for line in suspects(file.name, file.read_bytes())] == []


def test_yaml_is_judged_or_said_to_be_unread(monkeypatch):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = yaml.safe_dump({"a": {"_target_": "os.system"}, "b": "$os.remove('a')"}).encode()
    assert [line.split(": ")[1] for line in suspects("a.yaml", text)] == ["a#_target_", "b"]
    bomb = ["a0: &a0 [[], []]", *(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9))]
    assert "more than 1000000 values" in "".join(suspects("a.yml", "\n".join(bomb).encode()))
    monkeypatch.setitem(sys.modules, "yaml", None)
    unread = ["a.yaml: : cannot be read as a config (reading YAML needs the package PyYAML)"]
    assert [line.replace("yaml: cannot", "yaml: : cannot") for line in suspects("a.yaml", text)] == unread


@pytest.mark.parametrize(
    "text", ["\ufeff{}", "{", "[" * 100_000, '{"a": "$' + "-" * 50_000 + '1"}', "1" * 5000, "\xff"]
)
def test_config_that_cannot_be_read_is_told(text):
    told = list(suspects("a.json", text.encode("latin-1") if text == "\xff" else text.encode()))
    assert len(told) == 1
    assert "cannot be" in told[0]
