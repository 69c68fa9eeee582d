"""Supervised fine-tuning with AGTO in a training loop of one's own, on one device.

    python examples/own_loop.py MODEL ROWS

MODEL is a folder or hub name. ROWS is a JSONL file whose rows have images, an answer and a question
in their first message, as the rows of docs/data.md without a system turn. Qwen-VL's AutoProcessor
needs torchvision.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import avar_fast.attention as aa
from avar_fast.objectives import agto_loss
from avar_fast.vas import visual_attention_score

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def batches_of(path, processor, tokens, size, device):
    """(inputs, labels) of ``size`` rows each; the labels are the tokens of the replies."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for start in range(0, len(rows), size):
        texts, images = [], []
        for row in rows[start : start + size]:
            question = row["messages"][0]["content"].replace("<image>", "")
            pictures = [{"type": "image"} for _ in row["images"]]
            user = {"role": "user", "content": [*pictures, {"type": "text", "text": question}]}
            reply = {"role": "assistant", "content": f"<answer>{row['answer']}</answer>"}
            texts.append(processor.apply_chat_template([SYSTEM, user, reply], tokenize=False))
            paths = [Path(path).parent / name for name in row["images"]]
            images.append([Image.open(name).convert("RGB") for name in paths])
        inputs = processor(
            text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"
        ).to(device)
        is_reply = aa.query_mask(
            inputs["input_ids"], inputs["attention_mask"], role="response", tokens=tokens
        )
        yield inputs, inputs["input_ids"].masked_fill(~is_reply, -100)


def main(model_path, rows_path, size=4, learning_rate=1e-5):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attention = {"text_config": "avar", "vision_config": "sdpa"}
    model = AutoModelForImageTextToText.from_pretrained(model_path, attn_implementation=attention)
    processor = AutoProcessor.from_pretrained(model_path)
    model.to(device).train()
    aa.attach(model, processor)
    tokens = aa.SpecialTokens.from_processor(processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    history = []
    for inputs, labels in batches_of(rows_path, processor, tokens, size, device):
        with aa.record_attention(model) as recording:
            loss = model(**inputs, labels=labels).loss
        queries = recording.queries()  # the text of the user's turns
        extra, parts = agto_loss(recording.mass, queries, recording.key_types)
        (loss + extra).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # Tokens of the turn's header, before the image, see none of it.
        queries &= aa.sees_image(recording.key_types)
        vas = visual_attention_score(
            recording.mass, queries, eps=1e-6, key_types=recording.key_types
        )
        history.append((loss.item(), parts.enhance.item(), vas.item()))
        print("loss {:.3f}  AGTO's first term {:.3f}  VAS {:.3f}".format(*history[-1]))
    return history


if __name__ == "__main__":
    main(*sys.argv[1:])
