"""Decoding steps whose tensors stay where they are, so that a CUDA graph can replay them.

An attached model derives key types from all token ids of a cache, whose number grows from step to
step. A fixed step reads the types from a tensor of constant shape instead, which the caller fills.
"""

from collections.abc import Iterable

import torch
from avar_kernels import plan_keys
from torch import Tensor, nn
from transformers import Cache

from .attached import attachment_of
from .attachment import Attachment
from .call import AttnCall
from .contexts import subset
from .prompts import SharedPrompts, set_call


class FixedStep:
    """The key types of decoding steps of one shape, which rows of shared prompts read.

    Forwards with ``cache`` then read these types. They derive none, and the caller tells positions.

    Args:
        model: an attached model; see ``takes_fixed_steps``.
        cache: a cache that gives every layer ``capacity`` keys, written or not.
        prompts: the prompts that the cache's R rows continue.
        capacity: number of keys.
        layers: text layers whose masses are recorded; none if empty.
    """

    def __init__(
        self,
        model: nn.Module,
        cache: Cache,
        prompts: SharedPrompts,
        capacity: int,
        layers: Iterable[int] = (),
    ) -> None:
        self._attachment = attachment = attachment_of(model)
        self._typing = typing = attachment.typing
        self._prompts, self._layers = prompts, tuple(layers)
        ids = torch.zeros(len(prompts.rows), capacity, dtype=torch.int64, device=prompts.ids.device)
        absent = torch.full_like(ids, -1, dtype=torch.int32)
        keys = plan_keys(absent, num_types=typing.num_types, sort=False)
        self._types = keys.key_types
        self._call = AttnCall(ids, keys, grad_enabled=False)  # only the number of ids is read
        self._call.num_types = typing.num_types
        self._call.prompts, self._call.prompt_plan = prompts.layers, prompts.plan(typing)
        if self._layers:
            self._call.record_layers = subset("layers", self._layers, attachment.layers)
        set_call(cache, self._call)

    def begin(self, ids: Tensor, mask: Tensor) -> None:
        """Fills in the types of the rows' own (R, L) tokens, L at most the capacity.

        Raises:
            RuntimeError: an intervention or a recording of the caller's is active, which the steps
                would not see, least of all in a graph that was captured before it.
        """
        if not _at_rest(self._attachment):
            raise RuntimeError(
                "intervene, record_attention and record_maps must not be active in fixed decoding"
                " steps, which do not see them. Decode without fixed steps and CUDA graphs there"
                " (takes_fixed_steps(model) is false inside)."
            )
        types = self._prompts.types_behind(ids, mask, self._typing)
        self._types[:, : ids.shape[1]].copy_(types)

    def start_recording(self) -> None:
        """The next forward records anew."""
        self._call.mass = {} if self._layers else None

    def masses(self) -> Tensor | None:
        """(R, layers, C) float32, the masses of the latest forward summed over heads."""
        mass = self._call.mass
        if mass is None:
            return None
        return torch.stack([mass[layer][:, -1].sum(dim=1) for layer in self._layers], dim=1)


def takes_fixed_steps(model: nn.Module) -> bool:
    """Whether a model can decode in fixed steps now: it belongs to a known family without recurrent
    layers, and its attention is neither changed nor recorded by the caller."""
    attachment = attachment_of(model)
    return attachment.is_family and not attachment.is_recurrent and _at_rest(attachment)


def _at_rest(attachment: Attachment) -> bool:
    return attachment.recording is attachment.maps is attachment.intervention is None
