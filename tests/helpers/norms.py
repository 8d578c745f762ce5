"""Norms, shared by several test files."""

import torch

from dira_monai.networks.batch_norm import synchronize_batch_norm

CPU = torch.device("cpu")


def synchronized(module):
    return synchronize_batch_norm(module, CPU)


def interleaved(first, second):
    return torch.stack([first, second], dim=1).flatten(0, 1)
