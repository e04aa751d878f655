-- A run tells every second that it lives and what it does, and reads how fast it may go: so
-- it can be paused and retuned from another terminal, without a port and without a signal.

ALTER TABLE kvmigrate.run
    ADD COLUMN knobs   jsonb,
    ADD COLUMN seen_at timestamptz,
    ADD COLUMN state   text,
    ADD COLUMN reason  text;
COMMENT ON COLUMN kvmigrate.run.knobs IS 'limits of its pace: rate, max_lag_s, max_active, paused; others may change them';
COMMENT ON COLUMN kvmigrate.run.seen_at IS 'when it last told its state; one not seen for 10 seconds is not running';
COMMENT ON COLUMN kvmigrate.run.state IS 'running, paused, throttled, finishing or ended';
COMMENT ON COLUMN kvmigrate.run.reason IS 'why it waits';
