"""Prepares a run for both stages: model, data, engine, and the checkpoint to resume from."""

from pathlib import Path
from typing import Any

import torch

from ..attention import SpecialTokens, attach, split_sequence
from ..config import Recipe
from ..data import Collator
from ..loading import load
from ..models import family_at, family_of, liger_proof
from ..models.checkpointing import checkpoint_layers
from ..models.flops import model_flops
from ..models.vision import use_linear_patch_embedding
from . import checkpoint
from .engine import Engine, init_distributed
from .feed import make_feed
from .forward import HeadLimits
from .grpo.reward import require_layers, start_rewards
from .held_out import HeldOut
from .parameters import choose_trainable
from .random_state import seed_ranks
from .recurrent import require_own_rows
from .resume import Resumed
from .run import Run
from .sequence_parallel import SequenceParallel
from .throughput import Throughput, peak_tflops
from .tracker import Tracker


def prepare(recipe: Recipe, resume: bool, new_data: bool = False) -> Run:
    """Builds everything that a stage needs; all ranks call it together.

    Args:
        recipe: the recipe of the run.
        resume: continue from the newest checkpoint, if there is one.
        new_data: accept rows that differ from those of the checkpoint; their order starts anew.

    Raises:
        ValueError: the output folder already holds checkpoints and resume is off, the checkpoint
            does not fit the recipe, or batch sizes do not divide.
        OSError: the output folder cannot be written or has too little free space.
    """
    rank, world_size, device = init_distributed()
    seed_ranks(recipe.train.seed, rank, step=0)
    newest = _checkpoint_to_resume(recipe, resume, rank)
    universal = newest is not None and checkpoint.needs_reshaping(newest, recipe, world_size)
    ranks_per_row = recipe.engine.sequence_parallel
    sequence = SequenceParallel(ranks_per_row) if ranks_per_row > 1 else None
    loaded = _load_model(recipe, device, rank)
    attach(loaded.model, loaded.tokenizer)
    require_layers(recipe, family_of(loaded.model).text_attention(loaded.model))
    require_own_rows(recipe, loaded.model)
    split_sequence(loaded.model, sequence)
    if rank == 0:
        _require_room(recipe, loaded.model)
    _require_whole_micro_batches(recipe, world_size // ranks_per_row)
    if newest:
        checkpoint.prepare_state(newest, loaded.model, universal)
    throughput = Throughput(model_flops(loaded.model), peak_tflops(recipe, device), world_size)
    engine = Engine(loaded.model, recipe, recipe.num_updates, universal, sequence)
    start, resumed = (0, 0), None
    if newest:
        start = checkpoint.load_checkpoint(engine, newest)
        before, data = checkpoint.recipe_of(newest), checkpoint.data_of(newest)
        resumed = Resumed(newest, before, recipe, data, new_data)
    tokens = SpecialTokens.from_processor(loaded.tokenizer)
    collator = Collator(
        loaded.tokenizer.pad_token_id,
        tokens.visual,
        loaded.model.config,
        getattr(torch, recipe.model.dtype),
    )
    head = HeadLimits.of(recipe, device)
    held_out = None
    if recipe.eval.path is not None:
        held_out = HeldOut(recipe, loaded, engine, collator, tokens, head)
    feed, selection, fingerprint, message = make_feed(
        recipe, loaded, collator, start, ranks_per_row, resumed
    )
    tracker = Tracker(recipe, rank, start[0])
    for line in resumed.report(engine) if resumed else []:
        tracker.say(line)
    if message:
        tracker.say(message)
    if start[0] >= recipe.train.steps:
        tracker.say(f"nothing to do: {start[0]} of train.steps = {recipe.train.steps} are done")
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
        fingerprint,
        counts,
        collator,
        tracker,
        loaded.tokenizer,
        loaded.image_processor,
        tokens,
        loaded.eos_ids,
        head,
        throughput,
        start[0],
        held_out,
        start_rewards(recipe, feed.stream.rows) if recipe.stage == "grpo" else None,
    )


def _checkpoint_to_resume(recipe: Recipe, resume: bool, rank: int) -> Path | None:
    newest, interrupted = checkpoint.newest_checkpoint(recipe.train.output_dir)
    if rank == 0 and resume:
        for path in interrupted:
            print(f"ignored {path}: it was interrupted while it was written")
        print(
            f"resuming from {newest}" if newest else "nothing to resume from; starting at step 0",
            flush=True,
        )
    if not resume and (newest or interrupted):
        raise ValueError(
            f"train.output_dir must be a new folder; {recipe.train.output_dir} already holds"
            " checkpoints. Add --resume to continue from the newest, or choose another folder."
        )
    return newest


def _require_room(recipe: Recipe, model: torch.nn.Module) -> None:
    """Raises OSError unless there is room for all checkpoints that exist at the same time: those
    that are kept, and the one that is being written."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained = sum(size for size, trains in sizes if trains)
    num_bytes = checkpoint.checkpoint_bytes(recipe, sum(size for size, _ in sizes), trained)
    checkpoint.require_room(recipe.train.output_dir, num_bytes * (recipe.train.keep_last + 1))


def _load_model(recipe: Recipe, device: torch.device, rank: int) -> Any:
    liger = recipe.model.liger and device.type == "cuda"
    if liger:
        reason = liger_proof.install(family_at(recipe.model.path)[0])
        if reason is not None:
            liger = False
            if rank == 0:
                print(f"model.liger: the plain modules run; {reason}", flush=True)
    loaded = load(
        recipe.model.path,
        getattr(torch, recipe.model.dtype),
        device,
        recipe.data.min_pixels,
        recipe.data.max_pixels,
    )
    family = family_of(loaded.model)
    if liger:
        family.check_liger(loaded.model)
    choose_trainable(loaded.model, recipe)
    use_linear_patch_embedding(family.vision_tower(loaded.model))
    if recipe.model.gradient_checkpointing:
        checkpoint_layers(loaded.model)
    loaded.model.train()
    return loaded


def _require_whole_micro_batches(recipe: Recipe, world_size: int) -> None:
    """Raises ValueError unless a rank's share of the batch is a number of whole micro-batches;
    ranks that share rows count as one."""
    train = recipe.train
    if recipe.stage == "sft" and train.batch_size // world_size % train.micro_batch_size:
        raise ValueError(
            f"train.batch_size must be a multiple of train.micro_batch_size times the {world_size}"
            f" ranks; got {train.batch_size} and {train.micro_batch_size}."
        )
