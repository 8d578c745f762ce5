"""Values at the top of train.json that no run may have."""

import json
import math
import re

import numpy as np
import pytest
from finetune_bundle import ROOT

from dira_monai.bundle.header import RULES, check_header
from dira_monai.utils.errors import InputError

BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/train.json"))
BAD = {
    "a whole number from 1": [0, -1, 2.5, math.nan, "8", True, [1]],
    "a whole number from 0": [-1, 0.5, "no", None],
    "a whole number from 1, or None": [0, "null", 1.5],
    "a number above 0": [0, -0.1, math.nan, math.inf, "1e-3", None],
    "a number above 0, or None": [0, -1, math.nan],
    "a number from 0": [-1, math.nan, math.inf, None, True],
    "a number from 0 to 1": [-0.1, 1.1, math.nan],
    "a number from 0 to 1, or None": [2, "one"],
    "a number from 0 and below 1": [1, -0.1],
    "a number above 0 and at most 1": [0, 1.5, math.nan],
    "True or False": ["no", 0, 1, None],
    "2 or 3": [1, 4, "2d", None],
    "fp32 or bf16 or fp16": ["float", None],
    "ram or none": ["disk", None],
    "two rising numbers, or None": [[1, 0], [0, 0], [0], 5, [0, math.nan]],
    "a number of mm above 0 for each axis, or None": [0, [1, 0], [1, 1, 1, 1], ["1", 1], [1, math.inf, 1]],
    "a whole number of voxels from 1 for each axis": [8, [8], [8, 8, 8, 8], [8, 0], [8, 8.5, 8], None],
    "a whole number of voxels from 1 for each axis, or a whole number from 1, or None": [0, [8], [0, 8], "big"],
}


@pytest.mark.parametrize("name", RULES)
def test_each_bad_value_is_one_sentence(name):
    rule = RULES[name]
    for value in BAD[rule.told]:
        for dims in (2, 3):
            told = rf"^--{name} must be {re.escape(rule.told)}, got {re.escape(repr(value))}\.$"
            with pytest.raises(InputError, match=told):
                check_header({"spatial_dims": dims, name: value})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_shipped_values_and_expressions_pass(bundle):
    header = json.loads((ROOT / "bundles" / bundle / "configs/train.json").read_text())
    check_header(header)
    check_header(header | dict.fromkeys(RULES, "$whatever") | {"batch_size": np.int64(4), "learning_rate": "@other"})


def test_a_warm_up_that_is_longer_than_the_run_is_refused():
    with pytest.raises(InputError, match=r"--warmup_epochs must be at most max_epochs \(3\), got 5\."):
        check_header({"warmup_epochs": 5, "max_epochs": 3})
