import copy
import re
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from monai.networks.nets import FlexibleUNet, resnet10, resnet18, resnet50
from monai.transforms import LoadImage
from PIL import Image
from reference import GOLDEN, assert_matches, filled, layout, normal
from torch import nn
from weight_files import assert_equal, loaded, saved

from dira_monai.__main__ import main
from dira_monai.networks.genesis_unet import GenesisUNet
from dira_monai.utils.errors import InputError
from dira_monai.weights.convert import export_weights, import_weights
from dira_monai.weights.files import load_weights
from dira_monai.weights.layouts import convert
from dira_monai.weights.pretrained import load_pretrained
from dira_monai.weights.smp import smp_to_stock, stock_to_smp

UNET = layout("dira_unet_resnet50_keys.json")
RESNET50 = [(key.removeprefix("encoder."), shape) for key, shape in UNET if key.startswith("encoder.")]
GENESIS = layout("models_genesis_unet3d_keys.json")
NORM = ("batch", {"eps": 1e-5, "momentum": 0.1})
flexible_unet = partial(small_networks.flexible_unet, in_channels=3, out_channels=2, norm=NORM)


TURNED = "note: 2D kernels were turned between row, column, as others read pictures, and the axes x, y of MONAI"


def numbered(keys, prefix="", start=1):
    """A state dict of full shapes whose tensor number i holds the number i throughout, in the memory of one number."""
    return {f"{prefix}{key}": torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(keys, start)}


def test_imported_dira_unet_gives_the_published_values_and_exports_to_the_bit(tmp_path):
    published = filled(UNET, 2000)
    file = saved({"state_dict": published, "epoch": 3}, tmp_path / "unet.pth")
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines == [
        f"{file}: U-Net of segmentation_models_pytorch (DiRA 2D)",
        "converted: 380 of 380 tensors",
        "dropped: epoch",
        f"{tmp_path / 'model.pt'}: fits FlexibleUNet(3, 1, 'resnet50', spatial_dims=2, "
        "decoder_channels=(256, 128, 64, 32, 16), pre_conv=None, norm=('batch', {'eps': 1e-5, 'momentum': 0.1}))",
        TURNED,
    ]
    network = FlexibleUNet(3, 1, "resnet50", spatial_dims=2, pre_conv=None, norm=NORM)
    network.load_state_dict(loaded(tmp_path / "model.pt"))
    network.eval()
    with torch.no_grad():
        logits = network(0.5 + 0.1 * normal(51, (2, 3, 64, 64)).mT).mT  # row, column where it was published
    assert_matches(logits, GOLDEN["unet_resnet50"]["logits_before_sigmoid"])
    export_weights(tmp_path / "model.pt", tmp_path / "smp.pt", "smp")
    assert_equal(loaded(tmp_path / "smp.pt"), published)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_imported_genesis_unet_gives_the_published_values(tmp_path, prefix):
    state = {f"{prefix}{key}": tensor for key, tensor in filled(GENESIS, 3000).items()}
    file = saved({"state_dict": state | {f"{prefix}fc1.weight": torch.ones(2)}, "epoch": 1}, tmp_path / "genesis.pt")
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines[0].endswith(": U-Net of Models Genesis or TransVW")
    assert lines[2:] == [
        "dropped: fc1 (1), epoch",
        f"{tmp_path / 'model.pt'}: fits GenesisUNet(spatial_dims=3, in_channels=1, out_channels=1)",
    ]
    network = GenesisUNet()
    network.load_state_dict(loaded(tmp_path / "model.pt"))
    network.train()  # the published batch norms always use the statistics of the batch
    with torch.no_grad():
        restored = network(0.5 + 0.1 * normal(61, (1, 1, 32, 32, 16))).sigmoid()
    assert_matches(restored, GOLDEN["models_genesis_unet3d"]["restored"])


@pytest.mark.parametrize("prefix", ["module.encoder_q.", "module.encoder_q.backbone.", "encoder_q.", "backbone."])
def test_training_checkpoint_of_dira(tmp_path, prefix):
    wanted = numbered(UNET)
    state = {f"{prefix}{key}": tensor for key, tensor in wanted.items()}
    state |= numbered(UNET, "module.encoder_k.") | numbered([("0.weight", (4, 4)), ("2.bias", (4,))], f"{prefix}fc.")
    state |= {"module.queue": torch.ones(2, 3), "module.queue_ptr": torch.zeros(1)}
    content = {"epoch": 7, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    lines = import_weights(saved(content, tmp_path / "checkpoint.pth"), tmp_path / "model.pt")
    assert lines[1:3] == [
        "converted: 380 of 764 tensors",
        "dropped: encoder_k (380), fc (2), queue (1), queue_ptr (1), epoch, optimizer",
    ]
    assert_equal(loaded(tmp_path / "model.pt"), smp_to_stock(wanted))


STOCK18 = {"conv1_t_stride": 2, "shortcut_type": "B", "bias_downsample": False, "feed_forward": False}
FC = [("fc.weight", (10, 2048)), ("fc.bias", (10,))]
MLP = [(f"{layer}.{name}", (4,)) for layer in (0, 2) for name in ("weight", "bias")]
KEYS = RESNET50 + [(f"fc.{key}", shape) for key, shape in MLP]
PREDICTOR = numbered(MLP, "module.predictor.")
MOCO = numbered(KEYS[318:], "module.encoder_q.") | numbered(RESNET50, "module.encoder_k.")
MOCO3 = numbered(KEYS[318:], "module.base_encoder.") | numbered(KEYS, "module.momentum_encoder.") | PREDICTOR
TWINS = numbered(MLP, "module.projector.") | {"module.bn.running_mean": torch.ones(4)}
RESNETS = {  # entry of the file, prefix of the encoder's names, other tensors, what is said to be dropped
    "ResNet of MoCo": (
        *("state_dict", "module.encoder_q.", MOCO | {"module.queue": torch.ones(2)}),
        "fc (4), encoder_k (318), queue (1), epoch",
    ),
    "ResNet of MoCo v3": (
        *("state_dict", "module.base_encoder.", MOCO3),
        "fc (4), momentum_encoder (322), predictor (4), epoch",
    ),
    "ResNet of Barlow Twins": ("model", "module.backbone.", TWINS, "projector (4), bn (1), epoch"),
    "ResNet under backbone.": ("state_dict", "backbone.", {"head.fc.weight": torch.ones(2, 2)}, "head (1), epoch"),
    "ResNet of SimSiam": (
        *("state_dict", "module.encoder.", numbered(KEYS[318:], "module.encoder.") | PREDICTOR),
        "fc (4), predictor (4), epoch",
    ),
    "ResNet of torchvision": (None, "", numbered(FC), "fc (2)"),
}
WRAPPED = numbered(RESNET50, "model._orig_mod.") | numbered(FC, "model._orig_mod.")


def test_prefixes_of_wrappers_are_taken_off(tmp_path):
    file = saved({"state_dict": WRAPPED | {"criterion.weight": torch.ones(2)}}, tmp_path / "lightning.ckpt")
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines[0] == f"{file}: ResNet of torchvision"
    assert lines[2] == "dropped: fc (2), criterion (1)"
    assert_equal(loaded(tmp_path / "model.pt"), numbered(RESNET50))


@pytest.mark.parametrize("kind", RESNETS)
def test_resnets_load_into_stock_networks(tmp_path, kind):
    entry, prefix, more, dropped = RESNETS[kind]
    state = numbered(RESNET50, prefix) | more
    file = saved({entry: state, "epoch": 1} if entry else state, tmp_path / "published.pth")
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines == [
        f"{file}: {kind}",
        f"converted: 318 of {len(state)} tensors",
        f"dropped: {dropped}",
        f"{tmp_path / 'model.pt'}: fits resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, "
        "shortcut_type='B', bias_downsample=False, feed_forward=False)",
        TURNED,
    ]
    written = loaded(tmp_path / "model.pt")
    assert_equal(written, numbered(RESNET50))
    options = {"conv1_t_stride": 2, "shortcut_type": "B", "bias_downsample": False, "feed_forward": False}
    with torch.device("meta"):
        network = resnet50(spatial_dims=2, n_input_channels=3, **options)
    network.load_state_dict(written, assign=True)  # strict


@pytest.mark.parametrize("kind", RESNETS)
def test_wrapped_file_is_sent_to_the_command_where_its_names_are_not_stock(tmp_path, capsys, kind):
    entry, prefix, more, _ = RESNETS[kind]
    state = {
        f"module.{key.removeprefix('module.')}": tensor for key, tensor in (numbered(RESNET50, prefix) | more).items()
    }
    file = saved({entry: state} if entry else state, tmp_path / "published.pth")
    network = resnet50(spatial_dims=2, n_input_channels=3, bias_downsample=False, feed_forward=False)
    if kind == "ResNet of torchvision":
        load_pretrained(network, file, minimum_coverage=1)
        assert_equal(network.state_dict(), numbered(RESNET50))
    else:
        with pytest.raises(InputError, match=r"python -m dira_monai import-weights .*published\.pth"):
            load_pretrained(network, file, minimum_coverage=0)


@pytest.mark.parametrize("missing", ["module.projector.0.weight", "module.bn.running_mean"])
def test_backbone_alone_is_not_called_barlow_twins(missing):
    _, prefix, more, _ = RESNETS["ResNet of Barlow Twins"]
    state = numbered(RESNET50, prefix) | more
    del state[missing]
    assert convert(state).layout == "ResNet under backbone."
    plain = numbered(RESNET50)  # a file that needs no import
    assert_equal(convert(plain).state, plain)


def test_medicalnet_is_said_to_give_other_features(tmp_path, capsys):
    """The network of https://github.com/Tencent/MedicalNet: stride 8 in all, MONAI's 32, with the same tensors."""
    ours = resnet10(
        spatial_dims=3, n_input_channels=1, conv1_t_stride=2, feed_forward=False, bias_downsample=False
    ).eval()
    theirs = copy.deepcopy(ours)
    for layer, dilation in ((theirs.layer3, 2), (theirs.layer4, 4)):
        for part in layer.modules():
            if isinstance(part, nn.Conv3d):
                part.stride = (1, 1, 1)
                part.dilation, part.padding = ((dilation,) * 3, (dilation,) * 3) if part.kernel_size[0] == 3 else (1, 0)
    state = theirs.state_dict() | {"conv_seg.0.bias": torch.ones(2)}
    file = saved({"state_dict": {f"module.{key}": t for key, t in state.items()}}, tmp_path / "resnet_10.pth")
    name, _, dropped, fits, note = import_weights(file, tmp_path / "model.pt")
    assert name.endswith(": 3D ResNet of MedicalNet")
    assert dropped == "dropped: conv_seg (1)"
    assert "fits resnet10(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, " in fits
    assert_equal(loaded(tmp_path / "model.pt"), theirs.state_dict())
    assert note.startswith("note: layer3 and layer4 of MedicalNet have stride 1 and dilation 2 and 4")
    for path in (file, tmp_path / "model.pt"):
        load_pretrained(ours, path, minimum_coverage=1)
        assert capsys.readouterr().out.splitlines()[-1] == note
    assert_equal(ours.state_dict(), theirs.state_dict())
    sizes = []
    for network in (ours, theirs):
        network.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[2]))
        with torch.no_grad():
            nn.Sequential(*[*network.children()][:-1])(torch.rand(1, 1, 32, 32, 32))  # all but the pooling
    assert sizes == [1, 4]


@pytest.mark.parametrize("channels", [1, 3])
def test_volume_resnet_without_the_signs_of_medicalnet_has_a_neutral_name(tmp_path, channels):
    state = resnet10(spatial_dims=3, n_input_channels=channels, num_classes=2, bias_downsample=False).state_dict()
    if channels == 3:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    lines = import_weights(saved(state, tmp_path / "resnet.pth"), tmp_path / "model.pt")
    assert lines[0].endswith(": 3D ResNet; the stride of its first convolution is not in the file")
    assert f"fits resnet10(spatial_dims=3, n_input_channels={channels}, conv1_t_stride=?, " in lines[3]
    assert len(lines) == 4


def transvw(state):
    """In the names of the authors' file, whose encoder is a module of its own."""
    return {f"module.{'classficationNet.' if key.startswith('down') else ''}{key}": t for key, t in state.items()}


@pytest.mark.parametrize("whole", [True, False])
def test_transvw(tmp_path, whole):
    wanted = {key: tensor for key, tensor in numbered(GENESIS).items() if whole or key.startswith("down_tr")}
    file = saved(
        {"state_dict": transvw(wanted) | {"module.projection_head.0.weight": torch.ones(2, 2)}}, tmp_path / "t.pt"
    )
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines[0].endswith(": U-Net of Models Genesis or TransVW")
    assert lines[2:] == [
        "dropped: projection_head (1)",
        f"{tmp_path / 'model.pt'}: fits "
        + ("" if whole else "the encoder of ")
        + "GenesisUNet(spatial_dims=3, in_channels=1"
        + (", out_channels=1)" if whole else ")"),
    ]
    assert_equal(loaded(tmp_path / "model.pt"), wanted)
    with torch.device("meta"):
        network = GenesisUNet(3, 1)
    network.load_state_dict(loaded(tmp_path / "model.pt"), assign=True, strict=whole)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numbers_of_numpy_are_read(tmp_path, core):
    """As TransVW's training script saves: averages by numpy, in PyTorch's old format, names of numpy before 2."""
    numbers = {"best_loss": np.average([1.0, 2.0]), "best_acc": np.float32(0.25), "epoch": np.int64(7)}
    content = {"state_dict": transvw(numbered(GENESIS))} | numbers
    file, trusted = tmp_path / "TransVW_chest_ct.pt", torch.serialization.get_safe_globals()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    file.write_bytes(re.sub(rb"cnumpy\._?core\.multiarray\n", b"c" + core + b".multiarray\n", file.read_bytes()))
    assert core + b".multiarray" in file.read_bytes()
    assert {key: load_weights(file)[key] for key in numbers} == {"best_loss": 1.5, "best_acc": 0.25, "epoch": 7}
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines[2] == "dropped: best_loss, best_acc, epoch"
    assert set(torch.serialization.get_safe_globals()) == set(trusted)
    with torch.serialization.safe_globals([np.dtype]):  # what the user trusts stays trusted
        load_weights(file)
        assert np.dtype in torch.serialization.get_safe_globals()


def test_unet_on_resnet18_is_said_to_fit_its_encoder_only(tmp_path):
    encoder = resnet18(spatial_dims=2, feed_forward=False, shortcut_type="B", bias_downsample=False).state_dict()
    state = stock_to_smp(flexible_unet(2, "resnet18").state_dict())
    state |= {f"encoder.{key}": tensor for key, tensor in encoder.items()}
    lines = import_weights(saved(state, tmp_path / "smp.pth"), tmp_path / "model.pt")
    assert lines[3].endswith("whose resnet18 has shortcuts without weights, but resnet18(shortcut_type='B')")


def smp_blocks(widths):
    """Decoder of smp's ``Unet`` that takes and gives these channels; its encoder is that of ``flexible_unet(2)``."""
    state = {key: t for key, t in stock_to_smp(flexible_unet(2).state_dict()).items() if not key.startswith("decoder.")}
    for block, (taken, given) in enumerate(widths):
        sizes = (taken, given)
        for conv in (1, 2):
            name = f"decoder.blocks.{block}.conv{conv}"
            state[f"{name}.0.weight"] = torch.ones(given, sizes[conv - 1], 3, 3)
            state |= {f"{name}.1.{key}": torch.ones(given) for key in ("weight", "bias", "running_mean", "running_var")}
    return state


@pytest.mark.parametrize(
    ("widths", "taken"),
    [
        ([(256 + 128, 8), (8 + 64, 8), (8 + 64, 4), (4, 4)], r"\[384, 72, 72, 4\]"),  # encoder_depth=4
        ([(512 + 256, 8), (8 + 128, 8), (8 + 64, 4), (4 + 64, 4)], r"\[768, 136, 72, 68\]"),  # one block cut off
        ([(512 + 256, 8), (8 + 128, 8), (8 + 64, 4), (4 + 32, 4), (4, 2)], r"\[768, 136, 72, 36, 4\]"),
    ],
)
def test_unet_whose_decoder_does_not_show_what_is_upsampled_is_refused(tmp_path, widths, taken):
    fitting = [(512 + 256, 8), (8 + 128, 8), (8 + 64, 4), (4 + 64, 4), (4, 2)]
    import_weights(saved(smp_blocks(fitting), tmp_path / "5.pth"), tmp_path / "5.pt")
    file = saved(smp_blocks(widths), tmp_path / "smp.pth")
    with pytest.raises(InputError, match=rf"smp\.pth: the blocks of its decoder take {taken} channels .* FlexibleUNet"):
        import_weights(file, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: stock_to_smp(flexible_unet(2).state_dict()), "decoder.blocks.0.attention1.attention.cSE.1.weight"),
        (lambda: stock_to_smp(flexible_unet(2).state_dict()), "encoder.layer1.0.se.fc1.weight"),
        (lambda: stock_to_smp(flexible_unet(2).state_dict()), "decoder.blocks.0.conv1.0.bias"),
        (lambda: numbered(RESNET50), "layer2.0.downsample.2.weight"),
        (lambda: numbered(RESNET50, "encoder.") | numbered(MLP, "predictor."), "encoder.layer1.0.se.fc1.weight"),
    ],
)
def test_tensor_that_makes_features_is_never_dropped(tmp_path, build, key):
    file = saved({f"module.{name}": t for name, t in (build() | {key: torch.ones(4)}).items()}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=rf"more\.pth: .* with module\.{re.escape(key)}, for which .* no place"):
        import_weights(file, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_smp_blocks_take_the_upsampled_channels_first(spatial_dims):
    state = flexible_unet(spatial_dims).state_dict()
    smp = stock_to_smp(state)
    upsampled = [512, 8, 8, 4, 4]  # of the deepest map, then of the block before
    for block, width in enumerate(upsampled):
        stock = state[f"decoder.blocks.{block}.convs.conv_0.conv.weight"]
        ours = smp[f"decoder.blocks.{block}.conv1.0.weight"]
        skips = stock.shape[1] - width
        assert torch.equal(ours[:, :width], stock[:, skips:])
        assert torch.equal(ours[:, width:], stock[:, :skips])
    assert torch.equal(smp["decoder.blocks.1.conv2.1.bias"], state["decoder.blocks.1.convs.conv_1.adn.N.bias"])


def test_round_trips_are_exact(tmp_path, spatial_dims):
    network = flexible_unet(spatial_dims)
    state = network.state_dict()
    file = saved({"network": state, "epoch": 1}, tmp_path / "checkpoint.pt")
    export_weights(file, tmp_path / "smp.pt", "smp")
    import_weights(tmp_path / "smp.pt", tmp_path / "again.pt")
    assert_equal(loaded(tmp_path / "again.pt"), state)
    lines = export_weights(file, tmp_path / "torchvision.pt", "torchvision")
    assert lines[0] == f"{file}: 72 of {len(state)} tensors"
    import_weights(tmp_path / "torchvision.pt", tmp_path / "encoder.pt")
    fresh = load_pretrained(flexible_unet(spatial_dims), tmp_path / "encoder.pt", minimum_coverage=1)
    assert_equal(fresh.encoder.state_dict(), network.encoder.state_dict())
    classifier = numbered(RESNET50) | numbered(FC)  # leaves its head
    export_weights(saved(classifier, tmp_path / "classifier.pt"), tmp_path / "torchvision.pt", "torchvision")
    assert_equal(loaded(tmp_path / "torchvision.pt"), numbered(RESNET50))


@pytest.mark.parametrize("target", ["torchvision", "timm"])
def test_a_picture_has_the_features_that_it_has_where_the_weights_come_from(tmp_path, target):
    """Others read rows and columns, MONAI x and y."""
    theirs = resnet18(spatial_dims=2, n_input_channels=3, **STOCK18).eval()
    file = saved(theirs.state_dict() | {"fc.weight": torch.ones(1000, 512)}, tmp_path / "resnet18.pth")
    ours = copy.deepcopy(theirs)
    with pytest.raises(InputError, match="has the layout of published weights; convert it first with python -m"):
        load_pretrained(ours, file)
    import_weights(file, tmp_path / "model.pt")
    ours = load_pretrained(ours, tmp_path / "model.pt", minimum_coverage=1)
    picture = Path(__file__).parents[2] / "docs/images/what_comes_out.jpg"
    rows = torch.tensor(np.asarray(Image.open(picture).crop((0, 0, 160, 96)))).movedim(-1, 0)[None] / 255
    axes = LoadImage(reader="PILReader", ensure_channel_first=True)(picture).as_tensor()[None, :, :160, :96] / 255
    with torch.no_grad():
        torch.testing.assert_close(trunk(ours, axes).mT, trunk(theirs, rows))
        assert not torch.allclose(trunk(theirs, axes).mT, trunk(theirs, rows), rtol=0.1, atol=0.1)
    export_weights(tmp_path / "model.pt", tmp_path / "back.pt", target)
    assert_equal(loaded(tmp_path / "back.pt"), theirs.state_dict())


def test_timm_reads_the_same_features(tmp_path):
    timm = pytest.importorskip("timm")
    options = {"conv1_t_stride": 2, "bias_downsample": False, "feed_forward": False}
    ours = resnet50(spatial_dims=2, n_input_channels=3, **options).eval()
    file = saved(ours.state_dict(), tmp_path / "model.pt")
    lines = export_weights(file, tmp_path / "timm.pt", "timm")
    assert lines[:2] == [f"{file}: 318 of 318 tensors", f"{tmp_path / 'timm.pt'}: names of timm"]
    theirs = timm.create_model("resnet50", num_classes=0).eval()
    theirs.load_state_dict(loaded(tmp_path / "timm.pt"))  # strict
    x = torch.rand(1, 3, 64, 32).double()
    with torch.no_grad():
        features = ours.double().avgpool(ours.layer4(trunk(ours, x))).flatten(1)
        torch.testing.assert_close(features, theirs.double()(x.mT))


def trunk(network, x):
    x = network.maxpool(network.act(network.bn1(network.conv1(x))))
    return network.layer3(network.layer2(network.layer1(x)))


@pytest.mark.parametrize(
    ("state", "target", "reason"),
    [
        (lambda: GenesisUNet(2, features=(2, 4, 6, 8)).state_dict(), "smp", "takes a FlexibleUNet .* no encoder.conv1"),
        (lambda: resnet10(spatial_dims=2).state_dict(), "smp", r"has no encoder\.conv1\.weight"),
        (lambda: resnet10(spatial_dims=2).state_dict(), "torchvision", r"same tensors, first .*downsample\.0\.bias"),
        (lambda: flexible_unet(2, "resnet18").state_dict(), "torchvision", r"this ResNet has none \(type A\)"),
        (lambda: flexible_unet(2, pre_conv="default").state_dict(), "smp", r"same tensors, first decoder\.blocks\.0"),
        (lambda: flexible_unet(2, decoder_bias=True).state_dict(), "smp", r"first decoder\.blocks\.0\.conv1\.0\.bias"),
        (lambda: flexible_unet(2, norm="instance").state_dict(), "smp", "same tensors, first decoder.*running_var"),
        (lambda: resnet10(spatial_dims=3, bias_downsample=False).state_dict(), "timm", "timm has networks in 2D alone"),
        (lambda: {"a": torch.ones(1)}, "onnx", "layout must be torchvision, smp, timm or nnunet, got onnx"),
    ],
)
def test_export_refuses_what_the_layout_lacks(tmp_path, state, target, reason):
    file = saved(state(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=reason):
        export_weights(file, tmp_path / "out.pt", target)
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (flexible_unet(2).state_dict(), r"of no known layout \(U-Net of .*begin with encoder\.conv1\.weight"),
        (numbered(RESNET50, "module.") | numbered(RESNET50), "of no known layout"),
        (numbered([(key, shape) for key, shape in RESNET50 if "layer3.5" not in key]), r"MONAI lacks .*\[3, 4, 5, 3\]"),
        (
            numbered(RESNET50) | {"layer1.0.conv2.weight": torch.ones(128, 4, 3, 3)},
            r"MONAI lacks a ResNet of bottleneck blocks \[3, 4, 6, 3\], the first with \(128, 4\) channels",
        ),
        ({"epoch": 1}, "holds no state dict, neither plain nor as one of the entries network, state_dict, model"),
        ([torch.ones(1)], "holds no state dict"),
        (numbered(RESNET50) | {"bn1.weight": torch.tensor([1, torch.inf])}, "but bn1.weight holds NaN or infinity"),
        (
            {"state_dict": {"a": torch.ones(1)}, "args": Namespace(b=1)},
            r"Python object \(argparse.Namespace\) .* never",
        ),
        ({"state_dict": {"a": torch.ones(1)}, "curve": np.ones(2)}, r"Python object \(numpy.*reconstruct\) .* never"),
    ],
)
def test_import_refuses(tmp_path, content, reason):
    file = saved(content, tmp_path / "published.pth")
    with pytest.raises(InputError, match=f"published.pth: .*{reason}"):
        import_weights(file, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_file_that_is_none_and_output_onto_the_input(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"text\.pth: cannot be read as a checkpoint"):
        import_weights(tmp_path / "text.pth", tmp_path / "model.pt")
    for command in (import_weights, lambda file, output: export_weights(file, output, "smp")):
        with pytest.raises(InputError, match="the output must be another file than the input"):
            command(tmp_path / "text.pth", tmp_path / "sub" / ".." / "text.pth")


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved(numbered(UNET), tmp_path / "1.pth")
    for words in (["import-weights", "1.pth"], ["export-weights", "2.pt", "--layout=smp"]):
        monkeypatch.setattr(
            sys, "argv", ["dira_monai", *words, "--output=2.pt" if words[1] == "1.pth" else "--output=3"]
        )
        main()
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "1.pth: U-Net of segmentation_models_pytorch (DiRA 2D)"
    assert output[-3:] == ["2.pt: 380 of 380 tensors", "3: names of smp", TURNED]
    assert_equal(loaded("3"), numbered(UNET))
