"""The LM head in slices against all logits in float64: values, gradients, memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avar_fast.objectives import liger_fits, linear_log_probs
from avar_fast.objectives.linear_log_probs import columns_within

ROWS, WIDTH, VOCABULARY, BANNED = 13, 24, 301, (7, 300)
# Bytes of a slice of a given width, for float64 with entropies.
COLUMN = ROWS * 8 * 2
BUDGETS = {"one": COLUMN, "odd": COLUMN * 37, "tiles": COLUMN * 130, "all": COLUMN * VOCABULARY}


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    hidden = 1.5 + torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
    tokens = torch.randint(0, 299, (ROWS,), generator=generator)
    tokens[:3] = torch.tensor([0, 299, 128])  # ends of slices
    tokens[tokens == BANNED[0]] = 8
    cotangents = torch.randn(2, ROWS, generator=generator, dtype=torch.float64)
    hidden, weight = (x.to(dtype).requires_grad_() for x in (hidden, weight))
    return hidden, weight, tokens, cotangents


def by_all_logits(hidden, weight, tokens, temperature, banned):
    """The definition, from the probabilities of tokens that are not banned."""
    allowed = [v for v in range(len(weight)) if v not in banned]
    probs = torch.softmax(hidden @ weight[allowed].T / temperature, -1)
    where = torch.tensor([allowed.index(int(t)) for t in tokens])
    chosen = probs.gather(1, where[:, None])[:, 0].log()
    return chosen, -(probs * probs.clamp(min=1e-300).log()).sum(1)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("temperature", "banned"), [(1.0, ()), (0.7, BANNED)])
def test_values_and_gradients_of_log_probabilities_and_entropies(budget, temperature, banned):
    hidden, weight, tokens, cotangents = problem()
    want = by_all_logits(hidden, weight, tokens, temperature, banned)
    got = linear_log_probs(
        hidden, weight, tokens, temperature, banned, budget_bytes=BUDGETS[budget],
        with_entropy=True,
    )  # fmt: skip
    assert want[1].min() < 0.1 < want[1].max()  # sure and unsure rows
    for kinds in ((0,), (1,), (0, 1)):
        total, expected = (sum((x[k] * cotangents[k]).sum() for k in kinds) for x in (got, want))
        gradients = torch.autograd.grad(total, (hidden, weight), retain_graph=True)
        oracle = torch.autograd.grad(expected, (hidden, weight), retain_graph=True)
        for a, b in zip(gradients, oracle, strict=True):
            assert torch.allclose(a, b, rtol=1e-11, atol=1e-12), kinds
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("budget", ["odd", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_within_what_the_products_round(dtype, budget, monkeypatch):
    """Against float64 from the same rounded inputs. A logit z is a sum of D products, off by at
    most D eps (|h| |w|) in float32 and once more by 2^-8 |z| where the product is stored in
    bfloat16; log p moves by at most twice the largest of these, p by as much of itself, and a
    gradient by that share of the sum of its terms' sizes, with a rounding of each term."""
    hidden, weight, tokens, cotangents = problem(dtype)
    log_probs, entropies = linear_log_probs(
        hidden, weight, tokens, budget_bytes=BUDGETS[budget], with_entropy=True
    )
    exact_h, exact_w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    want, want_entropy = by_all_logits(exact_h, exact_w, tokens, 1.0, ())
    eps = torch.finfo(torch.float32).eps
    size = exact_h.detach().abs() @ exact_w.detach().abs().T
    logit_error = (WIDTH + 8) * eps * size.amax(1)
    half = torch.finfo(dtype).eps if dtype == torch.bfloat16 else 0.0
    logit_error = logit_error + half * (exact_h @ exact_w.T).detach().abs().amax(1)
    assert ((log_probs - want).abs() <= 2 * logit_error).all()
    assert ((entropies - want_entropy).abs() <= 2 * logit_error * (1 + want_entropy)).all()

    g = cotangents[0]
    got = torch.autograd.grad((log_probs * g).sum(), (hidden, weight))
    oracle = torch.autograd.grad((want * g).sum(), (exact_h, exact_w))
    probs = torch.softmax(exact_h @ exact_w.T, -1).detach()
    terms = g.abs()[:, None] * probs
    terms[torch.arange(ROWS), tokens] += g.abs()
    # exp of an error, the rounding of each term to the weight's dtype, and that of the result
    share = torch.expm1(2 * logit_error)[:, None] + 4 * eps + 2 * half
    sizes = (terms * share) @ exact_w.detach().abs(), (terms * share).T @ exact_h.detach().abs()
    for a, b, bound in zip(got, oracle, sizes, strict=True):
        assert ((a - b).abs() <= bound * 1.01 + (eps + half) * b.abs() + 1e-30).all()
        assert bound.mean() < 0.5 * b.abs().mean() or dtype == torch.bfloat16  # it could fail


def test_a_frozen_head_gets_no_gradient_and_a_second_backward_is_the_first():
    hidden, weight, tokens, cotangents = problem()
    weight.requires_grad_(False)
    for budget in BUDGETS.values():
        log_probs, none = linear_log_probs(hidden, weight, tokens, budget_bytes=budget)
        assert none is None
        total = (log_probs * cotangents[0]).sum()
        first = torch.autograd.grad(total, hidden, retain_graph=True)[0]
        assert torch.allclose(first, torch.autograd.grad(total, hidden)[0], rtol=1e-12)
    assert weight.grad is None
    with torch.no_grad():
        assert not linear_log_probs(hidden, weight, tokens, budget_bytes=10**6)[0].requires_grad


def test_banned_tokens_have_no_probability_and_no_rows_give_no_numbers():
    hidden, weight, tokens, _ = problem()
    tokens[:] = BANNED[0]
    log_probs, entropies = linear_log_probs(
        hidden, weight, tokens, 1.0, BANNED, budget_bytes=COLUMN, with_entropy=True
    )
    assert (log_probs == float("-inf")).all()
    assert torch.isfinite(entropies).all()
    log_probs, _ = linear_log_probs(hidden[:0], weight, tokens[:0], budget_bytes=COLUMN)
    assert torch.autograd.grad(log_probs.sum(), weight)[0].abs().sum() == 0


def test_slices_are_as_wide_as_the_budget_allows():
    half, single = torch.zeros(1000, 4, dtype=torch.bfloat16), torch.zeros(1000, 4)
    assert columns_within(10 * 4 * 1000, 10, single, False) == 1000
    assert columns_within(10 * 4 * 999, 10, single, False) == 896  # whole tiles of 128
    assert columns_within(10 * 4 * 100, 10, single, False) == 100
    assert columns_within(10 * 6 * 300, 10, half, False) == 256
    assert columns_within(10 * 10 * 300, 10, half, True) == 256


def test_bad_input_is_named():
    hidden, weight, tokens, _ = problem()
    for arguments, words in (
        ((hidden[None], weight, tokens), "hidden must be"),
        ((hidden, weight[:, 1:], tokens), "hidden must be"),
        ((hidden, weight, tokens[1:]), r"tokens must be of shape \(13,\)"),
        ((hidden.float(), weight, tokens), "dtype torch.float64; got torch.float32"),
    ):
        with pytest.raises(ValueError, match=words):
            linear_log_probs(*arguments, budget_bytes=10**6)
    with pytest.raises(ValueError, match="one column of logits, 104 bytes.*got 103"):
        linear_log_probs(hidden, weight, tokens, budget_bytes=103)


MEMORY = """
import ctypes, sys, torch
from pathlib import Path
from avar_fast.objectives import linear_log_probs
rows, width, vocabulary, mib = 1024, 32, 65536, 2**20
hidden = torch.randn(rows, width, requires_grad=True)
weight = torch.randn(vocabulary, width, requires_grad=True)
tokens = torch.randint(0, vocabulary, (rows,))

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) * 1024

def run(rows, budget):
    log_probs, entropies = linear_log_probs(
        hidden[:rows], weight, tokens[:rows], budget_bytes=budget, with_entropy=True
    )
    (log_probs.sum() + entropies.sum()).backward()

ctypes.CDLL(None).mallopt(-3, 65536)  # tensors are mapped, so memory that is freed is gone
run(8, mib)  # the libraries' own buffers, and the gradients
for budget in (32 * mib, 2**30):
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run(rows, budget)
    print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_below_the_budget():
    """All logits are 256 MiB here, twice that with their entropies' products."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    small, large = (int(line) / 2**20 for line in done.stdout.split())
    gradients = 65536 * 32 * 4 / 2**20 + 1  # dW once more before it is added up, and dh
    assert small < 32 + gradients
    assert large > 400  # the measure sees what it should


def test_liger_is_taken_where_its_buffers_fit():
    weight = torch.zeros(1000, 100, dtype=torch.bfloat16)
    # 1000 rows in ceil(1000 / 10) = 100, rounded up to 128, times 1000 logits of 2 bytes
    assert liger_fits(1000, weight, 256_000)
    assert not liger_fits(1000, weight, 255_999)
    assert not liger_fits(1000, weight.requires_grad_(), 655_999)  # the float32 sum of dW
    assert liger_fits(1000, weight, 656_000)
    assert not liger_fits(1000, torch.zeros(1000, 100, dtype=torch.float16), 10**9)


LIGER = """
import torch
from avar_fast.attention import SpecialTokens
from avar_fast.objectives import liger_nll
from avar_fast.train import forward
from tests.data.samples import TOKENIZER, collator, samples
from tests.models.families import models

called = []
def watched(*arguments):
    called.append(arguments)
    return liger_nll(*arguments)

forward.liger_nll = watched
model = models("qwen2_5_vl")[0].train()
batch = collator(model, SpecialTokens.from_processor(TOKENIZER)).pack(samples())

def run(liger, budget):
    model.zero_grad()
    loss = forward.label_nll(model, batch, forward.HeadLimits(budget, liger))
    (loss / 7).backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

for frozen in (False, True):
    model.lm_head.requires_grad_(not frozen)
    want, expected = run(False, 1 << 20)
    got, gradients = run(True, 1 << 20)
    assert abs(got - want) < 1e-5 * want, (got, want)
    assert gradients.keys() == expected.keys() and ("lm_head.weight" in gradients) != frozen
    for name, gradient in gradients.items():
        scale = expected[name].abs().max() + 1e-6
        assert (gradient - expected[name]).abs().max() < 1e-4 * scale, name
assert len(called) == 2
run(True, 1 << 13)
print(len(called))
"""


def test_a_model_learns_the_same_through_ligers_kernel():
    """In Triton's interpreter; within a smaller budget the slices take over."""
    pytest.importorskip("liger_kernel", reason="liger-kernel is published for Linux only")
    command, root = [sys.executable, "-c", LIGER], Path(__file__).parents[2]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert done.stdout.strip() == "2", done.stderr[-2000:]
