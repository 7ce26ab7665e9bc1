"""What the image task reaches: `python -m tests.bench.image [digits] [fashion] [mlp] [many]`, all without a name.

Accuracies are those of the last step on images that were held out, never those of the best checkpoint; nothing is
chosen by them. Fashion-MNIST is measured on its own test images; fetch it with
`python -m trainers.datasets fashion-mnist`. Runs have two workers of one thread each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from typing import Any

from jobs.errors import HighwaterError
from jobs.rundir import Result
from jobs.spec import JobSpec
from jobs.specfile import load_spec, spec_from_json
from tests.bench import image_mlp
from tests.bench.common import exit_code
from tests.led import lead

FASHION: dict[str, Any] = {
    "task": "image",
    "data": {"source": "cache:fashion-mnist"},
    "model": {"kind": "convnet", "widths": [32, 64, 128]},
    "augment": {"flip": True, "shift": 0.05, "rotation": 0.0, "scale": 0.05, "border": "black"},
    "batch": 64,
    "workers": 2,
    "epochs": 5,
    "learning_rate": 8e-3,
    "optimizer": {"kind": "adamw", "weight_decay": 0.02},
}
MANY: dict[str, Any] = {
    "task": "image",
    "labels": "many",
    "data": {"factory": "tests.shapes:pictures", "options": {"count": 8000, "valid": 2000, "cells": 3}},
    "model": {"kind": "convnet", "widths": [32, 64, 64]},
    "batch": 32,
    "workers": 2,
    "epochs": 8,
    "learning_rate": 1e-2,
}


def trained(spec: JobSpec) -> tuple[Result, float]:
    """The result of a whole run in a temporary folder, and its seconds: data, fit, training, evaluation and report."""
    with tempfile.TemporaryDirectory(prefix="highwater-bench-") as folder:
        began = time.monotonic()
        result = lead(spec.model_copy(update={"storage": folder}), "bench")
        seconds = time.monotonic() - began
    if result is None or result.reason != "done":
        raise HighwaterError(result.message if result else "the run has no result")
    return result, seconds


def digits() -> bool:
    """The recipe `image`: at least 97 % of held-out digits in less than 90 seconds, fit included."""
    result, seconds = trained(load_spec("image"))
    accuracy = result.metrics["accuracy"]
    print(f"digits: {accuracy:.2%} of 359 held-out images, {seconds:.0f} s in all (goal 97 % in 90 s)")
    return accuracy >= 0.97 and seconds < 90


def fashion() -> bool:
    """A small convolutional network: at least 90 % of Fashion-MNIST's test images in at most ten minutes."""
    result, seconds = trained(spec_from_json(FASHION))
    accuracy = result.metrics["accuracy"]
    print(f"Fashion-MNIST: {accuracy:.2%} of 10,000 test images, {seconds:.0f} s in all (goal 90 % in 600 s)")
    return accuracy >= 0.90 and seconds <= 600


def many() -> bool:
    """Pictures with up to nine digits each: F1 of at least 0.9 for which of them are there."""
    result, seconds = trained(spec_from_json(MANY))
    f1, known = result.metrics["f1"], result.baseline["f1"]
    print(f"many labels: F1 {f1:.3f} on 2,000 held-out pictures (label frequencies alone {known:.3f}), {seconds:.0f} s")
    return f1 >= 0.9


def mlp() -> bool:
    """The plain network fits an arbitrary function better as it widens and deepens, and without activations never."""
    table = image_mlp.main()
    wider, deeper = table["relu", 64, 1] < table["relu", 4, 1], table["relu", 16, 3] < table["relu", 16, 1]
    return wider and deeper and table["none", 64, 3] > 0.5


PARTS = {"digits": digits, "many": many, "mlp": mlp, "fashion": fashion}


def main() -> int:
    """Run the parts that are asked for; 0 if all goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    met = [PARTS[part]() for part in asked]
    return exit_code(all(met))


if __name__ == "__main__":
    sys.exit(main())
