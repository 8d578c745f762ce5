#!/usr/bin/env bash
# One missing p value makes all corrected p of statsmodels missing, while hypotheses are rejected all the same, or none.
#
# Versions: statsmodels 0.15.0, scipy 1.17.1, numpy 2.4.6.
# Two models that are equal for all patients have no p (scipy's wilcoxon says nan), as has a class that nobody has. With
# such a nan among the p values multipletests says nan for every corrected p by fdr_bh (Benjamini-Hochberg), yet rejects
# hypotheses: the two things that it returns disagree, and `corrected < 0.05` finds nothing. By hommel nothing is rejected,
# not even p = 0.001. By holm the nan counts as one more test, and a hypothesis is rejected no more. Nothing is said.
# scipy's false_discovery_control raises an error. Take the nan out before.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy.stats import false_discovery_control, wilcoxon
from statsmodels.stats.multitest import multipletests

whole = [0.001, 0.01, 0.02, 0.2]
missing = wilcoxon(np.zeros(20)).pvalue  # two models that are equal for all patients
seen = {}
for method in ("fdr_bh", "hommel", "holm"):
    for name, values in (("without", whole), ("with", [*whole, missing])):
        rejected, corrected, *_ = multipletests(values, method=method)
        seen[method, name] = rejected.tolist(), corrected.round(3).tolist()
        print(f"{method:6} {name:7} a missing p: rejected", *seen[method, name][0], "corrected", *seen[method, name][1])
nan, some = float("nan"), [True, True, True, False]
expected = {
    ("fdr_bh", "without"): (some, [0.004, 0.02, 0.027, 0.2]),
    ("fdr_bh", "with"): ([*some, False], [nan] * 5),
    ("hommel", "without"): (some, [0.004, 0.03, 0.04, 0.2]),
    ("hommel", "with"): ([False] * 5, [nan] * 5),
    ("holm", "without"): (some, [0.004, 0.03, 0.04, 0.2]),
    ("holm", "with"): ([True, True, False, False, False], [0.005, 0.04, 0.06, 0.4, nan]),
}
try:
    answer = str(false_discovery_control([*whole, missing]))
except ValueError as error:
    answer = str(error)
print("scipy:", answer)
sys.exit(str(seen) != str(expected) or "between 0 and 1" not in answer)
PY
echo "as described"
