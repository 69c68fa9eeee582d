"""Rewards of completions: built-in rules, and user functions in processes that can be killed."""

from .answer_checker import CHECKERS, AnswerChecker
from .answers import Reference, extract_answer, has_format, is_correct
from .completions import Completions
from .functions import Reward, TrainerState
from .rules import RULES
from .scoring import RewardError, RewardProblem, Rewards, Scored

__all__ = [
    "CHECKERS",
    "RULES",
    "AnswerChecker",
    "Completions",
    "Reference",
    "Reward",
    "RewardError",
    "RewardProblem",
    "Rewards",
    "Scored",
    "TrainerState",
    "extract_answer",
    "has_format",
    "is_correct",
]
