"""Sums over the processes of one host: those of gloo, to the bit, and sentences where a process is gone or silent."""

import time

import pytest
import torch
import torch.distributed as dist
from two_processes import in_two_processes

from dira_monai.utils import host_sums
from dira_monai.utils.host_sums import LARGEST, connect_host, sum_over_processes

KINDS = {"double": torch.float64, "single": torch.float32, "bf16": torch.bfloat16}


def refuse(*_, **__):
    raise AssertionError("sums of few numbers go through sockets")


def sums():
    """By type what both ways give of small numbers, and what a large tensor comes to, which only gloo may sum."""
    torch.manual_seed(dist.get_rank())
    found = {}
    exchange = dist.all_reduce
    for name, kind in KINDS.items():
        values = torch.randn(2, 5).to(kind)
        expected = values.clone()
        exchange(expected)
        dist.all_reduce = refuse
        for _ in range(100):  # one process may be a message ahead
            got = values.clone()
            sum_over_processes(got)
        dist.all_reduce = exchange
        found[name] = {"expected": expected, "got": got}
    large = torch.full((LARGEST // 4 + 1,), dist.get_rank() + 1.0)
    sum_over_processes(large)
    return found | {"large": large}


def failures():
    """What a process is told that waits for one which is silent, and then for one which has ended."""
    if dist.get_rank() == 1:
        time.sleep(3)
        return {}
    host_sums._host[0].seconds = 0.5
    said = []
    for pause in (0, 8):
        time.sleep(pause)
        with pytest.raises(RuntimeError) as caught:
            sum_over_processes(torch.zeros(1))
        said.append(str(caught.value))
    return {"said": said}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_two_processes(tmp_path_factory.mktemp("sums"), sums)


@pytest.mark.parametrize("name", KINDS)
def test_sums_are_those_of_gloo(both, name):
    for process in both:
        assert torch.equal(process[name]["got"], process[name]["expected"])
        assert process[name]["got"].dtype == KINDS[name]


def test_a_large_tensor_is_summed_by_gloo(both):
    assert all(torch.equal(process["large"], torch.full((LARGEST // 4 + 1,), 3.0)) for process in both)


def test_a_process_that_is_silent_or_gone_is_an_error(tmp_path):
    first, _ = in_two_processes(tmp_path, failures)
    assert first["said"] == ["Timed out waiting for process 1.", "A connection of process 0 was closed by peer."]


def test_processes_of_several_hosts_open_no_sockets(monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    connect_host(2, seconds=1)
    assert not host_sums._host
