"""TRL's prompts as inputs of the model, and which of them are the same."""

from typing import Any

import torch
from torch import Tensor
from trl.data_utils import (  # pyright: ignore[reportMissingImports]
    prepare_multimodal_messages,
)


def encode(prompt: list[dict[str, Any]], trainer: Any) -> dict[str, Tensor]:
    """The inputs of one prompt, on the trainer's device, of the tokens that TRL trains on."""
    inputs = trainer.processing_class.apply_chat_template(
        conversation=[prepare_multimodal_messages(prompt)],
        chat_template=trainer.chat_template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **trainer.chat_template_kwargs,
    )
    return {name: value.to(trainer.accelerator.device) for name, value in inputs.items()}


def collate(encoded: list[dict[str, Tensor]], pad_id: int) -> dict[str, Tensor]:
    """One batch of encoded prompts: fields of tokens are padded on the left, those of images are
    put end to end."""
    longest = max(inputs["input_ids"].shape[1] for inputs in encoded)
    batch = {}
    for name in dict.fromkeys(name for inputs in encoded for name in inputs):
        rows = [
            _left_padded(inputs[name], longest, pad_id if name == "input_ids" else 0)
            if inputs[name].shape == inputs["input_ids"].shape
            else inputs[name]
            for inputs in encoded
            if name in inputs
        ]
        batch[name] = torch.cat(rows)
    return batch


def _left_padded(rows: Tensor, length: int, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (length - rows.shape[1], 0), value=value)


def groups_of(prompts: list[Any]) -> list[list[int]]:
    """The places of neighboring prompts that are equal. TRL repeats a prompt for each of its
    completions, and may divide a group between ranks."""
    groups: list[list[int]] = []
    for i, prompt in enumerate(prompts):
        if groups and _equal(prompts[groups[-1][0]], prompt):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _equal(a: Any, b: Any) -> bool:
    """Whether messages are equal, images included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if hasattr(a, "shape"):  # an image as an array
        return a.shape == b.shape and bool((a == b).all())
    return a == b
