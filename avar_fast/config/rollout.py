"""The section of what samples completions."""

from dataclasses import dataclass
from typing import Literal

from .ranges import require_positive


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    engine: Literal["model", "vllm", "vllm_server"] = "model"
    """The model itself, vLLM in each rank's process, or a vLLM server."""
    gpu_memory: float = 0.4
    """Share of a GPU's memory that vLLM in a rank's process may take; on a CPU kv_cache_gib
    counts."""
    kv_cache_gib: float | None = None
    """GiB for vLLM's keys and values instead of what gpu_memory leaves."""
    cuda_graphs: bool = True
    """vLLM captures CUDA graphs and compiles; off, it starts faster and decodes slower."""
    sleep: bool = False
    """vLLM in a rank's process gives its GPU memory back while the model is updated."""
    server_url: str | None = None
    """Of the server, as http://host:8000; it must have been started with VLLM_SERVER_DEV_MODE=1."""
    server_folder: str | None = None
    """Where weights are put for the server to read, a path that is the same for both; null for
    ``rollout_weights`` in train.output_dir."""
    server_seconds: float = 300.0
    """For the server to become reachable at the start, and for each of its answers."""
    server_requests: int = 64
    """Prompts under way at the server at the same time, per rank."""
    largest_gap: float = 1.0
    """Nats that the log-probabilities of vLLM and of the model may differ per token, on average
    over a step; beyond, vLLM does not hold the model's weights, and the run ends."""

    def check(self) -> None:
        """Raises ValueError for values out of range or that do not fit together."""
        positive = {
            "gpu_memory": self.gpu_memory,
            "server_seconds": self.server_seconds,
            "server_requests": self.server_requests,
            "largest_gap": self.largest_gap,
            "kv_cache_gib": 1.0 if self.kv_cache_gib is None else self.kv_cache_gib,
        }
        require_positive({f"rollout.{name}": value for name, value in positive.items()})
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
