"""Two real processes are started once for all tests here; each test looks at one part of what they sent back."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from float64 import use_float64
from ignite.engine import Events
from norms import interleaved, synchronized
from processes import in_processes
from torch import nn
from trainer_runs import assert_same, genesis_unet, make_loader, make_run, record, states

from dira_monai.handlers.collapse_monitor import CollapseMonitor
from dira_monai.networks.batch_norm import SynchronizedBatchNorm
from dira_monai.transforms.masking import Masking
from dira_monai.utils.distributed import average_gradients, average_scalars, broadcast, gather, rank, world_size
from dira_monai.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("seeded")

LOSSES = ("loss", "contrastive", "restoration", "adversarial", "discriminator", "contrastive_accuracy")
NORMS = {"1d": (nn.BatchNorm1d, (6, 3)), "2d": (nn.BatchNorm2d, (4, 3, 5, 2)), "3d": (nn.BatchNorm3d, (2, 3, 2, 3, 4))}


def train(folder, batch_size, seed=0, prepared=lambda trainer: None, **options):
    """Three iterations with all losses, then a validation; what it came to."""
    run = make_run(
        folder,
        build=genesis_unet,
        **({"prepare": synchronized} if world_size() > 1 else {}),
        optimizer="SGD",
        seed=seed,
        loader=make_loader((16, 16), batch_size, epoch_length=3),
        max_epochs=1,
        objective={"queue_size": 9, "pooled_norm": True},
        **options,
    )
    use_float64(run.trainer)  # only the losses are rounded to float32
    outputs = record(run.trainer)
    prepared(run.trainer)
    run.trainer.run()
    return {
        "seeds": [seed for _, seed in run.trainer.data_loader.sampler],
        "losses": torch.tensor([[output[name] for name in LOSSES] for output in outputs]),
        "states": states(run.trainer),
        "metrics": dict(run.evaluator.state.metrics),
        "iteration": run.trainer.state.iteration,
    }


def preempted(folder):
    """The status with which a run ends whose second process gets a signal, and what it comes to when it is resumed."""

    def signal_second(trainer):
        during = Events.ITERATION_STARTED(once=2)
        trainer.add_event_handler(during, lambda _: rank() == 1 and os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(SystemExit) as end:
        train(folder, batch_size=2, seed=rank(), prepared=signal_second)
    return {"status": end.value.code} | train(folder, batch_size=2, seed=7 + rank(), resume=True)


def stepwise():
    """A conditional WGAN-GP, and masks whose blocks the border cuts, so that samples hide unequally many voxels."""
    return {
        "gan": "wgan",
        "gradient_penalty": 10.0,
        "conditional": True,
        "loss_function": nn.L1Loss(),
        "views": {"masking": Masking(0.5, (5, 7))},
    }


def normalize(kind, momentum, own, dtype=torch.float32):
    """Outputs, gradients and statistics of two steps of a batch norm on this process's share of a batch."""
    norm, shape = NORMS[kind]
    torch.manual_seed(0)
    layer = nn.Sequential(norm(3, momentum=momentum))
    nn.init.uniform_(layer[0].weight)
    nn.init.uniform_(layer[0].bias)
    if world_size() > 1:
        synchronized(layer)
    found = {}
    for step in range(2):
        x, slope = 3 * torch.randn(2, *shape) + 1
        x = x[own].to(dtype).requires_grad_()
        y = layer(x)
        (y * slope[own]).sum().backward()
        found |= {f"output {step}": y.detach(), f"gradient {step}": x.grad}
    layer.eval()
    found["evaluation"] = layer(x).detach()
    found["parameters"] = {name: p.grad for name, p in layer.named_parameters()}
    found["buffers"] = dict(layer.named_buffers())
    return found


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float32)


def averaged():
    """Gradients after the averaging: 10 i + r for parameter i of process r, and one parameter without gradient.

    The last gradient, a large one that lies with channels innermost, holds its places in memory beside that.
    """
    parameters = [nn.Parameter(torch.zeros(2, i + 1, dtype=dtype)) for i, dtype in enumerate(DTYPES)]
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 10.0 * i + rank())
    wide = nn.Parameter(torch.zeros(200, 40, 3, 3).contiguous(memory_format=torch.channels_last))
    wide.grad = torch.arange(wide.numel()).reshape(wide.shape).to(memory_format=torch.channels_last) + 1.0 * rank()
    parameters += [wide]
    parameters.insert(1, nn.Parameter(torch.zeros(3)))
    average_gradients(p for p in parameters)
    return [p.grad for p in parameters]


def shared_weights():
    torch.manual_seed(rank())
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    network[1].running_mean += rank()
    broadcast(network, None)
    return network.state_dict()


def monitored():
    """What a monitor says to this process; only process 0 has metrics, as only it has the log."""
    state = SimpleNamespace(epoch=1, **({"epoch_metrics": {"contrastive": 1.0}} if rank() == 0 else {}))
    objective = SimpleNamespace(metrics=(), diagnose=lambda metrics: "ill")
    monitor, told = CollapseMonitor("stop", patience=2), []
    for _ in range(2):
        try:
            monitor.check(SimpleNamespace(state=state, objective=objective))
            told.append("")
        except InputError as error:
            told.append(str(error))
    return told


def work(folder):
    process = rank()
    rows = torch.tensor([[float(process)], [process + 2.0], [process + 4.0]], requires_grad=True)
    return {
        "rank": (rank(), world_size()),
        "gather": gather(rows),
        "gather columns": gather(torch.tensor([[0.0, 2, 4], [10, 12, 14]]).add(process).T),
        "average": averaged(),
        "scalars": average_scalars({"loss": torch.tensor(1.0 + process), "image": rows}),
        "weights": shared_weights(),
        "monitor": monitored(),
        "norm": {(kind, m): normalize(kind, m, slice(process, None, 2)) for kind in NORMS for m in (0.1, None)},
        "norm in bf16": normalize("2d", 0.1, slice(process, None, 2), torch.bfloat16),
        "train": train(f"{folder}/models", batch_size=2, seed=process),
        "stepwise": train(f"{folder}/stepwise", batch_size=2, seed=process, **stepwise()),
        "resumed": train(f"{folder}/models", batch_size=2, seed=7 + process, resume=True),
        "preempted": preempted(f"{folder}/preempted"),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("two_processes")
    return in_processes(folder, work, str(folder))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process with the whole batches."""
    return train(tmp_path_factory.mktemp("one_process"), batch_size=4)


def test_one_process_needs_no_group():
    rows = torch.rand(3, 2)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    average_gradients([parameter])
    broadcast(nn.Linear(1, 1), None)
    assert_same(parameter.grad, torch.ones(2))


def test_gather_gives_the_order_of_one_process(both):
    for process, found in enumerate(both):
        assert found["rank"] == (process, 2)
        assert_same(found["gather"], torch.arange(6.0)[:, None])
        assert not found["gather"].requires_grad
        assert_same(found["gather columns"], torch.stack([torch.arange(6.0), torch.arange(10.0, 16)], dim=1))


def test_average_gradients_is_the_mean_over_the_processes(both):
    for found in both:
        gradients = found["average"]
        assert gradients.pop(1) is None
        wide = gradients.pop()
        assert_same(wide, torch.arange(wide.numel()).reshape(wide.shape) + 0.5)
        for i, (gradient, dtype) in enumerate(zip(gradients, DTYPES, strict=True)):
            assert_same(gradient, torch.full((2, i + 1), 10 * i + 0.5, dtype=dtype))


def test_average_scalars_leaves_other_tensors_alone(both):
    for process, found in enumerate(both):
        assert found["scalars"]["loss"] == 1.5
        assert found["scalars"]["image"][0] == process


def test_broadcast_gives_all_processes_the_weights_of_the_first(both):
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    for found in both:
        assert_same(found["weights"], expected)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kind", NORMS)
def test_synchronized_batch_norm_equals_batch_norm_on_the_whole_batch(both, kind, momentum):
    expected = normalize(kind, momentum, slice(None))
    first, second = (found["norm"][kind, momentum] for found in both)
    for name in ("output 0", "gradient 0", "output 1", "gradient 1", "evaluation"):
        torch.testing.assert_close(interleaved(first[name], second[name]), expected[name], rtol=1e-5, atol=1e-5)
    for found in (first, second):
        torch.testing.assert_close(found["buffers"], expected["buffers"], rtol=1e-5, atol=1e-5)
    summed = {name: gradient + second["parameters"][name] for name, gradient in first["parameters"].items()}
    torch.testing.assert_close(summed, expected["parameters"], rtol=1e-5, atol=1e-5)


def test_synchronized_batch_norm_in_bf16_keeps_its_statistics_in_float32(both):
    expected = normalize("2d", 0.1, slice(None), torch.bfloat16)
    first, second = (found["norm in bf16"] for found in both)
    for name in ("output 0", "gradient 0"):
        assert first[name].dtype == torch.bfloat16
        torch.testing.assert_close(interleaved(first[name], second[name]), expected[name], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(first["buffers"], expected["buffers"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_synchronized_batch_norm_of_one_process_is_batch_norm(training):
    plain = genesis_unet().train(training)
    ours = synchronized(genesis_unet()).train(training)
    assert sum(isinstance(module, SynchronizedBatchNorm) for module in ours.modules()) == 14
    ours.load_state_dict(plain.state_dict())
    images = torch.rand(3, 1, 16, 16)
    assert_same(ours(images), plain(images))
    assert_same(ours.state_dict(), plain.state_dict())


def test_two_processes_train_as_one_with_the_whole_batch(both, alone):
    first, second = (found["train"] for found in both)
    assert alone["losses"].isfinite().all()
    for found in (first, second):
        torch.testing.assert_close(found["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert [seed for pair in zip(first["seeds"], second["seeds"], strict=True) for seed in pair] == alone["seeds"]
    for part in ("network", "objective", "discriminator"):
        torch.testing.assert_close(first["states"][part], alone["states"][part], rtol=0, atol=1e-5)
        assert_same(second["states"][part], first["states"][part])


def test_two_processes_train_as_one_with_wgan_condition_and_masks(both, tmp_path):
    alone = train(tmp_path, batch_size=4, **stepwise())
    for found in both:
        torch.testing.assert_close(found["stepwise"]["losses"], alone["losses"], rtol=0, atol=1e-5)
        assert found["stepwise"]["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)
        for part in ("network", "discriminator"):
            torch.testing.assert_close(found["stepwise"]["states"][part], alone["states"][part], rtol=0, atol=1e-5)


def test_two_processes_fill_the_same_queue_in_the_order_of_one(both, alone):
    first, second, one = (found["states"]["objective"] for found in (both[0]["train"], both[1]["train"], alone))
    assert_same(first["queue"], second["queue"])
    torch.testing.assert_close(first["queue"], one["queue"], rtol=0, atol=1e-5)
    assert first["pointer"] == second["pointer"] == one["pointer"] == 12 % 9
    assert (one["queue"][0] - one["queue"][1]).abs().max() > 1e-2  # an order can be told


def test_validation_of_two_processes_equals_that_of_one(both, alone):
    for found in both:
        assert found["train"]["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)


def test_two_processes_resume_from_the_file_of_the_first(both):
    for found in both:
        assert found["resumed"]["iteration"] == 3
        assert_same(found["resumed"]["states"], found["train"]["states"])


def test_a_signal_to_one_process_ends_both_behind_the_same_step(both):
    for found in both:
        assert found["preempted"]["status"] == 143
        assert len(found["preempted"]["losses"]) == 1
        assert_same(found["preempted"]["states"], found["train"]["states"])


def test_a_collapsed_run_stops_in_all_processes(both):
    first, second = (found["monitor"] for found in both)
    assert first == second
    assert first[0] == ""
    assert "ill; training stopped" in first[1]
