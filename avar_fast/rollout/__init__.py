"""Generation engines."""

from .generate import Reading, Rollouts, Sampling, generate, greedy_texts

__all__ = ["Reading", "Rollouts", "Sampling", "generate", "greedy_texts"]
