"""Loads a user's reward functions by name, calls them as TRL does, and checks their results."""

import asyncio
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

STANDARD = ("prompts", "completions", "completion_ids")
IMAGES = ("images", "image")
"""Arguments with the images of each row: ``images`` is a list, ``image`` a single image if the row
has just one."""
STATE = "trainer_state"
OF_TRL_ALONE = ("log_extra", "log_metric", "environments")
"""Arguments that TRL passes to functions but this trainer does not have."""


Reward = float | list[float] | None
"""What a completion gets: one number, a list of one number per token, or None if the function does
not apply to it."""


class RewardFault(NamedTuple):
    """A fault in the rewards of a call."""

    index: int
    """Index of the completion; 0 if the whole call failed."""
    what: str
    """Description of the fault."""
    everywhere: bool = False
    """The whole call failed: no completion has a reward."""


def load_function(name: str) -> Callable[..., Any]:
    """Imports the function that ``package.module:function`` names.

    Raises:
        ValueError: it cannot be imported, does not exist, or cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"it is a {type(function).__name__}, which cannot be called")
    return function


@dataclass(frozen=True)
class Takes:
    """The arguments that a function takes."""

    needed: tuple[str, ...] = ()
    """Names of the required arguments."""
    named: tuple[str, ...] = ()
    """Names of all arguments."""
    any: bool = False
    """It also takes arbitrary keyword arguments."""

    @property
    def images(self) -> bool:
        """Whether the function takes images."""
        return self.any or any(name in self.named for name in IMAGES)

    def chosen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that the function takes; ``image`` only if the function names it."""
        return {
            name: value
            for name, value in arguments.items()
            if name in self.named or (self.any and name != "image")
        }


@dataclass(frozen=True)
class TrainerState:
    """Progress of the run, with the names of transformers' TrainerState."""

    global_step: int
    """Number of completed updates."""
    max_steps: int
    """Number of updates of the whole run."""


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
) -> tuple[list[Reward], list[RewardFault]]:
    """Calls a reward function and checks its result.

    Args:
        function: sync or async. It gets the arguments that it names, or all if it takes any.
        arguments: ``STANDARD``, the data columns, and optionally images and state. All are lists of
            the same length, except ``STATE``.

    Returns:
        One reward per completion, and the faults. A reward is None also if there is a fault.
    """
    count = len(arguments["completions"])
    try:
        returned = _run(function, arguments)
    except Exception as error:
        what = f"raised {type(error).__name__}: {error}"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    try:
        rewards = list(returned)
    except TypeError:
        what = f"returned a {type(returned).__name__}, not a list"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    if len(rewards) != count:
        what = f"returned {len(rewards)} rewards for {count} completions"
        return [None] * count, [RewardFault(0, what, everywhere=True)]
    lengths = [len(ids) for ids in arguments["completion_ids"]]
    checked = [_checked(*pair) for pair in zip(rewards, lengths, strict=True)]
    faults = [RewardFault(i, fault) for i, (_, fault) in enumerate(checked) if fault]
    return [value for value, _ in checked], faults


def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    returned = function(**taken_by(function).chosen(arguments))
    return asyncio.run(_awaited(returned)) if inspect.isawaitable(returned) else returned


async def _awaited(value: Any) -> Any:
    return await value


def _checked(value: Any, length: int) -> tuple[Reward, str]:
    """A returned reward of a completion of ``length`` tokens, and what is wrong with it."""
    if value is None:
        return None, ""
    if isinstance(value, list | tuple):
        if len(value) != length:
            return None, f"returned a list of {len(value)} for a completion of {length} tokens"
        numbers = [_number(x) for x in value]
        wrong = next((i for i, number in enumerate(numbers) if number is None), None)
        if wrong is not None:
            return None, f"returned {value[wrong]!r:.80} for token {wrong}, not a finite number"
        return [number for number in numbers if number is not None], ""
    number = _number(value)
    if number is None:
        remedy = "; call .tolist()" if hasattr(value, "tolist") else ""
        expected = "a finite number, None, or a list of one number per token"
        return None, f"returned {value!r:.80}, not {expected}{remedy}"
    return number, ""


def _number(value: Any) -> float | None:
    """A value as a finite number; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
