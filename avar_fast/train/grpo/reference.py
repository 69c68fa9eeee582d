"""The policy that the KL term of stage grpo stays near: the model as the run began."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Batch
from ...loading import load
from ...models import holds_adapters
from ..forward import label_log_probs
from ..run import Run


class Reference:
    """A frozen copy of what model.path holds. New adapters need none: the model without them is
    what they began from."""

    def __init__(self, run: Run) -> None:
        self.run, self.copy = run, None
        model = run.recipe.model
        if not run.recipe.lora.enabled or holds_adapters(model.path):
            loaded = load(model.path, getattr(torch, model.dtype), run.engine.device)
            self.copy = loaded.model.requires_grad_(False).eval()

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """(B, L - 1) float32 of the batch's labels, under the distribution that was sampled."""
        grpo, run = self.run.recipe.grpo, self.run
        with self._model() as model:
            banned = run.tokens.visual
            return label_log_probs(model, batch, run.head, grpo.temperature, banned).log_probs

    @contextmanager
    def _model(self) -> Iterator[nn.Module]:
        if self.copy is not None:
            yield self.copy
            return
        model: Any = self.run.engine.module
        model.disable_adapters()
        try:
            yield model
        finally:
            model.enable_adapters()
