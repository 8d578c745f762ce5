"""What holds for every objective: it trains, validates, resumes, takes half precision and many processes."""

import math

import pytest
import torch
from norms import interleaved
from objective_runs import METHODS, make_judge, make_run, train, train_and_validate
from objective_views import forward
from processes import in_processes
from trainer_runs import assert_same, basic_unet, differs, record, states

from dira_monai.engines.precision import PRECISIONS
from dira_monai.networks.encoder_parts import encoder_parts
from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.gravis import GraVIS
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.pcrlv2 import PCRLv2
from dira_monai.objectives.siamese import BarlowTwins, SimSiam
from dira_monai.objectives.simclr import SimCLR
from dira_monai.objectives.visual_words import VisualWords
from dira_monai.objectives.voco import VoCo
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.utils.distributed import gather_with_gradient, rank
from dira_monai.utils.errors import InputError

HALF = {"barlow_twins": {"rtol": 0.1, "atol": 0.1}, "words": {"rtol": 0.02, "atol": 0.01}}
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_trains_with_restoration_and_adversary_and_validates_without_a_change(method, spatial_dims):
    trainer = make_run(method, spatial_dims, epochs=1, adversarial_weight=0.1)
    evaluator = make_judge(trainer)
    before, outputs = states(trainer), record(trainer)
    trainer.run()
    after = states(trainer)
    assert all(differs(before[part], after[part]) for part in ("network", "objective", "discriminator"))
    metrics = {f"contrastive_{name}" for name in trainer.objective.metrics}
    assert metrics | {"loss", "contrastive", "restoration", "adversarial", "query"} <= set(outputs[-1])
    assert all(value.isfinite().all() and not value.requires_grad for value in outputs[-1].values())
    torch.testing.assert_close(outputs[-1]["query"].norm(dim=1), torch.ones(4))
    assert 0 <= trainer.epoch_metrics()["collapse"] <= 1
    learning = [*trainable_parameters(trainer.objective), *encoder_parts(trainer.network)[0].parameters()]
    assert method == "pcrl" or all(p.grad.abs().sum() > 0 for p in learning if p.ndim > 1)  # pcrl: of random levels
    evaluator.run(1)
    assert_same(states(trainer), after)
    assert math.isfinite(evaluator.state.metrics["val_contrastive"])
    assert metrics <= set(evaluator.state.output)


@every_method
def test_a_resumed_run_equals_an_unbroken_one(method, spatial_dims, tmp_path):
    options = {"optimizer": "LARS", "epochs": 2}
    whole = train_and_validate(make_run(method, spatial_dims, **options), tmp_path / "whole", 2)
    train_and_validate(make_run(method, spatial_dims, **options), tmp_path / "broken", 1)
    other = make_run(method, spatial_dims, seed=1, **options)  # weights that loading must replace
    assert_same(train_and_validate(other, tmp_path / "broken", 1, resume=True), whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@every_method
def test_a_step_in_half_precision_is_near_fp32(method, precision, spatial_dims):
    found, types = [], []
    for name in ("fp32", precision):
        trainer = make_run(method, spatial_dims, epochs=1, epoch_length=1, lr=0.01, precision=name)
        last = [module for module in trainer.objective.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.register_forward_hook(lambda *args: types.append(args[-1].dtype))
        found.append(train(trainer))
        assert set(types) == {PRECISIONS[name]}
        types.clear()
    exact, half = (run["metrics"] for run in found)
    assert all(tensor.isfinite().all() for tensor in found[1]["states"]["network"].values())
    assert not torch.equal(half["loss"], exact["loss"])
    for name in exact.keys() - {"contrastive_accuracy", "contrastive_moco_accuracy"}:  # of four images
        torch.testing.assert_close(half[name], exact[name], **HALF.get(method, {"rtol": 0.05, "atol": 0.04}), msg=name)


def train_shortly(method):
    return train(make_run(method, side=32 if method == "pcrl" else 16, epochs=1, epoch_length=2, lr=0.01))


def gathered():
    """Rows of all processes and the gradient of a sum of squares that every process computes of all of them."""
    rows = torch.tensor([[float(rank()), 1.0], [rank() + 2.0, 1.0]], requires_grad=True)
    everyone = gather_with_gradient(rows)
    everyone.square().sum().backward()
    return {"rows": everyone.detach(), "own": rows.detach(), "gradient": rows.grad}


def work():
    return {"gathered": gathered()} | {method: train_shortly(method) for method in METHODS}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_processes(tmp_path_factory.mktemp("two_processes"), work)


def test_gather_with_gradient_has_the_order_of_one_process_and_sums_gradients(both):
    first, second = (found["gathered"] for found in both)
    assert_same(first["rows"], interleaved(first["own"], second["own"]))
    assert_same(first["rows"][:, 0], torch.arange(4.0))
    for found in (first, second):
        assert_same(found["rows"], first["rows"])
        assert_same(found["gradient"], 2 * 2 * found["own"])  # of two processes that each have the sum
    rows = torch.ones(2, requires_grad=True)
    assert gather_with_gradient(rows) is rows  # one process alone


@every_method
def test_two_processes_train_as_one_with_the_whole_batch(both, method):
    one = train_shortly(method)
    first, second = (found[method] for found in both)
    close = {"rtol": 1e-4, "atol": 1e-5} if method == "gravis" else {"rtol": 1e-3, "atol": 1e-4}
    for name, values in one["metrics"].items():
        assert values.isfinite().all()
        assert_same(first["metrics"][name], second["metrics"][name])
        torch.testing.assert_close(first["metrics"][name], values, **close, msg=name)
    assert max(gradient.abs().max() for gradient in one["gradients"]) > 1e-2
    assert_same(first["gradients"], second["gradients"])
    # biases ahead of a batch norm have gradient 0: rounding of sums over all voxels is left, 1.3e-4 with two threads
    torch.testing.assert_close(first["gradients"], one["gradients"], rtol=1e-3, atol=5e-4)
    torch.testing.assert_close(interleaved(first["query"], second["query"]), one["query"], rtol=0, atol=1e-3)
    for part in ("network", "objective"):
        assert_same(first["states"][part], second["states"][part])
        torch.testing.assert_close(first["states"][part], one["states"][part], rtol=0, atol=1e-4)


SECOND = "compares the views of an image: views_per_image must be at least 2, got 1"
MISSING = dict.fromkeys(["moco", "barlow_twins", "simsiam", "byol", "simclr", "combined", "gravis"], SECOND) | {
    "voco": "the views must be dira_monai.GridViews",
    "words": "VisualWords needs the word of each image, which WordDataset gives",
    "pcrl": "set views_per_image 2, local_crop, local_count",
}


@every_method
def test_missing_views_are_refused(method):
    network = basic_unet()
    with pytest.raises(InputError, match=MISSING[method]):
        forward(METHODS[method].objective(network), network, {"query": torch.rand(4, 1, 16, 16)})


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        *(
            (kind, {"temperature": value}, f"temperature must be positive, got {value}")
            for kind in (MoCo, SimCLR, GraVIS)
            for value in (0, -0.1)
        ),
        *(
            (kind, {name: value}, rf"^{name} must lie in \[0, 1\], got {value}")
            for kind in (MoCo, BYOL)
            for name in ("momentum", "final_momentum")
            for value in (-0.1, 1.5)
        ),
        (BarlowTwins, {"redundancy_weight": -0.1}, "redundancy_weight must not be negative, got -0.1"),
        (BarlowTwins, {"scale": 0.0}, "scale must be positive, got 0.0"),
        (VoCo, {"regularization_weight": -1}, "regularization_weight must be at least 0, got -1"),
        (VisualWords, {"classes": 1}, "classes must be at least 2, got 1"),
        (GraVIS, {"attention": "none"}, "attention must be one of smooth_ap, uniform, got 'none'"),
        (GraVIS, {"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        *(
            (PCRLv2, {"levels": levels}, r"levels must be different numbers from 0 to 3, .* got \[")
            for levels in ([], [0, 0], [4], [-1])
        ),
    ],
)
def test_values_out_of_range_are_refused(kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        kind(basic_unet(), **options)


HEALTHY = {"deviation": 0.9, "diagonal": 0.5, "off_diagonal": 0.3, "base_similarity": 0.1, "overlap_similarity": 0.4}


@pytest.mark.parametrize(
    ("kind", "metrics", "sentence"),
    [
        (SimSiam, {"deviation": 0.01}, "SimSiam gives every image nearly the same embedding"),
        (BYOL, {"deviation": 0.0}, "BYOL gives every image nearly the same embedding"),
        (BarlowTwins, {"diagonal": 0.9, "off_diagonal": 0.9}, "repeat each other"),
        (BarlowTwins, {"diagonal": 0.01, "off_diagonal": 0.1}, "do not agree between the views"),
        (GraVIS, {"deviation": 0.01}, "collapsed to one direction (deviation 0.010"),
        (
            VoCo,
            {"base_similarity": 0.1, "overlap_similarity": 0.001},
            "look like none of the base crops that they overlap (mean likeness 0.001)",
        ),
    ],
)
def test_collapse_is_named_in_the_methods_own_terms(kind, metrics, sentence):
    objective = kind(basic_unet())
    assert sentence in objective.diagnose(metrics)
    assert objective.diagnose(HEALTHY) is None
