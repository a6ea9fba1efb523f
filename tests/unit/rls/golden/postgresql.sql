-- For PostgreSQL 15 and later, as a superuser, on tables without foreign keys between protected ones: they are made here. `plan` and `apply` do the same
-- against the live catalogue, whatever it holds, and again whenever it drifts.

-- the role owns schema axis; nobody logs in as it
CREATE ROLE crm_guard NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOLOGIN NOINHERIT;

-- the role owns the tables and runs migrations; FORCE binds it to the policies as well
CREATE ROLE crm_owner NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION LOGIN INHERIT;

-- the role what the application connects as; owns nothing, bypasses nothing
CREATE ROLE crm_app NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION LOGIN NOINHERIT;

-- the role another login, for declared cross-tenant work
CREATE ROLE crm_system NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION LOGIN NOINHERIT;

-- migrations and work across tenants may use temporary tables
DO $axis$BEGIN EXECUTE pg_catalog.format('GRANT TEMPORARY ON DATABASE %I TO crm_owner', pg_catalog.current_database()); END$axis$;

-- migrations and work across tenants may use temporary tables
DO $axis$BEGIN EXECUTE pg_catalog.format('GRANT TEMPORARY ON DATABASE %I TO crm_system', pg_catalog.current_database()); END$axis$;

-- a temporary table takes the place of the real one, also for the next tenant on the same connection
DO $axis$BEGIN EXECUTE pg_catalog.format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', pg_catalog.current_database()); END$axis$;

-- the part `base` of schema axis does not exist
CREATE SCHEMA IF NOT EXISTS axis AUTHORIZATION crm_guard;
ALTER SCHEMA axis OWNER TO crm_guard;
REVOKE ALL ON SCHEMA axis FROM PUBLIC, crm_app, crm_system, crm_owner;
GRANT USAGE ON SCHEMA axis TO crm_app, crm_system, crm_owner;
CREATE TABLE IF NOT EXISTS axis.part (name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT pg_catalog.now());
CREATE TABLE IF NOT EXISTS axis.seal_key (id integer PRIMARY KEY CHECK (id > 0), inner_block bytea NOT NULL CHECK (octet_length(inner_block) = 64), outer_block bytea NOT NULL CHECK (octet_length(outer_block) = 64));
CREATE TABLE IF NOT EXISTS axis.role_capability (tenant text NOT NULL DEFAULT '', role text NOT NULL, capability text NOT NULL, condition text NOT NULL DEFAULT '', PRIMARY KEY (role, capability, condition, tenant), CHECK ((tenant <> '') = pg_catalog.starts_with(role, 'custom.')));
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.part'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.part OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON axis.part FROM PUBLIC, crm_app, crm_system, crm_owner;
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.seal_key'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.seal_key OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON axis.seal_key FROM PUBLIC, crm_app, crm_system, crm_owner;
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.role_capability'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.role_capability OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON axis.role_capability FROM PUBLIC, crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.context() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $axis$
DECLARE
  sealed pg_catalog.text := pg_catalog.current_setting('axis.context', true);
  body pg_catalog.text;
  mac pg_catalog.bytea;
BEGIN
  IF sealed IS NULL OR sealed OPERATOR(pg_catalog.=) '' THEN
    RAISE EXCEPTION USING ERRCODE = 'AX001', MESSAGE = 'no tenant is bound to this transaction',
      HINT = 'Bind a principal at BEGIN: tenancy.install(engine), then acting_as(Principal(...)).';
  END IF;
  body := pg_catalog."left"(sealed, -64);
  SELECT pg_catalog.sha256(k.outer_block OPERATOR(pg_catalog.||)
           pg_catalog.sha256(k.inner_block OPERATOR(pg_catalog.||) pg_catalog.convert_to(body, 'UTF8')))
    INTO mac FROM axis.seal_key AS k WHERE k.id::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(sealed, ' ', 2);
  IF mac IS NULL OR pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.encode(mac, 'hex'), 'UTF8'))
      OPERATOR(pg_catalog.<>) pg_catalog.sha256(pg_catalog.convert_to(pg_catalog."right"(sealed, 64), 'UTF8')) THEN
    RAISE EXCEPTION USING ERRCODE = 'AX002', MESSAGE = 'the sealed context is not genuine',
      HINT = 'Only the application''s sealer can make one; check that the database has its current seal key (plan, apply).';
  END IF;
  IF pg_catalog.to_timestamp(pg_catalog.split_part(body, ' ', 3)::pg_catalog.float8) OPERATOR(pg_catalog.<) pg_catalog.now() THEN
    RAISE EXCEPTION USING ERRCODE = 'AX003', MESSAGE = 'the sealed context had expired when this transaction began',
      HINT = 'Seal at BEGIN; if it was, compare the clocks of application and database.';
  END IF;
  RETURN body;
END
$axis$;
ALTER FUNCTION axis.context() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.context() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.context() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE RETURN (pg_catalog.split_part(axis.context(), ' ', 4))::uuid;
ALTER FUNCTION axis.tenant_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_text() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN pg_catalog.split_part(axis.context(), ' ', 4);
ALTER FUNCTION axis.tenant_text() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_text() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_text() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.user_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN NULLIF(pg_catalog.split_part(axis.context(), ' ', 5), '');
ALTER FUNCTION axis.user_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.user_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.user_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.role_name() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN pg_catalog.split_part(axis.context(), ' ', 6);
ALTER FUNCTION axis.role_name() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.role_name() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.role_name() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.claimed_tenant_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE RETURN (NULLIF(pg_catalog.split_part(pg_catalog.current_setting('axis.context', true), ' ', 4), ''))::uuid;
ALTER FUNCTION axis.claimed_tenant_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.claimed_tenant_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.claimed_tenant_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.is_system() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN (CURRENT_USER = 'crm_system');
ALTER FUNCTION axis.is_system() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.is_system() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.is_system() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_for(capability text) RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $axis$
DECLARE
  body pg_catalog.text := axis.context();
BEGIN
  IF EXISTS (SELECT FROM axis.role_capability AS c WHERE c.role OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 6)
    AND c.capability OPERATOR(pg_catalog.=) $1 AND c.condition OPERATOR(pg_catalog.=) ''
    AND (c.tenant OPERATOR(pg_catalog.=) '' OR c.tenant OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 4))) THEN
    RETURN pg_catalog.split_part(body, ' ', 4);
  END IF;
  RETURN NULL;
END
$axis$;
ALTER FUNCTION axis.tenant_for(text) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_for(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_for(text) TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_for_own(capability text, owner_column text) RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $axis$
DECLARE
  body pg_catalog.text := axis.context();
BEGIN
  IF EXISTS (SELECT FROM axis.role_capability AS c WHERE c.role OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 6)
    AND c.capability OPERATOR(pg_catalog.=) $1 AND c.condition OPERATOR(pg_catalog.=) ('owned by ' OPERATOR(pg_catalog.||) $2)
    AND (c.tenant OPERATOR(pg_catalog.=) '' OR c.tenant OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 4))) THEN
    RETURN pg_catalog.split_part(body, ' ', 4);
  END IF;
  RETURN NULL;
END
$axis$;
ALTER FUNCTION axis.tenant_for_own(text, text) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_for_own(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_for_own(text, text) TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.may(capability text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN (axis.tenant_for(capability) IS NOT NULL);
ALTER FUNCTION axis.may(text) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.may(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.may(text) TO crm_app, crm_system, crm_owner;
INSERT INTO axis.part AS p (name, digest) VALUES ('base', 'ef4018902deb13592057823d49da537f60161cb7db93e6320723702af7c859ba') ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, applied_at = pg_catalog.now();

-- the database checks seals with this key
INSERT INTO axis.seal_key (id, inner_block, outer_block) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE SET inner_block = excluded.inner_block, outer_block = excluded.outer_block;

-- the owner of the tables makes and alters them in migrations
GRANT USAGE, CREATE ON SCHEMA "public" TO crm_owner;

-- the declared tables live here
GRANT USAGE ON SCHEMA "public" TO crm_app;

-- the declared tables live here
GRANT USAGE ON SCHEMA "public" TO crm_system;

-- the owner can lift row security; it must be neither the application nor a superuser
ALTER TABLE "public"."plan" OWNER TO crm_owner;

-- open to every tenant: prices, the same for all
GRANT SELECT ON TABLE "public"."plan" TO crm_app;

-- open to every tenant: prices, the same for all
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."plan" TO crm_system;

-- the owner can lift row security; it must be neither the application nor a superuser
ALTER TABLE "public"."project" OWNER TO crm_owner;

-- rows belong to the acting tenant without anybody passing its id
ALTER TABLE "public"."project" ALTER COLUMN "tenant_id" SET DEFAULT axis.claimed_tenant_id();

-- policies do nothing without it
ALTER TABLE "public"."project" ENABLE ROW LEVEL SECURITY;

-- else the owner sees every tenant
ALTER TABLE "public"."project" FORCE ROW LEVEL SECURITY;

-- the floor: restrictive, so that no policy added later can widen it
CREATE POLICY "axis_floor" ON "public"."project" AS RESTRICTIVE FOR ALL TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id())) WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may read
CREATE POLICY "axis_select" ON "public"."project" AS PERMISSIVE FOR SELECT TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id()));

-- who may add
CREATE POLICY "axis_insert" ON "public"."project" AS PERMISSIVE FOR INSERT TO crm_app WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may change; the row after the change is held to the same
CREATE POLICY "axis_update" ON "public"."project" AS PERMISSIVE FOR UPDATE TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id())) WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may remove
CREATE POLICY "axis_delete" ON "public"."project" AS PERMISSIVE FOR DELETE TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id()));

-- the system login sees all tenants; it needs a reason and writes an audit event
CREATE POLICY "axis_system" ON "public"."project" AS PERMISSIVE FOR ALL TO crm_system USING ("tenant_id" IS NOT NULL AND (SELECT axis.is_system())) WITH CHECK ("tenant_id" IS NOT NULL AND (SELECT axis.is_system()));

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."project" TO crm_app;

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."project" TO crm_system;

-- the owner can lift row security; it must be neither the application nor a superuser
ALTER TABLE "public"."task" OWNER TO crm_owner;

-- rows belong to the acting tenant without anybody passing its id
ALTER TABLE "public"."task" ALTER COLUMN "tenant_id" SET DEFAULT axis.claimed_tenant_id();

-- policies do nothing without it
ALTER TABLE "public"."task" ENABLE ROW LEVEL SECURITY;

-- else the owner sees every tenant
ALTER TABLE "public"."task" FORCE ROW LEVEL SECURITY;

-- the floor: restrictive, so that no policy added later can widen it
CREATE POLICY "axis_floor" ON "public"."task" AS RESTRICTIVE FOR ALL TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id())) WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may read
CREATE POLICY "axis_select" ON "public"."task" AS PERMISSIVE FOR SELECT TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id()));

-- who may add
CREATE POLICY "axis_insert" ON "public"."task" AS PERMISSIVE FOR INSERT TO crm_app WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may change; the row after the change is held to the same
CREATE POLICY "axis_update" ON "public"."task" AS PERMISSIVE FOR UPDATE TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id())) WITH CHECK ("tenant_id" = (SELECT axis.tenant_id()));

-- who may remove
CREATE POLICY "axis_delete" ON "public"."task" AS PERMISSIVE FOR DELETE TO crm_app USING ("tenant_id" = (SELECT axis.tenant_id()));

-- the system login sees all tenants; it needs a reason and writes an audit event
CREATE POLICY "axis_system" ON "public"."task" AS PERMISSIVE FOR ALL TO crm_system USING ("tenant_id" IS NOT NULL AND (SELECT axis.is_system())) WITH CHECK ("tenant_id" IS NOT NULL AND (SELECT axis.is_system()));

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."task" TO crm_app;

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."task" TO crm_system;

-- a row may only point at a row of its own tenant, and a CASCADE stays inside it
ALTER TABLE "public"."task" ADD CONSTRAINT "axis_task_tenant_id_project_id_fkey" FOREIGN KEY ("tenant_id", "project_id") REFERENCES "public"."project" ("tenant_id", "id") ON DELETE CASCADE NOT VALID;

-- the rows that exist are held to it; a failure here names a row that crosses tenants
ALTER TABLE "public"."task" VALIDATE CONSTRAINT "axis_task_tenant_id_project_id_fkey";
