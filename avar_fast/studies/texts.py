"""Formats the results of the studies as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..attention.contexts import in_words
from ..bootstrap import Estimate
from ..characters import visible
from ..evaluate.settings import intervention_text
from ..tables import markdown
from ..vas.score import FORMS
from .compare import LOG_RATIO, VasComparison
from .correlate import PAPER, Coefficient, Correlation
from .heads import HeadRanking
from .look import Looked
from .masses import QUANTITIES, RowMasses
from .score import VasSummary


def data_text(collected: RowMasses, intervention: Mapping[str, Any]) -> str:
    """Says how many queries, rows, layers and heads were read, and how attention was changed."""
    left_out, layers = collected.num_without_image, collected.layers
    read = (
        f"{int(collected.counts.sum())} queries of {len(collected.rows)} rows with"
        f" {int(collected.num_keys[:, 0].sum())} image tokens;"
        f" {len(layers)} layers ({in_words(layers)}) of {collected.num_heads} heads"
        + (f"; {left_out} rows without an image left out" if left_out else "")
    )
    return "\n".join(filter(None, (read, intervention_text(intervention))))


def summary_text(summary: VasSummary) -> str:
    """Table of the three forms and the masses, overall."""
    names = (*FORMS, "text", "visual", "system")
    lines = [[name, f"{_of(summary.overall, name):.4g}"] for name in names]
    return markdown([["mean over layers, heads, queries", "value [interval]"], *lines])


def comparison_text(comparison: VasComparison) -> str:
    """Table with one line per checkpoint, the rule of the verdict, a table of changes, and the
    heads that moved most."""
    lines = [["checkpoint", "log ratio", "share", "rise of log ratio", "rise of share", "verdict"]]
    changes: list[tuple[str, ...]] = [("", "", "base")]
    for shift in comparison.shifts:
        share = _of(shift.overall, "share")
        rise = shift.overall[LOG_RATIO]
        changes.append((f"{rise:+.3f}", f"{share:+.3f}", shift.verdict))
    for name, summary, change in zip(comparison.names, comparison.summaries, changes, strict=True):
        scores = (f"{_of(summary.overall, form).value:.3f}" for form in ("log_ratio", "share"))
        lines.append([name, *scores, *change])
    limit, percent = comparison.threshold, 100 * comparison.bootstrap.confidence
    rule = (
        f"Verdict: looks more where the {percent:g} % interval of the rise of the mean log ratio"
        f" over {comparison.names[0]}, paired over rows, lies above {limit:.4g}; lazy where it lies"
        " below; else undecided."
    )
    parts = [markdown(lines), rule]
    masses = [["change of mass", "text", "visual", "system", "log visual", "log system"]]
    for shift in comparison.shifts:
        cells = (_of(shift.overall, q) for q in ("text", "visual", "system"))
        logs = (_of(shift.overall, q) for q in ("log_visual", "log_system"))
        masses.append([shift.name, *(f"{cell.value:+.3f}" for cell in (*cells, *logs))])
    parts.append(markdown(masses))
    for shift in comparison.shifts:
        heads = (f"{m.layer}.{m.head}: {m.log_ratio:+.2f}" for m in shift.moved_most)
        parts.append(
            f"{shift.name}, log ratio of the heads (layer.head) that moved most: "
            + "; ".join(heads)
        )
    return "\n\n".join(parts)


def correlation_text(
    correlations: Sequence[Correlation],
    num_points: int,
    confidence: float,
    differing: Mapping[str, Sequence[Any]],
) -> str:
    """Table of the coefficients, with the paper's in the last line, and the settings of the
    evaluations that differ."""
    header = ["score", "n", "Pearson", "p", "Spearman", "p"]
    lines = [header]
    for correlation in correlations:
        row = [correlation.form, str(num_points)]
        for coefficient in (correlation.pearson, correlation.spearman):
            row += [_coefficient(coefficient), f"{coefficient.p:.2g}"]
        lines.append(row)
    theirs = [f"{PAPER['form']}, the paper's", f"{PAPER['n']}", f"{PAPER['pearson']}"]
    lines.append([*theirs, f"{PAPER['p']:.2g}", "", ""])
    note = (
        f"Intervals: {100 * confidence:g} %. The paper's line: {PAPER['source']}, {PAPER['note']}."
        " p-values take points as independent, which checkpoints of one run are not."
    )
    if differing:
        each = "; ".join(f"{name} {', '.join(map(str, v))}" for name, v in differing.items())
        note += f"\nThe evaluations differ in their settings: {each}."
    return f"{markdown(lines)}\n\n{note}"


def heads_text(ranking: HeadRanking, num_shown: int) -> str:
    """Table of the heads with the most visual mass and the effect of masking them, and the rank
    correlation of both."""
    masks = list(ranking.drops)
    ranks = {mask: ranking.order(drop) for mask, drop in ranking.drops.items()}
    lines = [["layer.head", "visual mass", *(x for m in masks for x in (f"masked {m}", "rank"))]]
    for layer, head in ranking.order(ranking.visual_mass)[:num_shown]:
        place = ranking.layers.index(layer), head
        cells = [f"{layer}.{head}", f"{ranking.visual_mass[place]:.3f}"]
        for mask in masks:
            rank = ranks[mask].index((layer, head)) + 1
            cells += [f"{ranking.drops[mask][place]:.4f}", str(rank)]
        lines.append(cells)
    notes = [
        "Masked: nats that a token of the reference answer loses"
        f" ({ranking.log_prob:.3f} unmasked); visual: without the head's visual keys, output:"
        " without the head."
    ]
    for mask, coefficient in ranking.agreement.items():
        notes.append(
            f"Rank correlation of visual mass and loss ({mask}): Spearman"
            f" {_coefficient(coefficient)}, p = {coefficient.p:.2g}, over"
            f" {ranking.visual_mass.value.size} heads."
        )
    return "\n\n".join([markdown(lines), *notes])


def look_text(looked: Looked) -> str:
    """Table of the answers with their mean visual mass."""
    lines = [["row", "model", "tokens", "visual mass", "answer"]]
    for where, models in zip(looked.where, looked.answers, strict=True):
        for name, maps in models.items():
            mass, text = float(maps.masses[:, 1].mean()), " ".join(maps.response.split())
            text = visible(text, kept="")
            cut = text if len(text) <= 60 else f"{text[:57]}..."
            lines.append([where, name, str(len(maps.pieces)), f"{mass:.3f}", cut.replace("|", "/")])
    return markdown(lines)


def _coefficient(coefficient: Coefficient) -> str:
    return f"{coefficient.value:.3f} [{coefficient.low:.3f}, {coefficient.high:.3f}]"


def _of(estimate: Estimate, quantity: str) -> Estimate:
    """The estimate of one quantity."""
    return estimate[QUANTITIES.index(quantity)]
