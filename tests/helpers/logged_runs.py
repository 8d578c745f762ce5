"""Logged runs, shared by several test files."""

import csv

from trainer_runs import make_run

from dira_monai.handlers.training_log import TrainingLog


def logged_run(folder, **options):
    def log(evaluator):
        return TrainingLog(f"{folder}/output", f"{folder}/models", evaluator, next_step="fine-tune it")

    return make_run(folder / "models", log=log, **options)


def rows_of(folder):
    with open(folder / "output" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
