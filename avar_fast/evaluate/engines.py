"""vLLM in place of the model's own generation."""

from ..config.rollout import RolloutConfig
from ..models import holds_adapters
from ..rollout import RolloutEngine
from .settings import Settings

LONGEST = 1 << 20  # tokens of prompt and completion; the model's own limit is below


def start_engine(
    path: str, dtype: str, config: RolloutConfig, settings: Settings, batch_size: int
) -> RolloutEngine:
    """An engine that has the weights of the path.

    Args:
        path: folder or hub name of whole weights.
        dtype: float32 or bfloat16; a server has its own.
        config: ``engine`` is vllm or vllm_server.
        settings: of the run.
        batch_size: questions under way at the same time.

    Raises:
        ValueError: the path holds adapters.
        RolloutError: vLLM or openai is not installed; the server does not answer, or takes fewer
            tokens than a completion may have.
    """
    if holds_adapters(path):
        raise ValueError(
            f"--engine {config.engine} needs whole weights; {path} holds adapters. Use --engine"
            " model, or merge them."
        )
    if config.engine == "vllm":
        from ..rollout.vllm_colocated import VllmEngine

        return VllmEngine(path, dtype, config, LONGEST, batch_size)
    from ..rollout.vllm_server import VllmServer

    return VllmServer(config, "", settings.system_prompt, settings.max_new_tokens)
