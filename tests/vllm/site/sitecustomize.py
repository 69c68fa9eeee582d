"""Declares torchvision's compiled operators before it is imported: its wheels are built for CUDA
and cannot load theirs beside a CPU build of torch, where nothing here calls them."""

import importlib.abc
import sys


class DeclareOperators(importlib.abc.MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self.library is None:
            import torch

            if torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "DEF")
                for name in ("nms", "qnms"):
                    self.library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        return None


sys.meta_path.insert(0, DeclareOperators())
