"""YAML 1.2's core schema, and what hostile YAML ends in."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from jobs import yaml12
from jobs.errors import SpecError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-7", -7), ("+3", 3), ("012", 12), ("0o17", 15),
        ("0x1F", 31), (".inf", math.inf), ("-.INF", -math.inf), ("1_000", "1_000"), ("no", "no"), ("on", "on"),
        ("yes", "yes"), ("y", "y"), ("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"), ("~", None),
        ("null", None), ("", None), ("2026-01-01", "2026-01-01"), ("12:30:45", "12:30:45"), ("0b1", "0b1"),
        ("'1'", "1"), ('"no"', "no"), ("!!str 12", "12"), ("! 12", "12"), ("1e", "1e"), ("=", "="), ("0x", "0x"),
        ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("{1: 2}", {"1": 2}), ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("# only a comment", None), ("%YAML 1.2\n--- no", "no"), ("--- 1\n...\n", 1),
    ],
)  # fmt: skip
def test_core_schema(text: str, value: object) -> None:
    read = yaml12.loads(text, "x")
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(yaml12.loads(".nan", "x"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.system ['true']", "tag !!python/object/apply:os.system is not allowed"),
        ("a: !!int '3'", "tag !!int"),
        ("a: !mine 3", "tag !mine"),
        ("!!set {a}", "tag !!set"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given a second time"),
        ("a:\n  b: 1\n  b: 2", "line 3, column 3"),
        ("a: 1\n b: 2", "line 2, column 3"),
        ("a: [1, 2", "not valid YAML at line 1"),
        ("@x", "quote the text"),
        ("*x", "quote the text"),
        ("a: &x [*x]", "stands inside what it repeats"),
        ("<<: {a: 1}", "merge keys"),
        ("? [a]\n: 2", "a key must be"),
        ("--- 1\n--- 2", "second document"),
        ("%YAML 1.1\n--- no", "YAML 1.2"),
        ("[" * 60, "nested more than 50 deep"),
        ("a: " + "9" * 5000, "too many digits"),
        ("\x00", "not valid YAML"),
        ("#" * (1 << 20) + "#", "larger than 1 MiB"),
        ("[" + "1," * 10_000 + "1]", "more than 10000 values"),
    ],
)
def test_refused_yaml(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        yaml12.loads(text, "x.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("x.yaml")
    assert "\n" not in str(caught.value)


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [" + "x, " * 9 + "x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 12)]
    with pytest.raises(SpecError, match="repeated ones counted"):
        yaml12.loads("\n".join(lines), "x")


def test_what_an_alias_repeats_is_changed_alone() -> None:
    read = yaml12.loads("a: &x {n: 1}\nb: *x", "x")
    read["a"]["n"] = 2
    assert read["b"] == {"n": 1}


def test_awkward_values_survive_yaml() -> None:
    texts = [
        "no",
        "2026-01-01",
        "1_000",
        "1e-3",
        "0o17",
        "~",
        "",
        " x",
        "a\nb",
        "\x7f\x85",
        "'",
        '"',
        "#",
        "a: b",
        "- a",
    ]
    texts += ["*x", "&x", "!x", "%x", "@x", "<<", "=", "null", "+3", ".inf", "é😀", "x" * 500, "a " * 300, "1:30", "\t"]
    document: dict[str, Any] = {"texts": texts, "numbers": [1e-8, 1e22, 1.0, 0, -3, 0.1, 10**30], "none": None}
    document |= {text or "empty": text for text in texts} | {"empty_list": [], "empty_section": {}, "yes": True}
    assert yaml12.loads(yaml12.dumps(document), "x") == document


def test_random_bytes_never_end_in_anything_but_a_spec_error() -> None:
    draw = random.Random(0)
    alphabet = "ab:1 -\n\t[]{},&*!|>'\"%@#?.~\\<é\x00\x85\u2028\ud800"
    for _ in range(1500):
        text = "".join(draw.choices(alphabet, k=draw.randrange(25)))
        try:
            yaml12.loads(text, "x")
        except SpecError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most are fine, none may raise another
