"""An SFT step with AGTO and a scoring pass of VARS at the shape of Qwen2.5-VL-3B."""

import torch
from torch.nn.functional import cross_entropy

from avar_fast.attention import SpecialTokens, key_types, query_mask, record_attention
from avar_fast.models.checkpointing import checkpoint_layers
from avar_fast.objectives import agto_loss, visual_reward

from ..models import DTYPE, TOKENIZER, build, sample
from .clock import milliseconds_in_turns, percent_of_matmul
from .part_report import PartReport

# Layers, width, width of the MLP, heads, key heads of the text tower.
WIDTHS_3B, WIDTHS_DRY = (36, 2048, 11008, 16, 2), (2, 64, 96, 4, 2)
VOCABULARY_3B = 151936
TOKENS = SpecialTokens.from_processor(TOKENIZER)


def run(report: PartReport) -> None:
    """One row per (step, length): milliseconds, tokens per second, share of a matrix product.

    The work counted is that of the text layers' weights."""
    widths, lengths, rounds = (
        (WIDTHS_DRY, (128,), 1) if report.dry else (WIDTHS_3B, (2048, 8192), 5)
    )
    vocabulary = None if report.dry else VOCABULARY_3B
    model = build("avar", vocabulary, widths).train()
    checkpoint_layers(model)
    weights = sum(p.numel() for p in model.model.language_model.layers.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for length in lengths:
        row = sample(length)
        types = key_types(row["input_ids"], row["attention_mask"], tokens=TOKENS)
        queries = query_mask(row["input_ids"], role="user", tokens=TOKENS)

        def sft_step(record: bool, row=row, types=types, queries=queries) -> None:
            optimizer.zero_grad()
            if record:
                with record_attention(model) as recording:
                    logits = model(**row, use_cache=False).logits
                extra = agto_loss(recording.mass, queries, types)[0]
            else:
                logits, extra = model(**row, use_cache=False).logits, 0.0
            loss = cross_entropy(logits[0, :-1].float(), row["input_ids"][0, 1:]) + extra
            loss.backward()
            optimizer.step()

        @torch.no_grad()
        def scoring_pass(row=row) -> None:
            with record_attention(model) as recording:
                logits = model(**row, use_cache=False).logits
            response = query_mask(row["input_ids"], role="response", tokens=TOKENS)
            visual_reward(recording.mass, response, torch.tensor([True]), "log_ratio")
            torch.log_softmax(logits.float(), -1).gather(-1, row["input_ids"][..., None])

        calls = {
            "sft": lambda step=sft_step: step(False),
            "sft, agto": lambda step=sft_step: step(True),
            "scoring, vars": scoring_pass,
        }
        missing = {
            name: call for name, call in calls.items() if not report.has(step=name, length=length)
        }
        for name, ms in milliseconds_in_turns(missing, rounds).items():
            # Forward and backward take 6 FLOPs per weight and token, the forward alone 2.
            flops = (2 if "scoring" in name else 6) * weights * length
            report.add(
                step=name, length=length, ms=round(ms, 2),
                tokens_per_s=round(1e3 * length / ms),
                percent_of_matmul=percent_of_matmul(flops, ms, DTYPE),
            )  # fmt: skip
