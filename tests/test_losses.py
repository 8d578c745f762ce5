import math

import pytest
import torch
from monai.networks.nets import PatchDiscriminator
from reference import GOLDEN, assert_matches, filled, normal, unit_rows

from dira_monai.losses import (
    contrastive_accuracy,
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    info_nce,
)

GANS = ["lsgan", "vanilla", "hinge"]


def published_embeddings():
    return unit_rows(1, (4, 16)), unit_rows(2, (4, 16)), unit_rows(3, (32, 16))


def test_info_nce_equals_the_published_value():
    loss = info_nce(*published_embeddings(), temperature=0.2)
    torch.testing.assert_close(loss, torch.tensor(GOLDEN["moco_info_nce"]["loss"]))


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_info_nce_of_orthogonal_negatives(temperature):
    basis = torch.eye(8)
    expected = math.log(1 + 6 * math.exp(-1 / temperature))  # cosine 1 with the key, 0 with six negatives
    torch.testing.assert_close(info_nce(basis[:2], basis[:2], basis[2:], temperature), torch.tensor(expected))


def test_info_nce_of_an_empty_queue_is_zero():
    assert info_nce(torch.eye(2), torch.eye(2), torch.empty(0, 2)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_info_nce_computes_in_float32(dtype):
    query, key, queue = (rows.to(dtype) for rows in published_embeddings())
    loss = info_nce(query, key, queue.float(), temperature=1e-3)  # logits of 1000: halves round them
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(query.float(), key.float(), queue.float(), temperature=1e-3))


def test_info_nce_computes_in_float32_under_autocast():
    embeddings = published_embeddings()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(*embeddings)
    torch.testing.assert_close(loss, info_nce(*embeddings), atol=0, rtol=0)


def test_info_nce_has_a_gradient_for_the_query_only():
    query, key, queue = (rows.requires_grad_() for rows in published_embeddings())
    info_nce(query, key, queue).backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert queue.grad is None


@pytest.mark.parametrize("temperature", [0, -0.2])
def test_info_nce_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        info_nce(torch.eye(2), torch.eye(2), torch.eye(2), temperature)


def test_contrastive_accuracy_counts_rows():
    basis = torch.eye(4)
    query, key = basis[[0, 1, 2, 3]], basis[[0, 1, 2, 0]]  # the third ties with the queue, the last misses its key
    torch.testing.assert_close(contrastive_accuracy(query, key, basis[2:]), torch.tensor(0.5))


def test_contrastive_accuracy_of_collapsed_embeddings_is_zero():
    same = torch.ones(3, 1, dtype=torch.bfloat16)
    accuracy = contrastive_accuracy(same, same, same)
    assert accuracy == 0
    assert accuracy.dtype == torch.float32


def test_lsgan_equals_the_published_values():
    golden = GOLDEN["discriminator"]
    discriminator = PatchDiscriminator(
        spatial_dims=2,
        channels=64,
        in_channels=1,
        num_layers_d=3,
        kernel_size=3,
        norm="INSTANCE",
        bias=True,
        padding=1,
        last_conv_kernel_size=3,
    )
    weights = filled(golden["keys"], 1000)
    stock = discriminator.state_dict()
    assert [list(tensor.shape) for tensor in stock.values()] == [shape for _, shape in golden["keys"]]
    discriminator.load_state_dict(dict(zip(stock, weights.values(), strict=True)))  # same layers, other names

    with torch.no_grad():
        real_logits, fake_logits = (discriminator(0.5 + 0.1 * normal(seed, (2, 1, 64, 64)))[-1] for seed in (41, 42))
    assert_matches(real_logits, golden["real_logits"])
    assert_matches(fake_logits, golden["fake_logits"])
    expected = [golden["lsgan_generator_loss"], golden["lsgan_discriminator_loss"]]
    losses = [generator_loss(fake_logits), discriminator_loss(real_logits, fake_logits)]
    torch.testing.assert_close(torch.stack(losses), torch.tensor(expected))


@pytest.mark.parametrize(
    ("gan", "generator", "discriminator"),
    [
        # real logits 2 and 0.5, restored -2 and 0.5
        ("lsgan", (9 + 0.25) / 2, 0.5 * ((1 + 0.25) / 2 + (4 + 0.25) / 2)),
        (
            "vanilla",
            (math.log1p(math.exp(2)) + math.log1p(math.exp(-0.5))) / 2,
            0.5
            * (
                (math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.5))) / 2
                + (math.log1p(math.exp(-2)) + math.log1p(math.exp(0.5))) / 2
            ),
        ),
        ("hinge", (2 - 0.5) / 2, 0.5 * ((0 + 0.5) / 2 + (0 + 1.5) / 2)),
    ],
)
def test_adversarial_losses_by_hand(gan, generator, discriminator):
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 0.5]])
    torch.testing.assert_close(generator_loss(fake, gan), torch.tensor(generator))
    torch.testing.assert_close(discriminator_loss(real, fake, gan), torch.tensor(discriminator))


@pytest.mark.parametrize("gan", GANS)
def test_the_generator_is_pushed_towards_larger_logits_without_saturation(gan):
    fake = torch.tensor([-20.0], requires_grad=True)
    generator_loss(fake, gan).backward()
    assert fake.grad < -0.9


@pytest.mark.parametrize("gan", GANS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adversarial_losses_compute_in_float32(gan, dtype):
    logits = torch.tensor([300.0, -300.0]).to(dtype)  # the square overflows float16
    for loss in (generator_loss(logits, gan), discriminator_loss(logits, logits, gan)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()


@pytest.mark.parametrize(("gan", "accuracy"), [("lsgan", 0.5), ("vanilla", 0.75), ("hinge", 0.75)])
def test_discriminator_accuracy_knows_the_threshold(gan, accuracy):
    real, fake = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.tensor([-1.0, 0.7])  # as many counts as the other
    torch.testing.assert_close(discriminator_accuracy(real, fake, gan), torch.tensor(accuracy))


@pytest.mark.parametrize(("gan", "logit"), [("lsgan", 0.5), ("vanilla", 0.0), ("hinge", 0.0), ("hinge", 7.0)])
def test_discriminator_accuracy_of_one_answer_to_all_is_a_half(gan, logit):
    answer = torch.full((3, 1), logit, dtype=torch.bfloat16)
    assert discriminator_accuracy(answer, answer, gan) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda gan: generator_loss(torch.zeros(1), gan),
        lambda gan: discriminator_loss(torch.zeros(1), torch.zeros(1), gan),
        lambda gan: discriminator_accuracy(torch.zeros(1), torch.zeros(1), gan),
    ],
)
def test_unknown_gan_is_refused(call):
    with pytest.raises(ValueError, match="gan must be one of lsgan, vanilla, hinge; got wgan"):
        call("wgan")
