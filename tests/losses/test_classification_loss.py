import pytest
import torch
import torch.nn.functional as F

from dira_monai.losses.classification import ClassificationLoss, check_classes, class_weights
from dira_monai.utils.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize("weight", [None, [1.0, 0.5, 3.0]])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_one_class_per_image_is_torchs_cross_entropy(weight, label_smoothing):
    pred, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    loss = ClassificationLoss(weight=weight, label_smoothing=label_smoothing)(pred, F.one_hot(classes, 3).float())
    tensor = None if weight is None else torch.tensor(weight)
    expected = F.cross_entropy(pred, classes, weight=tensor, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weight", [None, [1.0, 0.5, 3.0]])
def test_several_labels_per_image_are_torchs_binary_cross_entropy_over_the_known(weight):
    pred = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([[1.0, 0.0, NAN], [NAN, NAN, 1.0], [0.0, 1.0, 0.0], [1.0, NAN, NAN]])
    known = ~target.isnan()
    loss = ClassificationLoss(multi_label=True, weight=weight)(pred, target)
    factors = torch.ones(3) if weight is None else torch.tensor(weight)
    expected = F.binary_cross_entropy_with_logits(
        pred[known], target[known], pos_weight=factors.expand(4, 3)[known], reduction="mean"
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (pred.grad[~known] == 0).all()
    assert (pred.grad[known] != 0).all()


def test_smoothed_labels_pull_towards_one_half():
    pred, target = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    loss = ClassificationLoss(multi_label=True, label_smoothing=0.2)(pred, target)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(pred, torch.tensor([[0.9]])))


def test_a_batch_without_any_known_label_costs_nothing():
    pred = torch.randn(2, 3, requires_grad=True)
    loss = ClassificationLoss(multi_label=True)(pred, torch.full((2, 3), NAN))
    loss.backward()
    assert loss == 0
    assert (pred.grad == 0).all()


def test_weights_are_no_part_of_a_checkpoint():
    assert ClassificationLoss(weight=[1.0, 2.0]).state_dict() == {}


def test_balanced_weights_of_exclusive_classes_average_to_one_over_the_images():
    labels = [0, 0, 0, 1]
    weights = class_weights(labels, "balanced", 2)
    assert weights == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    assert sum(weights[label] for label in labels) / 4 == pytest.approx(1)


def test_balanced_weights_of_several_labels_are_negatives_per_positive_among_the_known():
    labels = [[1, 0], [0, None], [0, 1], [0, 0]]
    assert class_weights(labels, "balanced", 2) == pytest.approx([3.0, 2.0])


@pytest.mark.parametrize("labels", [[0, 0, 1], [[1, 0], [1, 1]], [[None, 0], [1, None], [0, None]]])
def test_a_list_with_a_class_to_tell_apart_is_accepted(labels):
    check_classes([{"label": label} for label in labels], "validation")


@pytest.mark.parametrize("labels", [[2, 2], [[1, 0], [1, None]], [[None], [0]]])
def test_a_list_without_any_class_to_tell_apart_is_refused(labels):
    with pytest.raises(InputError, match=r"the validation list has no class that some of its 2 images have and others"):
        check_classes([{"label": label} for label in labels], "validation")


def test_given_weights_are_kept():
    assert class_weights([0, 1], [1, 3], 2) == [1.0, 3.0]
    assert class_weights([0, 1], None, 2) is None


@pytest.mark.parametrize(
    ("labels", "weights", "sentence"),
    [
        ([0, 1], [1.0], r"class_weights must be 2 numbers from 0, one a class, got \[1.0\]"),
        ([0, 1], [1.0, -1.0], "class_weights must be 2 numbers from 0"),
        ([0, 1], "equal", "class_weights must be None, a list or 'balanced', got 'equal'"),
        ([0, 0], "balanced", "class_weights 'balanced': class 1 has no image in training"),
        (None, "balanced", "class_weights 'balanced' is for classification"),
        ([[1, 1], [None, 0]], "balanced", "class_weights 'balanced': all images in training have class 0"),
        ([[0, 1], [None, 0]], "balanced", "class_weights 'balanced': class 0 has no image in training"),
    ],
)
def test_unusable_weights_are_refused(labels, weights, sentence):
    with pytest.raises(InputError, match=sentence):
        class_weights(labels, weights, 2)
