"""A step's completions: sampled, rewarded, scored under the sampling policy, and chosen."""

import dataclasses
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import record_attention
from ..config.grpo import VISUAL
from ..data import Batch, Sample
from ..data.problems import bad_row
from ..models.flops import Work
from ..objectives import (
    group_advantages,
    informative_groups,
    overlong_penalty,
    total_reward,
)
from ..rollout import Sampling, generate
from .completions import CompletionLog, records_of
from .forward import label_log_probs
from .micro_batch import Completion, MicroBatch, by_row, micro_batch
from .reference import Reference
from .rewarding import Judged, judge, visual_rewards
from .run import Run
from .throughput import work_of


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
class Collected:
    micro_batches: list[MicroBatch]
    metrics: dict[str, float | None]
    scored: list[Work]
    """Of every forward that scored completions, those that were passed over included."""


def collect(run: Run, step: int, reference: Reference | None, log: CompletionLog) -> Collected:
    """The completions of one step (counted from 0) in micro-batches; all ranks together.

    With ``grpo.sampling_rounds`` the step has so many times its prompts. Round by round they are
    sampled, until every rank has its share of groups whose rewards differ (DAPO's dynamic sampling,
    arXiv 2503.14476, section 3.2); what is lacking after the last round is filled with the others.
    """
    grpo = run.recipe.grpo
    dealt: list[Sample] = [s for some in run.feed.next_step() for s in some]
    share = len(dealt) // grpo.sampling_rounds
    tally, scored, groups = Tally(), [], []
    seconds = {"generation_seconds": 0.0, "reward_seconds": 0.0}
    rounds = 0
    for start in range(0, len(dealt), share):
        sampled = _round(run, step, dealt[start : start + share], reference, tally, scored, seconds)
        log.write(step + 1, sampled.records)
        groups += sampled.groups
        rounds += 1
        lacking = share - sum(group[0].informative for group in groups)
        if rounds < grpo.sampling_rounds and not run.engine.sum_over_ranks(max(lacking, 0))[0]:
            break
    # Informative ones first, then in the order they came.
    best = sorted(range(len(groups)), key=lambda i: (not groups[i][0].informative, i))[:share]
    chosen = [completion for i in sorted(best) for completion in groups[i]]
    metrics: dict[str, float | None] = {**tally.means(run), **seconds}
    if grpo.sampling_rounds > 1:
        metrics["sampling_rounds"] = float(rounds)
    size = run.recipe.train.micro_batch_size
    batches = [micro_batch(run, chosen[i : i + size]) for i in range(0, len(chosen), size)]
    return Collected(batches, metrics, scored)


@dataclass
class _Round:
    groups: list[list[Completion]]
    records: list[dict]


def _round(
    run: Run,
    step: int,
    prompts: list[Sample],
    reference: Reference | None,
    tally: Tally,
    scored: list[Work],
    seconds: dict[str, float],
) -> _Round:
    """Samples and scores a group per prompt."""
    grpo, size = run.recipe.grpo, run.recipe.train.micro_batch_size
    started = time.perf_counter()
    try:
        with run.engine.whole_weights() as model:
            completions = _sample(run, model, prompts)
    except FloatingPointError as error:  # on this rank; the others may have found none
        rows = (prompt.row.where for prompt in prompts)
        what = "a logit of the sampling policy"
        raise run.diverged(math.nan, step + 1, rows, what) from error
    for completion in completions:
        require_text(completion.sample, run.tokens.visual)
    seconds["generation_seconds"] += time.perf_counter() - started

    started = time.perf_counter()
    samples = [completion.sample for completion in completions]
    judged = judge(run, samples, step + 1)
    seconds["reward_seconds"] += time.perf_counter() - started
    visual = []
    for i in range(0, len(completions), size):
        some = completions[i : i + size]
        batch = run.collate(samples[i : i + size])
        scored.append(work_of(batch))
        visual.append(_score(run, batch, some, judged.correct[i : i + size]))
        if reference is not None:
            for c, ref in zip(some, by_row(batch, reference.log_probs(batch)), strict=True):
                c.ref_log_probs = ref
    if VISUAL in grpo.rewards:  # zeros where its weight is 0
        judged.values[VISUAL] = torch.cat(visual)
    rewards = _weigh(run, completions, judged, tally)
    advantages = torch.tensor([completion.advantage for completion in completions])
    records = records_of(run, samples, judged.texts, judged.values, rewards, advantages)
    count = grpo.group_size
    groups = [completions[i : i + count] for i in range(0, len(completions), count)]
    return _Round(groups, records)


def _weigh(run: Run, completions: list[Completion], judged: Judged, tally: Tally) -> Tensor:
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


def require_text(sample: Sample, visual_ids: tuple[int, ...]) -> None:
    """Raises RowError where a completion holds image or video pads, which no forward could take."""
    pads = int(torch.isin(sample.target_ids, torch.tensor(visual_ids)).sum())
    if pads:
        got = f"{pads} of its {len(sample.target_ids)} tokens are such pads"
        remedy = "Ban them in the engine that samples."
        expected = "hold no <|image_pad|> or <|video_pad|>"
        raise bad_row(sample.row.where, "a completion", expected, got, remedy)


def _sample(run: Run, model: torch.nn.Module, prompts: list[Sample]) -> list[Completion]:
    grpo = run.recipe.grpo
    sampling = Sampling(
        grpo.group_size,
        grpo.max_new_tokens,
        grpo.temperature,
        run.tokens.turn_end,
        run.tokenizer.pad_token_id,
        run.tokens.visual,
    )
    at_once = grpo.prompts_per_generation
    rollouts = generate(model, prompts, run.collate_prompts, sampling, at_once)
    rows = zip(rollouts.completion_ids.cpu(), rollouts.completion_mask.cpu(), strict=True)
    return [
        Completion(
            dataclasses.replace(prompts[i // grpo.group_size], target_ids=ids[mask]),
            truncated=bool(mask.any()) and ids[mask][-1].item() != run.tokens.turn_end,
        )
        for i, (ids, mask) in enumerate(rows)
    ]


@torch.no_grad()
def _score(run: Run, batch: Batch, some: list[Completion], correct: Tensor) -> Tensor:
    """Log-probabilities under the sampling policy, and VARS, from one forward; (B,) VARS."""
    grpo, model = run.recipe.grpo, run.engine.module
    options = (run.head, grpo.temperature, run.tokens.visual)
    if grpo.visual_weight:
        with record_attention(model, grpo.visual_layers) as recording:
            old = label_log_probs(model, batch, *options).log_probs
        visual = visual_rewards(run, recording, batch, correct).cpu()
    else:
        old, visual = label_log_probs(model, batch, *options).log_probs, torch.zeros(len(some))
    for completion, values in zip(some, by_row(batch, old), strict=True):
        completion.old_log_probs = values
    return visual
