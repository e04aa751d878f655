-- What a migration of a store that is written meanwhile needs beside the ledger.

ALTER TABLE kvmigrate.control
    ADD COLUMN backfilled_epoch int,
    ADD COLUMN owes_all boolean NOT NULL DEFAULT false,
    ADD COLUMN reconcile text NOT NULL DEFAULT '';
UPDATE kvmigrate.control SET backfill_epoch = 0 WHERE backfill_epoch IS NULL;
ALTER TABLE kvmigrate.control
    ALTER COLUMN backfill_epoch SET DEFAULT 0,
    ALTER COLUMN backfill_epoch SET NOT NULL;
COMMENT ON COLUMN kvmigrate.control.backfill_epoch IS 'a backfill that began before this epoch counts no more';
COMMENT ON COLUMN kvmigrate.control.backfilled_epoch IS
    'the backfill_epoch for which a backfill came to its end; reads and flips need both to be equal';
COMMENT ON COLUMN kvmigrate.control.owes_all IS 'marks were lost: a full reconcile is due before any read or flip';
COMMENT ON COLUMN kvmigrate.control.reconcile IS 'the reconcile that began last: only it may say that nothing is owed any more';
COMMENT ON COLUMN kvmigrate.control.redis_inc IS 'the life of the store that is known: another one is handled as a failover';
COMMENT ON COLUMN kvmigrate.control.pg_inc IS 'the life of this database that is known: system identifier and timeline';
COMMENT ON COLUMN kvmigrate.control.safe_n IS 'per shard [epoch, n] that replicas were known to have';

CREATE TABLE kvmigrate.process (
    id              text PRIMARY KEY,
    scope           int NOT NULL,
    kind            text NOT NULL,
    adapter_version text NOT NULL,
    epoch_seen      int NOT NULL,
    stage_seen      text NOT NULL,
    live_seen       boolean NOT NULL DEFAULT false,
    started_at      timestamptz NOT NULL DEFAULT now(),
    heartbeat       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE kvmigrate.process IS 'processes that write through the adapter or relay marks, with what they last saw';
COMMENT ON COLUMN kvmigrate.process.live_seen IS 'it knows that the authority may move: it never writes without a fence again';
CREATE INDEX process_scope_idx ON kvmigrate.process (scope, heartbeat);

CREATE TABLE kvmigrate.lease (
    name    text PRIMARY KEY,
    holder  text NOT NULL,
    fencing bigint NOT NULL DEFAULT 1,
    until   timestamptz NOT NULL
);
COMMENT ON TABLE kvmigrate.lease IS 'rights that one process holds at a time; rows, since session locks do not survive poolers';

CREATE TABLE kvmigrate.change_log (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope  int NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    who    text NOT NULL,
    what   text NOT NULL,
    before text NOT NULL,
    after  text NOT NULL,
    why    text NOT NULL DEFAULT ''
);
COMMENT ON TABLE kvmigrate.change_log IS 'every change of stage, waiver and override: who, when, why, from, to';
CREATE INDEX change_log_scope_idx ON kvmigrate.change_log (scope, id);

CREATE INDEX ledger_expires_idx ON kvmigrate.ledger (scope, expires_at) WHERE expires_at IS NOT NULL AND NOT deleted;
COMMENT ON INDEX kvmigrate.ledger_expires_idx IS 'items that expire, for the sweep that deletes them';

-- What a flip looks at while everybody waits for it: the items that are not settled.
CREATE INDEX ledger_unsettled_idx ON kvmigrate.ledger (scope, key)
    WHERE status IN ('waiting', 'quarantined') AND NOT deleted;

-- For whoever finds the store without its fence. An application may do this, and nothing else to the control row: so
-- it is done with the rights of the schema's owner.
CREATE FUNCTION kvmigrate.begin_epoch(wanted_scope text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    INSERT INTO kvmigrate.control (scope) VALUES (wanted_scope) ON CONFLICT (scope) DO NOTHING;
    -- No mirror of the old epoch may commit behind the reconcile of the new one.
    PERFORM kvmigrate.fence_alone(wanted_scope);
    UPDATE kvmigrate.control SET epoch = epoch + 1, owes_all = true, reconcile = '', updated_at = now()
    WHERE scope = wanted_scope AND authority = 'K';
END
$$;
COMMENT ON FUNCTION kvmigrate.begin_epoch(text) IS
    'begins a new epoch of a scope whose store is the authority, and owes it a full reconcile';
REVOKE EXECUTE ON FUNCTION kvmigrate.begin_epoch(text) FROM PUBLIC;
