"""Recognition of visual words, as objective of a training."""

import math
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from ignite.metrics import Loss
from monai.handlers import ValidationHandler
from monai.networks.nets import BasicUNet, PatchDiscriminator
from objective_views import forward
from running import load
from torch.utils.data import DataLoader, Dataset
from trainer_runs import assert_same, differs, record, states

from dira_monai.apps.visual_words.dataset import KIND, WordDataset, write_words
from dira_monai.data.sampler import SeededSampler
from dira_monai.engines.evaluator import DiRAEvaluator
from dira_monai.engines.resumable import PRECISIONS
from dira_monai.engines.trainer import DiRATrainer
from dira_monai.handlers.checkpoint import Checkpoint
from dira_monai.networks.batch_norm import synchronize_batch_norm
from dira_monai.networks.encoder_decoder import encode
from dira_monai.networks.genesis_unet import GenesisUNet
from dira_monai.objectives.visual_words import VisualWords
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.views import Views
from dira_monai.utils.distributed import world_size
from dira_monai.utils.errors import InputError

CPU = torch.device("cpu")
CLASSES = 3
every_rank = pytest.mark.parametrize("spatial_dims", [2, 3])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Stripes(Dataset):
    """Images whose brightness and frequency depend on their word."""

    def __init__(self, spatial_dims, count=12):
        noise = torch.rand(count, 1, *[16] * spatial_dims, generator=torch.Generator().manual_seed(0))
        wave = torch.arange(16).reshape(-1, *[1] * (spatial_dims - 1))
        words = torch.arange(count) % CLASSES
        stripes = torch.stack([0.2 * word + 0.2 + 0.2 * torch.sin((word + 1.0) * wave) for word in words])
        self.images = (0.8 * stripes[:, None] + 0.1 * noise).clamp(0, 1)
        self.words = words.tolist()

    def __len__(self):
        return len(self.words)

    def __getitem__(self, item):
        index, seed = item
        return {"image": self.images[index], "word": self.words[index], "seed": seed}


def genesis_unet(spatial_dims):
    return GenesisUNet(spatial_dims, features=(2, 4, 6, 8))


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1)


def adam(parameters):
    return torch.optim.Adam(parameters, 0.02)


def make_trainer(
    spatial_dims,
    *,
    data=None,
    batch_size=6,
    epochs=1,
    epoch_length=4,
    prepare=lambda module: module,
    optimizer=sgd,
    **options,
):
    """A trainer of all three losses, on ``Stripes`` unless told otherwise."""
    torch.manual_seed(0)
    network = prepare(genesis_unet(spatial_dims))
    objective = prepare(VisualWords(network, CLASSES, 16, pooled_norm=True))
    discriminator = PatchDiscriminator(spatial_dims, 4, 1, num_layers_d=1, kernel_size=3, norm="INSTANCE")
    data = Stripes(spatial_dims) if data is None else data
    sampler = SeededSampler(data, batch_size, epoch_length=epoch_length)
    return DiRATrainer(
        device=CPU,
        max_epochs=epochs,
        network=network,
        objective=objective,
        views=Views(lambda images, draws: images, (), [InPainting(count=1, size=(0.2, 0.4))], count=1, flip_axes=()),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), 0.01),
        optimizer=optimizer(trainable_parameters(network, objective)),
        loss_function=torch.nn.MSELoss(),
        train_data_loader=DataLoader(data, batch_size, sampler=sampler),
        **{"restoration_weight": 1.0, "adversarial_weight": 0.1} | options,
    )


def make_evaluator(trainer, data, **options):
    return DiRAEvaluator(
        device=CPU,
        val_data_loader=DataLoader(data, 5, sampler=SeededSampler(data, 5, shuffle=False)),
        network=trainer.network,
        objective=trainer.objective,
        views=trainer.views,
        **options,
    )


@every_rank
@pytest.mark.parametrize("pooled_norm", [False, True])
def test_loss_is_the_cross_entropy_of_the_head(spatial_dims, pooled_norm):
    network = genesis_unet(spatial_dims)
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
    told["loss"].backward()
    assert network.down_tr64.ops[0].conv1.weight.grad.abs().max() > 0


def test_equal_logits_give_the_loss_of_a_guess():
    network = genesis_unet(2)
    objective = VisualWords(network, 44)
    torch.nn.init.zeros_(objective.head[-1].weight)
    torch.nn.init.zeros_(objective.head[-1].bias)
    told = forward(objective, network, {"word": torch.tensor([5, 6]), "query": torch.rand(2, 1, 16, 16)})
    assert told["loss"].item() == pytest.approx(math.log(44), rel=1e-6)


def test_head_has_the_authors_width():
    objective = VisualWords(genesis_unet(3), 44)
    assert [tuple(weight.shape) for weight in objective.parameters()] == [(1024, 8), (1024,), (44, 1024), (44,)]


def test_what_cannot_be_used_is_one_sentence():
    network = genesis_unet(2)
    with pytest.raises(InputError, match="classes must be at least 2, got 1"):
        VisualWords(network, 1)
    objective = VisualWords(network, 2)
    with pytest.raises(InputError, match="VisualWords needs the word of each image, which WordDataset gives"):
        forward(objective, network, {"query": torch.rand(2, 1, 16, 16)})


def test_ailment_is_an_accuracy_of_guesses():
    objective = VisualWords(genesis_unet(2), 44)
    assert objective.diagnose({"accuracy": 2 / 45, "collapse": 1.0}) is None
    told = objective.diagnose({"accuracy": 1 / 44, "collapse": 0.2})
    assert "44 visual words are recognized no better than by guessing (accuracy 0.0227)" in told
    assert "get the same answer" in objective.diagnose({"accuracy": 1 / 44, "collapse": 0.999})
    assert VisualWords(genesis_unet(2), 2).diagnose({"accuracy": 0.7}) is None
    assert VisualWords(genesis_unet(2), 2).diagnose({"accuracy": 0.6})


@every_rank
def test_a_training_learns_the_words(spatial_dims):
    alone = {"restoration_weight": 0.0, "adversarial_weight": 0.0}
    trainer = make_trainer(spatial_dims, epochs=8, optimizer=adam, **alone)
    outputs = record(trainer)
    trainer.run()
    losses = [output["contrastive"].item() for output in outputs]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert sum(output["contrastive_accuracy"] for output in outputs[-4:]) > 4 * 0.8
    assert not outputs[-1]["query"].requires_grad
    evaluator = make_evaluator(trainer, Stripes(spatial_dims))
    before = {name: tensor.clone() for name, tensor in trainer.objective.state_dict().items()}
    evaluator.run()
    assert evaluator.state.output["contrastive"].isfinite()
    assert 0 <= evaluator.state.output["contrastive_accuracy"] <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.objective.state_dict().items())


def test_a_checkpoint_holds_the_head():
    trainer = make_trainer(2)
    trainer.run()
    state = trainer.to_save()["objective"].state_dict()
    other = make_trainer(2)
    other.objective.load_state_dict(state)
    words, images = torch.tensor([0, 1]), torch.rand(2, 1, 16, 16)
    for made in (trainer, other):
        made.objective.eval()
    features = encode(trainer.network, images)
    losses = [forward(made.objective, made.network, {"word": words}, features)["loss"] for made in (trainer, other)]
    assert torch.equal(*losses)


def write_stripes(folder, spatial_dims):
    """``Stripes`` as files of the command visual-words."""
    splits = {}
    for split, count in (("training", 12), ("validation", 5)):
        stripes = Stripes(spatial_dims, count)
        np.save(folder / f"{split}.npy", stripes.images.numpy())
        splits[split] = {"rows": [[0, word, 0, *[0] * spatial_dims, *[16] * spatial_dims] for word in stripes.words]}
    write_words({"kind": KIND, "words": [{}] * CLASSES, **splits}, folder)


@every_rank
def test_a_killed_run_on_words_ends_as_an_unbroken_one(tmp_path, spatial_dims):
    write_stripes(tmp_path, spatial_dims)

    def kill(_):
        raise RuntimeError("killed")

    def run(folder, killed_in=None, **options):
        data = {split: WordDataset(tmp_path, split) for split in ("training", "validation")}
        trainer = make_trainer(spatial_dims, data=data["training"], epochs=2, epoch_length=3, optimizer=adam)
        loss = Loss(lambda loss, _: loss, output_transform=lambda o: (o["contrastive"], o["label"]))
        evaluator = make_evaluator(trainer, data["validation"], key_val_metric={"val_contrastive": loss})
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


def test_a_step_in_bf16_is_finite_and_near_that_in_fp32():
    found = {}
    for name in ("fp32", "bf16"):
        trainer = make_trainer(2, epoch_length=1, precision=name)
        logits = []
        trainer.objective.head[-1].register_forward_hook(lambda *args, logits=logits: logits.append(args[-1]))
        outputs, before = record(trainer), states(trainer)
        trainer.run()
        after = states(trainer)
        for part in ("network", "objective", "discriminator"):
            assert differs(before[part], after[part])
            assert all(tensor.isfinite().all() for tensor in after[part].values())
        assert [values.dtype for values in logits] == [PRECISIONS[name]]
        found[name] = [float(outputs[0][loss]) for loss in ("loss", *DiRATrainer.losses)]
    torch.testing.assert_close(found["fp32"], found["bf16"], rtol=0.02, atol=0.01)


def train(batch_size):
    """Losses of each step and all weights after it; networks with batch norm, synchronized over processes."""
    prepare = (lambda module: synchronize_batch_norm(module, CPU)) if world_size() > 1 else (lambda module: module)
    trainer = make_trainer(2, batch_size=batch_size, epoch_length=3, prepare=prepare)
    losses = []
    trainer.add_event_handler("ITERATION_COMPLETED", lambda e: losses.append(e.state.output["contrastive"].item()))
    trainer.run()
    return {"losses": losses, "network": trainer.network.state_dict(), "objective": trainer.objective.state_dict()}


def work(process, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=process, world_size=2, timeout=timedelta(seconds=300)
    )
    torch.save(train(3), f"{folder}/{process}.pt")
    dist.destroy_process_group()


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    alone = train(6)
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    both = [torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in (0, 1)]
    for found in both:
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        for part in ("network", "objective"):
            torch.testing.assert_close(found[part], alone[part], rtol=0, atol=1e-4)


@every_rank
def test_stock_networks_are_taken(spatial_dims):
    network = BasicUNet(spatial_dims, 1, 1, features=(4, 4, 4, 4, 6, 4))
    objective = VisualWords(network, 3, 8, pooled_norm=True)
    features = encode(network, torch.rand(3, 1, *[32] * spatial_dims))
    assert forward(objective, network, {"word": torch.tensor([0, 1, 2])}, features)["query"].shape == (3, 3)
