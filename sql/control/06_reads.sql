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
COMMENT ON TABLE kvmigrate.endpoint_stat IS 'what each process counted of each endpoint since it began: the sums are of all processes';
