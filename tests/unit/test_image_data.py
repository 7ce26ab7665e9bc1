"""Where images come from: every source, the split, and what is wrong with one told in a sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.disk import DiskStore
from jobs.errors import DataError, HighwaterError
from jobs.spec_image import ImageData
from trainers import datasets, fashion
from trainers.images.decode import Form
from trainers.images.pictures import Pictures
from trainers.images.read import pictures
from trainers.images.split import stratified

DRAW = np.random.default_rng(0)


def png(shade: int = 100, size: tuple[int, int] = (6, 6), mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, shade if mode == "L" else (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, **classes: int) -> Path:
    """A folder with so many images of each class; `train__cat` is the folder train/cat."""
    for name, count in classes.items():
        place = root / name.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / f"{number:03d}.png").write_bytes(png(number % 250))
    return root


def read(source: Path | str, many: bool = False, **data: Any) -> Pictures:
    place = Path("/tmp") if not isinstance(source, Path) else source.parent
    images = place / f"images-{DRAW.integers(1 << 40)}.npy"
    section = {"source": str(source)} if "factory" not in data else {}
    return pictures(ImageData(**(section | data)), many, None, images)[0]


def refusal(source: Path | str, many: bool = False, **data: Any) -> str:
    with pytest.raises(HighwaterError) as caught:
        read(source, many, **data)
    assert "\n" not in caught.value.message
    return caught.value.message


# Sources


def test_the_bundled_digits() -> None:
    found = read("bundled:digits")
    assert found.images.shape == (1797, 1, 8, 8)
    assert found.images.max() == 255
    assert found.classes == tuple("0123456789")
    assert found.validation is not None
    assert (len(found.training), len(found.validation)) == (1438, 359)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", cat=12, dog=8)
    (root / "cat" / "._000.png").write_bytes(b"of macOS")
    (root / "cat" / "notes.txt").write_text("none of the images")
    found = read(root)
    assert found.images.shape == (20, 1, 6, 6)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0] * 12 + [1] * 8
    assert found.validation is not None
    assert np.bincount(found.labels[found.validation]).tolist() == [2, 2]
    assert found.images[3, 0, 0, 0] == 3


def test_a_folder_with_parts_of_its_own(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", train__cat=3, train__dog=4, valid__dog=2, test__fox=9)
    found = read(root)
    assert found.validation is not None
    assert found.classes == ("cat", "dog")
    assert found.labels[found.training].tolist() == [0] * 3 + [1] * 4
    assert found.labels[found.validation].tolist() == [1, 1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert read(folder(tmp_path / "set", train=5, plane=5)).classes == ("plane", "train")


def test_a_folder_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "bucket" / "deep", cat=5, dog=5)

    def open_store(uri: str, endpoint: str | None = None) -> DiskStore:
        return DiskStore(tmp_path / uri.removeprefix("s3://"))

    monkeypatch.setattr("trainers.images.folder.open_store", open_store)
    found = pictures(ImageData(source="s3://bucket/deep"), False, None, tmp_path / "images.npy")[0]
    assert found.classes == ("cat", "dog")


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_with_encoded_images(tmp_path: Path) -> None:
    images = [png(10 * n) for n in range(10)]
    for name, column in (
        ("bytes", pa.array(images)),
        ("struct", pa.array([{"bytes": one, "path": "x"} for one in images])),
    ):
        path = table(tmp_path / f"{name}.parquet", picture=column, kind=["a", "b"] * 5)
        found = read(path, image_column="picture", label_column="kind")
        assert found.images.shape == (10, 1, 6, 6)
        assert found.images[7, 0, 0, 0] == 70
        assert (found.classes, found.labels.tolist()) == (("a", "b"), [0, 1] * 5)


def test_parquet_with_numbers_and_with_many_labels(tmp_path: Path) -> None:
    pixels = DRAW.integers(0, 256, (8, 27)).astype(np.uint8)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 27)
    path = table(tmp_path / "x.parquet", image=lists, label=[[3, 5], [], [5], [3]] * 2)
    found = read(path, many=True)
    assert found.images.shape == (8, 3, 3, 3)
    assert found.images[2].transpose(1, 2, 0).ravel().tolist() == pixels[2].tolist()
    assert found.classes == ("3", "5")
    assert found.labels[:3].tolist() == [[1, 1], [0, 0], [0, 1]]


def made(**options: str) -> Any:
    """What the tests' data factories return: good arrays, changed by the options."""
    good = {"images": np.zeros((12, 5, 5), np.uint8), "labels": np.arange(12) % 3, "classes": ["a", "b", "c"]}
    for key, change in options.items():
        good[key] = {
            "float": lambda: np.full((12, 5, 5), np.nan),
            "nan": lambda: np.array([np.nan] * 12),
            "short": lambda: np.arange(11) % 3,
            "high": lambda: np.arange(12),
            "many": lambda: np.eye(12, 3, dtype=np.uint8),
            "two": lambda: ["a", "b"],
            "valid": lambda: {"images": np.ones((2, 5, 5), np.uint8), "labels": [0, 1]},
            "other": lambda: {"images": np.ones((2, 4, 4), np.uint8), "labels": [0, 1]},
        }[change]()
    return good


FACTORY = f"{__name__}:made"


def test_a_function_of_ones_own() -> None:
    found = read("", factory=FACTORY, options={"valid": "valid"})
    assert found.images.shape == (14, 1, 5, 5)
    assert found.validation is not None
    assert (found.validation.tolist(), found.labels[12:].tolist()) == ([12, 13], [0, 1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": "float"}, "is float64 of shape [12, 5, 5], but must be uint8"),
        ({"labels": "nan"}, "has 12 values that are no numbers (NaN)"),
        ({"labels": "short"}, "of shape [11] for 12 images"),
        ({"labels": "high"}, "go from 0 to 11, but must be from 0 to 2"),
        ({"labels": "many"}, "has a list of labels for each image"),
        ({"classes": "two"}, "go from 0 to 2, but must be from 0 to 1"),
        ({"valid": "other"}, "of another shape than those for training"),
    ],
)
def test_what_a_function_gives_is_checked(options: dict[str, Any], said: str) -> None:
    assert said in refusal("", factory=FACTORY, options=options)


# Decoding


def test_images_are_cut_to_squares_and_brought_to_one_kind() -> None:
    wide = Image.new("RGB", (12, 4), (255, 0, 0))
    wide.paste((0, 0, 255), (4, 0, 8, 4))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    found = Form(size=4).of(buffer.getvalue())
    assert found[:, 1, 1].tolist() == [0, 0, 255]
    assert Form(size=8, channels=1).of(buffer.getvalue()).shape == (1, 8, 8)
    assert Form(channels=3).of_array(found[:1]).shape == (3, 4, 4)


def test_sixteen_bits_become_eight() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(buffer, "PNG")
    assert Form().of(buffer.getvalue())[0, 0, 0] == 40_000 >> 8


# What is wrong


def test_an_unreadable_image_is_named_and_skipped_up_to_a_limit(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", cat=8, dog=8)
    (root / "cat" / "000.png").write_bytes(b"")
    (root / "dog" / "004.png").write_bytes(png()[:40])
    found = read(root, unreadable_max=2)
    assert found.unreadable == ("cat/000.png", "dog/004.png")
    assert found.validation is not None
    used = np.concatenate([found.training, found.validation])
    assert sorted(used.tolist()) == [n for n in range(16) if n not in (0, 12)]
    said = refusal(root, unreadable_max=1)
    assert "'cat/000.png', 'dog/004.png'" in said
    assert "data.unreadable_max 1" in said
    for path in root.rglob("*.png"):
        path.write_bytes(b"no")
    assert "has no image that can be read" in refusal(root, unreadable_max=99)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({}, "has no images; data.source must have CLASS/*.png"),
        ({"cat": 9}, "are of one class, 'cat'"),
        ({"train__cat": 3, "train__dog": 3, "valid__fox": 1, "valid__cat": 1}, "not in training: 'fox'"),
        ({"train__a": 2, "train__b": 2, "val__a": 2, "valid__a": 2}, "has both val and valid"),
        ({"a": 1, "b": 1}, "leaves no images for validation"),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, classes: dict[str, int], said: str) -> None:
    (tmp_path / "set").mkdir()
    assert said in refusal(folder(tmp_path / "set", **classes))


def test_folders_with_images_of_another_kind(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", cat=5, dog=5)
    assert "labels are many" in refusal(root, many=True)
    (root / "dog" / "x.png").write_bytes(png(size=(9, 6)))
    assert "several sizes (cat/000.png 6 x 6, dog/x.png 6 x 9); give data.size" in refusal(root)
    assert read(root, size=4).images.shape[1:] == (1, 4, 4)
    (root / "x.png").write_bytes(png())
    assert "x.png in no folder of a class" in refusal(root)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    flat = folder(tmp_path / "flat", a=3, b=3)
    for path in flat.rglob("*.png"):
        path.write_bytes(png(size=(4, 6)))
    assert "6 x 4 and not square; give data.size" in refusal(flat)


def test_parquet_files_that_cannot_be_read(tmp_path: Path) -> None:
    images = [png()] * 4
    assert "does not exist" in refusal(tmp_path / "no.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read as Parquet" in refusal(tmp_path / "torn.parquet")
    good = table(tmp_path / "x.parquet", image=images, label=[0, 1, 0, 1])
    assert "did you mean 'image'?" in refusal(good, image_column="imag")
    assert "it has image, label" in refusal(good, label_column="target")
    holes = table(tmp_path / "h.parquet", image=images, label=[0, None, 0, 1])
    assert "no label in 1 of 4 rows" in refusal(holes)
    nan = table(tmp_path / "n.parquet", image=images, label=[0.0, float("nan"), 0.0, 1.0])
    assert "of type double; labels must be integers or texts" in refusal(nan)
    floats = table(tmp_path / "f.parquet", image=[[0.5] * 4] * 4, label=[0, 1, 0, 1])
    assert "images must be encoded bytes, or lists" in refusal(floats)
    odd = table(tmp_path / "o.parquet", image=[[1] * 5] * 4, label=[0, 1, 0, 1])
    assert "5 numbers in row 0, which make no square image" in refusal(odd)
    assert "has no rows" in refusal(table(tmp_path / "e.parquet", image=pa.array([], pa.binary()), label=pa.array([])))
    missing = table(tmp_path / "m.parquet", image=[None, *images], label=[0, 1, 0, 1, 1])
    assert read(missing, validation_share=0.5).unreadable == ("row 0",)


def test_names_that_are_no_sets_of_images() -> None:
    assert "bundled:digits" in refusal("bundled:nothing")
    assert "cache:fashion-mnist" in refusal("cache:nothing")


# Fashion-MNIST


def test_fashion_mnist_is_fetched_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHWATER_CACHE", str(tmp_path / "cache"))
    assert "python -m trainers.datasets fashion-mnist" in refusal("cache:fashion-mnist")
    monkeypatch.setattr(fashion, "PLACE", tmp_path)
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        datasets.fetch("fashion-mnist")
    for name in fashion.SHA256:
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match="which is not Fashion-MNIST's"):
        datasets.fetch("fashion-mnist")
    contents = iter([idx_of(np.full((7, 4, 4), 9)), idx_of(np.arange(7) % 2), idx_of(np.zeros((3, 4, 4)))])
    last = idx_of(np.ones(3))
    monkeypatch.setattr(fashion, "checked", lambda path: next(contents, last))
    assert datasets.main(["fashion-mnist"]) == 0
    found = read("cache:fashion-mnist")
    assert found.images.shape == (10, 1, 4, 4)
    assert found.validation is not None
    assert (len(found.training), found.validation.tolist()) == (7, [7, 8, 9])
    assert found.classes[:2] == ("T-shirt", "Trouser")


def idx_of(array: Any) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


# The split


def test_a_share_of_each_class_is_held_out_and_every_row_is_used_once() -> None:
    labels = np.repeat(np.arange(4), [100, 10, 3, 1])
    rows = np.arange(5, 5 + len(labels))
    all_labels = np.concatenate([np.zeros(5, np.int64), labels])
    training, validation = stratified(all_labels, rows, 0.2, 0)
    assert sorted([*training, *validation]) == rows.tolist()
    assert np.bincount(all_labels[validation], minlength=4).tolist() == [20, 2, 1, 0]
    again = stratified(all_labels, rows, 0.2, 0)
    assert (again[1] == validation).all()
    assert not (stratified(all_labels, rows, 0.2, 1)[1] == validation).all()


def test_many_labels_are_split_by_what_they_have_in_common() -> None:
    labels = np.array([[1, 0], [1, 1]] * 20, dtype=np.uint8)
    _, validation = stratified(labels, np.arange(40), 0.25, 0)
    assert labels[validation].sum(0).tolist() == [10, 5]
