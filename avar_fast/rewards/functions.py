"""Reward functions of a user: found by name, called as TRL calls its own, and checked."""

import asyncio
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

STANDARD = ("prompts", "completions", "completion_ids")
IMAGES = ("images", "image")
"""Arguments that hold each row's images: a list, or the only one."""
STATE = "trainer_state"
OF_TRL_ALONE = ("log_extra", "log_metric", "environments")
"""What TRL hands to functions too, and this trainer does not have."""


class RewardFault(NamedTuple):
    """What is wrong with the rewards of a call."""

    index: int
    """The completion it shows at; 0 where it is of the call as a whole."""
    what: str
    everywhere: bool = False
    """No completion of the call has a reward."""


def load_function(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        ValueError: it cannot be imported, is not there, or cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"it is a {type(found).__name__}, which cannot be called")
    return found


@dataclass(frozen=True)
class Takes:
    """The arguments that a function takes."""

    needed: tuple[str, ...] = ()
    """Those that have to be given."""
    named: tuple[str, ...] = ()
    """All that it names."""
    any: bool = False
    """Whatever else there is."""

    @property
    def images(self) -> bool:
        return self.any or any(name in self.named for name in IMAGES)

    def chosen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Those of some arguments that are for the function; ``image`` only where it is named."""
        return {
            name: value
            for name, value in arguments.items()
            if name in self.named or (self.any and name != "image")
        }


@dataclass(frozen=True)
class TrainerState:
    """How far the run is, by the names that transformers' TrainerState has."""

    global_step: int
    """Updates that are done."""
    max_steps: int


def taken_by(function: Callable[..., Any]) -> Takes:
    """The arguments that a function takes."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind not in kinds]
    needed = tuple(p.name for p in named if p.default is p.empty)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return Takes(needed, tuple(p.name for p in named), takes_any)


def call(
    function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[list[float | None], list[RewardFault]]:
    """One reward per completion, None where the function says it does not apply.

    Args:
        function: sync or async; gets the arguments that it names, or all if it takes any.
        arguments: ``STANDARD``, the data columns and what else there is; lists of one length, but
            for ``STATE``.

    Returns:
        (rewards, problems); where there is a problem, the reward is None.
    """
    count = len(arguments["completions"])
    try:
        returned = _run(function, arguments)
    except Exception as error:
        what = f"raised {type(error).__name__}: {error}"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    try:
        listed = list(returned)
    except TypeError:
        what = f"returned a {type(returned).__name__}, not a list"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    if len(listed) != count:
        what = f"returned {len(listed)} rewards for {count} completions"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    checked = [_checked(value) for value in listed]
    problems = [RewardFault(i, wrong) for i, (_, wrong) in enumerate(checked) if wrong]
    return [value for value, _ in checked], problems


def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    returned = function(**taken_by(function).chosen(arguments))
    return asyncio.run(_awaited(returned)) if inspect.isawaitable(returned) else returned


async def _awaited(value: Any) -> Any:
    return await value


def _checked(value: Any) -> tuple[float | None, str]:
    if value is None:
        return None, ""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None, f"returned {value!r:.80}, not a number or None"
    return (number, "") if math.isfinite(number) else (None, f"returned {number}")
