"""Record what this version's adapter says to PostgreSQL, for the tests of later versions of the control schema.

Run it when `tests/integration/test_adapter_before.py` says that the newest recording is not what the adapter says
today. Recordings of earlier versions are never made again: they are what earlier programs say.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg

from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.target.control_schema import install_control
from tests.adapter_day import spend_day
from tests.adapter_record import newest_recording, recorded


def main() -> int:
    """Write the file of this version."""
    with PostgresServer.start(settings=THROWAWAY_SETTINGS) as server:
        url = server.create_database("adapter_day", template="template0")
        with psycopg.connect(url, autocommit=True) as connection:
            install_control(connection)
        with recorded() as said:
            spend_day(url)
    file = newest_recording()
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{line.line()}\n" for line in said))
    print(f"{file}: {len(said)} statements")
    return 0


if __name__ == "__main__":
    sys.exit(main())
