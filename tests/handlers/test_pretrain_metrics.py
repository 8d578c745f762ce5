"""The metrics that the pre-training bundles validate by."""

import pytest

from dira_monai.handlers.pretrain_metrics import pretrain_metrics
from dira_monai.utils.errors import InputError


def test_without_embeddings_only_the_restoration_is_judged():
    names = {"val_contrastive", "val_contrastive_accuracy", "val_collapse"}
    whole, restored = (pretrain_metrics(2, 1, 10, embeddings=e)["additional_metrics"] for e in (["query"] * 2, None))
    assert set(whole) - set(restored) == names
    assert set(restored) == {"val_mse", "val_psnr", "val_distorted_psnr", "val_ssim", "val_mae"}


@pytest.mark.parametrize("option", ["contrastive", "restoration_error"])
def test_an_unknown_choice_is_refused(option):
    with pytest.raises(InputError, match=f"{option} must be one of .*, got 'cubed'"):
        pretrain_metrics(2, 1, 10, **{option: "cubed"})
