"""What the values at the top of train.json may be; checked before a run reads or writes anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from ..utils.errors import InputError

Fits = Callable[[Any, int], bool]  # whether a value fits, given spatial_dims


class Rule(NamedTuple):
    """What a value must be, in words and as a function."""

    told: str
    fits: Fits

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.told}, or {other.told}", lambda v, dims: self.fits(v, dims) or other.fits(v, dims))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _number(told: str, fits: Callable[[float], bool]) -> Rule:
    return Rule(told, lambda v, dims: _is_number(v) and fits(v))


def _whole(least: int) -> Rule:
    return Rule(f"a whole number from {least}", lambda v, dims: _is_whole(v, least))


def _choice(*words: str) -> Rule:
    return Rule(" or ".join(words), lambda v, dims: v in words)


def _each_axis(told: str, fits: Callable[[Any], bool]) -> Rule:
    def all_fit(value: Any, dims: int) -> bool:
        return isinstance(value, Sequence) and len(value) == dims and all(map(fits, value))

    return Rule(f"{told} for each axis", all_fit)


NONE = Rule("None", lambda v, dims: v is None)
SWITCH = Rule("True or False", lambda v, dims: type(v) is bool)
COUNT, COUNT_OR_0 = _whole(1), _whole(0)
POSITIVE = _number("a number above 0", lambda v: v > 0)
WEIGHT = _number("a number from 0", lambda v: v >= 0)
SHARE = _number("a number from 0 to 1", lambda v: 0 <= v <= 1)
PART = _number("a number from 0 and below 1", lambda v: 0 <= v < 1)
NOT_NOTHING = _number("a number above 0 and at most 1", lambda v: 0 < v <= 1)
SIZE = _each_axis("a whole number of voxels from 1", lambda n: _is_whole(n, 1))
SPACING = _each_axis("a number of mm above 0", lambda n: _is_number(n) and n > 0)
RANGE = Rule(
    "two rising numbers",
    lambda v, dims: isinstance(v, Sequence) and len(v) == 2 and all(map(_is_number, v)) and v[0] < v[1],
)

RULES = {
    "spatial_dims": Rule("2 or 3", lambda v, dims: v in (2, 3)),
    "precision": _choice("fp32", "bf16", "fp16"),
    "cache": _choice("ram", "none"),
    "patch_size": SIZE,
    "region_size": SIZE,
    "image_size": SIZE | COUNT | NONE,
    "spacing": SPACING | NONE,
    "intensity_range": RANGE | NONE,
    "gradient_clip": POSITIVE | NONE,
    "checkpoint_minutes": POSITIVE | NONE,
    **dict.fromkeys(("momentum", "final_momentum"), SHARE | NONE),
    "overlap": PART,
    **dict.fromkeys(
        ("resume", "channels_last", "tensorboard", "conditional", "pooled_norm", "multi_label", "allow_overlap"), SWITCH
    ),
    **dict.fromkeys(("in_channels", "batch_size", "max_epochs", "val_interval", "accumulation_steps"), COUNT),
    **dict.fromkeys(("keep_checkpoints", "collapse_patience", "discriminator_channels"), COUNT),
    **dict.fromkeys(("views_per_image", "shares"), COUNT),
    **dict.fromkeys(("epoch_length", "val_samples", "patience", "queue_size"), COUNT | NONE),
    **dict.fromkeys(("num_workers", "seed", "local_count", "freeze_epochs", "label_subset", "label_seed"), COUNT_OR_0),
    "temperature": POSITIVE,
    **dict.fromkeys(("learning_rate", "discriminator_learning_rate"), WEIGHT),
    **dict.fromkeys(
        ("warmup_epochs", "contrastive_weight", "restoration_weight", "adversarial_weight", "gradient_penalty"), WEIGHT
    ),
    **dict.fromkeys(("min_foreground", "minimum_coverage", "cache_rate"), SHARE),
    **dict.fromkeys(("validation_fraction", "test_fraction", "label_smoothing"), PART),
    **dict.fromkeys(("layer_decay", "pretrained_rate", "label_fraction"), NOT_NOTHING),
}


def check_header(config: Mapping[str, Any]) -> None:
    """Refuse values of a merged configuration that break their rule of ``RULES``; expressions are let pass.

    Raises:
        InputError: names the value, what it must be and what it is.
    """
    dims = config.get("spatial_dims", 0)
    for name in RULES.keys() & config.keys():
        value, rule = config[name], RULES[name]
        if not _is_expression(value) and not rule.fits(value, dims):
            raise InputError(f"--{name} must be {rule.told}, got {value!r}.")
    warmup, epochs = config.get("warmup_epochs", 0), config.get("max_epochs", math.inf)
    if _is_number(warmup) and _is_number(epochs) and warmup > epochs:
        raise InputError(f"--warmup_epochs must be at most max_epochs ({epochs}), got {warmup}.")


def _is_expression(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, str) and value.startswith(("$", "@", "%")))
