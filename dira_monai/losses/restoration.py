"""The restoration loss of masked images."""

from collections.abc import Callable

import torch
from torch import Tensor


def masked_loss(
    loss: Callable[[Tensor, Tensor], Tensor], restored: Tensor, target: Tensor, mask: Tensor | None
) -> Tensor:
    """Loss of the voxels where ``mask`` is True, of all voxels without a mask.

    Of each sample by itself, then the mean over the samples: so it does not depend on how a batch is divided, even
    where samples hide unequally many voxels.

    Args:
        loss: mean over all voxels of something that is 0 where both agree, such as ``torch.nn.MSELoss()``.
        restored: shape (B, C, *spatial).
        target: likewise.
        mask: bool, shape (B, 1, *spatial), True somewhere.
    """
    if mask is None:
        return loss(restored, target)
    hidden = torch.where(mask, restored, target)
    each = torch.func.vmap(loss)(hidden.unsqueeze(1), target.unsqueeze(1))  # batches of one
    return (each / mask.flatten(1).float().mean(dim=1)).mean()
