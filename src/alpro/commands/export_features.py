"""Export the vectors of an index: ``alpro export-features --output features.parquet``.

Rows are sorted by path and time; each has the file's path, start and end of its window in seconds,
and its vector. As ``.npy`` the vectors are an array, and the rest stands beside it in a file of
JSON lines with the same number of rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpro.commands.cli import DefaultsShown, any_path_flag, exit_code_of, path_flag
from alpro.commands.index import DEFAULT_INDEX
from alpro.errors import InputError, pluralize

if TYPE_CHECKING:
    import numpy as np

    from alpro.search.index import Index, IndexedFile

_ROWS_AT_ONCE = 1 << 14


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro export-features",
        description="Write the vectors of an index with paths and times.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--index", type=any_path_flag, default=Path(DEFAULT_INDEX), help="folder of the index"
    )
    parser.add_argument(
        "--output",
        type=path_flag,
        required=True,
        default=argparse.SUPPRESS,
        help="file to write: .parquet, or .npy with .jsonl beside it",
    )
    flags = parser.parse_args(arguments)
    return exit_code_of(lambda: _export(flags))


def _export(flags: argparse.Namespace) -> None:
    from alpro.search.index import Index

    writers = {".parquet": write_parquet, ".npy": write_npy}
    write = writers.get(flags.output.suffix)
    if write is None:
        raise InputError(f"--output {flags.output}: must end with {' or '.join(writers)}")
    with Index(flags.index) as index:
        print(f"{flags.output}: {pluralize(write(index, flags.output), 'window')}")


def write_parquet(index: Index, path: Path) -> int:
    """Write columns ``path``, ``start``, ``end``, ``vector`` (float16); returns the rows.

    Raises:
        InputError: pyarrow is not installed.
    """
    from alpro.installation import has_package
    from alpro.training.atomic_io import write_atomically

    if not has_package("pyarrow"):
        raise InputError("Parquet needs pyarrow: `pip install pyarrow`, or write .npy")
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("start", pyarrow.float64()),
            ("end", pyarrow.float64()),
            ("vector", pyarrow.list_(pyarrow.float16(), index.settings.embed_dim)),
        ]
    )
    num_rows = 0

    def write(temporary: Path) -> None:
        nonlocal num_rows
        with parquet.ParquetWriter(temporary, schema) as writer:
            for rows, vectors in _pieces(index):
                flat = pyarrow.array(vectors.reshape(-1))
                width = index.settings.embed_dim
                columns = [
                    *([row[key] for row in rows] for key in ("path", "start", "end")),
                    pyarrow.FixedSizeListArray.from_arrays(flat, width),
                ]
                writer.write_table(pyarrow.table(columns, schema=schema))
                num_rows += len(rows)

    write_atomically(path, write)
    return num_rows


def write_npy(index: Index, path: Path) -> int:
    """Write an (N, E) float16 array, and beside it a line for each of its rows."""
    import numpy as np

    from alpro.training.atomic_io import write_atomically

    num_rows = len(index.windows().row)

    def write(temporary: Path) -> None:
        shape = (num_rows, index.settings.embed_dim)
        array = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        done = 0
        for rows, vectors in _pieces(index):
            array[done : done + len(rows)] = vectors
            done += len(rows)
        array.flush()

    def write_lines(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            for rows, _ in _pieces(index):
                file.writelines(json.dumps(row) + "\n" for row in rows)

    write_atomically(path.with_suffix(".jsonl"), write_lines)
    write_atomically(path, write)
    return num_rows


def _pieces(index: Index) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Rows and vectors by path and time, some at a time."""
    import numpy as np

    windows, vectors = index.windows(), index.vectors()
    # Files are numbered as they came; put them in the order of their paths.
    files = {one.id: (rank, one) for rank, one in enumerate(index.files())}
    ranks = np.array([files[int(number)][0] for number in windows.file], np.int64)
    order = np.argsort(ranks, kind="stable")
    for first in range(0, len(order), _ROWS_AT_ONCE):
        some = order[first : first + _ROWS_AT_ONCE]
        numbers = zip(windows.file[some].tolist(), windows.number[some].tolist(), strict=True)
        rows = [_row_of(files[file][1], index, number) for file, number in numbers]
        yield rows, vectors[windows.row[some]]


def _row_of(file: IndexedFile, index: Index, number: int) -> dict[str, Any]:
    start, end = index.settings.span(number, duration=file.duration)
    return {"path": file.name, "start": start, "end": end}
