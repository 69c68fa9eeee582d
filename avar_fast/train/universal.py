"""Converts an engine's state to DeepSpeed's universal form, which any number of ranks can load.

The universal form has one file per parameter and state instead of one file per rank:

    output_dir/checkpoints/step-000200/universal/   made from engine/ beside it

It is made when a resumed run needs it. It is written under a name that ends in ``.partial`` and
renamed when it is complete; engine/ is only read. It is deleted with its checkpoint.
"""

import contextlib
import io
import shutil
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

ENGINE = "engine"  # DeepSpeed's tag, in a checkpoint and in its universal form
UNIVERSAL = "universal"
POLL_SECONDS = 2.0


def require_states_of(checkpoint: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless a checkpoint has optimizer states of exactly these parameters.

    Args:
        checkpoint: a complete checkpoint.
        shapes: shapes of the parameters to be trained, by name.
    """
    files = sorted((checkpoint / ENGINE).glob("*_model_states.pt"))
    state: Any = None
    if files:
        state = torch.load(files[0], map_location="cpu", mmap=True, weights_only=False)
    sharded = state is not None and state["param_shapes"] is not None
    shards = list((checkpoint / ENGINE).glob("*_optim_states.pt"))
    if state is None or not (shards if sharded else state["optimizer"]):
        raise ValueError(
            f"{checkpoint} must hold the optimizer's states to resume, in {ENGINE}/; they are"
            f" missing. Start a new run from its weights with model.path={checkpoint}."
        )
    if sharded:
        saved = {name: tuple(s) for part in state["param_shapes"] for name, s in part.items()}
    else:
        saved = {name: tuple(w.shape) for name, w in state["module"].items() if name in shapes}
    different = sorted(name for name in saved | shapes if saved.get(name) != shapes.get(name))
    if different:
        name = different[0]
        raise ValueError(
            f"model.path must be of the architecture of {checkpoint} to resume;"
            f" {len(different)} trained parameters differ, the first {name}:"
            f" {saved.get(name, 'missing')} there, {shapes.get(name, 'missing')} in the model. Set"
            " model.path to the model that the run started from."
        )


def make_universal(checkpoint: Path) -> None:
    """Makes a checkpoint's universal form unless it exists. All ranks call it together and share
    the folder.

    Raises:
        OSError: too little free space, or the conversion failed; partial files are deleted.
    """
    _on_first_rank(lambda: convert(checkpoint))


def convert(checkpoint: Path) -> None:
    """Does the work of ``make_universal`` in this process."""
    from deepspeed.checkpoint import ds_to_universal

    whole, partial = checkpoint / UNIVERSAL, checkpoint / f"{UNIVERSAL}.partial"
    if whole.is_dir():
        return
    shutil.rmtree(partial, ignore_errors=True)
    size = sum(f.stat().st_size for f in (checkpoint / ENGINE).iterdir())
    free = shutil.disk_usage(checkpoint).free
    if free < 2 * size:  # the states exist twice, as shards and as whole parameters
        raise OSError(
            f"train.output_dir must have room to convert {checkpoint} for another number of ranks"
            f" or ZeRO stage, {2 * size / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free. Make"
            " room, or resume with the original number of ranks and ZeRO stage."
        )
    arguments = Namespace(
        input_folder=str(checkpoint / ENGINE),
        output_folder=str(partial / ENGINE),
        # 1 means this process: a pool would fork a process that holds a GPU and threads.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # tensor parallelism's patterns, which this project lacks
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ds_to_universal.main(arguments)
        partial.rename(whole)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"{checkpoint} could not be converted for another number of ranks or ZeRO stage:"
            f" {type(error).__name__}: {error}. The checkpoint is unchanged. Resume with the"
            " original number of ranks and ZeRO stage, or start a new run from the weights with"
            f" model.path={checkpoint}."
        ) from error


def _on_first_rank(work: Callable[[], None]) -> None:
    """Does the work on rank 0 while the other ranks wait; raises its error on all ranks.

    The ranks wait in many short collectives: a single long one would exceed its time limit.
    """
    outcome: list[Any] = [None]  # True when done, or the error
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work) if torch.distributed.get_rank() == 0 else None
        while outcome[0] is None:
            if running is not None and wait([running], POLL_SECONDS).done:
                outcome = [running.exception() or True]
            torch.distributed.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
