"""A report as files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.report.document import Document
from kvmigrate.report.html import render_html
from kvmigrate.report.markdown import render_markdown
from kvmigrate.report.text import render_text


def check_folder(folder: Path) -> None:
    """Make *folder*, and raise `ConfigError` where no report could be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise _cannot_write(exc) from exc


def _cannot_write(exc: OSError) -> ConfigError:
    return ConfigError(f"cannot write the report: {exc}", hint="name a folder that can be made")


def write_report(folder: Path, fields: Mapping[str, Any], document: Document) -> list[Path]:
    """Write ``report.txt``, ``.json``, ``.md`` and ``.html`` into *folder*, which is made, and return the files.

    Raises:
        ConfigError: the folder or a file cannot be written.
    """
    texts = {
        "txt": render_text(document),
        "json": json.dumps(fields, indent=2, ensure_ascii=False) + "\n",
        "md": render_markdown(document),
        "html": render_html(document),
    }
    return write_texts(folder, {f"report.{kind}": text for kind, text in texts.items()})


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write each text under its name into *folder*, which is made, and return the files. Raises `ConfigError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            # Half a surrogate pair in a message is no UTF-8; escaped it is also right in JSON.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise _cannot_write(exc) from exc
    return paths
