"""The batch of unfinished completions: a KV cache that rows can leave and join, behind the caches
of their prompts."""

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from ..attention import SharedPrompts, cache_argument, set_cached_ids, set_prompts

ROOM = 64  # tokens that a cache grows by, so that most steps copy a single token


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, as views of buffers with room for future tokens."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        num_cached = self.get_seq_length()
        length = num_cached + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < length:
            buffers = self._buffers = (
                _with_room(key_states, length + ROOM),
                _with_room(value_states, length + ROOM),
            )
            if num_cached:
                for buffer, x in zip(buffers, self.cached, strict=True):
                    buffer[:, :, :num_cached] = x
        keys, values = self._buffers
        keys[:, :, num_cached:length] = key_states
        values[:, :, num_cached:length] = value_states
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        return self.keys, self.values

    @property
    def cached(self) -> tuple[Tensor, Tensor]:
        """The cached keys and values, (rows, Hkv, L, D) each."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Replaces the cached keys and values by these (rows, Hkv, L, D) tensors."""
        self.keys, self.values, self._buffers = keys, values, None


def _with_room(x: Tensor, length: int) -> Tensor:
    return x.new_empty(*x.shape[:2], length, x.shape[-1])


class RecurrentLayer(LinearAttentionLayer):
    """The states of one recurrent layer, in which every row has its own."""

    def choose(self, rows: Tensor) -> None:
        """Keeps the rows with these indices, which may repeat."""
        self.reorder_cache(rows)  # pyright: ignore[reportArgumentType]

    def append(self, others: "RecurrentLayer") -> None:
        """Appends the rows of others."""
        for mine, theirs in (
            (self.conv_states, others.conv_states),
            (self.recurrent_states, others.recurrent_states),
        ):
            for index, state in mine.items():
                other = theirs[index]
                if state is not None and other is not None:
                    mine[index] = torch.cat([state, other])


class DecodingRows:
    """Rows that are completed together. Rows of one prompt share its cached keys.

    Args:
        prompts: the prompts, and the prompt of each row.
        starts: (rows, 1) rotary position of a row's first token, behind its prompt.
        logits: (rows, V) logits of the next token.
        owners: index of the completion of each row.
        recurrent: {layer: states} of the recurrent layers behind the rows' prompts.
    """

    def __init__(
        self,
        prompts: SharedPrompts,
        starts: Tensor,
        logits: Tensor,
        owners: list[int],
        recurrent: dict[int, RecurrentLayer],
    ) -> None:
        self.attention = {layer: RoomyLayer() for layer in prompts.layers}
        self.recurrent = recurrent
        by_layer = sorted((self.attention | recurrent).items())
        self.cache = Cache(layers=[layer for _, layer in by_layer])  # pyright: ignore[reportArgumentType]
        self.prompts, self.starts, self.logits, self.owners = prompts, starts, logits, owners
        self.ids = torch.empty(len(owners), 0, dtype=torch.int64, device=logits.device)
        self.mask = torch.empty_like(self.ids, dtype=torch.bool)
        set_prompts(self.cache, prompts)

    def __len__(self) -> int:
        return len(self.owners)

    def positions(self) -> Tensor:
        """(3, rows, 1): rotary position of the last token, equal in time, height and width."""
        position = self.mask.sum(dim=1, keepdim=True) - 1 + self.starts
        return position.expand(3, -1, -1)

    def feed(self, model: nn.Module, tokens: Tensor) -> None:
        """Appends (rows,) tokens, one to each row, and computes the logits of the next tokens."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), 1)], dim=1)
        # Without position_ids the model would use its offsets from its last forward with images,
        # which may have been of another batch.
        self.logits = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask.long(),
            position_ids=self.positions(),
            use_cache=True,
            logits_to_keep=1,
            **{cache_argument(model): self.cache},
        ).logits[:, -1]

    def keep(self, rows: list[int]) -> None:
        """Keeps only the rows with these indices, and drops columns that are padding in all of
        them."""
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
