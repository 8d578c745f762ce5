"""MONAI's federated client with the bundles: what is exchanged, averaged, evaluated, and what stays at the site."""

import json
import sys
import warnings
from pathlib import Path

import monai.bundle
import pretrain_bundle
import pytest
import torch
from finetune_bundle import NETWORKS
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from running import assert_equal_states, load, load_script

from dira_monai.bundle.run_json import read_starts
from dira_monai.phantoms.chest import write_phantoms
from dira_monai.utils.errors import InputError

ROOT = Path(__file__).parents[2]
KINDS = [(task, dims) for task in ("pretrain", "finetune_segmentation", "finetune_classification") for dims in (2, 3)]
PRETRAIN = [kind for kind in KINDS if kind[0] == "pretrain"]
KEYS = {"pretrain": "val_loss", "finetune_segmentation": "val_mean_dice", "finetune_classification": "val_mean_auc"}
SMALL = {  # overrides that make a round last seconds
    "pretrain": {
        "batch_size": 2,
        "epoch_length": 2,
        "val_samples": 4,
        "queue_size": 8,
        "discriminator_channels": 4,
        "momentum": 0.9,
        "validation_fraction": 0.34,
    },
    "finetune_segmentation": {
        "batch_size": 2,
        "epoch_length": 2,
        "warmup_epochs": 0,
        "schedule_epochs": 2,
        "test_fraction": 0.34,
        "validation_fraction": 0.34,
    },
}
SMALL["finetune_classification"] = SMALL["finetune_segmentation"]
SPLITS = ("train", "val", "test")
OWN = {
    ("pretrain", 2): pretrain_bundle.OWN[2],
    ("pretrain", 3): pretrain_bundle.OWN[3],
    ("finetune_segmentation", 2): {
        "patch_size": [32, 32],
        "image_size": [32, 32],
        "class_names": ["background", "lung"],
        "overlap": 0.25,
    },
    ("finetune_segmentation", 3): {
        "patch_size": [32, 32, 16],
        "spacing": [9.0, 9.0, 9.0],
        "class_names": ["background", "lung", "heart", "bone"],
        "overlap": 0.25,
    },
    ("finetune_classification", 2): {"image_size": [32, 32]},
    ("finetune_classification", 3): {"image_size": [32, 32, 16]},
}
for (task, dims), network in NETWORKS.items():
    OWN[f"finetune_{task}", dims] |= network


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Folders of the phantoms of two sites, for 2D and 3D; ``classes.csv`` gives each list both classes."""
    folders = {}
    for dims, kind in ((2, "xray"), (3, "ct")):
        for site in (1, 2):
            folders[dims, site] = tmp_path_factory.mktemp(f"{kind}{site}") / "data"
            write_phantoms(folders[dims, site], kind, count=6, seed=site)
            names = sorted(path.name for path in (folders[dims, site] / "images").iterdir())
            rows = [f"{name},{['none', 'nodule'][i % 2]},{SPLITS[i // 2]}" for i, name in enumerate(names)]
            (folders[dims, site] / "classes.csv").write_text("\n".join(["file,label,split", *rows]) + "\n")
    return folders


@pytest.fixture(autouse=True)
def foreign_command_line(monkeypatch):
    """That of NVFlare's client, whose words are not for MONAI."""
    monkeypatch.setattr(sys, "argv", ["client", "--parent_url", "None"])


def bundle(kind):
    return ROOT / f"bundles/dira_{kind[0]}_{kind[1]}d"


def options_of(kind, sites, folder, site=1, **more):
    task, dims = kind
    data = sites[dims, site]
    paths = {
        "dataset_dir": str(data / "images" if task == "pretrain" else data),
        "output_dir": str(folder / "out"),
        "ckpt_dir": str(folder / "models"),
    }
    labels = {"labels": str(data / "classes.csv")} if task == "finetune_classification" else {}
    return SMALL[task] | labels | OWN[kind] | paths | {"max_epochs": 2} | more


def make_client(kind, options, **arguments):
    split = {"split": "validation"} if kind[0] != "pretrain" else {}
    client = MonaiAlgo(
        str(bundle(kind)),
        train_kwargs=dict(options),
        eval_kwargs=options | split,
        best_model_filepath=f"{options['ckpt_dir']}/model.pt",
        final_model_filepath=f"{options['ckpt_dir']}/model_last.pt",
        **arguments,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a federation executes configs
        client.initialize({ExtraItems.CLIENT_NAME: "site-1", ExtraItems.APP_ROOT: ""})
    return client


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def round_of(client, weights):
    """What a client sends back after a round that starts from global weights."""
    client.train(ExchangeObject(weights=copied(weights)))
    return client.get_weights()


def start_of(client):
    """Global weights to begin with."""
    return copied(client.trainer.network.state_dict())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_differences_of_two_clients_average_to_the_mean_of_their_networks(kind, sites, tmp_path):
    clients = [make_client(kind, options_of(kind, sites, tmp_path / str(s), s)) for s in (1, 2)]
    start = start_of(clients[0])
    sent = [round_of(client, start) for client in clients]
    networks = [client.trainer.network.state_dict() for client in clients]
    assert [s.weight_type for s in sent] == [WeightType.WEIGHT_DIFF] * 2
    assert all(set(s.weights) == set(start) for s in sent)  # the network's tensors and no other
    assert [s.statistics["num_executed_iterations"] for s in sent] == [2, 2]
    assert any(not torch.equal(networks[0][name], networks[1][name]) for name in start)
    merged = {name: start[name] + sum(s.weights[name] for s in sent) / 2 for name in start}
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor.double(), sum(n[name].double() for n in networks) / 2, msg=name)
    for client in clients:
        metrics = client.evaluate(ExchangeObject(weights=copied(merged))).metrics
        assert torch.isfinite(torch.tensor(float(metrics[KEYS[kind[0]]])))
        client.finalize()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_rounds_of_one_client_are_plain_training(kind, sites, tmp_path):
    plain = options_of(kind, sites, tmp_path / "plain")
    monai.bundle.run(config_file=str(bundle(kind) / "configs/train.json"), **plain)
    client = make_client(kind, options_of(kind, sites, tmp_path / "client"), send_weight_diff=False)
    weights = start_of(client)
    for _ in range(2):
        weights = round_of(client, weights).weights
    [record], [same] = (read_starts(tmp_path / where / "out/run.json") for where in ("client", "plain"))
    assert record["data_sha256"] == same["data_sha256"]
    assert record["config"]["output_dir"] == str(tmp_path / "client/out")
    found, expected = (tmp_path / where / "models" for where in ("client", "plain"))
    for name in ("model.pt", "model_last.pt"):
        assert_equal_states(load(found / name), load(expected / name))
    bundles = [tmp_path / where / "out/bundle" for where in ("client", "plain")]
    if kind[0] != "pretrain":
        own, same = ((folder / "configs/inference.json").read_text() for folder in bundles)
        assert own == same
        assert (bundles[0] / "models/model.pt").samefile(found / "model.pt")
    states = [load(folder / "checkpoint.pt") for folder in (found, expected)]
    for state in states:
        state.pop("random")  # building the evaluation draws from it; the training does not
    assert_equal_states(*states)
    assert not list(found.glob("checkpoint_before.pt"))
    for model_type, name in ((ModelType.BEST_MODEL, "model.pt"), (ModelType.FINAL_MODEL, "model_last.pt")):
        sent = client.get_weights({ExtraItems.MODEL_TYPE: model_type})
        assert_equal_states(dict(sent.weights), load(expected / name))


@pytest.mark.parametrize("kind", PRETRAIN, ids=lambda kind: f"{kind[1]}d")
def test_evaluation_judges_with_the_clients_own_heads(kind, sites, tmp_path, caplog, capsys):
    client = make_client(kind, options_of(kind, sites, tmp_path))
    start = start_of(client)
    client.evaluate(ExchangeObject(weights=copied(start)))
    said = caplog.text + capsys.readouterr().out  # MONAI 1.6.0 leaves pytest's handler no record
    assert "contrastive metrics are those of untrained heads" in said
    round_of(client, start)
    seen = client.train_workflow.evaluator.state.metrics  # of the validation behind the local epoch
    metrics = client.evaluate(ExchangeObject(weights=start_of(client))).metrics
    assert {"val_loss", "val_contrastive", "val_psnr"} <= set(metrics)
    for name, value in metrics.items():
        assert float(value) == pytest.approx(float(seen[name]), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("kind", PRETRAIN, ids=lambda kind: f"{kind[1]}d")
def test_a_run_with_a_name_is_no_federation(kind, sites, tmp_path):
    files = [str(bundle(kind) / f"configs/{name}.json") for name in ("train", "evaluate")]
    options = options_of(kind, sites, tmp_path, run_name="night")  # as MONAI's tracking takes it
    workflow = ConfigWorkflow(files, workflow_type="train", **options)
    workflow.initialize()
    evaluator, objective = (workflow.parser.get_parsed_content(name) for name in ("validate#evaluator", "objective"))
    models = Path(options["ckpt_dir"])
    models.mkdir(parents=True, exist_ok=True)
    torch.save(evaluator.network.state_dict(), models / "model.pt")
    torch.save(
        {name: torch.ones_like(value) for name, value in objective.state_dict().items()}, models / "objective.pt"
    )
    torch.save({"objective": objective.state_dict()}, models / "checkpoint.pt")
    evaluator.fire_event(Events.STARTED)
    assert all((value == 1).all() for value in objective.state_dict().values())  # not those of the last epoch


@pytest.mark.parametrize("kind", PRETRAIN, ids=lambda kind: f"{kind[1]}d")
def test_key_branch_stays_and_follows_the_global_weights(kind, sites, tmp_path):
    still = {"epoch_length": 1, "learning_rate": 0.0, "momentum": 0.75, "val_interval": 5}
    client = make_client(kind, options_of(kind, sites, tmp_path, **still))
    objective = client.trainer.objective
    before = {name: p.clone() for name, p in objective.key_encoder.named_parameters()}
    queue, critic = objective.queue.clone(), copied(client.trainer.discriminator.state_dict())
    given = {name: t + 1 if t.dtype.is_floating_point else t for name, t in start_of(client).items()}
    round_of(client, given)
    for name, parameter in objective.key_encoder.named_parameters():
        torch.testing.assert_close(parameter, 0.75 * before[name] + 0.25 * given[name], msg=name)
    assert torch.equal(objective.queue[2:], queue[2:])  # two new keys, the others are those of before
    assert not torch.equal(objective.queue[:2], queue[:2])
    assert critic.keys() == client.trainer.discriminator.state_dict().keys()
    assert not critic.keys() & given.keys()


@pytest.mark.parametrize("kind", PRETRAIN, ids=lambda kind: f"{kind[1]}d")
def test_stages_and_momentum_are_planned_over_all_rounds(kind, sites, tmp_path):
    plan = {"max_epochs": 3, "stage_epochs": [1, 1, 1], "epoch_length": 1, "momentum": 0.5, "final_momentum": 1.0}
    client = make_client(kind, options_of(kind, sites, tmp_path, val_interval=5, **plan))
    stages, momenta = [], []
    for _ in range(3):
        round_of(client, start_of(client))
        stages.append(client.trainer.stage(client.trainer.state.epoch))
        momenta.append(client.trainer.epoch_metrics()["momentum"])
    assert stages == ["di", "dir", "dira"]
    assert momenta == pytest.approx([0.625, 0.875, 1.0])  # 1 - 0.5 (1 + cos(pi n / 3)) / 2
    assert client.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)  # the cosine's end


@pytest.mark.parametrize("task", ["finetune_segmentation", "pretrain"])
def test_rounds_beyond_the_schedule_are_refused(task, sites, tmp_path):
    kind = (task, 2)
    options = options_of(kind, sites, tmp_path, epoch_length=1, max_epochs=1)
    options.pop("schedule_epochs", None)
    client = make_client(kind, options)
    round_of(client, start_of(client))
    with pytest.raises(InputError, match="planned over 1 epochs and 2 are asked for; in a federation"):
        round_of(client, start_of(client))


@pytest.fixture(scope="module")
def comparison():
    return load_script(ROOT / "benchmarks" / "federation.py")


def test_global_weights_are_the_mean_by_images(comparison):
    weights = {"kernel": torch.tensor([1.0, 2.0]), "batches": torch.tensor(4)}
    differences = [
        {"kernel": torch.tensor([4.0, 0.0]), "batches": torch.tensor(2)},
        {"kernel": torch.tensor([0.0, 8.0]), "batches": torch.tensor(2)},
    ]
    found = comparison.average(weights, differences, [1, 3])
    assert_equal_states(found, {"kernel": torch.tensor([2.0, 8.0]), "batches": torch.tensor(6)})


def test_sites_share_no_patient(comparison, sites, tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, "xray", count=6, seed=3)
    counts = comparison.write_lists(data, ["0", "1"], 1.0, 0, tmp_path)
    lists = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in counts}
    patients = {name: {e["patient"] for e in found["training"]} for name, found in lists.items()}
    assert counts["first"] == counts["second"] == counts["pooled"] / 2
    assert not patients["first"] & patients["second"]
    assert patients["first"] | patients["second"] == patients["pooled"]
    assert lists["first"]["test"] == lists["pooled"]["test"]


@pytest.mark.parametrize(
    ("stages", "epochs", "expected"), [((2, 1, 1), 8, [4, 2, 2]), ((2, 1, 1), 3, [1, 0, 2]), ((1, 0, 0), 8, [8, 0, 0])]
)
def test_stages_share_all_epochs(comparison, stages, epochs, expected):
    assert comparison.stage_epochs(stages, epochs) == expected


def test_the_table_gives_mean_and_range_over_seeds(comparison):
    def facts(knn, linear):
        run = {"steps": "2 x 80", "images_seen": 5120, "auc": {"k-NN": knn, "linear": linear}}
        return {"runs": {"federated": run}}

    table = comparison.describe([facts(0.8, 0.9), facts(0.7, 0.95)])
    assert "0.750 (0.700-0.800)" in table
    assert "0.925 (0.900-0.950)" in table
    assert "(" not in comparison.describe([facts(0.8, 0.9)])
