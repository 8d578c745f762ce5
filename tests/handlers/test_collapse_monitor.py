import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from logged_runs import logged_run, rows_of
from objective_runs import ALONE, make_run

from dira_monai.handlers.collapse_monitor import CERTAIN, CONSTANT, CollapseMonitor, find_problems
from dira_monai.handlers.training_log import TrainingLog
from dira_monai.metrics import COLLAPSED
from dira_monai.objectives.combined import CombinedObjective
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.objective import Objective
from dira_monai.utils.errors import InputError
from dira_monai.weights.files import load_weights

ROOT = Path(__file__).parents[2]
WELL = {"contrastive": 1.0, "contrastive_accuracy": 0.5, "restored_deviation": 0.2, "discriminator_accuracy": 0.8}


class Words(Objective):
    """An objective that has one metric besides the accuracy, and a problem with it."""

    metrics = ("accuracy", "spread")

    def __init__(self, problem=None):
        super().__init__()
        self.problem = problem
        self.asked = []

    def diagnose(self, metrics):
        self.asked.append(dict(metrics))
        return self.problem


@pytest.mark.parametrize(
    ("metric", "bound", "words"),
    [
        ("restored_deviation", CONSTANT, r"the restored images are constant \(their values deviate by 0.0090\)"),
        ("discriminator_accuracy", CERTAIN, r"the discriminator tells every restoration .* \(accuracy 0.9999\)"),
        (
            "collapse",
            COLLAPSED,
            r"the embeddings of all images have collapsed to one direction \(collapse 0.991 of 1\)",
        ),
    ],
)
def test_each_metric_beyond_its_bound_is_named(metric, bound, words):
    ill = {"restored_deviation": 0.009, "discriminator_accuracy": 0.9999, "collapse": 0.991}[metric]
    assert find_problems(WELL, Words()) == []
    assert find_problems(WELL | {metric: bound}, Words()) == []
    assert find_problems(WELL | {metric: math.nan}, Words()) == []
    (told,) = find_problems(WELL | {metric: ill}, Words())
    with pytest.raises(InputError, match=words):
        raise InputError(told)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            {"val_contrastive_accuracy": 2 / 64, "val_contrastive_chance": 1 / 64},
            "(accuracy 0.0312, by guessing 0.0156)",
        ),
        ({"val_contrastive_accuracy": 3 / 64, "val_contrastive_chance": 1 / 64}, None),
        ({"val_contrastive_accuracy": 0.02}, None),  # of an objective's own, whose chance is not known
        ({"val_psnr": 13.94, "val_distorted_psnr": 14.0}, "restored (13.9 dB) than distorted (14.0 dB)"),
        ({"val_psnr": 14.0, "val_distorted_psnr": 13.0}, None),
        ({"val_psnr": 14.0, "val_distorted_psnr": math.inf}, None),  # nothing is distorted
    ],
)
def test_a_validation_that_shows_no_learning_is_told(metrics, words):
    told = find_problems(WELL | {"restoration": 0.1} | metrics, Words())
    assert [words in sentence for sentence in told] == ([] if words is None else [True])
    assert find_problems(metrics, Words()) == []  # of parts that do not learn


def test_a_validation_holds_until_the_next(caplog):
    watch = CollapseMonitor(patience=3)
    chance = {"val_contrastive_accuracy": 0.1, "val_contrastive_chance": 0.1}
    for epoch in range(1, 6):
        state = SimpleNamespace(epoch=epoch, epoch_metrics=WELL | (chance if epoch % 2 == 0 else {}))
        watch.check(SimpleNamespace(state=state, objective=Words()))
    (told,) = warnings_of(caplog)
    assert told.startswith("epoch 4, since epoch 2: held-out images do not find their other view")


def test_all_problems_are_named_and_what_did_not_run_is_not_checked():
    ill = {"contrastive": 5.0, "collapse": 1.0, "restored_deviation": 0.0, "discriminator_accuracy": 1.0}
    assert len(find_problems(ill, Words())) == 3
    assert find_problems({"loss": 1.0}, Words("never asked")) == []


def test_the_objective_is_asked_first_and_by_its_own_names():
    objective = Words("it is asleep")
    assert find_problems(WELL | {"collapse": 1.0, "contrastive_spread": 0.25}, objective) == ["it is asleep"]
    assert objective.asked == [{"accuracy": 0.5, "spread": 0.25, "collapse": 1.0}]
    assert find_problems({"restoration": 1.0}, objective) == []
    assert len(objective.asked) == 1  # no contrastive loss, nothing to diagnose


def moco(queue_size):
    """``diagnose`` alone needs no more than the length of the queue."""
    return SimpleNamespace(queue=torch.zeros(queue_size, 1))


@pytest.mark.parametrize(("queue_size", "bound"), [(1, 2 / 3), (8, 0.2), (4096, 2 / 4098)])
def test_moco_at_chance_is_told(queue_size, bound):
    # odds of a guess are 1 to K; the bound a has odds a / (1 - a) = 2 / K
    assert bound / (1 - bound) == pytest.approx(2 / queue_size)
    told = MoCo.diagnose(moco(queue_size), {"accuracy": 0.99 * bound, "collapse": 0.3})
    assert f"find their own key among {queue_size} others no better than by guessing" in told
    assert MoCo.diagnose(moco(queue_size), {"accuracy": 1.01 * bound, "collapse": 0.3}) is None
    assert MoCo.diagnose(moco(queue_size), {"accuracy": 1.01 * bound, "collapse": math.nan}) is None


def test_collapsed_moco_is_told_before_its_accuracy():
    told = MoCo.diagnose(moco(8), {"accuracy": 0.0, "collapse": 0.995})
    assert "have collapsed to one direction (collapse 0.995 of 1)" in told
    assert MoCo.diagnose(moco(8), {"accuracy": 0.5, "collapse": COLLAPSED}) is None


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "dira_monai.handlers.collapse_monitor"]


def watched(caplog, problems, **options):
    """What is logged over epochs in each of which the objective has a problem."""
    watch, objective = CollapseMonitor(**options), Words()
    for epoch, problem in enumerate(problems, start=1):
        objective.problem = problem
        state = SimpleNamespace(epoch=epoch, epoch_metrics=WELL)
        watch.check(SimpleNamespace(state=state, objective=objective))
    return warnings_of(caplog)


@pytest.mark.parametrize(
    ("problems", "patience", "warnings"),
    [
        (
            ["ill 0.91", "ill 0.92", "ill 0.93", None, "ill 0.94", "ill 1e-05", "ill 2"],
            2,
            ["epoch 2, since epoch 1: ill 0.92", "epoch 6, since epoch 5: ill 1e-05"],
        ),
        (
            ["ill 1", "mad 1", "mad 2", "ill 3"],  # another problem is another warning
            1,
            ["epoch 1, since epoch 1: ill 1", "epoch 2, since epoch 2: mad 1", "epoch 4, since epoch 4: ill 3"],
        ),
    ],
)
def test_a_warning_is_given_once_after_patience_and_again_when_it_comes_back(caplog, problems, patience, warnings):
    assert watched(caplog, problems, patience=patience) == warnings


def test_stop_waits_for_patience(caplog):
    assert watched(caplog, ["ill", "ill", None, "ill", "ill"], on_collapse="stop", patience=3) == []
    with pytest.raises(InputError, match=r"epoch 4, since epoch 2: ill 5; training stopped, .* --resume True --on_c"):
        watched(caplog, [None, "ill 3", "ill 4", "ill 5"], on_collapse="stop", patience=3)


def test_without_the_log_it_says_so(tmp_path):
    engine = SimpleNamespace(state=SimpleNamespace(epoch=1), objective=Words())
    with pytest.raises(InputError, match="TrainingLog must stand before it"):
        CollapseMonitor().check(engine)


def asleep(run):
    """A run whose embeddings have one direction, whatever it learns: the last layer of the projectors is its bias."""
    for projector in (run.trainer.objective.projector, run.trainer.objective.key_projector):
        torch.nn.init.zeros_(projector[-1].weight)
        projector[-1].requires_grad_(False)
    return run


def test_a_collapsed_run_stops_with_its_checkpoint_and_can_go_on(tmp_path, caplog, spatial_dims):
    options = {"patch_size": (16,) * spatial_dims, "adversarial_weight": 0.0}
    run = asleep(logged_run(tmp_path, **options))
    CollapseMonitor("stop", patience=2).attach(run.trainer)
    with pytest.raises(InputError, match="epoch 2, since epoch 1: the query embeddings of MoCo have collapsed"):
        run.trainer.run()
    content = load_weights(tmp_path / "models" / "checkpoint.pt")
    assert content["epoch"] == 2
    torch.testing.assert_close(content["network"], dict(run.trainer.network.state_dict()), rtol=0, atol=0)
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1", "2"]
    again = asleep(logged_run(tmp_path, resume=True, **options))
    CollapseMonitor("warn", patience=2).attach(again.trainer)
    again.trainer.run()
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1", "2", "3", "4"]
    assert [told.partition(":")[0] for told in warnings_of(caplog)] == ["epoch 4, since epoch 3"]


def moco_in_second_place():
    """SimSiam's trainer, whose objective has got a MoCo beside it."""
    trainer = make_run("simsiam", **ALONE)
    second = MoCo(trainer.network, 8, queue_size=9)
    trainer.objective = CombinedObjective([trainer.objective, second], [1.0, 1.0])
    return trainer


COLLAPSES = {
    "barlow_twins": (partial(make_run, "barlow_twins", **ALONE), "Twins' embeddings do not agree between"),
    "simsiam": (partial(make_run, "simsiam", **ALONE), "SimSiam gives every image nearly the same"),
    "byol": (partial(make_run, "byol", **ALONE), "BYOL gives every image nearly the same"),
    "simclr": (partial(make_run, "simclr", **ALONE), "SimCLR's views find their partner no more often"),
    "gravis": (partial(make_run, "gravis", **ALONE), "the embeddings of all views have collapsed"),
    "pcrl": (partial(make_run, "pcrl"), "the decoder's coarsest level is the same for every image"),
    "voco": (partial(make_run, "voco", **ALONE), "VoCo's crops look like none of the base crops"),
    "combined": (
        moco_in_second_place,
        "SimSiam gives .*; the query embeddings of MoCo have collapsed to one direction",
    ),
}


@pytest.mark.parametrize("method", COLLAPSES)
def test_a_method_that_has_collapsed_stops_in_its_own_words(method, tmp_path):
    make, sentence = COLLAPSES[method]
    trainer = make()
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    for name, parameter in trainer.objective.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.zeros_(parameter)  # every image gets the bias
    TrainingLog(str(tmp_path), str(tmp_path)).attach(trainer)
    CollapseMonitor("stop", patience=1).attach(trainer)
    with pytest.raises(InputError, match=f"epoch 1, since epoch 1: .*{sentence}"):
        trainer.run()


def test_a_network_that_restores_a_constant_is_told(tmp_path, caplog):
    run = logged_run(tmp_path, max_epochs=1, contrastive_weight=0.0, adversarial_weight=0.0)
    layer = run.trainer.network.final_conv
    torch.nn.init.zeros_(layer.weight)
    layer.requires_grad_(False)
    CollapseMonitor(patience=1).attach(run.trainer)
    run.trainer.run()
    (told,) = warnings_of(caplog)
    assert told.startswith("epoch 1, since epoch 1: the restored images are constant (their values deviate by 0.0000)")


def test_a_healthy_run_is_left_alone(tmp_path, caplog):
    run = logged_run(tmp_path, max_epochs=2)
    CollapseMonitor("stop", patience=1).attach(run.trainer)
    run.trainer.run()
    assert run.trainer.state.epoch == 2
    assert not warnings_of(caplog)


@pytest.mark.parametrize("bundle", ["dira_pretrain_2d", "dira_pretrain_3d"])
def test_the_bundles_watch_behind_log_and_checkpoint(bundle):
    config = json.loads((ROOT / "bundles" / bundle / "configs" / "train.json").read_text())
    handlers = [handler["_target_"].rpartition(".")[2] for handler in config["train"]["handlers"]]
    assert handlers.index("TrainingLog") < handlers.index("Checkpoint") < handlers.index("CollapseMonitor")
    watch = config["train"]["handlers"][handlers.index("CollapseMonitor")]
    assert "_disabled_" not in watch  # all processes must take part
    CollapseMonitor(config["on_collapse"], config["collapse_patience"])
    assert config["on_collapse"] == "warn"
