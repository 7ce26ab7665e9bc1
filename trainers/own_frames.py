"""Where in a user's own code an error was raised: the frame that a person can mend."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import FrameType

#: Top-level packages whose functions specs have named: a user's own, also where pip installed them.
_named: set[str] = set()
#: Where files lie that no user wrote: Highwater's own rooms, Python's, and the packages installed beside it.
_OTHERS = [
    *(Path(__file__).resolve().parents[1] / room for room in ("jobs", "trainers", "infra")),
    *{Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")},
]


def name_package(module: str) -> None:
    """Count the package of this module as a user's own."""
    _named.add(module.partition(".")[0])


def where_raised(error: BaseException) -> str:
    """` (FILE, line N)` of the innermost frame in a user's own code, with a blank in front; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    own = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_own(frame)]
    return f" ({own[-1][0].f_code.co_filename}, line {own[-1][1]})" if own else ""


def _is_own(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if str(frame.f_globals.get("__name__")).partition(".")[0] in _named:
        return True
    return not file.startswith("<") and not any(Path(file).resolve().is_relative_to(folder) for folder in _OTHERS)
