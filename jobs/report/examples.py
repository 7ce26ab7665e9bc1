"""What the model does: text that it made up, and real text with the words that surprised it."""

from __future__ import annotations

import math
from itertools import pairwise

from jobs.report.panel import Panel, missing
from jobs.report.text import Html, escape, finite, join, number, tag
from jobs.report.view import RunView
from jobs.rundir import Row

TITLE = "Examples"
PASSAGES, TOKENS, CHARACTERS = 12, 600, 6000
"""At most this many passages of this many tokens; generated texts are cut at this many characters."""
LEVELS = (2.0, 4.0, 6.0, 8.0)
"""Nats at which the next, stronger mark begins: 1 in 7, 1 in 55, 1 in 400, 1 in 3,000."""
CLOSING = set(".,;:!?)]}%'\u2019\u201d")
OPENING = set("([{\u201c")


def panel(view: RunView) -> Panel | None:
    """Generated text and surprising passages, whichever there are; nothing for runs that do not learn sequences."""
    parts = [part for part in (_generated(view.examples), _surprising(view.examples)) if part]
    if not parts and "bptt" not in view.spec:
        return None
    if not parts:
        words = "There are no examples yet: the model's own text and its surprises are written when training ends."
        return missing("examples", TITLE, words)
    return Panel("examples", TITLE, join(parts))


def _items(examples: Row, key: str) -> list[Row]:
    value = examples.get(key)
    return [item for item in value if isinstance(item, dict)][:PASSAGES] if isinstance(value, list) else []


def _generated(examples: Row) -> Html:
    items = [_text(item) for item in _items(examples, "generated")]
    if not items:
        return Html("")
    intro = "The model was given the words in bold and went on by itself, one piece at a time."
    return join((tag("h3", "Text that the model wrote"), tag("p", intro), *items))


def _text(item: Row) -> Html:
    prompt, text = str(item.get("prompt") or ""), str(item.get("text") or "")
    rest = text[len(prompt) :] if prompt and text.startswith(prompt) else f" {text}" if prompt else text
    cut = rest[:CHARACTERS] + ("..." if len(rest) > CHARACTERS else "")
    return tag("blockquote", tag("b", prompt) if prompt else "", cut)


def _surprising(examples: Row) -> Html:
    items = [part for item in _items(examples, "surprising") if (part := _passage(item))]
    if not items:
        return Html("")
    intro = (
        "Real text that was held out. The stronger the mark, the less the model expected the word; "
        "the strongest two marks are underlined as well. Point at a word to see its odds."
    )
    return join((tag("h3", "Passages that surprised the model most"), tag("p", intro), _legend(), *items))


def _legend() -> Html:
    odds = [number(_odds(bound)) for bound in LEVELS]
    words = ["expected", *(f"1 in {low} to {high}" for low, high in pairwise(odds)), f"1 in {odds[-1]} or rarer"]
    return tag("ul", *(tag("li", tag("mark", word, class_=f"s{i}")) for i, word in enumerate(words)), class_="legend")


def _odds(nats: float) -> float:
    """The N of `1 in N`, rounded to two figures."""
    return float(f"{math.exp(min(nats, 500.0)):.1g}") if nats else 1.0


def _passage(item: Row) -> Html:
    tokens, nats = item.get("tokens"), item.get("nats")
    if not isinstance(tokens, list) or not isinstance(nats, list) or not tokens:
        return Html("")
    words = [str(token) for token in tokens[:TOKENS]]
    surprisals = [finite(value) for value in nats[: len(words)]]
    surprisals += [None] * (len(words) - len(surprisals))
    spaced = sum(map(len, words)) > 1.5 * len(words) and not any(" " in word for word in words)
    parts = []
    for index, (word, value) in enumerate(zip(words, surprisals, strict=True)):
        before = words[index - 1] if index else None
        parts.append(" " if spaced and before is not None and word not in CLOSING and before not in OPENING else "")
        parts.append(_word(word, value))
    return tag("blockquote", *parts, _peaks(words, surprisals))


def _word(word: str, nats: float | None) -> Html:
    if nats is None:
        return escape(word)
    level = sum(nats >= bound for bound in LEVELS)
    odds = f"{nats:.1f} nats: the model gave it 1 in {number(_odds(max(nats, 0.0)))}"
    return tag("mark", word, class_=f"s{level}", title=odds)


def _peaks(words: list[str], surprisals: list[float | None]) -> Html:
    """The three largest surprises in words, for readers who cannot point at them."""
    known = [(value, word) for value, word in zip(surprisals, words, strict=True) if value is not None]
    top = sorted(known, key=lambda pair: -pair[0])[:3]
    if not top:
        return Html("")
    listed = ", ".join(f"\u201c{word}\u201d (1 in {number(_odds(max(value, 0.0)))})" for value, word in top)
    return tag("footer", f"Least expected: {listed}")
