"""The batch of unfinished completions, with a KV cache that rows can leave and join."""

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ..attention import set_cached_ids

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


class DecodingRows:
    """Rows that are completed together.

    Args:
        layers: cached keys and values of each layer, (rows, Hkv, L, D).
        ids: (rows, L) int64 tokens of the keys, padded on the left.
        mask: (rows, L) bool, false for padding.
        deltas: (rows, 1) offset from a row's token count to its rotary position.
        logits: (rows, V) logits of the next token.
        owners: index of the completion of each row.
    """

    def __init__(
        self,
        layers: list[RoomyLayer],
        ids: Tensor,
        mask: Tensor,
        deltas: Tensor,
        logits: Tensor,
        owners: list[int],
    ) -> None:
        self.layers, self.cache = layers, Cache(layers=layers)  # pyright: ignore[reportArgumentType]
        self.ids, self.mask = ids, mask
        self.deltas, self.logits, self.owners = deltas, logits, owners

    def __len__(self) -> int:
        return len(self.owners)

    def positions(self) -> Tensor:
        """(3, rows, 1): rotary position of the last token, equal in time, height and width."""
        position = self.mask.sum(dim=1, keepdim=True) - 1 + self.deltas
        return position.expand(3, -1, -1)

    def feed(self, model: nn.Module, tokens: Tensor) -> None:
        """Appends (rows,) tokens, one to each row, and computes the logits of the next tokens."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        # Without position_ids the model would use its offsets from its last forward with images,
        # which may have been of another batch.
        self.logits = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask.long(),
            position_ids=self.positions(),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def repeat(self, times: int) -> None:
        """Repeats each row ``times`` times, for as many completions of its prompt."""
        self.ids, self.mask, self.deltas, self.logits = (
            x.repeat_interleave(times, dim=0)
            for x in (self.ids, self.mask, self.deltas, self.logits)
        )
        self.owners = [owner * times + copy for owner in self.owners for copy in range(times)]
        for layer in self.layers:
            layer.replace(*(x.repeat_interleave(times, dim=0) for x in layer.cached))
        set_cached_ids(self.cache, self.ids)

    def keep(self, rows: list[int]) -> None:
        """Keeps only the rows with these indices, and drops columns that are padding in all of
        them."""
        chosen = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[chosen]
        start = int(mask.int().argmax(dim=1).min())
        self.ids, self.mask = self.ids[chosen, start:], mask[:, start:]
        self.deltas, self.owners = self.deltas[chosen], [self.owners[i] for i in rows]
        self.logits = self.logits[chosen]
        for layer in self.layers:
            layer.replace(*(x[chosen, :, start:] for x in layer.cached))
        set_cached_ids(self.cache, self.ids)

    def join(self, others: "DecodingRows") -> None:
        """Appends other rows, whose caches may be longer or shorter."""
        length = max(self.ids.shape[1], others.ids.shape[1])
        both = (self, others)
        self.ids = torch.cat([_widened(rows.ids, length) for rows in both])
        self.mask = torch.cat([_widened(rows.mask, length) for rows in both])
        self.deltas = torch.cat([rows.deltas for rows in both])
        self.logits = torch.cat([rows.logits for rows in both])
        self.owners = [*self.owners, *others.owners]
        for layer, other in zip(self.layers, others.layers, strict=True):
            pairs = zip(layer.cached, other.cached, strict=True)
            layer.replace(*(torch.cat([_widened(x, length, 2) for x in pair]) for pair in pairs))
        set_cached_ids(self.cache, self.ids)


def _widened(x: Tensor, length: int, dim: int = 1) -> Tensor:
    """Pads a dimension with zeros on the left, up to a length."""
    missing = length - x.shape[dim]
    padding = (0, 0) * (x.dim() - 1 - dim) + (missing, 0)
    return torch.nn.functional.pad(x, padding) if missing else x
