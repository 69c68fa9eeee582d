"""GRPO with VARS in TRL 1.16: our sampling as a ``rollout_func``, VARS and our rules for answers as
reward functions."""

from ...extras import needs

with needs("avar_fast.integrations.trl"):
    from .reward import vars_reward
    from .rollout import rollout
    from .rule import rule_reward

__all__ = ["rollout", "rule_reward", "vars_reward"]
