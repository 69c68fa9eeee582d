"""The parts of a run, and the end of a step, which both stages share."""

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
from ..data import Collator, Feed, Sample, prompt_inputs
from ..data.fingerprint import Fingerprint
from ..rewards import Rewards
from . import checkpoint
from .engine import Engine
from .forward import HeadLimits
from .held_out import HeldOut
from .throughput import Throughput
from .tracker import Metrics, Tracker

ROWS_NAMED = 16  # most rows that the error of a diverged step names


class StopRequest:
    """Records that the process received SIGTERM, so that the current step is finished and saved
    before the process ends."""

    def __init__(self) -> None:
        self.received = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True


class TrainingDivergedError(RuntimeError):
    """A loss, gradient or logit became NaN or infinite. The message names the step, its rows and
    the last good checkpoint."""


@dataclass
class Run:
    """A prepared run."""

    recipe: Recipe
    engine: Engine
    feed: Feed
    data: Fingerprint
    """Fingerprint of the rows and their order."""
    data_counts: dict[str, float]
    """Numbers of skipped, dropped and cut rows, for the log."""
    collator: Collator
    tracker: Tracker
    tokenizer: Any
    image_processor: Any
    tokens: SpecialTokens
    eos_ids: tuple[int, ...]
    """Ids of the tokens that end a completion."""
    head: HeadLimits
    throughput: Throughput
    first_step: int
    held_out: HeldOut | None = None
    rewards: Rewards | None = None
    """The reward functions; None in stage sft."""
    stop_request: StopRequest = field(default_factory=StopRequest)

    def collate_prompts(self, samples: list[Sample]) -> dict[str, Tensor]:
        """The model's inputs for generation from these prompts, on the device."""
        pad_id = self.tokenizer.pad_token_id
        return prompt_inputs(samples, pad_id, self.tokens.visual, self.engine.device)

    def require_finite(
        self, value: float, step: int, rows: tuple[str, ...], what: str = "loss"
    ) -> None:
        """Stops the run if a value is not finite, before the bad weights are saved.

        The optimizer may have taken its step, so the weights in memory are lost.

        Args:
            value: the value, the same on all ranks.
            step: number of the step, counted from 1.
            rows: places of this rank's rows of the step.
            what: name of the value.

        Raises:
            TrainingDivergedError: the value is NaN or infinite; on all ranks.
        """
        if math.isfinite(value):
            return
        shares: list[Any] = [None] * self.engine.world_size
        torch.distributed.all_gather_object(shares, rows)
        raise self.diverged(value, step, [name for share in shares for name in share], what)

    def diverged(
        self, value: float, step: int, rows: Iterable[str], what: str
    ) -> TrainingDivergedError:
        """The error for a value that is not finite at a step, which names the step's rows."""
        names = list(dict.fromkeys(rows))
        more = f" and {len(names) - ROWS_NAMED} more" if len(names) > ROWS_NAMED else ""
        last, _ = checkpoint.newest_checkpoint(self.recipe.train.output_dir)
        return TrainingDivergedError(
            f"{what} is {value} at step {step}; nothing was saved after it. Last good checkpoint:"
            f" {last or 'none yet'}. Rows of this step: {'; '.join(names[:ROWS_NAMED])}{more}."
            " Lower optim.lr or optim.max_grad_norm, or check these rows."
        )

    def end_step(self, step: int, metrics: Metrics, shown: tuple[str, ...]) -> bool:
        """Ends a step (counted from 1): evaluates if it is due, logs, and saves a checkpoint if it
        is due or a rank received SIGTERM.

        Returns:
            Whether the run continues.
        """
        train = self.recipe.train
        if self.held_out and (step % self.recipe.eval.every == 0 or step == train.steps):
            metrics = {**metrics, **self.held_out.measure()}
            shown = (*shown, "eval_loss", "eval_accuracy")
        self.tracker.log(step, {**metrics, **self.data_counts}, shown)
        (num_asked,) = self.engine.sum_over_ranks(float(self.stop_request.received))
        if num_asked or step == train.steps or (train.save_every and step % train.save_every == 0):
            self.save(step)
        if num_asked:
            self.tracker.say(f"SIGTERM received: stopped after step {step}; --resume continues")
        return not num_asked

    def save(self, step: int) -> Path:
        """Saves the checkpoint of a step, counted from 1; all ranks call it together."""
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
