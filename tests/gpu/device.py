"""Where the tests of this folder run: on a GPU, or rehearsed on a CPU with shorter inputs.

``AVAR_TEST_DEVICE=cpu`` rehearses them, so that the tests themselves are known to work before
anybody has a device. Then the kernels of the CPU run instead of Triton's.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("AVAR_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
BACKEND = "triton" if ON_GPU else None
LENGTHS = (2048, 8192) if ON_GPU else (160, 320)

GPU_TIER = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"
    ),
]
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="has no counterpart on a CPU")
