"""Errors that name the model they are about."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..missing import how_to_make

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@contextmanager
def naming_model(path: str) -> Iterator[None]:
    """Turns what goes wrong while a model is read into a ValueError of one line that names it."""
    folder = Path(path)
    names = ("config.json", "adapter_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise ValueError(
            f"a model must be a folder that from_pretrained loads; {path} has no config.json. Name"
            " the checkpoint inside, such as RUN/latest."
        )
    # Below a folder that is here it is a path too; transformers would ask the Hub, again and again.
    beside_others = folder.parent != Path() and folder.parent.is_dir()
    if not folder.is_dir() and (beside_others or _HUB_NAME.fullmatch(path) is None):
        raise ValueError(
            f"a model must be a folder or a hub name; {path} is neither.{how_to_make(path)}"
        )
    try:
        yield
    except (ValueError, OSError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"the model {path} cannot be loaded; {said}") from None
