"""AGTO, the attention-guided training objective of AVAR (arXiv 2603.03825), added to the LM loss.

For sample b, layer l, head h, queries Q and the image or system keys K of the sample:

    m_img = 1 / (|Q| |K_img|) * sum_{q in Q} mass_q[VISUAL],   m_sys likewise with SYSTEM
    L_enh = - mean_{l, h} log(m_img + eps)
    L_sup = + mean_{l, h} log(m_sys + eps)
    loss  = mean_b (alpha * L_enh + beta * L_sup)

The mean over queries comes before the logarithm. The released code adds eps in both logarithms, as
here; the paper's equations have it in L_sup alone (``eps_in="suppress"``). Queries before the first
image key of their sample see none of it and do not count: for the user's turn these are the tokens
of its header. Samples without image keys, system keys or queries contribute nothing and are
counted, where a plain mean would add the constant -log eps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention.masses import MassByLayer, as_layers, check_ids, check_mask, check_types

EPS_IN = ("both", "suppress")
ENHANCED = {"image": KeyType.VISUAL, "text": KeyType.TEXT}
"""Keys of a recipe's ``agto.enhance_keys``; text is a placebo."""


class AgtoParts(NamedTuple):
    """The parts of the loss. The terms are unweighted and detached."""

    enhance: Tensor
    """Mean of L_enh over the counted samples, scalar."""
    suppress: Tensor
    """Mean of L_sup over the counted samples, scalar."""
    num_samples: Tensor
    """Number of samples with image keys, system keys and queries."""
    num_skipped: Tensor
    """Number of samples that lack one of them."""


def agto_loss(
    mass_by_layer: MassByLayer,
    query_mask: Tensor,
    key_types: Tensor,
    alpha: float = 0.15,
    beta: float = 0.15,
    eps: float = 1e-6,
    num_samples: Tensor | float | None = None,
    sample_ids: Tensor | None = None,
    num_ids: int | None = None,
    *,
    eps_in: str = "both",
    visual: int = KeyType.VISUAL,
    system: int = KeyType.SYSTEM,
) -> tuple[Tensor, AgtoParts]:
    """Raises attention on image keys, lowers it on system keys.

    Args:
        mass_by_layer: {layer: (B, L, H, 3)} from ``record_attention``.
        query_mask: (B, L), true for the queries Q (the user's text tokens by default in the
            trainer).
        key_types: (B, Lk) key types, which give |K_img| and |K_sys|.
        alpha, beta: weights of the two terms, 0.15 in the paper.
        eps: added inside the logarithms, 1e-6 in the paper.
        num_samples: divisor of the sum over samples; by default the counted samples of this batch
            (a trainer passes the count over all ranks and micro-batches).
        sample_ids: (B, L) integers, the sample of each token in packed rows; negative for no
            sample. None if every row is one sample.
        num_ids: number of sample ids; by default it is computed from ``sample_ids``, which waits
            for the device.
        eps_in: "both" logarithms, or "suppress" alone. The latter is infinite for a head that gives
            the image no weight at all.
        visual, system: key types that stand for the image and the system turn, for types of
            ``attach(classify=)``.

    Returns:
        loss: scalar with gradient; 0, still attached to the graph, if no sample counts.
        parts: AgtoParts.

    Raises:
        ValueError: shapes do not fit, eps is not positive, ``eps_in`` is unknown, or the masses
            have no such key types.
    """
    if not eps > 0:
        raise ValueError(f"eps must be positive, it keeps the logarithms finite; got {eps}.")
    if eps_in not in EPS_IN:
        raise ValueError(f"eps_in must be one of {', '.join(EPS_IN)}; got {eps_in!r}.")
    layers = as_layers(mass_by_layer)
    check_types(layers, visual=visual, system=system)
    queries = check_mask("query_mask", query_mask, layers)
    if key_types.dim() != 2 or key_types.shape[0] != queries.shape[0]:
        raise ValueError(
            f"key_types must be (B, Lk) with B = {queries.shape[0]}; got {tuple(key_types.shape)}."
        )
    if sample_ids is None:
        count, summed, seen = _by_row
    else:
        count, summed, seen = _by_id(check_ids(sample_ids, layers, key_types), num_ids)
    is_image = (key_types == visual).to(queries.device)
    queries = queries & seen(is_image)[:, -queries.shape[1] :]
    num_image = count(is_image)  # (N,) for N samples
    num_system = count(key_types == system)
    num_queries = count(queries)
    counts = (num_image > 0) & (num_system > 0) & (num_queries > 0)

    # (layers, N, H, C): attention a query gives to each type, averaged over the queries
    weights = queries.to(layers[0].dtype)
    mean_mass = torch.stack([summed(m, weights) for m in layers])
    mean_mass = mean_mass / num_queries.clamp(min=1)[:, None, None]
    per_image_key = mean_mass[..., visual] / num_image.clamp(min=1)[:, None]
    # A logarithm of 0 that is not used would still have a gradient of NaN.
    per_image_key = torch.where(counts[:, None], per_image_key, 1.0)
    per_system_key = mean_mass[..., system] / num_system.clamp(min=1)[:, None]
    eps_enhance = eps if eps_in == "both" else 0.0
    enhance = -torch.log(per_image_key + eps_enhance).mean(dim=(0, 2))  # (N,)
    suppress = torch.log(per_system_key + eps).mean(dim=(0, 2))

    enhance_sum = torch.where(counts, enhance, 0.0).sum()
    suppress_sum = torch.where(counts, suppress, 0.0).sum()
    counted = counts.sum()
    divisor = counted.clamp(min=1) if num_samples is None else num_samples
    loss = (alpha * enhance_sum + beta * suppress_sum) / divisor
    parts = AgtoParts(
        enhance=enhance_sum.detach() / counted.clamp(min=1),
        suppress=suppress_sum.detach() / counted.clamp(min=1),
        num_samples=counted,
        num_skipped=(~counts).sum(),
    )
    return loss, parts


_Sums = tuple[
    Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]
]
# Three functions: one counts a (B, L) mask per sample, one sums masses over each sample's queries,
# one finds the tokens at or behind the first true one of their sample.
_by_row: _Sums = (
    lambda mask: mask.sum(1),
    lambda mass, queries: torch.einsum("bqht,bq->bht", mass, queries),
    lambda mask: mask.cumsum(1) > 0,
)


def _by_id(sample_ids: Tensor, num_ids: int | None) -> _Sums:
    """The same functions for packed rows. They multiply with an (N, B, L) membership mask, because
    sums by index are not deterministic on a GPU."""
    num_ids = int(sample_ids.max()) + 1 if num_ids is None else num_ids
    ids = torch.arange(num_ids, device=sample_ids.device)
    member = sample_ids == ids[:, None, None]  # (N, B, L)
    return (
        lambda mask: (member & mask).sum((1, 2)),
        lambda mass, queries: torch.einsum("bqht,nbq->nht", mass, member * queries),
        lambda mask: (((member & mask).cumsum(2) > 0) & member).any(0),
    )
