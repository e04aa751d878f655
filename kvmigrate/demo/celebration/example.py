"""Where the example's mapping is: one file, in a checkout and in an installed wheel."""

from __future__ import annotations

import pathlib
from importlib import resources

EXAMPLES = "kvmigrate._examples"
"""The repository's ``examples/`` folder, which travels in the wheel under this name."""


def mapping_path() -> pathlib.Path:
    """Return the path of ``examples/celebration/mapping.yaml``."""
    with resources.as_file(resources.files(EXAMPLES) / "celebration" / "mapping.yaml") as path:
        return path
