"""Turns errors of loading a model into one-line errors that name the model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..missing import how_to_make

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@contextmanager
def naming_model(path: str) -> Iterator[None]:
    """Turns errors inside the context into a ValueError of one line that names the model."""
    folder = Path(path)
    names = ("config.json", "adapter_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise ValueError(
            f"a model must be a folder that from_pretrained loads; {path} has no config.json. Name"
            " the checkpoint inside, such as RUN/latest."
        )
    # If the parent folder exists, it is a path and not a hub name, for which transformers would
    # query the Hub repeatedly.
    in_local_folder = folder.parent != Path() and folder.parent.is_dir()
    if not folder.is_dir() and (in_local_folder or _HUB_NAME.fullmatch(path) is None):
        raise ValueError(
            f"a model must be a folder or a hub name; {path} is neither.{how_to_make(path)}"
        )
    try:
        yield
    except (ValueError, OSError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the model {path} cannot be loaded; {reason}") from None
