"""The completions under way: one row each, with a KV cache from which rows leave and to which new
ones come."""

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ..attention import set_cached_ids

ROOM = 64  # tokens that a cache has place for when it grows, so that most steps copy one token


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer as views into buffers with room for the tokens to come."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        length = held + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < length:
            before = self._buffers = (
                _with_room(key_states, length + ROOM),
                _with_room(value_states, length + ROOM),
            )
            if held:
                for buffer, x in zip(before, self.held, strict=True):
                    buffer[:, :, :held] = x
        keys, values = self._buffers
        keys[:, :, held:length] = key_states
        values[:, :, held:length] = value_states
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        return self.keys, self.values

    @property
    def held(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Holds these (rows, Hkv, L, D) tensors instead."""
        self.keys, self.values, self._buffers = keys, values, None


def _with_room(x: Tensor, length: int) -> Tensor:
    return x.new_empty(*x.shape[:2], length, x.shape[-1])


class DecodingRows:
    """Rows that are completed together.

    Args:
        layers: (rows, Hkv, L, D) keys and values of each.
        ids: (rows, L) tokens behind them, padded on the left.
        mask: (rows, L) bool, true where there is a token.
        deltas: (rows, 1) offset from a row's token count to its rotary position.
        logits: (rows, V) of the token that comes next.
        owners: which completion each row is.
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
        """(3, rows, 1): rotary position of the last token, the same in time, height and width."""
        position = self.mask.sum(dim=1, keepdim=True) - 1 + self.deltas
        return position.expand(3, -1, -1)

    def feed(self, model: nn.Module, tokens: Tensor) -> None:
        """Adds a (rows,) token to each row and finds the logits of the next."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        # Rotary positions are given: the model would take them from what it remembers of its last
        # forward with images, whichever that was.
        self.logits = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask.long(),
            position_ids=self.positions(),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def repeat(self, times: int) -> None:
        """Each row as often, side by side, owned by as many completions in turn."""
        self.ids, self.mask, self.deltas, self.logits = (
            x.repeat_interleave(times, dim=0)
            for x in (self.ids, self.mask, self.deltas, self.logits)
        )
        self.owners = [owner * times + copy for owner in self.owners for copy in range(times)]
        for layer in self.layers:
            layer.replace(*(x.repeat_interleave(times, dim=0) for x in layer.held))
        set_cached_ids(self.cache, self.ids)

    def keep(self, rows: list[int]) -> None:
        """Leaves only the chosen rows (indices), and drops columns that none of them needs."""
        chosen = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[chosen]
        start = int(mask.int().argmax(dim=1).min())
        self.ids, self.mask = self.ids[chosen, start:], mask[:, start:]
        self.deltas, self.owners = self.deltas[chosen], [self.owners[i] for i in rows]
        self.logits = self.logits[chosen]
        for layer in self.layers:
            layer.replace(*(x[chosen, :, start:] for x in layer.held))
        set_cached_ids(self.cache, self.ids)

    def join(self, others: "DecodingRows") -> None:
        """Takes in other rows, whose caches may be longer or shorter."""
        length = max(self.ids.shape[1], others.ids.shape[1])
        both = (self, others)
        self.ids = torch.cat([_widened(rows.ids, length) for rows in both])
        self.mask = torch.cat([_widened(rows.mask, length) for rows in both])
        self.deltas = torch.cat([rows.deltas for rows in both])
        self.logits = torch.cat([rows.logits for rows in both])
        self.owners = [*self.owners, *others.owners]
        for mine, its in zip(self.layers, others.layers, strict=True):
            pairs = zip(mine.held, its.held, strict=True)
            mine.replace(*(torch.cat([_widened(x, length, dim=2) for x in pair]) for pair in pairs))
        set_cached_ids(self.cache, self.ids)


def _widened(x: Tensor, length: int, dim: int = 1) -> Tensor:
    """Zeros before what there is along a dimension, up to a length."""
    missing = length - x.shape[dim]
    padding = (0, 0) * (x.dim() - 1 - dim) + (missing, 0)
    return torch.nn.functional.pad(x, padding) if missing else x
