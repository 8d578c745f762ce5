"""The segmentation of mixed shares, or of painted shapes: loss and figures from their formulas."""

import pytest
import torch
from objective_views import forward
from trainer_runs import basic_unet, genesis_unet

from dira_monai.networks.encoder_decoder import decoder_maps, encode
from dira_monai.objectives.fusion_segmentation import FusionSegmentation
from dira_monai.utils.errors import InputError


@pytest.mark.parametrize("build", [genesis_unet, basic_unet])
def test_loss_is_dice_and_cross_entropy_of_the_head(build, spatial_dims):
    network, shape = build(spatial_dims), [16] * spatial_dims
    objective = FusionSegmentation(network, shares=2)
    images, share = torch.rand(3, 1, *shape), torch.randint(0, 3, (3, 1, *shape))
    found = forward(objective, network, {"query": images, "share": share})
    finest = decoder_maps(network, encode(network, images))[-1].double().movedim(1, -1)
    head = objective.head.conv
    logits = finest @ head.weight.double().flatten(1).T + head.bias.double()  # (B, *spatial, K + 1)
    p = logits.softmax(-1).flatten(1, -2)
    y = torch.nn.functional.one_hot(share[:, 0], 3).double().flatten(1, -2)
    entropy = -(p.log() * y).sum(-1).mean()
    dice = 1 - (2 * (p * y).sum(1) + 1e-5) / (p.sum(1) + y.sum(1) + 1e-5)
    assert found["loss"].item() == pytest.approx((entropy + dice.mean()).item(), rel=1e-4)
    guess = logits.argmax(-1)
    recalls = [(guess[share[:, 0] == k] == k).double().mean() for k in range(3)]
    assert found["accuracy"].item() == pytest.approx(torch.stack(recalls).mean().item(), rel=1e-5)
    scores = [2 * ((guess == k) & (share[:, 0] == k)).sum() / ((guess == k).sum() + (share == k).sum()) for k in (1, 2)]
    assert found["dice"].item() == pytest.approx(torch.stack(scores).mean().item(), rel=1e-5)


def test_shares_that_no_voxel_has_do_not_count():
    objective = FusionSegmentation(basic_unet(2), shares=4)
    share = torch.tensor([[[0, 0, 2, 2]]])
    found = objective._agreement(torch.tensor([[[0, 4, 2, 2]]]), share)
    assert (found["accuracy"], found["dice"]) == (0.75, 1.0)


def test_a_missing_share_and_guesses_are_named():
    network = basic_unet(2)
    objective = FusionSegmentation(network)
    with pytest.raises(InputError, match="needs classes of voxels: set views#fusion to VolumeFusion or Primitives"):
        forward(objective, network, {"query": torch.rand(2, 1, 16, 16)})
    assert "the 5 classes of voxels" in objective.diagnose({"accuracy": 0.3, "dice": 0.2})
    assert objective.diagnose({"accuracy": 0.35, "dice": 0.2}) is None
