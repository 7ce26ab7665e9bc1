"""The spec of a tabular model: its table, which columns it may use, how rows are split, its network and objective."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, PositiveInt, model_validator

from jobs import spec_checks
from jobs.spec import Fraction, JobSpec, Part, Share

HeldOut = Annotated[float, Field(gt=0, lt=1)]
"""A share of the rows that are held out: some, and not all."""


class TimeSplit(Part):
    """The last rows are held out, as they will be when the model is used: training ends before validation begins."""

    kind: Literal["time"] = "time"
    column: str
    """A column of dates, times or numbers; rows of the same time stay together."""
    validation_share: HeldOut = 0.2
    """Share of the rows that measure the model."""
    test_share: Fraction = 0.0
    """Share of the rows, the very last ones, that are looked at once, after training."""


class GroupSplit(Part):
    """Whole groups of rows are held out, so that the model is measured on customers or places that it never saw."""

    kind: Literal["group"] = "group"
    column: str
    """Rows with the same value are a group."""
    validation_share: HeldOut = 0.2
    """Share of the rows that measure the model; as near to it as whole groups allow."""
    test_share: Fraction = 0.0
    """Share of the rows that are looked at once, after training."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Which groups are held out; apart from the run's seed, so that other seeds are measured on the same rows."""


class RandomSplit(Part):
    """Rows are held out at random, of each class the same share. It flatters where rows of one day are alike."""

    kind: Literal["random"] = "random"
    validation_share: HeldOut = 0.2
    """Share of the rows that measure the model."""
    test_share: Fraction = 0.0
    """Share of the rows that are looked at once, after training."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Which rows are held out; apart from the run's seed, so that other seeds are measured on the same rows."""


class TabularData(Part):
    """The table, and what of it the model may use."""

    source: Annotated[str, AfterValidator(spec_checks.corpus)] | None = None
    """`bundled:flights`, `cache:flights`, a .csv or .parquet file, or a folder of them; local or s3://."""
    factory: Annotated[str, AfterValidator(spec_checks.factory)] | None = None
    """Instead of `source`, a function of your own: package.module:function, called with the options, returns a
    pyarrow.Table."""
    options: dict[str, JsonValue] = Field(default={})
    """The factory's keyword arguments."""
    target: str
    """The column to predict."""
    categorical: list[str] | None = None
    """Columns of categories; null takes all other columns of text or of few distinct whole numbers."""
    continuous: list[str] | None = None
    """Columns of numbers; null takes all other columns of numbers."""
    dates: list[str] = Field(default=[])
    """Columns of dates or times to use as their parts: year, days elapsed, season (a point on the circle of the
    year), month, day, day of the week and hour."""
    ignore: list[str] = Field(default=[])
    """Columns, or parts of dates, that are never used."""
    distinct_max: PositiveInt = 50
    """Whole numbers with at most so many distinct values are taken for categories, where that is not told."""
    min_count: PositiveInt = 3
    """Categories seen in fewer training rows share one embedding with those that were never seen."""
    mask_share: Fraction = 0.01
    """Share of the categories of each training batch that are hidden, so that this shared embedding learns."""
    missing_target_max: Share = 0.05
    """Rows without a target are dropped; more than this share of them is an error."""
    allow_late: bool = False
    """Whether columns may be used that the data set says are known too late to predict with."""
    split: TimeSplit | GroupSplit | RandomSplit = Field(default=RandomSplit(), discriminator="kind")
    """Which rows are held out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.factory is None):
            raise ValueError("give either source or factory, and not both")
        if self.options and self.factory is None:
            raise ValueError("options are for factory, and there is none; leave them out")
        return self

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        named = [self.target, *(self.categorical or []), *(self.continuous or []), *self.dates, *self.ignore]
        twice = [name for name, count in Counter(named).items() if count > 1]
        if twice:
            raise ValueError(
                f"{twice[0]} stands more than once in target, categorical, continuous, dates and ignore; keep one"
            )
        return self

    @model_validator(mode="after")
    def _leaves_rows(self) -> Self:
        if self.split.validation_share + self.split.test_share >= 1:
            raise ValueError("split.validation_share and split.test_share leave no row to train on; lower them")
        return self


class Regression(Part):
    """A number is predicted."""

    kind: Literal["regression"] = "regression"
    loss: Literal["mse", "mae", "huber"] = "mse"
    """What training lowers, on the target in units of its standard deviation."""
    log_target: bool = False
    """Learn the target's logarithm: right for amounts, where errors of so many percent are alike."""
    y_range: tuple[float, float] | None = Field(default=None, strict=False)
    """Predictions stay between these two; null does not bound them."""
    metric: Literal["rmse", "mae", "mape", "r2"] = "rmse"
    """What decides which checkpoint is best."""

    @model_validator(mode="after")
    def _range_has_room(self) -> Self:
        if self.y_range and self.y_range[0] >= self.y_range[1]:
            raise ValueError("y_range must begin below its end")
        if self.y_range and self.log_target and self.y_range[0] <= 0:
            raise ValueError("y_range must begin above 0, as log_target takes its logarithm")
        return self


class Classification(Part):
    """One of several classes is predicted."""

    kind: Literal["classification"] = "classification"
    metric: Literal["accuracy", "log_loss", "f1", "auc"] = "accuracy"
    """What decides which checkpoint is best; f1 is the mean over classes, auc is for two classes."""


class Mlp(Part):
    """Embeddings of the categories beside the numbers, then fully connected layers (Guo & Berkhahn 2016)."""

    kind: Literal["mlp"] = "mlp"
    layers: list[PositiveInt] = Field(default=[200, 100])
    """Widths of the layers between the columns and the output."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Non-linearity of each layer."""
    embeddings: dict[str, PositiveInt] = Field(default={})
    """Width of a column's embedding; the others are min(600, round(1.6 n^0.56)) wide for n categories."""
    dropout_embedding: Fraction = 0.0
    """Dropout on the embedded categories."""
    dropout: Fraction = 0.0
    """Dropout after each layer."""
    batch_norm: Literal["train", "frozen", "off"] = "train"
    """Batch normalisation of the numbers and after each layer; `frozen` uses its statistics and never changes them."""


class CustomTabular(Part):
    """A network of your own."""

    kind: Literal["custom"]
    factory: Annotated[str, AfterValidator(spec_checks.factory)]
    """package.module:function, called as function(cardinalities, continuous, outputs, **options); gives a module that
    takes codes (int64 [rows, columns]) and values (float32 [rows, columns]) and returns [rows, outputs]."""
    options: dict[str, JsonValue] = Field(default={})
    """The factory's keyword arguments."""


class TabularSpec(JobSpec):
    """A model of a table's rows."""

    task: Literal["tabular"]
    data: TabularData
    """The table and its columns."""
    model: Mlp | CustomTabular = Field(discriminator="kind")
    """The network; `kind` picks which."""
    objective: Regression | Classification = Field(discriminator="kind")
    """What is predicted, and how well that is done; `kind` picks whether a number or a class."""
