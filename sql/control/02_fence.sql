-- The check that every writing transaction begins with.

-- Two statements on purpose: the second takes a new snapshot, so that it sees what
-- the holder of the exclusive lock committed while this one waited.
CREATE FUNCTION kvmigrate.fence(wanted_scope text, wanted_epoch int, wanted_authority text) RETURNS int
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
    RETURN found.id;
END
$$;
COMMENT ON FUNCTION kvmigrate.fence(text, int, text) IS
    'raises KM001 unless the scope is at this epoch and authority; holds that until the transaction ends';
REVOKE EXECUTE ON FUNCTION kvmigrate.fence(text, int, text) FROM PUBLIC;

-- What the holder of a flip, or a new run, takes to wait for every fenced transaction.
CREATE FUNCTION kvmigrate.fence_alone(wanted_scope text) RETURNS int
    LANGUAGE plpgsql VOLATILE
    SET search_path = ''
AS $$
DECLARE
    found_id int;
BEGIN
    SELECT c.id INTO found_id FROM kvmigrate.control AS c WHERE c.scope = wanted_scope;
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'scope % is not known here', wanted_scope USING ERRCODE = 'KM001';
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(1802923313, found_id);
    RETURN found_id;
END
$$;
COMMENT ON FUNCTION kvmigrate.fence_alone(text) IS 'waits for every fenced transaction of the scope and keeps new ones out';
REVOKE EXECUTE ON FUNCTION kvmigrate.fence_alone(text) FROM PUBLIC;
