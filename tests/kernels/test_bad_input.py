"""Every refused argument is named, with what was expected, what came and the remedy."""

import pytest
import torch
from avar_kernels import visual_attn_func, visual_attn_varlen_func

Q, K, V = torch.randn(2, 5, 4, 8), torch.randn(2, 6, 2, 8), torch.randn(2, 6, 2, 8)
TYPES = torch.zeros(2, 6, dtype=torch.int32)


def call(**change):
    arguments = dict(q=Q, k=K, v=V, key_types=TYPES)
    arguments.update(change)
    return visual_attn_func(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(q=[1.0]), TypeError, "q must be a torch.Tensor; got list"),
        (dict(q=Q[0]), ValueError, r"q must be of shape \(B, L, H, D\); got shape \(5, 4, 8\)"),
        (dict(q=Q.int()), TypeError, "q must be float32.*got torch.int32"),
        (dict(k=K.half()), TypeError, "k must have q's dtype torch.float32; got torch.float16"),
        (dict(v=V[:, :5]), ValueError, "v must be of shape"),
        (dict(q=Q[:1]), ValueError, "k must be of batch size 1, as q; got 2"),
        (dict(q=Q[..., :7]), ValueError, "k must be of head dimension 7, as q; got 8"),
        (dict(q=Q[:, :, :3]), ValueError, "3 query heads on 2 key heads.*H % Hkv"),
        (dict(k=K[:, :, :0], v=V[:, :, :0]), ValueError, "query heads on 0 key heads"),
        (
            dict(key_types=TYPES.float()),
            TypeError,
            "key_types must be of an integer dtype; got torch.float32",
        ),
        (
            dict(key_types=TYPES[:, :5]),
            ValueError,
            r"key_types must be of shape \(2, 6\).*got shape \(2, 5\)",
        ),
        (dict(key_types=TYPES + 3), ValueError, "key_types must be below num_types = 3.*got 3"),
        (dict(key_types=[[0] * 6] * 2), TypeError, "key_types must be an integer torch.Tensor"),
        (dict(num_types=17), ValueError, r"num_types must be in 1..16; got 17"),
        (dict(num_types=0), ValueError, r"num_types must be in 1..16; got 0"),
        (dict(num_types=2.0), TypeError, "num_types must be an int"),
        (
            dict(type_bias=torch.zeros(2)),
            ValueError,
            r"type_bias must be of shape \(3,\) or \(4, 3\)",
        ),
        (
            dict(type_scale=torch.zeros(3, 4)),
            ValueError,
            r"type_scale must be of shape \(3,\) or \(4, 3\)",
        ),
        (
            dict(type_bias=torch.zeros(3, dtype=torch.int32)),
            TypeError,
            "type_bias must be of a floating dtype",
        ),
        (dict(type_bias=[0.0, 0.0, 0.0]), TypeError, "type_bias must be a torch.Tensor"),
        (dict(softmax_scale=0.0), ValueError, "softmax_scale must be positive and finite"),
        (dict(softmax_scale=float("nan")), ValueError, "softmax_scale must be positive and finite"),
        (dict(window_size=(-2, 0)), ValueError, "window_size must be"),
        (dict(softmax_scale="a"), TypeError, "softmax_scale must be a number or None; got str"),
        (dict(window_size=None), ValueError, r"window_size must be \(left, right\).*got None"),
        (dict(window_size=(None, 0)), ValueError, "window_size must be"),
        (dict(causal=None), TypeError, "causal must be a bool; got NoneType"),
        (dict(backend="fast"), ValueError, "backend must be None or one of"),
    ],
)
def test_dense(change, error, words):
    with pytest.raises(error, match=words):
        call(**change)


def packed(cu_q=(0, 2, 5), cu_k=(0, 3, 6), max_q=3, max_k=3, dtype=torch.int32):
    offsets = (torch.tensor(cu_q, dtype=dtype), torch.tensor(cu_k, dtype=dtype))
    return visual_attn_varlen_func(Q[0], K[0], V[0], *offsets, max_q, max_k, TYPES[0])


def test_packed_offsets_that_are_right_pass():
    assert packed().out.shape == (5, 4, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(cu_q=(1, 2, 5)), "cu_seqlens_q must be offsets that start at 0"),
        (dict(cu_k=(0, 4, 3)), "cu_seqlens_k must be offsets that start at 0, never decrease"),
        (dict(cu_q=(0, 2, 6), max_q=4), "end at or before 5 tokens"),
        (dict(max_k=2), r"at most 2 \(max_seqlen\) apart"),
        (dict(cu_q=(0, 5), max_q=5), "cu_seqlens_k must be of shape"),
        (dict(dtype=torch.int64), r"cu_seqlens_q must be int32.*got torch.int64.*torch.int32"),
        (dict(max_q=-1), "max_seqlen_q"),
    ],
)
def test_packed(change, words):
    with pytest.raises(ValueError, match=words):
        packed(**change)


def test_packed_longest_length_must_be_an_int():
    with pytest.raises(TypeError, match="max_seqlen_q must be an int.*got NoneType"):
        packed(max_q=None)


def test_values_are_checked_under_compile_too():
    compiled = torch.compile(lambda t: visual_attn_func(Q, K, V, t).out, fullgraph=True)
    with pytest.raises(ValueError, match="below num_types"):
        compiled(TYPES + 3)
