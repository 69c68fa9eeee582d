"""Collects the completions of a step: samples, rewards and scores them, and chooses those for the
update."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ...config.grpo import VISUAL
from ...data import Sample
from ...models.flops import Work
from ...rollout import RolloutEngine
from ..run import Run
from .advantage import set_advantages
from .completion import Completion, MicroBatch, forwards_of, micro_batch
from .completion_log import CompletionLog, records_of
from .reference import Reference
from .reward import have_system_turn, reward_completions, visual_rewards
from .sample import prepare_rollout, require_same_weights, sample, sampling_gaps
from .scoring import needs_scoring, opens_system_turn, recorded_layers, score, score_masses
from .tally import Tally
from .visual_share import gather_layers, tally_visual_share


@dataclass
class RolloutBatch:
    """The completions of one step, ready for the update."""

    micro_batches: list[MicroBatch]
    metrics: dict[str, float | dict[int, float] | None]
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
        batches = [micro_batch(run, chosen, forward) for forward in forwards_of(run, chosen)]
        _tally_shared(chosen, batches, current.tally)
        for batch in batches:
            if batch.bounded is not None:
                count = len(batch.counted)
                current.tally.add("importance_bounded", float(batch.bounded) * count, count)
        means = current.tally.means(run)
        require_same_weights(run, means.get("log_prob_gap"))
        metrics = gather_layers(recorded_layers(run), means)
        if grpo.sampling_rounds > 1:
            metrics["sampling_rounds"] = float(rounds)
        return RolloutBatch(batches, metrics | current.seconds, current.scored)

    def _round(self, current: _Step, prompts: list[Sample]) -> list[list[Completion]]:
        """Samples, rewards and scores one group of completions per prompt."""
        run, grpo, scores = self.run, self.run.recipe.grpo, needs_scoring(self.run)
        layers = recorded_layers(run)
        recorded = () if scores else layers
        with current.timed("generation_seconds"):
            try:
                completions = sample(run, self.rollout, prompts, recorded)
            except FloatingPointError as error:  # on this rank; the others may have no such error
                rows = (prompt.row.where for prompt in prompts)
                name = "a logit of the sampling policy"
                raise run.diverged(math.nan, current.number, rows, name) from error
        samples = [completion.sample for completion in completions]
        with current.timed("reward_seconds"):
            rewards = reward_completions(run, samples, current.number)
        if scores:
            with current.timed("scoring_seconds"):
                current.scored += score(run, completions, self.reference)
        elif recorded and opens_system_turn(run, completions):
            with current.timed("scoring_seconds"):
                current.scored += score_masses(run, completions)
        current.seconds["scoring_seconds"] += 0.0
        has_system = have_system_turn(run, completions)
        if VISUAL in grpo.rewards:  # all zeros if its weight is 0
            visual = visual_rewards(run, completions, rewards.correct, has_system)
            rewards = replace(rewards, values=rewards.values | {VISUAL: visual})
        tally_visual_share(layers, completions, has_system, current.tally)
        _tally_gaps(completions, current.tally)
        totals, advantages = set_advantages(run, completions, rewards, current.tally)
        records = records_of(samples, rewards.texts, rewards.values, totals, advantages)
        self.log.write(current.number, records)
        size = grpo.group_size
        return [completions[i : i + size] for i in range(0, len(completions), size)]


def _tally_shared(
    completions: list[Completion], micro_batches: list[MicroBatch], tally: Tally
) -> None:
    """Adds the share of prompt and completion tokens that the update does not run."""
    samples = [completion.sample for completion in completions]
    every = sum(len(s.prompt_ids) + len(s.target_ids) for s in samples)
    ran = sum(m.work.tokens for m in micro_batches)
    tally.add("prompt_tokens_shared", every - ran, every)


def _tally_gaps(completions: list[Completion], tally: Tally) -> None:
    if completions[0].sampling_log_probs is not None:
        gaps = sampling_gaps(completions)
        # A rank without any sampled token adds zeros: all ranks must have the same names.
        tally.add("log_prob_gap", float(gaps.sum()), len(gaps))
