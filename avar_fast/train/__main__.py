"""Trains from a recipe: ``torchrun --nproc_per_node N -m avar_fast.train RECIPE.yaml
[section.key=value ...]``."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

import torch
from torch.distributed import DistError
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from ..config import Recipe, dump_recipe, load_recipe
from ..data import RowError
from ..loading import require_model
from ..models import family_at
from .checkpoint import newest_checkpoint
from .parameters import choose_trainable

if TYPE_CHECKING:
    from .run import Run


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line and runs the recipe's stage."""
    parser = argparse.ArgumentParser(prog="avar_fast.train", description=__doc__)
    parser.add_argument("recipe", help="YAML recipe")
    parser.add_argument("overrides", nargs="*", help="section.key=value, values in YAML")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and the memory plan"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest whole checkpoint; its engine states are pickles, which can run"
        " code: resume from people you trust",
    )
    parser.add_argument(
        "--new-data",
        action="store_true",
        help="with --resume: rows that are not those of the checkpoint are meant",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.new_data and not options.resume:
        parser.error("--new-data goes with --resume.")
    try:
        recipe = load_recipe(options.recipe, options.overrides)
        require_model(recipe.model.path)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if options.dry_run:
        print(dump_recipe(recipe))
        print(memory_plan(recipe, int(os.environ.get("WORLD_SIZE", "1"))))
        return
    transformers_logging.disable_progress_bar()  # one bar is enough: the run's own
    from ..objectives import HeadMemoryError
    from ..rewards import RewardError
    from ..rollout import RolloutError
    from .run import TrainingDivergedError
    from .setup import prepare

    try:
        run = prepare(recipe, options.resume, options.new_data)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    try:
        train(run)
    except (
        RowError,
        RewardError,
        HeadMemoryError,
        FileNotFoundError,
        TrainingDivergedError,
    ) as error:  # the message says all
        sys.exit(f"error: {error}")
    except RolloutError as error:
        sys.exit(f"error: {error} {_where_it_goes_on(recipe)}.")
    except RuntimeError as error:
        if not _is_a_lost_rank(error):
            raise
        rank, reason = os.environ.get("RANK", "0"), str(error).splitlines()[0]
        sys.exit(
            f"error: rank {rank} lost another rank, whose own message says why;"
            f" {_where_it_goes_on(recipe)}. ({reason})"
        )


def _where_it_goes_on(recipe: Recipe) -> str:
    last, _ = newest_checkpoint(recipe.train.output_dir)
    return f"--resume goes on from {last or 'the start: nothing is saved yet'}"


def _is_a_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective failed because a peer is gone; gloo says so in words alone."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, DistError) or any(word in str(error) for word in words)


def train(run: "Run") -> None:
    """Takes a prepared run to its end, in this process, one of those that torchrun started (or
    alone)."""
    from .grpo.loop import run_grpo
    from .sft import run_sft

    try:
        if run.recipe.stage == "sft":
            run_sft(run)
        else:
            run_grpo(run)
    finally:
        if run.rewards is not None:
            run.rewards.close()
        if run.held_out is not None:
            run.held_out.close()
        run.tracker.close()
        torch.distributed.destroy_process_group()


def memory_plan(recipe: Recipe, world_size: int) -> str:
    """Bytes per rank of weights, gradients and AdamW's states under the recipe's ZeRO stage.

    Activations are not counted: they depend on the rows.
    """
    _, config = family_at(recipe.model.path)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
        choose_trainable(model, recipe)
    num_params = sum(p.numel() for p in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    engine, width = recipe.engine, 4 if recipe.model.dtype == "float32" else 2
    stage = engine.zero_stage
    sizes = {
        "weights": num_params * width / (world_size if stage >= 3 else 1),
        "gradients": num_trained * width / (world_size if stage >= 2 else 1),
        "optimizer": num_trained * (8 if width == 4 else 12) / (world_size if stage >= 1 else 1),
    }
    on_host = {"weights": engine.offload_params, "optimizer": engine.offload_optimizer}
    lines = [
        f"memory plan per rank, {num_params / 1e6:.2f} M parameters, {num_trained / 1e6:.2f} M"
        f" trained, ZeRO-{stage}, {world_size} ranks:"
    ]
    for name, size in sizes.items():
        where = " in host memory" if on_host.get(name) else ""
        lines.append(f"  {name:<10} {size / 2**30:8.3f} GiB{where}")
    device = sum(size for name, size in sizes.items() if not on_host.get(name))
    lines.append(f"  {'sum':<10} {device / 2**30:8.3f} GiB on the device, activations not counted")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
