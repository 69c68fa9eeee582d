"""Evaluation of checkpoints."""

from .exact_match import Evaluation, evaluate, greedy_texts

__all__ = ["Evaluation", "evaluate", "greedy_texts"]
