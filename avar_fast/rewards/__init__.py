"""Rewards: answer checking and format."""

from .answers import extract_answer, has_format, is_correct

__all__ = ["extract_answer", "has_format", "is_correct"]
