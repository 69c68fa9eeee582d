"""Checkpoints of a run: save, find, check and load them.

A checkpoint is a folder that ``from_pretrained`` loads. It also holds the training state:

    output_dir/checkpoints/step-000200/   model, tokenizer, image processor, recipe.yaml
                                          engine/ (DeepSpeed), rng/, manifest.json
                                          universal/ (only after a resume that needed it)
    output_dir/latest                     link to the newest checkpoint

A checkpoint is written under a name that ends in ``.partial`` and renamed when it is complete. The
manifest is written last and lists every file with its size. So an interrupted checkpoint is never
taken for a complete one.

DeepSpeed unpickles the files in engine/, and pickles can run any code: resume only checkpoints from
people you trust. The other files are read without unpickling arbitrary objects.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Recipe, dump_recipe, load_recipe
from ..config.changes import require_fixed
from .engine import Engine
from .random_state import get_random_state, read_random_state, seed_ranks, set_random_state
from .universal import ENGINE, UNIVERSAL, make_universal, require_states_of

MANIFEST = "manifest.json"


def save_checkpoint(
    engine: Engine,
    step: int,
    units: int,
    recipe: Recipe,
    tokenizer: Any,
    image_processor: Any,
    data: dict[str, Any],
) -> Path:
    """Writes the checkpoint of a step and deletes all but the newest ``train.keep_last``; all ranks
    call it together.

    Args:
        engine: the engine to save.
        step: optimizer steps done.
        units: rows (or packs, or prompts) that these steps have used, in the order of ``data``.
        recipe: the recipe of the run.
        tokenizer, image_processor: saved beside the model.
        data: fingerprint of the rows and their order.

    Returns:
        The folder of the checkpoint.
    """
    rank = torch.distributed.get_rank()
    folder = Path(recipe.train.output_dir) / "checkpoints"
    whole, partial = folder / f"step-{step:06d}", folder / f"step-{step:06d}.partial"
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "rng").mkdir(parents=True)
    torch.distributed.barrier()
    torch.save(get_random_state(), partial / "rng" / f"rank{rank}.pt")
    engine.deepspeed.save_checkpoint(
        str(partial), tag=ENGINE, save_latest=False, exclude_frozen_parameters=recipe.lora.enabled
    )
    weights = None
    if recipe.engine.zero_stage == 3:
        weights = engine.deepspeed._zero3_consolidated_16bit_state_dict(
            exclude_frozen_parameters=recipe.lora.enabled
        )
    if rank == 0:
        engine.module.save_pretrained(partial, state_dict=weights)  # pyright: ignore[reportCallIssue]
        tokenizer.save_pretrained(partial)
        image_processor.save_pretrained(partial)
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))
    torch.distributed.barrier()
    if rank == 0:
        sizes = {
            str(f.relative_to(partial)): f.stat().st_size for f in partial.rglob("*") if f.is_file()
        }
        ranks = torch.distributed.get_world_size()
        manifest = {"step": step, "units": units, "ranks": ranks, "data": data, "files": sizes}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        _point_latest(Path(recipe.train.output_dir), whole)
        for old in whole_checkpoints(recipe.train.output_dir)[: -recipe.train.keep_last]:
            shutil.rmtree(old)
    torch.distributed.barrier()
    return whole


def require_room(output_dir: str | Path, num_bytes: float) -> None:
    """Raises OSError unless the folder can be written and has ``num_bytes`` of free space.

    A run calls it before its first step, so that it does not fail at its first checkpoint.
    """
    folder = Path(output_dir)
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "checkpoints"):
            pass
    except OSError as error:
        raise OSError(
            f"train.output_dir must be a folder that can be written; {folder} cannot: {error}."
            " Choose another folder."
        ) from None
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"train.output_dir must have room for train.keep_last + 1 checkpoints, about"
            f" {num_bytes / 2**30:.1f} GiB; {folder} has {free / 2**30:.1f} GiB free. Make room,"
            " lower train.keep_last, or choose another folder."
        )


def checkpoint_bytes(recipe: Recipe, num_params: int, num_trained: int) -> float:
    """Approximate size of a checkpoint in bytes: the weights, and for every trained parameter the
    engine's float32 copy and AdamW's two moments."""
    width = 4 if recipe.model.dtype == "float32" else 2
    num_saved = num_trained if recipe.lora.enabled else num_params
    return 2 * num_saved * width + num_trained * (8 if width == 4 else 12)


def needs_reshaping(checkpoint: Path, recipe: Recipe, num_ranks: int) -> bool:
    """Whether the engine's state must be converted, because it was written with another number of
    ranks or another ZeRO stage.

    Raises:
        ValueError: a setting that must stay fixed differs, so the state cannot be used.
    """
    saved = recipe_of(checkpoint)
    require_fixed(saved, recipe, checkpoint)
    saved_zero, zero_stage = saved.engine.zero_stage, recipe.engine.zero_stage
    if zero_stage == 0:  # every rank holds the whole state
        return False
    return saved_zero != zero_stage or _manifest(checkpoint)["ranks"] != num_ranks


def prepare_state(checkpoint: Path, model: nn.Module, universal: bool) -> None:
    """Checks a checkpoint, and converts it if needed, before the engine of ``model`` is built; all
    ranks call it together.

    Args:
        checkpoint: a complete checkpoint.
        model: the model that will be trained.
        universal: convert the state; the answer of ``needs_reshaping``.

    Raises:
        ValueError: the checkpoint has no optimizer states, or is of another architecture.
        OSError: the conversion failed.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    require_states_of(checkpoint, shapes)
    if not universal:
        return
    if torch.distributed.get_rank() == 0:
        print(
            f"{checkpoint} was written by {_manifest(checkpoint)['ranks']} ranks and is converted"
            f" for {torch.distributed.get_world_size()}. Weights, optimizer, schedule and the order"
            " of rows continue.",
            flush=True,
        )
    make_universal(checkpoint)


def load_checkpoint(engine: Engine, checkpoint: Path) -> tuple[int, int]:
    """Restores weights, optimizer, schedule and random state; all ranks call it together.

    Returns:
        The number of steps done, and the units of data that they used.

    Raises:
        RuntimeError: the checkpoint holds no engine state for this ZeRO stage and number of ranks.
    """
    folder = checkpoint / UNIVERSAL if engine.universal else checkpoint
    settings = engine.group_settings()
    # A checkpoint of adapters lacks the frozen weights; they were loaded from model.path.
    loaded, _ = engine.deepspeed.load_checkpoint(
        str(folder), tag=ENGINE, load_module_strict=not engine.recipe.lora.enabled
    )
    if loaded is None:
        raise RuntimeError(
            f"{checkpoint} holds no engine state for this ZeRO stage and number of ranks."
        )
    engine.keep_settings(settings)
    manifest, rank = _manifest(checkpoint), torch.distributed.get_rank()
    if manifest["ranks"] == engine.world_size:
        set_random_state(read_random_state(checkpoint / "rng" / f"rank{rank}.pt"))
    else:
        if rank == 0:
            print("random states of the ranks (dropout, sampling) are seeded anew", flush=True)
        # The step is part of the seed: the numbers from the start of the run must not repeat.
        seed_ranks(engine.recipe.train.seed, rank, manifest["step"])
    return manifest["step"], manifest["units"]


def _manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text())


def recipe_of(checkpoint: Path) -> Recipe:
    """The recipe that the checkpoint was written with."""
    return load_recipe(checkpoint / "recipe.yaml")


def data_of(checkpoint: Path) -> dict[str, Any] | None:
    """Fingerprint of the rows and their order when the checkpoint was written; None if it has no
    fingerprint."""
    return _manifest(checkpoint).get("data")


def step_of(checkpoint: Path) -> int:
    """The optimizer steps that the checkpoint's run had done."""
    return _manifest(checkpoint)["step"]


def whole_checkpoints(output_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = Path(output_dir) / "checkpoints"
    whole = [path for path in folder.glob("step-*") if path.suffix != ".partial" and is_whole(path)]
    return sorted(whole, key=step_of)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file in the manifest exists and has the listed size."""
    try:
        files = _manifest(checkpoint)["files"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in files.items()
    )


def newest_checkpoint(output_dir: str | Path) -> tuple[Path | None, list[Path]]:
    """The newest complete checkpoint of a run (None if there is none), and its interrupted ones."""
    folder = Path(output_dir) / "checkpoints"
    whole = whole_checkpoints(output_dir)
    broken = sorted(path for path in folder.glob("step-*") if path not in whole)
    return (whole[-1] if whole else None), broken


def _point_latest(output_dir: Path, checkpoint: Path) -> None:
    link = output_dir / "latest.new"
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.relative_to(output_dir))
    os.replace(link, output_dir / "latest")
