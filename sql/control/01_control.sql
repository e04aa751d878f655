-- The tool's own state, beside the tables it fills. One scope is one mapping.

CREATE TABLE kvmigrate.control (
    scope          text PRIMARY KEY,
    id             int GENERATED ALWAYS AS IDENTITY UNIQUE,
    epoch          int NOT NULL DEFAULT 0,
    authority      text NOT NULL DEFAULT 'K' CHECK (authority IN ('K', 'S', 'T', 'X')),
    stage          text NOT NULL DEFAULT 'off'
                   CHECK (stage IN ('off', 'dualwrite', 'shadow', 'live', 'rampdown', 'complete')),
    phase          text NOT NULL DEFAULT '',
    sweep_n        bigint NOT NULL DEFAULT 0,
    backfill_run   bigint,
    deferred       text[] NOT NULL DEFAULT '{}',
    backfill_epoch int,
    redis_inc      jsonb,
    pg_inc         text,
    safe_n         jsonb,
    updated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE kvmigrate.control IS 'one row per mapping: who may write, and what is under way';
COMMENT ON COLUMN kvmigrate.control.authority IS 'K: the store, S: nobody, T: the tables, X: the store is retired';
COMMENT ON COLUMN kvmigrate.control.phase IS 'a step that must be finished before others begin, such as "first load"';
COMMENT ON COLUMN kvmigrate.control.sweep_n IS 'n of the last offline sweep; each sweep takes the next one';
COMMENT ON COLUMN kvmigrate.control.backfill_run IS 'the newest backfill; older ones may no longer write';
COMMENT ON COLUMN kvmigrate.control.deferred IS 'constraints and indexes that a first load took away until its end';

CREATE TABLE kvmigrate.run (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope       int NOT NULL,
    kind        text NOT NULL,
    fingerprint text NOT NULL,
    source      text NOT NULL DEFAULT '',
    n           bigint,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    report      jsonb
);
COMMENT ON TABLE kvmigrate.run IS 'every run that wrote, with its final report';
CREATE INDEX run_scope_idx ON kvmigrate.run (scope, id);

CREATE TABLE kvmigrate.checkpoint (
    run        bigint PRIMARY KEY REFERENCES kvmigrate.run (id) ON DELETE CASCADE,
    sweep      int NOT NULL,
    position   text NOT NULL,
    pages      bigint NOT NULL,
    items      bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE kvmigrate.checkpoint IS 'how far a run is: written in the transaction of each page';

CREATE TABLE kvmigrate.ledger (
    scope        int NOT NULL,
    key          text COLLATE "C" NOT NULL,
    entity       int NOT NULL,
    mapping      int NOT NULL,
    run          bigint NOT NULL,
    epoch        int NOT NULL,
    n            bigint NOT NULL,
    content_hash bytea,
    expires_at   timestamptz,
    deleted      boolean NOT NULL DEFAULT false,
    kv_dirty     boolean NOT NULL DEFAULT false,
    status       text NOT NULL CHECK (status IN ('ok', 'waiting', 'quarantined', 'kept')),
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE kvmigrate.ledger IS 'what the tables hold of each item: its state as of version (epoch, n)';
COMMENT ON COLUMN kvmigrate.ledger.deleted IS 'a tombstone: the item is gone, and an older state must not return';
CREATE INDEX ledger_kv_dirty_idx ON kvmigrate.ledger (scope, key) WHERE kv_dirty;

CREATE TABLE kvmigrate.waiting (
    scope         int NOT NULL,
    key           text COLLATE "C" NOT NULL,
    place         int NOT NULL,
    on_constraint text NOT NULL,
    on_entity     int NOT NULL,
    on_value      text NOT NULL,
    due           boolean NOT NULL DEFAULT false,
    reason        text NOT NULL,
    message       text NOT NULL DEFAULT '',
    at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key, place)
);
COMMENT ON TABLE kvmigrate.waiting IS 'items that wait for another item: a parent, or a value that is taken';
COMMENT ON COLUMN kvmigrate.waiting.on_value IS 'the awaited value as text; a JSON array of texts where it has several columns';
COMMENT ON COLUMN kvmigrate.waiting.due IS 'what it waits for has changed: read it again and apply it';
CREATE INDEX waiting_on_idx ON kvmigrate.waiting (scope, on_constraint);
CREATE INDEX waiting_due_idx ON kvmigrate.waiting (scope, key) WHERE due;

CREATE TABLE kvmigrate.quarantine (
    scope        int NOT NULL,
    key          text COLLATE "C" NOT NULL,
    entity       int NOT NULL,
    epoch        int NOT NULL,
    n            bigint NOT NULL,
    payload      bytea,
    payload_kind text NOT NULL,
    expires_at   timestamptz,
    path         text NOT NULL,
    reason       text NOT NULL,
    message      text NOT NULL,
    mapping      int NOT NULL,
    fingerprint  text NOT NULL,
    run          bigint NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    keep_until   timestamptz NOT NULL DEFAULT now() + interval '30 days',
    PRIMARY KEY (scope, key)
);
COMMENT ON TABLE kvmigrate.quarantine IS 'items refused for themselves, whole, with the place and the reason';
COMMENT ON COLUMN kvmigrate.quarantine.payload IS
    'the stored bytes; of a hash a JSON object of base64 field to base64 value; NULL where payload_kind says so';
CREATE INDEX quarantine_reason_idx ON kvmigrate.quarantine (scope, reason);

CREATE TABLE kvmigrate.kept (
    scope      int NOT NULL,
    key        text COLLATE "C" NOT NULL,
    value      bytea NOT NULL,
    kind       text NOT NULL,
    expires_at timestamptz,
    keep_until timestamptz,
    PRIMARY KEY (scope, key)
);
COMMENT ON TABLE kvmigrate.kept IS 'items waived into the tables era whole: served by key, without rows';
