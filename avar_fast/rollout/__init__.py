"""Generation engines."""

from .engine import ModelEngine, RolloutEngine
from .generate import Reading, Rollouts, Sampling, generate, greedy_texts
from .vllm_samples import WrongEngineError

__all__ = [
    "ModelEngine",
    "Reading",
    "RolloutEngine",
    "Rollouts",
    "Sampling",
    "WrongEngineError",
    "generate",
    "greedy_texts",
]
