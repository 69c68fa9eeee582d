"""Stage grpo: each step samples completions, rewards them and updates the policy."""
