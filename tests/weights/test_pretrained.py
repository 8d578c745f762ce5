import io
import re
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet, resnet10, resnet18, resnet34, resnet50
from reference import layout
from small_networks import basic_unet, dyn_unet, flexible_unet, genesis_unet, needs_nnunet, nnunet, plain_nnunet
from torch import nn
from weight_files import assert_equal, saved

import dira_monai
from dira_monai.networks.encoder_decoder import encode, encoder_state
from dira_monai.networks.encoder_parts import encoder_names
from dira_monai.utils.errors import InputError
from dira_monai.weights import pretrained as weights
from dira_monai.weights.files import read_weights
from dira_monai.weights.pretrained import load_pretrained, match_weights


def row_of(network, spatial_dims, channels):
    """A classifier that begins with the stages of a U-Net's encoder, one after the other."""
    stages = [getattr(network, name) for name in encoder_names(network)]
    pool = nn.AdaptiveAvgPool2d(1) if spatial_dims == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(*stages, pool, nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, 2))


def shaken(network):
    """Evaluation mode, and no tensor as a new network has it, batch statistics included."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                change = 0.1 * torch.rand_like(tensor)
                tensor.add_(change if tensor.ndim == 1 else change * tensor)
    return network.eval()


def copied(network):
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize("build", [basic_unet, flexible_unet, genesis_unet, dyn_unet])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"network": state, "epoch": 3},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    ],
)
def test_same_network_is_loaded_wholly(tmp_path, capsys, build, spatial_dims, wrap):
    source, target = shaken(build(spatial_dims)), build(spatial_dims)
    path = saved(wrap(source.state_dict()), tmp_path / "model.pt")
    assert load_pretrained(target, path, minimum_coverage=1) is target
    assert_equal(target.state_dict(), source.state_dict())
    assert capsys.readouterr().out.splitlines() == [
        f"pretrained: {path} -> {type(source).__name__}, same names",
        f"  matched: {len(source.state_dict())}",
        "  coverage: 100.0% of the encoder, 100.0% of the network",
    ]


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "model.", "net.", "backbone.", "model._orig_mod."]
)
@pytest.mark.parametrize("build", [basic_unet, flexible_unet])
def test_prefixes_of_wrappers_are_taken_off(tmp_path, capsys, build, prefix):
    source, target = shaken(build(2)), build(2)
    state = {f"{prefix}{key}": tensor for key, tensor in source.state_dict().items()}
    more = {"loss.weight": torch.ones(3)} if prefix in ("model.", "net.") else {}
    load_pretrained(target, saved({"state_dict": state | more}, tmp_path / "lightning.ckpt"), minimum_coverage=1)
    assert_equal(target.state_dict(), source.state_dict())
    output = capsys.readouterr().out
    assert f"  matched: {len(state)}\n" in output
    assert ("in the file only, unused: 1: loss.weight" in output) == bool(more)


def test_prefix_that_is_the_networks_own_stays(tmp_path, capsys):
    source, target = (UNet(2, 1, 1, (4, 8), (2,)) for _ in range(2))  # all its names begin with model.
    load_pretrained(target, saved(shaken(source).state_dict(), tmp_path / "model.pt"), minimum_coverage=1)
    assert_equal(target.state_dict(), source.state_dict())
    assert "-> UNet, same names\n" in capsys.readouterr().out


@pytest.mark.parametrize("build", [basic_unet, flexible_unet, genesis_unet, dyn_unet])
def test_encoder_file_leaves_the_decoder_alone(tmp_path, build, spatial_dims):
    taken, target = encoder_state(shaken(build(spatial_dims))), build(spatial_dims)
    before = copied(target)
    load_pretrained(target, saved(taken, tmp_path / "encoder.pt"), minimum_coverage=1)
    assert_equal(target.state_dict(), before | taken)
    assert 0 < match_weights(target, taken).coverage < 1


@pytest.mark.parametrize(
    ("spatial_dims", "build", "shortcut"),
    [
        (2, resnet10, "B"),
        (3, resnet10, "B"),
        (2, resnet18, "A"),
        (3, resnet18, "A"),
        (2, resnet34, "A"),
        (2, resnet50, "B"),
    ],
)
def test_flexible_unet_and_resnet_have_equal_features(tmp_path, spatial_dims, build, shortcut):
    backbone = build.__name__
    source = shaken(flexible_unet(spatial_dims, backbone))
    options = {"conv1_t_stride": 2, "shortcut_type": shortcut, "bias_downsample": False, "num_classes": 3}
    classifier = build(spatial_dims=spatial_dims, n_input_channels=1, **options).eval()
    load_pretrained(classifier, saved(source.state_dict(), tmp_path / "model.pt"), minimum_coverage=1)
    features = []
    classifier.layer4.register_forward_hook(lambda module, inputs, output: features.append(output))
    x = torch.rand(1, 1, *[32] * spatial_dims)
    with torch.no_grad():
        classifier(x)
        torch.testing.assert_close(features[0], encode(source, x)[-1])
    back = flexible_unet(spatial_dims, backbone)
    load_pretrained(back, saved(classifier.state_dict(), tmp_path / "classifier.pt"), minimum_coverage=1)
    assert_equal(back.encoder.state_dict(), source.encoder.state_dict())


@pytest.mark.parametrize(("build", "channels"), [(basic_unet, 10), (genesis_unet, 8)])
def test_chain_of_stages(tmp_path, capsys, build, channels, spatial_dims):
    source = shaken(build(spatial_dims))
    classifier = row_of(build(spatial_dims), spatial_dims, channels).eval()
    load_pretrained(classifier, saved(source.state_dict(), tmp_path / "model.pt"), minimum_coverage=1)
    x = torch.rand(1, 1, 32, *[16] * (spatial_dims - 1))
    stages = len(encoder_names(source))
    torch.testing.assert_close(classifier[:stages](x), encode(source, x)[-1])
    name = f"{stages + 2}.weight, {stages + 2}.bias, {stages + 2}.running_mean, ..."  # after pooling and flattening
    assert f"  not in the file, left new: 7: {name}" in capsys.readouterr().out.splitlines()
    back = build(spatial_dims)
    load_pretrained(back, saved(classifier.state_dict(), tmp_path / "classifier.pt"), minimum_coverage=1)
    assert_equal(encoder_state(back), encoder_state(source))


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        (1, 3, "1 -> 3 input channels, copied and divided by 3"),
        (3, 1, "3 -> 1 input channels, summed"),
        (3, 2, "3 -> 2 input channels, summed, copied and divided by 2"),
    ],
)
@pytest.mark.parametrize("build", [basic_unet, flexible_unet, dyn_unet])
def test_gray_image_has_the_same_features_with_other_channels(tmp_path, capsys, build, spatial_dims, old, new, how):
    source, target = shaken(build(spatial_dims, in_channels=old)), build(spatial_dims, in_channels=new).eval()
    load_pretrained(target, saved(source.state_dict(), tmp_path / "model.pt"), minimum_coverage=1)
    x = torch.rand(1, 1, 64, *[32] * (spatial_dims - 1)).expand(1, -1, *[-1] * spatial_dims)
    wide, narrow = x.repeat_interleave(old, dim=1), x.repeat_interleave(new, dim=1)
    with torch.no_grad():
        for ours, theirs in zip(encode(target, narrow), encode(source, wide), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    stem, wanted = (next(p for p in n.parameters() if p.ndim > 2) for n in (target, source))
    torch.testing.assert_close(stem, wanted.sum(1, keepdim=True).expand_as(stem) / new)
    assert f"  first convolution: {how}" in capsys.readouterr().out.splitlines()


def test_output_channels_are_no_input_channels():
    """The weight of a transposed convolution has its output channels where others have their input channels."""
    options = {"spatial_dims": 2, "channels": (4, 8), "strides": (2,)}
    match = match_weights(
        UNet(in_channels=3, out_channels=3, **options), UNet(in_channels=1, out_channels=1, **options).state_dict()
    )
    assert match.adaptation.startswith("1 -> 3")
    assert "model.2.conv.weight" in match.mismatched


def test_head_of_other_width_is_left_new_and_said(tmp_path, capsys):
    source, target = shaken(basic_unet(2)), basic_unet(2, out_channels=3)
    head = {key: tensor for key, tensor in copied(target).items() if key.startswith("final_conv")}
    load_pretrained(target, saved(source.state_dict(), tmp_path / "model.pt"), minimum_coverage=1)
    assert_equal(target.state_dict(), source.state_dict() | head)
    output = capsys.readouterr().out
    assert "  other shape, left new: 2: final_conv.weight ((1, 2, 1, 1) in the file, (3, 2, 1, 1) in the netw" in output
    total = sum(p.numel() for p in target.parameters())  # instance norm without buffers
    assert re.search(r"100.0% of the encoder, ([\d.]+)% of the network", output)[1] == str(
        (total - 9) * 1000 // total / 10
    )


def test_coverage_counts_elements_and_what_only_the_file_has():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))  # 6 + 2, 2 + 2 + 2 + 2 elements and a counter
    state = network.state_dict()
    part = {key: state[key] for key in ("0.weight", "1.weight", "1.num_batches_tracked")}
    assert match_weights(network, part).coverage == 8 / 16
    more = match_weights(network, state | {"1.other": torch.ones(4), "9.weight": torch.ones(5)})
    assert (more.coverage, more.encoder_coverage, more.unused) == (1, 16 / 20, ["1.other", "9.weight"])


def test_tensor_with_two_names_counts_once():
    network = dyn_unet(2)
    encoder = {id(p): p.numel() for name in encoder_names(network) for p in getattr(network, name).parameters()}
    total = sum(p.numel() for p in network.parameters())
    match = match_weights(network, encoder_state(network))
    assert match.coverage == sum(encoder.values()) / total


TIED = [
    dyn_unet,
    pytest.param(nnunet, marks=needs_nnunet),
    pytest.param(plain_nnunet, marks=needs_nnunet),
]


@pytest.mark.parametrize("build", TIED)
@pytest.mark.parametrize("last", [False, True])
def test_one_name_of_a_tensor_fills_all(tmp_path, build, last, spatial_dims):
    source, target = shaken(build(spatial_dims)), build(spatial_dims).eval()
    variables = source.state_dict(keep_vars=True)
    order = variables if last else reversed(variables)
    single = {id(variables[key]): key for key in order}.values()  # the last or the first name of each tensor
    assert len(single) < len(variables)
    state = {key: source.state_dict()[key] for key in single}
    load_pretrained(target, saved(state, tmp_path / "model.pt"), minimum_coverage=1)
    assert_equal(target.state_dict(), source.state_dict())
    assert match_weights(target, state).coverage == 1


@pytest.mark.parametrize("build", TIED)
def test_two_values_of_one_tensor_are_refused(tmp_path, build):
    """An old state dict with new weights of the encoder in it, where torch loads none of the new ones."""
    source, target = shaken(build(2)), build(2)
    old = copied(target)
    own = {key: id(tensor) for key, tensor in target.state_dict(keep_vars=True).items()}
    first = {number: key for key, number in reversed(own.items())}
    heads = [f"{name}." for name in encoder_names(source)]
    new = {key: source.state_dict()[key] for key in first.values() if key.startswith(tuple(heads))}
    with pytest.raises(InputError, match=r"mixed\.pt: .* are one tensor of the \w+, but have different values"):
        load_pretrained(target, saved(old | new, tmp_path / "mixed.pt"))
    assert_equal(target.state_dict(), old)
    load_pretrained(target, saved(new, tmp_path / "new.pt"), minimum_coverage=1)
    assert_equal(encoder_state(target), encoder_state(source))


def test_deeper_encoder_does_not_pass(tmp_path):
    """Each tensor of ResNet-10 stands in ResNet-10 with two blocks more, whose features are others."""
    state = resnet10(spatial_dims=2, bias_downsample=False, feed_forward=False).state_dict()
    block = {
        key.replace("layer4.0", "layer4.1"): t for key, t in state.items() if re.match(r"layer4\.0\.(conv|bn)", key)
    }
    target = flexible_unet(2, in_channels=3)
    path = saved(state | block, tmp_path / "deep.pt")
    with pytest.raises(
        InputError, match=r"covers [\d.]+% of the encoder .* layer4\.1\.conv1\.weight \(in the file only\)"
    ):
        load_pretrained(target, path)


def test_partly_filled_encoder_is_noted(tmp_path, capsys):
    state = flexible_unet(2).state_dict()
    del state["encoder.bn1.weight"]
    load_pretrained(flexible_unet(2), saved(state, tmp_path / "model.pt"))
    output = capsys.readouterr().out
    assert "  coverage: 99.9% of the encoder" in output
    note = "  note: the encoder's features are not those of the file: encoder.bn1.weight (not in the file)\n"
    assert output.endswith(note)


def test_too_little_coverage_names_both_shapes_and_changes_nothing(tmp_path, capsys):
    target = basic_unet(3)
    before = copied(target)
    path = saved(basic_unet(2).state_dict(), tmp_path / "flat.pt")
    shapes = r"conv_0\.conv_0\.conv\.weight \(\(2, 1, 3, 3\) in the file, \(2, 1, 3, 3, 3\) in the network\)"
    with pytest.raises(
        InputError,
        match=rf"flat\.pt: covers .*% of the encoder of this BasicUNet .* is 90\.0%; .*{shapes}.* give the network_def",
    ):
        load_pretrained(target, path)
    assert_equal(target.state_dict(), before)
    missing = r"covers 0\.0% .*conv_0\.conv_0\.conv\.weight \(not in the file\).*; the file begins with a\.weight"
    with pytest.raises(InputError, match=missing):
        load_pretrained(target, saved({"a.weight": torch.ones(1)}, tmp_path / "other.pt"), minimum_coverage=0.1)
    load_pretrained(target, tmp_path / "other.pt", minimum_coverage=0)
    assert "  coverage: 0.0% of the encoder, 0.0% of the network" in capsys.readouterr().out


@pytest.mark.parametrize("value", [-0.1, 1.1, 90, float("nan"), "high", None, [0.9]])
def test_minimum_coverage_is_a_share(value):
    with pytest.raises(InputError, match=r"minimum_coverage must lie in \[0, 1\], got"):
        load_pretrained(basic_unet(2), None, minimum_coverage=value)


def classifier(backbone, shortcut):
    options = {"conv1_t_stride": 2, "bias_downsample": False, "feed_forward": False}
    return backbone(spatial_dims=2, n_input_channels=1, shortcut_type=shortcut, **options)


def kernel_3(network):
    network.encoder.conv1 = nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)
    return network


@pytest.mark.parametrize(
    ("source", "target", "hole"),
    [
        (
            lambda: classifier(resnet18, "B"),
            lambda: flexible_unet(2, "resnet18"),
            r"layer2\.0\.downsample\.0\.weight \(in the file only\)",
        ),
        (
            lambda: flexible_unet(2, "resnet18"),
            lambda: classifier(resnet18, "B"),
            r"layer2\.0\.downsample\.0\.weight \(not in the file\)",
        ),
        (
            lambda: flexible_unet(2),
            lambda: kernel_3(flexible_unet(2)),
            r"conv1\.weight \(\(64, 1, 7, 7\) in the file, \(64, 1, 3, 3\) in the network\)",
        ),
    ],
)
def test_missing_convolution_stops_however_small_it_is(tmp_path, capsys, source, target, hole):
    state, network = shaken(source()).state_dict(), target()
    assert match_weights(network, state).encoder_coverage > 0.95
    path, before = saved(state, tmp_path / "model.pt"), copied(network)
    with pytest.raises(
        InputError, match=rf"model\.pt: .* not be those of the file, .*{hole}.*; minimum_coverage 0 loads"
    ):
        load_pretrained(network, path, minimum_coverage=0.5)
    assert_equal(network.state_dict(), before)
    load_pretrained(network, path, minimum_coverage=0)
    note = next(line for line in capsys.readouterr().out.splitlines() if "note: the encoder's features are not" in line)
    assert re.search(hole, note)


def test_head_of_a_network_without_known_encoder_may_differ(tmp_path):
    """The head is told from the encoder in known networks only; in others it must not stop what else fits."""
    source, target = (UNet(2, 1, classes, (64, 128), (2,), num_res_units=2) for classes in (1, 2))
    path = saved(source.state_dict(), tmp_path / "model.pt")
    match = match_weights(target, source.state_dict())
    assert match.mismatched
    assert match.encoder_coverage > 0.9
    load_pretrained(target, path)


def test_path_that_is_empty_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(basic_unet(2).state_dict(), tmp_path / "models" / "model.pt")
    with pytest.raises(InputError, match=r"pretrained is empty; give a file, or None"):
        load_pretrained(basic_unet(2), "")
    with pytest.raises(InputError, match="the name of the weight file is empty"):
        read_weights("")


def test_no_path_leaves_the_network_as_it_is(capsys):
    network = basic_unet(2)
    before = copied(network)
    assert dira_monai.load_pretrained(network, None) is network
    assert_equal(network.state_dict(), before)
    assert capsys.readouterr().out == "pretrained: none, the network starts from random weights\n"


def test_other_processes_are_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "rank", lambda: 1)
    source, target = shaken(basic_unet(2)), basic_unet(2)
    load_pretrained(load_pretrained(target, None), saved(source.state_dict(), tmp_path / "model.pt"))
    assert_equal(target.state_dict(), source.state_dict())
    assert capsys.readouterr().out == ""


def archive(path, *names, content=b""):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, content)
    return path


def in_memory(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_bundle_folder_and_archive(tmp_path):
    source = shaken(basic_unet(2))
    number = archive(tmp_path / "n.zip", "b/models/model.pt", content=in_memory({"best": np.float64(1.5)}))
    assert read_weights(number) == {"best": 1.5}
    saved(source.state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    names = ["bundle/models/model.pt", "bundle/models/deep/models/model.pt", "bundle/docs/README.md"]
    zipped = archive(tmp_path / "bundle.zip", *names, content=in_memory(source.state_dict()))
    for path in (tmp_path / "bundle", zipped, str(zipped)):
        target = basic_unet(2)
        load_pretrained(target, path)
        assert_equal(target.state_dict(), source.state_dict())


def test_files_that_cannot_be_read(tmp_path):
    unsafe = {"network": {"a": torch.ones(1)}, "args": Namespace(a=1)}
    one = r"x\.zip: a bundle archive must hold one NAME/models/model\.pt, got "
    (tmp_path / "text.zip").write_text("none")
    (tmp_path / "empty").mkdir()
    cases = {
        "missing.zip": "no such checkpoint",
        archive(tmp_path / "0x.zip", "bundle/configs/train.json", "models/model.pt"): f"{one}0",
        archive(tmp_path / "2x.zip", "a/models/model.pt", "b/models/model.pt"): f"{one}2",
        "empty": r"model\.pt: no such checkpoint",
        "text.zip": r"cannot be read as a bundle archive \(BadZipFile\)",
        archive(tmp_path / "cut.zip", "b/models/model.pt", content=b"no"): "cannot be read as a bundle archive",
        archive(
            tmp_path / "bad.zip", "b/models/model.pt", content=in_memory(unsafe)
        ): r"\(argparse\.Namespace\) besides",
        saved(unsafe, tmp_path / "bad.pt"): r"bad\.pt: holds a Python object \(argparse\.Namespace\) besides tensors",
        saved({"a": torch.tensor([torch.nan])}, tmp_path / "nan.pt"): "finite numbers, but a holds NaN or infinity",
        saved([1, 2], tmp_path / "list.pt"): "holds no state dict",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError, match=reason):
            load_pretrained(basic_unet(2), tmp_path / path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_layout_is_sent_to_the_command(tmp_path, prefix):
    keys = layout("dira_unet_resnet50_keys.json")
    state = {f"{prefix}{key}": torch.ones(()).expand(shape) for key, shape in keys}
    path = saved({"state_dict": state}, tmp_path / "unet.pth")
    with pytest.raises(InputError, match=r"python -m dira_monai import-weights .*unet\.pth --output model\.pt"):
        load_pretrained(flexible_unet(2), path, minimum_coverage=0)
