"""VARS, the visual-anchored reward of AVAR (arXiv 2603.03825).

    r_visual = 0 for a wrong answer, else
               1/|T| sum_{t in T} 1/|L| sum_l  v_t(l) / (s_t(l) + eps)
    r_total  = r_accuracy + 0.3 r_visual + 0.1 r_format

with T the response tokens and v_t(l), s_t(l) the visual and system mass of row t summed over heads.
"""

from collections.abc import Mapping

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention.masses import MassByLayer, as_layers, check_mask, check_types
from ..vas.score import FORMS, require_system_turn, score_of


@torch.no_grad()
def visual_reward(
    mass_by_layer: MassByLayer,
    response_mask: Tensor,
    correct: Tensor,
    form: str = "ratio",
    eps: float = 1e-6,
    clip: float | None = None,
    key_types: Tensor | None = None,
    *,
    visual: int = KeyType.VISUAL,
    system: int = KeyType.SYSTEM,
) -> Tensor:
    """The visual reward r_visual of each response.

    Args:
        mass_by_layer: {layer: (N, L, H, 3)} of a forward over prompts and responses, with the
            layers to average over (all layers in the paper).
        response_mask: (N, L), true for the response tokens T.
        correct: (N,), true where the answer is right.
        form: "ratio" as in the paper; "log_ratio" and "share" use the same masses but depend less
            on rows with tiny system mass.
        eps: added to the system mass (ratio), to both (log ratio), to their sum (share).
        clip: upper bound of |r_visual|; the paper has none. Without it the ratio easily outweighs
            accuracy.
        key_types: (N, Lk), as for ``visual_attention_score``.
        visual, system: as for ``visual_attention_score``.

    Returns:
        (N,) float32 without gradient; 0 for wrong answers and empty responses.

    Raises:
        ValueError: shapes do not fit, the form is unknown, eps or clip is not positive, or a
            correct sample has no system turn.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}.")
    if not eps > 0:
        raise ValueError(f"eps must be positive; got {eps}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None; got {clip}.")
    layers = as_layers(mass_by_layer)
    response = check_mask("response_mask", response_mask, layers)
    if correct.shape != response.shape[:1]:
        raise ValueError(
            f"correct must be of shape ({response.shape[0]},); got {tuple(correct.shape)}."
        )
    correct = correct.to(response.device).bool()
    check_types(layers, visual=visual, system=system)
    require_system_turn(layers, response & correct[:, None], key_types, system=system)

    total = torch.zeros(response.shape, device=response.device)
    for layer in layers:
        heads = layer.float().sum(dim=2)  # (N, L, C)
        total += score_of(heads[..., visual], heads[..., system], eps, form)
    per_token = torch.where(response, total / len(layers), 0.0)
    reward = per_token.sum(1) / response.sum(1).clamp(min=1)
    if clip is not None:
        reward = reward.clamp(-clip, clip)
    return torch.where(correct, reward, 0.0)


def total_reward(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of rewards; AVAR's weights are accuracy 1, visual 0.3, format 0.1.

    Args:
        values: (N,) rewards by name; NaN if a reward does not apply, which then adds 0.
        weights: weights by the same names; the sum has their order.

    Returns:
        (N,) float32.
    """
    return sum(  # pyright: ignore[reportReturnType]
        weight * torch.nan_to_num(values[name], nan=0.0) for name, weight in weights.items()
    )
