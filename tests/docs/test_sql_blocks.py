"""The SQL of the pages runs on a real server."""

import psycopg
import pytest

from tests.docs.pages import Block, blocks, pages

SQL = [block for page in pages() for block in blocks(page, "sql")]
TABLES = """
CREATE SCHEMA kvmigrate;
CREATE TABLE kvmigrate.run
    (id bigint, state text, reason text, knobs jsonb, seen_at timestamptz, finished_at timestamptz);
CREATE TABLE clients (id uuid PRIMARY KEY, name text, source_key text);
CREATE TABLE orders (id uuid PRIMARY KEY, rest jsonb);
INSERT INTO orders VALUES (gen_random_uuid(), '{"couponCode": "MAY", "$": {"at": {}}}');
CREATE TABLE kv_store_6fcaeea3 (key text PRIMARY KEY, value jsonb);
"""


@pytest.mark.parametrize("block", SQL, ids=lambda block: block.where)
def test_sql_runs(block: Block, pg: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Each SQL block runs against tables such as the pages speak of."""
    pg.execute(TABLES)
    pg.execute(block.text.encode())
