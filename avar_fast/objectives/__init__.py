"""AGTO, VARS and the GRPO family: pure functions on tensors."""

from .agto import ENHANCED, AgtoParts, agto_loss
from .agto_schedule import scheduled_weight, scheduled_weights
from .grpo import POLICY_LOSSES, PolicyStats, group_advantages, informative_groups, policy_loss
from .importance import ImportanceWeights, importance_weights
from .liger_nll import liger_fits, liger_nll
from .linear_log_probs import HeadMemoryError, linear_log_probs
from .overlong import overlong_penalty
from .token_advantages import token_advantages
from .visual_reward import total_reward, visual_reward

__all__ = [
    "ENHANCED",
    "POLICY_LOSSES",
    "AgtoParts",
    "HeadMemoryError",
    "ImportanceWeights",
    "PolicyStats",
    "agto_loss",
    "group_advantages",
    "importance_weights",
    "informative_groups",
    "liger_fits",
    "liger_nll",
    "linear_log_probs",
    "overlong_penalty",
    "policy_loss",
    "scheduled_weight",
    "scheduled_weights",
    "token_advantages",
    "total_reward",
    "visual_reward",
]
