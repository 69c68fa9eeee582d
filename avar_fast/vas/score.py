"""Visual Attention Score (VAS): the attention of queries to the image relative to the system turn.

AVAR (arXiv 2603.03825), section on VAS:

    VAS_i(l, h) = sum_{j in V} A_ij(l, h) / sum_{j in S} A_ij(l, h)
    VAS         = 1 / (L H |U|) * sum_l sum_h sum_{i in U} VAS_i(l, h)

A few rows with tiny system mass dominate the mean of ratios, and it also rises if only the system
mass falls. So there are two other forms of the same masses: the log ratio and the share.
"""

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention.masses import MassByLayer, as_layers, check_ids, check_mask, check_types

FORMS = ("ratio", "log_ratio", "share")


def visual_attention_score(
    mass: MassByLayer,
    query_mask: Tensor,
    eps: float = 0.0,
    form: str = "ratio",
    key_types: Tensor | None = None,
    sample_ids: Tensor | None = None,
    *,
    visual: int = KeyType.VISUAL,
    system: int = KeyType.SYSTEM,
) -> Tensor:
    """The score, averaged over layers, heads and the queries in the mask.

    Args:
        mass: {layer: (B, L, H, 3)} or any form ``as_layers`` takes.
        query_mask: (B, L), true for the queries U; in the paper the user's text tokens
            (``query_mask(..., role="user")``). Queries before the image see none of it; the
            programs leave them out with ``sees_image``.
        eps: added to the system mass (ratio), to both masses (log ratio), or to their sum (share);
            the paper has none.
        form: "ratio" for visual / system, as in the paper; "log_ratio" for its logarithm; "share"
            for visual / (visual + system), in [0, 1].
        key_types: (B, Lk), to distinguish a prompt without system turn from one with zero system
            mass; without it both are errors.
        sample_ids: (B, L) integers, the sample of each token in packed rows; negative for no
            sample. None if every row is one sample.
        visual, system: key types that stand for the image and the system turn, for types of
            ``attach(classify=)``.

    Returns:
        Scalar tensor, differentiable.

    Raises:
        ValueError: the form is unknown, the mask does not fit or is empty, a sample in the mask has
            no system turn (or, without key types, no system mass), or a mass of 0 makes the score
            infinite.
    """
    options = {"visual": visual, "system": system}
    return score_table(mass, query_mask, eps, form, key_types, sample_ids, **options).mean()


def score_table(
    mass: MassByLayer,
    query_mask: Tensor,
    eps: float = 0.0,
    form: str = "ratio",
    key_types: Tensor | None = None,
    sample_ids: Tensor | None = None,
    *,
    visual: int = KeyType.VISUAL,
    system: int = KeyType.SYSTEM,
) -> Tensor:
    """The same score averaged over the queries only, as a (layers, H) table. Its rows are in
    ascending order of the layers' indices if ``mass`` is a mapping, else in the order given."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}.")
    layers = as_layers(mass)
    check_types(layers, visual=visual, system=system)
    chosen = check_mask("query_mask", query_mask, layers)
    if not chosen.any():
        raise ValueError(
            "query_mask must select at least one query; it is all false. Check the role and the"
            " batch."
        )
    require_system_turn(layers, chosen, key_types, sample_ids, system)
    rows = torch.stack([layer[chosen] for layer in layers])  # (layers, queries, H, C)
    return score_of(rows[..., visual], rows[..., system], eps, form).mean(dim=1)


def score_of(visual: Tensor, system: Tensor, eps: float, form: str) -> Tensor:
    """Elementwise score of a pair of masses in the given form; raises if one is not finite, which
    waits for the device."""
    score = unchecked_score(visual, system, eps, form)
    if torch.isnan(visual).any() or torch.isnan(system).any():
        raise ValueError(
            "mass must not be NaN; some query's is. Check the model's weights and activations."
        )
    if not torch.isfinite(score).all():
        raise ValueError(
            f"the {form} of visual and system mass must be finite; some query gives one of them"
            " exactly 0. Pass a small eps such as 1e-6, or use form='share'."
        )
    return score


def unchecked_score(visual: Tensor, system: Tensor, eps: float, form: str) -> Tensor:
    """``score_of`` without its checks."""
    if form == "share":
        return visual / (visual + system + eps)
    if form == "ratio":
        return visual / (system + eps)
    return torch.log(visual + eps) - torch.log(system + eps)


def require_system_turn(
    layers: list[Tensor],
    chosen: Tensor,
    key_types: Tensor | None = None,
    sample_ids: Tensor | None = None,
    system: int = KeyType.SYSTEM,
) -> None:
    """Raises ValueError if a sample with chosen queries has no system turn; without key types, if
    its queries have no system mass."""
    if key_types is None:
        has_system = layers[0].new_zeros(chosen.shape, dtype=torch.bool)
        for layer in layers:  # NaN is not a missing turn; ``score_of`` names it
            has_system |= ~(layer[..., system] == 0).all(dim=-1)
        has_system &= chosen
    else:
        has_system = (key_types == system).to(chosen.device)
    if sample_ids is None:
        lacking = chosen.any(dim=1) & ~has_system.any(dim=1)
    else:
        ids = check_ids(sample_ids, layers, has_system)
        num_ids = max(int(ids.max()) + 1, 1)
        chosen_of, system_of = (
            torch.bincount(ids[mask & (ids >= 0)], minlength=num_ids)
            for mask in (chosen, has_system)
        )
        lacking = (chosen_of > 0) & (system_of == 0)
    if lacking.any():
        sample = int(lacking.int().argmax())
        vanished = "" if key_types is not None else ", or its queries give them no mass at all"
        raise ValueError(
            "every sample must have a system turn for the visual attention score; sample"
            f" {sample} has no SYSTEM keys{vanished}. Add a system message (the data pipeline does"
            " by default)."
        )
