"""Checkpoints: each a folder ``from_pretrained`` loads, with the state of the engine beside it.

    output_dir/checkpoints/step-000200/   model, tokenizer, image processor, recipe.yaml
                                          engine/ (DeepSpeed), rng/, manifest.json
                                          universal/ (only after a resume that needed it)
    output_dir/latest                     link to the newest one

A checkpoint is written under a name that ends in ``.partial`` and renamed when whole; the manifest,
written last, lists every file with its size. So an interrupted one is never taken for whole.

DeepSpeed unpickles what is in engine/, and pickles can run any code: resume from checkpoints of
people you trust. The other files are read without.
"""

import json
import os
import pickle
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import Recipe, dump_recipe, load_recipe
from ..config.changes import require_fixed
from .engine import Engine
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
    """Writes the checkpoint of a step, on all ranks; drops those older than ``train.keep_last``.

    Args:
        units: rows (or packs, or prompts) of the order of ``data`` that the steps have dealt.
        data: fingerprint of the rows and their order.
    """
    rank = torch.distributed.get_rank()
    folder = Path(recipe.train.output_dir) / "checkpoints"
    whole, partial = folder / f"step-{step:06d}", folder / f"step-{step:06d}.partial"
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "rng").mkdir(parents=True)
    torch.distributed.barrier()
    torch.save(random_state(), partial / "rng" / f"rank{rank}.pt")
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
        facts = {"step": step, "units": units, "ranks": ranks, "data": data, "files": sizes}
        (partial / MANIFEST).write_text(json.dumps(facts, indent=1))
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        _point_latest(Path(recipe.train.output_dir), whole)
        for old in whole_checkpoints(recipe.train.output_dir)[: -recipe.train.keep_last]:
            shutil.rmtree(old)
    torch.distributed.barrier()
    return whole


def require_room(output_dir: str | Path, num_bytes: float) -> None:
    """Raises OSError unless the folder can be written and has room for ``num_bytes`` more: better
    before the first step than at the first checkpoint."""
    folder = Path(output_dir)
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "checkpoints"):
            pass
    except OSError as error:
        raise OSError(
            f"train.output_dir must be a folder that can be written; {folder} cannot: {error}."
            " Choose another."
        ) from None
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"train.output_dir must have room for train.keep_last + 1 checkpoints, about"
            f" {num_bytes / 2**30:.1f} GiB; {folder} has {free / 2**30:.1f} GiB free. Make room,"
            " lower train.keep_last, or choose another folder."
        )


def checkpoint_bytes(recipe: Recipe, num_params: int, num_trained: int) -> float:
    """About what a checkpoint takes: weights, and for those trained the engine's float32 copies
    and AdamW's two moments."""
    width = 4 if recipe.model.dtype == "float32" else 2
    kept = num_trained if recipe.lora.enabled else num_params
    return 2 * kept * width + num_trained * (8 if width == 4 else 12)


def needs_reshaping(checkpoint: Path, recipe: Recipe, num_ranks: int) -> bool:
    """Whether the state of the engine was written by another number of ranks or ZeRO stage.

    Raises:
        ValueError: it was written by a run of another make and cannot be carried over.
    """
    before = recipe_of(checkpoint)
    require_fixed(before, recipe, checkpoint)
    was, now = before.engine.zero_stage, recipe.engine.zero_stage
    if now == 0:  # every rank holds everything
        return False
    return was != now or _manifest(checkpoint)["ranks"] != num_ranks


def prepare_state(checkpoint: Path, model: nn.Module, universal: bool) -> None:
    """What must be done with a checkpoint before the engine of ``model`` is built; on all ranks.

    Args:
        universal: from ``needs_reshaping``: the state is to be converted.

    Raises:
        ValueError: it has no optimizer states, or is of another architecture.
        OSError: it could not be converted.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    require_states_of(checkpoint, shapes)
    if not universal:
        return
    if torch.distributed.get_rank() == 0:
        print(
            f"{checkpoint} was written by {_manifest(checkpoint)['ranks']} ranks and is converted"
            f" for {torch.distributed.get_world_size()}. Weights, optimizer, schedule and the order"
            " of rows go on.",
            flush=True,
        )
    make_universal(checkpoint)


def load_checkpoint(engine: Engine, checkpoint: Path) -> tuple[int, int]:
    """Restores weights, optimizer, schedule and random state.

    Returns:
        The step reached, and the units of data dealt until then.
    """
    folder = checkpoint / UNIVERSAL if engine.universal else checkpoint
    settings = engine.group_settings()
    # A checkpoint of adapters has none of the frozen weights, which model.path has filled in.
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
        rng = checkpoint / "rng" / f"rank{rank}.pt"
        set_random_state(read_random_state(rng))
    else:  # not what the ranks drew at the start of the run
        if rank == 0:
            print("random numbers of ranks (dropout, sampling) begin anew", flush=True)
        seed_ranks(engine.recipe.train.seed, rank, manifest["step"])
    return manifest["step"], manifest["units"]


def read_random_state(file: Path) -> dict[str, Any]:
    """As ``random_state`` gave it: tensors, plain values and numpy's array. Nothing else is
    unpickled, so no code of a file's own runs."""
    array = np.zeros(1, np.uint32)
    plain = [np.ndarray, np.dtype, type(array.dtype), array.__reduce__()[0]]
    try:
        with torch.serialization.safe_globals(plain):  # pyright: ignore[reportArgumentType]
            return torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{file} must hold random states and nothing else; it holds objects of other kinds,"
            " which are not loaded. Resume from a checkpoint that this trainer wrote."
        ) from None


def seed_ranks(seed: int, rank: int, step: int) -> None:
    """Random numbers of a rank that begins at a step with no state to go on from."""
    mixed = seed + rank + 1_000_003 * step
    torch.manual_seed(mixed)
    np.random.seed(mixed % 2**32)
    random.seed(mixed)


def _manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text())


def recipe_of(checkpoint: Path) -> Recipe:
    """The recipe it was written with."""
    return load_recipe(checkpoint / "recipe.yaml")


def data_of(checkpoint: Path) -> dict[str, Any] | None:
    """Fingerprint of the rows and order it was written with; None where it holds none."""
    return _manifest(checkpoint).get("data")


def step_of(checkpoint: Path) -> int:
    return _manifest(checkpoint)["step"]


def whole_checkpoints(output_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = Path(output_dir) / "checkpoints"
    found = [path for path in folder.glob("step-*") if path.suffix != ".partial" and is_whole(path)]
    return sorted(found, key=step_of)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file the manifest lists is there with its size."""
    try:
        files = _manifest(checkpoint)["files"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in files.items()
    )


def newest_checkpoint(output_dir: str | Path) -> tuple[Path | None, list[Path]]:
    """The newest whole checkpoint, and the interrupted ones beside it."""
    folder = Path(output_dir) / "checkpoints"
    whole = whole_checkpoints(output_dir)
    broken = sorted(path for path in folder.glob("step-*") if path not in whole)
    return (whole[-1] if whole else None), broken


def _point_latest(output_dir: Path, checkpoint: Path) -> None:
    link = output_dir / "latest.new"
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.relative_to(output_dir))
    os.replace(link, output_dir / "latest")


def random_state() -> dict[str, Any]:
    state = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
