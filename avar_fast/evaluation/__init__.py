"""Evaluation of checkpoints."""

from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
