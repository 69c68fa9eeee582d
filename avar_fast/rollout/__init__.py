"""Rollout engines: they sample completions of prompts."""

from .engine import ModelEngine, RolloutEngine, RolloutError
from .generate import Reading, Rollouts, Sampling, generate, greedy_texts, without_end
from .vllm_samples import WrongEngineError

__all__ = [
    "ModelEngine",
    "Reading",
    "RolloutEngine",
    "RolloutError",
    "Rollouts",
    "Sampling",
    "WrongEngineError",
    "generate",
    "greedy_texts",
    "without_end",
]
