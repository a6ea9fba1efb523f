--- case: a unique value across tenants
--- code: rls.unique_not_scoped
--- modes: 18, 19
--- fix: runs
--- broken
ALTER TABLE shop.project ADD COLUMN slug text;
ALTER TABLE shop.project ADD UNIQUE (slug);
--- fixed
ALTER TABLE shop.project ADD COLUMN slug text;
ALTER TABLE shop.project ADD UNIQUE (tenant_id, slug);

--- case: a unique index across tenants
--- code: rls.unique_not_scoped
--- modes: 18, 19
--- fix: runs
--- broken
CREATE UNIQUE INDEX task_title ON shop.task (title);
--- fixed
CREATE UNIQUE INDEX task_title ON shop.task (tenant_id, title);

--- case: a unique expression across tenants
--- code: rls.unique_not_scoped
--- modes: 18, 19
--- broken
CREATE UNIQUE INDEX task_title ON shop.task (lower(title));
--- fixed
CREATE UNIQUE INDEX task_title ON shop.task (tenant_id, lower(title));

--- case: a primary key that people choose
--- code: rls.primary_key_guessable
--- modes: 18, 19
--- fix: runs
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.page (slug text PRIMARY KEY, tenant_id uuid NOT NULL);
CREATE INDEX ON shop.page (tenant_id);
ALTER TABLE shop.page ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.page FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.page TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.page TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.page TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.page (slug text NOT NULL, tenant_id uuid NOT NULL, PRIMARY KEY (tenant_id, slug));
ALTER TABLE shop.page ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.page FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.page TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.page TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.page TO corpus_app;

--- case: an exclusion across tenants
--- code: rls.exclusion_not_scoped
--- modes: 19
--- broken
ALTER TABLE shop.task ADD COLUMN room int4range, ADD EXCLUDE USING gist (room WITH &&);
--- fixed
ALTER TABLE shop.task ADD COLUMN room int4range, ADD COLUMN tenant_range int8range, ADD EXCLUDE USING btree (tenant_id WITH =, due WITH =);

--- case: a foreign key without the tenant
--- code: rls.foreign_key_not_scoped
--- modes: 19, 20
--- fix: runs
--- broken
ALTER TABLE shop.task ADD COLUMN other_project uuid REFERENCES shop.project (id);
--- fixed
ALTER TABLE shop.task ADD COLUMN other_project uuid, ADD FOREIGN KEY (tenant_id, other_project) REFERENCES shop.project (tenant_id, id);

--- case: a cascade across tenants
--- code: rls.foreign_key_cascades
--- modes: 20
--- fix: runs
--- broken
ALTER TABLE shop.task ADD COLUMN parent_id uuid REFERENCES shop.task (id) ON DELETE CASCADE;
--- fixed
ALTER TABLE shop.task ADD COLUMN parent_id uuid, ADD FOREIGN KEY (tenant_id, parent_id) REFERENCES shop.task (tenant_id, id) ON DELETE CASCADE;

--- case: SET NULL across tenants
--- code: rls.foreign_key_cascades
--- modes: 20
--- fix: runs
--- broken
ALTER TABLE shop.task ADD COLUMN parent_id uuid REFERENCES shop.task (id) ON DELETE SET NULL;
--- fixed
ALTER TABLE shop.task ADD COLUMN parent_id uuid, ADD FOREIGN KEY (tenant_id, parent_id) REFERENCES shop.task (tenant_id, id) ON DELETE SET NULL (parent_id);

--- case: a key that was never validated
--- code: rls.foreign_key_not_valid
--- modes: 20
--- fix: runs
--- broken
ALTER TABLE shop.task ADD COLUMN parent_id uuid, ADD FOREIGN KEY (tenant_id, parent_id) REFERENCES shop.task (tenant_id, id) NOT VALID;
--- fixed
ALTER TABLE shop.task ADD COLUMN parent_id uuid, ADD FOREIGN KEY (tenant_id, parent_id) REFERENCES shop.task (tenant_id, id);

--- case: a counter as primary key
--- code: rls.counted_key
--- modes: 19, 29
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.ticket (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL);
CREATE INDEX ON shop.ticket (tenant_id);
ALTER TABLE shop.ticket ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.ticket FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.ticket TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.ticket TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.ticket TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.ticket (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, tenant_id uuid NOT NULL);
CREATE INDEX ON shop.ticket (tenant_id);
ALTER TABLE shop.ticket ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.ticket FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.ticket TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.ticket TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.ticket TO corpus_app;

--- case: an index on an enum
--- code: rls.operator_not_leakproof
--- modes: 25
--- broken
CREATE TYPE shop.state AS ENUM ('open', 'done');
ALTER TABLE shop.task ADD COLUMN state shop.state;
CREATE INDEX ON shop.task (tenant_id, state);
--- fixed
ALTER TABLE shop.task ADD COLUMN state text CHECK (state IN ('open', 'done'));
CREATE INDEX ON shop.task (tenant_id, state);

--- case: an index on numeric
--- code: rls.operator_not_leakproof
--- modes: 25
--- broken
ALTER TABLE shop.task ADD COLUMN price numeric(12, 2);
CREATE INDEX ON shop.task (tenant_id, price);
--- fixed
ALTER TABLE shop.task ADD COLUMN price_cents bigint;
CREATE INDEX ON shop.task (tenant_id, price_cents);

--- case: an index for LIKE
--- code: rls.operator_not_leakproof
--- modes: 25
--- broken
CREATE INDEX ON shop.task (tenant_id, title text_pattern_ops);
--- fixed
CREATE INDEX ON shop.task (tenant_id, title COLLATE "C");

--- case: an index on an expression
--- code: rls.operator_not_leakproof
--- modes: 25
--- broken
CREATE INDEX ON shop.task (tenant_id, lower(title));
--- fixed
ALTER TABLE shop.task ADD COLUMN title_lower text GENERATED ALWAYS AS (lower(title)) STORED;
CREATE INDEX ON shop.task (tenant_id, title_lower);

--- case: an index on JSON
--- code: rls.operator_not_leakproof
--- modes: 25
--- broken
ALTER TABLE shop.task ADD COLUMN extra jsonb;
CREATE INDEX ON shop.task USING gin (extra);
--- fixed
ALTER TABLE shop.task ADD COLUMN extra jsonb, ADD COLUMN kind text;
CREATE INDEX ON shop.task (tenant_id, kind);
