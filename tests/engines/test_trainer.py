import copy
import math

import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from trainer_runs import (
    assert_same,
    basic_unet,
    differs,
    flexible_unet,
    genesis_unet,
    make_evaluator,
    make_loader,
    make_trainer,
    record,
    record_views,
    run_epochs,
    states,
)

from dira_monai.engines import forward
from dira_monai.engines import trainer as trainer_module
from dira_monai.engines.precision import PRECISIONS
from dira_monai.engines.stages import Weights
from dira_monai.engines.trainer import DiRATrainer
from dira_monai.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("build", [basic_unet, genesis_unet])
def test_validation_moves_neither_queue_nor_key_branch_nor_any_buffer_or_weight(build, spatial_dims):
    trainer = make_trainer(build, patch_size=(16,) * spatial_dims, objective={"average_buffers": True})
    evaluator = make_evaluator(trainer)
    run_epochs(trainer, 1)
    before = states(trainer)
    evaluator.run(1)
    assert_same(states(trainer), before)
    assert not trainer.network.training
    assert trainer.objective.pointer == 8  # the epoch's keys alone
    assert all(math.isfinite(evaluator.state.metrics[name]) for name in ("val_mse", "val_contrastive"))


def test_validation_metrics_repeat_and_do_not_depend_on_the_epoch():
    trainer = make_trainer(genesis_unet)
    evaluator = make_evaluator(trainer)
    run_epochs(trainer, 1)
    found = []
    for epoch in (1, 1, 7):
        torch.manual_seed(epoch)
        evaluator.run(epoch)
        found.append(dict(evaluator.state.metrics))
    assert found[0] == found[1] == found[2]
    run_epochs(trainer, 2)
    evaluator.run(2)
    assert evaluator.state.metrics != found[0]  # of other weights


@pytest.mark.parametrize("distort", [True, False])
def test_evaluator_restores_the_query_by_the_network_itself(distort):
    trainer = make_trainer(genesis_unet)
    trainer.views.photometric = []
    evaluator = make_evaluator(trainer, distort=distort)
    outputs = record(evaluator)
    evaluator.run(1)
    assert [len(output["pred"]) for output in outputs] == [3, 3, 2]
    for output in outputs:
        assert_same(output["pred"], trainer.network.eval()(output["image"]).sigmoid())
        assert differs({"image": output["image"]}, {"image": output["label"]}) is distort
        torch.testing.assert_close(output["query"].norm(dim=1), torch.ones(len(output["query"])))


@pytest.mark.parametrize("gan", ["lsgan", "hinge"])
def test_the_generator_step_gives_the_discriminator_no_gradient(gan):
    trainer = make_trainer(gan=gan)
    gradients = {"after the discriminator's step": [None] * len(list(trainer.discriminator.parameters()))}

    def copies():
        return [None if p.grad is None else p.grad.clone() for p in trainer.discriminator.parameters()]

    seen = []
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _: seen.append((copies(), dict(gradients))))
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: gradients.update({"after the discriminator's step": copies()})
    )
    run_epochs(trainer, 1)
    assert len(seen) == 2  # both iterations
    assert all(gradient is None for gradient in seen[0][0])
    assert_same(seen[1][0], seen[1][1]["after the discriminator's step"])
    assert all(p.requires_grad and p.grad.abs().sum() > 0 for p in trainer.discriminator.parameters() if p.ndim > 1)


def test_the_discriminator_is_shown_targets_as_real_and_restorations_as_false(monkeypatch):
    trainer = make_trainer()
    shown, made = [], record_views(trainer)
    trainer.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach()))
    judged = []
    loss = trainer_module.discriminator_loss
    monkeypatch.setattr(
        trainer_module, "discriminator_loss", lambda real, false, gan: judged.append((real, false)) or loss(real, false)
    )
    outputs = record(trainer)
    run_epochs(trainer, 1)
    assert len(shown) == 6  # three in each of two iterations
    for i, output in enumerate(outputs):
        generator, real, false = shown[3 * i : 3 * i + 3]
        assert_same(generator, output["restored"])
        assert_same(real, made[i]["target"])
        assert_same(false, output["restored"])
        assert differs({"view": made[i]["target"]}, {"view": made[i]["query"]})
    assert all(real is not false and not torch.equal(real, false) for real, false in judged)


def test_weight_0_leaves_the_discriminator_alone():
    trainer = make_trainer(adversarial_weight=0.0)
    before = states(trainer)

    def forbidden(*_):
        raise AssertionError("the discriminator ran")

    trainer.discriminator.register_forward_pre_hook(forbidden)
    outputs = record(trainer)
    run_epochs(trainer, 1)
    after = states(trainer)
    for name in ("discriminator", "discriminator_optimizer", "discriminator_scaler"):
        assert_same(after[name], before[name])
    assert {"adversarial", "discriminator", "discriminator_accuracy"}.isdisjoint(outputs[0])
    assert "restoration" in outputs[0]


def test_weight_0_never_decodes_or_distorts(monkeypatch):
    trainer = make_trainer(restoration_weight=0.0, adversarial_weight=0.0)

    def forbidden(*_):
        raise AssertionError("ran")

    monkeypatch.setattr(forward, "decoder_maps", forbidden)
    trainer.views.distortions = [forbidden]
    outputs = record(trainer)
    run_epochs(trainer, 1)
    assert set(outputs[0]) == {"loss", "contrastive", "contrastive_accuracy", "query", "key"}


def test_weight_0_never_asks_the_objective():
    trainer = make_trainer(contrastive_weight=0.0)
    before = states(trainer)["objective"]

    def forbidden(*_):
        raise AssertionError("the objective ran")

    trainer.objective.register_forward_pre_hook(forbidden)
    outputs = record(trainer)
    run_epochs(trainer, 1)
    assert_same(states(trainer)["objective"], before)
    assert {"contrastive", "query", "key"}.isdisjoint(outputs[0])
    assert {"restoration", "adversarial", "discriminator"} <= set(outputs[0])


def test_trains_on_the_cpu_with_one_process_and_no_cuda_call(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a CUDA call")

    monkeypatch.setattr(torch.cuda, "_lazy_init", forbidden)
    monkeypatch.setattr(torch.Tensor, "cuda", forbidden)
    monkeypatch.setattr(torch.nn.Module, "cuda", forbidden)
    assert not torch.distributed.is_initialized()
    trainer = make_trainer()
    evaluator = make_evaluator(trainer)
    before = states(trainer)
    run_epochs(trainer, 1)
    evaluator.run(1)
    after = states(trainer)
    assert all(differs(before[name], after[name]) for name in ("network", "objective", "discriminator"))


@pytest.mark.parametrize("patch_size", [(16, 32), (80, 48), (32, 16, 48)])
def test_adversarial_losses_for_any_patch_size(patch_size):
    trainer = make_trainer(patch_size=patch_size)
    discriminator, views = copy.deepcopy(trainer.discriminator), record_views(trainer)
    outputs = record(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    with torch.no_grad():
        real, false = (discriminator(images)[-1] for images in (views[0]["target"], outputs[0]["restored"]))
    assert outputs[0]["restored"].shape == (4, 1, *patch_size)
    torch.testing.assert_close(outputs[0]["adversarial"], ((false - 1) ** 2).mean())
    torch.testing.assert_close(outputs[0]["discriminator"], ((real - 1) ** 2).mean() / 2 + (false**2).mean() / 2)


@pytest.mark.parametrize("weights", [(1.0, 10.0, 0.1), (0.5, 0.0, 2.0), (2.0, 3.0, 0.0), (0.0, 1.0, 0.5)])
def test_loss_is_the_weighted_sum_of_its_parts(weights, spatial_dims):
    named = dict(zip(("contrastive_weight", "restoration_weight", "adversarial_weight"), weights, strict=True))
    trainer = make_trainer(patch_size=(16,) * spatial_dims, **named)
    outputs = record(trainer)
    run_epochs(trainer, 1)
    for output in outputs:
        parts = [output.get(name, 0.0) for name in ("contrastive", "restoration", "adversarial")]
        expected = sum(weight * float(part) for weight, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(float(output["loss"]), expected, rtol=1e-5, atol=1e-6)
        assert not output["loss"].requires_grad


def test_the_restoration_loss_is_of_restored_and_target():
    trainer = make_trainer()
    views = record_views(trainer)
    network = copy.deepcopy(trainer.network)
    outputs = record(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    restored = network(views[0]["query"]).sigmoid()
    torch.testing.assert_close(outputs[0]["restored"], restored)
    torch.testing.assert_close(outputs[0]["restoration"], ((restored - views[0]["target"]) ** 2).mean().detach())


@pytest.mark.parametrize("gan", ["lsgan", "vanilla", "hinge"])
def test_every_gan_steps_network_and_discriminator(gan):
    trainer = make_trainer(gan=gan, contrastive_weight=0.0, restoration_weight=0.0)
    before = states(trainer)
    outputs = record(trainer)
    run_epochs(trainer, 1)
    after = states(trainer)
    assert differs(before["network"], after["network"])
    assert differs(before["discriminator"], after["discriminator"])
    assert all(output[name].isfinite() for output in outputs for name in ("adversarial", "discriminator"))


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_the_losses_fall(optimizer):
    trainer = make_trainer(optimizer=optimizer, max_epochs=15, adversarial_weight=0.0)
    outputs = record(trainer)
    trainer.run()
    restoration = torch.stack([output["restoration"] for output in outputs])
    assert restoration[-6:].mean() < 0.9 * restoration[:6].mean()


STAGE_LOSSES = {
    "di": {"contrastive"},
    "dir": {"contrastive", "restoration"},
    "dira": {"contrastive", "restoration", "adversarial", "discriminator"},
}


@pytest.mark.parametrize(
    ("stage_epochs", "expected"),
    [
        ((1, 2, 1), ["di", "dir", "dir", "dira"]),
        ((2, 0, 2), ["di", "di", "dira", "dira"]),
        ((0, 3, 0), ["dir", "dir", "dir", "dira"]),  # beyond the schedule
        ((4, 0, 0), ["di"] * 4),
        (None, ["dira"] * 4),
    ],
)
def test_each_stage_has_its_losses(stage_epochs, expected):
    trainer = make_trainer(stage_epochs=stage_epochs)
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append((engine.weights_at(engine.state.epoch).stage, set(engine.state.output))),
    )
    trainer.run()
    assert [stage for stage, _ in seen[::2]] == expected == [stage for stage, _ in seen[1::2]]
    for stage, names in seen:
        assert names & STAGE_LOSSES["dira"] == STAGE_LOSSES[stage]


def test_the_stage_of_a_restoration_that_only_the_discriminator_judges():
    assert Weights(1.0, 0.0, 0.1).stage == "dira"
    assert Weights(1.0, 0.0, 0.1).restores
    assert not Weights(1.0, 0.0, 0.0).restores


def test_a_stage_without_any_loss_is_refused():
    with pytest.raises(InputError, match=r"epoch 1 has nothing to learn: in stage di .* contrastive_weight"):
        make_trainer(contrastive_weight=0.0, stage_epochs=(1, 1, 2))
    with pytest.raises(InputError, match="epoch 1 has nothing to learn"):
        make_trainer(contrastive_weight=0.0, restoration_weight=0.0, adversarial_weight=0.0)
    make_trainer(contrastive_weight=0.0, stage_epochs=(0, 2, 2))


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16, auto, got 'half'"):
        make_trainer(precision="half")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_steps_are_finite_and_near_those_of_fp32(precision):
    found = {}
    for name in ("fp32", precision):
        trainer = make_trainer(precision=name)
        maps = []
        trainer.network.final_conv.register_forward_hook(
            lambda _module, _inputs, output, maps=maps: maps.append(output)
        )
        outputs = record(trainer)
        evaluator = make_evaluator(trainer, precision=name)
        evaluator.run(1)
        before = states(trainer)
        run_epochs(trainer, 1)
        after = states(trainer)
        assert all(differs(before[part], after[part]) for part in ("network", "discriminator"))
        assert all(
            torch.isfinite(tensor).all() for part in ("network", "discriminator") for tensor in after[part].values()
        )
        assert {m.dtype for m in maps} == {PRECISIONS[name]}
        found[name] = [float(outputs[0][loss]) for loss in DiRATrainer.losses] + [evaluator.state.metrics["val_mse"]]
    torch.testing.assert_close(found["fp32"], found[precision], rtol=0.02, atol=0.01)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradient_clipping_bounds_the_norm(precision):
    norms = {}
    for clip in (None, 0.5):
        trainer = make_trainer(precision=precision, gradient_clip=clip, restoration_weight=100.0)
        trainer.loss_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=precision == "fp16")
        norms[clip] = []

        def measure(optimizer, _args, _kwargs, found=norms[clip]):
            gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
            found.append(float(torch.cat(gradients).norm()))

        trainer.optimizer.register_step_pre_hook(measure)
        run_epochs(trainer, 1)
    assert min(norms[None]) > 1
    torch.testing.assert_close(norms[0.5], [0.5] * 2, rtol=1e-3, atol=0)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_accumulation_of_two_half_batches_equals_one_whole_batch(optimizer, spatial_dims):
    patch_size = (16,) * spatial_dims
    trainers = []
    for batch_size, steps in ((4, 1), (2, 2)):
        loader = make_loader(patch_size, batch_size, epoch_length=2 * steps)
        trainer = make_trainer(patch_size=patch_size, optimizer=optimizer, loader=loader, accumulation_steps=steps)
        trainers.append(run_epochs(trainer, 1))
    whole, halves = (states(trainer) for trainer in trainers)
    for name in ("network", "objective", "discriminator"):
        torch.testing.assert_close(halves[name], whole[name], rtol=0, atol=1e-5)


def test_accumulated_gradients_are_used_at_the_end_of_an_epoch():
    loader = make_loader((16, 16), 2, epoch_length=3)
    trainer = make_trainer(loader=loader, accumulation_steps=2)
    steps = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.state.iteration))
    run_epochs(trainer, 2)
    assert steps == [2, 3, 5, 6]
    assert trainer.objective.pointer == 12 % 10  # all keys of both epochs
    assert trainer.keys == []


def test_batches_do_not_depend_on_the_number_of_workers():
    batches = []
    for num_workers in (0, 2):
        loader = make_loader((8, 8), batch_size=3, num_workers=num_workers, epoch_length=4, seed=5)
        torch.manual_seed(num_workers)
        loader.sampler.set_epoch(2)
        batches.append(list(loader))
    assert len(batches[0]) == 4
    assert_same(batches[0], batches[1])


def test_every_epoch_of_a_run_has_its_own_samples():
    trainer = make_trainer()
    seeds = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seeds.append(engine.state.batch["seed"]))
    run_epochs(trainer, 2)
    expected = []
    for epoch in (1, 2):
        trainer.data_loader.sampler.set_epoch(epoch)
        expected += [seed for _, seed in trainer.data_loader.sampler]
    assert torch.cat(seeds).tolist() == expected
    assert len(set(expected)) == 16


def test_the_key_branch_follows_along_the_whole_run():
    trainer = make_trainer(objective={"momentum": 0.5, "final_momentum": 1.0})
    calls = []
    trainer.objective.update = lambda _network, key, progress: calls.append((len(key), progress))
    trainer.run()
    assert calls == [(4, pytest.approx(step / 8)) for step in range(1, 9)]


def test_channels_last_in_memory_changes_no_loss(spatial_dims):
    found = []
    for channels_last in (False, True):
        options = {"patch_size": (16,) * spatial_dims, "optimizer": "SGD", "channels_last": channels_last}
        trainer = make_trainer(**options)
        for rates in (trainer.optimizer, trainer.discriminator_optimizer):
            rates.param_groups[0]["lr"] = 1e-3
        outputs = record(trainer)
        run_epochs(trainer, 1)
        found.append([output["loss"] for output in outputs])
        weight = next(p for p in trainer.network.parameters() if p.ndim > 3 and min(p.shape) > 1)
        assert weight.is_contiguous() != channels_last
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_batch_norm_networks_train(spatial_dims):
    trainer = make_trainer(flexible_unet, patch_size=(32,) * spatial_dims, max_epochs=1)
    before = states(trainer)["network"]
    outputs = record(trainer)
    trainer.run()
    after = states(trainer)["network"]
    assert all(not torch.equal(tensor, after[name]) for name, tensor in before.items())  # decoder and buffers as well
    assert all(output["loss"].isfinite() for output in outputs)
    assert F.mse_loss(outputs[0]["restored"], outputs[1]["restored"]) > 0
