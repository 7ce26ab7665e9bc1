"""A model and data of the user's own as a task. CONTRIBUTING.md says what the two functions give."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jobs.errors import DataError, HighwaterError, Reason
from jobs.spec import AUTO
from jobs.spec_custom import CustomSpec
from trainers import random_state, rows
from trainers.custom_data import Read, Rows, Shapes, Tensors, as_tree, is_tensors, leaves, placed, read, write
from trainers.custom_model import grouped, own_model, scalars, with_metric
from trainers.factories import call
from trainers.task import Carry, Loss, Shard

FACTS = "custom.json"
TRIED = 256
"""Rows of the validation set on which the network is tried before anything is trained."""
TRIED_AT_ONCE = 32
SETS = ("training", "validation")


def prepare(spec: CustomSpec, out: Path) -> dict[str, Any]:
    """Make both sets, try the network on them, and write what ranks need into `out`; return the facts.

    Sets of tensors are written as arrays, so that the run keeps its data whatever happens to the function. The network
    is tried only if it is to be trained on a CPU: code for a GPU may not run here. Raises SpecError and DataError with
    one sentence, and whatever the user's own functions raise.
    """
    sets = made(spec)
    facts: dict[str, Any] = {"source": spec.data.factory}
    trees = {name: as_tree(value, name) for name, value in zip(SETS, sets, strict=True) if is_tensors(value)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        facts["tensors"] = {name: write(tree, out, name) for name, tree in trees.items()}
    except OSError as error:
        raise DataError(f"prepared data cannot be written to {out} ({error.strerror}); check space") from error
    cpu = torch.device("cpu")
    known = [_rows(trees.get(name, value), cpu) for name, value in zip(SETS, sets, strict=True)]
    facts |= {f"{name}_rows": len(part) for name, part in zip(SETS, known, strict=True)}
    for name, part in zip(SETS, known, strict=True):
        if len(part) == 0:
            raise DataError(f"data.factory {spec.data.factory} gives a {name} set of no rows")
    rows.Order(len(known[0]), spec.seed, Shard(0, spec.workers, _least(spec), spec.accumulation, cpu))
    one = known[0].rows(torch.zeros(1, dtype=torch.long), spec.seed)
    facts |= {"training_units": len(known[0]), "unit": CustomTask.unit, "columns": _described(one)}
    facts["row"] = write(as_tree(one, "training"), out, "row")
    if spec.resources.gpus_per_worker == 0:
        facts |= _tried(spec, known[0], known[1])
    (out / FACTS).write_text(json.dumps(facts, indent=1))
    return facts | {"message": message(facts)}


def load(spec: CustomSpec, data: Path, shard: Shard) -> CustomTask:
    """The task over prepared data, as one rank sees it."""
    return CustomTask(spec, data, shard)


def made(spec: CustomSpec) -> tuple[Any, Any]:
    """The training and the validation set as the user's function returns them, drawn from the spec's seed."""
    random_state.seed_all(spec.seed)
    sets = call(spec.data.factory, "data", spec.data.options)
    if not isinstance(sets, tuple | list) or len(sets) != 2:
        raise DataError(
            f"data.factory {spec.data.factory} returned {_kind(sets)} instead of two sets; "
            "return (training, validation)"
        )
    for name, value in zip(SETS, sets, strict=True):
        if not is_tensors(value) and not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
            raise DataError(
                f"data.factory {spec.data.factory} gives a {name} set of type {type(value).__name__}; give tensors, "
                "or a Dataset with __len__ and __getitem__"
            )
    return sets[0], sets[1]


def message(facts: dict[str, Any]) -> str:
    """What there is to learn from, in one sentence."""
    return (
        f"{facts['source']}: {facts['training_rows']:,} training and {facts['validation_rows']:,} validation rows of "
        f"{facts['columns']}"
    )


class CustomTask(rows.RowTask):
    """Rows of the user's sets, in random order, through the user's network."""

    unit = "rows"

    def __init__(self, spec: CustomSpec, data: Path, shard: Shard) -> None:
        self.spec, self.shard, self._data = spec, shard, data
        self.metric: str = spec.metric
        self.goal: Literal["min", "max"] = spec.goal
        self._facts = json.loads((data / FACTS).read_text())
        self._trees = {name: read(described, data) for name, described in self._facts["tensors"].items()}
        self.order = rows.Order(self._facts["training_rows"], spec.seed, shard)
        self._training, self._validation = (self._rows(name) for name in SETS)
        self._names: tuple[str, ...] = ()

    def model(self) -> nn.Module:
        """What the user's function returns, on the shard's device."""
        return own_model(self.spec.model, lambda: self._own["training"]).to(self.shard.device)

    def groups(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """The model's `layer_groups()`; one group of all parameters if it has no such method."""
        return grouped(model)

    def loss(self, model: nn.Module, batch: Any, carry: Carry) -> Loss:  # noqa: ANN401, ARG002 - the user's own type
        """The model's `loss`: the mean over the rows of the batch."""
        total = scalars(model(batch), self.spec.model.factory)["loss"]
        return Loss(total, total.detach().float())

    def evaluate(self, model: nn.Module) -> Tensor:
        """This rank's sums of each metric, weighted by rows, and its number of rows."""
        parts = list(rows.evaluated(len(self._validation), self.shard))
        # A rank without rows must know the metrics' names all the same: it takes a row that does not count.
        counted = [(part, part.stop - part.start) for part in parts] or [(slice(0, 1), 0)]
        total: Tensor | None = None
        self._names = ()
        for part, weight in counted:
            given = self._measured(model, part)
            shares = torch.stack([value.detach().double() for value in given.values()])
            sums = torch.cat([shares * weight, shares.new_tensor([weight])])
            total = sums if total is None else total + sums
        if total is None:
            raise DataError("the validation set has no rows")
        return total

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """The mean of each metric over rows."""
        *totals, count = sums.tolist()
        return {name: total / count for name, total in zip(self._names, totals, strict=True)}

    def examples(self, model: nn.Module) -> dict[str, Any]:
        """What the model's `examples(batches)` says of the validation set; nothing if it has no such method."""
        method = getattr(model, "examples", None)
        if method is None:
            return {}
        was_training = model.training
        model.eval()
        everything = rows.evaluated(len(self._validation), self.shard.alone)
        with torch.no_grad():
            found: dict[str, Any] = method(self._evaluated(part) for part in everything)
        model.train(was_training)
        return found

    @cached_property
    def _own(self) -> dict[str, Any]:
        """The sets as the user's function gives them; it is not called again for sets of tensors."""
        if len(self._trees) == len(SETS):
            return self._trees
        return dict(zip(SETS, made(self.spec), strict=True)) | self._trees

    def _rows(self, name: str) -> Rows:
        device, known = self.shard.device, self._facts[f"{name}_rows"]
        if device.type == "meta":
            return Shapes(read(self._facts["row"], self._data), known)
        if name in self._trees:
            return Tensors(placed(self._trees[name], device), device)
        if len(self._own[name]) != known:
            raise DataError(
                f"data.factory {self.spec.data.factory} gave {known:,} {name} rows when the run began, and gives "
                f"{len(self._own[name]):,} now; a run keeps its data: use another name, or the data as it was"
            )
        return Read(self._own[name], device)

    def _measured(self, model: nn.Module, part: slice) -> dict[str, Tensor]:
        """The model's metrics on these rows of the validation set; they must be the same ones for all rows."""
        name = self.spec.model.factory
        given = with_metric(scalars(model(self._evaluated(part)), name), self.metric, name)
        self._names = self._names or tuple(given)
        if tuple(given) != self._names:
            known = ", ".join(self._names)
            raise HighwaterError(
                f"{name}: forward gives {', '.join(given)} for some batches and {known} for others", Reason.USER_CODE
            )
        return given

    def micro(self, epoch: int, step: int, micro: int) -> Any:  # noqa: ANN401 - the user's own type
        """This rank's batch of a micro-step."""
        return self._training.rows(self.order.indices(epoch, step, micro), rows.mixed(self.spec.seed, epoch))

    def _evaluated(self, part: slice) -> Any:  # noqa: ANN401 - the user's own type
        return self._validation.rows(torch.arange(part.start, part.stop), rows.mixed(self.spec.seed))


def _rows(value: Any, device: torch.device) -> Rows:  # noqa: ANN401 - a tree of tensors or a data set
    return Tensors(value, device) if is_tensors(value) else Read(value, device)


def _least(spec: CustomSpec) -> int:
    """The smallest batch that the spec allows."""
    return 1 if spec.batch == AUTO else spec.batch


def _tried(spec: CustomSpec, training: Rows, validation: Rows) -> dict[str, Any]:
    """What the network says before training, as a baseline; SpecError for a network that cannot be trained."""
    random_state.seed_all(spec.seed)
    own = training.dataset if isinstance(training, Read) else training.tree
    model, name = own_model(spec.model, lambda: own), spec.model.factory
    grouped(model)
    first = scalars(model.train()(training.rows(torch.arange(min(8, len(training))), 0)), name)
    if not first["loss"].requires_grad:
        raise DataError(f"model.factory {name}: the loss does not depend on any parameter that is trained")
    count = min(TRIED, len(validation))
    chosen = torch.linspace(0, len(validation) - 1, count).long()
    sums: dict[str, float] = {}
    model.eval()
    with torch.no_grad():
        for part in torch.split(chosen, TRIED_AT_ONCE):
            given = with_metric(scalars(model(validation.rows(part, 0)), name), spec.metric, name)
            for key, value in given.items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(part)
    baseline = {key: total / count for key, total in sums.items() if math.isfinite(total)}
    of = f" on {count:,} of the validation rows" if count < len(validation) else ""
    return {"baseline": baseline, "baseline_name": f"the same model before training{of}"}


def _described(one: Any) -> str:  # noqa: ANN401 - a batch of the user's own type
    """The tensors of one row, such as `image float32 3 x 32 x 32 and label int64`."""
    words = []
    for place, leaf in leaves(one):
        if isinstance(leaf, Tensor):
            shape = " x ".join(map(str, leaf.shape[1:]))
            words.append(" ".join(filter(None, [place.strip("[]'"), str(leaf.dtype).removeprefix("torch."), shape])))
    return ", ".join(words[:-1]) + (" and " if words[:-1] else "") + "".join(words[-1:])


def _kind(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else f"a value of type {type(value).__name__}"
