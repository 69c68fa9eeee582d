"""GRPO with VARS in TRL 1.16: our sampling as a ``rollout_func``, VARS as a reward function."""

from .reward import vars_reward
from .rollout import rollout

__all__ = ["rollout", "vars_reward"]
