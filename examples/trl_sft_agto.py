"""Supervised fine-tuning with AGTO in TRL's SFTTrainer.

    python examples/trl_sft_agto.py MODEL ROWS OUT

MODEL is a folder or hub name. ROWS is a JSONL file whose rows have images, an answer and a question
in their first message, as the rows of docs/data.md without a system turn. Qwen-VL's AutoProcessor
needs torchvision. On several GPUs, start it with torchrun.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset, Image, Sequence
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

import avar_fast.attention as aa
from avar_fast.integrations import AgtoMixin

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


class AgtoSftTrainer(AgtoMixin, SFTTrainer):
    pass


def load_rows(path):
    rows = []
    for row in map(json.loads, Path(path).read_text().splitlines()):
        question = row["messages"][0]["content"].replace("<image>", "")
        reply = f"<think>{row.get('reasoning', '')}</think><answer>{row['answer']}</answer>"
        rows.append(
            {
                "prompt": [SYSTEM, {"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": reply}],
                "images": [str(Path(path).parent / image) for image in row["images"]],
            }
        )
    return Dataset.from_list(rows).cast_column("images", Sequence(Image()))


def main(model_path, rows_path, out, **options):
    attention = {"text_config": "avar", "vision_config": "sdpa"}
    model = AutoModelForImageTextToText.from_pretrained(model_path, attn_implementation=attention)
    processor = AutoProcessor.from_pretrained(model_path)
    aa.attach(model, processor)
    trainer = AgtoSftTrainer(
        model=model,
        args=SFTConfig(output_dir=out, max_length=None, **options),
        train_dataset=load_rows(rows_path),
        processing_class=processor,
        agto={"alpha": 0.15, "beta": 0.15},
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
