"""What samples completions: one small interface, and the model itself behind it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from ..data import Sample
from .generate import PromptContext, Rollouts, Sampling, generate


class RolloutError(RuntimeError):
    """What samples cannot be had, or is not what the run needs; the message says all."""


class RolloutEngine(Protocol):
    """All ranks call each method together, each with prompts of its own.

    Any method of an engine outside of this process may raise RolloutError.
    """

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        """Completes every prompt ``sampling.num_samples`` times."""
        ...

    def sync_weights(self, model: nn.Module) -> None:
        """Takes over the weights of the model, all of them on this rank's device."""
        ...

    def sleep(self) -> None:
        """Gives back memory until ``wake``; weights must then be synced anew."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class ModelEngine:
    """The model under training samples: its weights are always its own.

    Args:
        whole_weights: context that gives the model with all weights on this rank's device.
        collate: prompts -> left-padded inputs on the device.
        at_once: prompts under way at the same time.
        prompt_context: entered around every forward that reads prompts.
    """

    def __init__(
        self,
        whole_weights: Callable[[], AbstractContextManager[nn.Module]],
        collate: Callable[[list[Sample]], dict[str, Tensor]],
        at_once: int,
        prompt_context: PromptContext | None = None,
    ) -> None:
        self._whole_weights, self._collate, self._at_once = whole_weights, collate, at_once
        self._prompt_context = prompt_context

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        with self._whole_weights() as model:
            return generate(
                model, prompts, self._collate, sampling, self._at_once, self._prompt_context
            )

    def sync_weights(self, model: nn.Module) -> None:
        pass

    def sleep(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass
