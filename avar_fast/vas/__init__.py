"""The Visual Attention Score."""

from .score import FORMS, score_table, visual_attention_score

__all__ = ["FORMS", "score_table", "visual_attention_score"]
