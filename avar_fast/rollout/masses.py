"""The attention masses of sampled tokens, from the forwards that feed them."""

import torch
from torch import Tensor, nn

from .rows import DecodingRows


class SampledMasses:
    """Collects the attention masses of sampled tokens from the forwards that feed them."""

    def __init__(self, layers: tuple[int, ...], num_completions: int) -> None:
        self.layers, self.num_completions = layers, num_completions
        self.places: list[tuple[list[int], list[int]]] = []
        self.values: list[Tensor] = []

    def feed(
        self,
        model: nn.Module,
        rows: DecodingRows,
        tokens: Tensor,
        appended: list[int],
        positions: list[int],
    ) -> None:
        """Feeds a token to each row, and keeps the masses of the rows in ``appended``, whose token
        is at ``positions`` of its completion."""
        masses = rows.feed(model, tokens, self.layers)
        assert masses is not None
        self.values.append(masses[appended])
        self.places.append(([rows.owners[i] for i in appended], positions))

    def collected(self, longest: int) -> Tensor | None:
        """(completions, longest, layers, 3), or None if no layers were asked for."""
        if not self.layers:
            return None
        values = torch.cat(self.values)
        masses = values.new_zeros(self.num_completions, longest, *values.shape[1:])
        owners, positions = (
            torch.tensor([i for step in places for i in step], device=values.device)
            for places in zip(*self.places, strict=True)
        )
        masses[owners, positions] = values
        return masses
