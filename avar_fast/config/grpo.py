"""The section ``grpo``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ..rewards import RULES
from .ranges import (
    LARGEST_WEIGHT,
    named_values,
    require_not_negative,
    require_positive,
    require_weights,
    require_within,
)

VISUAL = "visual"
"""The name of VARS among the rewards."""
PAPER_REWARDS: Mapping[str, float] = MappingProxyType({"accuracy": 1.0, VISUAL: 0.3, "format": 0.1})


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """Sampling, rewards and policy loss of stage grpo. The section ``rollout`` chooses the engine
    that samples."""

    group_size: int = 8
    """Completions per prompt. The rewards of a group are compared with one another. The default is
    AVAR's."""
    max_new_tokens: int = 2048
    """Largest number of tokens in a completion."""
    temperature: float = 1.0
    """Temperature of sampling. Log-probabilities in the loss are taken at the same temperature."""
    prompts_per_generation: int = 8
    """Prompts that one rank samples from at the same time. When a completion ends, the next one
    takes its place. A larger number is faster and takes more memory."""
    rewards: dict[str, float] = field(default_factory=lambda: dict(PAPER_REWARDS))
    """Weights of the rewards by name; a completion gets the weighted sum. Built in are accuracy
    (math-verify), exact, multiple_choice, numeric, format and visual (VARS). A function of your own
    is named ``package.module:function`` and is called as TRL calls its reward functions. In
    place of a completion's number it may return a list of one number per token. The default is
    AVAR's sum."""
    correct_by: str | None = None
    """The reward that tells right answers: a value of at least 0.5 is right. VARS is given to right
    answers only, and the log counts them as accuracy. Null takes the first of ``grpo.rewards``
    other than visual."""
    on_reward_error: Literal["stop", "zero"] = "stop"
    """What to do when a reward function raises, hangs, or returns NaN or the wrong number of
    values. ``stop`` ends the run and names the row. ``zero`` gives 0 and counts the failure."""
    reward_seconds: float = 60.0
    """Time limit in seconds for one reward function over all completions of a rank in one step. A
    function that takes longer is killed. When a call of your own function fails, its completions
    are tried again in smaller parts, within the same limit once more. So only the completions at
    fault lose their rewards."""
    reward_row_seconds: float = 5.0
    """Time limit in seconds for one completion, in the reward accuracy and in repeated calls of
    your own functions."""
    reward_processes: int = 2
    """Processes per rank that compute the reward accuracy."""
    numeric_tolerance: float = 0.01
    """Largest relative error that the reward numeric accepts, as a share of the reference."""
    visual_form: Literal["ratio", "log_ratio", "share"] = "ratio"
    """How VARS compares the visual mass V with the system mass S of a token: ``ratio`` is V / S,
    ``log_ratio`` is log(V / S), ``share`` is V / (V + S). The paper's form is the ratio; it can be
    large and outweigh accuracy."""
    visual_clip: float | None = None
    """Largest absolute value of VARS, before its weight. Null does not clip, as in the paper."""
    visual_layers: tuple[int, ...] | None = None
    """Text layers whose masses VARS and ``visual_share`` in the log read, by their index in the
    model, from 0. Null takes all that have attention, as in the paper."""
    loss: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    """Form of the policy loss: GRPO (arXiv 2402.03300), Dr. GRPO (2503.20783), DAPO (2503.14476),
    GSPO (2507.18071) or CISPO (2506.13585)."""
    clip_low: float = 0.2
    """The policy ratio is clipped below at 1 - ``grpo.clip_low``. GSPO uses about 3e-4."""
    clip_high: float = 0.2
    """The policy ratio is clipped above at 1 + ``grpo.clip_high``. DAPO uses 0.28, GSPO about
    4e-4."""
    kl_coef: float = 0.0
    """Weight of the KL divergence (estimator k3) from the model that ``model.path`` holds. 0 is
    AVAR's value. Another value keeps a second copy of that model in memory, except with new
    adapters: the model without them is the reference."""
    shared_prompts: bool = True
    """Read a prompt once for its completions in scoring and update. A group becomes one stretch,
    the prompt and then its completions, and groups are laid end to end in rows of up to
    ``grpo.pack_length`` tokens. If false, every completion has a copy of the prompt."""
    pack_length: int | None = None
    """Largest number of tokens in a row of shared prompts, at least ``data.max_length +
    grpo.max_new_tokens``. A group that does not fit in a row is split, and each part has the
    prompt. Null takes ``train.micro_batch_size`` times that sum. A larger number is faster and
    takes more memory."""
    scoring: Literal["auto", "always"] = "auto"
    """When a separate pass scores completions before the update. ``auto`` leaves the pass out
    where its values are known without it: with ``rollout.engine=model``, one update per rollout,
    no KL term and no dropout. The old log-probabilities are then those of the update's own forward,
    and VARS is computed from the masses that sampling records. If a completion opens a system turn,
    which changes the types of keys that were already read, the masses of its round are scored."""
    updates_per_rollout: int = 1
    """Optimizer steps on each set of completions."""
    sampling_rounds: int = 1
    """Largest number of sampling rounds in a step (DAPO's dynamic sampling). Rounds are added until
    every rank has its share of groups whose rewards differ. A step takes
    ``grpo.sampling_rounds * train.batch_size`` rows from the data; rows that no round needs are
    skipped."""
    overlong_buffer: int = 0
    """Tokens before ``grpo.max_new_tokens`` over which a penalty on long completions grows from 0
    to -1 (DAPO). 0 gives no penalty."""
    mask_truncated: bool = False
    """Leave completions that reached ``grpo.max_new_tokens`` out of the loss."""
    importance_level: Literal["token", "sequence"] = "sequence"
    """Importance correction of completions that vLLM sampled: the loss is weighted by the ratio of
    the model's probability to vLLM's, per token or per completion. Unused with
    ``rollout.engine=model``."""
    importance_mode: Literal["truncate", "mask"] = "mask"
    """What happens to an importance ratio below ``grpo.importance_floor`` or above
    ``grpo.importance_cap``: ``truncate`` moves it to the bound, ``mask`` makes it 0."""
    importance_cap: float = 3.0
    """Upper bound of the importance ratio; at least 1."""
    importance_floor: float = 0.0
    """Lower bound of the importance ratio, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(
                "grpo.group_size must be at least 2, completions are compared within a group; got"
                f" {self.group_size}."
            )
        positive = (
            "group_size", "max_new_tokens", "temperature", "updates_per_rollout",
            "prompts_per_generation", "sampling_rounds", "reward_seconds", "reward_row_seconds",
            "reward_processes", "importance_cap", "visual_clip", "pack_length",
        )  # fmt: skip
        require_positive(named_values("grpo", self, *positive))
        if self.pack_length is not None and not self.shared_prompts:
            raise ValueError(
                "grpo.pack_length belongs to grpo.shared_prompts=true; got grpo.shared_prompts="
                "false. Set train.micro_batch_tokens instead."
            )
        not_negative = "clip_high", "kl_coef", "numeric_tolerance"
        require_not_negative(named_values("grpo", self, *not_negative))
        # Colder, logits leave float32's range; it is greedy long before.
        require_within({"grpo.temperature": (self.temperature, 1e-4, 1e6)})
        require_within({"grpo.kl_coef": (self.kl_coef, 0, LARGEST_WEIGHT)})
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
            require_weights({f"grpo.rewards.{name}": weight})
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


def reward_label(name: str) -> str:
    """A reward's name in the log: a function's without its module."""
    return name.rpartition(":")[2]
