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
