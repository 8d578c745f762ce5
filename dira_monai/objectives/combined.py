"""Several objectives as one: their weighted sum."""

from collections.abc import Mapping, Sequence, Sized
from typing import cast

import torch
from torch import Tensor, nn

from ..metrics import describe_collapse, rank_collapse
from ..utils.errors import InputError
from .objective import Objective, ObjectiveInputs


class CombinedObjective(Objective):
    """Weighted sum of objectives, each with its own heads and state.

    A metric of an objective carries the name of its class, as in ``moco_accuracy``; ``moco_loss`` is its loss before
    the weight. Of a class that occurs again, the second is ``moco2``. Each objective encodes further views by itself.
    The decoder sees the finer maps only if all objectives want that. Each is diagnosed by its own queries.

    Attributes:
        objectives: at least one; the first one's embeddings are the ones that validation compares.
        weights: as many, none negative.
    """

    def __init__(self, objectives: Sequence[Objective], weights: Sequence[float]) -> None:
        super().__init__()
        if len(objectives) == 0 or len(objectives) != len(weights):
            raise InputError(
                f"as many weights as objectives are needed, at least one, got {len(weights)} for {len(objectives)}"
            )
        if min(weights) < 0:
            raise InputError(f"weights must not be negative, got {list(weights)}")
        self.objectives = nn.ModuleList(objectives)
        self.weights = list(weights)
        self.names = _names(objectives)
        self.metrics = tuple(
            f"{name}_{metric}"
            for name, objective in zip(self.names, objectives, strict=True)
            for metric in ("loss", *objective.metrics)
        )
        self.skip_connections = all(objective.skip_connections for objective in objectives)
        self.needs_decoder = any(objective.needs_decoder for objective in objectives)
        self.resized_on_load = tuple(
            f"objectives.{i}.{name}"
            for i, objective in enumerate(objectives)
            for name in getattr(objective, "resized_on_load", ())
        )
        self.keys: list[list[Tensor]] = [[] for _ in objectives]  # of each, since the last optimizer step
        self.queries: list[Tensor | None] = [None] * len(objectives)  # of each, of the last batch of training

    @property
    def parts(self) -> list[Objective]:
        """The objectives."""
        return cast(list[Objective], list(self.objectives))

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Weighted sum of the losses of a batch; in training keys are kept for ``update``, queries for ``diagnose``.

        Returns:
            Each objective's loss and metrics under its name; ``query`` and ``key`` of the first, where it has them.
        """
        outputs: dict[str, Tensor] = {}
        total = torch.zeros([], device=inputs.deepest.device)
        for i, (name, objective) in enumerate(zip(self.names, self.parts, strict=True)):
            objective.progress = self.progress
            own = objective(inputs)
            total = total + self.weights[i] * own["loss"]
            outputs |= {f"{name}_{metric}": own[metric].detach() for metric in ("loss", *objective.metrics)}
            outputs |= {part: own[part] for part in ("query", "key") if i == 0 and part in own}
            if self.training:
                self.queries[i] = own["query"].detach() if "query" in own else None
                self.keys[i] += [own["key"].detach()] if "key" in own else []
        return outputs | {"loss": total}

    def fit_to(self, steps: int, dataset: Sized, batch: int) -> None:
        """Each objective's own choices."""
        for objective in self.parts:
            objective.fit_to(steps, dataset, batch)

    def momentum_at(self, progress: float) -> float:
        """Momentum of the first objective that has a following branch; 0 where there is none."""
        momenta = [objective.momentum_at(progress) for objective in self.parts]
        return next((momentum for momentum in momenta if momentum > 0), 0.0)

    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """Each objective's own update with its own keys, not with ``key``."""
        for objective, keys in zip(self.parts, self.keys, strict=True):
            objective.update(network, torch.cat(keys) if keys else None, progress)
            keys.clear()

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """The sentences of all objectives in one.

        Each gets the ``rank_collapse`` of its own queries of the last batch. Where they have collapsed and it finds
        nothing, a general sentence stands in its place.
        """
        sentences = []
        for name, objective, query in zip(self.names, self.parts, self.queries, strict=True):
            own = {f: metrics[f"{name}_{f}"] for f in objective.metrics if f"{name}_{f}" in metrics}
            own["collapse"] = float("nan") if query is None else rank_collapse(query)
            sentences.append(objective.diagnose(own) or describe_collapse(f"the embeddings of {name}", own["collapse"]))
        return "; ".join(sentence for sentence in sentences if sentence) or None


def _names(objectives: Sequence[Objective]) -> list[str]:
    """Class names in lower case, with a number from the second of a class on."""
    kinds = [type(objective).__name__.lower() for objective in objectives]
    places = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [kind if place == 1 else f"{kind}{place}" for kind, place in zip(kinds, places, strict=True)]
