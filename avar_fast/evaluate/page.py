"""Writes a result as an HTML page: tables, VAS per layer and head, and every prediction."""

import html
from pathlib import Path

from ..characters import visible
from ..report import figures
from ..report.document import html_table, write_page
from .prediction import Prediction
from .result import Result
from .table import detail_table, notes, score_table

LONGEST = 2000  # characters of a completion that the page shows; the JSON holds all of it


def write_predictions(path: Path, result: Result) -> None:
    """Writes the page. Text of models and data sets is escaped, so it cannot inject HTML."""
    model = result.head["model"]["path"]
    tables = {
        name: (summary.vas_layers, summary.vas_table["log_ratio"])
        for name, summary in result.benchmarks.items()
        if summary.vas_table
    }
    settings = ", ".join(f"{name} {value}" for name, value in result.head["settings"].items())
    parts = [
        f"<h1>{html.escape(model)}</h1><p>{html.escape(settings)}</p>",
        html_table(score_table([(model, result.scores)])),
        html_table(detail_table(result.benchmarks)),
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes(model, result.benchmarks)),
        f"<h2>VAS per layer and head</h2>{figures.vas_tables(tables, 'log ratio')}"
        if tables
        else "",
        "<h2>Predictions</h2>",
        *(_prediction(prediction) for prediction in result.predictions),
    ]
    write_page(path, model, parts)


def _prediction(prediction: Prediction) -> str:
    verdict = "right" if prediction.right else "wrong"
    if prediction.error is not None:
        verdict = "not asked"
    elif prediction.parsed is None:
        verdict = "unparsable"
    head = f"{prediction.benchmark} {prediction.id}: {verdict}"
    answers = f"answer {_cut(prediction.answer)}; parsed {_cut(str(prediction.parsed))}"
    body = _cut(prediction.error or prediction.completion)
    if prediction.judge_replies is not None:
        body += "".join(f"\n\njudge: {_cut(reply)}" for reply in prediction.judge_replies)
        body += f"\n\nno verdict: {prediction.judge_error}" if prediction.judge_error else ""
    return (
        f"<details><summary>{html.escape(head)}</summary><p>{html.escape(answers)}</p>"
        f"<pre>{html.escape(body)}</pre></details>"
    )


def _cut(text: str) -> str:
    text = visible(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"
