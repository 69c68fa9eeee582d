"""Supervised fine-tuning with AGTO in transformers' Trainer, of the whole model or of LoRA
adapters.

    python examples/trainer_agto.py MODEL ROWS OUT [lora]

MODEL is a folder or hub name. ROWS is a JSONL file whose rows have images, an answer and a question
in their first message, as the rows of docs/data.md without a system turn. Qwen-VL's AutoProcessor
needs torchvision. On several GPUs, start it with torchrun.
"""

import json
import sys
from pathlib import Path

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

import avar_fast.attention as aa
from avar_fast.integrations import AgtoMixin

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


class AgtoTrainer(AgtoMixin, Trainer):
    pass


def load_rows(path):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [row | {"images": [str(Path(path).parent / i) for i in row["images"]]} for row in rows]


def collator(processor):
    tokens = aa.SpecialTokens.from_processor(processor)

    def collate(rows):
        texts, images = [], []
        for row in rows:
            question = row["messages"][0]["content"].replace("<image>", "")
            pictures = [{"type": "image"} for _ in row["images"]]
            user = {"role": "user", "content": [*pictures, {"type": "text", "text": question}]}
            reply = {"role": "assistant", "content": f"<answer>{row['answer']}</answer>"}
            texts.append(processor.apply_chat_template([SYSTEM, user, reply], tokenize=False))
            images.append([Image.open(path).convert("RGB") for path in row["images"]])
        batch = processor(
            text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"
        )
        is_reply = aa.query_mask(
            batch["input_ids"], batch["attention_mask"], role="response", tokens=tokens
        )
        batch["labels"] = batch["input_ids"].masked_fill(~is_reply, -100)
        return batch

    return collate


def with_adapters(model):
    from peft import LoraConfig, get_peft_model

    layers = r".*language_model.*(q_proj|k_proj|v_proj|o_proj)"
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=layers))


def main(model_path, rows_path, out, adapters="", **options):
    attention = {"text_config": "avar", "vision_config": "sdpa"}
    model = AutoModelForImageTextToText.from_pretrained(model_path, attn_implementation=attention)
    processor = AutoProcessor.from_pretrained(model_path)
    aa.attach(model, processor)
    trainer = AgtoTrainer(
        model=with_adapters(model) if adapters == "lora" else model,
        args=TrainingArguments(output_dir=out, remove_unused_columns=False, **options),
        train_dataset=load_rows(rows_path),
        data_collator=collator(processor),
        agto={"alpha": 0.15, "beta": 0.15},
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
