"""GRPO with VARS in TRL 1.16: our sampling as a ``rollout_func``, VARS and our rules for answers as
reward functions."""

from avar_kernels import check_versions

from ...extras import needs

TESTED = {"trl": ("1.16", "1.16")}

with needs("avar_fast.integrations.trl"):
    from .reward import vars_reward
    from .rollout import rollout
    from .rule import rule_reward

check_versions(TESTED)

__all__ = ["rollout", "rule_reward", "vars_reward"]
