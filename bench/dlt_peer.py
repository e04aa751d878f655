"""dlt with its fastest settings for this shape: csv files, two normalize workers, files split for parallel loads.

It builds no keys beyond its own, no foreign keys and no indexes, and looks at the store once.

Usage: python -m bench.dlt_peer STORE_URL TARGET_URL HOME append|merge
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from bench.stored_values import value_pages

PAGE = 2_000
ROWS_PER_FILE = "20000"
SETTINGS = {
    "NORMALIZE__WORKERS": "2",
    "LOAD__WORKERS": "4",
    "EXTRACT__WORKERS": "1",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "DATA_WRITER__FILE_MAX_ITEMS": ROWS_PER_FILE,
    "SOURCES__DATA_WRITER__FILE_MAX_ITEMS": ROWS_PER_FILE,
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": ROWS_PER_FILE,
    "DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}
FILE_FORMAT = "csv"
UPSERT = {"disposition": "merge", "strategy": "upsert"}
"""Costs less than its other way to merge, which deletes and inserts."""

TYPES: dict[str, dict[str, str]] = {
    "product": {"tags": "json", "attributes": "json", "price": "decimal", "created_at": "timestamp"},
    "order": {"shipping": "json", "total": "decimal", "created_at": "timestamp"},
}


def blobs(store_url: str, kind: str) -> Iterator[list[dict[str, Any]]]:
    """Yield pages of blobs, decoded the fastest way there is."""
    import orjson  # noqa: PLC0415 - a dependency of dlt, absent without it

    for page in value_pages(store_url, kind, PAGE):
        yield [orjson.loads(text) for text in page]


def main(store_url: str, target_url: str, home: str, disposition: str) -> None:
    """Extract, normalize and load every kind."""
    os.environ.update(SETTINGS)
    import dlt  # noqa: PLC0415 - reads its settings when it is imported

    library: Any = dlt

    def resource(kind: str) -> Any:
        columns = {name: {"data_type": data_type} for name, data_type in TYPES.get(kind, {}).items()}
        return library.resource(
            blobs(store_url, kind),
            name=kind,
            write_disposition=UPSERT if disposition == "merge" else disposition,
            primary_key="id",
            columns=columns,
        )

    pipeline = library.pipeline(
        "peer", destination=dlt.destinations.postgres(target_url), dataset_name="dlt_peer", pipelines_dir=home
    )
    pipeline.run([resource(kind) for kind in ("site", "catalog", "client", *TYPES)], loader_file_format=FILE_FORMAT)


if __name__ == "__main__":
    main(*sys.argv[1:5])
