"""Collects the completions of a step: samples, rewards and scores them, and chooses those for the
update."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...attention import record_attention
from ...config.grpo import VISUAL
from ...data import Batch, Sample
from ...models.flops import Work
from ...rollout import RolloutEngine
from ..forward import evaluating, label_log_probs
from ..run import Run
from ..throughput import work_of
from .advantage import set_advantages
from .completion import Completion, MicroBatch, by_row, micro_batch
from .completion_log import CompletionLog, records_of
from .reference import Reference
from .reward import reward_completions, visual_rewards
from .sample import prepare_rollout, require_same_weights, sample, sampling_gaps
from .tally import Tally


@dataclass
class RolloutBatch:
    """The completions of one step, ready for the update."""

    micro_batches: list[MicroBatch]
    metrics: dict[str, float | None]
    scored: list[Work]
    """The work of every forward that scored completions, also of completions not chosen."""


@dataclass
class _Step:
    """Totals of a step, over its sampling rounds."""

    number: int
    """Number of the step, counted from 1."""
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
        """Collects the completions of one step (counted from 0) in micro-batches.

        With ``grpo.sampling_rounds`` = R, the feed gives R times the prompts of a step. They are
        sampled in rounds until every rank has enough groups whose rewards differ (DAPO's dynamic
        sampling, arXiv 2503.14476, section 3.2). If groups are missing after the last round, groups
        with equal rewards fill the step.

        Raises:
            WrongEngineError: the sampling engine does not hold the model's weights.
            RewardError: a reward function failed and the recipe says to stop.
            TrainingDivergedError: a logit of the sampling policy is not finite.
        """
        run, grpo, current = self.run, self.run.recipe.grpo, _Step(step + 1)
        prompts: list[Sample] = [s for samples in run.feed.next_step() for s in samples]
        share = len(prompts) // grpo.sampling_rounds
        groups: list[list[Completion]] = []
        rounds = 0
        with current.timed("sync_seconds"):
            prepare_rollout(run, self.rollout)
        for start in range(0, len(prompts), share):
            groups += self._round(current, prompts[start : start + share])
            rounds += 1
            missing = share - sum(group[0].informative for group in groups)
            if rounds < grpo.sampling_rounds and not run.engine.sum_over_ranks(max(missing, 0))[0]:
                break
        self.rollout.sleep()
        # Informative groups come first, then the order of sampling decides.
        best = sorted(range(len(groups)), key=lambda i: (not groups[i][0].informative, i))[:share]
        chosen = [completion for i in sorted(best) for completion in groups[i]]
        size = run.recipe.train.micro_batch_size
        batches = [micro_batch(run, chosen[i : i + size]) for i in range(0, len(chosen), size)]
        for batch in batches:
            if batch.bounded is not None:
                count = len(batch.counted)
                current.tally.add("importance_bounded", float(batch.bounded) * count, count)
        metrics = current.tally.means(run)
        require_same_weights(run, metrics.get("log_prob_gap"))
        if grpo.sampling_rounds > 1:
            metrics["sampling_rounds"] = float(rounds)
        return RolloutBatch(batches, metrics | current.seconds, current.scored)

    def _round(self, current: _Step, prompts: list[Sample]) -> list[list[Completion]]:
        """Samples, rewards and scores one group of completions per prompt."""
        run, grpo = self.run, self.run.recipe.grpo
        with current.timed("generation_seconds"):
            try:
                completions = sample(run, self.rollout, prompts)
            except FloatingPointError as error:  # on this rank; the others may have no such error
                rows = (prompt.row.where for prompt in prompts)
                name = "a logit of the sampling policy"
                raise run.diverged(math.nan, current.number, rows, name) from error
        samples = [completion.sample for completion in completions]
        with current.timed("reward_seconds"):
            rewards = reward_completions(run, samples, current.number)
        with current.timed("scoring_seconds"):
            visual = self._score(current, completions, rewards.correct)
        if VISUAL in grpo.rewards:  # all zeros if its weight is 0
            rewards = replace(rewards, values=rewards.values | {VISUAL: visual})
        _tally_gaps(completions, current.tally)
        totals, advantages = set_advantages(run, completions, rewards, current.tally)
        records = records_of(samples, rewards.texts, rewards.values, totals, advantages)
        self.log.write(current.number, records)
        size = grpo.group_size
        return [completions[i : i + size] for i in range(0, len(completions), size)]

    def _score(self, current: _Step, completions: list[Completion], correct: Tensor) -> Tensor:
        """Sets the log-probabilities of all completions, also those of the reference; returns VARS
        as (N,) float32."""
        size, visual = self.run.recipe.train.micro_batch_size, []
        for i in range(0, len(completions), size):
            chunk = completions[i : i + size]
            batch = self.run.collate([completion.sample for completion in chunk])
            current.scored.append(work_of(batch))
            visual.append(_score_batch(self.run, batch, chunk, correct[i : i + size]))
            if self.reference is not None:
                rows = by_row(batch, self.reference.log_probs(batch))
                for completion, values in zip(chunk, rows, strict=True):
                    completion.ref_log_probs = values
        return torch.cat(visual)


def _tally_gaps(completions: list[Completion], tally: Tally) -> None:
    if completions[0].sampling_log_probs is not None:
        gaps = sampling_gaps(completions)
        # A rank without any sampled token adds zeros: all ranks must have the same names.
        tally.add("log_prob_gap", float(gaps.sum()), len(gaps))


@torch.no_grad()
def _score_batch(run: Run, batch: Batch, completions: list[Completion], correct: Tensor) -> Tensor:
    """Sets the log-probabilities under the sampling policy; returns VARS of the same forward as
    (B,) float32, zeros if its weight is 0."""
    grpo, model = run.recipe.grpo, run.engine.module
    options = (run.head, grpo.temperature, run.tokens.visual)
    visual = torch.zeros(len(completions))
    with evaluating(model):
        if grpo.visual_weight:
            with record_attention(model, grpo.visual_layers) as recording:
                old = label_log_probs(model, batch, *options).log_probs
            visual = visual_rewards(run, recording, batch, correct).cpu()
        else:
            old = label_log_probs(model, batch, *options).log_probs
    for completion, values in zip(completions, by_row(batch, old), strict=True):
        completion.old_log_probs = values
    return visual
