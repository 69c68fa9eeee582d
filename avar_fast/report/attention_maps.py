"""Maps of a whole response's attention on an image."""

from ..data import Row
from ..loading import Loaded
from .entry import AttentionMap
from .response_maps import response_maps


def attention_map(
    loaded: Loaded, row: Row, system_prompt: str | None, max_new_tokens: int
) -> AttentionMap:
    """Answers a row with one image greedily; the mean over the tokens of the answer, as each was
    written."""
    found = response_maps(loaded, row, system_prompt, max_new_tokens)
    return AttentionMap(
        image=found.images[0],
        heat=found.maps[0].mean(dim=0),
        question=found.question,
        response=found.response,
        answer=str(found.answer),
    )
