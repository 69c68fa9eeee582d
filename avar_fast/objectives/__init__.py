"""AGTO, VARS and the GRPO family: pure functions on tensors."""

from .agto import AgtoParts, agto_loss
from .grpo import (
    POLICY_LOSSES,
    PolicyStats,
    group_advantages,
    informative_groups,
    policy_loss,
)
from .log_probs import token_log_probs
from .visual_reward import total_reward, visual_reward

__all__ = [
    "POLICY_LOSSES",
    "AgtoParts",
    "PolicyStats",
    "agto_loss",
    "group_advantages",
    "informative_groups",
    "policy_loss",
    "token_log_probs",
    "total_reward",
    "visual_reward",
]
