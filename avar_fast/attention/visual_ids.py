"""Compares the image tokens of a forward with the features that it gets."""

from typing import Any

from torch import Tensor

from .refusal import refuse
from .tokens import SpecialTokens, is_visual

NO_TOKEN = -1
# By the order of ``SpecialTokens.visual``: images, then videos.
_FEATURES = (("image", "pixel_values"), ("video", "pixel_values_videos"))


def without_featureless(
    input_ids: Tensor, arguments: dict[str, Any], tokens: SpecialTokens
) -> Tensor:
    """The ids of the new tokens, with ``NO_TOKEN`` for image tokens that stand for no feature.

    A model may sample ``<|video_pad|>``. Without a video it is one more text token; as a visual key
    it would raise a model's visual mass, and with it the reward, for nothing.
    """
    for token, (modality, pixels) in zip(tokens.visual, _FEATURES, strict=False):
        encoded = arguments.get("mm_encoder_outputs") or {}
        if arguments.get(pixels) is None and encoded.get(modality) is None:
            input_ids = input_ids.masked_fill(input_ids == token, NO_TOKEN)
    return input_ids


def require_modalities(
    input_ids: Tensor, with_features: Tensor, arguments: dict[str, Any], tokens: SpecialTokens
) -> None:
    """Raises ValueError if mm_token_type_ids name other image tokens than input_ids, as after a
    collator that pads the two on different sides. Rotary positions would then be wrong.

    Args:
        input_ids: (B, L) ids of the new tokens.
        with_features: the same from ``without_featureless``. An image token that was sampled has no
            feature, and mm_token_type_ids call it text.
        arguments: the arguments of the forward.
        tokens: the ids of the model's special tokens.
    """
    modalities = arguments.get("mm_token_type_ids")
    if modalities is None or modalities.shape != input_ids.shape:
        return
    text = modalities == 0
    wrong = (text & is_visual(with_features, tokens)) | ~(text | is_visual(input_ids, tokens))
    refuse(
        wrong.any(),
        "mm_token_type_ids must be other than 0 exactly at the image and video tokens of input_ids;"
        " they differ. Pad both on the same side.",
    )
