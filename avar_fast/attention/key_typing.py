"""How an attached model types the keys of a row."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from avar_kernels import KeyType
from torch import Tensor

from .refusal import refuse
from .tokens import PLAIN, SpecialTokens, key_types
from .turns import TokenOrder

MIN_TYPES, MAX_TYPES = 3, 16
Classify = Callable[[Tensor, Tensor], Tensor]
"""``classify(input_ids, types)``: (B, L) ids and (B, L) int32 types -> (B, L) refined types."""


@dataclass(frozen=True)
class KeyTyping:
    """TEXT, VISUAL and SYSTEM, or what a function of the user's makes of them."""

    tokens: SpecialTokens
    num_types: int = MIN_TYPES
    classify: Classify | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.num_types, int):
            raise TypeError(f"num_types must be an int; got {self.num_types!r}.")
        if self.classify is not None and not callable(self.classify):
            raise TypeError(
                "classify must be a function of (input_ids, types); got"
                f" {type(self.classify).__name__}."
            )
        if not MIN_TYPES <= self.num_types <= MAX_TYPES:
            raise ValueError(
                f"num_types must be from {MIN_TYPES} (text, visual, system) to {MAX_TYPES}; got"
                f" {self.num_types}."
            )
        if self.classify is None and self.num_types != MIN_TYPES:
            raise ValueError(
                f"num_types = {self.num_types} needs classify=, a function that gives keys the"
                f" types from {MIN_TYPES} on."
            )

    def __call__(self, ids: Tensor, mask: Tensor | None, order: TokenOrder = PLAIN) -> Tensor:
        """The types of all keys of (B, L) ids.

        Raises:
            TypeError: ``classify`` returns no integer tensor.
            ValueError: it returns another shape, a tensor elsewhere, or a type out of range.
        """
        types = key_types(ids, mask, tokens=self.tokens, order=order)
        if self.classify is None:
            return types
        # Copies: the function may write into them, and the model and the cache go on with the ids.
        refined = self.classify(ids.clone(), types.clone())
        if not isinstance(refined, Tensor) or not _is_integer(refined):
            got = refined.dtype if isinstance(refined, Tensor) else type(refined).__name__
            raise TypeError(
                f"classify must return a tensor of integers, (B, L) key types; got {got}. Return"
                " types, changed where you want another type."
            )
        if refined.shape != types.shape:
            raise ValueError(
                f"classify must return a type for each of the {tuple(types.shape)} tokens; got"
                f" shape {tuple(refined.shape)}."
            )
        if refined.device != types.device:
            raise ValueError(
                f"classify must return types on the device of input_ids, {types.device}; got"
                f" {refined.device}. Make its tensors with device=input_ids.device."
            )
        bad = ((refined >= self.num_types) | (refined < 0)) & (types >= 0)
        refuse(
            bad.any(),
            f"classify must return types from 0 to {self.num_types - 1} (num_types - 1) for every"
            " token; it returned others.",
        )
        # Padding stays padding, whatever the function says of it.
        return torch.where(types < 0, int(KeyType.PAD), refined.to(torch.int32))


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
