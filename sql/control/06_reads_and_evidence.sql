-- How reads move to the tables: what people want, what was taken back, and what processes counted.

CREATE TABLE kvmigrate.flags (
    scope      int PRIMARY KEY,
    document   jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE kvmigrate.flags IS 'how much of which endpoint shall read the tables: a wish, which the control row bounds';
COMMENT ON COLUMN kvmigrate.flags.document IS 'as in a file of flags; every change stands in change_log';

CREATE TABLE kvmigrate.kill (
    scope    int NOT NULL,
    endpoint text NOT NULL,
    at       text NOT NULL,
    who      text NOT NULL,
    why      text NOT NULL DEFAULT '',
    PRIMARY KEY (scope, endpoint)
);
COMMENT ON TABLE kvmigrate.kill IS 'endpoints whose reads were sent back to the store; * stands for all';

CREATE TABLE kvmigrate.endpoint_stat (
    scope      int NOT NULL,
    process    text NOT NULL,
    endpoint   text NOT NULL,
    counts     jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, process, endpoint)
);
COMMENT ON TABLE kvmigrate.endpoint_stat IS 'what each process counted of each endpoint since it began: the sums are of all processes; without a name, of those that ended';

-- What was measured of both sides, and what was mended: kept, so that a gate can ask for it and people can look it up.

CREATE TABLE kvmigrate.evidence (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope      int NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    kind       text NOT NULL CHECK (kind IN ('sample', 'verify', 'found', 'repair')),
    epoch      int NOT NULL,
    authority  text NOT NULL,
    mapping    text NOT NULL,
    key        text COLLATE "C",
    facts      jsonb NOT NULL,
    keep_until timestamptz NOT NULL DEFAULT now() + interval '30 days'
);
COMMENT ON TABLE kvmigrate.evidence IS
    'measurements of divergence, single keys that samples found, and their repairs: what was found, never a value';
COMMENT ON COLUMN kvmigrate.evidence.epoch IS 'of the control row as it was measured';
COMMENT ON COLUMN kvmigrate.evidence.mapping IS 'fingerprint of the mapping that was compared by';
COMMENT ON COLUMN kvmigrate.evidence.key IS 'which item was found or repaired; NULL for a measurement';
CREATE INDEX evidence_scope_idx ON kvmigrate.evidence (scope, kind, id);
CREATE INDEX evidence_keep_until_idx ON kvmigrate.evidence (keep_until);
CREATE INDEX evidence_key_idx ON kvmigrate.evidence (scope, key, id) WHERE key IS NOT NULL;

ALTER TABLE kvmigrate.process ADD COLUMN mapping text NOT NULL DEFAULT '';
COMMENT ON COLUMN kvmigrate.process.mapping IS 'fingerprint of the mapping that it writes by; empty for an earlier adapter';

-- Commands of applications' own clients that will not work any more once the tables are the authority.

CREATE TABLE kvmigrate.command_use (
    scope    int NOT NULL,
    command  text NOT NULL,
    entity   text NOT NULL,
    uses     bigint NOT NULL,
    last_use timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, command, entity)
);
COMMENT ON TABLE kvmigrate.command_use IS
    'commands on mapped keys that work on the store alone, as applications used them; the gate into rampdown reads it';
COMMENT ON COLUMN kvmigrate.command_use.entity IS 'of the key that the command named, or a hash of records';

-- Plain SQL into the tables of a mapping, while they lead: triggers of `control watch` owe it to the store.

-- As before, and it notes for the transaction that what it writes has its version in the ledger: so that those
-- triggers leave it alone.
CREATE OR REPLACE FUNCTION kvmigrate.fence(wanted_scope text, wanted_epoch int, wanted_authority text) RETURNS int
    LANGUAGE plpgsql VOLATILE
    SET search_path = ''
AS $$
DECLARE
    found record;
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(1802923313, c.id)
        FROM kvmigrate.control AS c WHERE c.scope = wanted_scope;
        SELECT c.id, c.epoch, c.authority INTO found FROM kvmigrate.control AS c WHERE c.scope = wanted_scope;
    ELSE
        -- An older snapshot would not see the flip; the row lock fails instead (40001).
        SELECT c.id, c.epoch, c.authority INTO found
        FROM kvmigrate.control AS c WHERE c.scope = wanted_scope FOR SHARE;
    END IF;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'scope % is not known here', wanted_scope USING ERRCODE = 'KM001';
    END IF;
    IF found.epoch <> wanted_epoch OR found.authority <> wanted_authority THEN
        RAISE EXCEPTION 'scope % is at epoch % with authority %, not at % with %',
            wanted_scope, found.epoch, found.authority, wanted_epoch, wanted_authority
            USING ERRCODE = 'KM001';
    END IF;
    PERFORM pg_catalog.set_config('kvmigrate.own', found.id::text, true);
    RETURN found.id;
END
$$;

-- These run with the rights of whoever made the triggers: so no type of the caller's temporary schema may come first.

-- Two statements, as in the fence, and for the same reason.
CREATE FUNCTION kvmigrate.owing(wanted_scope int) RETURNS int
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(1802923313, wanted_scope);
        SELECT c.scope, c.epoch, c.authority INTO found FROM kvmigrate.control AS c WHERE c.id = wanted_scope;
    ELSE
        SELECT c.scope, c.epoch, c.authority INTO found
        FROM kvmigrate.control AS c WHERE c.id = wanted_scope FOR SHARE;
    END IF;
    IF found.authority = 'S' THEN
        RAISE EXCEPTION 'the tables of % are sealed while the authority moves', found.scope
            USING ERRCODE = 'KM001', HINT = 'nothing was written: try again in a moment';
    END IF;
    RETURN CASE WHEN found.authority = 'T' THEN found.epoch END;
END
$$;
COMMENT ON FUNCTION kvmigrate.owing(int) IS
    'the epoch at which plain SQL is owed to the store; NULL where it is not; raises KM001 while the tables are sealed';
REVOKE EXECUTE ON FUNCTION kvmigrate.owing(int) FROM PUBLIC;

-- In the order of keys, as every other writer of several. Plans are made once in a session, be it for one key or for
-- many: one that looks up each key is good for both.
CREATE FUNCTION kvmigrate.owe(
    at_scope int, at_epoch int, of_entity int, of_number int, pattern text, tells_expiry boolean,
    keys text[], stands boolean[], expiries timestamptz[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    odd record;
BEGIN
    IF keys IS NULL THEN
        RETURN;
    END IF;
    SELECT k.key INTO odd FROM unnest(keys, stands) AS k (key, stands)
    WHERE k.stands AND k.key ~ pattern IS NOT TRUE AND NOT EXISTS (
        SELECT FROM kvmigrate.ledger AS l
        WHERE l.scope = at_scope AND l.key = k.key COLLATE "C" AND l.entity = of_entity) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the row does not tell a key of its entity: %', coalesce(pg_catalog.quote_literal(odd.key), 'none')
            USING ERRCODE = 'KM002', HINT = 'write this item through kvmigrate';
    END IF;
    INSERT INTO kvmigrate.ledger AS l
        (scope, key, entity, mapping, run, born, epoch, n, expires_at, deleted, kv_dirty, status)
    SELECT at_scope, k.key, of_entity, of_number, 0, 0, at_epoch, 1, k.expiry, NOT k.stands, true, 'ok'
    FROM unnest(keys, stands, expiries) AS k (key, stands, expiry)
        LEFT JOIN kvmigrate.ledger AS o ON o.scope = at_scope AND o.key = k.key COLLATE "C"
    WHERE (o.key IS NOT NULL OR k.stands OR k.key ~ pattern)
        -- What this transaction wrote already is owed, with a version of its own.
        AND (o.xmin = pg_catalog.pg_current_xact_id()::xid AND o.kv_dirty AND o.deleted <> k.stands
            AND (NOT tells_expiry OR o.expires_at IS NOT DISTINCT FROM k.expiry)) IS NOT TRUE
    ORDER BY k.key COLLATE "C"
    ON CONFLICT (scope, key) DO UPDATE SET
        entity = excluded.entity, mapping = CASE WHEN l.deleted THEN excluded.mapping ELSE l.mapping END,
        run = 0, born = CASE WHEN l.deleted THEN 0 ELSE l.born END,
        epoch = excluded.epoch, n = l.n + 1, content_hash = NULL,
        expires_at = CASE WHEN tells_expiry OR l.deleted OR excluded.deleted THEN excluded.expires_at
            ELSE l.expires_at END,
        deleted = excluded.deleted, kv_dirty = true, status = 'ok'
    WHERE (l.status = 'ok' OR (l.status = 'waiting' AND excluded.deleted))
        AND (l.entity = excluded.entity OR (l.deleted AND NOT excluded.deleted));
    SELECT l.key, l.status INTO odd
    FROM unnest(keys, stands) AS k (key, stands)
        JOIN kvmigrate.ledger AS l ON l.scope = at_scope AND l.key = k.key COLLATE "C"
    WHERE k.stands AND (l.status <> 'ok' OR l.entity <> of_entity) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is no plain item: %', pg_catalog.quote_literal(odd.key),
            CASE odd.status WHEN 'ok' THEN 'it belongs to another entity' ELSE 'it is ' || odd.status END
            USING ERRCODE = 'KM002', HINT = 'write this item through kvmigrate';
    END IF;
    IF false = ANY (stands) THEN
        DELETE FROM kvmigrate.waiting AS w
        USING unnest(keys, stands) AS k (key, stands), kvmigrate.ledger AS l
        WHERE w.scope = at_scope AND w.key = k.key COLLATE "C" AND l.scope = at_scope AND l.key = w.key AND l.deleted;
    END IF;
END
$$;
COMMENT ON FUNCTION kvmigrate.owe(int, int, int, int, text, boolean, text[], boolean[], timestamptz[]) IS
    'owes items to the store whose rows were changed by plain SQL';
REVOKE EXECUTE ON FUNCTION kvmigrate.owe(int, int, int, int, text, boolean, text[], boolean[], timestamptz[])
    FROM PUBLIC;

CREATE FUNCTION kvmigrate.owe_all(at_scope int, at_epoch int, of_entity int, are_gone boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- It empties a table also of rows that an older snapshot does not see, and so does not see their items either.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'TRUNCATE of a watched table that leads needs READ COMMITTED'
            USING ERRCODE = 'KM002', HINT = 'use that isolation, or DELETE';
    END IF;
    IF are_gone THEN
        DELETE FROM kvmigrate.waiting AS w USING kvmigrate.ledger AS l
        WHERE w.scope = at_scope AND l.scope = at_scope AND l.key = w.key AND l.entity = of_entity AND NOT l.deleted;
    END IF;
    UPDATE kvmigrate.ledger AS l SET
        run = 0, epoch = at_epoch, n = l.n + 1, content_hash = NULL, deleted = are_gone, kv_dirty = true, status = 'ok',
        expires_at = CASE WHEN are_gone THEN NULL ELSE l.expires_at END
    FROM (
        SELECT o.scope, o.key FROM kvmigrate.ledger AS o
        WHERE o.scope = at_scope AND o.entity = of_entity AND NOT o.deleted
            AND (o.status = 'ok' OR (o.status = 'waiting' AND are_gone))
        ORDER BY o.key FOR UPDATE
    ) AS standing
    WHERE l.scope = standing.scope AND l.key = standing.key;
END
$$;
COMMENT ON FUNCTION kvmigrate.owe_all(int, int, int, boolean) IS
    'owes all items of an entity to the store, of which a table was emptied';
REVOKE EXECUTE ON FUNCTION kvmigrate.owe_all(int, int, int, boolean) FROM PUBLIC;
