--- case: a tenant table was forgotten
--- code: rls.not_enabled
--- modes: 13
--- fix: partly
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.invoice (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, total bigint NOT NULL, UNIQUE (tenant_id, id));
GRANT SELECT, INSERT ON shop.invoice TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.invoice (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, total bigint NOT NULL, UNIQUE (tenant_id, id));
ALTER TABLE shop.invoice ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.invoice FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.invoice FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_add ON shop.invoice FOR INSERT TO corpus_app WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.invoice TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT, INSERT ON shop.invoice TO corpus_app;

--- case: policies without ENABLE
--- code: rls.policies_not_enabled
--- modes: 13
--- fix: runs
--- broken
ALTER TABLE shop.task DISABLE ROW LEVEL SECURITY;
--- fixed
ALTER TABLE shop.task DISABLE ROW LEVEL SECURITY;
ALTER TABLE shop.task ENABLE ROW LEVEL SECURITY;

--- case: ENABLE without FORCE
--- code: rls.not_forced
--- modes: 13, 23
--- fix: runs
--- broken
ALTER TABLE shop.task NO FORCE ROW LEVEL SECURITY;
--- fixed
ALTER TABLE shop.task FORCE ROW LEVEL SECURITY;

--- case: row security on and nobody let in
--- code: rls.no_policy
--- modes: 12
--- broken
DROP POLICY tenant ON shop.task;
--- fixed
DROP POLICY tenant ON shop.task;
CREATE POLICY members ON shop.task TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a floor with nothing on it
--- code: rls.only_restrictive, rls.no_policy, rls.no_system_path
--- modes: 12
--- broken
DROP POLICY tenant ON shop.task;
DROP POLICY system ON shop.task;
CREATE POLICY floor ON shop.task AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
--- fixed
CREATE POLICY floor ON shop.task AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: the tenant column may be NULL
--- code: rls.tenant_nullable
--- modes: 6, 30
--- fix: runs
--- broken
ALTER TABLE shop.task ALTER COLUMN tenant_id DROP NOT NULL;
--- fixed
ALTER TABLE shop.task ALTER COLUMN tenant_id SET NOT NULL;

--- case: a default tenant left over from adding the column
--- code: rls.tenant_default_fixed
--- modes: 6, 30
--- fix: runs
--- broken
ALTER TABLE shop.task ALTER COLUMN tenant_id SET DEFAULT '00000000-0000-0000-0000-000000000001';
--- fixed
ALTER TABLE shop.task ALTER COLUMN tenant_id SET DEFAULT ctx.tenant_id();

--- case: one key, two types
--- code: rls.tenant_type_differs
--- modes: 5, 14
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.note (id uuid PRIMARY KEY, tenant_id text NOT NULL, body text, UNIQUE (tenant_id, id));
ALTER TABLE shop.note ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.note FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.note TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id())::text);
CREATE POLICY system ON shop.note TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.note TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.note (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, body text, UNIQUE (tenant_id, id));
ALTER TABLE shop.note ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.note FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.note TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.note TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.note TO corpus_app;

--- case: no index starts with the tenant
--- code: rls.no_tenant_index
--- modes: 13
--- fix: runs
--- broken
ALTER TABLE shop.task DROP CONSTRAINT task_tenant_id_id_key;
--- fixed
ALTER TABLE shop.task DROP CONSTRAINT task_tenant_id_id_key;
CREATE INDEX ON shop.task (tenant_id, due);

--- case: only a partial index starts with the tenant
--- code: rls.no_tenant_index
--- modes: 13
--- fix: runs
--- broken
ALTER TABLE shop.task DROP CONSTRAINT task_tenant_id_id_key;
CREATE INDEX ON shop.task (tenant_id) WHERE deleted_at IS NULL;
--- fixed
ALTER TABLE shop.task DROP CONSTRAINT task_tenant_id_id_key;
CREATE INDEX ON shop.task (tenant_id);

--- case: the application owns the table
--- code: rls.app_owns_table
--- modes: 13, 31
--- fix: runs
--- broken
ALTER TABLE shop.task OWNER TO corpus_app;
REVOKE TRUNCATE, REFERENCES, TRIGGER, MAINTAIN ON shop.task FROM corpus_app;
--- fixed
ALTER TABLE shop.task OWNER TO corpus_app;
ALTER TABLE shop.task OWNER TO corpus_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.task TO corpus_app;

--- case: the application is a member of the owner
--- code: rls.app_owns_table
--- modes: 13, 24, 31
--- broken
GRANT corpus_owner TO corpus_app;
ALTER TABLE shop.project OWNER TO corpus_guard;
ALTER TABLE shop.event OWNER TO corpus_guard;
ALTER TABLE shop.event_2026 OWNER TO corpus_guard;
REVOKE TRUNCATE, REFERENCES, TRIGGER, MAINTAIN ON shop.task FROM corpus_owner;
ALTER SCHEMA shop OWNER TO corpus_guard;
REVOKE CREATE ON SCHEMA shop FROM corpus_owner;
--- fixed
GRANT corpus_owner TO corpus_app;
REVOKE corpus_owner FROM corpus_app;

--- case: forced, and nobody sees all tenants
--- code: rls.no_system_path
--- modes: 28, 30
--- broken
DROP POLICY system ON shop.task;
--- fixed
DROP POLICY system ON shop.task;
CREATE POLICY maintenance ON shop.task TO corpus_system USING (tenant_id IS NOT NULL);
