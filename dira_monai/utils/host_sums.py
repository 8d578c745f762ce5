"""Sums over the processes of one host through sockets, for few numbers, for which gloo's threads take a millisecond."""

import secrets
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LARGEST = 2**15  # bytes; a socket holds two such messages unread, so that all may send before they receive


class HostSums:
    """A connection between each two processes, which have met by gloo and run on one host.

    Attributes:
        seconds: after which a process that sends nothing is given up.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.rank, world = seconds, dist.get_rank(), dist.get_world_size()
        self._connections: dict[int, Connection] = {}  # by the number of the other process
        key: list[Any] = [secrets.token_bytes(32)]  # keeps strangers out
        dist.broadcast_object_list(key)
        with Listener(backlog=world, authkey=key[0]) as listener:
            addresses: list[Any] = [None] * world
            dist.all_gather_object(addresses, listener.address)
            for other in range(self.rank):
                self._connections[other] = Client(addresses[other], authkey=key[0])
                self._connections[other].send_bytes(str(self.rank).encode())
            for _ in range(self.rank + 1, world):
                caller = listener.accept()
                self._connections[int(caller.recv_bytes())] = caller

    def add(self, values: Tensor) -> None:
        """Replace numbers by their sums over all processes, see ``sum_over_processes``."""
        parts = {self.rank: values.clone()}
        own = values.flatten().view(torch.uint8).numpy().tobytes()
        try:
            for connection in self._connections.values():
                connection.send_bytes(own)
            for other, connection in self._connections.items():
                if not connection.poll(self.seconds):
                    raise RuntimeError(f"Timed out waiting for process {other}.")
                parts[other] = torch.frombuffer(bytearray(connection.recv_bytes()), dtype=values.dtype)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"A connection of process {self.rank} was closed by peer.") from error
        torch.sum(torch.stack([parts[number].view(values.shape) for number in sorted(parts)]), 0, out=values)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


_host: list[HostSums] = []  # the one of this process, where all run on its host


def connect_host(processes_here: int, seconds: float) -> None:
    """Let ``sum_over_processes`` use sockets, if all processes that have met by gloo run on this host.

    Args:
        processes_here: number of processes on this host, LOCAL_WORLD_SIZE of torchrun.
        seconds: after which a process that sends nothing is given up.
    """
    if 1 < processes_here == dist.get_world_size():
        _host.append(HostSums(seconds))


def disconnect_host() -> None:
    """Close what ``connect_host`` has opened."""
    while _host:
        _host.pop().close()


def sum_over_processes(values: Tensor) -> None:
    """Replace numbers by their sums over all processes, on the CPU; the same to the bit in every process.

    Args:
        values: contiguous, any shape.

    Raises:
        RuntimeError: if another process has ended, or sends nothing within the time that an exchange may take.
    """
    if _host and values.nbytes <= LARGEST:
        _host[0].add(values)
    else:
        dist.all_reduce(values)
