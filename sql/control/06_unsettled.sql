-- What a flip looks at while everybody waits for it: the items that are not settled.

CREATE INDEX ledger_unsettled_idx ON kvmigrate.ledger (scope, key)
    WHERE status IN ('waiting', 'quarantined') AND NOT deleted;
