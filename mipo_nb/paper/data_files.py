"""The files of published data sets as their authors made them: found in a folder or on the hub, and read as streams.

MIPO_NB_DATA names a folder that holds them as on the hub, a folder for each data set (`prism/survey.jsonl`); without it
they are fetched once. Rows come singly, with the wanted columns only: Community Alignment has a gigabyte or more.
"""

import csv
import os
from pathlib import Path

from mipo_nb import sources
from mipo_nb.base.errors import UserError

# data set: (hub id, commit, the files that are read)
HUB = {
    "prism": (
        "HannahRoseKirk/prism-alignment",
        "18ab5cfb37456f4ec8cbc00212ce54cf7b1239f6",
        ("survey.jsonl", "conversations.jsonl"),
    ),
    "community_alignment": (
        "facebook/community-alignment-dataset",
        "97343c7f6399fcbea430ed0f37c1768281a78d56",
        ("community_alignment.csv",),
    ),
    "multifaceted_bench": (
        "kaist-ai/Multifaceted-Bench",
        "b25a0a32eb080230aaff2df8651b680a009bb3a6",
        ("data/train-*.parquet",),
    ),
}
_BLOCK = 1024**2  # bytes of a CSV read at a time, in which a row must fit; some 30 blocks are read ahead


def files(name):
    """(paths of the files of a data set of HUB, text that says where they are from and at which commit).
    Raises `UserError` where a file is not in the folder that MIPO_NB_DATA names, or the hub cannot be reached."""
    repository, commit, patterns = HUB[name]
    if folder := os.environ.get("MIPO_NB_DATA"):
        root = Path(folder).expanduser() / name
        origin = f"{repository} in {root}"
    else:
        root = _fetched(name, repository, commit, patterns)
        origin = f"{repository} at commit {root.name}"
    paths = []
    for pattern in patterns:
        matches = sorted(root.glob(pattern))
        if not matches:
            file = root / pattern
            raise UserError(f"There is no file {file}; put it there as the hub has it, or unset MIPO_NB_DATA.")
        paths += matches
    return paths, origin


def _fetched(name, repository, commit, patterns):
    """The folder of the files in the hub's cache, named by their commit."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=list(patterns)))
    except Exception as e:  # the hub's client raises many kinds for one thing: it cannot be had
        raise UserError(
            f"{repository} could not be loaded ({type(e).__name__}); check the network, or set MIPO_NB_DATA to a folder "
            f"with {', '.join(f'{name}/{pattern}' for pattern in patterns)}."
        ) from None


def lines(path, columns):
    """The rows of a JSONL file as dictionaries of `columns`, one line in memory at a time.
    Raises `UserError` with the line for broken JSON, and for a row without one of the columns."""
    for row in sources.stream_jsonl(path):
        _require(path, row, columns)
        yield {column: row[column] for column in columns}


def batched(path, columns):
    """The rows of a CSV (all columns as text, None where empty) or parquet file as dictionaries of `columns`.

    Other columns are never decoded, and some 40 MB of a CSV or one row group of a parquet file are in memory at a time.
    Raises `UserError` for a file that cannot be read or lacks a column.
    """
    import pyarrow as pa

    try:
        for batch in _csv(path, columns) if path.suffix == ".csv" else _parquet(path, columns):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as e:
        raise UserError(f"{path} cannot be read ({str(e).splitlines()[0]}); fetch it again from the hub.") from None


def _csv(path, columns):
    """Record batches of a CSV whose texts may hold line breaks."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with path.open("rb") as file:
        _require(path, next(csv.reader([file.readline().decode("utf-8-sig")]), []), columns)
    nulls = {"strings_can_be_null": True, "null_values": [""]}  # not "NA" or "null", which somebody may have written
    types = dict.fromkeys(columns, pa.string())
    options = arrow.ConvertOptions(include_columns=list(columns), column_types=types, **nulls)
    reading = arrow.ReadOptions(block_size=_BLOCK, use_threads=False)
    with arrow.open_csv(path, reading, arrow.ParseOptions(newlines_in_values=True), options) as batches:
        yield from batches


def _parquet(path, columns):
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _require(path, file.schema_arrow.names, columns)
        yield from file.iter_batches(batch_size=256, columns=list(columns))


def _require(path, names, columns):
    for column in columns:
        if column not in names:
            raise UserError(f"{path}: column '{column}' is missing; take the file as the hub has it.")
