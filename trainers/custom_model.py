"""A network of the user's own: made by the user's function, and held to what training needs of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from jobs.errors import HighwaterError, Reason, SpecError
from jobs.spec_custom import OwnModel
from trainers.factories import check_options, resolve

DATA = "data"
"""Parameter of a model's function that asks for the training set."""


def own_model(model: OwnModel, training: Callable[[], Any]) -> nn.Module:
    """What the user's function returns; SpecError unless that is a module.

    A parameter `data` of the function gets the training set, for what only the data say, such as the number of classes.
    `training` makes it, and is called only then.
    """
    function = resolve(model.factory, "model.factory")
    options: dict[str, Any] = dict(model.options)
    if _takes_data(function):
        if DATA in options:
            raise SpecError(f"model.options has {DATA}, under which {model.factory} gets the training set; rename it")
        options[DATA] = training()
    check_options(function, model.factory, "model", options)
    made = function(**options)
    if not isinstance(made, nn.Module):
        raise SpecError(f"model.factory {model.factory} returned {type(made).__name__}, and not a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise SpecError(f"model.factory {model.factory}: the module has no parameter that is trained")
    return made


def scalars(given: object, name: str) -> dict[str, Tensor]:
    """What a forward pass gave as scalar tensors, `loss` first.

    `name` is the factory's text. An error with reason `user_code` unless all are scalars, the loss a tensor among them.
    """
    if not isinstance(given, dict) or not isinstance(given.get("loss"), Tensor):
        what = f"a dict of {', '.join(map(str, given))}" if isinstance(given, dict) else type(given).__name__
        raise _wrong(name, f"forward returned {what}; it must return a dict in which `loss` is a tensor")
    loss = given["loss"]
    return {"loss": _scalar(loss, "loss", name, loss)} | {
        key: _scalar(value, key, name, loss) for key, value in given.items() if key != "loss"
    }


def _scalar(value: object, key: str, name: str, loss: Tensor) -> Tensor:
    if isinstance(value, bool | int | float):
        return loss.new_tensor(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(()) if value.is_floating_point() else value.reshape(()).float()
    what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise _wrong(name, f"forward gives {key} as {what}; it must be one number, the mean over the rows")


def with_metric(given: dict[str, Tensor], metric: str, name: str) -> dict[str, Tensor]:
    """The scalars; SpecError if the metric that decides is not among them."""
    if metric not in given:
        raise SpecError(f"metric is {metric}, but forward of {name} gives {', '.join(given)}; name one of these")
    return given


def grouped(model: nn.Module) -> list[list[nn.Parameter]]:
    """The groups of `layer_groups()`, each of modules or parameters, nearest to the input first; else one of all.

    An error with reason `user_code` unless each parameter that is trained stands in one of them.
    """
    method = getattr(model, "layer_groups", None)
    if method is None:
        return [list(model.parameters())]
    groups = [list(_parameters(group, type(model).__name__)) for group in method()]
    counts: dict[int, int] = {}
    for parameter in (parameter for group in groups for parameter in group):
        counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and counts.get(id(parameter), 0) != 1:
            what = "leaves out" if id(parameter) not in counts else "has more than once"
            raise _wrong(type(model).__name__, f"layer_groups() {what} {key}; each parameter belongs to one group")
    return groups


def _parameters(group: object, name: str) -> Iterable[nn.Parameter]:
    if isinstance(group, nn.Module):
        return group.parameters()
    if isinstance(group, nn.Parameter):
        return [group]
    if isinstance(group, Iterable):
        return [parameter for item in group for parameter in _parameters(item, name)]
    raise _wrong(
        name, f"layer_groups() holds a {type(group).__name__}; give modules, or lists of them and of parameters"
    )


def _takes_data(function: Any) -> bool:  # noqa: ANN401 - any callable
    try:
        return DATA in inspect.signature(function).parameters
    except ValueError:
        return False


def _wrong(name: str, what: str) -> HighwaterError:
    return HighwaterError(f"{name}: {what}", Reason.USER_CODE)
