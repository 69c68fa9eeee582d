"""Stage grpo: a step samples completions, rewards them and updates the policy."""
