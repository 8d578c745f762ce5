"""Networks without training: class 1 is what is bright, above the middle of the intensity range."""

import torch

CLASSES = ["dark", "bright"]
STEEPNESS = 20.0  # of the logits, over the intensity range


def threshold_options(task, dims, folder):
    """The values for an inference; the weights are written to the folder ``models`` in this one."""
    if task == "segmentation":
        definition = {"_target_": f"torch.nn.Conv{dims}d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
        network, sizes = getattr(torch.nn, f"Conv{dims}d")(1, 2, 1), {"patch_size": [16] * dims}
    else:
        parts = f"torch.nn.AdaptiveAvgPool{dims}d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2)"
        definition, sizes = f"$torch.nn.Sequential({parts})", {}
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Flatten(), torch.nn.Linear(1, 2))
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name, value in state.items():
        value[1] = STEEPNESS if name.endswith("weight") else -STEEPNESS / 2
    (folder / "models").mkdir(exist_ok=True, parents=True)
    torch.save(state, folder / "models/model.pt")
    return (
        {"class_names": CLASSES, "network_def": definition, "image_size": None}
        | sizes
        | {
            "ckpt_dir": str(folder / "models"),
            "output_dir": str(folder / "results"),
        }
    )
