"""The image's share of the completions' attention, layer by layer, for the log."""

from collections.abc import Sequence

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..spans import VAS_EPS
from .completion import Completion
from .tally import Tally

NAME = "visual_share"
LAYERED = f"{NAME}_by_layer"


def tally_visual_share(
    layers: Sequence[int], completions: Sequence[Completion], has_system: Tensor, tally: Tally
) -> None:
    """Adds visual / (visual + system) mass of the tokens that see an image, in each layer.

    Masses are summed over heads first. A completion without a system turn does not count: its share
    would always be 1. All ranks add the same names, also without such a token.

    Args:
        layers: of the masses, ascending; none if the masses are not known.
        completions: with masses (T, layers, 3).
        has_system: (completions,) bool, as ``have_system_turn`` gives it.
        tally: sums for the log.
    """
    if not layers:
        return
    sums: list[Tensor] = []
    for completion, compares in zip(completions, has_system.tolist(), strict=True):
        if completion.masses is None:
            continue
        visual = completion.masses[..., KeyType.VISUAL] * compares  # 0: not counted
        system = completion.masses[..., KeyType.SYSTEM]
        shares = visual / (visual + system + VAS_EPS)  # 0 without an image
        count = (visual > 0).any(dim=1).sum()
        sums.append(torch.cat([shares.double().sum(dim=0), count[None]]))
    *totals, count = torch.stack(sums).sum(dim=0).tolist()  # the host waits once
    for layer, total in zip(layers, totals, strict=True):
        tally.add(f"{LAYERED}/{layer}", total, count)


def gather_layers(
    layers: Sequence[int], means: dict[str, float | None]
) -> dict[str, float | dict[int, float] | None]:
    """The means of a tally with the shares of the layers as one: their mean and {layer: share}.

    They are left out if no token saw an image.
    """
    found: dict[str, float | dict[int, float] | None] = {**means}
    shares = {layer: found.pop(f"{LAYERED}/{layer}") for layer in layers}
    by_layer = {layer: share for layer, share in shares.items() if isinstance(share, float)}
    if by_layer:
        found |= {NAME: sum(by_layer.values()) / len(by_layer), LAYERED: by_layer}
    return found
