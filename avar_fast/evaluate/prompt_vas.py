"""Measures the Visual Attention Score of prompts during the forward that reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ..attention import SpecialTokens, query_mask, record_attention, sees_image
from ..vas import FORMS, score_table

EPS = 1e-6  # keeps the plain ratio finite if the system mass of a query is zero

Table = list[list[float]]


@dataclass(frozen=True)
class PromptVas:
    """The VAS of one prompt."""

    scores: dict[str, float]
    """{form: mean over layers, heads and queries}"""
    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, ascending: the rows of the
    tables."""
    tables: dict[str, Tensor]
    """{form: (layers, heads) float64 means over queries}"""
    num_queries: int
    """Number of user tokens that see the image."""


@dataclass
class TableSums:
    """VAS per layer and head, summed over queries."""

    num_queries: int = 0
    layers: tuple[int, ...] = ()
    """The layers of the rows, as in ``PromptVas``; empty if there are no queries."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """{form: (layers, heads) float64}"""

    def add(self, vas: PromptVas) -> None:
        """Adds the tables of a prompt."""
        sums = {form: table * vas.num_queries for form, table in vas.tables.items()}
        self._add(vas.num_queries, vas.layers, sums)

    def as_dict(self) -> dict[str, Any]:
        """The sums for JSON, rounded to 7 digits."""
        digits = {form: _rounded(table.tolist()) for form, table in self.sums.items()}
        return {"num_queries": self.num_queries, "layers": list(self.layers), "sums": digits}

    def add_dict(self, other: dict[str, Any]) -> None:
        """Adds sums in the form of ``as_dict``."""
        sums = {
            form: torch.tensor(rows, dtype=torch.float64) for form, rows in other["sums"].items()
        }
        self._add(other["num_queries"], tuple(other["layers"]), sums)

    def _add(self, num_queries: int, layers: tuple[int, ...], sums: dict[str, Tensor]) -> None:
        if not num_queries:
            return
        self.num_queries += num_queries
        self.layers = layers
        for form, table in sums.items():
            self.sums[form] = self.sums.get(form, torch.zeros_like(table)) + table

    def means(self) -> dict[str, Table]:
        """{form: (layers, heads) means}; empty if there are no queries."""
        if not self.num_queries:
            return {}
        return {form: (s / self.num_queries).tolist() for form, s in self.sums.items()}


def _rounded(rows: Table) -> Table:
    return [[float(f"{value:.7g}") for value in row] for row in rows]


class PromptVasRecorder:
    """Records the VAS of the prompts that generation reads.

    Args:
        model: model with attention attached.
        tokens: special tokens of its tokenizer.

    Attributes:
        by_prompt: {number of the prompt: its VAS}. Prompts without an image are left out.
    """

    def __init__(self, model: nn.Module, tokens: SpecialTokens) -> None:
        self.model, self.tokens = model, tokens
        self.by_prompt: dict[int, PromptVas] = {}

    @contextmanager
    def __call__(self, first: int, inputs: dict[str, Tensor]) -> Iterator[None]:
        """Records a batch of prompts; the ``prompt_context`` of ``avar_fast.rollout.generate``.

        Args:
            first: number of the first prompt in the batch.
            inputs: model inputs of the batch.
        """
        with record_attention(self.model) as recording:
            yield
        types = recording.key_types
        assert types is not None
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        queries = query_mask(ids, mask, role="user", tokens=self.tokens) & sees_image(types)
        has_image = (types == KeyType.VISUAL).any(dim=1)
        for i in has_image.nonzero()[:, 0].tolist():
            row = slice(i, i + 1)
            masses = {layer: mass[row] for layer, mass in recording.mass.items()}
            tables = {
                form: score_table(masses, queries[row], EPS, form, types[row]).double().cpu()
                for form in FORMS
            }
            scores = {form: table.mean().item() for form, table in tables.items()}
            num_queries, layers = int(queries[i].sum()), tuple(sorted(masses))
            self.by_prompt[first + i] = PromptVas(scores, layers, tables, num_queries)
