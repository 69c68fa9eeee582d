"""The interface of rollout engines, and the engine that samples from the trained model itself."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from ..data import Sample
from .generate import PromptContext, Rollouts, Sampling, generate


class RolloutError(RuntimeError):
    """The engine cannot be started or reached, or does not fit the run; the message says why."""


class RolloutEngine(Protocol):
    """Samples completions. All ranks call each method together, each with its own prompts.

    Every method of an engine outside this process may raise RolloutError.
    """

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        """Completes every prompt ``sampling.num_samples`` times."""
        ...

    def sync_weights(self, model: nn.Module) -> None:
        """Copies the model's weights to the engine; all of them must be on this rank's device."""
        ...

    def sleep(self) -> None:
        """Frees memory until ``wake``; the weights must then be synced again."""
        ...

    def wake(self) -> None:
        """Takes memory again after ``sleep``."""
        ...

    def close(self) -> None:
        """Frees all resources."""
        ...


class ModelEngine:
    """Samples from the trained model itself, so its weights need no syncing.

    Args:
        whole_weights: context that yields the model with all weights on this rank's device.
        collate: makes left-padded inputs of prompts, on the device.
        at_once: most prompts that are completed at the same time.
        prompt_context: entered around every forward that reads prompts.
        cuda_graphs: as in ``generate``.
    """

    def __init__(
        self,
        whole_weights: Callable[[], AbstractContextManager[nn.Module]],
        collate: Callable[[list[Sample]], dict[str, Tensor]],
        at_once: int,
        prompt_context: PromptContext | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self._whole_weights, self._collate, self._at_once = whole_weights, collate, at_once
        self._prompt_context, self._cuda_graphs = prompt_context, cuda_graphs

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        with self._whole_weights() as model:
            return generate(
                model,
                prompts,
                self._collate,
                sampling,
                self._at_once,
                self._prompt_context,
                self._cuda_graphs,
            )

    def sync_weights(self, model: nn.Module) -> None:
        pass

    def sleep(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass
