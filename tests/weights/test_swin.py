"""Published encoders of SwinUNETR; the layouts are those of the authors' networks, in small."""

import pytest
import torch
from monai.networks.nets import SwinUNETR
from weight_files import loaded, saved

from dira_monai.networks.encoder_decoder import encode, encoder_state
from dira_monai.utils.errors import InputError
from dira_monai.weights.convert import import_weights
from dira_monai.weights.pretrained import load_pretrained

pytest.importorskip("einops")
SMALL = {"depths": (1, 2, 1, 1), "num_heads": (1, 2, 1, 1), "window_size": 3, "feature_size": 12}


def swin(**options):
    return SwinUNETR(1, 2, spatial_dims=3, **SMALL, **options).eval()


def fits(part, use_v2):
    return (
        f": fits {part} of SwinUNETR(1, out_channels=?, feature_size=12, spatial_dims=3, depths=(1, 2, 1, 1), "
        f"num_heads=(1, 2, 1, 1), window_size=3, use_v2={use_v2})"
    )


def old_names(source, prefix):
    """As MONAI named them when the weights were published, which ``SwinUNETR.load_from`` still reads."""
    return {f"{prefix}{key.replace('.mlp.linear', '.mlp.fc')}": t for key, t in source.swinViT.state_dict().items()}


@pytest.mark.parametrize("prefix", ["module.", "module.swin_vit."])
def test_ssl_of_monai(tmp_path, capsys, prefix):
    source, target, theirs = swin(), swin(), swin()
    heads = {f"module.{name}.weight": torch.ones(2, 2) for name in ("rotation_head", "contrastive_head", "conv.0")}
    file = saved({"state_dict": old_names(source, prefix) | heads, "epoch": 1}, tmp_path / "model_swinvit.pt")
    with pytest.raises(InputError, match="convert it first"):
        load_pretrained(target, file, minimum_coverage=0)
    lines = import_weights(file, tmp_path / "model.pt")
    count = len(source.swinViT.state_dict())
    assert lines[0].endswith(": SwinUNETR-SSL of MONAI")
    assert lines[1:3] == [
        f"converted: {count} of {count + 3} tensors",
        "dropped: rotation_head (1), contrastive_head (1), conv (1), epoch",
    ]
    assert lines[3].endswith(fits("swinViT", False))
    assert "minimum_coverage 0" in lines[4]
    with pytest.raises(InputError, match=r"minimum_coverage is 90\.0%.*encoder1\."):
        load_pretrained(target, tmp_path / "model.pt")
    load_pretrained(target, tmp_path / "model.pt", minimum_coverage=0)
    assert f"  matched: {count}\n" in capsys.readouterr().out
    theirs.load_from({"state_dict": old_names(source, "module.")})  # MONAI's own reader
    x = torch.rand(1, 1, 32, 32, 32)
    for network in (target, theirs):
        for ours, wanted in zip(network.swinViT(x), source.swinViT(x), strict=True):
            assert torch.equal(ours, wanted)


@pytest.mark.parametrize(("network", "more"), [("backbone", ["student.layer1.0", "teacher.layer1.0"]), ("student", [])])
def test_voco(tmp_path, network, more):
    """The second version has one backbone and two heads, the first one two whole networks."""
    source, target = swin(use_v2=True), swin(use_v2=True)
    encoder = encoder_state(source)
    state = {f"module.{network}.{key}": tensor for key, tensor in encoder.items()}
    state |= {f"module.{head}.weight": torch.ones(2, 2) for head in more}
    if not more:
        state |= {f"module.teacher.{key}": torch.zeros_like(tensor) for key, tensor in encoder.items()}
        state["module.student.proj_head.layer1.0.weight"] = torch.ones(2, 2)
    lines = import_weights(saved({"state_dict": state}, tmp_path / "VoCo.pt"), tmp_path / "model.pt")
    assert lines[0].endswith(": SwinUNETR of VoCo")
    assert lines[1] == f"converted: {len(encoder)} of {len(state)} tensors"
    assert lines[3].endswith(fits("the encoder", True))
    assert loaded(tmp_path / "model.pt").keys() == encoder.keys()
    load_pretrained(target, tmp_path / "model.pt", minimum_coverage=1)
    x = torch.rand(1, 1, 64, 32, 32)
    for ours, wanted in zip(encode(target, x), encode(source, x), strict=True):
        assert torch.equal(ours, wanted)
