"""Which GPU a call asks about and launches on: that of its tensors, which need not be the current
one. There is no GPU here; torch.cuda's functions are replaced."""

import contextlib
import warnings
from types import SimpleNamespace

import pytest
import torch
from avar_kernels import (
    attn_received,
    available_backends,
    backends,
    plan_keys,
    visual_attn_func,
    visual_attn_with_kvcache,
)

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
NAMES = {0: "Tesla T4", 1: "H200"}
CAPABILITIES = {0: (7, 5), 1: (9, 0)}


@pytest.fixture
def two_gpus(monkeypatch):
    """An old GPU, which is the current one, and a new one."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: NAMES[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: CAPABILITIES[index])
    yield
    forget()


def forget():
    backends._lack_of_gpu.cache_clear()
    backends._warn_once.cache_clear()


def resolved(name, device):
    return backends.resolve_backend(name, device, torch.bfloat16, 128)


def test_the_backend_is_that_of_the_tensors_gpu(two_gpus):
    assert resolved(None, SECOND) == resolved("triton", SECOND) == "triton"
    assert available_backends(SECOND)["triton"]
    assert not available_backends()["triton"]
    assert not backends.triton_takes(FIRST)
    assert backends.triton_takes(SECOND)


def test_a_gpu_that_is_too_old_takes_eager_with_one_warning(two_gpus):
    with pytest.warns(UserWarning, match="takes the backend 'eager'.*Tesla T4 has 7.5"):
        assert resolved(None, FIRST) == "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolved(None, FIRST) == "eager"
        assert resolved("eager", FIRST) == "eager"


def test_a_gpu_that_is_too_old_is_refused_by_name(two_gpus):
    with pytest.raises(RuntimeError, match=r"needs compute capability 8.0.*Tesla T4 has 7.5"):
        resolved("triton", FIRST)


def test_nothing_is_asked_again(two_gpus, monkeypatch):
    resolved(None, SECOND)
    monkeypatch.setattr(torch.cuda, "get_device_capability", None)
    monkeypatch.setattr(backends.importlib.util, "find_spec", None)
    assert resolved(None, SECOND) == "triton"


def test_a_compiled_model_asks_while_it_is_traced(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the compiler asks, too

    @torch.compile(fullgraph=True, backend="eager")
    def signs(x):
        return torch.stack(
            [x if resolved(None, gpu) == "triton" else -x for gpu in (FIRST, SECOND)]
        )

    with pytest.warns(UserWarning, match="takes the backend 'eager'"):
        assert signs(torch.tensor(1.0)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("chip", ["gfx942:sramecc+:xnack-", "gfx90a", "gfx1100"])
def test_an_amd_chip_without_tiles_is_named_once(monkeypatch, chip):
    from avar_kernels.triton_backend import devices

    properties = SimpleNamespace(gcnArchName=chip)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a Radeon")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    devices.arch_of_gpu.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [devices.arch_of_gpu(0) for _ in range(2)] == ["gfx942"] * 2
    finally:
        devices.arch_of_gpu.cache_clear()
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == (chip == "gfx1100")
    assert all("a Radeon (gfx1100) uses the tile sizes of gfx942" in text for text in texts)


def test_on_device_changes_the_device_only_if_it_is_another(monkeypatch):
    from avar_kernels.triton_backend import devices

    class OnSecond:
        is_cuda, device = True, SECOND

        def get_device(self):
            return 1

    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or "context")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with devices.on_device(OnSecond()):
        pass
    with devices.on_device(torch.zeros(1)):
        pass
    assert not entered
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert devices.on_device(OnSecond()) == "context"
    assert entered == [SECOND]


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels launched, none of which runs; a launch outside ``on_device`` is an
    error."""
    from avar_kernels.triton_backend import block_lists, cache_launch, launch, launch_inputs
    from avar_kernels.triton_backend.launchers import Launcher

    inside, names = [], []

    @contextlib.contextmanager
    def on_device(tensor):
        inside.append(tensor.device)
        yield
        inside.pop()

    def launched(launcher, grid, tensors, numbers):
        assert inside, f"{launcher.kernel.__name__} is launched on the current device"
        assert len(tensors) + len(numbers) + len(launcher.constexprs) == len(
            launcher.kernel.arg_names
        )
        names.append(launcher.kernel.__name__)

    monkeypatch.setattr(backends, "interpreting", lambda: True)
    monkeypatch.setattr(launch_inputs, "_arch", lambda device: "sm90")
    for module in (block_lists, cache_launch, launch):
        monkeypatch.setattr(module, "on_device", on_device)
    monkeypatch.setattr(Launcher, "__call__", launched)
    return names


def test_every_launch_is_on_the_tensors_device(launches):
    q = torch.randn(2, 1100, 4, 16, requires_grad=True)
    k = torch.randn(2, 1100, 2, 16)
    types = torch.zeros(2, 1100, dtype=torch.int32)
    for keys in (types, plan_keys(types)):
        result = visual_attn_func(q, k, k, keys, causal=True, backend="triton")
        torch.autograd.grad(result.mass.sum(), q)
    visual_attn_with_kvcache(q[:, :1], k, k, types, 7, backend="triton")
    attn_received(q, k, result.lse, torch.ones(2, 1100), types, backend="triton")
    assert set(launches) == {
        "sort_blocks_kernel",
        "visual_attn_fwd_kernel",
        "visual_attn_bwd_stats_kernel",
        "visual_attn_bwd_dq_kernel",
        "visual_attn_bwd_dkdv_kernel",
        "visual_attn_decode_kernel",
        "visual_attn_decode_merge_kernel",
        "attn_received_kernel",
    }


def test_a_plan_for_decoding_is_not_sorted(launches):
    plan = plan_keys(torch.zeros(2, 1100, dtype=torch.int32), sort=False)
    assert plan.blocks is None
    assert launches == []
    k = torch.randn(2, 1100, 2, 16)
    visual_attn_func(torch.randn(2, 1, 4, 16), k, k, plan, causal=True, backend="triton")
    assert launches == ["visual_attn_decode_kernel", "visual_attn_decode_merge_kernel"]
