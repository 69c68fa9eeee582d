"""Shared set-up: one thread (tiny tensors lose time to thread barriers) and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Virtual machines that show AMX but not the sizes of its tiles crash torch's bfloat16 products.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import torch

torch.set_num_threads(1)
