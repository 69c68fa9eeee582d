"""Evaluation of checkpoints."""

from .exact_match import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
