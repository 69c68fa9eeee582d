"""The layers of a cache whose rows can leave and join."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

ROOM = 64  # tokens that a cache grows by, so that most steps copy a single token


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, as views of buffers with room for future tokens."""

    column: Tensor | None = None
    """(1,) int64: while set, tokens are written to this column of the buffers, and attention gets
    whole buffers. Nothing then depends on the number of tokens, so a CUDA graph can replay it."""
    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if self.column is not None:
            assert self._buffers is not None
            for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
                buffer.index_copy_(2, self.column, new)
            return self._buffers
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        num_cached = self.get_seq_length()
        length = num_cached + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < length:
            self.reserve(length + ROOM, key_states, value_states)
            assert self._buffers is not None
        keys, values = self._buffers
        keys[:, :, num_cached:length] = key_states
        values[:, :, num_cached:length] = value_states
        self.show(length)
        return self.cached

    def reserve(self, capacity: int, key_states: Tensor, value_states: Tensor) -> None:
        """Makes buffers of this many tokens, which hold the cached ones. The given (rows, Hkv, any,
        D) tensors tell their other dimensions and dtype."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        num_cached = self.get_seq_length()
        self._buffers = _with_room(key_states, capacity), _with_room(value_states, capacity)
        if num_cached:
            for buffer, x in zip(self._buffers, self.cached, strict=True):
                buffer[:, :, :num_cached] = x
            self.show(num_cached)

    def show(self, length: int) -> None:
        """Makes the first tokens of the buffers the cached ones."""
        assert self._buffers is not None
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

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
