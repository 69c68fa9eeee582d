"""Limits the number of pixels of the images that a model sees."""

import copy
from typing import Any

from transformers.image_utils import SizeDict


def limit_pixels(image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> Any:
    """A copy of a Qwen-VL image processor with other limits; the processor itself if both limits
    are None.

    The limits apply to the size after resizing, as in Qwen's own recipes. If one new limit crosses
    the other old limit, the old limit moves to the new one.

    Args:
        image_processor: a processor whose ``size`` has the limits, in pixels, as shortest_edge and
            longest_edge.
        min_pixels: smaller images are enlarged to this number of pixels.
        max_pixels: larger images are shrunk to this number of pixels.
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
