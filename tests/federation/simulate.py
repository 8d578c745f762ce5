"""A federation of two simulated sites in NVFlare: two rounds of 2D pre-training on synthetic phantoms.

Needs nvflare and monai-nvflare: ``make federation-test``. The job in ``job`` is one that a real federation could
submit, once the bundle lies in ``job/app/config``; here it is put there with a small network and other images a site.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from dira_monai.phantoms.chest import write_phantoms

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parents[1] / "bundles" / "dira_pretrain_2d"
SITES = ("site-1", "site-2")
SMALL = {  # of train.json, so that a round lasts seconds
    "patch_size": [64, 64],
    "batch_size": 2,
    "epoch_length": 2,
    "val_samples": 4,
    "queue_size": 8,
    "discriminator_channels": 4,
    "dataset_dir": "$os.path.join(os.environ['SITE_DATA'], @run_name.rsplit('_', 2)[0], 'images')",
}


def prepare(folder):
    """The job with the bundle in it, and the images of each site; the client's run is named after its site."""
    for number, site in enumerate(SITES):
        write_phantoms(folder / "data" / site, "xray", count=8, seed=number)
    job = folder / "job"
    shutil.copytree(HERE / "job", job)
    bundle = job / "app" / "config" / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", bundle / "configs")
    config = json.loads((bundle / "configs" / "train.json").read_text()) | SMALL
    config["network_def"]["backbone"] = "resnet10"
    (bundle / "configs" / "train.json").write_text(json.dumps(config, indent=4))
    return job


def simulate(job, workspace, data):
    """Run NVFlare's simulator as a user does."""
    words = ["nvflare.cli", "simulator", str(job), "-w", str(workspace), "-c", ",".join(SITES), "-t", str(len(SITES))]
    environment = os.environ | {"SITE_DATA": str(data), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *words], env=environment, check=False, timeout=900).returncode


def check(workspace):
    """The global network after the last round must be the mean of the sites' networks, which differ."""
    app = "simulate_job/app_{}"
    (saved,) = (workspace / "server" / app.format("server")).rglob("FL_global_model.pt")
    merged = torch.load(saved, weights_only=True)["model"]
    models = [workspace / s / app.format(s) / "config" / BUNDLE.name / "models" for s in SITES]
    networks = [torch.load(folder / "model_last.pt", weights_only=True) for folder in models]
    epochs = [torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] for folder in models]
    assert epochs == [2, 2], f"the sites have trained {epochs} epochs"
    assert set(merged) == set(networks[0]), "the server holds other tensors than those of the network"
    assert any(not torch.equal(networks[0][name], networks[1][name]) for name in merged)
    for name, tensor in merged.items():
        mean = sum(network[name].double() for network in networks) / len(networks)
        torch.testing.assert_close(torch.as_tensor(tensor).double(), mean, rtol=1e-4, atol=1e-5, msg=name)
    return saved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for job, images and workspace")
    folder = parser.parse_args().folder.resolve()
    job = prepare(folder)
    status = simulate(job, folder / "workspace", folder / "data")
    assert status == 0, f"the simulator ended with status {status}"
    saved = check(folder / "workspace")
    print(f"two sites, two rounds on synthetic phantoms: {saved} is the mean of the sites' networks")


if __name__ == "__main__":
    main()
