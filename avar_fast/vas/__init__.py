"""The Visual Attention Score (VAS)."""

from .score import FORMS, score_table, visual_attention_score

__all__ = ["FORMS", "score_table", "visual_attention_score"]
