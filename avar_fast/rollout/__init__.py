"""Generation engines."""

from .generate import Rollouts, Sampling, generate, greedy_texts

__all__ = ["Rollouts", "Sampling", "generate", "greedy_texts"]
