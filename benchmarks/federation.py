"""Pre-training by a federation of two sites, on their images pooled, and by each site alone, judged by one probe.

Every run goes through MONAI's client ``MonaiAlgo``; pooled and single-site runs are federations of one client, which
are plain training (``tests/bundles/test_federation.py``). The training images are split between the sites by
patient; their labels are used by the probe alone, which takes those of both sites.
``python benchmarks/federation.py --help`` lists the options.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor, manual_seed

from dira_monai.apps.probing.evaluate import PROBES
from dira_monai.apps.probing.probe import probe
from dira_monai.datalists.checks import LISTS
from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.labeled import make_labeled_datalist
from dira_monai.datalists.options import LabelOptions
from dira_monai.utils.files import atomic_write
from dira_monai.utils.tables import format_table
from dira_monai.weights.files import save_atomic

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "dira_pretrain_2d"
NETWORK = {"patch_size": [64, 64], "network_def#backbone": "resnet10"}
OPTIONS: dict[str, Any] = NETWORK | {
    "batch_size": 32,
    "optimizer_name": "Adam",
    "optimizer_arguments": {},
    "learning_rate": 0.001,
    "queue_size": 512,
    "momentum": 0.99,
    "pooled_norm": True,
    "discriminator_channels": 16,
    "val_samples": 64,
}
RUNS = {  # sites of a run, and how many times the steps of one site: pooled takes those of both together
    "federated": (("first", "second"), 1),
    "pooled": (("pooled",), 2),
    "first alone": (("first",), 1),
    "second alone": (("second",), 1),
}
UNTRAINED = {"steps": 0, "images_seen": 0}
Weights = dict[str, Tensor]


def average(weights: Weights, differences: Sequence[Mapping[str, Tensor]], counts: Sequence[int]) -> Weights:
    """Global weights after a round: FedAvg (McMahan et al., 2017, https://arxiv.org/abs/1602.05629).

    Args:
        weights: those of before.
        differences: what each client learned, by the same names.
        counts: images of each client, the weights of the mean.
    """
    shares = [count / sum(counts) for count in counts]
    return {
        name: (tensor + sum(s * d[name] for s, d in zip(shares, differences, strict=True))).to(tensor.dtype)
        for name, tensor in weights.items()
    }


def thin(entries: Sequence[dict], share: float, seed: int) -> list[dict]:
    """Entries of a share of the patients."""
    patients = sorted({entry["patient"] for entry in entries})
    chosen = set(random.Random(seed).sample(patients, round(share * len(patients))))
    return [entry for entry in entries if entry["patient"] in chosen]


def write_lists(data: Path, classes: Sequence[str], share: float, seed: int, folder: Path) -> dict[str, int]:
    """Write the lists ``pooled.json`` (with labels), ``first.json`` and ``second.json``: their training images."""
    datalist = make_labeled_datalist(data, LabelOptions(task="classification", class_names=classes))
    datalist |= {key: thin(datalist[key], share, seed) for key in LISTS}
    first = thin(datalist["training"], 0.5, seed + 1)
    parts = {
        "pooled": datalist["training"],
        "first": first,
        "second": [entry for entry in datalist["training"] if entry not in first],
    }
    for name, entries in parts.items():
        write_datalist(datalist | {"training": entries}, folder / f"{name}.json")
    return {name: len(entries) for name, entries in parts.items()}


def first_weights(seed: int) -> Weights:
    """Random weights of the network with which every run begins."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/train.json"))
    parser.update(NETWORK)
    manual_seed(seed)
    return parser.get_parsed_content("network_def").state_dict()


def make_client(site: str, lists: Path, folder: Path, options: Mapping[str, Any], local_epochs: int) -> MonaiAlgo:
    """A client with the images of a list, who trains so many epochs a round and is not evaluated on its own."""
    paths = {
        "dataset_dir": str(lists / f"{site}.json"),
        "output_dir": str(folder / site / "output"),
        "ckpt_dir": str(folder / site / "models"),
    }
    given = {**OPTIONS, **options, **paths}
    client = MonaiAlgo(str(BUNDLE), local_epochs, train_kwargs=given, config_evaluate_filename=None)
    client.initialize({ExtraItems.CLIENT_NAME: site})
    return client


def federate(clients: Sequence[MonaiAlgo], counts: Sequence[int], weights: Weights, rounds: int) -> Weights:
    """Global weights after so many rounds."""
    for _ in range(rounds):
        sent = []
        for client in clients:
            client.train(ExchangeObject(weights={name: tensor.clone() for name, tensor in weights.items()}))
            sent.append(client.get_weights().weights)
        weights = average(weights, sent, counts)
    for client in clients:
        client.finalize()
    return weights


def judge(weights: Path, randoms: int, args: argparse.Namespace) -> dict[str, Any]:
    """The probe's report on the encoder of these weights, with labels of the training images of all sites."""
    images = args.output / "pooled.json"  # what all sites have seen together
    options = {name: getattr(args, name) for name in ("label_fraction", "label_subsets", "num_workers")}
    options |= {"random": randoms, "pretraining_list": images, "output": args.output / f"probe_{weights.stem}.json"}
    return probe(images, weights, str(BUNDLE / "configs/train.json"), overrides=NETWORK, **options)


def describe(seeds: Sequence[Mapping[str, Any]]) -> str:
    """A table: steps, images seen and mean AUC of both probes for each run and for random weights.

    Args:
        seeds: what ``compare`` found with each; of several the mean stands there and, in brackets, lowest and highest.
    """
    rows = [["", "steps", "images seen", *(f"AUC {name}" for name in PROBES)]]
    for name, run in seeds[0]["runs"].items():
        found = [[facts["runs"][name]["auc"][probe] for facts in seeds] for probe in PROBES]
        rows.append([name, str(run["steps"]), str(run["images_seen"]), *map(_spread, found)])
    return format_table(rows)


def _spread(values: Sequence[float]) -> str:
    around = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.3f}{around}"


def stage_epochs(stages: Sequence[int], epochs: int) -> list[int]:
    """Epochs of each stage, in these proportions; the last takes what is left."""
    first, second = (epochs * part // sum(stages) for part in stages[:2])
    return [first, second, epochs - first - second]


def pretrain(name: str, args: argparse.Namespace, counts: Mapping[str, int]) -> tuple[Path, dict[str, Any]]:
    """File with the weights at the end of a run, and how many steps and images it took."""
    sites, factor = RUNS[name]
    epochs = factor * args.rounds * args.local_epochs
    options = {
        "max_epochs": epochs,
        "epoch_length": args.epoch_length,
        "stage_epochs": stage_epochs(args.stages, epochs),
        "val_interval": epochs,  # the last weights are judged, so one validation is enough
        "seed": args.seed,
        "num_workers": args.num_workers,
    }
    began = time.monotonic()
    clients = [make_client(s, args.output, args.output / name, options, factor * args.local_epochs) for s in sites]
    weights = federate(clients, [counts[s] for s in sites], first_weights(args.seed), args.rounds)
    file = args.output / f"{name.replace(' ', '_')}.pt"
    save_atomic(weights, file)
    steps = epochs * args.epoch_length
    facts = {"images_seen": len(sites) * steps * OPTIONS["batch_size"], "seconds": time.monotonic() - began}
    return file, {"steps": steps if len(sites) == 1 else f"{len(sites)} x {steps}"} | facts


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Run and judge everything with one seed; ``federation.json`` is written after each run, so that none is lost."""
    counts = write_lists(args.data, args.classes, args.share, args.seed, args.output)
    facts: dict[str, Any] = {"settings": vars(args), "images": counts, "runs": {}}
    for name in RUNS:
        file, found = pretrain(name, args, counts)
        report = judge(file, 0 if facts["runs"] else args.random, args)
        for encoder, auc in report["encoders"].items():
            means = {"auc": {p: auc[p]["mean"] for p in PROBES}}
            trained = encoder == "weights"
            facts["runs"][name if trained else encoder] = (found if trained else UNTRAINED) | means
        with atomic_write(args.output / "federation.json") as output:
            output.write((json.dumps(facts, indent=1, default=str) + "\n").encode())
    return facts


def main() -> None:
    """Parse the command line, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with images and labels.csv (file, label, patient, split)")
    parser.add_argument("--classes", nargs="+", default=["normal", "bacterial", "viral"])
    parser.add_argument("--output", type=Path, default=Path("demo/federation"))
    parser.add_argument("--share", type=float, default=0.25, help="of the patients of each list")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--local_epochs", type=int, default=1, help="of each client in a round")
    parser.add_argument("--epoch_length", type=int, default=10, help="steps of an epoch")
    stages = "proportions of discrimination, restoration beside it, and the adversary as well"
    parser.add_argument("--stages", type=int, nargs=3, default=[2, 1, 1], help=stages)
    parser.add_argument("--label_fraction", type=float, default=1.0, help="of the training patients, for the probe")
    parser.add_argument("--label_subsets", type=int, default=1, help="such parts, over which the AUC are averaged")
    parser.add_argument("--random", type=int, default=3, help="encoders of random weights beside")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a folder seed_N of the output for each")
    parser.add_argument("--num_workers", type=int, default=0)
    args = vars(parser.parse_args())
    seeds = args.pop("seeds")
    folder = args.pop("output")
    print(describe([compare(argparse.Namespace(**args, seed=n, output=folder / f"seed_{n}")) for n in seeds]))


if __name__ == "__main__":
    main()
