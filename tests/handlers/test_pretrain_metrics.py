"""The metrics that the pre-training bundles validate by."""

import pytest
import torch
from ignite.engine import Engine

from dira_monai.handlers.pretrain_metrics import pretrain_metrics
from dira_monai.utils.errors import InputError


def test_without_embeddings_only_the_restoration_is_judged():
    names = {"val_contrastive", "val_contrastive_accuracy", "val_contrastive_chance", "val_collapse"}
    whole, restored = (pretrain_metrics(2, 1, 10, embeddings=e)["additional_metrics"] for e in (["query"] * 2, None))
    assert set(whole) - set(restored) == names
    assert set(restored) == {"val_mse", "val_psnr", "val_distorted_psnr", "val_ssim", "val_mae"}


@pytest.mark.parametrize(("stage", "weight"), [("di", 0), ("dir", 10), ("dira", 10), (None, 10)])
def test_an_untrained_decoder_does_not_count(stage, weight):
    metrics = pretrain_metrics(2, 3, 10)
    images, embeddings = torch.rand(4, 1, 8, 8), torch.eye(4)
    output = {"pred": images, "image": images, "label": images / 2, "query": embeddings, "key": embeddings}
    engine = Engine(lambda engine, batch: output)
    if stage is not None:
        engine.state.stage = stage
    for name, metric in (metrics["key_metric"] | metrics["additional_metrics"]).items():
        metric.attach(engine, name)
    found = engine.run([0]).metrics
    assert found["val_mse"] == pytest.approx((images / 2).square().mean().item())
    assert found["val_loss"] == pytest.approx(3 * found["val_contrastive"] + weight * found["val_mse"])
    assert found["val_contrastive_chance"] == 0.25


@pytest.mark.parametrize("option", ["contrastive", "restoration_error"])
def test_an_unknown_choice_is_refused(option):
    with pytest.raises(InputError, match=f"{option} must be one of .*, got 'cubed'"):
        pretrain_metrics(2, 1, 10, **{option: "cubed"})
