-- What was measured of both sides, and what was mended: kept, so that a gate can ask for it and people can look it up.

CREATE TABLE kvmigrate.evidence (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope      int NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    kind       text NOT NULL CHECK (kind IN ('sample', 'verify', 'repair')),
    epoch      int NOT NULL,
    authority  text NOT NULL,
    mapping    text NOT NULL,
    key        text COLLATE "C",
    facts      jsonb NOT NULL,
    keep_until timestamptz NOT NULL DEFAULT now() + interval '30 days'
);
COMMENT ON TABLE kvmigrate.evidence IS 'measurements of divergence, and repairs of single keys: what was found, never a value';
COMMENT ON COLUMN kvmigrate.evidence.epoch IS 'of the control row as it was measured';
COMMENT ON COLUMN kvmigrate.evidence.mapping IS 'fingerprint of the mapping that was compared by';
COMMENT ON COLUMN kvmigrate.evidence.key IS 'of a repair: which item; NULL for a measurement';
CREATE INDEX evidence_scope_idx ON kvmigrate.evidence (scope, kind, id);
