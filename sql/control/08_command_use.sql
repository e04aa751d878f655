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
