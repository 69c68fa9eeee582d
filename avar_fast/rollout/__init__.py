"""Generation engines."""

from .generate import Rollouts, generate, greedy_texts

__all__ = ["Rollouts", "generate", "greedy_texts"]
