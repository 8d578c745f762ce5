"""Recognition of visual words, as objective of a training."""

import math

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.handlers import ValidationHandler
from objective_runs import ALONE, WORDS, Stripes, make_judge, make_run
from objective_views import forward
from running import load
from torch.utils.data import DataLoader
from trainer_runs import assert_same, basic_unet, genesis_unet, record, states

from dira_monai.apps.visual_words.dataset import KIND, WordDataset
from dira_monai.data.sampler import SeededSampler
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.visual_words import VisualWords
from dira_monai.utils.files import write_json


@pytest.mark.parametrize("pooled_norm", [False, True])
@pytest.mark.parametrize("build", [genesis_unet, basic_unet])
def test_loss_is_the_cross_entropy_of_the_head(build, spatial_dims, pooled_norm):
    network = build(spatial_dims)
    objective = VisualWords(network, 4, 5, pooled_norm=pooled_norm)
    features = encode(network, torch.rand(6, 1, *[16] * spatial_dims))
    words = torch.tensor([0, 3, 1, 3, 2, 0])
    told = forward(objective, network, {"word": words}, features)
    pooled = features[-1].double().flatten(2).mean(2)
    if pooled_norm:
        pooled = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
    first, _, last = list(objective.head)[-3:]
    hidden = (pooled @ first.weight.double().T + first.bias.double()).clamp(min=0)
    logits = hidden @ last.weight.double().T + last.bias.double()
    losses = [
        math.log(sum(math.exp(v) for v in row)) - row[word]
        for row, word in zip(logits.tolist(), words.tolist(), strict=True)
    ]
    assert told["loss"].item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    guesses = [row.index(max(row)) for row in logits.tolist()]
    assert told["accuracy"].item() == pytest.approx(sum(map(int.__eq__, guesses, words.tolist())) / 6)
    torch.testing.assert_close(told["query"].double(), logits / logits.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-5)
    assert "key" not in told


def test_equal_logits_give_the_loss_of_a_guess_by_a_head_of_the_authors_width():
    network = genesis_unet(2)
    objective = VisualWords(network, 44)
    assert [tuple(weight.shape) for weight in objective.parameters()] == [(1024, 8), (1024,), (44, 1024), (44,)]
    torch.nn.init.zeros_(objective.head[-1].weight)
    torch.nn.init.zeros_(objective.head[-1].bias)
    told = forward(objective, network, {"word": torch.tensor([5, 6]), "query": torch.rand(2, 1, 16, 16)})
    assert told["loss"].item() == pytest.approx(math.log(44), rel=1e-6)


def test_a_problem_is_an_accuracy_of_guesses():
    objective = VisualWords(genesis_unet(2), 44)
    assert objective.diagnose({"accuracy": 2 / 45, "collapse": 1.0}) is None
    told = objective.diagnose({"accuracy": 1 / 44, "collapse": 0.2})
    assert "44 visual words are recognized no better than by guessing (accuracy 0.0227)" in told
    assert "get the same answer" in objective.diagnose({"accuracy": 1 / 44, "collapse": 0.999})
    assert VisualWords(genesis_unet(2), 2).diagnose({"accuracy": 0.7}) is None
    assert VisualWords(genesis_unet(2), 2).diagnose({"accuracy": 0.6})


def test_a_training_learns_the_words(spatial_dims):
    options = {"batch_size": 6, "epochs": 12, "epoch_length": 4, "optimizer": "Adam", "lr": 0.02}
    trainer = make_run("words", spatial_dims, **options, **ALONE)
    outputs = record(trainer)
    trainer.run()
    losses = [output["contrastive"].item() for output in outputs]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert sum(output["contrastive_accuracy"] for output in outputs[-4:]) > 4 * 0.8


def write_stripes(folder, spatial_dims):
    """``Stripes`` as files of the command visual-words."""
    splits = {}
    for split, count in (("training", 12), ("validation", 5)):
        stripes = Stripes([16] * spatial_dims, count)
        np.save(folder / f"{split}.npy", stripes.images.numpy())
        splits[split] = {"rows": [[0, word, 0, *[0] * spatial_dims, *[16] * spatial_dims] for word in stripes.words]}
    write_json(folder / "words.json", {"kind": KIND, "words": [{}] * WORDS, **splits})


def test_a_killed_run_on_words_ends_as_an_unbroken_one(tmp_path, spatial_dims):
    write_stripes(tmp_path, spatial_dims)

    def kill(_):
        raise RuntimeError("killed")

    def run(folder, killed_in=None, **options):
        data = {split: WordDataset(tmp_path, split) for split in ("training", "validation")}
        sampler = SeededSampler(data["training"], 6, epoch_length=3)
        loader = DataLoader(data["training"], 6, sampler=sampler)
        trainer = make_run("words", spatial_dims, loader=loader, optimizer="Adam", lr=0.02, adversarial_weight=0.1)
        evaluator = make_judge(trainer, data["validation"])
        for handler in (ValidationHandler(1, evaluator), Checkpoint(tmp_path / folder, evaluator, **options)):
            handler.attach(trainer)
        if killed_in:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=killed_in), kill)
        trainer.run()
        files = {name: load(tmp_path / folder / name) for name in ("model.pt", "objective.pt", "model_last.pt")}
        return states(trainer), dict(evaluator.state.metrics), files

    whole = run("whole")
    with pytest.raises(RuntimeError, match="killed"):
        run("broken", killed_in=5)  # the second of three steps of the last epoch
    assert_same(run("broken", resume=True), whole)
