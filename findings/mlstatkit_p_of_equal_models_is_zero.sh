#!/usr/bin/env bash
# MLstatkit's DeLong test calls a model that is compared with itself different from itself, with p = 0.
#
# Versions: MLstatkit 0.1.91, numpy 2.4.6.
# The variance of the difference of two AUCs is 0 where both models order the patients alike: the same model twice, its
# probabilities and its logits, before and after temperature scaling, two models that both part the classes without
# error. The test then falls back to a bootstrap, in which every difference is 0 as well, and gives z = 0 and, beside
# it, p = 0.0, the surest answer there is, where 1 is right. A table of p values shows the two most equal models as the
# most significant pair. Two models that differ have a p between.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet MLstatkit==0.1.91 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from MLstatkit import Delong_test

draws = np.random.default_rng(0)
truth = (np.arange(200) % 4 == 0).astype(int)
model = 1 / (1 + np.exp(-truth - draws.normal(size=200)))
pairs = {
    "a model and itself": (model, model),
    "a model and its logits": (model, np.log(model / (1 - model))),
    "two models without error": (truth * 0.5, truth * 0.5 + draws.uniform(0, 0.4, 200)),
    "two models that differ": (model, model + draws.normal(0, 0.1, 200)),
}
seen = {}
for name, (first, second) in pairs.items():
    z, p, first_auc, second_auc, *_ = Delong_test(truth, first, second, return_ci=False, random_state=0)
    seen[name] = z, p
    print(f"{name}: AUC {first_auc:.3f} and {second_auc:.3f}, z {z:.3f}, p {p:.3f}")
*equal, (z, p) = seen.values()
sys.exit(not (equal == [(0, 0)] * 3 and z != 0 and 0.01 < p < 1))
PY
echo "as described"
