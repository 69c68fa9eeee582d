"""Run by test_sequence under torchrun with two ranks: a step's loss, masses and gradients with the
tokens of each row shared by both, beside what one rank computes alone; and short runs.

argv: where rank 0 writes [{case: {what: largest difference}} of each rank], a JSON list of recipes.
"""

import json
import sys

import torch

from avar_fast.attention import SpecialTokens, record_attention, split_sequence
from avar_fast.config import load_recipe
from avar_fast.models.checkpointing import checkpoint_layers
from avar_fast.objectives import agto_loss
from avar_fast.train.engine import init_distributed
from avar_fast.train.forward import HeadLimits, label_nll
from avar_fast.train.sequence_parallel import SequenceParallel
from avar_fast.train.setup import prepare
from avar_fast.train.sft import run_sft
from avar_fast.train.spans import spans_of
from tests.data.samples import TOKENIZER, collator, samples
from tests.models.families import models

TOKENS = SpecialTokens.from_processor(TOKENIZER)
# family, changes of the text tower, packed, gradient checkpointing
CASES = {
    "qwen2_5_vl": ("qwen2_5_vl", {}, False, False),
    "qwen2_5_vl_packed": ("qwen2_5_vl", {}, True, False),
    "qwen2_5_vl_checkpointed": ("qwen2_5_vl", {}, True, True),
    "one_key_head": ("qwen2_5_vl", {"num_key_value_heads": 1}, False, True),
    "qwen3_vl": ("qwen3_vl", {}, False, False),
    "qwen3_vl_packed": ("qwen3_vl", {}, True, True),
    "qwen2_vl": ("qwen2_vl", {}, True, False),
}


def main() -> None:
    rank, world_size, _ = init_distributed()
    sequence = SequenceParallel(world_size)
    # 59 tokens the longest and 203 in all: the last stretch must be filled up.
    rows, differences = samples()[:4] + samples()[1:2], {}
    for name, (family, text, packed, checkpointed) in CASES.items():
        model = models(family, **text)[0].train()
        if checkpointed:
            checkpoint_layers(model)
        collate = collator(model, TOKENS)
        # Padded, the text-only rows leave one rank with padding alone for some of them.
        batch = collate.pack(rows) if packed else collate.pad(rows)
        assert batch.labels.shape[1] % world_size, "the length must be ragged"
        want = step(model, batch, None)
        loss, mass, gradients = step(model, batch, sequence)
        torch.distributed.all_reduce(loss)
        for gradient in gradients.values():
            torch.distributed.all_reduce(gradient)
        heads = mass.shape[3]
        own = want[1][:, :, :, rank * heads : (rank + 1) * heads]
        assert gradients.keys() == want[2].keys()
        assert all(g.any() for n, g in want[2].items() if n.endswith("proj.weight"))
        differences[name] = {
            "loss": (loss - want[0]).abs().item() / want[0].item(),
            "mass": (mass - own).abs().max().item(),
            "gradient": max(
                ((gradients[n] - g).abs().max() / g.abs().max().clamp(min=1e-3)).item()
                for n, g in want[2].items()
            ),
        }
    everyones = [None] * world_size
    torch.distributed.all_gather_object(everyones, differences)
    if rank == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(everyones, file)
    for path in json.loads(sys.argv[2]):
        run = prepare(load_recipe(path), resume=False)
        run_sft(run)
        run.tracker.close()
        run.engine.deepspeed.destroy()


def step(model, batch, sequence):
    """This rank's share of the loss of stage sft, {layers, B, L, heads, 3} masses, gradients."""
    split_sequence(model, sequence)
    model.zero_grad()
    spans = spans_of(batch, "user", TOKENS)
    with record_attention(model) as recording:
        nll = label_nll(model, batch, HeadLimits(2**20), sequence=sequence)
    packed = batch.packed
    guided, _ = agto_loss(
        recording.mass,
        spans.queries,
        spans.types,
        num_samples=3.0,
        sample_ids=batch.sample_ids if packed else None,
    )
    loss = nll / 100 + guided / (1 if sequence is None else sequence.size)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    mass = torch.stack([recording.mass[i] for i in sorted(recording.mass)])
    return loss.detach(), mass.detach(), gradients


main()
