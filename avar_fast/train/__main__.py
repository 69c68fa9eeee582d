"""Trains from a recipe: ``torchrun --nproc_per_node N -m avar_fast.train RECIPE.yaml
[section.key=value ...]``."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

import torch
from torch.distributed import DistError

from ..extras import needs

with needs("avar_fast.train"):
    from transformers.utils import logging as transformers_logging

    from ..config import Recipe, dump_recipe, load_recipe
    from ..data import RowError
    from ..loading import require_model
    from .checkpoint import newest_checkpoint
    from .memory_plan import memory_plan

if TYPE_CHECKING:
    from .run import Run


EXAMPLES = """examples:
  python -m avar_fast.train configs/lab-sft.yaml --dry-run
  torchrun --nproc_per_node 8 -m avar_fast.train configs/qwen2.5-vl-7b-sft-agto.yaml \\
      data.path=rows.jsonl
  torchrun --nproc_per_node 8 -m avar_fast.train configs/qwen2.5-vl-7b-sft-agto.yaml \\
      data.path=rows.jsonl --resume"""


@needs("avar_fast.train")
def main(arguments: list[str] | None = None) -> None:
    """Parses the command line and runs the recipe's stage."""
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.train",
        description="Train a model from a recipe, in stage sft or grpo.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="YAML recipe")
    parser.add_argument("overrides", nargs="*", help="section.key=value, values in YAML")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe and the memory plan"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest complete checkpoint. Its engine states are pickles, which"
        " can run code: resume only checkpoints from people you trust",
    )
    parser.add_argument(
        "--new-data",
        action="store_true",
        help="with --resume: accept rows that differ from those of the checkpoint",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.new_data and not options.resume:
        parser.error("--new-data needs --resume.")
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
    ) as error:  # the user needs no traceback
        sys.exit(f"error: {error}")
    except RolloutError as error:
        sys.exit(f"error: {error} {_resume_hint(recipe)}.")
    except RuntimeError as error:
        if not _is_lost_rank(error):
            raise
        rank, reason = os.environ.get("RANK", "0"), str(error).splitlines()[0]
        sys.exit(
            f"error: rank {rank} lost another rank, whose own message gives the cause;"
            f" {_resume_hint(recipe)}. ({reason})"
        )


def _resume_hint(recipe: Recipe) -> str:
    last, _ = newest_checkpoint(recipe.train.output_dir)
    return f"--resume continues from {last or 'the start: no checkpoint is saved yet'}"


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank ended. Gloo shows it only in its message."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, DistError) or any(word in str(error) for word in words)


def train(run: "Run") -> None:
    """Runs a prepared run to its end in this process, which is one rank of the run."""
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


if __name__ == "__main__":
    main()
