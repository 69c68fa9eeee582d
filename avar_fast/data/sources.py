"""Sources of records: JSON, JSON lines, parquet, ``datasets`` folders and hub data sets.

Every source is a sequence that reads a record on demand, and works in any process.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy

from ..missing import IN_RECIPE, RowNames, require_rows
from .problems import RowError, RowProblem

ANSWER = "answer"
IMAGE_COLUMNS = ("images", "image")
BATCH = 1000  # records read together for a digest


class RowSource(Protocol):
    """A sequence of records."""

    folder: Path
    """Image paths are relative to this folder."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def where(self, index: int, /) -> str:
        """The place of a record, for messages."""
        ...

    def contents(self, count: int, /) -> Iterator[bytes]:
        """The contents of the first ``count`` records without image columns, for a digest."""
        ...


def open_source(
    path: str, split: str, keep_bad_lines: bool, names: RowNames = IN_RECIPE
) -> RowSource:
    """Opens the source of a path; ``names`` is what the user calls it, for messages."""
    require_rows(path, names)
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in (".jsonl", ".json"):
        return JsonLines(file, keep_bad_lines) if suffix == ".jsonl" else JsonList(file, names)
    return ArrowRecords(path, split, names)


class JsonLines:
    """A file with one JSON object per line. Only the offsets of the lines are kept in memory."""

    def __init__(self, file: Path, keep_bad_lines: bool) -> None:
        self.file, self.folder = file, file.parent
        self._offsets: list[int] = []
        self._numbers: list[int] = []
        with file.open("rb") as lines:
            offset = 0
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self._offsets.append(offset)
                    self._numbers.append(number)
                    if not keep_bad_lines:
                        self._parse(line, number)
                offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int, /) -> Any:
        with self.file.open("rb") as lines:
            lines.seek(self._offsets[index])
            return self._parse(lines.readline(), self._numbers[index])

    def where(self, index: int, /) -> str:
        return f"{self.file} row {index + 1}"

    def contents(self, count: int, /) -> Iterator[bytes]:
        with self.file.open("rb") as lines:
            for line in itertools.islice(filter(None, (line.strip() for line in lines)), count):
                try:
                    yield _as_bytes(json.loads(line))
                except (ValueError, RecursionError):  # the recipe may allow bad rows
                    yield line

    def _parse(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        # JSONDecodeError, UnicodeDecodeError (a cut character), or too many nested brackets
        except (ValueError, RecursionError) as error:
            form = "{where} {field} must {expected}; {got}."
            problem = RowProblem(
                str(self.file), f"line {number}", "be one JSON object", str(error), form=form
            )
            raise RowError(problem) from None


class JsonList:
    """A file with one JSON list of objects."""

    def __init__(self, file: Path, names: RowNames = IN_RECIPE) -> None:
        self.file, self.folder = file, file.parent
        try:
            self._records = json.loads(file.read_bytes())  # bytes may start with a BOM
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{names.path} must be valid JSON; {file}: {error}.") from None
        if not isinstance(self._records, list):
            raise ValueError(
                f"{names.path} must hold a JSON list of rows; {file} holds a"
                f" {type(self._records).__name__}. Write one object per line into a .jsonl file,"
                " or wrap them in [ ]."
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Any:
        return self._records[index]

    def where(self, index: int, /) -> str:
        return f"{self.file} row {index + 1}"

    def contents(self, count: int, /) -> Iterator[bytes]:
        return (_as_bytes(record) for record in self._records[:count])


class ArrowRecords:
    """Parquet, a folder written by save_to_disk, or a hub data set, through ``datasets``.

    Records are read in Arrow format: an image column gives its stored bytes and path, without
    decoding. Casting a list of images would copy the data.
    """

    def __init__(self, path: str, split: str, names: RowNames = IN_RECIPE) -> None:
        self.path = path
        self.folder = Path(path) if Path(path).is_dir() else Path(path).parent
        table = _load_dataset(path, split, names)
        self._read_answer = _answer_reader(table.features.get(ANSWER))
        self._table = table.with_format("arrow")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int, /) -> Any:
        record = self._table[index].to_pylist()[0]
        if self._read_answer is not None and record[ANSWER] is not None:
            record[ANSWER] = self._read_answer(record[ANSWER])
        return record

    def where(self, index: int, /) -> str:
        return f"{self.path} row {index + 1}"

    def contents(self, count: int, /) -> Iterator[bytes]:
        images = [name for name in IMAGE_COLUMNS if name in self._table.column_names]
        texts = self._table.remove_columns(images)
        for start in range(0, count, BATCH):
            for record in texts[start : min(start + BATCH, count)].to_pylist():
                yield _as_bytes(record)


def _answer_reader(feature: Any) -> Callable[[Any], Any] | None:
    """A function that converts Arrow's values of the answer column to those that the data set
    shows (class names, and decimals of narrow floats); None if they are the same."""
    if hasattr(feature, "int2str"):
        return feature.int2str
    if getattr(feature, "dtype", "") in ("float16", "float32"):
        return lambda value: float(str(getattr(numpy, feature.dtype)(value)))
    return None


def _as_bytes(record: Any) -> bytes:
    """A record as bytes; equal records give equal bytes, whatever their types."""
    return json.dumps(record, sort_keys=True, default=repr).encode()


def _parquet(files: str, names: RowNames) -> Any:
    import datasets

    try:
        return datasets.load_dataset("parquet", data_files=files, split="train")
    except Exception as error:  # Arrow and datasets raise many kinds of errors
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{names.path} must be parquet that can be read; {files} cannot: {reason}."
        ) from None


def _load_dataset(path: str, split: str, names: RowNames) -> Any:
    import datasets

    folder = Path(path)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        loaded = datasets.load_from_disk(path)
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise ValueError(
                    f"{names.split} must be one of {', '.join(map(str, loaded))} of {path}; got"
                    f" {split!r}."
                )
            return loaded[split]
        return loaded
    if folder.is_dir():
        return _parquet(str(folder / "*.parquet"), names)
    if folder.is_file():
        return _parquet(str(folder), names)
    return datasets.load_dataset(path, split=split)
