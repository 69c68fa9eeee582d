"""What both stages need before their first step: model, data, engine, and where to go on from."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import checkpoint
from ..attention import SpecialTokens, attach
from ..config import Recipe
from ..data import Batch, Collator, Feed, Sample, collate
from ..engine import Engine, init_distributed
from ..loading import load
from ..models import family_at, family_of
from ..models.vision import use_linear_patch_embedding
from ..parameters import choose_trainable
from ..tracking import Tracker
from .feeding import make_feed


class TrainingDivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names step and last good
    checkpoint."""


@dataclass
class Run:
    """A prepared run."""

    recipe: Recipe
    engine: Engine
    feed: Feed
    data_counts: dict[str, float]
    """Rows left out and cut, for the log."""
    collator: Collator
    tracker: Tracker
    tokenizer: Any
    image_processor: Any
    tokens: SpecialTokens
    first_step: int

    def collate_prompts(self, samples: list[Sample]) -> Batch:
        """Prompts for generation, on the device."""
        pad_id = self.tokenizer.pad_token_id
        batch = collate(samples, pad_id, self.tokens.visual, with_target=False)
        return batch.to(self.engine.device)

    def collate(self, samples: list[Sample]) -> Batch:
        """Prompts and targets for a forward of training, on the device."""
        return self.collator.pad(samples).to(self.engine.device)

    def require_finite(self, value: float, step: int, what: str = "loss") -> None:
        """Stops the run, before anything made from a bad value is saved."""
        if math.isfinite(value):
            return
        last, _ = checkpoint.newest_checkpoint(self.recipe.train.output_dir)
        raise TrainingDivergedError(
            f"{what} is {value} at step {step}; nothing was saved after it. Last good checkpoint:"
            f" {last or 'none yet'}. Lower optim.lr or optim.max_grad_norm, or check the rows of"
            " this step."
        )

    def end_step(self, step: int, metrics: dict[str, float], shown: tuple[str, ...]) -> None:
        """Logs the step (counted from 1) and saves where the recipe says so."""
        self.tracker.log(step, metrics | self.data_counts, shown)
        train = self.recipe.train
        if step == train.steps or (train.save_every and step % train.save_every == 0):
            self.save(step)

    def save(self, step: int) -> Path:
        path = checkpoint.save_checkpoint(
            self.engine, step, self.recipe, self.tokenizer, self.image_processor
        )
        self.tracker.say(f"saved {path}")
        return path


def prepare(recipe: Recipe, resume: bool) -> Run:
    """Builds everything a stage needs.

    Raises:
        ValueError: the output folder already holds checkpoints and resume is off, or batch sizes
        that
            do not divide.
    """
    rank, world_size, device = init_distributed()
    torch.manual_seed(recipe.train.seed + rank)
    last = _where_to_start(recipe, resume, rank)
    loaded = _load_model(recipe, device)
    attach(loaded.model, loaded.tokenizer)
    engine = Engine(loaded.model, recipe, *_steps(recipe, world_size))
    first_step = checkpoint.load_checkpoint(engine, last) if last else 0
    tokens = SpecialTokens.from_processor(loaded.tokenizer)
    collator = Collator(
        loaded.tokenizer.pad_token_id,
        tokens.visual,
        loaded.model.config,
        getattr(torch, recipe.model.dtype),
    )
    feed, selection = make_feed(recipe, loaded, collator, first_step)
    tracker = Tracker(recipe, rank, first_step)
    counts = {}
    if selection is not None:
        tracker.say(f"data: {selection}")
        counts = {
            "rows_skipped": float(selection.skipped),
            "rows_dropped": float(selection.dropped),
            "rows_cut": float(selection.cut),
        }
    return Run(
        recipe,
        engine,
        feed,
        counts,
        collator,
        tracker,
        loaded.tokenizer,
        loaded.image_processor,
        tokens,
        first_step,
    )


def _where_to_start(recipe: Recipe, resume: bool, rank: int) -> Path | None:
    last, broken = checkpoint.newest_checkpoint(recipe.train.output_dir)
    if rank == 0 and resume:
        for path in broken:
            print(f"ignored {path}: interrupted while it was written")
        print(
            f"resuming from {last}" if last else "nothing to resume from; starting at step 0",
            flush=True,
        )
    if not resume and (last or broken):
        raise ValueError(
            f"train.output_dir must be a new folder; {recipe.train.output_dir} already holds"
            " checkpoints. Add --resume to go on from the newest, or choose another folder."
        )
    return last


def _load_model(recipe: Recipe, device: torch.device) -> Any:
    liger = recipe.model.liger and device.type == "cuda"
    if liger:
        family_at(recipe.model.path)[0].apply_liger()
    loaded = load(recipe.model.path, getattr(torch, recipe.model.dtype), device)
    family = family_of(loaded.model)
    if liger:
        family.check_liger(loaded.model)
    choose_trainable(loaded.model, recipe)
    use_linear_patch_embedding(family.vision_tower(loaded.model))
    if recipe.model.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    loaded.model.train()
    return loaded


def _steps(recipe: Recipe, world_size: int) -> tuple[int, int]:
    """Micro-batches per optimizer step on a rank, and optimizer steps of the run."""
    train = recipe.train
    per_rank = train.batch_size // world_size
    if recipe.stage == "grpo":
        responses = per_rank * recipe.grpo.group_size
        return (
            math.ceil(responses / train.micro_batch_size),
            train.steps * recipe.grpo.updates_per_rollout,
        )
    if per_rank % train.micro_batch_size:
        raise ValueError(
            f"train.batch_size must be a multiple of train.micro_batch_size times the {world_size}"
            f" ranks; got {train.batch_size} and {train.micro_batch_size}."
        )
    return per_rank // train.micro_batch_size, train.steps
