"""Where a benchmark's records come from: the Hub, or a local copy of its files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.problems import bad_row, shown

Record = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkSource:
    """A published data set and what must be in it."""

    hub: str
    """Name on the Hub."""
    splits: tuple[str, ...]
    """All of which together are the benchmark."""
    columns: dict[str, str]
    """{column: kind}; kinds are text, int, number, scalar (text or int), list, dict, image; with a
    question mark null is allowed."""
    configs: tuple[str | None, ...] = (None,)
    """Likewise; each has all the splits."""
    keep: Callable[[Record], bool] | None = None
    """Which records count; all unless given."""
    files: tuple[str, ...] = ()
    """Names of parquet files on the Hub that the usual patterns do not cover."""

    @property
    def parts(self) -> list[tuple[str | None, str]]:
        """(config, split) of each table."""
        return [(config, split) for config in self.configs for split in self.splits]


class SourceError(ValueError):
    """A data set that cannot be read or is not the benchmark."""


class Records:
    """The records of a benchmark, read one by one; images stay bytes.

    Args:
        name: of the benchmark, for messages.
        source: what it should be.
        local: folder with a copy, or None for the Hub.

    Raises:
        SourceError: it is not there, has another split, or lacks a column.
    """

    def __init__(self, name: str, source: BenchmarkSource, local: str | None) -> None:
        self.name, self.source = name, source
        self.path = local or source.hub
        self.tables = [self._open(config, split, local) for config, split in source.parts]
        for table in self.tables:
            self._check_columns(table.column_names)
        images = {c for c, kind in source.columns.items() if kind.startswith("image")}
        self._texts = [t.remove_columns([c for c in t.column_names if c in images])
                       .with_format("arrow") for t in self.tables]  # fmt: skip
        self._whole = [table.with_format("arrow") for table in self.tables]
        self._index = [
            (i, j)
            for i, texts in enumerate(self._texts)
            for j in range(len(texts))
            if source.keep is None or source.keep(texts[j].to_pylist()[0])
        ]

    def __len__(self) -> int:
        return len(self._index)

    def where(self, index: int) -> str:
        table, row = self._index[index]
        config, split = self.source.parts[table]
        part = config or (split if len(self.source.splits) > 1 else None)
        return f"{self.path}{f' ({part})' if part else ''} row {row + 1}"

    def texts(self, index: int) -> Record:
        """The record without its images, its fields checked.

        Raises:
            RowError: a field of another type, or null.
        """
        table, row = self._index[index]
        record = self._texts[table][row].to_pylist()[0]
        for column, kind in self.source.columns.items():
            if column in record:
                _check(record[column], kind, column, self.where(index))
        return record

    def images(self, index: int, columns: tuple[str, ...]) -> list[Any]:
        """What these columns hold: {"bytes", "path"} or null."""
        if not columns:
            return []
        table, row = self._index[index]
        record = self._whole[table][row].to_pylist()[0]
        return [record.get(column) for column in columns]

    def _open(self, config: str | None, split: str, local: str | None) -> Any:
        import datasets

        try:
            if local is None:
                return datasets.load_dataset(self.source.hub, config, split=split)
            folder = self._folder(Path(local), config)
            if (folder / "dataset_dict.json").is_file():
                return self._split_of(datasets.load_from_disk(str(folder)), split, folder)
            if (folder / "state.json").is_file():
                return datasets.load_from_disk(str(self._only_part(folder)))
            files = self._files(folder, config, split)
            return datasets.load_dataset("parquet", data_files=files, split="train")
        except SourceError:
            raise
        except Exception as error:  # the library and the network fail in many ways
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            remedy = (
                f"Give a local copy with --data {self.name}=FOLDER."
                if local is None
                else "Copy the benchmark's files there again."
            )
            raise SourceError(
                f"benchmark {self.name} needs split {split}"
                f"{f' of {config}' if config else ''} of {self.path}, which cannot be read; {said}."
                f" {remedy}"
            ) from error

    def _folder(self, folder: Path, config: str | None) -> Path:
        """Where a config is in a local copy: in a folder of its name, which an only one need not
        have."""
        if not folder.is_dir():
            raise SourceError(
                f"--data {self.name}=... must name a folder with a copy of {self.source.hub}; there"
                f" is no folder {folder}."
            )
        if config and ((folder / config).is_dir() or len(self.source.configs) > 1):
            return folder / config
        return folder

    def _split_of(self, splits: Any, split: str, folder: Path) -> Any:
        if split not in splits:
            raise SourceError(
                f"benchmark {self.name} needs split {split}, a copy of {self.source.hub}; {folder}"
                f" holds {', '.join(splits)}."
            )
        return splits[split]

    def _only_part(self, folder: Path) -> Path:
        """A folder of ``save_to_disk`` with one split, which must be all there is."""
        if len(self.source.parts) > 1:
            raise SourceError(
                f"benchmark {self.name} needs {len(self.source.parts)} tables of {self.source.hub};"
                f" {folder} is one. Save a DatasetDict with the splits"
                f" {', '.join(self.source.splits)}, for each config in a folder of its name."
            )
        return folder

    def _files(self, folder: Path, config: str | None, split: str) -> list[str]:
        """The parquet files of a split in a copy of the Hub's repository."""
        places = [folder] if folder.name == config else [folder / "data", folder]
        for place in places:
            found = sorted(place.glob(f"{split}-*.parquet")) or sorted(
                file for name in (f"{split}.parquet", *self.source.files)
                if (file := place / name).is_file()
            )  # fmt: skip
            if found:
                return [str(file) for file in found]
        inside = sorted(str(f.relative_to(folder)) for f in folder.rglob("*.parquet"))[:8]
        raise SourceError(
            f"benchmark {self.name} needs split {split}{f' of {config}' if config else ''} as"
            f" {' or '.join(str(place / f'{split}-*.parquet') for place in places)}, a copy of"
            f" {self.source.hub}; {folder} holds {', '.join(inside) or 'no parquet file'}."
        )

    def _check_columns(self, found: list[str]) -> None:
        needed = list(self.source.columns)
        missing = [column for column in needed if column not in found]
        if missing:
            raise SourceError(
                f"benchmark {self.name} needs the columns {', '.join(needed)}; {self.path} lacks"
                f" {', '.join(missing)} (it has {', '.join(found)}). Check that it is a copy of"
                f" {self.source.hub}."
            )


_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "int": (int,),
    "number": (int, float),
    "list": (list,),
    "dict": (dict,),
    "scalar": (str, int),
}


def _check(value: Any, kind: str, column: str, where: str) -> None:
    plain = kind.rstrip("?")
    if value is None and kind.endswith("?"):
        return
    if not isinstance(value, _KINDS[plain]):
        raise bad_row(where, column, f"be {plain}", f"got {shown(value)}")
