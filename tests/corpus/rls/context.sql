--- case: the tenant is a plain setting
--- code: rls.context_forgeable
--- modes: 1, 2, 4, 8, 10
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT current_setting('app.tenant')::uuid));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a getter that only wraps a setting
--- code: rls.context_forgeable
--- modes: 1, 2, 4, 8, 10
--- broken
CREATE FUNCTION ctx.plain() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT nullif(current_setting('app.tenant'), '')::uuid $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.plain()));
--- fixed
CREATE FUNCTION ctx.plain() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT ctx.tenant_id() $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.plain()));

--- case: a getter behind a getter that only wraps a setting
--- code: rls.context_forgeable
--- modes: 8
--- broken
CREATE FUNCTION ctx.setting() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT current_setting('app.tenant') $$;
CREATE FUNCTION ctx.plain() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT ctx.setting()::uuid $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.plain()));
--- fixed
CREATE FUNCTION ctx.plain() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT ctx.tenant_id() $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.plain()));

--- case: unbound is silent
--- code: rls.context_silent
--- modes: 6, 7, 9, 11, 12
--- broken
CREATE FUNCTION ctx.quiet() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.tenant FROM ctx.ticket t WHERE t.digest = sha256(convert_to(current_setting('ctx.ticket', true), 'UTF8'))
$$;
ALTER FUNCTION ctx.quiet() OWNER TO corpus_guard;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.quiet()));
--- fixed
CREATE FUNCTION ctx.loud() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found uuid;
BEGIN
  SELECT t.tenant INTO found FROM ctx.ticket t WHERE t.digest = sha256(convert_to(current_setting('ctx.ticket', true), 'UTF8'));
  IF found IS NULL THEN RAISE EXCEPTION 'nobody is bound'; END IF;
  RETURN found;
END $$;
ALTER FUNCTION ctx.loud() OWNER TO corpus_guard;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.loud()));

--- case: unset counts as permission
--- code: rls.context_opens, rls.context_forgeable, rls.context_silent
--- modes: 6, 8, 11
--- broken
ALTER POLICY tenant ON shop.task USING (
  (SELECT current_setting('app.tenant', true) IS NULL) OR tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid)
);
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a default tenant in the getter
--- code: rls.context_opens, rls.context_forgeable, rls.context_silent
--- modes: 6, 8, 11
--- broken
CREATE FUNCTION ctx.fallback() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(nullif(current_setting('app.tenant', true), ''), '00000000-0000-0000-0000-000000000001')::uuid
$$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.fallback()));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a default tenant stored with the role
--- code: rls.context_stored
--- modes: 6, 9, 11
--- fix: runs
--- broken
ALTER ROLE corpus_app SET ctx.ticket = 'of the first tenant';
--- fixed
ALTER ROLE corpus_app SET ctx.ticket = 'of the first tenant';
ALTER ROLE corpus_app RESET ctx.ticket;

--- case: a setting that lifts the policy
--- code: rls.bypass_setting, rls.context_forgeable
--- modes: 8
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()) OR (SELECT current_setting('app.bypass')) = 'on')
  WITH CHECK (tenant_id = (SELECT ctx.tenant_id()));
--- fixed
-- the policy `system` is for another login; the application's has one branch
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: an empty setting is cast
--- code: rls.context_empty_text, rls.context_forgeable, rls.context_silent
--- modes: 7
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT current_setting('app.tenant', true)::uuid));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: the tenant is the name of the role
--- code: rls.tenant_from_role_name
--- modes: 3, 4, 5
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT replace(current_user, 'tenant_', '')::uuid));
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a function binds the session
--- code: rls.session_binding
--- modes: 1, 2, 4, 6
--- broken
CREATE FUNCTION shop.bind(ticket text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('ctx.ticket', ticket, false) $$;
--- fixed
CREATE FUNCTION shop.bind(ticket text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('ctx.ticket', ticket, true) $$;

--- case: a procedure sets the session in PL/pgSQL
--- code: rls.session_binding
--- modes: 1, 2, 4
--- broken
CREATE FUNCTION shop.bind_first() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  SET ctx.ticket = 'first';
END $$;
--- fixed
CREATE FUNCTION shop.bind_first() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  SET LOCAL ctx.ticket = 'first';
END $$;

--- case: the getter runs for each row
--- code: rls.getter_per_row
--- modes: 13
--- broken
ALTER POLICY tenant ON shop.task USING (tenant_id = ctx.tenant_id());
--- fixed
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.tenant_id()));

--- case: a volatile getter
--- code: rls.getter_volatile
--- modes: 13
--- fix: runs
--- broken
ALTER FUNCTION ctx.tenant_id() VOLATILE;
--- fixed
ALTER FUNCTION ctx.tenant_id() STABLE;

--- case: an immutable function that reads a setting
--- code: rls.getter_immutable
--- modes: 26
--- fix: runs
--- broken
CREATE FUNCTION shop.locale() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT current_setting('shop.locale', true) $$;
--- fixed
CREATE FUNCTION shop.locale() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('shop.locale', true) $$;

--- case: an immutable getter in a policy
--- code: rls.getter_immutable
--- modes: 26
--- fix: runs
--- broken
CREATE FUNCTION ctx.frozen() RETURNS uuid LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF current_setting('ctx.ticket') = '' OR NOT EXISTS (SELECT FROM shop.country) THEN RAISE EXCEPTION 'nobody is bound'; END IF;
  RETURN ctx.tenant_id();
END $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.frozen()));
--- fixed
CREATE FUNCTION ctx.thawed() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  IF current_setting('ctx.ticket') = '' OR NOT EXISTS (SELECT FROM shop.country) THEN RAISE EXCEPTION 'nobody is bound'; END IF;
  RETURN ctx.tenant_id();
END $$;
ALTER POLICY tenant ON shop.task USING (tenant_id = (SELECT ctx.thawed()));

--- case: a getter that forbids parallel plans
--- code: rls.getter_serial
--- modes: 13
--- fix: runs
--- broken
ALTER FUNCTION ctx.tenant_id() PARALLEL UNSAFE;
--- fixed
ALTER FUNCTION ctx.tenant_id() PARALLEL SAFE;

--- case: a getter that the application may not call
--- code: rls.getter_not_callable
--- modes: 12
--- fix: runs
--- broken
REVOKE EXECUTE ON FUNCTION ctx.tenant_id() FROM PUBLIC;
--- fixed
REVOKE EXECUTE ON FUNCTION ctx.tenant_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ctx.tenant_id() TO corpus_app;
