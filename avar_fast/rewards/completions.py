"""The completions that reward functions score, with their prompts and data columns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .functions import IMAGES, STANDARD, STATE, TrainerState


@dataclass(frozen=True)
class Completions:
    """Completions to score. All lists have the same length, one entry per completion."""

    prompts: list[list[dict[str, Any]]]
    """The turns of each prompt, as in a row's messages."""
    texts: list[str]
    """The text of each completion."""
    completion_ids: list[list[int]]
    """The token ids of each completion."""
    columns: dict[str, list[Any]]
    """The columns of the data set. ``answer`` always exists: one reference text, several that are
    all right, or None."""
    rows: list[str]
    """Place of each prompt's row, for messages."""
    opened: list[str] = field(default_factory=list)
    """The start of each reply that the prompt has already written, such as "<think>"; an empty list
    if there is none. Only the format rule sees the whole reply; all others see the completion."""
    open_images: Callable[[], list[list[Any]]] | None = None
    """Opens the images of each completion's row; completions of one row share their list. It is
    called only if a function takes images."""
    state: TrainerState | None = None
    """Progress of the training run."""

    def arguments(self, images: bool = False) -> dict[str, Any]:
        """The arguments of a reward function, as TRL passes them; with opened images if ``images``
        is true."""
        turns = [[{"role": "assistant", "content": text}] for text in self.texts]
        arguments = dict(zip(STANDARD, (self.prompts, turns, self.completion_ids), strict=True))
        if images and self.open_images is not None:
            lists = self.open_images()
            single = [images[0] if len(images) == 1 else images or None for images in lists]
            arguments |= dict(zip(IMAGES, (lists, single), strict=True))
        state = {} if self.state is None else {STATE: self.state}
        return self.columns | arguments | state

    def replies(self) -> list[str]:
        """The whole replies: the opened starts and the completions."""
        if not self.opened:
            return self.texts
        return [a + b for a, b in zip(self.opened, self.texts, strict=True)]

    def groups(self) -> list[range]:
        """Index ranges of neighboring completions that belong to one row."""
        starts = [i for i, row in enumerate(self.rows) if i == 0 or row != self.rows[i - 1]]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self.rows)], strict=True)]
