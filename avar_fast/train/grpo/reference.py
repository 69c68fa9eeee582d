"""The reference policy of stage grpo's KL term: the model that the run started from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...attention import attach
from ...data import ResponseBatch
from ...loading import load
from ...models import holds_adapters
from ..forward import response_log_probs
from ..run import Run


class Reference:
    """The frozen model of model.path. New adapters need no copy: with the adapters disabled, the
    trained model is the reference."""

    def __init__(self, run: Run) -> None:
        self.run, self.copy = run, None
        model = run.recipe.model
        if not run.recipe.lora.enabled or holds_adapters(model.path):
            loaded = load(model.path, getattr(torch, model.dtype), run.engine.device)
            attach(loaded.model, loaded.tokenizer)  # for shared prompts
            self.copy = loaded.model.requires_grad_(False).eval()

    @torch.no_grad()
    def log_probs(self, responses: ResponseBatch) -> Tensor:
        """Log-probabilities of the response tokens as (N, T) float32, with the temperature and
        banned tokens of the sampling."""
        grpo, run = self.run.recipe.grpo, self.run
        with self._model() as model:
            banned = run.tokens.visual
            options = run.head, grpo.temperature, banned
            return response_log_probs(model, responses, *options).log_probs

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
