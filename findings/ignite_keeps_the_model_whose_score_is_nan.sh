#!/usr/bin/env bash
# Ignite keeps a model whose score is not a number as the best one for ever, and a nan starts its early stopping anew.
#
# Versions: pytorch-ignite 0.5.5, monai 1.6.1 (CheckpointSaver and EarlyStopHandler stand on it), torch 2.13.0 (CPU).
# A validation may have no score: no patient with the finding was drawn (MONAI's AUC is nan), the loss overflowed. With
# nan in the first epoch and 0.6, 0.7, 0.8 after it, the one checkpoint kept is that of nan, since no number is greater
# than nan. Of three kept, a nan in the second epoch blocks the others, so that 0.7, 0.8 and 0.9 are never saved.
# EarlyStopping takes a nan for the best score and counts from 0 again: with a patience of 3, scores that fall from 0.8
# to 0.1 and are nan each third epoch do not stop the training. The documentation of both says that higher is better;
# neither it nor a warning speaks of nan. A good engineer would expect a nan to be no improvement. The best model is
# lost, and what is deployed is the first one. Let the score function give float("-inf") instead of nan.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 pytorch-ignite==0.5.5 monai==1.6.1 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import math
import sys
import tempfile
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EarlyStopping
from monai.handlers import CheckpointSaver, EarlyStopHandler
from monai.metrics import compute_roc_auc

nan = float("nan")


def train(scores, kept, patience, by_monai=False, cure=False):
    """Scores of the checkpoints that are left, and the number of epochs after which training ended."""

    def score(_):
        value = scores[trainer.state.epoch - 1]
        return -math.inf if cure and math.isnan(value) else value

    trainer, evaluator = Engine(lambda *_: None), Engine(lambda e, _: e.state.metrics.update(auc=score(e)))
    network, folder = torch.nn.Linear(1, 1), tempfile.mkdtemp(dir=".")
    if by_monai:
        names = {"key_metric_name": "auc", "key_metric_n_saved": kept}
        CheckpointSaver(folder, {"network": network}, name="log", save_key_metric=True, **names).attach(evaluator)
        EarlyStopHandler(patience, score, trainer).attach(evaluator)
    else:
        saver = DiskSaver(folder, require_empty=False)
        best = Checkpoint({"network": network}, saver, n_saved=kept, score_function=score, score_name="auc")
        evaluator.add_event_handler(Events.COMPLETED, best)
        evaluator.add_event_handler(Events.COMPLETED, EarlyStopping(patience, score, trainer))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0]))
    trainer.run([0], max_epochs=len(scores))
    left = sorted(file.stem.split("=")[1] for file in Path(folder).iterdir())
    print("MONAI," if by_monai else "ignite,", "-inf for nan:" if cure else "as it is:", scores, end=" ")
    print("kept", left, "after epoch", trainer.state.epoch)
    return left, trainer.state.epoch


first = [nan, 0.6, 0.7, 0.8]
second = [0.5, nan, 0.4, 0.6, 0.7, 0.8, 0.9]
falling = [0.8, 0.7, 0.6, nan, 0.5, 0.4, nan, 0.3, 0.2, nan, 0.1]
undefined = compute_roc_auc(torch.tensor([0.2, 0.7]), torch.tensor([0, 0]))
print("AUC without a patient who has the finding:", undefined)
same = [math.isnan(undefined)]
for by_monai in (False, True):
    same.append(train(first, 1, 9, by_monai) == (["nan"], 4))
    same.append(train(second, 3, 9, by_monai) == (["0.4000", "0.6000", "nan"], 7))
    same.append(train(falling, 1, 3, by_monai) == (["0.8000"], len(falling)))
    same.append(train(first, 1, 9, by_monai, cure=True) == (["0.8000"], 4))
    same.append(train(second, 3, 9, by_monai, cure=True) == (["0.7000", "0.8000", "0.9000"], 7))
    same.append(train(falling, 1, 3, by_monai, cure=True) == (["0.8000"], 4))
print(same)
sys.exit(not all(same))
PY
echo "as described"
