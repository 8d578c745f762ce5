"""Work in two real processes that train together."""

from datetime import timedelta

import torch
import torch.distributed as dist
from programs import METHOD

from dira_monai.utils.host_sums import connect_host, disconnect_host


def _run(process, work, folder, args):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=process, world_size=2, timeout=timedelta(seconds=300)
    )
    connect_host(2, seconds=300)
    torch.save(work(*args), f"{folder}/{process}.pt")
    disconnect_host()
    dist.destroy_process_group()


def in_two_processes(folder, work, *args):
    """What ``work(*args)`` gives in each process: tensors, numbers, strings in dicts and lists."""
    torch.multiprocessing.start_processes(_run, (work, str(folder), args), nprocs=2, start_method=METHOD)
    return [torch.load(f"{folder}/{process}.pt", weights_only=True) for process in (0, 1)]
