"""Whole steps of GRPO, each trainer in a process of its own; they take turns step by step."""
