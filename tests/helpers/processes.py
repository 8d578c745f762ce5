"""Work in real processes that train together."""

from datetime import timedelta

import torch
import torch.distributed as dist
from programs import METHOD

from dira_monai.utils.host_sums import connect_host, disconnect_host


def _run(process, work, folder, world, args):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=process, world_size=world, timeout=timedelta(seconds=300)
    )
    connect_host(world, seconds=300)
    torch.save(work(*args), f"{folder}/{process}.pt")
    disconnect_host()
    dist.destroy_process_group()


def in_processes(folder, work, *args, world=2):
    """What ``work(*args)`` gives in each of ``world`` processes: tensors, numbers, strings in dicts and lists."""
    torch.multiprocessing.start_processes(_run, (work, str(folder), world, args), nprocs=world, start_method=METHOD)
    return [torch.load(f"{folder}/{process}.pt", weights_only=True) for process in range(world)]
