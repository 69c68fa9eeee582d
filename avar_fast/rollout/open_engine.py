"""Opens the engine that a rollout configuration names, for training and evaluation."""

from pathlib import Path

from ..config.rollout import RolloutConfig
from .engine import RolloutEngine


def open_engine(
    config: RolloutConfig,
    own_engine: RolloutEngine,
    *,
    path: str,
    dtype: str,
    system_prompt: str | None,
    max_length: int | None,
    min_length: int,
    max_rows: int,
    weights_folder: Path | None = None,
) -> RolloutEngine:
    """The engine of ``config.engine``; all ranks call this together.

    Args:
        config: section ``rollout`` of a recipe.
        own_engine: returned for engine "model".
        path: folder or hub name of whole weights, for vLLM in this process.
        dtype: of these weights; a server has its own.
        system_prompt: of rows without a system turn; a server applies the chat template itself.
        max_length: most tokens of prompt and completion together that vLLM in this process must
            take; None for the model's own limit.
        min_length: tokens of prompt and completion that a server must take.
        max_rows: most completions under way at the same time.
        weights_folder: where rank 0 writes trained weights for a server; None where weights never
            change.

    Raises:
        RolloutError: vLLM or openai is not installed, the server does not answer, or it takes
            fewer tokens.
    """
    if config.engine == "model":
        return own_engine
    if config.engine == "vllm":
        from .vllm_colocated import VllmEngine

        return VllmEngine(path, dtype, config, max_length, max_rows)
    from .vllm_server import VllmServer

    return VllmServer(config, weights_folder, system_prompt, min_length)
