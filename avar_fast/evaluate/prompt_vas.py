"""The Visual Attention Score of prompts, from the forwards in which generation reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ..attention import SpecialTokens, query_mask, record_attention, sees_image
from ..vas import FORMS, score_table

EPS = 1e-6  # the plain ratio of a query whose system mass has vanished stays finite

Table = list[list[float]]


@dataclass
class TableSums:
    """VAS per layer and head, summed over queries."""

    num_queries: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    """{form: (layers, heads) float64}"""

    def add(self, tables: dict[str, Tensor], num_queries: int) -> None:
        self.num_queries += num_queries
        for form, table in tables.items():
            self.sums[form] = self.sums.get(form, torch.zeros_like(table)) + table * num_queries

    def as_dict(self) -> dict[str, Any]:
        digits = {form: _rounded(table.tolist()) for form, table in self.sums.items()}
        return {"num_queries": self.num_queries, "sums": digits}

    def add_dict(self, other: dict[str, Any]) -> None:
        self.num_queries += other["num_queries"]
        for form, rows in other["sums"].items():
            table = torch.tensor(rows, dtype=torch.float64)
            self.sums[form] = self.sums.get(form, torch.zeros_like(table)) + table

    def means(self) -> dict[str, Table]:
        """{form: (layers, heads)}; empty where no query was scored."""
        if not self.num_queries:
            return {}
        return {form: (s / self.num_queries).tolist() for form, s in self.sums.items()}


def _rounded(rows: Table) -> Table:
    return [[float(f"{value:.7g}") for value in row] for row in rows]


@dataclass(frozen=True)
class PromptVas:
    """VAS of one prompt."""

    scores: dict[str, float]
    """{form: mean over layers, heads and queries}"""
    tables: dict[str, Tensor]
    """{form: (layers, heads) float64}"""
    num_queries: int


class PromptVasRecorder:
    """Records the VAS of every prompt that a generation reads.

    Args:
        model: attached.
        tokens: of its tokenizer.

    Attributes:
        by_prompt: {number of the prompt: its VAS}; a prompt without an image has none.
    """

    def __init__(self, model: nn.Module, tokens: SpecialTokens) -> None:
        self.model, self.tokens = model, tokens
        self.by_prompt: dict[int, PromptVas] = {}

    @contextmanager
    def __call__(self, first: int, inputs: dict[str, Tensor]) -> Iterator[None]:
        """The ``prompt_context`` of ``avar_fast.rollout.generate``."""
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
            self.by_prompt[first + i] = PromptVas(scores, tables, int(queries[i].sum()))
