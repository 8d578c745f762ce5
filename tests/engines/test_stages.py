"""Stepwise, masked and purely restorative runs: what the trainer does besides DiRA's own step."""

import copy
from functools import partial

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import MeanSquaredError
from trainer_runs import (
    assert_same,
    basic_unet,
    differs,
    genesis_unet,
    make_evaluator,
    make_loader,
    make_run,
    make_trainer,
    record,
    record_views,
    run_epochs,
    states,
)

from dira_monai.engines.precision import PRECISIONS
from dira_monai.losses.adversarial import discriminator_loss, generator_loss, gradient_penalty
from dira_monai.networks.encoder_decoder import decode, encode, without_skips
from dira_monai.objectives.no_objective import NoObjective
from dira_monai.objectives.objective import Objective
from dira_monai.transforms.masking import Masking
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom
from dira_monai.weights.files import load_weights

pytestmark = pytest.mark.usefixtures("seeded")

CRITIC = {"gan": "wgan", "gradient_penalty": 10.0, "conditional": True}


def first_iteration(trainer):
    """Views and output of the first iteration, and network and discriminator as they were before it."""
    before = copy.deepcopy((trainer.network, trainer.discriminator))
    views, outputs = record_views(trainer), record(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    return views[0], outputs[0], *before


def restoration_metric():
    """What can be measured of a run without embeddings."""
    return {"val_mse": MeanSquaredError(output_transform=lambda o: (o["pred"].flatten(), o["label"].flatten()))}


def restoring(**options):
    """Options of a trainer that restores alone."""
    return {"contrastive_weight": 0.0, "adversarial_weight": 0.0, "objective": NoObjective} | options


def test_the_conditional_critic_sees_the_distorted_image_as_well(spatial_dims):
    trainer = make_trainer(genesis_unet, patch_size=(16,) * spatial_dims, **CRITIC)
    views, output, network, critic = first_iteration(trainer)
    restored = network(views["query"]).sigmoid().detach()
    torch.testing.assert_close(output["restored"], restored)
    real, false = (torch.cat([images, views["query"]], dim=1) for images in (views["target"], restored))
    with torch.no_grad():
        real_logits, false_logits = critic(real)[-1], critic(false)[-1]
    share = SampleRandom(~trainer.state.batch["seed"]).uniform()
    penalty = gradient_penalty(critic, real, false, share).detach()
    torch.testing.assert_close(output["adversarial"], generator_loss(false_logits, "wgan"))
    torch.testing.assert_close(output["gradient_penalty"], penalty)
    torch.testing.assert_close(output["discriminator_distance"], real_logits.mean() - false_logits.mean())
    expected = discriminator_loss(real_logits, false_logits, "wgan") + 5 * penalty  # both halved
    torch.testing.assert_close(output["discriminator"], expected)
    assert "discriminator_accuracy" not in output


def test_the_penalty_brings_the_slope_of_the_critic_to_one():
    trainer = make_trainer(max_epochs=20, **CRITIC | {"gradient_penalty": 100.0})
    outputs = record(trainer)
    trainer.run()
    penalties = torch.stack([output["gradient_penalty"] for output in outputs])
    assert penalties[-5:].mean() < 0.5 * penalties[:5].mean()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_penalty_in_half_precision_is_near_that_in_fp32(precision):
    found = {}
    for name in ("fp32", precision):
        trainer = make_trainer(precision=name, **CRITIC)
        logits = []
        trainer.discriminator.register_forward_hook(lambda _m, _i, output, logits=logits: logits.append(output[-1]))
        outputs, before = record(trainer), states(trainer)
        run_epochs(trainer, 1)
        after = states(trainer)
        assert differs(before["discriminator"], after["discriminator"])
        assert all(tensor.isfinite().all() for tensor in after["discriminator"].values())
        assert {m.dtype for m in logits} == {PRECISIONS[name], torch.float32}  # the penalty's are always float32
        found[name] = [
            float(outputs[0][metric]) for metric in ("adversarial", "discriminator", "gradient_penalty", "loss")
        ]
    torch.testing.assert_close(found["fp32"], found[precision], rtol=0.02, atol=0.01)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_accumulation_equals_one_whole_batch_with_penalty_condition_and_masks(optimizer, spatial_dims):
    patch_size, trainers = (16,) * spatial_dims, []
    masking = Masking(0.5, (5, 7, 6)[:spatial_dims])  # the border cuts blocks: samples hide unequally many voxels
    for batch_size, steps in ((4, 1), (2, 2)):
        loader = make_loader(patch_size, batch_size, epoch_length=2 * steps)
        options = {"optimizer": optimizer, "loader": loader, "accumulation_steps": steps, "views": {"masking": masking}}
        trainers.append(run_epochs(make_trainer(patch_size=patch_size, **CRITIC, **options), 1))
    whole, halves = (states(trainer) for trainer in trainers)
    for name in ("network", "objective", "discriminator"):
        torch.testing.assert_close(
            halves[name], whole[name], rtol=0, atol=5e-5
        )  # Adam's steps of 0.01 magnify rounding


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_wgan_without_a_penalty_is_refused(weight):
    with pytest.raises(InputError, match=f"gan wgan needs a positive gradient_penalty, got {weight}"):
        make_trainer(gan="wgan", gradient_penalty=weight)


def test_an_unknown_gan_is_refused():
    with pytest.raises(InputError, match="gan must be one of lsgan, vanilla, hinge, wgan, got 'dcgan'"):
        make_trainer(gan="dcgan")


def test_the_masked_restoration_loss_is_of_the_hidden_voxels(spatial_dims):
    views = {"masking": Masking(0.75, (4,) * spatial_dims), "count": 1}
    trainer = make_trainer(genesis_unet, patch_size=(16,) * spatial_dims, **restoring(views=views))
    made, output, network, _ = first_iteration(trainer)
    assert not made["query"][made["mask"]].any()
    assert "key" not in made
    restored = network(made["query"]).sigmoid().detach()
    hidden = made["mask"].expand_as(restored)
    torch.testing.assert_close(output["restoration"], (restored - made["target"])[hidden].square().mean())
    assert output["loss"] == 10 * output["restoration"]


def test_running_statistics_are_of_the_images_that_training_normalizes_by(spatial_dims):
    options = {"patch_size": (16,) * spatial_dims, "views": {"masking": Masking(0.75, (4,) * spatial_dims)}}
    trainer = make_trainer(genesis_unet, **options)
    first = trainer.network.down_tr64
    shown, made = [], record_views(trainer)
    first.register_forward_pre_hook(lambda _module, given: shown.append(given[0].detach().clone()))
    run_epochs(trainer, 1)
    for images, views in zip(shown, made, strict=True):
        assert torch.equal(images, torch.cat([views["query"], views["whole"]]))
    assert first.ops[0].bn1.num_batches_tracked == len(made)


def test_the_objective_sees_the_masked_query_whole(spatial_dims):
    options = {"patch_size": (16,) * spatial_dims, "views": {"masking": Masking(0.75, (4,) * spatial_dims)}}
    trainer = make_trainer(genesis_unet, **options)
    seen = []
    trainer.objective.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    made, _, network, _ = first_iteration(trainer)
    [inputs] = seen
    assert torch.equal(inputs.views["query"], made["whole"])
    assert not torch.equal(made["whole"], made["query"])
    assert "mask" not in inputs.views
    assert inputs.maps is None
    both = torch.cat([made["query"], made["whole"]])  # batch norm: what is counted is what is trained by
    torch.testing.assert_close(inputs.deepest.detach(), encode(network, both)[-1].chunk(2)[1].detach())
    evaluator = make_evaluator(trainer, restoration_metric())
    evaluator.run(1)
    assert len(seen) > 1
    assert all("mask" not in given.views for given in seen)


@pytest.mark.parametrize("weights", [{"adversarial_weight": 0.0}, {"restoration_weight": 0.0}, CRITIC])
def test_neither_loss_reaches_voxels_that_no_mask_hides(weights):
    trainer = make_trainer(views={"masking": Masking(0.5, (4, 4))}, **weights)
    trainer.network.final_conv.register_full_backward_hook(lambda _m, _i, gradients: seen.append(gradients[0]))
    seen = []
    views, *_ = first_iteration(trainer)
    assert torch.equal(seen[0] != 0, views["mask"])


def test_validation_of_masked_runs_judges_the_hidden_voxels():
    trainer = make_trainer(genesis_unet, **restoring(views={"masking": Masking(0.75, (4, 4)), "count": 1}))
    evaluator = make_evaluator(trainer, restoration_metric())
    views, outputs = record_views(evaluator), record(evaluator)
    evaluator.run(1)
    assert set(evaluator.state.metrics) == {"val_mse"}
    for made, output in zip(views, outputs, strict=True):
        mask = made["mask"]
        assert_same(output["label"], made["target"])
        assert not output["image"][mask].any()
        restored = trainer.network.eval()(made["query"]).sigmoid()
        for name, image in (("image", made["query"]), ("pred", restored)):
            assert_same(output[name], torch.where(mask, image, made["target"]))


def test_a_run_without_an_objective_makes_no_second_view_and_keeps_nothing_of_it(tmp_path):
    options = restoring(views={"count": 1}, build=genesis_unet)
    run = make_run(tmp_path, metrics=restoration_metric(), **options)
    before, outputs = states(run.trainer), record(run.trainer)
    run.trainer.run()
    assert set(outputs[0]) == {"loss", "restoration", "restored"}
    assert differs(before["network"], states(run.trainer)["network"])
    assert list(run.trainer.objective.parameters()) == []
    assert load_weights(tmp_path / "objective.pt") == {}
    assert run.evaluator.state.best_metric_epoch > 0
    resumed = make_run(tmp_path, metrics=restoration_metric(), resume=True, seed=3, max_epochs=5, **options)
    resumed.trainer.run()
    assert resumed.trainer.state.iteration == 10


def test_a_weight_of_an_objective_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"contrastive_weight must be 0 without an objective, got 0\.5"):
        make_trainer(objective=NoObjective, contrastive_weight=0.5)


@pytest.mark.parametrize("build", [basic_unet, genesis_unet])
def test_an_auto_encoder_restores_from_the_deepest_map_alone(build, spatial_dims):
    options = restoring(objective=partial(NoObjective, skip_connections=False), views={"count": 1})
    trainer = make_trainer(build, patch_size=(16,) * spatial_dims, **options)
    views, output, network, _ = first_iteration(trainer)
    maps = without_skips(encode(network, views["query"]))
    torch.testing.assert_close(output["restored"], decode(network, maps).sigmoid().detach())
    evaluator = make_evaluator(trainer, restoration_metric())
    shown = record(evaluator)
    evaluator.run(1)
    maps = without_skips(encode(trainer.network.eval(), shown[0]["image"]))
    assert_same(shown[0]["pred"], decode(trainer.network, maps).sigmoid().detach())


class Everything(Objective):
    """An objective that needs the decoder's maps, has metrics of its own, no key, and looks at all it is given."""

    skip_connections = False
    needs_decoder = True
    metrics = ("spread", "absent")

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones([]))
        self.seen = []
        self.updates = []

    def forward(self, inputs):
        maps = inputs.maps
        self.seen.append((self.training, self.progress, dict(inputs.views), maps))
        return {"loss": self.scale * maps[-1].square().mean(), "spread": maps[-1].std()}

    def update(self, network, key, progress=0.0):
        self.updates.append((key, progress))


def test_an_objective_gets_decoder_maps_all_views_progress_and_updates_though_nothing_is_restored():
    weights = {"restoration_weight": 0.0, "adversarial_weight": 0.0}
    trainer = make_trainer(objective=Everything, views={"count": 4}, max_epochs=2, **weights)
    loader = trainer.data_loader
    collate = loader.collate_fn
    loader.collate_fn = lambda samples: collate(samples) | {"word": torch.arange(len(samples))}
    network, outputs = copy.deepcopy(trainer.network), record(trainer)
    trainer.run()
    seen = trainer.objective.seen
    assert [progress for _, progress, *_ in seen] == [0.25, 0.5, 0.75, 1.0]
    assert trainer.objective.updates == [(None, progress) for _, progress, *_ in seen]
    _, _, views, maps = seen[0]
    assert views["more"].shape == (4, 2, 1, 16, 16)
    assert views["word"].tolist() == [0, 1, 2, 3]
    assert set(views) == {"query", "target", "key", "more", "seed", "word"}
    expected = decode(network, without_skips(encode(network, views["query"])))
    torch.testing.assert_close(network.final_conv(maps[-1]), expected)
    assert set(outputs[0]) == {"loss", "contrastive", "contrastive_spread"}
    make_evaluator(trainer, restoration_metric()).run(1)
    assert [training for training, *_ in trainer.objective.seen[4:]] == [False] * 3


def test_a_resumed_run_of_all_parts_equals_an_unbroken_one(tmp_path):
    options = CRITIC | {"build": genesis_unet, "stage_epochs": (1, 1, 2), "views": {"masking": Masking(0.6, (4, 4))}}
    whole = make_run(tmp_path / "whole", **options)
    whole.trainer.run()
    run_epochs(make_run(tmp_path / "broken", **options).trainer, 2)
    resumed = make_run(tmp_path / "broken", resume=True, seed=5, **options)
    resumed.trainer.run()
    assert_same(states(resumed.trainer), states(whole.trainer))


def test_a_chain_of_runs_carries_encoder_and_decoder_on_and_freezes_nothing(tmp_path):
    steps = [(1.0, 0.0, 0.0), (1.0, 100.0, 0.0), (1.0, 100.0, 1.0)]  # D, +R, +A
    ended, started, moved = [], [], []
    for number, weights in enumerate(steps):
        named = dict(zip(("contrastive_weight", "restoration_weight", "adversarial_weight"), weights, strict=True))
        start = str(tmp_path / f"{number - 1}/checkpoint.pt") if number else None
        run = make_run(tmp_path / str(number), start_from=start, seed=number, max_epochs=1, **CRITIC, **named)
        run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: started.append(states(engine)))
        run.trainer.run()
        ended.append(states(run.trainer))
        before, after = started[-1]["network"], ended[-1]["network"]
        moved.append({name for name in after if not torch.equal(before[name], after[name])})
    for number in (1, 2):
        for part in ("network", "objective", "discriminator"):
            assert_same(started[number][part], ended[number - 1][part])
    encoder = {name for name in ended[0]["network"] if name.startswith(("conv_0", "down_"))}
    decoder = set(ended[0]["network"]) - encoder
    assert moved[0] & decoder == set()  # the first run has no decoder to learn
    assert len(moved[0]) > len(encoder) / 2
    for names in moved[1:]:
        assert len(names & decoder) > len(decoder) / 2
        assert len(names & encoder) > len(encoder) / 2
    assert differs(ended[1]["discriminator"], ended[2]["discriminator"])
    assert_same(ended[0]["discriminator"], ended[1]["discriminator"])
