-- A sound schema that does not use this library: what every case starts from. The audit is silent on it.
-- The tenant is known by a ticket that a function verifies; the application's role owns nothing and bypasses nothing.
CREATE ROLE corpus_guard NOLOGIN;
CREATE ROLE corpus_owner NOLOGIN;
CREATE ROLE corpus_app LOGIN NOINHERIT;
CREATE ROLE corpus_system LOGIN NOINHERIT;

CREATE SCHEMA ctx AUTHORIZATION corpus_guard;
GRANT USAGE ON SCHEMA ctx TO corpus_app, corpus_owner, corpus_system;
CREATE TABLE ctx.ticket (digest bytea PRIMARY KEY, tenant uuid NOT NULL, person uuid NOT NULL);
ALTER TABLE ctx.ticket OWNER TO corpus_guard;
CREATE FUNCTION ctx.ticket_of() RETURNS ctx.ticket LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found ctx.ticket;
BEGIN
  SELECT * INTO found FROM ctx.ticket t WHERE t.digest = sha256(convert_to(current_setting('ctx.ticket', true), 'UTF8'));
  IF found.tenant IS NULL THEN RAISE EXCEPTION 'nobody is bound' USING ERRCODE = '42501'; END IF;
  RETURN found;
END $$;
ALTER FUNCTION ctx.ticket_of() OWNER TO corpus_guard;
CREATE FUNCTION ctx.tenant_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE RETURN (ctx.ticket_of()).tenant;
CREATE FUNCTION ctx.person_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE RETURN (ctx.ticket_of()).person;
ALTER FUNCTION ctx.tenant_id() OWNER TO corpus_guard;
ALTER FUNCTION ctx.person_id() OWNER TO corpus_guard;

CREATE SCHEMA shop AUTHORIZATION corpus_owner;
GRANT USAGE ON SCHEMA shop TO corpus_app, corpus_system;
SET ROLE corpus_owner;
CREATE TABLE shop.project (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, name text NOT NULL, owner_id uuid, UNIQUE (tenant_id, id), UNIQUE (tenant_id, name)
);
CREATE TABLE shop.task (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, project_id uuid NOT NULL, title text NOT NULL, due date, deleted_at timestamptz,
  UNIQUE (tenant_id, id), FOREIGN KEY (tenant_id, project_id) REFERENCES shop.project (tenant_id, id) ON DELETE CASCADE
);
CREATE TABLE shop.event (
  id uuid NOT NULL DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, day date NOT NULL, note text, PRIMARY KEY (tenant_id, id, day)
) PARTITION BY RANGE (day);
CREATE TABLE shop.event_2026 PARTITION OF shop.event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.country (code text PRIMARY KEY, name text NOT NULL);
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['project', 'task', 'event'] LOOP
    EXECUTE format('ALTER TABLE shop.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE shop.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON shop.%I TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()))', t);
    EXECUTE format('CREATE POLICY system ON shop.%I TO corpus_system USING (tenant_id IS NOT NULL)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON shop.%I TO corpus_app, corpus_system', t);
  END LOOP;
END $$;
GRANT SELECT ON shop.country TO corpus_app, corpus_system;
RESET ROLE;
