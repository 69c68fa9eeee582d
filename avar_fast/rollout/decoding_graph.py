"""Decoding steps as a CUDA graph.

A step launches about a thousand small kernels, for which the host takes many times longer than the
device needs to run them. A graph launches all of them at once. Its tensors stay where they are, so
it holds for the same rows, until their cache is full.
"""

import contextlib
import functools

import torch
from torch import Tensor, nn
from transformers import Cache

from ..attention import FixedStep, SharedPrompts, cache_argument
from .cache_layers import RoomyLayer

ROOM = 128  # tokens that a graph has room for, at least; capturing takes as long as two steps


class DecodingGraph:
    """The steps of rows of shared prompts, one token for each row.

    The first step runs as usual, which compiles what is not compiled yet. The second is captured,
    and all from there on are replayed. On a CPU every step runs as usual.

    Args:
        model: an attached model that takes fixed steps, all weights on its device.
        layers: {layer: keys and values of the rows' own tokens}, which get room for more.
        prompts: the prompts that the rows continue.
        num_tokens: columns of the rows after the first step.
        mass_layers: layers whose masses are recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[int, RoomyLayer],
        prompts: SharedPrompts,
        num_tokens: int,
        mass_layers: tuple[int, ...],
    ) -> None:
        rows, device = len(prompts.rows), prompts.ids.device
        self.capacity = num_tokens + max(ROOM, num_tokens // 2)
        for index, layer in layers.items():
            layer.reserve(
                self.capacity, *(x[:1].expand(rows, -1, -1, -1) for x in prompts.layers[index])
            )
        self._model, self._layers = model, [layer for _, layer in sorted(layers.items())]
        self._cache = Cache(layers=[*self._layers])
        self._fixed = FixedStep(model, self._cache, prompts, self.capacity, mass_layers)
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._positions = self._tokens.expand(3, -1, -1).contiguous()
        self._column = self._tokens.new_zeros(1)
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: tuple[Tensor, Tensor | None] | None = None

    def step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Feeds the last of the rows' (R, L) tokens, whose rotary positions are (3, R, 1).

        Returns:
            (R, V) logits of the next tokens, which the next step overwrites, and the (R, layers, C)
            masses of ``mass_layers``, or None.

        Raises:
            RuntimeError: the step waits for the device, which a graph cannot contain.
        """
        self._tokens.copy_(ids[:, -1:])
        self._positions.copy_(positions)
        self._column.fill_(ids.shape[1] - 1)
        self._fixed.begin(ids, mask)
        self._steps += 1
        if self._steps == 1 or not ids.is_cuda:
            return self._forward()
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        assert self._results is not None
        self._graph.replay()
        logits, masses = self._results
        return logits, None if masses is None else masses.clone()

    def _forward(self) -> tuple[Tensor, Tensor | None]:
        self._fixed.start_recording()
        for layer in self._layers:
            layer.column = self._column
        try:
            logits = self._model(
                input_ids=self._tokens,
                position_ids=self._positions,
                use_cache=True,
                logits_to_keep=1,
                **{cache_argument(self._model): self._cache},
            ).logits[:, -1]
        finally:
            for layer in self._layers:
                layer.column = None
        return logits, self._fixed.masses()

    def _capture(self) -> None:
        graph, stream = torch.cuda.CUDAGraph(), _capture_stream(self._tokens.get_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Other threads, such as NCCL's watchdog, may go on to use the device.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._results = self._forward()
            except RuntimeError as error:
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise RuntimeError(
                    f"a decoding step of {type(self._model).__name__} cannot be captured in a CUDA"
                    f" graph: {error}. Set rollout.cuda_graphs=false, or pass cuda_graphs=False."
                ) from error
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = graph


@functools.cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """The stream of all captures, as cuBLAS keeps a workspace for every stream."""
    return torch.cuda.Stream(device)
