"""The section ``rollout``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import named_values, require_positive


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """The engine that samples completions in stage grpo."""

    engine: Literal["model", "vllm", "vllm_server"] = "model"
    """``model`` is the trained model itself, ``vllm`` is vLLM in each rank's process,
    ``vllm_server`` is a vLLM server."""
    gpu_memory: float = 0.4
    """Share of a GPU's memory that vLLM in a rank's process may take, below 1. The default leaves
    room for training on the same GPU. A CPU uses ``rollout.kv_cache_gib`` instead."""
    kv_cache_gib: float | None = None
    """GiB for vLLM's key-value cache. Null takes what ``rollout.gpu_memory`` leaves."""
    cuda_graphs: bool = True
    """On a GPU the model's own decoding steps are replayed from CUDA graphs, and vLLM compiles the
    model and captures graphs. If false, vLLM starts faster; both decode more slowly."""
    sleep: bool = False
    """vLLM in a rank's process gives its GPU memory back while the model is updated. Needs
    ``rollout.engine=vllm``."""
    server_url: str | None = None
    """Address of the vLLM server, as http://host:8000. The server must have been started with
    VLLM_SERVER_DEV_MODE=1."""
    server_folder: str | None = None
    """Folder in which the trainer puts weights for the server to read. Both must see it under the
    same path. Null takes ``rollout_weights`` in ``train.output_dir``."""
    server_seconds: float = 300.0
    """Time limit in seconds for the server to become reachable at the start, and for each of its
    answers."""
    server_requests: int = 64
    """Prompts that each rank has under way at the server at the same time."""
    largest_gap: float = 1.0
    """Largest mean difference between vLLM's and the model's log-probabilities, in nats per token
    over a step. A larger one means that vLLM does not hold the model's weights; the run then
    ends."""

    def __post_init__(self) -> None:
        positive = (
            "gpu_memory", "server_seconds", "server_requests", "largest_gap", "kv_cache_gib",
        )  # fmt: skip
        require_positive(named_values("rollout", self, *positive))
        if self.gpu_memory >= 1:
            raise ValueError(f"rollout.gpu_memory must be below 1; got {self.gpu_memory}.")
        is_server = self.engine == "vllm_server"
        if is_server and not (self.server_url or "").startswith(("http://", "https://")):
            raise ValueError(
                "rollout.server_url must be the address of a vLLM server, as http://host:8000; got"
                f" {self.server_url!r}."
            )
        if not is_server and (self.server_url or self.server_folder):
            raise ValueError(
                "rollout.server_url and rollout.server_folder belong to"
                f" rollout.engine=vllm_server; got rollout.engine={self.engine}."
            )
        if self.sleep and self.engine != "vllm":
            raise ValueError(
                f"rollout.sleep belongs to rollout.engine=vllm; got rollout.engine={self.engine}."
            )
