"""Fine-tuning by a plain script of MONAI: the transforms, the network and the loss of the 3D segmentation bundle."""

import torch
from workloads import write_volumes

from .views_2d import Work


def plain() -> Work:
    """Epochs of ``CacheDataset`` and ``DataLoader`` over four volumes, two patches of 64 x 64 x 64 a step."""
    from monai import transforms as m
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    keys = ["image", "label"]
    chain = m.Compose(
        [
            m.LoadImaged(keys),
            m.EnsureChannelFirstd(keys),
            m.Orientationd(keys, "RAS", labels=None),
            m.ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
            m.SpatialPadd(keys, [64] * 3),
            m.RandCropByPosNegLabeld(keys, "label", [64] * 3),
            m.RandAffined(
                keys,
                prob=0.5,
                rotate_range=[0.15] * 3,
                scale_range=[0.15] * 3,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            m.RandGaussianNoised("image", 0.15, std=0.05),
            m.RandScaleIntensityd("image", 0.2, 0.5),
            m.RandShiftIntensityd("image", 0.1, prob=0.5),
        ]
    )
    dataset = CacheDataset(write_volumes(), chain, progress=False)
    loader = DataLoader(dataset, batch_size=2, shuffle=True)
    network, loss_of = BasicUNet(3, 1, 4, (32, 64, 128, 256, 512, 32)), DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-5)

    def epoch() -> float:
        for batch in loader:
            loss = loss_of(network(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
            value = loss.item()
        return value

    return epoch, len(dataset)
