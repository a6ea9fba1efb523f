-- For CockroachDB v25.2 and later, as an admin. WRITTEN, NOT RUN: this project has no CockroachDB server. Rehearse it, and attack it with
-- axis_security.testing, before you believe it. Foreign keys between protected tables are made here: create the tables without them.

-- the role owns schema axis; nobody logs in as it
CREATE ROLE crm_guard NOLOGIN NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- the role owns the tables and runs migrations; FORCE binds it to the policies as well
CREATE ROLE crm_owner LOGIN NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- the role what the application connects as; owns nothing, bypasses nothing
CREATE ROLE crm_app LOGIN NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- the role another login, for declared cross-tenant work
CREATE ROLE crm_system LOGIN NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- the part `base` of schema axis does not exist
CREATE SCHEMA IF NOT EXISTS axis AUTHORIZATION crm_guard;
REVOKE ALL ON SCHEMA axis FROM PUBLIC, crm_app, crm_system, crm_owner;
GRANT USAGE ON SCHEMA axis TO crm_app, crm_system, crm_owner;
CREATE TABLE IF NOT EXISTS axis.part (name TEXT PRIMARY KEY, digest TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT pg_catalog.now());
CREATE TABLE IF NOT EXISTS axis.seal_key (id INTEGER PRIMARY KEY CHECK (id > 0), inner_block BYTEA NOT NULL CHECK (octet_length(inner_block) = 64), outer_block BYTEA NOT NULL CHECK (octet_length(outer_block) = 64));
CREATE TABLE IF NOT EXISTS axis.role_capability (tenant TEXT NOT NULL DEFAULT '', role TEXT NOT NULL, capability TEXT NOT NULL, condition TEXT NOT NULL DEFAULT '', PRIMARY KEY (role, capability, condition, tenant));
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.part'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.part OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON TABLE axis.part FROM PUBLIC, crm_app, crm_system, crm_owner;
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.seal_key'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.seal_key OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON TABLE axis.seal_key FROM PUBLIC, crm_app, crm_system, crm_owner;
DO $gently$ BEGIN IF (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'axis.role_capability'::pg_catalog.regclass) <> 'crm_guard'::pg_catalog.regrole THEN ALTER TABLE axis.role_capability OWNER TO crm_guard; END IF; END $gently$;
REVOKE ALL ON TABLE axis.role_capability FROM PUBLIC, crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.context() RETURNS TEXT STABLE LANGUAGE PLpgSQL SECURITY DEFINER AS $axis$
DECLARE
  sealed TEXT := pg_catalog.current_setting('axis.context', true);
  body TEXT;
  mac BYTEA;
BEGIN
  IF sealed IS NULL OR sealed = '' THEN
    RAISE EXCEPTION USING ERRCODE = 'AX001', MESSAGE = 'no tenant is bound to this transaction';
  END IF;
  body := pg_catalog."left"(sealed, -64);
  SELECT pg_catalog.digest(k.outer_block || pg_catalog.digest(k.inner_block || pg_catalog.convert_to(body, 'UTF8'), 'sha256'), 'sha256')
    INTO mac FROM axis.seal_key AS k WHERE k.id::TEXT = pg_catalog.split_part(sealed, ' ', 2);
  IF mac IS NULL OR pg_catalog.sha256(pg_catalog.encode(mac, 'hex')) <> pg_catalog.sha256(pg_catalog."right"(sealed, 64)) THEN
    RAISE EXCEPTION USING ERRCODE = 'AX002', MESSAGE = 'the sealed context is not genuine';
  END IF;
  IF pg_catalog.to_timestamp(pg_catalog.split_part(body, ' ', 3)::FLOAT8) < pg_catalog.now() THEN
    RAISE EXCEPTION USING ERRCODE = 'AX003', MESSAGE = 'the sealed context had expired when this transaction began';
  END IF;
  RETURN body;
END
$axis$;
ALTER FUNCTION axis.context() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.context() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.context() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_id() RETURNS uuid STABLE LANGUAGE SQL AS $axis$
SELECT pg_catalog.split_part(axis.context(), ' ', 4)::uuid
$axis$;
ALTER FUNCTION axis.tenant_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_text() RETURNS TEXT STABLE LANGUAGE SQL AS $axis$
SELECT pg_catalog.split_part(axis.context(), ' ', 4)
$axis$;
ALTER FUNCTION axis.tenant_text() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_text() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_text() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.user_id() RETURNS TEXT STABLE LANGUAGE SQL AS $axis$
SELECT NULLIF(pg_catalog.split_part(axis.context(), ' ', 5), '')
$axis$;
ALTER FUNCTION axis.user_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.user_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.user_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.role_name() RETURNS TEXT STABLE LANGUAGE SQL AS $axis$
SELECT pg_catalog.split_part(axis.context(), ' ', 6)
$axis$;
ALTER FUNCTION axis.role_name() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.role_name() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.role_name() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.claimed_tenant_id() RETURNS uuid STABLE LANGUAGE SQL AS $axis$
SELECT NULLIF(pg_catalog.split_part(pg_catalog.current_setting('axis.context', true), ' ', 4), '')::uuid
$axis$;
ALTER FUNCTION axis.claimed_tenant_id() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.claimed_tenant_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.claimed_tenant_id() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.is_system() RETURNS BOOLEAN STABLE LANGUAGE SQL AS $axis$
SELECT CURRENT_USER = 'crm_system'
$axis$;
ALTER FUNCTION axis.is_system() OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.is_system() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.is_system() TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_for(capability_name TEXT) RETURNS uuid STABLE LANGUAGE PLpgSQL SECURITY DEFINER AS $axis$
DECLARE
  body TEXT := axis.context();
BEGIN
  IF EXISTS (SELECT 1 FROM axis.role_capability AS c WHERE c.role = pg_catalog.split_part(body, ' ', 6) AND c.capability = capability_name
    AND c.condition = '' AND (c.tenant = '' OR c.tenant = pg_catalog.split_part(body, ' ', 4))) THEN
    RETURN pg_catalog.split_part(body, ' ', 4)::uuid;
  END IF;
  RETURN NULL;
END
$axis$;
ALTER FUNCTION axis.tenant_for(TEXT) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_for(TEXT) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_for(TEXT) TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.tenant_for_own(capability_name TEXT, owner_column TEXT) RETURNS uuid STABLE LANGUAGE PLpgSQL SECURITY DEFINER AS $axis$
DECLARE
  body TEXT := axis.context();
BEGIN
  IF EXISTS (SELECT 1 FROM axis.role_capability AS c WHERE c.role = pg_catalog.split_part(body, ' ', 6) AND c.capability = capability_name
    AND c.condition = 'owned by ' || owner_column AND (c.tenant = '' OR c.tenant = pg_catalog.split_part(body, ' ', 4))) THEN
    RETURN pg_catalog.split_part(body, ' ', 4)::uuid;
  END IF;
  RETURN NULL;
END
$axis$;
ALTER FUNCTION axis.tenant_for_own(TEXT, TEXT) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.tenant_for_own(TEXT, TEXT) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.tenant_for_own(TEXT, TEXT) TO crm_app, crm_system, crm_owner;
CREATE OR REPLACE FUNCTION axis.may(capability_name TEXT) RETURNS BOOLEAN STABLE LANGUAGE SQL AS $axis$
SELECT axis.tenant_for(capability_name) IS NOT NULL
$axis$;
ALTER FUNCTION axis.may(TEXT) OWNER TO crm_guard;
REVOKE ALL ON FUNCTION axis.may(TEXT) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION axis.may(TEXT) TO crm_app, crm_system, crm_owner;
INSERT INTO axis.part AS p (name, digest) VALUES ('base', '7a8c233ee813e78bbd290894c87d62ba5c8c1f8d720e4d7ed4a7eb490c5db7eb') ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, applied_at = pg_catalog.now();

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
CREATE POLICY "axis_floor" ON "public"."project" AS RESTRICTIVE FOR ALL TO crm_app USING ("tenant_id" = axis.tenant_id()) WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may read
CREATE POLICY "axis_select" ON "public"."project" AS PERMISSIVE FOR SELECT TO crm_app USING ("tenant_id" = axis.tenant_id());

-- who may add
CREATE POLICY "axis_insert" ON "public"."project" AS PERMISSIVE FOR INSERT TO crm_app WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may change; the row after the change is held to the same
CREATE POLICY "axis_update" ON "public"."project" AS PERMISSIVE FOR UPDATE TO crm_app USING ("tenant_id" = axis.tenant_id()) WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may remove
CREATE POLICY "axis_delete" ON "public"."project" AS PERMISSIVE FOR DELETE TO crm_app USING ("tenant_id" = axis.tenant_id());

-- the system login sees all tenants; it needs a reason and writes an audit event
CREATE POLICY "axis_system" ON "public"."project" AS PERMISSIVE FOR ALL TO crm_system USING ("tenant_id" IS NOT NULL AND axis.is_system()) WITH CHECK ("tenant_id" IS NOT NULL AND axis.is_system());

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
CREATE POLICY "axis_floor" ON "public"."task" AS RESTRICTIVE FOR ALL TO crm_app USING ("tenant_id" = axis.tenant_id()) WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may read
CREATE POLICY "axis_select" ON "public"."task" AS PERMISSIVE FOR SELECT TO crm_app USING ("tenant_id" = axis.tenant_id());

-- who may add
CREATE POLICY "axis_insert" ON "public"."task" AS PERMISSIVE FOR INSERT TO crm_app WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may change; the row after the change is held to the same
CREATE POLICY "axis_update" ON "public"."task" AS PERMISSIVE FOR UPDATE TO crm_app USING ("tenant_id" = axis.tenant_id()) WITH CHECK ("tenant_id" = axis.tenant_id());

-- who may remove
CREATE POLICY "axis_delete" ON "public"."task" AS PERMISSIVE FOR DELETE TO crm_app USING ("tenant_id" = axis.tenant_id());

-- the system login sees all tenants; it needs a reason and writes an audit event
CREATE POLICY "axis_system" ON "public"."task" AS PERMISSIVE FOR ALL TO crm_system USING ("tenant_id" IS NOT NULL AND axis.is_system()) WITH CHECK ("tenant_id" IS NOT NULL AND axis.is_system());

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."task" TO crm_app;

-- the policies decide which rows
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "public"."task" TO crm_system;

-- a row may only point at a row of its own tenant, and a CASCADE stays inside it
ALTER TABLE "public"."task" ADD CONSTRAINT "axis_task_tenant_id_project_id_fkey" FOREIGN KEY ("tenant_id", "project_id") REFERENCES "public"."project" ("tenant_id", "id") ON DELETE CASCADE NOT VALID;

-- the rows that exist are held to it; a failure here names a row that crosses tenants
ALTER TABLE "public"."task" VALIDATE CONSTRAINT "axis_task_tenant_id_project_id_fkey";
