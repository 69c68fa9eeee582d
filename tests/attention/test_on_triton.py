"""The plug-in on the Triton kernels, vision tower included, in Triton's interpreter: what a model
hands over there (strides, plans, packed images, caches) and what comes back to it.

In a child process, as triton reads TRITON_INTERPRET when it is imported.
"""

import os
import subprocess
import sys

import pytest

START = """
import copy
import sys
import torch
from avar_kernels import api, cache
from avar_fast.attention import SpecialTokens, intervene, key_types, record_attention
from avar_fast.attention.call import VISION_ATTN_NAME
from avar_fast.models.checkpointing import checkpoint_layers
from tests.attention.tiny_models import TOKENIZER, batch, eager_mass, models

torch.set_num_threads(1)
api.resolve_backend = cache.resolve_backend = lambda *_: "triton"
TOKENS = SpecialTokens.from_processor(TOKENIZER)

def on_triton():
    fast, slow = models()
    fast.model.visual.config._attn_implementation = VISION_ATTN_NAME
    return fast, slow
"""
PROGRAMS = {
    "float32 gradients": """
fast, slow = on_triton()
inputs = batch("left")
real = inputs["attention_mask"].bool()
types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)

def loss(logits, masses):
    seen = sum((m[real][..., 1] + 1e-2).log().mean() for m in masses)
    return logits[real].logsumexp(-1).mean() + seen

checkpoint_layers(fast)
fast.train(), slow.train()
with record_attention(fast) as rec:
    got = fast(**inputs, use_cache=False).logits
loss(got, rec.mass.values()).backward()
out = slow(**inputs, output_attentions=True, use_cache=False)
loss(out.logits, eager_mass(out.attentions, types)).backward()
assert torch.allclose(got[real], out.logits[real], atol=2e-5)
for layer, mass in enumerate(eager_mass(out.attentions, types)):
    assert torch.allclose(rec.mass[layer][real], mass[real], atol=1e-6)
for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
    if b.grad is None:
        assert a.grad is None, name
        continue
    scale = b.grad.abs().max().clamp(min=1e-3)
    assert (a.grad - b.grad).abs().max() < 1e-3 * scale, name
""",
    "generate": """
fast, _ = on_triton()
inputs = batch("left")
options = dict(max_new_tokens=3, do_sample=False)
with torch.no_grad(), intervene(fast, visual_scale=1.3, system_bias=-0.5):
    got = fast.generate(**inputs, **options)
    api.resolve_backend = cache.resolve_backend = lambda *_: "eager"
    want = fast.generate(**inputs, **options)
assert torch.equal(got, want)
""",
    "bfloat16 as on sm90": """
sys.path.insert(0, "tests/kernels/triton_backend")
from imitation import imitate
imitate("sm90")
fast, slow = on_triton()
inputs = batch("right")
real = inputs["attention_mask"].bool()
types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
with torch.no_grad():
    exact = slow.double()(**inputs, output_attentions=True)
masses = torch.stack(eager_mass(exact.attentions, types))[:, real]
fast.bfloat16()

def errors():
    fast.zero_grad()
    with record_attention(fast) as rec:
        logits = fast(**inputs, use_cache=False).logits[real]
    seen = (rec.mass[3][real][..., 1] + 1e-2).log().mean()
    (logits.float().logsumexp(-1).mean() + seen).backward()
    found = torch.stack([rec.mass[layer][real] for layer in range(4)])
    gradient = fast.model.language_model.layers[0].self_attn.q_proj.weight.grad.double()
    return (logits - exact.logits[real]).abs().mean(), (found - masses).abs().mean(), gradient

logits, mass, gradient = errors()
for backend in ("cpu", "eager"):  # whatever implements the operation, bfloat16 costs about the same
    api.resolve_backend = lambda *_: backend
    of_logits, of_mass, other = errors()
    assert logits < 1.2 * of_logits and mass < 1.2 * of_mass, (logits, of_logits, mass, of_mass)
    distance = (gradient - other).norm() / other.norm()
    assert distance < 0.1, distance
assert mass < 0.01
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_eager(name):
    done = subprocess.run(
        [sys.executable, "-c", START + PROGRAMS[name] + "print('agree')\n"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "agree" in done.stdout, done.stderr[-3000:]
