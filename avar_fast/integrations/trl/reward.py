"""VARS as a reward function of TRL, from the attention masses of sampling."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from avar_kernels import KeyType
from torch.nn.utils.rnn import pad_sequence

from ...objectives import visual_reward

MASSES = "avar_masses"
"""Extra field of every completion: (T, layers, 3) float32 on the CPU, the attention mass of each
token's own query by key type, summed over heads."""
PROMPT_TYPES = "avar_prompt_types"
"""Extra field of every completion: the key types in its prompt, as a list. VARS needs that of the
system turn."""


def vars_reward(
    gate: Callable[..., Sequence[float | None]],
    form: str = "ratio",
    *,
    eps: float = 1e-6,
    clip: float | None = None,
    threshold: float = 0.5,
    visual: int = KeyType.VISUAL,
    system: int = KeyType.SYSTEM,
) -> Callable[..., list[float]]:
    """Makes VARS as a reward function of TRL, for completions that ``rollout`` sampled.

    Args:
        gate: a reward function of TRL that says which completions are right. It is called with the
            arguments that TRL gives to VARS; what it logs in this call is dropped.
        form, eps, clip: as for ``avar_fast.objectives.visual_reward``.
        threshold: least reward of the gate of a right completion; None of the gate is wrong.
        visual, system: key types that take the place of the image and of the system turn, such as
            those of ``attach(classify=)``.

    Returns:
        A reward function. It is 0 for wrong completions, and for right ones the mean over tokens
        and layers of visual mass relative to system mass.

    Raises:
        TypeError: the gate is asynchronous.
        ValueError: by the returned function, if the masses are missing, the gate returns another
            number of rewards, or the prompt of a right completion has no system turn.
    """
    if inspect.iscoroutinefunction(gate) or inspect.iscoroutinefunction(type(gate).__call__):
        raise TypeError("gate must be a plain function; got an asynchronous one.")

    def vars(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **columns: Any
    ) -> list[float]:
        masses, types = columns.pop(MASSES, None), columns.pop(PROMPT_TYPES, None)
        if masses is None or types is None:
            raise ValueError(
                "vars_reward needs the attention masses of sampling; got none. Pass GRPOTrainer"
                " rollout_func=rollout() with at least one layer."
            )
        quiet = {name: _drop for name in ("log_extra", "log_metric") if name in columns}
        given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        scores = gate(**given, **(columns | quiet))
        if len(scores) != len(masses):
            raise ValueError(
                f"gate must return a reward for each of {len(masses)} completions; got"
                f" {len(scores)}."
            )
        correct = torch.tensor([score is not None and score >= threshold for score in scores])
        rows = pad_sequence(masses, batch_first=True)  # (N, T, layers, 3)
        in_prompt = [torch.tensor(found) for found in types]
        lengths = torch.tensor([len(row) for row in masses])
        return visual_reward(
            rows[:, :, :, None].unbind(dim=2),  # heads are summed up already
            torch.arange(rows.shape[1]) < lengths[:, None],
            correct,
            form,
            eps,
            clip,
            pad_sequence(in_prompt, batch_first=True, padding_value=KeyType.PAD),
            visual=visual,
            system=system,
        ).tolist()

    return vars


def _drop(*arguments: Any) -> None:
    pass
