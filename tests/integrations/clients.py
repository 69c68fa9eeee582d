"""What the clients' tests share: a tiny model with uneven attention, rows, and a processor."""

import json
import os
import sys

import torch
from PIL import Image
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.processing_utils import ProcessorMixin

from avar_fast.attention import attach
from avar_fast.lab.model import build_image_processor, build_model
from avar_fast.lab.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
SYSTEM = "You are a helpful assistant."


class ProcessorWithoutVideo(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its part for videos, which needs torchvision."""

    def __init__(self, image_processor, tokenizer):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids(
            [self.image_token, self.video_token]
        )
        template = tokenizer.chat_template
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=template)
        self.video_processor = None


def processor():
    return ProcessorWithoutVideo(build_image_processor(), build_tokenizer())


def tiny_model(attached=True):
    """The lab's model. Random weights of this size attend almost evenly, so they are scaled."""
    model = build_model(TOKENIZER, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(2.0)
    if attached:
        model.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
        attach(model, TOKENIZER)
    return model


def conversations(path, with_images=True):
    """TRL's form of rows of the lab: prompt, completion, images and answer."""
    rows = []
    for record in map(json.loads, path.read_text().splitlines()):
        question = record["messages"][0]["content"].removeprefix("<image>")
        prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        reply = {"role": "assistant", "content": f"<answer>{record['answer']}</answer>"}
        row = {"prompt": prompt, "completion": [reply], "answer": record["answer"]}
        if with_images:
            images = [Image.open(path.parent / name).convert("RGB") for name in record["images"]]
            row["images"] = images
        rows.append(row)
    return rows


def gradients(model):
    """The gradients of trained weights, without the names of wrappers."""
    return {
        name.removeprefix("module."): p.grad.detach().clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def difference(got, want):
    """The relative difference of two sets of gradients, by norm."""
    assert got.keys() == want.keys()
    assert want
    off = sum(float((got[name].double() - want[name].double()).square().sum()) for name in want)
    whole = sum(float(value.double().square().sum()) for value in want.values())
    return (off / whole) ** 0.5


def end_rank():
    """Ends the process of a rank at once, when all ranks are done: Gloo's own end sometimes waits
    forever for a rank that has left."""
    torch.distributed.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
