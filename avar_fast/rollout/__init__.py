"""Generation engines."""

from .generate import Rollouts, generate

__all__ = ["Rollouts", "generate"]
