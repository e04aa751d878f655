-- One partition of the ledger per scope: a first load fills it while it stands alone, without
-- keys, and builds them once over all of it; other scopes never notice. And a checkpoint per
-- share of a scan, since several processes finish shares in any order.

ALTER TABLE kvmigrate.ledger RENAME TO ledger_before;
ALTER TABLE kvmigrate.ledger_before RENAME CONSTRAINT ledger_pkey TO ledger_before_pkey;
ALTER INDEX kvmigrate.ledger_kv_dirty_idx RENAME TO ledger_before_kv_dirty_idx;

CREATE TABLE kvmigrate.ledger (
    scope        int NOT NULL,
    key          text COLLATE "C" NOT NULL,
    entity       int NOT NULL,
    mapping      int NOT NULL,
    run          bigint NOT NULL,
    born         bigint NOT NULL,
    epoch        int NOT NULL,
    n            bigint NOT NULL,
    content_hash bytea,
    expires_at   timestamptz,
    deleted      boolean NOT NULL DEFAULT false,
    kv_dirty     boolean NOT NULL DEFAULT false,
    status       text NOT NULL CHECK (status IN ('ok', 'waiting', 'quarantined', 'kept')),
    PRIMARY KEY (scope, key)
) PARTITION BY LIST (scope);
COMMENT ON TABLE kvmigrate.ledger IS 'what the tables hold of each item: its state as of version (epoch, n)';
COMMENT ON COLUMN kvmigrate.ledger.mapping IS 'number of the declaration of its entity that it was written under';
COMMENT ON COLUMN kvmigrate.ledger.run IS 'the run that wrote it last';
COMMENT ON COLUMN kvmigrate.ledger.born IS 'the run that wrote it first since it was last absent; 0 where that is not known';
COMMENT ON COLUMN kvmigrate.ledger.deleted IS 'a tombstone: the item is gone, and an older state must not return';
CREATE INDEX ledger_kv_dirty_idx ON kvmigrate.ledger (scope, key) WHERE kv_dirty;

-- Where a role may write and not make tables, new scopes share this one, and load with keys in place.
CREATE TABLE kvmigrate.ledger_rest PARTITION OF kvmigrate.ledger DEFAULT WITH (fillfactor = 80);

-- Made apart and then attached, as that keeps no writer of another scope waiting.
CREATE FUNCTION kvmigrate.ledger_of(wanted_scope int) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = ''
AS $$
DECLARE
    name text := 'ledger_' || wanted_scope;
BEGIN
    IF pg_catalog.to_regclass('kvmigrate.' || name) IS NULL THEN
        EXECUTE pg_catalog.format(
            'CREATE TABLE kvmigrate.%I (LIKE kvmigrate.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS, '
            'PRIMARY KEY (scope, key), CONSTRAINT %I CHECK (scope = %s)) WITH (fillfactor = 80)',
            name, name || '_scope_check', wanted_scope);
        EXECUTE pg_catalog.format(
            'ALTER TABLE kvmigrate.ledger ATTACH PARTITION kvmigrate.%I FOR VALUES IN (%s)', name, wanted_scope);
    END IF;
    RETURN name;
END
$$;
COMMENT ON FUNCTION kvmigrate.ledger_of(int) IS 'makes the ledger''s partition of a scope where it is missing; returns its name';
REVOKE EXECUTE ON FUNCTION kvmigrate.ledger_of(int) FROM PUBLIC;

SELECT kvmigrate.ledger_of(id) FROM kvmigrate.control ORDER BY id;
INSERT INTO kvmigrate.ledger
SELECT scope, key, entity, mapping, run, 0, epoch, n, content_hash, expires_at, deleted, kv_dirty, status
FROM kvmigrate.ledger_before;
DROP TABLE kvmigrate.ledger_before;

DROP TABLE kvmigrate.checkpoint;
CREATE TABLE kvmigrate.checkpoint (
    run      bigint NOT NULL REFERENCES kvmigrate.run (id) ON DELETE CASCADE,
    number   bigint NOT NULL,
    part     int NOT NULL,
    position text NOT NULL,
    digest   bytea NOT NULL,
    items    int NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, number, part)
);
COMMENT ON TABLE kvmigrate.checkpoint IS
    'shares of a first load that are in the tables: each row stands in the transaction of their rows';
COMMENT ON COLUMN kvmigrate.checkpoint.position IS 'where the scan goes on behind this share; empty in all parts but its last';
COMMENT ON COLUMN kvmigrate.checkpoint.digest IS 'hash of what the share asked for, so that no other one is taken for it';

ALTER TABLE kvmigrate.run ADD COLUMN resume_key text NOT NULL DEFAULT '';
COMMENT ON COLUMN kvmigrate.run.resume_key IS
    'hash of all that its positions depend on: a first load goes on where one with an equal key was cut short';

COMMENT ON COLUMN kvmigrate.control.backfill_run IS 'the newest backfill or undo; older ones may no longer write';
