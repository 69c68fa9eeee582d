"""Reads the records of a benchmark from the Hub or from a local copy of its files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.problems import bad_row, shown

Record = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkSource:
    """A published data set and the columns that it must have."""

    hub: str
    """Name on the Hub."""
    splits: tuple[str, ...]
    """Splits that together make up the benchmark."""
    columns: dict[str, str]
    """{column: kind}. Kinds are text, int, number, scalar (text or int), list, dict and image. A
    question mark after the kind allows null."""
    configs: tuple[str | None, ...] = (None,)
    """Configs that together make up the benchmark. Each has all the splits."""
    keep: Callable[[Record], bool] | None = None
    """Selects the records of the benchmark; None keeps all."""
    files: tuple[str, ...] = ()
    """Names of parquet files on the Hub that do not follow the usual patterns."""

    @property
    def parts(self) -> list[tuple[str | None, str]]:
        """(config, split) of each table."""
        return [(config, split) for config in self.configs for split in self.splits]


class SourceError(ValueError):
    """A data set that cannot be read or is not the benchmark."""


class Records:
    """The records of a benchmark. They are read one by one, and images stay encoded.

    Args:
        name: name of the benchmark, for error messages.
        source: the data set and its columns.
        local: folder with a copy; None reads from the Hub.

    Raises:
        SourceError: the data set cannot be read, or lacks a split or a column.
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
        """Data set and row of a record, for error messages."""
        table, row = self._index[index]
        config, split = self.source.parts[table]
        part = config or (split if len(self.source.splits) > 1 else None)
        return f"{self.path}{f' ({part})' if part else ''} row {row + 1}"

    def texts(self, index: int) -> Record:
        """A record without its images, with checked fields.

        Raises:
            RowError: a field has another type or is null.
        """
        table, row = self._index[index]
        record = self._texts[table][row].to_pylist()[0]
        for column, kind in self.source.columns.items():
            if column in record:
                _check(record[column], kind, column, self.where(index))
        return record

    def images(self, index: int, columns: tuple[str, ...]) -> list[Any]:
        """The values of image columns, each {"bytes", "path"} or null."""
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
        except Exception as error:  # the library and the network raise many kinds of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            remedy = (
                f"Give a local copy with --data {self.name}=FOLDER."
                if local is None
                else "Copy the benchmark's files there again."
            )
            raise SourceError(
                f"benchmark {self.name} needs split {split}"
                f"{f' of {config}' if config else ''} of {self.path}, which cannot be read;"
                f" {reason}. {remedy}"
            ) from error

    def _folder(self, folder: Path, config: str | None) -> Path:
        """The folder of a config in a local copy. It has the config's name; if the benchmark has
        only one config, its files may also lie directly in the copy."""
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
        """A folder written by ``save_to_disk`` with a single split. The benchmark must not have
        more."""
        if len(self.source.parts) > 1:
            raise SourceError(
                f"benchmark {self.name} needs {len(self.source.parts)} tables of {self.source.hub};"
                f" {folder} is one. Save a DatasetDict with the splits"
                f" {', '.join(self.source.splits)}, for each config in a folder of its name."
            )
        return folder

    def _files(self, folder: Path, config: str | None, split: str) -> list[str]:
        """The parquet files of a split in a copy of the Hub repository."""
        places = [folder] if folder.name == config else [folder / "data", folder]
        for place in places:
            files = sorted(place.glob(f"{split}-*.parquet")) or sorted(
                file for name in (f"{split}.parquet", *self.source.files)
                if (file := place / name).is_file()
            )  # fmt: skip
            if files:
                return [str(file) for file in files]
        inside = sorted(str(f.relative_to(folder)) for f in folder.rglob("*.parquet"))[:8]
        raise SourceError(
            f"benchmark {self.name} needs split {split}{f' of {config}' if config else ''} as"
            f" {' or '.join(str(place / f'{split}-*.parquet') for place in places)}, a copy of"
            f" {self.source.hub}; {folder} holds {', '.join(inside) or 'no parquet file'}."
        )

    def _check_columns(self, present: list[str]) -> None:
        needed = list(self.source.columns)
        missing = [column for column in needed if column not in present]
        if missing:
            raise SourceError(
                f"benchmark {self.name} needs the columns {', '.join(needed)}; {self.path} lacks"
                f" {', '.join(missing)} (it has {', '.join(present)}). Check that it is a copy of"
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
