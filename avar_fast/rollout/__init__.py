"""Rollout engines: they sample completions of prompts."""

from .engine import ModelEngine, RolloutEngine, RolloutError
from .generate import PromptContext, Rollouts, Sampling, generate, greedy_texts, without_end
from .open_engine import open_engine
from .vllm_samples import WrongEngineError

__all__ = [
    "ModelEngine",
    "PromptContext",
    "RolloutEngine",
    "RolloutError",
    "Rollouts",
    "Sampling",
    "WrongEngineError",
    "generate",
    "greedy_texts",
    "open_engine",
    "without_end",
]
