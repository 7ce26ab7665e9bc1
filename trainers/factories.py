"""Functions that a user's own package brings, named in a spec as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs import spec_checks
from jobs.errors import SpecError
from jobs.spec_errors import nearest
from trainers.failures import told
from trainers.own_frames import name_package


def look_in(packages: Iterable[str]) -> None:
    """Let modules be found beside these packages: folders and files of `runtime.packages`.

    The folders that hold them go to the end of Python's path, so that nothing there hides what is installed.
    """
    for package in packages:
        folder = str(Path(package).parent)
        if folder not in sys.path:
            sys.path.append(folder)


def resolve(text: str, field: str) -> Callable[..., Any]:
    """The function that `text` names, its module imported.

    `field` is the spec's field that holds the text, for the sentences. Raises SpecError if the text is not
    `package.module:function`, if the module is not found or raises while it is imported, and if it has no such
    function or something else under that name.
    """
    try:
        spec_checks.factory(text)
    except ValueError as error:
        raise SpecError(f"{field} is {text}, but must be {error}") from error
    name, _, function = text.partition(":")
    module = _imported(name, field)
    if not hasattr(module, function):
        raise SpecError(f"{field} names {function}, which {_place(module)} does not have{_hint(module, function)}")
    found = getattr(module, function)
    if not callable(found):
        raise SpecError(f"{field} names {text}, which is no function but a value of type {type(found).__name__}")
    name_package(name)
    resolved: Callable[..., Any] = found
    return resolved


def call(text: str, field: str, options: Mapping[str, Any], *given: object) -> Any:  # noqa: ANN401 - whatever it makes
    """What the function that `text` names returns for these arguments and options.

    `field` is the spec's section, such as `model`. Raises what `resolve` and `check_options` raise, and what the
    function itself raises.
    """
    function = resolve(text, f"{field}.factory")
    check_options(function, text, field, options, *given)
    return function(*given, **options)


def check_options(
    function: Callable[..., Any], text: str, field: str, options: Mapping[str, Any], *given: object
) -> None:
    """SpecError unless the function can be called with what is given and these options as its keyword arguments.

    `text` names the function, and `field` is the spec's section, such as `model`.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some functions written in C do not say what they take.
        return
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        raise SpecError(f"{field}.options do not fit {text}{_shown(signature)}: {error}") from error


def _shown(signature: inspect.Signature) -> str:
    names = [str(p.replace(annotation=p.empty)) for p in signature.parameters.values()]
    return f"({', '.join(names)})"


def _imported(name: str, field: str) -> ModuleType:
    importlib.invalidate_caches()  # The file may be younger than what Python remembers of its folder.
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise SpecError(
                f"{field} names the module {name}, and there is no {missing} here; start in the folder that holds it, "
                "give its place in runtime.packages, or install it with pip"
            ) from error
        raise SpecError(
            f"{field} names the module {name}, which needs the module {missing}, and that is not here; name what to "
            "install in runtime.requirements, or its place in runtime.packages if it is your own"
        ) from error
    except (Exception, SystemExit) as error:
        name_package(name)
        raise SpecError(f"{field} names the module {name}, which cannot be imported: {told(error)}") from error


def _place(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if getattr(module, "__file__", None) else module.__name__


def _hint(module: ModuleType, function: str) -> str:
    functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    meant = nearest(function, functions)
    return f"; did you mean {meant}?" if meant else ""
