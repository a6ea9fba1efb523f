--- case: a policy for everybody
--- code: rls.policy_to_public
--- modes: 13, 24
--- fix: runs
--- broken
ALTER POLICY tenant ON shop.task TO PUBLIC;
--- fixed
ALTER POLICY tenant ON shop.task TO corpus_app;

--- case: a policy that is true
--- code: rls.policy_always_true
--- modes: 13, 31
--- fix: runs
--- broken
CREATE POLICY debug ON shop.task TO corpus_app USING (true);
--- fixed
CREATE POLICY floor ON shop.task AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY debug ON shop.task TO corpus_app USING (true);

--- case: the policy itself was replaced by true
--- code: rls.policy_always_true
--- modes: 13, 31
--- broken
ALTER POLICY tenant ON shop.project USING (true);
--- fixed
ALTER POLICY tenant ON shop.project USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: inserts for any tenant
--- code: rls.policy_always_true
--- modes: 13, 15
--- broken
ALTER POLICY tenant ON shop.task WITH CHECK (true);
--- fixed
ALTER POLICY tenant ON shop.task WITH CHECK (tenant_id = (SELECT ctx.tenant_id()) AND title <> '');

--- case: a policy by hand that forgets the tenant
--- code: rls.policy_ignores_tenant
--- modes: 13
--- fix: runs
--- broken
CREATE POLICY mine ON shop.project FOR SELECT TO corpus_app USING (owner_id = (SELECT ctx.person_id()));
--- fixed
CREATE POLICY floor ON shop.project AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY mine ON shop.project FOR SELECT TO corpus_app USING (owner_id = (SELECT ctx.person_id()));

--- case: only asks that the tenant is not NULL
--- code: rls.policy_ignores_tenant
--- modes: 13, 14
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id IS NOT NULL);
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id IS NOT NULL AND tenant_id = (SELECT ctx.tenant_id()));

--- case: a floor that restricts nothing
--- code: rls.restrictive_wide
--- modes: 13, 31
--- fix: runs
--- broken
CREATE POLICY floor ON shop.task AS RESTRICTIVE TO corpus_app USING (true);
--- fixed
CREATE POLICY floor ON shop.task AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: two ways in and no floor
--- code: rls.permissive_overlap
--- modes: 13, 15
--- fix: runs
--- broken
CREATE POLICY mine ON shop.project FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()) OR owner_id = (SELECT ctx.person_id()));
--- fixed
CREATE POLICY floor ON shop.project AS RESTRICTIVE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY mine ON shop.project FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()) AND owner_id = (SELECT ctx.person_id()));

--- case: a row can be handed to another tenant
--- code: rls.tenant_move
--- modes: 15
--- fix: runs
--- broken
ALTER POLICY tenant ON shop.task WITH CHECK (title <> '');
--- fixed
ALTER POLICY tenant ON shop.task WITH CHECK (tenant_id = (SELECT ctx.tenant_id()) AND title <> '');

--- case: UPDATE granted and no policy for it
--- code: rls.grant_without_policy
--- modes: 12, 17
--- fix: runs
--- broken
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_read ON shop.task FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
REVOKE INSERT, DELETE ON shop.task FROM corpus_app;
--- fixed
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_read ON shop.task FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
REVOKE INSERT, DELETE, UPDATE ON shop.task FROM corpus_app;

--- case: DELETE granted and no policy for it
--- code: rls.grant_without_policy
--- modes: 12
--- fix: runs
--- broken
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_read ON shop.task FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_add ON shop.task FOR INSERT TO corpus_app WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_change ON shop.task FOR UPDATE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
--- fixed
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_read ON shop.task FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_add ON shop.task FOR INSERT TO corpus_app WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_change ON shop.task FOR UPDATE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_remove ON shop.task FOR DELETE TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: writes without a policy for reading
--- code: rls.write_without_read
--- modes: 16, 18
--- fix: runs
--- broken
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_add ON shop.task FOR INSERT TO corpus_app WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
REVOKE UPDATE, DELETE ON shop.task FROM corpus_app;
--- fixed
DROP POLICY tenant ON shop.task;
CREATE POLICY tenant_add ON shop.task FOR INSERT TO corpus_app WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY tenant_read ON shop.task FOR SELECT TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
REVOKE UPDATE, DELETE ON shop.task FROM corpus_app;

--- case: soft delete in the policy for reading
--- code: rls.soft_delete_in_select
--- modes: 16
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND deleted_at IS NULL)
  WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
--- fixed
CREATE VIEW shop.live_task WITH (security_invoker = true) AS SELECT * FROM shop.task WHERE deleted_at IS NULL;
GRANT SELECT ON shop.live_task TO corpus_app;

--- case: rows of no tenant are everybody's
--- code: rls.null_tenant_shared
--- modes: 6, 13
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id IS NULL OR tenant_id = (SELECT ctx.tenant_id())) WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.template (id uuid PRIMARY KEY, title text NOT NULL);
GRANT SELECT ON shop.template TO corpus_app;

--- case: a membership policy that reads its own table
--- code: rls.policy_recursion
--- modes: 27
--- broken
SET ROLE corpus_owner;
CREATE TABLE shop.member (tenant_id uuid NOT NULL, person uuid NOT NULL, PRIMARY KEY (tenant_id, person));
ALTER TABLE shop.member ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.member FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.member TO corpus_app USING (tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM shop.member m WHERE m.person = (SELECT ctx.person_id()))));
CREATE POLICY system ON shop.member TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.member TO corpus_app;
--- fixed
SET ROLE corpus_owner;
CREATE TABLE shop.member (tenant_id uuid NOT NULL, person uuid NOT NULL, PRIMARY KEY (tenant_id, person));
ALTER TABLE shop.member ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.member FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shop.member TO corpus_app USING (tenant_id = (SELECT ctx.tenant_id()));
CREATE POLICY system ON shop.member TO corpus_system USING (tenant_id IS NOT NULL);
GRANT SELECT ON shop.member TO corpus_app;

--- case: two policies that read each other's tables
--- code: rls.policy_recursion
--- modes: 27
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND project_id = ANY (ARRAY(SELECT p.id FROM shop.project p)));
ALTER POLICY tenant ON shop.project USING (tenant_id = (SELECT ctx.tenant_id()) AND id = ANY (ARRAY(SELECT t.project_id FROM shop.task t)));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND project_id = ANY (ARRAY(SELECT p.id FROM shop.project p)));

--- case: a circle through a view
--- code: rls.policy_recursion
--- modes: 27
--- broken
SET ROLE corpus_owner;
CREATE VIEW shop.open_task WITH (security_invoker = true) AS SELECT * FROM shop.task;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND project_id = ANY (ARRAY(SELECT p.id FROM shop.project p)));
ALTER POLICY tenant ON shop.project USING (tenant_id = (SELECT ctx.tenant_id()) AND id = ANY (ARRAY(SELECT t.project_id FROM shop.open_task t)));
--- fixed
SET ROLE corpus_owner;
CREATE VIEW shop.open_task WITH (security_invoker = true) AS SELECT * FROM shop.task;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND project_id = ANY (ARRAY(SELECT p.id FROM shop.project p)));

--- case: a sub-select for each row
--- code: rls.exists_per_row
--- modes: 27
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND EXISTS (SELECT FROM shop.project p WHERE p.id = task.project_id));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) AND project_id = ANY (ARRAY(SELECT p.id FROM shop.project p)));

--- case: a policy reaches the application through a group
--- code: rls.policy_reaches_through_role
--- modes: 24
--- fix: runs
--- broken
CREATE ROLE corpus_reports NOLOGIN;
CREATE POLICY reports ON shop.task FOR SELECT TO corpus_reports USING (true);
ALTER ROLE corpus_app INHERIT;
GRANT corpus_reports TO corpus_app;
--- fixed
CREATE ROLE corpus_reports NOLOGIN;
CREATE POLICY reports ON shop.task FOR SELECT TO corpus_reports USING (true);
