"""How many pixels of an image a model sees."""

import copy
from typing import Any

from transformers.image_utils import SizeDict


def limit_pixels(image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> Any:
    """A copy of a Qwen-VL image processor with other limits; as it is where both are None.

    The limits are those of the size after resizing, as in Qwen's own recipes. One that is given
    moves the other where it must.

    Args:
        image_processor: whose ``size`` has the limits as shortest_edge and longest_edge.
        min_pixels: smaller images are enlarged to it.
        max_pixels: larger images are shrunk to it.
    """
    if min_pixels is None and max_pixels is None:
        return image_processor
    limited = copy.copy(image_processor)
    least, most = limited.size["shortest_edge"], limited.size["longest_edge"]
    if max_pixels is not None:
        most = max_pixels
        least = min(least, most)
    if min_pixels is not None:
        least = min_pixels
        most = max(least, most)
    limited.size = SizeDict(shortest_edge=least, longest_edge=most)
    return limited
