"""A random Qwen2.5-VL of about one million parameters or less, and its image processor.

The architecture is the real one, only small, so everything that works on a model's internals
(attention plug-in, key types, packing, checkpoints) meets the same modules and names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from .digits import TILE_PX
from .tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, build_tokenizer
from .walk import QUESTION_WORDS
from .world import MAX_SIDE
from .writer import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATCH_PX = 14
MERGE = 2
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS = 64, 2, 4
MAX_POSITIONS = 1024
# The width axis gets the slowest frequencies. At Qwen's theta of 1e6 (or at 1e4) neighboring
# columns differ by a phase below 0.004 and a model this small does not learn in 800 steps to tell
# them apart (chain answers 0.11 exact; 0.98 at 4). Prompts are short, so nothing is lost at the
# other end.
ROPE_THETA = 4.0
# About 1 / sqrt(hidden size): the usual 0.02 is meant for widths of thousands.
INIT_STD = 0.06


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """The size of a text tower, and the words that are tokens for it."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    embedding_std: float
    """Standard deviation of the token embeddings at the start."""
    words: tuple[str, ...] = ()
    """Words that become tokens in addition to those of the sums."""

    @property
    def mrope_section(self) -> list[int]:
        """Rotary frequencies per axis (time, height, width): they share half of a head's dimensions
        in the proportions of the published models (16, 24, 24 of 64)."""
        half = self.hidden // self.heads // 2
        side = 3 * half // 8
        return [half - 2 * side, side, side]


TOWERS = {
    # Token embeddings start small, so that images are not drowned out at first: with 0.06 the model
    # needed three times as many steps to find the digit it was asked for (one seed).
    "sums": TextTower(hidden=128, layers=4, heads=4, kv_heads=2, embedding_std=0.02),
    # Text and image compete for the attention of the same head.
    "scarce": TextTower(
        hidden=96, layers=2, heads=1, kv_heads=1, embedding_std=0.1, words=QUESTION_WORDS
    ),
    # Its words are those of the writer's chains instead: else a chain is some 250 bytes.
    "chains": TextTower(hidden=96, layers=2, heads=1, kv_heads=1, embedding_std=0.1, words=WORDS),
    "plenty": TextTower(
        hidden=96, layers=4, heads=3, kv_heads=3, embedding_std=0.1, words=QUESTION_WORDS
    ),
}


def build_config(
    tokenizer: PreTrainedTokenizerBase, tower: TextTower = TOWERS["sums"]
) -> Qwen2_5_VLConfig:
    """The lab model's configuration for a tokenizer made by `build_tokenizer`."""

    def token_id(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))  # pyright: ignore[reportArgumentType]

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": tower.hidden,
        "intermediate_size": 3 * tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "num_key_value_heads": tower.kv_heads,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": INIT_STD,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROPE_THETA,
            "mrope_section": tower.mrope_section,
        },
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": VISION_LAYERS,
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 3 * VISION_HIDDEN,
        "num_heads": VISION_HEADS,
        "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE,
        "out_hidden_size": tower.hidden,
        "initializer_range": INIT_STD,
        # One window covers the largest grid, and every layer looks at all of it anyway.
        "window_size": MAX_SIDE * TILE_PX,
        "fullatt_block_indexes": list(range(VISION_LAYERS)),
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(IMAGE_PAD),
        video_token_id=token_id(VIDEO_PAD),
        vision_start_token_id=token_id(VISION_START),
        vision_end_token_id=token_id(VISION_END),
        tie_word_embeddings=True,
    )


def build_model(
    tokenizer: PreTrainedTokenizerBase, seed: int, tower: TextTower = TOWERS["sums"]
) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random fp32 weights; the same seed gives the same weights.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, tower))
        embeddings: Any = model.get_input_embeddings()
        torch.nn.init.normal_(embeddings.weight, std=tower.embedding_std)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen's image processor, which needs no torchvision, set so that no lab image is resized."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH_PX,
        merge_size=MERGE,
        min_pixels=TILE_PX**2,
        max_pixels=(MAX_SIDE * TILE_PX) ** 2,
    )


def save_base(path: str | Path, seed: int, tower: str = "sums") -> Path:
    """Write model, tokenizer and image processor into one folder that `from_pretrained` loads.

    Args:
        path: the folder.
        seed: of the weights.
        tower: a key of `TOWERS`: "sums" for grid sums, "scarce" or "plenty" (of heads) for walks,
            "chains" for the writer's texts.
    """
    path = Path(path)
    tokenizer = build_tokenizer(TOWERS[tower].words)
    build_model(tokenizer, seed, TOWERS[tower]).save_pretrained(path)
    tokenizer.save_pretrained(path)
    build_image_processor().save_pretrained(path)
    return path
