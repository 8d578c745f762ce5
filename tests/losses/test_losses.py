import math

import pytest
import torch
from monai.networks.nets import PatchDiscriminator
from reference import GOLDEN, assert_matches, filled, normal, unit_rows
from trainer_runs import assert_same

from dira_monai.losses.adversarial import discriminator_accuracy, discriminator_loss, generator_loss, gradient_penalty
from dira_monai.losses.barlow_twins import barlow_twins
from dira_monai.losses.contrastive import contrastive_accuracy, info_nce, negative_cosine, nt_xent
from dira_monai.losses.restoration import masked_loss
from dira_monai.losses.smooth_ap import ranking_accuracy, smooth_ap
from dira_monai.utils.errors import InputError

GANS = ["lsgan", "vanilla", "hinge", "wgan"]


@pytest.fixture(params=[(5, 4), (3, 4, 2)])
def shape(request):
    return request.param


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


QUEUE = unit_rows(3, (32, 16))
LOSSES = {  # of two views, (4, 16)
    "info_nce": lambda z1, z2, temperature=0.2: info_nce(z1, z2, QUEUE, temperature),
    "nt_xent": nt_xent,
    "smooth_ap": lambda z1, z2, temperature=0.2: smooth_ap(z1, 2, temperature),
    "barlow_twins": barlow_twins,
    "negative_cosine": negative_cosine,
    "nt_xent of a small temperature": lambda z1, z2: nt_xent(z1, z2, 0.01),
    "contrastive_accuracy": lambda z1, z2: contrastive_accuracy(z1, z2, QUEUE),
    "ranking_accuracy": lambda z1, z2: ranking_accuracy(z1, 2),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_embeddings_compute_in_float32(name, dtype):
    loss = LOSSES[name]
    z1, z2 = (100 * normal(seed, (4, 16)).to(dtype) for seed in (1, 2))  # logits beyond what halves show
    expected = loss(z1.float(), z2.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, inside = loss(z1.requires_grad_(), z2), loss(z1.detach().float(), z2.float())
    assert_same((found.detach(), inside), (expected, expected))
    assert found.dtype == torch.float32
    if found.requires_grad:
        found.backward()
        assert z1.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0, -0.2])
@pytest.mark.parametrize("name", ["info_nce", "nt_xent", "smooth_ap"])
def test_a_temperature_that_is_not_positive_is_refused(name, temperature):
    with pytest.raises(InputError, match=f"temperature must be positive, got {temperature}"):
        LOSSES[name](torch.eye(2, 16), torch.eye(2, 16), temperature=temperature)


def test_info_nce_has_a_gradient_for_the_query_only():
    query, key, queue = (rows.requires_grad_() for rows in published_embeddings())
    info_nce(query, key, queue).backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert queue.grad is None


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
        ("wgan", (2 - 0.5) / 2, 0.5 * (-(2 + 0.5) / 2 + (-2 + 0.5) / 2)),
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
    for logit in (0.0, 0.5, 7.0):
        answer = torch.full((3, 1), logit, dtype=torch.bfloat16)  # one answer to all
        assert discriminator_accuracy(answer, answer, gan) == 0.5


GAN = "gan must be one of lsgan, vanilla, hinge, wgan; got dcgan"


@pytest.mark.parametrize(
    ("loss", "count", "gan", "sentence"),
    [
        (generator_loss, 1, "dcgan", GAN),
        (discriminator_loss, 2, "dcgan", GAN),
        (discriminator_accuracy, 2, "dcgan", GAN),
        (discriminator_accuracy, 2, "wgan", "gan must have a threshold between real and restored, wgan has none"),
    ],
)
def test_unknown_gans_and_an_accuracy_of_wgan_are_refused(loss, count, gan, sentence):
    with pytest.raises(ValueError, match=sentence):
        loss(*[torch.zeros(1)] * count, gan)


class Quadratic(torch.nn.Module):
    """A discriminator whose map of logits is s x²: its mean over n voxels has the gradient 2 s x / n."""

    def __init__(self, s):
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor(s))

    def forward(self, images):
        return [images, self.s * images.square()]


@pytest.mark.parametrize("channels", [1, 2])
def test_gradient_penalty_and_its_gradient_by_hand(shape, channels):
    real, fake = normal(1, (3, channels, *shape)), normal(2, (3, channels, *shape))
    share, s = torch.tensor([0.0, 0.25, 1.0]), 1.7
    count = channels * math.prod(shape)
    expected = slope = 0.0
    for a, b, u in zip(real.double(), fake.double(), share.double(), strict=True):
        length = 2 * (u * a + (1 - u) * b).norm() / count
        expected += (s * length - 1) ** 2 / 3
        slope += 2 * (s * length - 1) * length / 3  # by s
    discriminator = Quadratic(s)
    penalty = gradient_penalty(discriminator, real, fake, share)
    torch.testing.assert_close(penalty.detach(), expected.float())
    penalty.backward()
    torch.testing.assert_close(discriminator.s.grad, slope.float())


def test_gradient_penalty_is_the_mean_over_the_samples_and_leaves_the_images_without_gradient():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, 4, 1, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    real, fake = torch.rand(2, 3, 1, 16, 16).requires_grad_()
    share = torch.rand(3)
    penalty = gradient_penalty(discriminator, real, fake, share)
    rows = [
        gradient_penalty(discriminator, real[i : i + 1], fake[i : i + 1], share[i : i + 1]).detach() for i in range(3)
    ]
    torch.testing.assert_close(penalty.detach(), torch.stack(rows).mean())
    penalty.backward()
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)
    assert sum(p.grad.abs().sum() for p in discriminator.parameters() if p.grad is not None) > 0


def test_gradient_penalty_of_a_flat_discriminator_is_one_and_finite():
    discriminator = Quadratic(0.0)
    penalty = gradient_penalty(discriminator, torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.full((2,), 0.5))
    penalty.backward()
    assert penalty == 1
    assert discriminator.s.grad.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_penalty_computes_in_float32(dtype):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, 4, 1, num_layers_d=2, kernel_size=3, norm="INSTANCE")
    real, fake = torch.rand(2, 2, 1, 16, 16).to(dtype)
    share = torch.tensor([0.3, 0.6])
    expected = gradient_penalty(discriminator, real.float(), fake.float(), share)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = gradient_penalty(discriminator, real, fake, share)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("loss", "power"), [(torch.nn.MSELoss(), 2), (torch.nn.L1Loss(), 1)])
def test_masked_loss_is_the_mean_over_the_hidden_voxels_of_each_sample(loss, power, shape, channels):
    restored, target = normal(1, (4, channels, *shape)).requires_grad_(), normal(2, (4, channels, *shape))
    mask = normal(3, (4, 1, *shape)) > torch.tensor([-1.0, 0.0, 0.5, 1.0]).reshape(4, 1, *[1] * len(shape))
    assert len(set(mask.flatten(1).sum(1).tolist())) > 1
    rows = []
    for mine, true, hidden in zip(restored.detach().double(), target.double(), mask, strict=True):
        rows.append((mine - true).abs().pow(power)[hidden.expand_as(mine)].mean())
    value = masked_loss(loss, restored, target, mask)
    torch.testing.assert_close(value.detach(), torch.stack(rows).mean().float())
    halves = [masked_loss(loss, restored[i : i + 2], target[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(value, sum(halves) / 2)  # as two processes or two accumulated batches have it
    value.backward()
    assert torch.equal(restored.grad != 0, mask.expand_as(restored))


def test_masked_loss_without_a_mask_is_the_loss():
    restored, target = normal(1, (2, 1, 4, 4)), normal(2, (2, 1, 4, 4))
    assert masked_loss(torch.nn.MSELoss(), restored, target, None) == torch.nn.functional.mse_loss(restored, target)
