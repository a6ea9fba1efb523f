--- case: a view of the owner
--- code: rls.view_runs_as_owner
--- modes: 23
--- fix: runs
--- broken
SET ROLE corpus_owner;
CREATE VIEW shop.board AS SELECT * FROM shop.task;
GRANT SELECT ON shop.board TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE VIEW shop.board WITH (security_invoker = true) AS SELECT * FROM shop.task;
GRANT SELECT ON shop.board TO corpus_app;

--- case: a view of a superuser
--- code: rls.view_runs_as_owner
--- modes: 23
--- fix: runs
--- broken
CREATE VIEW shop.board AS SELECT * FROM shop.task;
GRANT SELECT ON shop.board TO corpus_app;
--- fixed
CREATE VIEW shop.board WITH (security_invoker) AS SELECT * FROM shop.task;
GRANT SELECT ON shop.board TO corpus_app;

--- case: a view over a view
--- code: rls.view_runs_as_owner
--- modes: 23
--- fix: runs
--- broken
CREATE VIEW shop.inner_board WITH (security_invoker = true) AS SELECT * FROM shop.task;
CREATE VIEW shop.board AS SELECT * FROM shop.inner_board;
GRANT SELECT ON shop.board TO corpus_app;
GRANT SELECT ON shop.inner_board TO corpus_app;
--- fixed
CREATE VIEW shop.inner_board WITH (security_invoker = true) AS SELECT * FROM shop.task;
CREATE VIEW shop.board WITH (security_invoker = on) AS SELECT * FROM shop.inner_board;
GRANT SELECT ON shop.board TO corpus_app;
GRANT SELECT ON shop.inner_board TO corpus_app;

--- case: a materialised view
--- code: rls.matview_readable
--- modes: 23
--- fix: runs
--- broken
CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, count(*) AS tasks FROM shop.task GROUP BY 1;
GRANT SELECT ON shop.totals TO corpus_app;
--- fixed
CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, count(*) AS tasks FROM shop.task GROUP BY 1;
GRANT SELECT ON shop.totals TO corpus_system;

--- case: a rewrite rule
--- code: rls.rule_rewrites
--- modes: 23
--- fix: runs
--- broken
CREATE RULE log_delete AS ON DELETE TO shop.task DO ALSO INSERT INTO shop.country VALUES ('x', 'y');
--- fixed
CREATE FUNCTION shop.note_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TRIGGER note_delete AFTER DELETE ON shop.task FOR EACH ROW EXECUTE FUNCTION shop.note_delete();

--- case: a definer function of a superuser
--- code: rls.definer_bypasses
--- modes: 23
--- fix: runs
--- broken
CREATE FUNCTION shop.count_tasks() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT count(*) FROM shop.task $$;
--- fixed
CREATE FUNCTION shop.count_tasks() RETURNS bigint LANGUAGE sql STABLE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$ SELECT count(*) FROM shop.task $$;

--- case: a definer function whose owner belongs to the system role
--- code: rls.definer_bypasses
--- modes: 23, 24
--- broken
CREATE ROLE corpus_author NOLOGIN INHERIT;
GRANT corpus_system TO corpus_author;
CREATE FUNCTION shop.count_tasks() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT count(*) FROM shop.task $$;
ALTER FUNCTION shop.count_tasks() OWNER TO corpus_author;
--- fixed
CREATE ROLE corpus_author NOLOGIN INHERIT;
CREATE FUNCTION shop.count_tasks() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT count(*) FROM shop.task $$;
ALTER FUNCTION shop.count_tasks() OWNER TO corpus_author;

--- case: a definer function on the caller's search path
--- code: rls.definer_search_path
--- modes: 23
--- fix: runs
--- broken
CREATE FUNCTION shop.next_day(d date) RETURNS date LANGUAGE sql STABLE SECURITY DEFINER AS $$ SELECT d + 1 $$;
ALTER FUNCTION shop.next_day(date) OWNER TO corpus_guard;
--- fixed
CREATE FUNCTION shop.next_day(d date) RETURNS date LANGUAGE sql STABLE SECURITY DEFINER RETURN d + 1;
ALTER FUNCTION shop.next_day(date) OWNER TO corpus_guard;

--- case: a function that claims to be leakproof
--- code: rls.leakproof_function
--- modes: 25
--- fix: runs
--- broken
CREATE FUNCTION shop.looks_like(a text, b text) RETURNS boolean LANGUAGE plpgsql STABLE LEAKPROOF AS $$ BEGIN RAISE NOTICE '%', a; RETURN a LIKE b; END $$;
--- fixed
CREATE FUNCTION shop.looks_like(a text, b text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN a LIKE b; END $$;

--- case: a partition granted directly
--- code: rls.child_reachable
--- modes: 21
--- fix: runs
--- broken
GRANT SELECT ON shop.event_2026 TO corpus_app;
--- fixed
GRANT SELECT ON shop.event_2026 TO corpus_system;

--- case: a partition added later with a column granted
--- code: rls.child_reachable
--- modes: 21
--- fix: runs
--- broken
CREATE TABLE shop.event_2027 PARTITION OF shop.event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER TABLE shop.event_2027 OWNER TO corpus_owner;
GRANT SELECT (note) ON shop.event_2027 TO corpus_app;
--- fixed
CREATE TABLE shop.event_2027 PARTITION OF shop.event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER TABLE shop.event_2027 OWNER TO corpus_owner;

--- case: an inheritance child granted directly
--- code: rls.child_reachable
--- modes: 21
--- fix: runs
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.old_task () INHERITS (shop.task);
GRANT SELECT ON shop.old_task TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.old_task () INHERITS (shop.task);

--- case: a foreign table with the tenant column
--- code: rls.foreign_table
--- modes: 21, 28
--- fix: runs
--- broken
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER other FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE shop.archive (id uuid, tenant_id uuid, body text) SERVER other;
GRANT SELECT ON shop.archive TO corpus_app;
--- fixed
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER other FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE shop.archive (id uuid, tenant_id uuid, body text) SERVER other;
GRANT SELECT ON shop.archive TO corpus_system;

--- case: TRUNCATE granted
--- code: rls.truncate_granted
--- modes: 22
--- fix: runs
--- broken
GRANT TRUNCATE ON shop.task TO corpus_app;
--- fixed
GRANT TRUNCATE ON shop.task TO corpus_system;

--- case: GRANT ALL
--- code: rls.truncate_granted, rls.excess_grant
--- modes: 22, 19
--- fix: runs
--- broken
GRANT ALL ON shop.task TO corpus_app;
--- fixed
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.task TO corpus_app;

--- case: REFERENCES granted
--- code: rls.excess_grant
--- modes: 19, 22
--- fix: runs
--- broken
GRANT REFERENCES ON shop.task TO corpus_app;
--- fixed
GRANT SELECT ON shop.task TO corpus_app;

--- case: a table granted to everybody
--- code: rls.public_grant
--- modes: 13, 22
--- fix: runs
--- broken
GRANT SELECT ON shop.task TO PUBLIC;
--- fixed
GRANT SELECT ON shop.country TO PUBLIC;

--- case: later tables are granted by default
--- code: rls.default_grant
--- modes: 21, 22
--- fix: runs
--- broken
ALTER DEFAULT PRIVILEGES FOR ROLE corpus_owner IN SCHEMA shop GRANT SELECT, INSERT ON TABLES TO corpus_app;
--- fixed
ALTER DEFAULT PRIVILEGES FOR ROLE corpus_owner IN SCHEMA shop GRANT SELECT, INSERT ON TABLES TO corpus_system;

--- case: the application may create objects
--- code: rls.schema_create
--- modes: 22, 23
--- fix: runs
--- broken
GRANT CREATE ON SCHEMA shop TO corpus_app;
--- fixed
GRANT USAGE ON SCHEMA shop TO corpus_app;

--- case: everybody may create objects
--- code: rls.schema_create
--- modes: 22, 23
--- fix: runs
--- broken
GRANT USAGE, CREATE ON SCHEMA shop TO PUBLIC;
--- fixed
GRANT USAGE ON SCHEMA shop TO PUBLIC;

--- case: a publication of a guarded table
--- code: rls.publication
--- modes: 28
--- fix: runs
--- broken
CREATE PUBLICATION feed FOR TABLE shop.task, shop.country;
--- fixed
CREATE PUBLICATION feed FOR TABLE shop.country;

--- case: a publication of everything
--- code: rls.publication
--- modes: 28
--- fix: runs
--- broken
CREATE PUBLICATION feed FOR ALL TABLES;
--- fixed
CREATE PUBLICATION feed FOR TABLE shop.task WHERE (tenant_id = '00000000-0000-0000-0000-000000000001');

--- case: a readable sequence
--- code: rls.sequence_readable
--- modes: 29
--- fix: runs
--- broken
CREATE SEQUENCE shop.invoice_number;
GRANT SELECT, USAGE ON SEQUENCE shop.invoice_number TO corpus_app;
--- fixed
CREATE SEQUENCE shop.invoice_number;
GRANT USAGE ON SEQUENCE shop.invoice_number TO corpus_app;

--- case: a sequence that the application may set
--- code: rls.sequence_settable
--- modes: 29
--- fix: runs
--- broken
CREATE SEQUENCE shop.invoice_number;
GRANT UPDATE ON SEQUENCE shop.invoice_number TO corpus_app;
--- fixed
CREATE SEQUENCE shop.invoice_number;
GRANT USAGE ON SEQUENCE shop.invoice_number TO corpus_app;
