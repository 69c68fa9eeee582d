"""A run under way: its parts, and what every step of either stage ends with."""

import math
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..attention import SpecialTokens
from ..config import Recipe
from ..data import Batch, Collator, Feed, Sample, prompt_inputs
from ..data.fingerprint import Fingerprint
from ..rewards import Rewards
from . import checkpoint
from .engine import Engine
from .forward import HeadLimits
from .held_out import HeldOut
from .throughput import Throughput
from .tracker import Tracker

ROWS_NAMED = 16  # of a step that diverged


class StopRequest:
    """Remembers that the process was asked to end (SIGTERM), so that a step is finished and saved
    first."""

    def __init__(self) -> None:
        self.received = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True


class TrainingDivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names step, rows and last good
    checkpoint."""


@dataclass
class Run:
    """A prepared run."""

    recipe: Recipe
    engine: Engine
    feed: Feed
    data: Fingerprint
    """Of the rows and their order."""
    data_counts: dict[str, float]
    """Rows left out and cut, for the log."""
    collator: Collator
    tracker: Tracker
    tokenizer: Any
    image_processor: Any
    tokens: SpecialTokens
    eos_ids: tuple[int, ...]
    """Tokens that end a completion."""
    head: HeadLimits
    throughput: Throughput
    first_step: int
    held_out: HeldOut | None = None
    rewards: Rewards | None = None
    """Of stage grpo."""
    stop_request: StopRequest = field(default_factory=StopRequest)

    def collate_prompts(self, samples: list[Sample]) -> dict[str, Tensor]:
        """The model's inputs of prompts, for generation, on the device."""
        pad_id = self.tokenizer.pad_token_id
        return prompt_inputs(samples, pad_id, self.tokens.visual, self.engine.device)

    def collate(self, samples: list[Sample]) -> Batch:
        """Prompts and targets for a forward of training, on the device."""
        return self.collator.pad(samples).to(self.engine.device)

    def require_finite(
        self, value: float, step: int, rows: tuple[str, ...], what: str = "loss"
    ) -> None:
        """Stops the run, before anything made from a bad value is saved.

        Args:
            value: the same on all ranks.
            step: counted from 1.
            rows: where this rank's samples of the step come from.
        """
        if math.isfinite(value):
            return
        shares: list[Any] = [None] * self.engine.world_size
        torch.distributed.all_gather_object(shares, rows)
        raise self.diverged(value, step, [name for share in shares for name in share], what)

    def diverged(
        self, value: float, step: int, rows: Iterable[str], what: str
    ) -> TrainingDivergedError:
        """The error that ends a run; it names the rows of a step."""
        names = list(dict.fromkeys(rows))
        more = f" and {len(names) - ROWS_NAMED} more" if len(names) > ROWS_NAMED else ""
        last, _ = checkpoint.newest_checkpoint(self.recipe.train.output_dir)
        return TrainingDivergedError(
            f"{what} is {value} at step {step}; nothing was saved after it. Last good checkpoint:"
            f" {last or 'none yet'}. Rows of this step: {'; '.join(names[:ROWS_NAMED])}{more}."
            " Lower optim.lr or optim.max_grad_norm, or check these rows."
        )

    def end_step(self, step: int, metrics: dict[str, float | None], shown: tuple[str, ...]) -> bool:
        """Evaluates where the recipe says so, logs the step (counted from 1), saves where the
        recipe says so or a rank was asked to end, and tells whether to go on."""
        train = self.recipe.train
        if self.held_out and (step % self.recipe.eval.every == 0 or step == train.steps):
            metrics |= self.held_out.measure()
            shown = (*shown, "eval_loss", "eval_accuracy")
        self.tracker.log(step, metrics | self.data_counts, shown)
        (asked,) = self.engine.sum_over_ranks(float(self.stop_request.received))
        if asked or step == train.steps or (train.save_every and step % train.save_every == 0):
            self.save(step)
        if asked:
            self.tracker.say(f"asked to end (SIGTERM): stopped after step {step}; --resume goes on")
        return not asked

    def save(self, step: int) -> Path:
        units = self.feed.stream.position(step)
        path = checkpoint.save_checkpoint(
            self.engine,
            step,
            units,
            self.recipe,
            self.tokenizer,
            self.image_processor,
            self.data.as_dict(),
        )
        self.tracker.say(f"saved {path}")
        return path
