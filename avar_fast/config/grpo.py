"""The section of stage grpo."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ..rewards import RULES
from .ranges import require_not_negative, require_positive, require_within

VISUAL = "visual"
"""The name of VARS among the rewards."""
PAPER_REWARDS: Mapping[str, float] = MappingProxyType({"accuracy": 1.0, VISUAL: 0.3, "format": 0.1})


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    group_size: int = 8
    """Completions per prompt."""
    max_new_tokens: int = 2048
    temperature: float = 1.0
    """Of sampling and of the log-probabilities alike."""
    prompts_per_generation: int = 8
    """Prompts that are sampled from together on one rank; as completions end, others take their
    place."""
    rewards: dict[str, float] = field(default_factory=lambda: dict(PAPER_REWARDS))
    """Weights by name: accuracy (math-verify), exact, multiple_choice, numeric, format, visual
    (VARS), and functions as ``package.module:function``, which are called as TRL calls its own. The
    default is AVAR's sum."""
    correct_by: str | None = None
    """The reward that is at least 0.5 for a right answer, which VARS asks for and the log counts as
    accuracy; null for the first of ``rewards``."""
    on_reward_error: Literal["stop", "zero"] = "stop"
    """A function that raises, hangs, or returns NaN or the wrong number: end the run and name the
    row, or give 0 and count it."""
    reward_seconds: float = 60.0
    """For one function and all completions of a rank in a step; then its process is killed. A call
    of your function that fails is made again in parts, group by group and in those that fail one by
    one, for as long at most: the completions at fault are found, and the others keep their
    rewards."""
    reward_row_seconds: float = 5.0
    """For one completion in accuracy, whose other completions go on; in a call that is made again,
    for each of its completions."""
    reward_processes: int = 2
    """That share the completions of accuracy, on each rank."""
    numeric_tolerance: float = 0.01
    """Share of the reference that the reward numeric lets an answer be off by."""
    visual_form: Literal["ratio", "log_ratio", "share"] = "ratio"
    visual_clip: float | None = None
    """Upper bound of VARS; none in the paper."""
    visual_layers: tuple[int, ...] | None = None
    """Text layers whose masses VARS reads; null for all, as in the paper."""
    show_every: int = 50
    """Steps between tables of completions in the log; 0 shows none. All of them are in
    completions.jsonl."""
    show_count: int = 4
    """Completions in a table."""
    loss: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    """Weight of the k3 KL to the model of model.path; 0, as in AVAR, needs no second copy of it,
    nor do new adapters, whose reference is the model without them."""
    updates_per_rollout: int = 1
    """Optimizer steps on each set of completions."""
    sampling_rounds: int = 1
    """More than 1: sample up to so many times the prompts of a step, until every rank has its share
    of groups whose rewards differ (DAPO's dynamic sampling). A step then deals so many times
    train.batch_size rows; those it has no need of are passed over."""
    overlong_buffer: int = 0
    """Tokens before max_new_tokens over which a penalty grows to -1 (DAPO); 0 gives none."""
    mask_truncated: bool = False
    """Leave completions that reached max_new_tokens out of the loss."""
    importance_level: Literal["token", "sequence"] = "sequence"
    """Where another engine than the model itself sampled: weight the loss by the ratio of its
    probabilities per token or of whole completions."""
    importance_mode: Literal["truncate", "mask"] = "mask"
    """Weights outside importance_floor and importance_cap: cut to them, or 0."""
    importance_cap: float = 3.0
    importance_floor: float = 0.0

    @property
    def gate(self) -> str:
        """The reward that tells right answers."""
        scored = [name for name in self.rewards if name != VISUAL]
        return self.correct_by if self.correct_by is not None else scored[0]

    @property
    def visual_weight(self) -> float:
        return self.rewards.get(VISUAL, 0.0)

    @property
    def needs_answers(self) -> bool:
        """Whether every row must have an answer to check against."""
        return any(name in RULES and RULES[name].needs_answer for name in self.rewards)

    def check(self) -> None:
        """Raises ValueError for values out of range or that do not fit together."""
        if self.group_size < 2:
            raise ValueError(
                "grpo.group_size must be at least 2, completions are compared within a group; got"
                f" {self.group_size}."
            )
        positive = {
            "group_size": self.group_size,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "updates_per_rollout": self.updates_per_rollout,
            "prompts_per_generation": self.prompts_per_generation,
            "sampling_rounds": self.sampling_rounds,
            "reward_seconds": self.reward_seconds,
            "reward_row_seconds": self.reward_row_seconds,
            "reward_processes": self.reward_processes,
            "importance_cap": self.importance_cap,
            "visual_clip": 1.0 if self.visual_clip is None else self.visual_clip,
        }
        not_negative = {
            "clip_high": self.clip_high,
            "kl_coef": self.kl_coef,
            "numeric_tolerance": self.numeric_tolerance,
            "show_every": self.show_every,
            "show_count": self.show_count,
        }
        require_positive({f"grpo.{name}": value for name, value in positive.items()})
        require_not_negative({f"grpo.{name}": value for name, value in not_negative.items()})
        # Colder, logits leave float32's range; it is greedy long before.
        require_within({"grpo.temperature": (self.temperature, 1e-4, 1e6)})
        require_within({"grpo.kl_coef": (self.kl_coef, 0, 1e6)})
        if not 0 <= self.clip_low <= 1:
            raise ValueError(f"grpo.clip_low must be in [0, 1]; got {self.clip_low}.")
        if not 0 <= self.overlong_buffer <= self.max_new_tokens:
            raise ValueError(
                f"grpo.overlong_buffer must be between 0 and grpo.max_new_tokens ="
                f" {self.max_new_tokens}; got {self.overlong_buffer}."
            )
        if not 0 <= self.importance_floor <= 1 <= self.importance_cap < math.inf:
            raise ValueError(
                "grpo.importance_floor must be in [0, 1] and grpo.importance_cap at least 1; got"
                f" {self.importance_floor} and {self.importance_cap}."
            )
        self._check_rewards()

    def _check_rewards(self) -> None:
        known = (*RULES, VISUAL)
        for name, weight in self.rewards.items():
            module, _, function = name.partition(":")
            if name not in known and not (module and function):
                raise ValueError(
                    f"grpo.rewards must name {', '.join(known)} or package.module:function; got"
                    f" {name!r}."
                )
            if not math.isfinite(weight):  # a negative one is the user's experiment
                raise ValueError(f"grpo.rewards.{name} must be finite; got {weight}.")
            require_within({f"grpo.rewards.{name}": (weight, -1e6, 1e6)})
        scored = [name for name in self.rewards if name != VISUAL]
        if not scored or (self.correct_by is not None and self.correct_by not in scored):
            raise ValueError(
                "grpo.correct_by must be one of grpo.rewards other than visual, which tells right"
                f" answers; got {self.correct_by!r} and {', '.join(self.rewards) or 'no rewards'}."
            )
        shown = [reward_label(name) for name in self.rewards]
        if len(set(shown)) < len(shown):
            raise ValueError(
                f"grpo.rewards must have names of their own in the log; got {', '.join(shown)}."
                " Rename a function."
            )


def reward_label(name: str) -> str:
    """A reward's name in the log: a function's without its module."""
    return name.rpartition(":")[2]
