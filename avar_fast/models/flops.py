"""Counts the model FLOPs of a forward and of a training step, from the shapes of matrix products.

A multiply-add is 2 FLOPs. With N_x the number of weights of part x, H and D the heads and their
dimension, the forward takes

    tokens * 2 N_text_layers + pairs * 4 H D * layers              text: products, attention
    + tokens * 6 H_v D_k D_v * recurrent layers                    text: gated delta rule
    + labels * 2 N_head                                            positions with a label
    + patches * 2 (N_patch_embedding + N_vision_blocks)            vision tower
    + vision_pairs * 4 H D * full blocks + window_pairs * 4 H D * windowed blocks
    + merged_tokens * 2 N_projectors

where a pair is a query and a key that it attends to: about L^2 / 2 pairs with causal masking. Of a
mixture of experts, N counts the experts that a token goes through. A step of the gated delta rule
reads its (D_k, D_v) state for the key and for the query and adds one outer product; that chunked
kernels use more products is not counted. The
backward takes twice the forward: one product for the gradient of the input and one for that of the
weight. Frozen weights have no gradient; their input has none either if nothing before them is
trained. Norms, softmax, rotary positions and lookups are not counted. A forward that gradient
checkpointing repeats is not counted: the model does not need it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from . import family_of


class Work(NamedTuple):
    """The work of a batch, in counts without padding."""

    tokens: float
    pairs: float
    """Pairs of a text query and a key that it attends to."""
    labels: float
    """Positions that go through the LM head."""
    patches: float
    vision_pairs: float
    """Pairs of patches of the same image."""
    window_pairs: float
    """Pairs of patches of the same window; 0 for towers without windows."""
    merged_tokens: float
    """Visual tokens."""


class Rates(NamedTuple):
    """FLOPs per unit of each kind of work."""

    token: float
    pair: float
    label: float
    patch: float
    vision_pair: float
    window_pair: float
    merged_token: float

    def flops(self, work: Work) -> float:
        """FLOPs of this work."""
        return sum(rate * amount for rate, amount in zip(self, work, strict=True))


class ModelFlops(NamedTuple):
    """FLOPs of one model."""

    forward: Rates
    """Rates of the forward pass."""
    training: Rates
    """Rates of forward and backward together, for the trained parameters."""


def model_flops(model: Any) -> ModelFlops:
    """Counts a model's FLOPs. Call it before the weights are sharded, which hides their sizes.

    Args:
        model: a model of a supported family, with ``requires_grad`` set as in training.
    """
    family = family_of(model)
    text, vision = family.text_tower(model), family.vision_tower(model)
    embedding, blocks = vision.patch_embed.proj.weight, vision.blocks
    projectors = nn.ModuleList(family.projectors(model))
    windowed = family.num_windowed_blocks(model)
    tower_learns = any(p.requires_grad for p in [embedding, *blocks.parameters()])
    image_learns = tower_learns or any(p.requires_grad for p in projectors.parameters())
    text_learns = image_learns or any(p.requires_grad for p in model.parameters())

    attention: Any = family.text_attention(model).values()
    text_pair = sum(4.0 * module.o_proj.in_features for module in attention)
    rule = sum(
        6.0 * m.num_v_heads * m.head_k_dim * m.head_v_dim
        for m in family.recurrent_layers(model).values()
    )
    vision_pair = 4.0 * blocks[0].attn.proj.in_features
    full = (len(blocks) - windowed) * vision_pair
    forward = Rates(
        token=_products(text.layers) + rule,
        pair=text_pair,
        label=_products(family.lm_head(model)),
        patch=2.0 * embedding.numel() + _products(blocks),
        vision_pair=full,
        window_pair=windowed * vision_pair,
        merged_token=_products(projectors),
    )
    training = Rates(
        token=_products(text.layers, text_learns) + rule * (3 if text_learns else 1),
        pair=text_pair * (3 if text_learns else 1),
        label=_products(family.lm_head(model), text_learns),
        # Pixels have no gradient.
        patch=2.0 * embedding.numel() * (2 if embedding.requires_grad else 1)
        + _products(blocks, tower_learns),
        vision_pair=full * (3 if tower_learns else 1),
        window_pair=windowed * vision_pair * (3 if tower_learns else 1),
        merged_token=_products(projectors, tower_learns or image_learns),
    )
    return ModelFlops(forward, training)


def _products(part: nn.Module, gradient_passes: bool | None = None) -> float:
    """FLOPs per row of all matrix products of a part with its weights: of the forward alone if
    ``gradient_passes`` is None, else with the backward (true: the input has a gradient)."""
    total = 0.0
    for weight, share in _matrices(part):
        passes = 1
        if gradient_passes is not None:
            passes += int(gradient_passes) + int(weight.requires_grad)
        total += 2.0 * passes * share * weight.numel()
    return total


def _matrices(part: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """Yields the weight of every product of a part, and the share of it that a row meets."""
    modules: Iterator[Any] = part.modules()
    for module in modules:
        if isinstance(module, nn.Linear | nn.Conv1d):  # a depthwise convolution over the tokens
            yield module.weight, 1.0
        elif hasattr(module, "experts"):  # a block of experts and their router
            router = module.gate
            yield router.weight, 1.0
            # The weights of all experts are one tensor, whose first dimension counts them.
            for stacked in (module.experts.gate_up_proj, module.experts.down_proj):
                yield stacked, router.top_k / router.num_experts
