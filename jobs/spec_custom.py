"""The spec of a model and data of the user's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from jobs import spec_checks
from jobs.spec import JobSpec, Part

Options = dict[str, JsonValue]


class OwnData(Part):
    """The function that makes the training and the validation set."""

    factory: Annotated[str, AfterValidator(spec_checks.factory)]
    """`package.module:function`; it returns the training and the validation set. CONTRIBUTING.md has an example."""
    options: Options = Field(default={})
    """What the function is called with, as keyword arguments."""


class OwnModel(Part):
    """The function that makes the network."""

    factory: Annotated[str, AfterValidator(spec_checks.factory)]
    """`package.module:function`; it returns a module whose forward(batch) gives a dict of `loss` and metrics."""
    options: Options = Field(default={})
    """What the function is called with, as keyword arguments."""


class CustomSpec(JobSpec):
    """A model of your own, on data of your own."""

    task: Literal["custom"]
    data: OwnData
    """Where the training and the validation set come from."""
    model: OwnModel
    """Where the network comes from."""
    metric: str = "loss"
    """The metric that decides which checkpoint is best: `loss`, or another that the network's forward gives."""
    goal: Literal["min", "max"] = "min"
    """Whether less of the metric is better, or more."""
