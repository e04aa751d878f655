"""Move JSON blobs out of a KV store into normalized PostgreSQL tables, losing nothing."""
