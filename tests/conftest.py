"""Shared set-up: one thread (tiny tensors lose time to thread barriers) and no network."""

import os

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)
