"""The trainer, ``torchrun -m avar_fast.train RECIPE``: stages sft and grpo on DeepSpeed."""
