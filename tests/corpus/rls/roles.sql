--- case: the application is a superuser
--- code: rls.app_role_bypasses
--- modes: 8, 31
--- fix: runs
--- broken
ALTER ROLE corpus_app SUPERUSER;
--- fixed
ALTER ROLE corpus_app NOSUPERUSER;

--- case: the application has BYPASSRLS
--- code: rls.app_role_bypasses
--- modes: 8, 31
--- fix: runs
--- broken
ALTER ROLE corpus_app BYPASSRLS;
--- fixed
ALTER ROLE corpus_app NOBYPASSRLS;

--- case: the application may become the system role
--- code: rls.app_role_becomes
--- modes: 3, 8, 24
--- fix: runs
--- broken
GRANT corpus_system TO corpus_app;
--- fixed
GRANT corpus_system TO corpus_owner;

--- case: the application may become a role that bypasses
--- code: rls.app_role_becomes
--- modes: 3, 8, 24
--- fix: runs
--- broken
CREATE ROLE corpus_dba NOLOGIN BYPASSRLS;
GRANT corpus_dba TO corpus_app WITH INHERIT FALSE, SET TRUE;
--- fixed
CREATE ROLE corpus_dba NOLOGIN BYPASSRLS;

--- case: the application may make roles
--- code: rls.app_role_attributes
--- modes: 8
--- fix: runs
--- broken
ALTER ROLE corpus_app CREATEROLE;
--- fixed
ALTER ROLE corpus_app NOCREATEROLE;

--- case: the application may replicate
--- code: rls.app_role_attributes
--- modes: 28
--- fix: runs
--- broken
ALTER ROLE corpus_app REPLICATION;
--- fixed
ALTER ROLE corpus_app NOREPLICATION;

--- case: the application reads the server's files
--- code: rls.app_role_predefined
--- modes: 8, 22, 28
--- fix: runs
--- broken
GRANT pg_read_server_files TO corpus_app;
--- fixed
GRANT pg_read_server_files TO corpus_system;

--- case: row security switched off for a role
--- code: rls.row_security_off
--- modes: 28
--- fix: runs
--- broken
ALTER ROLE corpus_app SET row_security = off;
--- fixed
ALTER ROLE corpus_app SET row_security = on;

--- case: a server without the fixes
--- code: rls.server_too_old
--- modes: 32
--- version: 150013
--- broken
SELECT 'the facts of this case say 15.14 minus one';
--- fixed
SELECT 'the server of the tests';
