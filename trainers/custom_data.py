"""Training and validation sets of the user's own: kept as arrays if they are tensors, read row by row if not."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import TensorDataset, default_collate

from jobs.errors import DataError
from trainers.rows import home, mixed

Tree = Any
"""A tensor, or dicts, tuples and lists of them, one in another."""


@dataclass(frozen=True)
class Tensors:
    """A set whose rows are those of tensors; a batch of it is gathered where they lie."""

    tree: Tree
    device: torch.device

    def __len__(self) -> int:
        return len(tree_leaves(self.tree)[0])

    def rows(self, indices: Tensor, seed: int) -> Tree:  # noqa: ARG002 - nothing is drawn
        """The rows with these numbers, on the device, in the shape of the set."""
        places: dict[torch.device, Tensor] = {}

        def gathered(tensor: Tensor) -> Tensor:
            where = places.setdefault(tensor.device, indices.to(tensor.device))
            return tensor.index_select(0, where).to(self.device)

        return tree_map(gathered, self.tree)


@dataclass(frozen=True)
class Read:
    """A map-style data set: a batch is its rows, collated on the host and moved to the device.

    What a row draws from Python's, NumPy's and torch's generators is a function of its number and of the seed that
    comes with the batch, so that no other row and no number of workers changes it; the generators stay as they were.
    """

    dataset: Any
    device: torch.device

    def __len__(self) -> int:
        return len(self.dataset)

    def rows(self, indices: Tensor, seed: int) -> Tree:
        """The rows with these numbers, on the device, as `default_collate` puts them together."""
        with _generators_kept():
            batch = default_collate([self._row(index, seed) for index in indices.tolist()])
        return tree_map(lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf, batch)

    def _row(self, index: int, seed: int) -> Any:  # noqa: ANN401 - the user's own type
        own = mixed(seed, index)
        random.seed(own)
        np.random.seed(own % 2**32)
        torch.default_generator.manual_seed(own)
        return self.dataset[index]


@dataclass(frozen=True)
class Shapes:
    """A set of which only the shapes count: rows without memory, all like the one in `tree`."""

    tree: Tree
    count: int

    def __len__(self) -> int:
        return self.count

    def rows(self, indices: Tensor, seed: int) -> Tree:  # noqa: ARG002 - nothing is drawn
        """So many rows, on the device `meta`."""

        def repeated(leaf: Tensor) -> Tensor:
            return torch.empty((len(indices), *leaf.shape[1:]), dtype=leaf.dtype, device="meta")

        return tree_map(repeated, self.tree)


Rows = Tensors | Read | Shapes


def is_tensors(value: object) -> bool:
    """Whether a set is made of tensors or arrays, and not a data set of rows."""
    return isinstance(value, dict | tuple | list | Tensor | np.ndarray | TensorDataset)


def as_tree(value: Any, name: str) -> Tree:  # noqa: ANN401 - what a user's function returned
    """A set of tensors or arrays as tensors on the host. DataError unless all have the same number of rows, not 0."""
    value = value.tensors if isinstance(value, TensorDataset) else value
    tree = _map(value, lambda leaf, place: _tensor(leaf, name + place))
    sizes = {place: len(leaf) for place, leaf in leaves(tree)}
    if not sizes:
        raise DataError(f"data.factory: the {name} set holds no tensor; give a dict or a tuple of tensors")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}{place} has {rows:,}" for place, rows in sizes.items())
        raise DataError(f"data.factory: the tensors of the {name} set differ in rows ({listed}); rows are dim 0")
    return tree


def leaves(tree: Tree) -> list[tuple[str, Tensor]]:
    """The tensors of a tree, and where in it they stand, such as `["image"]`."""
    found: list[tuple[str, Tensor]] = []
    _map(tree, lambda leaf, place: found.append((place, leaf)))
    return found


def write(tree: Tree, out: Path, name: str) -> Any:  # noqa: ANN401 - JSON
    """Write each tensor as `NAME-NUMBER.npy`; what `read` needs to put them together again, as JSON."""
    numbers = iter(range(len(tree_leaves(tree))))

    def written(leaf: Tensor, place: str) -> dict[str, str]:  # noqa: ARG001 - what `_map` calls
        file = f"{name}-{next(numbers)}.npy"
        kept = leaf.view(torch.int16) if leaf.dtype == torch.bfloat16 else leaf  # NumPy has no bfloat16.
        np.save(out / file, kept.numpy(), allow_pickle=False)
        return {"file": file, "dtype": str(leaf.dtype).removeprefix("torch.")}

    return _described(tree, written)


def read(described: Any, data: Path) -> Tree:  # noqa: ANN401 - JSON
    """What `write` wrote, as tensors over the files: their bytes are read when they are used."""
    if "file" in described:
        array = np.load(data / described["file"], mmap_mode="r", allow_pickle=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of arrays that cannot be written: nobody writes into a set.
            tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if described["dtype"] == "bfloat16" else tensor
    if "dict" in described:
        return {key: read(value, data) for key, value in described["dict"].items()}
    items = [read(value, data) for value in described["items"]]
    return tuple(items) if described["tuple"] else items


def placed(tree: Tree, device: torch.device) -> Tree:
    """The tensors where batches of them are gathered: on the device if they fit there well, else on the host."""
    place = home(device, sum(leaf.nbytes for leaf in tree_leaves(tree)))
    return tree_map(lambda leaf: leaf.to(place), tree)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Leave the host's generators as they were: dropout draws from torch's on a CPU. CUDA's is not touched."""
    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)


def _map(value: Any, function: Callable[[Any, str], Any], place: str = "") -> Any:  # noqa: ANN401
    """The same nesting with another leaf in place of each; `place` is where the leaf stands."""
    if isinstance(value, dict):
        return {key: _map(item, function, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_map(item, function, f"{place}[{number}]") for number, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return function(value, place)


def _described(tree: Tree, function: Callable[[Tensor, str], dict[str, str]]) -> dict[str, Any]:
    if isinstance(tree, dict):
        return {"dict": {key: _described(item, function) for key, item in tree.items()}}
    if isinstance(tree, tuple | list):
        return {"items": [_described(item, function) for item in tree], "tuple": isinstance(tree, tuple)}
    return function(tree, "")


def _tensor(leaf: object, place: str) -> Tensor:
    if isinstance(leaf, np.ndarray) and leaf.dtype != object:
        leaf = torch.from_numpy(np.ascontiguousarray(leaf))
    if not isinstance(leaf, Tensor):
        kind = type(leaf).__name__
        raise DataError(
            f"data.factory: {place} is of type {kind}, and not a tensor; a set is tensors, or a Dataset whose rows are"
        )
    if leaf.ndim == 0 or len(leaf) == 0:
        raise DataError(f"data.factory: {place} has no rows; rows are dim 0 of every tensor")
    return leaf.detach().cpu().contiguous()
