"""Shows where models look in the images of rows, token by token of their answers."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..data import Row, Rows
from ..report.response_maps import ResponseMaps

TITLE = "Where the answer looks"


@dataclass(frozen=True)
class Looked:
    """The answers of one or two models to the same rows."""

    where: list[str]
    """Origin of each row: data set and row."""
    answers: list[dict[str, ResponseMaps]]
    """Per row {name of the model: its answer and maps}."""

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {
                "row": where,
                "answer": next(iter(models.values())).answer,
                "models": {
                    name: {
                        "response": maps.response,
                        "num_tokens": len(maps.pieces),
                        "num_image_tokens": maps.num_image_tokens,
                        "text_mass": float(maps.masses[:, 0].mean()),
                        "visual_mass": float(maps.masses[:, 1].mean()),
                        "system_mass": float(maps.masses[:, 2].mean()),
                        "visual_mass_by_token": maps.masses[:, 1].tolist(),
                    }
                    for name, maps in models.items()
                },
            }
            for where, models in zip(self.where, self.answers, strict=True)
        ]
        return {"rows": rows}


def rows_with_images(rows: Rows, limit: int) -> list[Row]:
    """The first rows that have an image.

    Raises:
        ValueError: none has one.
    """
    chosen = list(islice((row for row in rows if row.images), limit))
    if not chosen:
        raise ValueError(f"look needs rows with an image; none of {len(rows)} has one.")
    return chosen


def write_look(folder: Path, looked: Looked, intro: str) -> Path:
    """Writes ``look.html``; returns its path."""
    from ..report.document import write_page
    from ..report.look_page import look_parts

    path = folder / "look.html"
    write_page(path, TITLE, look_parts(TITLE, intro, looked.answers))
    return path
