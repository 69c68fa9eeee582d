"""Finds the places where the host would wait for a GPU, in code that runs on a CPU.

On a GPU, reading a tensor's values waits until all work before it is done; so do operations whose
result has a shape that depends on values, and copies of the host's lists to the device.
"""

import traceback
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parent.parent
READERS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")
WAITING = {
    *("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount"),
    *("_unique2", "unique_consecutive", "unique_dim", "lift_fresh"),
}
INDEXING = {"index", "index_put", "index_put_"}


class DeviceWaits(TorchDispatchMode):
    """Collects, while active, the lines of this project that would wait, in ``lines``.

    It does not look into the project's operators, nor into other packages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._readers: dict[str, Any] = {}

    def __enter__(self) -> "DeviceWaits":
        for name in READERS:
            self._readers[name] = getattr(torch.Tensor, name)
            setattr(torch.Tensor, name, self._noting(self._readers[name]))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name, reader in self._readers.items():
            setattr(torch.Tensor, name, reader)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        repeats = func is torch.ops.aten.repeat_interleave.Tensor
        if name in WAITING or by_mask or repeats:
            self._note()
        return func(*args, **(kwargs or {}))

    def _noting(self, reader: Any) -> Any:
        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note()
            return reader(tensor, *args, **kwargs)

        return read

    def _note(self) -> None:
        stack = traceback.extract_stack()
        if any(frame.name == "redispatch" for frame in stack):
            return  # inside an operator, which runs other code on a GPU
        outside = [f for f in stack if "/torch/" not in f.filename and f.filename != __file__]
        caller = outside[-1]
        path = Path(caller.filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            line = f"{path.relative_to(ROOT)}:{caller.lineno} {caller.line}"
            if not self.lines or self.lines[-1] != line:  # one read passes through several methods
                self.lines.append(line)
