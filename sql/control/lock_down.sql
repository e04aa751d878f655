-- Runs after every installation. Where a data API publishes the database to the
-- roles anon and authenticated, nothing of the tool's schema may be reachable by it.
DO $$
DECLARE
    role_name text;
    found record;
BEGIN
    IF (SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated')) < 2 THEN
        RETURN;
    END IF;
    FOR found IN
        SELECT c.relname, c.relrowsecurity FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'kvmigrate'::regnamespace AND c.relkind IN ('r', 'p')
    LOOP
        IF NOT found.relrowsecurity THEN
            EXECUTE format('ALTER TABLE kvmigrate.%I ENABLE ROW LEVEL SECURITY', found.relname);
        END IF;
    END LOOP;
    FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA kvmigrate FROM %I', role_name);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA kvmigrate FROM %I', role_name);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kvmigrate FROM %I', role_name);
        EXECUTE format('REVOKE ALL ON SCHEMA kvmigrate FROM %I', role_name);
    END LOOP;
END
$$;
