"""Fashion-MNIST from the Debian package dataset-fashion-mnist: 60,000 images to train on and 10,000 to test with.

`python -m trainers.datasets fashion-mnist` keeps them as `fashion-mnist.npz` in the cache, the test images last.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.disk import DiskStore
from jobs.errors import DataError

PACKAGE = "dataset-fashion-mnist"
PLACE = Path("/usr/share/datasets/fashion-mnist")
FILE = "fashion-mnist.npz"
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
UNSIGNED_BYTES = 8


def fetch(folder: Path) -> Path:
    """Convert the installed package's files to one in the folder; returns it.

    Raises DataError if the package is not installed, or its files are not those that they were.
    """
    names = list(SHA256)
    train_images, train_labels, test_images, test_labels = (idx(checked(PLACE / name)) for name in names)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=np.concatenate([train_images, test_images]),
        labels=np.concatenate([train_labels, test_labels]),
        classes=np.array(CLASSES),
        validation=np.array(len(test_labels)),
    )
    DiskStore(folder).put(FILE, buffer.getvalue())
    return folder / FILE


def checked(path: Path) -> bytes:
    """The content of a file of the package, unpacked; DataError unless it has the sha256 that it should."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; it comes with the Debian package {PACKAGE}: install it with `apt-get install "
            f"{PACKAGE}`, or copy {path.parent} from a machine that has it"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[path.name]:
        raise DataError(f"{path} has sha256 {found}, which is not Fashion-MNIST's; install {PACKAGE} again")
    return gzip.decompress(content)


def idx(content: bytes) -> NDArray[Any]:
    """An array of unsigned bytes in the idx format: two zeros, the type, the number of sizes, the sizes, the values."""
    zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
    if (zeros, kind) != (0, UNSIGNED_BYTES):
        raise DataError("a file of Fashion-MNIST is not in the idx format of unsigned bytes; install the package again")
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
