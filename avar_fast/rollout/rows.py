"""The batch of unfinished completions: a KV cache that rows can leave and join, behind the caches
of their prompts."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers import Cache

from ..attention import (
    SharedPrompts,
    cache_argument,
    record_attention,
    set_cached_ids,
    set_prompts,
)
from .cache_layers import RecurrentLayer, RoomyLayer
from .decoding_graph import DecodingGraph


class DecodingRows:
    """Rows that are completed together. Rows of one prompt share its cached keys.

    Args:
        prompts: the prompts, and the prompt of each row.
        starts: (rows, 1) rotary position of a row's first token, behind its prompt.
        logits: (rows, V) logits of the next token.
        owners: index of the completion of each row.
        recurrent: {layer: states} of the recurrent layers behind the rows' prompts.
        graphs: whether the rows decode in fixed steps, which a GPU replays from a CUDA graph.
    """

    def __init__(
        self,
        prompts: SharedPrompts,
        starts: Tensor,
        logits: Tensor,
        owners: list[int],
        recurrent: dict[int, RecurrentLayer],
        graphs: bool,
    ) -> None:
        self.attention = {layer: RoomyLayer() for layer in prompts.layers}
        self.recurrent = recurrent
        by_layer = sorted((self.attention | recurrent).items())
        self.cache = Cache(layers=[layer for _, layer in by_layer])  # pyright: ignore[reportArgumentType]
        self.prompts, self.starts, self.logits, self.owners = prompts, starts, logits, owners
        self.ids = torch.empty(len(owners), 0, dtype=torch.int64, device=logits.device)
        self.mask = torch.empty_like(self.ids, dtype=torch.bool)
        set_prompts(self.cache, prompts)
        self.graphs, self._graph = graphs, None

    def __len__(self) -> int:
        return len(self.owners)

    def positions(self) -> Tensor:
        """(3, rows, 1): rotary position of the last token, equal in time, height and width."""
        position = self.mask.sum(dim=1, keepdim=True) - 1 + self.starts
        return position.expand(3, -1, -1)

    def feed(
        self, model: nn.Module, tokens: Tensor, mass_layers: tuple[int, ...] = ()
    ) -> Tensor | None:
        """Appends (rows,) tokens, one to each row, and computes the logits of the next tokens.

        Returns:
            (rows, layers, C) float32, the masses of the tokens in ``mass_layers``, summed over
            heads; None without such layers.
        """
        if self._graph is not None and self._graph.capacity == self.ids.shape[1]:
            self._leave_graph()
        if self.graphs and self._graph is None:
            num_tokens = self.ids.shape[1] + 1
            self._graph = DecodingGraph(
                model, self.attention, self.prompts, num_tokens, mass_layers
            )
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), 1)], dim=1)
        if self._graph is not None:
            self.logits, masses = self._graph.step(self.ids, self.mask, self.positions())
            return masses
        with record_attention(model, mass_layers) if mass_layers else nullcontext() as recording:
            # Without position_ids the model would use its offsets from its last forward with
            # images, which may have been of another batch.
            self.logits = model(
                input_ids=tokens[:, None],
                attention_mask=self.mask.long(),
                position_ids=self.positions(),
                use_cache=True,
                logits_to_keep=1,
                **{cache_argument(model): self.cache},
            ).logits[:, -1]
        if recording is None:
            return None
        return torch.stack([recording.mass[i][:, -1].sum(dim=1) for i in mass_layers], dim=1)

    def _leave_graph(self) -> None:
        """Shows the tokens that a graph has written to the layers of the cache."""
        if self._graph is not None:
            for layer in self.attention.values():
                layer.show(self.ids.shape[1])
            self._graph = None

    def keep(self, rows: list[int]) -> None:
        """Keeps only the rows with these indices, and drops columns that are padding in all of
        them."""
        self._leave_graph()
        chosen = torch.tensor(rows, device=self.mask.device)
        self.starts, self.owners = self.starts[chosen], [self.owners[i] for i in rows]
        self.logits = self.logits[chosen]
        self.prompts = self.prompts.keep(chosen)
        set_prompts(self.cache, self.prompts)
        for layer in self.recurrent.values():
            layer.choose(chosen)
        if not self.ids.shape[1]:  # nothing was fed yet
            self.ids, self.mask = self.ids[chosen], self.mask[chosen]
            return
        mask = self.mask[chosen]
        start = int(mask.int().argmax(dim=1).min())
        self.ids, self.mask = self.ids[chosen, start:], mask[:, start:]
        for layer in self.attention.values():
            layer.replace(*(x[chosen, :, start:] for x in layer.cached))
        set_cached_ids(self.cache, self.ids)

    def join(self, others: "DecodingRows") -> None:
        """Appends rows that have no tokens yet."""
        self._leave_graph()
        length, added = self.ids.shape[1], len(others)
        self.ids = torch.cat([self.ids, self.ids.new_zeros(added, length)])
        self.mask = torch.cat([self.mask, self.mask.new_zeros(added, length)])
        self.starts = torch.cat([self.starts, others.starts])
        self.logits = torch.cat([self.logits, others.logits])
        self.owners = [*self.owners, *others.owners]
        self.prompts = self.prompts.join(others.prompts)
        set_prompts(self.cache, self.prompts)
        for index, layer in self.recurrent.items():
            layer.append(others.recurrent[index])
        if length:
            for layer in self.attention.values():
                layer.replace(*(_with_empty_rows(x, added) for x in layer.cached))
        set_cached_ids(self.cache, self.ids)


def _with_empty_rows(x: Tensor, count: int) -> Tensor:
    return torch.cat([x, x.new_zeros(count, *x.shape[1:])])
