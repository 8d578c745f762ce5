"""In which precision networks run: as asked for, or as a short measurement says."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import nn

from ..utils.distributed import on_first_process, rank
from ..utils.errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FASTER = 1.3  # times, from which bf16 is worth its fewer digits: a step is not all convolutions


def settle_precision(device: torch.device, precision: str) -> str:
    """fp32, bf16 or fp16 as given; of ``auto`` the one of fp32 and bf16 that this machine is faster in, which it says.

    Raises:
        InputError: if ``precision`` is none of fp32, bf16, fp16, auto.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, auto, got {precision!r}")
        return precision
    return _choose(device.type)


@lru_cache  # trainer and evaluator of a run both ask; it is said once
def _choose(device: str) -> str:
    """The faster one of fp32 and bf16, printed by the first process."""
    gain = on_first_process(lambda: measure_gain(device))
    chosen = "bf16" if gain >= FASTER else "fp32"
    if rank() == 0:
        print(f"precision auto: {chosen}, since convolutions in bf16 are {gain:.1f} times as fast here")
    return chosen


def measure_gain(device: str) -> float:
    """How many times faster a convolution of middle size is in bf16 than in float32; 0.1 s on a CPU."""
    layer = nn.Conv2d(128, 128, 3, padding=1, bias=False).to(device)
    images = torch.ones(4, 128, 32, 32, device=device).to(memory_format=torch.channels_last)
    return _seconds(layer, images) / _seconds(layer.to(torch.bfloat16), images.to(torch.bfloat16))


@torch.no_grad()
def _seconds(work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, calls: int = 5) -> float:
    """The least that one of some calls takes, after one that prepares; the result is waited for."""
    times = []
    for _ in range(1 + calls):
        started = time.perf_counter()
        work(images)[0, 0, 0, 0].item()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which networks run: bf16 and fp16 by torch's automatic mixed precision, on CPU and CUDA.

    Args:
        device: of the networks.
        precision: what ``settle_precision`` gives.
    """
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32")


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scaler of losses, which does nothing but in fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
