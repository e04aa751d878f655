"""What ``--keep`` leaves for other terminals: a file that names the demo's servers."""

from __future__ import annotations

import json
from pathlib import Path

from kvmigrate.config import CONFIG_FILE
from kvmigrate.demo.celebration import mapping_path
from kvmigrate.demo.servers import DemoServers


def write_settings(servers: DemoServers, folder: Path) -> Path:
    """Write ``kvmigrate.toml`` into *folder*, readable for its owner only, and return it."""
    file = folder / CONFIG_FILE
    values = {"source": servers.source, "target": servers.target, "mapping": str(mapping_path())}
    file.touch(mode=0o600)
    with file.open("w", encoding="utf-8") as out:
        # A JSON string is a TOML string, too.
        out.writelines(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    return file
