"""GRPO with VARS in TRL's GRPOTrainer. The masses of VARS come from sampling.

    python examples/trl_grpo_vars.py MODEL ROWS OUT

MODEL is a folder or hub name. ROWS is a JSONL file whose rows have images, an answer and a question
in their first message, as the rows of docs/data.md without a system turn. Qwen-VL's AutoProcessor
needs torchvision. On several GPUs, start it with torchrun.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset, Image, Sequence
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

import avar_fast.attention as aa
from avar_fast.integrations.trl import rollout, rule_reward, vars_reward

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def load_rows(path):
    rows = []
    for row in map(json.loads, Path(path).read_text().splitlines()):
        question = row["messages"][0]["content"].replace("<image>", "")
        rows.append(
            {
                "prompt": [SYSTEM, {"role": "user", "content": question}],
                "images": [str(Path(path).parent / image) for image in row["images"]],
                "answer": row["answer"],
            }
        )
    return Dataset.from_list(rows).cast_column("images", Sequence(Image()))


def main(model_path, rows_path, out, **options):
    attention = {"text_config": "avar", "vision_config": "sdpa"}
    model = AutoModelForImageTextToText.from_pretrained(model_path, attn_implementation=attention)
    processor = AutoProcessor.from_pretrained(model_path)
    aa.attach(model, processor)
    right = rule_reward("accuracy")
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[right, vars_reward(right), rule_reward("format")],
        args=GRPOConfig(output_dir=out, reward_weights=[1.0, 0.3, 0.1], **options),
        train_dataset=load_rows(rows_path),
        processing_class=processor,
        rollout_func=rollout(),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
