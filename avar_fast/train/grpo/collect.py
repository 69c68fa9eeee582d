"""A step's completions: sampled, rewarded, scored under the sampling policy, and chosen."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...attention import record_attention
from ...config.grpo import VISUAL
from ...data import Batch, Sample
from ...models.flops import Work
from ...objectives import group_advantages, informative_groups, overlong_penalty, total_reward
from ...rollout import RolloutEngine
from ..forward import evaluating, label_log_probs
from ..run import Run
from ..throughput import work_of
from .completion import Completion, MicroBatch, by_row, micro_batch
from .completion_log import CompletionLog, records_of
from .reference import Reference
from .reward import CompletionRewards, judge, visual_rewards
from .sample import prepare_rollout, require_same_weights, sample, sampling_gaps


class Tally:
    """Sums over the completions of a step, for the log."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, name: str, total: float, count: float) -> None:
        mine = self.sums.setdefault(name, [0.0, 0.0])
        mine[0] += total
        mine[1] += count

    def means(self, run: Run) -> dict[str, float | None]:
        """Over all ranks; None where there was nothing."""
        flat = run.engine.sum_over_ranks(*(x for pair in self.sums.values() for x in pair))
        pairs = zip(self.sums, flat[::2], flat[1::2], strict=True)
        return {name: total / count if count else None for name, total, count in pairs}


@dataclass
class RolloutBatch:
    micro_batches: list[MicroBatch]
    metrics: dict[str, float | None]
    scored: list[Work]
    """Of every forward that scored completions, those that were passed over included."""


@dataclass
class _Step:
    """What a step's rounds leave behind."""

    number: int
    """Counted from 1."""
    tally: Tally = field(default_factory=Tally)
    scored: list[Work] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


@dataclass(frozen=True)
class Collector:
    """Collects the completions of each step; all ranks together."""

    run: Run
    rollout: RolloutEngine
    reference: Reference | None
    log: CompletionLog

    def collect(self, step: int) -> RolloutBatch:
        """The completions of one step (counted from 0) in micro-batches.

        With ``grpo.sampling_rounds`` the step has so many times its prompts. Round by round they
        are sampled, until every rank has its share of groups whose rewards differ (DAPO's dynamic
        sampling, arXiv 2503.14476, section 3.2); what is lacking after the last round is filled
        with the others.

        Raises:
            WrongEngineError: the engine that sampled does not hold the model's weights.
        """
        run, grpo, this = self.run, self.run.recipe.grpo, _Step(step + 1)
        dealt: list[Sample] = [s for some in run.feed.next_step() for s in some]
        share = len(dealt) // grpo.sampling_rounds
        groups: list[list[Completion]] = []
        rounds = 0
        with this.timed("sync_seconds"):
            prepare_rollout(run, self.rollout)
        for start in range(0, len(dealt), share):
            groups += self._round(this, dealt[start : start + share])
            rounds += 1
            lacking = share - sum(group[0].informative for group in groups)
            if rounds < grpo.sampling_rounds and not run.engine.sum_over_ranks(max(lacking, 0))[0]:
                break
        self.rollout.sleep()
        # Informative ones first, then in the order they came.
        best = sorted(range(len(groups)), key=lambda i: (not groups[i][0].informative, i))[:share]
        chosen = [completion for i in sorted(best) for completion in groups[i]]
        size = run.recipe.train.micro_batch_size
        batches = [micro_batch(run, chosen[i : i + size]) for i in range(0, len(chosen), size)]
        for some in batches:
            if some.bounded is not None:
                count = len(some.counted)
                this.tally.add("importance_bounded", float(some.bounded) * count, count)
        metrics = this.tally.means(run)
        require_same_weights(run, metrics.get("log_prob_gap"))
        if grpo.sampling_rounds > 1:
            metrics["sampling_rounds"] = float(rounds)
        return RolloutBatch(batches, metrics | this.seconds, this.scored)

    def _round(self, this: _Step, prompts: list[Sample]) -> list[list[Completion]]:
        """Samples and scores a group per prompt."""
        run, grpo = self.run, self.run.recipe.grpo
        with this.timed("generation_seconds"):
            try:
                completions = sample(run, self.rollout, prompts)
            except FloatingPointError as error:  # on this rank; the others may have found none
                rows = (prompt.row.where for prompt in prompts)
                what = "a logit of the sampling policy"
                raise run.diverged(math.nan, this.number, rows, what) from error
        samples = [completion.sample for completion in completions]
        with this.timed("reward_seconds"):
            judged = judge(run, samples, this.number)
        with this.timed("scoring_seconds"):
            visual = self._score(this, completions, judged.correct)
        if VISUAL in grpo.rewards:  # zeros where its weight is 0
            judged.values[VISUAL] = visual
        _tally_gaps(completions, this.tally)
        rewards = _weigh(run, completions, judged, this.tally)
        advantages = torch.tensor([completion.advantage for completion in completions])
        records = records_of(run, samples, judged.texts, judged.values, rewards, advantages)
        self.log.write(this.number, records)
        count = grpo.group_size
        return [completions[i : i + count] for i in range(0, len(completions), count)]

    def _score(self, this: _Step, completions: list[Completion], correct: Tensor) -> Tensor:
        """Log-probabilities of all completions, of the reference too; (N,) VARS."""
        size, visual = self.run.recipe.train.micro_batch_size, []
        for i in range(0, len(completions), size):
            some = completions[i : i + size]
            batch = self.run.collate([completion.sample for completion in some])
            this.scored.append(work_of(batch))
            visual.append(_score(self.run, batch, some, correct[i : i + size]))
            if self.reference is not None:
                rows = by_row(batch, self.reference.log_probs(batch))
                for completion, values in zip(some, rows, strict=True):
                    completion.ref_log_probs = values
        return torch.cat(visual)


def _tally_gaps(completions: list[Completion], tally: Tally) -> None:
    if completions[0].sampling_log_probs is not None:
        gaps = sampling_gaps(completions)
        # Also of a rank that sampled no token at all: names are the same on all ranks.
        tally.add("log_prob_gap", float(gaps.sum()), len(gaps))


def _weigh(
    run: Run, completions: list[Completion], judged: CompletionRewards, tally: Tally
) -> Tensor:
    """Total rewards (N,), and from them each completion's advantage."""
    grpo, count = run.recipe.grpo, len(completions)
    rewards = total_reward(judged.values, grpo.rewards)
    lengths = torch.tensor([len(c.sample.target_ids) for c in completions])
    if grpo.overlong_buffer:
        penalties = overlong_penalty(lengths, grpo.max_new_tokens, grpo.overlong_buffer)
        rewards = rewards + penalties
        tally.add("overlong_penalty", float(penalties.sum()), count)
    advantages = group_advantages(rewards, grpo.group_size, scale_by_std=grpo.loss != "dr_grpo")
    informative = informative_groups(rewards, grpo.group_size)
    for i, completion in enumerate(completions):
        completion.advantage = advantages[i].item()
        completion.informative = bool(informative[i // grpo.group_size])
    tally.add("reward", float(rewards.sum()), count)
    tally.add("accuracy", float(judged.correct.sum()), count)
    for name, (total, applied) in judged.means().items():
        tally.add(name, total, applied)
    tally.add("completion_tokens", float(lengths.sum()), count)
    tally.add("truncated", sum(c.truncated for c in completions), count)
    tally.add("informative_groups", float(informative.sum()), len(informative))
    tally.add("reward_failures", judged.num_failed, count)
    return rewards


@torch.no_grad()
def _score(run: Run, batch: Batch, some: list[Completion], correct: Tensor) -> Tensor:
    """Log-probabilities under the sampling policy, and VARS, from one forward; (B,) VARS."""
    grpo, model = run.recipe.grpo, run.engine.module
    options = (run.head, grpo.temperature, run.tokens.visual)
    visual = torch.zeros(len(some))
    with evaluating(model):
        if grpo.visual_weight:
            with record_attention(model, grpo.visual_layers) as recording:
                old = label_log_probs(model, batch, *options).log_probs
            visual = visual_rewards(run, recording, batch, correct).cpu()
        else:
            old = label_log_probs(model, batch, *options).log_probs
    for completion, values in zip(some, by_row(batch, old), strict=True):
        completion.old_log_probs = values
    return visual
