"""What a user could use instead, each as a function of q, k, v and key types.

A provider returns out and mass; the mass is None if it has none. ``CANNOT_RUN`` says why the others
do not run on this machine.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from avar_kernels import KeyPlan, available_backends, plan_keys, visual_attn_func
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import one_hot, scaled_dot_product_attention

from .shapes import DEVICE, EAGER_MAX_LENGTH, HEAD_DIM, HEADS, KV_HEADS, NUM_TYPES, Inputs

Provider = Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Tensor | None]]
PLAN_INCLUDED = "_plan_included"  # in the names of providers that make the plan in each call
GROUP = HEADS // KV_HEADS


def ours(backend: str) -> Provider:
    """Our operation on a plan of the keys, which a model makes once for all its layers."""

    def run(q, k, v, plan):
        result = visual_attn_func(q, k, v, plan, causal=True, backend=backend)
        return result.out, result.mass

    return run


def ours_with_plan(backend: str) -> Provider:
    """The same, with the plan made in the call."""
    on_plan = ours(backend)
    return lambda q, k, v, types: on_plan(q, k, v, plan_keys(types))


def keys_for(name: str, types: Tensor) -> Tensor | KeyPlan:
    """What a provider is given as key types."""
    planned = name.startswith("avar_") and not name.endswith(PLAN_INCLUDED)
    return plan_keys(types) if planned else types


def eager_output_attentions(q, k, v, types):
    """What AVAR's released code does: transformers' eager attention, all weights kept."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(GROUP, dim=1) for x in (k, v))
    length = q.shape[2]
    mask = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    logits = q @ k.transpose(2, 3) * HEAD_DIM**-0.5 + mask
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(q.dtype)
    mass = weights @ one_hot(types.long(), NUM_TYPES).to(q.dtype)[:, None]
    return (weights @ v).transpose(1, 2), mass.transpose(1, 2)


def sdpa_without_mass(q, k, v, types):
    """The lower bound: torch's fused attention, which returns no mass."""
    out = _sdpa(q, k, v)
    return out.transpose(1, 2), None


def second_sdpa_call(q, k, v, types):
    """Attention twice, the second time to indicator values (padded to the head dimension)."""
    indicator = one_hot(types.long(), HEAD_DIM).to(v.dtype)[:, :, None].expand(-1, -1, KV_HEADS, -1)
    mass = _sdpa(q, k, indicator)[..., :NUM_TYPES]
    return _sdpa(q, k, v).transpose(1, 2), mass.transpose(1, 2)


def flex_attention_without_mass(q, k, v, types):
    """FlexAttention, compiled, with its own block mask; it returns no mass either."""
    from torch.nn.attention.flex_attention import create_block_mask

    length = q.shape[1]
    if length not in _block_masks:
        _block_masks[length] = create_block_mask(
            lambda b, h, i, j: i >= j, None, None, length, length, device=q.device
        )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = _compiled_flex()(q, k, v, block_mask=_block_masks[length], enable_gqa=True)
    return out.transpose(1, 2), None


def partition_with_lse_merge(q, k, v, types):
    """One attention per type over its own keys, merged by logsumexp: the mass is the merge weight.

    It is exact and fused, but causal masking needs a mask per type, because the keys of one type
    are not a prefix.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(GROUP, dim=1) for x in (k, v))
    length = q.shape[2]
    position = torch.arange(length, device=q.device)
    outs, lses = [], []
    for channel in range(NUM_TYPES):
        keys = (types[0] == channel).nonzero()[:, 0]
        hidden = keys[None, :] > position[:, None]
        mask = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device)
        mask = mask.masked_fill(hidden, torch.finfo(q.dtype).min)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k[:, :, keys], v[:, :, keys], 0.0, False, attn_mask=mask[None, None]
        )
        outs.append(out)
        lses.append(torch.where(hidden.all(1), float("-inf"), lse))
    weights = torch.softmax(torch.stack(lses, dim=-1).float(), dim=-1)  # (B, H, L, types)
    out = sum(o * weights[..., c, None].to(o.dtype) for c, o in enumerate(outs))
    return out.transpose(1, 2), weights.transpose(1, 2)  # pyright: ignore


_block_masks: dict[int, object] = {}


def _compiled_flex() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    if "flex" not in _compiled:
        _compiled["flex"] = torch.compile(flex_attention)
    return _compiled["flex"]


_compiled: dict[str, Callable] = {}


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def flash_attention(module: str) -> Provider:
    """flash_attn_func of an installed flash-attn generation; no mass."""

    def run(q, k, v, types):
        result = importlib.import_module(module).flash_attn_func(q, k, v, causal=True)
        return result[0] if isinstance(result, tuple) else result, None

    return run


def cudnn_without_mass(q, k, v, types):
    """torch's attention with cuDNN's kernel; no mass."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return _sdpa(q, k, v).transpose(1, 2), None


ANYWHERE: dict[str, Provider] = {
    "eager_output_attentions": eager_output_attentions,
    "sdpa_without_mass": sdpa_without_mass,
    "second_sdpa_call": second_sdpa_call,
    "partition_with_lse_merge": partition_with_lse_merge,
    "flex_attention_without_mass": flex_attention_without_mass,
}
ON_GPU: dict[str, tuple[str | None, Provider]] = {
    "cudnn_without_mass": (None, cudnn_without_mass),
    "flash_attn_2": ("flash_attn", flash_attention("flash_attn")),
    "flash_attn_3": ("flash_attn_interface", flash_attention("flash_attn_interface")),
    "flash_attn_4": ("flash_attn.cute", flash_attention("flash_attn.cute")),
}


def _installed(module: str | None) -> bool:
    if module is None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not installed
        return False


def _select() -> tuple[dict[str, Provider], dict[str, str]]:
    """The providers that run on this machine, and why the others do not."""
    run: dict[str, Provider] = {}
    cannot = {"liger": "Liger-Kernel has no attention kernel"}
    for name, status in available_backends().items():
        if not status:
            cannot[f"avar_{name}"] = status.reason
        elif name != "eager" and (DEVICE == "cpu") == (name in ("sdpa", "cpu")):
            run[f"avar_{name}"] = ours(name)
            if DEVICE != "cpu":
                run[f"avar_{name}{PLAN_INCLUDED}"] = ours_with_plan(name)
    run |= ANYWHERE
    for name, (module, provider) in ON_GPU.items():
        if DEVICE == "cpu":
            cannot[name] = "needs a GPU"
        elif not _installed(module):
            cannot[name] = f"the package {module} is not installed"
        else:
            run[name] = provider
    return run, cannot


PROVIDERS, CANNOT_RUN = _select()


def why_not(name: str, length: int, mode: str) -> str | None:
    """Why a provider cannot take this case; None if it can."""
    if name == "eager_output_attentions" and length > EAGER_MAX_LENGTH:
        return f"keeps L x L matrices, not tried above L = {EAGER_MAX_LENGTH}"
    if DEVICE == "cpu" and mode != "forward":
        if name == "flex_attention_without_mass":
            return "FlexAttention has no backward on CPU"
        if name == "partition_with_lse_merge":
            return "torch's fused CPU operator gives lse no gradient"
    if DEVICE != "cpu" and name == "partition_with_lse_merge":
        return "written on torch's fused CPU operator, which returns lse"
    return None


def calls(name: str, inputs: Inputs, mode: str):
    """``calls_of`` a provider by its name, with the keys that it is given."""
    return calls_of(PROVIDERS[name], inputs, keys_for(name, inputs.types), mode)


def calls_of(run: Provider, inputs: Inputs, keys: Tensor | KeyPlan, mode: str):
    """The call that is timed for a provider in a mode, and its setup or None. No call waits for the
    device."""
    q, k, v, _, grad_out, grad_mass = inputs

    def forward():
        run(q.detach(), k.detach(), v.detach(), keys)

    def with_graph():
        out, mass = run(q, k, v, keys)
        outputs = [(out, grad_out)] if mass is None else [(out, grad_out), (mass, grad_mass)]
        return ([x for x, _ in outputs], [g.to(x.dtype) for x, g in outputs]), {}

    def backward(outputs, grads):
        torch.autograd.grad(outputs, (q, k, v), grads)

    def both():
        backward(*with_graph()[0])

    return {
        "forward": (forward, None),
        "backward": (backward, with_graph),
        "forward_backward": (both, None),
    }[mode]
