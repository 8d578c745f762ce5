import copy
import errno
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Metric
from power_cut import cut_power
from trainer_runs import assert_same, basic_unet, differs, genesis_unet, make_loader, make_run, run_epochs, states

from dira_monai.engines import precision
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.handlers.training_log import TrainingLog, read_rows
from dira_monai.networks.encoder_decoder import encode, encoder_only
from dira_monai.objectives.moco import MoCo
from dira_monai.utils.errors import InputError
from dira_monai.weights.files import load_module, load_weights, save_atomic


class Scripted(Metric):
    """A metric that has one given value after the other."""

    def __init__(self, values):
        self.values = list(values)
        super().__init__(output_transform=lambda _: (0, 0))

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return self.values.pop(0)


def unet_with_dropout(spatial_dims):
    """Draws from torch's global generator in every step."""
    return basic_unet(spatial_dims, dropout=0.2)


def narrow_unet(spatial_dims):
    """Names of ``genesis_unet``, some shapes of which differ."""
    network = genesis_unet(spatial_dims)
    network.out_tr.final_conv = torch.nn.Conv2d(2, 3, 1)
    return network


def everything(run):
    """All states that a resumed run must share with one that was never stopped."""
    return {
        "parts": states(run.trainer),
        "scheduler": run.scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "metrics": dict(run.evaluator.state.metrics),
        "best": [run.evaluator.state.best_metric, run.evaluator.state.best_metric_epoch],
        "position": [run.trainer.state.epoch, run.trainer.state.iteration],
    }


def files_of(folder):
    return {path.name: torch.load(path, weights_only=True) for path in Path(folder).glob("[!.]*")}


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """Folder of a run of one epoch, for reading."""
    folder = tmp_path_factory.mktemp("one_epoch")
    make_run(folder, max_epochs=1, seed=1).trainer.run()
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "Adam", "precision": "fp16"},
        {"optimizer": "SGD", "stage_epochs": (1, 1, 2), "accumulation_steps": 2},
        {"optimizer": "SGD", "build": genesis_unet, "patch_size": (16, 16, 16)},
    ],
    ids=["Adam-fp16", "SGD-stages", "SGD-3d"],
)
def test_a_resumed_run_equals_one_that_was_never_stopped_bit_for_bit(tmp_path, options):
    options = {"build": unet_with_dropout, "objective": {"final_momentum": 1.0, "queue_size": 7}} | options
    whole = make_run(tmp_path / "whole", **options)
    whole.trainer.run()
    expected, expected_files = everything(whole), files_of(tmp_path / "whole")
    assert expected["parts"]["discriminator_optimizer"]["state"]
    assert expected["parts"]["scaler"].get("_growth_tracker") != 0
    assert set(expected_files) == {"checkpoint.pt", "model.pt", "model_last.pt", "encoder.pt", "objective.pt"}

    for name, stop in (("after", lambda trainer: run_epochs(trainer, 2)), ("within", lambda t: cut_power(t, 6))):
        stop(make_run(tmp_path / name, **options).trainer)
        torch.manual_seed(99)
        second = make_run(tmp_path / name, resume=True, seed=98, **options)
        done = []
        second.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, done=done: done.append(engine.state.iteration)
        )
        second.trainer.run()
        assert done == [5, 6, 7, 8]
        assert_same(everything(second), expected)
        assert_same(files_of(tmp_path / name), expected_files)


def send(trainer, number, iteration):
    """Let a scheduler send a signal to this process during an iteration."""
    trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), lambda _: os.kill(os.getpid(), number))


@pytest.mark.parametrize(
    ("number", "iteration", "last", "accumulation"),
    [(signal.SIGTERM, 5, 5, 1), (signal.SIGUSR1, 1, 2, 2), (signal.SIGHUP, 4, 4, 1)],
    ids=["inside", "accumulating", "end of an epoch"],
)
@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2d", "3d"])
def test_a_signal_saves_after_the_step_and_a_resumed_run_equals_an_unbroken_one(
    tmp_path, capsys, number, iteration, last, accumulation, size
):
    def start(name, **options):
        loader = make_loader(size, epoch_length=4)
        log = partial(TrainingLog, str(tmp_path / name), "models", tensorboard=False)
        objective = {"queue_size": 9, "final_momentum": 1.0}
        options |= {"patch_size": size, "max_epochs": 2, "accumulation_steps": accumulation, "objective": objective}
        return make_run(tmp_path / name, build=unet_with_dropout, loader=loader, log=log, **options)

    whole = start("whole")
    whole.trainer.run()
    first = start("stopped")
    send(first.trainer, number, iteration)
    before = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    with pytest.raises(SystemExit) as stop:
        first.trainer.run()
    assert stop.value.code == 128 + number
    assert signal.signal(number, before) == signal.SIG_DFL
    assert first.trainer.state.iteration == last
    assert (
        f"{number.name}: training stopped in epoch {1 + (last - 1) // 4} after iteration {last}, all of it saved"
        in (capsys.readouterr().err)
    )

    torch.manual_seed(99)
    second = start("stopped", resume=True, seed=98)
    done = []
    second.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.iteration))
    second.trainer.run()
    assert done == list(range(last + 1, 9))
    assert_same(everything(second), everything(whole))
    kept = [read_rows(tmp_path / name / "metrics.csv") for name in ("whole", "stopped")]
    assert kept[0] == [row | {"images_per_second": kept[0][i]["images_per_second"]} for i, row in enumerate(kept[1])]


def test_a_signal_in_the_last_epoch_lets_the_run_end(tmp_path):
    run = make_run(tmp_path, max_epochs=1)
    send(run.trainer, signal.SIGTERM, 2)
    run.trainer.run()
    assert (tmp_path / "model.pt").is_file()


def test_minutes_save_inside_an_epoch(tmp_path):
    run = make_run(tmp_path, saving={"minutes": 1e-9}, loader=make_loader((16, 16), epoch_length=4))
    seen = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: seen.append(load_weights(tmp_path / "checkpoint.pt")["iteration"])
    )
    run_epochs(run.trainer, 1)
    assert seen == [1, 2, 3, 3]
    assert load_weights(tmp_path / "checkpoint.pt")["iteration"] == 4


def test_an_epoch_of_another_length_begins_anew(tmp_path, caplog):
    run = make_run(tmp_path, loader=make_loader((16, 16), epoch_length=4))
    send(run.trainer, signal.SIGTERM, 6)
    with pytest.raises(SystemExit):
        run.trainer.run()
    again = make_run(tmp_path, resume=True, loader=make_loader((16, 16), epoch_length=3))
    done = []
    again.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.iteration))
    run_epochs(again.trainer, 2)
    assert done == [4, 5, 6]
    assert "saved after 2 of 4 iterations of an epoch, which now has 3" in caplog.text


def test_workers_survive_the_signal_and_end_with_the_process(tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from ignite.engine import Events
from trainer_runs import make_loader, make_run
run = make_run({str(tmp_path)!r}, loader=make_loader((16, 16), epoch_length=4, num_workers=2))
run.trainer.add_event_handler(Events.ITERATION_STARTED(once=2), lambda _: os.killpg(0, signal.SIGTERM))
run.trainer.run()
"""
    ended = subprocess.run([sys.executable, "-c", code], start_new_session=True, timeout=100, capture_output=True)
    assert ended.returncode == 143, ended.stderr.decode()
    assert load_weights(tmp_path / "checkpoint.pt")["iteration"] == 2


@pytest.mark.parametrize("part", ["network", "objective", "discriminator"])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, part):
    """A gradient that is not finite in the last step of an epoch has finite losses before it."""
    run_epochs(make_run(tmp_path).trainer, 1)
    kept = files_of(tmp_path)
    run = make_run(tmp_path, resume=True)
    tensor = next(getattr(run.trainer, part).parameters()).detach().view(-1)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), lambda _: tensor[:1].fill_(math.nan))
    with pytest.raises(InputError, match=rf"epoch 2, iteration 4: .* of {part} is not finite; training stopped"):
        run.trainer.run()
    assert_same(files_of(tmp_path), kept)


def test_so_many_checkpoints_are_kept(tmp_path):
    run_epochs(make_run(tmp_path, saving={"keep": 3}).trainer, 4)
    names = ("checkpoint", "checkpoint_1", "checkpoint_2")
    assert [load_weights(tmp_path / f"{name}.pt")["epoch"] for name in names] == [4, 3, 2]
    assert not list(tmp_path.glob("checkpoint_3*"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_damaged_bytes_are_found(tmp_path, one_epoch, share):
    content = bytearray((one_epoch / "checkpoint.pt").read_bytes())
    with zipfile.ZipFile(one_epoch / "checkpoint.pt") as archive:
        large = [entry for entry in archive.infolist() if entry.file_size > 64]
    entry = large[int(share * len(large))]
    begin = entry.header_offset + 30 + len(entry.filename)
    data = content.index((one_epoch / "checkpoint.pt").read_bytes()[begin + 64 : begin + 96], begin)
    content[data] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as a checkpoint \(its part \S+ is damaged"):
        make_run(tmp_path, resume=True).trainer.run()


def test_a_resumed_run_has_its_own_decay_and_betas_and_the_moments_of_before(tmp_path):
    run_epochs(make_run(tmp_path).trainer, 1)
    run = make_run(tmp_path, resume=True)
    own = {"weight_decay": 0.5, "betas": (0.8, 0.9), "eps": 1e-6}
    run.trainer.optimizer.param_groups[0].update(own)
    seen = []
    first = Events.EPOCH_STARTED(once=2)
    run.trainer.add_event_handler(first, lambda e: seen.append(copy.deepcopy(e.optimizer.state_dict())))
    run.trainer.run()
    assert {name: seen[0]["param_groups"][0][name] for name in own} == own
    assert seen[0]["state"][0]["step"] == 2


def test_another_kind_of_optimizer_is_refused(tmp_path):
    run_epochs(make_run(tmp_path).trainer, 1)
    with pytest.raises(InputError, match="its optimizer is Adam, which a resumed run cannot change to AdamW"):
        make_run(tmp_path, resume=True, optimizer="AdamW").trainer.run()


def test_a_resumed_run_keeps_the_precision_that_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_choose", lambda device: "bf16")
    unbroken = make_run(tmp_path / "unbroken", precision="auto", max_epochs=2)
    unbroken.trainer.run()
    make_run(tmp_path / "broken", precision="auto", max_epochs=1).trainer.run()
    monkeypatch.setattr(precision, "_choose", lambda device: "fp32")
    resumed = make_run(tmp_path / "broken", precision="auto", max_epochs=2, resume=True)
    assert resumed.trainer.precision == "fp32"
    resumed.trainer.run()
    assert resumed.trainer.precision == "bf16"
    assert_same(states(resumed.trainer), states(unbroken.trainer))
    assert resumed.evaluator.state.metrics == unbroken.evaluator.state.metrics
    make_run(tmp_path / "broken", precision="fp32", resume=True, max_epochs=3).trainer.run()
    assert load_weights(tmp_path / "broken" / "checkpoint.pt")["precision"] == "fp32"


def test_auto_does_not_go_on_in_fp16(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_choose", lambda device: "bf16")
    make_run(tmp_path, precision="fp16", max_epochs=1).trainer.run()
    with pytest.raises(InputError, match=r"was trained in fp16, which auto never chooses; give --precision fp16"):
        make_run(tmp_path, precision="auto", resume=True).trainer.run()


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run = make_run(tmp_path)
    run.trainer.run()
    before = files_of(tmp_path)
    again = make_run(tmp_path, resume=True, seed=1)
    again.trainer.run()
    assert_same(states(again.trainer), states(run.trainer))
    assert_same(files_of(tmp_path), before)


def test_resuming_without_a_checkpoint_starts_anew(tmp_path, caplog):
    run = make_run(tmp_path, resume=True, max_epochs=1)
    with caplog.at_level(logging.INFO, "dira_monai.handlers.checkpoint"):
        run.trainer.run()
    assert "nothing to resume" in caplog.text
    assert run.trainer.state.epoch == 1


def test_without_resume_a_checkpoint_is_not_read(tmp_path):
    make_run(tmp_path, max_epochs=1, seed=5).trainer.run()
    fresh = make_run(tmp_path / "fresh", max_epochs=1)
    fresh.trainer.run()
    run = make_run(tmp_path, max_epochs=1)
    run.trainer.run()
    assert_same(states(run.trainer), states(fresh.trainer))


def weights_after_each_epoch(run):
    """The list that copies of the network's weights will be in."""
    weights = []
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: weights.append(copy.deepcopy(engine.network.state_dict()))
    )
    return weights


@pytest.mark.parametrize(("values", "best"), [([3, 1, 2, 1.5], 2), ([4, 3, 2, 1], 4), ([1, 1, 1, 1], 1)])
def test_validation_chooses_the_best_model_and_the_last_is_always_written(tmp_path, values, best):
    run = make_run(tmp_path, metrics={"val_loss": Scripted(values)})
    weights = weights_after_each_epoch(run)
    run.trainer.run()
    files = files_of(tmp_path)
    assert_same(files["model.pt"], weights[best - 1])
    assert_same(files["model_last.pt"], weights[3])
    assert files["checkpoint.pt"]["best_metric"] == values[best - 1]
    assert files["checkpoint.pt"]["best_metric_epoch"] == best
    assert differs(weights[0], weights[3])


def test_the_best_is_of_the_last_stage(tmp_path):
    run = make_run(tmp_path, metrics={"val_loss": Scripted([1, 0.5, 3, 2])}, stage_epochs=(2, 2, 0))
    stages = []
    run.evaluator.add_event_handler(Events.STARTED, lambda engine: stages.append(engine.state.stage))
    run.trainer.run()
    assert stages == ["di", "di", "dir", "dir"]
    assert (run.evaluator.state.best_metric, run.evaluator.state.best_metric_epoch) == (2, 4)


def test_the_last_model_is_written_after_every_epoch_and_the_best_survives_a_resume(tmp_path):
    first = make_run(tmp_path, metrics={"val_loss": Scripted([1, 3, 9])})
    weights = weights_after_each_epoch(first)
    cut_power(first.trainer, iteration=6)
    assert_same(load_weights(tmp_path / "model_last.pt"), weights[1])
    assert_same(load_weights(tmp_path / "model.pt"), weights[0])
    second = make_run(tmp_path, resume=True, metrics={"val_loss": Scripted([2, 1.5])})
    second.trainer.run()
    assert second.evaluator.state.best_metric == 1
    assert second.evaluator.state.best_metric_epoch == 1
    assert_same(load_weights(tmp_path / "model.pt"), weights[0])


def test_files_hold_network_encoder_and_objective_of_the_same_epoch(tmp_path):
    run = make_run(tmp_path, build=genesis_unet, max_epochs=1)
    run.trainer.run()
    files, network = files_of(tmp_path), run.trainer.network
    assert_same(files["model.pt"], network.state_dict())
    assert_same(files["objective.pt"], run.trainer.objective.state_dict())
    encoder = encoder_only(genesis_unet())
    encoder.load_state_dict(files["encoder.pt"])
    images = torch.rand(2, 1, 16, 16)
    assert_same(encode(encoder.eval(), images), encode(network.eval(), images))


def test_without_an_evaluator_every_epoch_is_the_best(tmp_path):
    run = make_run(tmp_path / "other", max_epochs=2)
    Checkpoint(tmp_path / "alone").attach(run.trainer)
    run.trainer.run()
    assert_same(load_weights(tmp_path / "alone" / "model.pt"), run.trainer.network.state_dict())
    assert "best_metric" not in load_weights(tmp_path / "alone" / "checkpoint.pt")


def test_start_from_takes_over_weights_and_neither_epoch_nor_optimizer(tmp_path):
    earlier = make_run(tmp_path / "dir", stage_epochs=(0, 4, 0), max_epochs=2, seed=1)
    earlier.trainer.run()
    later = make_run(tmp_path / "dira", start_from=str(tmp_path / "dir" / "checkpoint.pt"), max_epochs=1)
    fresh, seen = states(later.trainer), []
    rate = later.scheduler.get_last_lr()

    def look(engine):
        seen.append((states(engine), engine.state.epoch, engine.state.iteration, later.scheduler.get_last_lr()))

    later.trainer.add_event_handler(Events.EPOCH_STARTED, look)
    later.trainer.run()
    (found, epoch, iteration, found_rate), source = seen[0], states(earlier.trainer)
    for name in ("network", "objective", "discriminator"):
        assert_same(found[name], source[name])
    for name in ("optimizer", "discriminator_optimizer", "scaler"):
        assert_same(found[name], fresh[name])
    assert (epoch, iteration, found_rate) == (1, 0, rate)
    assert source["optimizer"]["state"]
    assert later.trainer.state.iteration == 2
    assert later.evaluator.state.best_metric_epoch == 1


def test_a_checkpoint_to_resume_comes_before_one_to_start_from(tmp_path, one_epoch):
    start = {"resume": True, "start_from": str(one_epoch / "checkpoint.pt"), "seed": 2}
    started, ended = [], []
    for epochs in (1, 2):
        run = make_run(tmp_path, max_epochs=epochs, **start)
        run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: started.append(states(engine)["network"]))
        run.trainer.run()
        ended.append(states(run.trainer)["network"])
    assert len(started) == 2  # the second run went on with its second epoch
    assert_same(started[0], load_weights(one_epoch / "model_last.pt"))
    assert_same(started[1], ended[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pt", r"model\.pt: .*checkpoint\.pt"),
        ("encoder.pt", r"encoder\.pt: .*checkpoint\.pt"),
        ("nowhere.pt", r"nowhere\.pt: no such checkpoint"),
    ],
)
def test_start_from_a_file_that_is_no_checkpoint_is_refused(tmp_path, one_epoch, name, message):
    with pytest.raises(InputError, match=message):
        make_run(tmp_path, start_from=str(one_epoch / name)).trainer.run()


@pytest.mark.parametrize("way", ["resume", "start_from"])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (basic_unet, r"network is of another network: \d+ of \d+ tensors do not fit, first conv_0\.\S+, conv_0\.\S+, "),
        (
            narrow_unet,
            r"network is of another network: 2 of \d+ tensors do not fit, first out_tr\.final_conv\.weight, ",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_and_nothing_is_loaded(tmp_path, way, build, message):
    make_run(tmp_path, build=genesis_unet, max_epochs=1).trainer.run()
    start = {"resume": True} if way == "resume" else {"start_from": str(tmp_path / "checkpoint.pt")}
    run = make_run(tmp_path if way == "resume" else tmp_path / "next", build=build, seed=1, **start)
    before = states(run.trainer)
    with pytest.raises(InputError, match=message):
        run.trainer.run()
    assert_same(states(run.trainer), before)


def test_a_checkpoint_of_another_kind_of_run_is_refused(tmp_path, one_epoch):
    content = load_weights(one_epoch / "checkpoint.pt")
    del content["optimizer"]
    save_atomic(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt: holds no optimizer"):
        make_run(tmp_path, resume=True).trainer.run()


@pytest.mark.parametrize("way", ["resume", "start_from"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, one_epoch, share, way):
    path = tmp_path / "checkpoint.pt"
    data = (one_epoch / "checkpoint.pt").read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    start = {"resume": True} if way == "resume" else {"start_from": str(path)}
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read as a checkpoint"):
        make_run(tmp_path if way == "resume" else tmp_path / "next", **start).trainer.run()


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_with_a_pickled_object_is_refused_and_runs_no_code(tmp_path):
    torch.save({"network": Malicious(str(tmp_path / "trace"))}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read as a checkpoint"):
        load_weights(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "trace").exists()


def test_save_atomic_makes_the_folder_and_leaves_no_temporary_file(tmp_path):
    content = {"a": torch.arange(5), "b": [1, 2.5, None]}
    save_atomic(content, tmp_path / "new" / "file.pt")
    save_atomic(content, tmp_path / "new" / "file.pt")
    assert_same(load_weights(tmp_path / "new" / "file.pt"), content)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.pt"]


@contextmanager
def full_disk(limit):
    """No file may grow beyond ``limit`` bytes: the system refuses the write as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 10_000, 390_000])
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_keeps_the_old_file(tmp_path, exists, limit):
    path = tmp_path / "model.pt"
    if exists:
        torch.save({"weight": torch.zeros(3)}, path)
    before = path.read_bytes() if exists else None
    with full_disk(limit), pytest.raises(InputError) as caught:
        save_atomic({"weight": torch.ones(100_000)}, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written (")
    assert ("the file of before is kept" if exists else "nothing was written") in message
    assert [p.name for p in tmp_path.iterdir()] == (["model.pt"] if exists else [])
    assert not exists or path.read_bytes() == before


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("function", ["torch.save", "os.fsync", "os.replace"])
def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "model.pt"
    save_atomic({"weight": torch.zeros(3)}, path)
    before = path.read_bytes()

    monkeypatch.setattr(function, no_space)
    with pytest.raises(
        InputError, match=r"model\.pt: cannot be written \(.*No space left on device\); the file of bef"
    ):
        save_atomic({"weight": torch.ones(3)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(InputError, match=r"models.model\.pt: cannot be written"):
        save_atomic({}, tmp_path / "models" / "model.pt")


def test_a_run_that_cannot_save_stops_and_keeps_its_checkpoint(tmp_path, monkeypatch):
    run = make_run(tmp_path)

    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=3), lambda _: monkeypatch.setattr(os, "fsync", no_space))
    with pytest.raises(InputError, match="No space left on device"):
        run.trainer.run()
    monkeypatch.undo()
    assert load_weights(tmp_path / "checkpoint.pt")["epoch"] == 2
    second = make_run(tmp_path, resume=True)
    second.trainer.run()
    assert second.trainer.state.epoch == 4


def test_a_resumed_run_follows_its_own_schedule_and_rate(tmp_path):
    make_run(tmp_path, max_epochs=1).trainer.run()  # its schedule ends after 8 steps, of which it did 2
    longer = make_run(tmp_path, resume=True, max_epochs=2)
    longer.scheduler.t_total, longer.scheduler.base_lrs = 101, [0.5]
    rates = []
    longer.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"])
    )
    longer.trainer.run()
    expected = [0.5 * (1 + math.cos(math.pi * (step - 1) / 100)) / 2 for step in (2, 3)]  # one step of warm-up
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("size", "expected"), [(2, [3, 4]), (6, [-1, -2, 1, 2, 3, 4])])
def test_a_queue_of_another_length_takes_over_the_newest_keys(size, expected):
    network = genesis_unet(2)
    old, new = MoCo(network, 3, queue_size=4), MoCo(network, 3, queue_size=size)
    old.queue.copy_(torch.tensor([3.0, 4.0, 1.0, 2.0])[:, None].expand(4, 3))  # row 2 is the oldest
    old.pointer.fill_(2)
    new.queue.copy_(torch.arange(-1.0, -size - 1, -1)[:, None].expand(size, 3))
    load_module(new, old.state_dict(), "checkpoint.pt", "objective")
    assert new.queue[:, 0].tolist() == expected
    assert int(new.pointer) == 0


def test_weights_of_another_run_in_the_same_folder_are_kept(tmp_path):
    make_run(tmp_path, max_epochs=1).trainer.run()
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    make_run(tmp_path, max_epochs=1, seed=1).trainer.run()
    assert_same(torch.load(tmp_path / "checkpoint_before.pt", weights_only=True), first)
