"""Names of runs, which must also be names of Kubernetes objects."""

from __future__ import annotations

import pytest

from jobs.errors import SpecError
from jobs.names import LONGEST, check_name, fresh_name, nearest

NOW = 1795362360.0  # 2026-11-22 15:46 UTC


@pytest.mark.parametrize("name", ["a", "first", "language-20261122-1546", "x" * LONGEST, "a--b"])
def test_good_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("My Run", "my-run"),
        ("run_1", "run-1"),
        ("v1.2", "v1-2"),
        ("-x-", "x"),
        ("2nd", "run-2nd"),
        ("", "run"),
        ("\u00dcber", "uber"),
        ("\u4f60\u597d", "run"),
        ("../../etc", "etc"),
        ("a\n", "a"),
        ("x" * 48, "x" * LONGEST),
        ("x" * 46 + "-y-z", "x" * 46),
    ],
)
def test_bad_names_are_refused_with_the_rule_and_an_offer(name: str, offer: str) -> None:
    with pytest.raises(SpecError, match=r"1 to 47 lowercase letters, digits and hyphens") as caught:
        check_name(name)
    assert str(caught.value).endswith(f"use for example {offer}")
    assert "\n" not in str(caught.value)
    assert check_name(nearest(name)) == offer


def test_a_very_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(SpecError) as caught:
        check_name("x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("language", "language-20261122-1546"),
        ("conf/My Model.yaml", "my-model-20261122-1546"),
        ('{"task": "language"}', "run-20261122-1546"),
        ("x" * 80, "x" * 33 + "-20261122-1546"),
    ],
)
def test_a_fresh_name_tells_what_and_when(source: str, name: str) -> None:
    assert fresh_name(source, NOW, ()) == check_name(name)


def test_a_taken_name_gets_a_number() -> None:
    taken = {"language-20261122-1546", "language-20261122-1546-2"}
    assert fresh_name("language", NOW, taken) == "language-20261122-1546-3"
    long = "x" * 33 + "-20261122-1546"
    assert len(check_name(fresh_name("x" * 80, NOW, {long}))) <= LONGEST
