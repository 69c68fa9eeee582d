"""TRL's GRPOTrainer as a child of ``turns``: python -m bench.grpo_step.trl_trainer SETTINGS.

With ``visual`` the model has attention "avar", and VARS is a reward function that holds the model,
as a user of TRL would write it. Otherwise attention is torch's SDPA, which is faster on a CPU.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Sequence
from datasets import Image as ImageFeature
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    TrainerCallback,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.processing_utils import ProcessorMixin

import avar_fast.attention as aa
from avar_fast.objectives import visual_reward

from .reward import residue
from .turns import peak_mib, say, wait_for_turn
from .world import SYSTEM, fixed_completions

trl: Any = importlib.import_module("trl")  # an optional rival, whose types nobody checks
PARTS: dict[str, float] = {}
PEAK: dict[str, float] = {}


class Processor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its part for videos, which needs torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        template = tokenizer.chat_template
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=template)
        self.video_processor = None


def rows_of(folder: str) -> list[dict[str, Any]]:
    lines = Path(folder, "train.jsonl").read_text().splitlines()
    rows = []
    for row in map(json.loads, lines):
        question = row["messages"][0]["content"].removeprefix("<image>")
        prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        images = [str(Path(folder, image)) for image in row["images"]]
        rows.append({"prompt": prompt, "images": images, "answer": row["answer"]})
    return rows


class VisualReward:
    """VARS by one more forward per completion."""

    __name__ = "visual"

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.trainer: Any = None
        self.tokens = aa.SpecialTokens.from_processor(processor)

    @torch.no_grad()
    def __call__(
        self, prompts: list[Any], completions: Any, completion_ids: list[list[int]], **columns: Any
    ) -> list[float]:
        model, rewards = self.trainer.model, []
        size = self.trainer.args.per_device_train_batch_size
        model.eval()
        for start in range(0, len(prompts), size):
            chosen = slice(start, start + size)
            inputs = encoded(self.processor, prompts[chosen])
            rows = [torch.tensor(ids) for ids in completion_ids[chosen]]
            said = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            exists = torch.nn.utils.rnn.pad_sequence(
                [torch.ones_like(row) for row in rows], batch_first=True
            )
            for name, more in (
                ("input_ids", said),
                ("attention_mask", exists),
                ("mm_token_type_ids", torch.zeros_like(said)),
            ):
                inputs[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], dim=1)
            with aa.record_attention(model) as recording:
                model(**inputs, use_cache=False, logits_to_keep=1)
            response = torch.zeros_like(inputs["input_ids"])
            response[:, -said.shape[1] :] = exists
            correct = torch.ones(len(rows))
            types = recording.key_types
            rewards += visual_reward(
                recording.mass, response, correct, "share", key_types=types
            ).tolist()
        model.train()
        return rewards


def encoded(processor: Processor, prompts: list[Any]) -> dict[str, Any]:
    inputs: Any = processor.apply_chat_template(
        prompts,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    return dict(inputs)


def timed(name: str, label: str) -> None:
    """Adds the time of a method of GRPOTrainer to a part of the step."""
    method = getattr(trl.GRPOTrainer, name)

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = method(self, *arguments, **options)
        PARTS[label] = PARTS.get(label, 0.0) + time.perf_counter() - started
        return result

    setattr(trl.GRPOTrainer, name, run)


class TakeTurns(TrainerCallback):
    """Ends every step with what it gave, and waits for the next turn."""

    trainer: Any = None
    norm = 0.0
    started = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        grads = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(grads).item()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        whole = time.perf_counter() - self.started
        rewards, sampled = PARTS.get("reward", 0.0), PARTS.get("generation", 0.0)
        parts = {"generation": sampled, "reward": rewards, "scoring": 0.0}
        parts["update"] = whole - sampled - rewards
        lengths = self.trainer._metrics["train"]["completions/mean_length"][-1]
        tokens = lengths * args.per_device_train_batch_size * args.gradient_accumulation_steps
        say(parts=parts, grad_norm=self.norm, tokens=tokens, peak_mib={"update": peak_mib()})
        PARTS.clear()
        wait_for_turn()
        self.started = time.perf_counter()


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    tokenizer.padding_side = "left"
    processor = Processor(Qwen2VLImageProcessorPil.from_pretrained(settings["model"]), tokenizer)
    attention = "avar" if settings["visual"] else "sdpa"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        settings["model"], dtype=torch.float32,
        attn_implementation={"text_config": attention, "vision_config": "sdpa"},
    )  # fmt: skip
    rewards: list[Any] = [residue]
    visual = VisualReward(processor)
    if settings["visual"]:
        aa.attach(model, processor)
        rewards.append(visual)
    if settings.get("compact"):  # on a CPU, TRL runs the LM head at every position of a row
        utils: Any = importlib.import_module("trl.trainer.utils")
        utils._use_triton = lambda device: True
    timed("_generate", "generation")
    timed("_calculate_rewards", "reward")
    group, micro_batch = settings["group"], settings["micro_batch"]

    def fixed_rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        rows = fixed_completions(settings["prompts"], group, settings["new_tokens"])
        ids = [encoded(processor, [prompt])["input_ids"][0].tolist() for prompt in prompts]
        zeros = [[0.0] * len(row) for row in rows]
        return {"prompt_ids": ids, "completion_ids": rows, "logprobs": zeros}

    config = trl.GRPOConfig(
        output_dir=settings["output"], max_steps=1000, per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings["prompts"] * group // micro_batch,
        num_generations=group, max_completion_length=settings["new_tokens"], learning_rate=1e-5,
        loss_type="grpo", beta=0.0, temperature=1.0, top_k=0, shuffle_dataset=False,
        lr_scheduler_type="constant", max_grad_norm=1e9, logging_steps=1, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False, seed=0,
        gradient_checkpointing=False, dataloader_num_workers=0,
        reward_weights=[1.0] + [0.3] * settings["visual"],
        generation_kwargs={"suppress_tokens": [processor.image_token_id, processor.video_token_id]},
    )  # fmt: skip
    rollout = fixed_rollout if settings.get("fixed") else None
    data = Dataset.from_list(rows_of(settings["rows"]))
    images: Any = Sequence(ImageFeature())
    data = data.cast_column("images", images)
    turns = TakeTurns()
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=rewards, args=config, train_dataset=data,
        processing_class=processor, callbacks=[turns], rollout_func=rollout,
    )  # fmt: skip
    visual.trainer = turns.trainer = trainer
    say(ready=True)
    wait_for_turn()
    turns.started = time.perf_counter()
    trainer.train()


if __name__ == "__main__":
    main()
