"""The spec of an image model: its pictures, its network, how pictures are varied in training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from jobs import spec_checks
from jobs.spec import Fraction, JobSpec, Part, Share, aside


class ImageData(Part):
    """The pictures and their labels. Give either source or factory."""

    source: Annotated[str, AfterValidator(spec_checks.corpus)] | None = None
    """`bundled:digits`, `cache:fashion-mnist`, a folder (CLASS/*.png, or train/ and valid/ with such folders), or a
    .parquet file; local or s3://."""
    factory: Annotated[str, AfterValidator(spec_checks.factory)] | None = None
    """`package.module:function` of your own, called with the options. It returns a dictionary: `images` (uint8
    [n, height, width] or [n, channels, height, width]), `labels` (integers [n], or 0 and 1 [n, labels]), `classes`
    (names) and perhaps `valid`, a dictionary with images and labels."""
    options: dict[str, JsonValue] = Field(default={})
    """The factory's keyword arguments."""
    image_column: str = Field(default="image", min_length=1)
    """Column of a Parquet file with encoded images, or with as many numbers from 0 to 255 as an image has."""
    label_column: str = Field(default="label", min_length=1)
    """Column of a Parquet file with a label, or a list of labels, for each image."""
    size: PositiveInt | None = None
    """Side in pixels of the square that each image is cut and scaled to; null takes square images as they are."""
    channels: Literal[1, 3] | None = None
    """1 is grey, 3 is colour; null takes what the first image has."""
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of each class held out for validation, where the source has no validation part of its own."""
    split_seed: NonNegativeInt = 0
    """Seed of that choice; a field of its own, so that runs with other seeds are measured on the same images."""
    unreadable_max: NonNegativeInt = 10
    """So many images that cannot be read are skipped and named; one more ends the run."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.factory is None):
            raise ValueError("data needs either source or factory, and not both")
        if self.options and self.factory is None:
            raise ValueError("data.options are handed to data.factory, and there is none; leave them out")
        return self


class Mlp(Part):
    """Linear layers over the image's pixels."""

    kind: Literal["mlp"] = "mlp"
    widths: list[PositiveInt] = Field(default=[256, 128])
    """Width of each hidden layer; an empty list is a linear model."""
    activation: Literal["relu", "gelu", "none"] = "relu"
    """What stands between layers; `none` makes any depth a linear model."""
    dropout: Fraction = 0.0
    """Dropout after each hidden layer."""


class ConvNet(Part):
    """A small convolutional network: blocks of convolution, batch norm, ReLU and pooling."""

    kind: Literal["convnet"] = "convnet"
    widths: list[PositiveInt] = Field(default=[32, 64, 128], min_length=1)
    """Channels of each block; after each the sides are halved, as long as they have four pixels."""
    convolutions: PositiveInt = 1
    """Convolutions (3 x 3, each with batch norm and ReLU) of a block."""
    dropout: Fraction = 0.1
    """Dropout before the output layer."""


class ResNet(Part):
    """A residual network of torchvision with a head for transfer."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50] = 18
    """Layers: resnet18, resnet34 or resnet50."""
    weights: Annotated[str, AfterValidator(spec_checks.place)] | None = None
    """File or s3:// URI with the state_dict of torchvision's network of this depth; null begins at random weights."""
    stem: Literal["standard", "small"] = "standard"
    """`small` is one 3 x 3 convolution that keeps the size, for images below about 64 pixels; torchvision's own weights
    belong to `standard`."""
    head: PositiveInt = 512
    """Width of the head's hidden layer."""
    dropout: tuple[Fraction, Fraction] = Field(default=(0.25, 0.5), strict=False)
    """Dropout before the head's hidden layer, and before its output layer."""


class CustomNet(Part):
    """A network of your own."""

    kind: Literal["custom"] = "custom"
    factory: Annotated[str, AfterValidator(spec_checks.factory)]
    """`package.module:function`, called as function(channels, size, outputs, **options); it returns a module that maps
    images (floats [rows, channels, size, size], about 0 on average) to logits [rows, outputs]."""
    options: dict[str, JsonValue] = Field(default={})
    """The factory's keyword arguments."""


class Augment(Part):
    """Random changes to each training image, drawn anew each time it is met."""

    flip: bool = False
    """Mirror every other image, left to right; wrong for digits and letters."""
    shift: Share = 0.1
    """Move by at most this share of the side, in each direction."""
    rotation: float = Field(default=10.0, ge=0, le=180)
    """Turn by at most this many degrees, either way."""
    scale: Fraction = 0.1
    """Enlarge or shrink by at most this share."""
    brightness: Fraction = 0.0
    """Add at most this much, either way, to pixels that go from 0 to 1."""
    contrast: Fraction = 0.0
    """Stretch or squeeze the distance of pixels from the image's mean by at most this share."""
    cutout: Fraction = 0.0
    """Side of a square that is blanked out at a random place, as a share of the image's (DeVries & Taylor 2017)."""
    border: Literal["reflection", "edge", "black"] = "reflection"
    """What is seen beyond the image's borders."""


class ImageSpec(JobSpec):
    """An image model."""

    task: Literal["image"]
    data: ImageData
    """The pictures and their labels."""
    model: Mlp | ConvNet | ResNet | CustomNet = Field(discriminator="kind")
    """The network; `kind` picks which."""
    labels: Literal["one", "many"] = "one"
    """Whether an image has exactly one label (softmax), or any number of them (a sigmoid for each)."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread over all classes."""
    metric: Literal["accuracy", "f1"] | None = None
    """What decides which checkpoint is best; null is accuracy for one label, and f1 (mean over labels) for many."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` uses batch normalisation's running statistics and leaves them as they are."""
    augment: Augment | None = None
    """How training images are varied; null shows them as they are."""
    resident_mib: NonNegativeFloat = aside(2048.0)
    """A data set of at most this size is held on the device; of a larger one, batches are read from the disk."""

    @model_validator(mode="after")
    def _accuracy_is_for_one(self) -> Self:
        if self.labels == "many" and self.metric == "accuracy":
            raise ValueError("metric accuracy is for images with one label; set metric to f1, or leave it out")
        return self
