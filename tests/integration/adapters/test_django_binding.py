"""Django's ORM on bound connections: only this tenant's rows, however Django reaches the database, and nothing for nobody."""

from __future__ import annotations

import asyncio
import io
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from tests.integration.adapters import django_site

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.principal import Principal
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import SealKey, SealKeyring
from axis_security.rls.bind import AutocommitRefused, PrincipalChanged, TenantNotBound
from axis_security.rls.model import UndeclaredTable, UnusableTable
from axis_security.rls.posture import UnsafeRole
from axis_security.testing.cluster import Cluster

django_site.ready()

from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.core.management import call_command, load_command_class  # noqa: E402
from django.core.management.commands.runserver import Command as DjangosOwn  # noqa: E402
from django.db import DatabaseError, connection, connections, models, transaction  # noqa: E402
from django.test import override_settings  # noqa: E402
from tests.integration.adapters import django_models  # noqa: E402
from tests.integration.adapters.django_models import Book, Country, Note  # noqa: E402

from axis_security.adapters.django import ModelTenancy, OwnerMigrates  # noqa: E402
from axis_security.adapters.django.protect import model_metadata  # noqa: E402

ACME = Principal(tenant=1, user=10, role="member")
GLOBEX = Principal(tenant=2, user=20, role="member")
OWN = "axis_security.adapters.django.backend"


def database(cluster: Cluster, name: str, *, engine: str = OWN, user: str | None = None, **more: Any) -> dict[str, Any]:
    """One entry of DATABASES."""
    parts = psycopg.conninfo.conninfo_to_dict(cluster.dsn(name, user=user))
    return {
        "ENGINE": engine,
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "PASSWORD": parts.get("password", ""),
        "HOST": parts["host"],
        "PORT": parts.get("port", ""),
        **more,
    }


@contextmanager
def databases(entries: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Django with these databases, until the block ends."""

    def use(wanted: dict[str, Any]) -> None:
        for each in connections.all(initialized_only=True):
            each.close()
            if each.vendor == "postgresql" and each.alias in each._connection_pools:
                each.close_pool()
        connections.__dict__.pop("settings", None)
        connections._settings = wanted
        for alias in ("default", "owner", "other"):
            if hasattr(connections._connections, alias):
                delattr(connections._connections, alias)

    use(entries)
    try:
        yield
    finally:
        use({})


@pytest.fixture(scope="module")
def made(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """A database with Django's tables, planned and applied; its name and the app's role."""
    roles = DatabaseRoles.prefixed(f"django_{secrets.token_hex(4)}")
    django_models.tenancy = django_models.declare(roles, SealKeyring(current=SealKey.generate(1)))
    with cluster.database("django") as name:
        with databases({"default": database(cluster, name, engine="django.db.backends.postgresql")}):
            with connection.schema_editor() as editor:
                for model in (ContentType, Book, Note, Country):
                    editor.create_model(model)
            Country.objects.create(code="is")
        with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
            django_models.tenancy.plan(admin).apply(admin)
            assert not django_models.tenancy.plan(admin).steps
            admin.execute(f"ALTER ROLE {roles.app} LOGIN")  # plain identifier
        yield name, roles.app
        with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
            for role in (roles.app, roles.system, roles.owner, roles.guard):
                admin.execute(f"DROP OWNED BY {role} CASCADE")
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            admin.execute(f"DROP ROLE {role}")


@pytest.fixture(params=["plain", "pool"])
def site(request: pytest.FixtureRequest, made: tuple[str, str], cluster: Cluster) -> Iterator[None]:
    """Django as the app's role, with and without its connection pool; each tenant has one book with two notes."""
    name, app = made
    more: dict[str, Any] = (
        {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}, "CONN_HEALTH_CHECKS": True} if request.param == "pool" else {}
    )
    with databases({"default": database(cluster, name, user=app, **more)}):
        for who in (ACME, GLOBEX):
            with acting_as(who):
                book = Book.objects.create(name=f"book of {who.tenant}")
                for number in range(2):
                    Note.objects.create(book=book, text=f"{who.tenant}.{number}")
        yield
        for who in (ACME, GLOBEX):
            with acting_as(who):
                Book.objects.all().delete()


def texts(who: Principal) -> set[str]:
    """What *who* sees."""
    with acting_as(who):
        return set(Note.objects.values_list("text", flat=True))


@pytest.mark.usefixtures("site")
def test_every_way_of_asking_sees_one_tenant() -> None:
    """ORM in all its forms, raw SQL, inside and outside `atomic()`: own rows only; the tenant column fills itself."""
    for atomic in (False, True):
        for who in (ACME, GLOBEX):
            with acting_as(who), transaction.atomic() if atomic else acting_as(who):
                mine = {f"{who.tenant}.0", f"{who.tenant}.1"}
                assert {note.text for note in Note.objects.all()} == mine
                assert {note.text for note in Note.objects.select_related("book")} == mine
                assert {note.text for book in Book.objects.prefetch_related("notes") for note in book.notes.all()} == mine
                assert {note.text for note in Note.objects.iterator(chunk_size=1)} == mine
                assert {note.text for note in Note.objects.raw("SELECT * FROM site_note")} == mine
                assert Note.objects.count() == Note.objects.aggregate(n=models.Count("pk"))["n"] == 2
                with connection.cursor() as cursor:
                    cursor.execute("SELECT text, tenant_id, owner_id FROM site_note")
                    assert {row[0] for row in cursor.fetchall()} == mine
                assert Note.objects.filter(tenant_id__in=[1, 2]).exclude(tenant_id=who.tenant.value).exists() is False
                assert Country.objects.get().code == "is"
                assert {note.owner_id for note in Note.objects.all()} == {who.user.value if who.user else None}


@pytest.mark.usefixtures("site")
def test_writes_stay_inside() -> None:
    """Bulk writes touch own rows only; a row for another tenant, and a link to another tenant's row, are refused by the database."""
    with acting_as(GLOBEX):
        theirs = Book.objects.get()
    with acting_as(ACME):
        assert Note.objects.update(text="mine") == 2
        assert Note.objects.filter(book_id=theirs.pk).count() == 0
        with pytest.raises(DatabaseError):
            Book.objects.create(tenant_id=2, name="planted")
        with pytest.raises(DatabaseError), transaction.atomic():
            Note.objects.create(book_id=theirs.pk, text="linked")
        with pytest.raises(DatabaseError):
            Note.objects.create(book_id=theirs.pk, text="linked")
        Note.objects.bulk_create([Note(book=Book.objects.get(), text=f"bulk {n}") for n in range(3)])
        assert Note.objects.all().delete()[0] == 5
        theirs.name = "renamed"
        with pytest.raises(DatabaseError):
            theirs.save(force_update=True)
    assert texts(GLOBEX) == {"2.0", "2.1"}


@pytest.mark.usefixtures("site")
def test_nobody_acting_sends_nothing() -> None:
    """Refused in the client: reading, writing, raw SQL, `atomic()`, and reference data too; and the next principal is served."""
    pid = None
    with acting_as(ACME), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    for attempt in (
        lambda: list(Note.objects.all()),
        lambda: list(Note.objects.iterator()),
        lambda: Country.objects.count(),
        lambda: Note.objects.all().delete(),
        lambda: connection.cursor().execute("SELECT 1"),
        lambda: connection.cursor().executemany("SELECT %s", [(1,)]),
        lambda: atomically(lambda: Note.objects.count()),
    ):
        with pytest.raises(TenantNotBound):
            attempt()
    with pytest.raises((TenantNotBound, PrincipalRequired)):
        Book.objects.create(name="nobody's")
    assert texts(ACME) == {"1.0", "1.1"}
    with acting_as(ACME), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone()[0] == pid, "the refusals cost no connection"


def atomically(work: Any) -> Any:
    """Run *work* in `atomic()`."""
    with transaction.atomic():
        return work()


@pytest.mark.usefixtures("site")
def test_ways_past_the_orm_are_refused() -> None:
    """psycopg's own cursor, COPY, procedures and server-side cursors in autocommit; allowed in `atomic()`, where they are bound."""
    with acting_as(ACME):
        connection.ensure_connection()
        raw = connection.connection
        with pytest.raises(AutocommitRefused):
            raw.execute("SELECT * FROM site_note")
        with pytest.raises(AutocommitRefused), raw.cursor().copy("COPY site_note TO STDOUT"):
            pass
        with pytest.raises(AutocommitRefused):
            connection.cursor().callproc("pg_backend_pid")
        with transaction.atomic():
            assert len(raw.execute("SELECT * FROM site_note").fetchall()) == 2


@pytest.mark.usefixtures("site")
def test_a_transaction_keeps_its_principal() -> None:
    """Nobody else's statement enters an open transaction; a savepoint's failure leaves it usable."""
    with acting_as(ACME), transaction.atomic():
        assert Note.objects.count() == 2
        with pytest.raises(PrincipalChanged), acting_as(GLOBEX):
            Note.objects.count()
        with pytest.raises(DatabaseError), transaction.atomic():
            Book.objects.create(tenant_id=2, name="planted")
        assert Note.objects.count() == 2
    with acting_as(ACME):
        try:
            atomically(lambda: (Note.objects.all().delete(), 1 / 0))
        except ZeroDivisionError:
            pass
        assert Note.objects.count() == 2


@pytest.mark.usefixtures("site")
def test_manual_transactions_are_bound_too() -> None:
    """`set_autocommit(False)`, for whoever steers by hand."""
    with acting_as(ACME):
        transaction.set_autocommit(False)
        try:
            assert Note.objects.count() == 2
            transaction.rollback()
            assert {note.text for note in Note.objects.iterator()} == {"1.0", "1.1"}
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)


@pytest.mark.usefixtures("site")
def test_threads_and_async_keep_their_own() -> None:
    """A bare thread is nobody; async views' database work (in asgiref's thread) acts for the task that awaits it."""
    outcome: list[Any] = []

    def thread() -> None:
        try:
            outcome.append(Note.objects.count())
        except TenantNotBound as error:
            outcome.append(error)
        finally:
            connections.close_all()

    with acting_as(ACME):
        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
    assert isinstance(outcome[0], TenantNotBound)

    async def one(who: Principal) -> bool:
        with acting_as(who):
            found = set()
            for _ in range(5):
                found |= {note.text async for note in Note.objects.all()}
                await asyncio.sleep(0)
            return found == {f"{who.tenant}.0", f"{who.tenant}.1"}

    async def many() -> list[bool]:
        from asgiref.sync import sync_to_async

        answers = await asyncio.gather(*(one(who) for who in (ACME, GLOBEX) * 5))
        await sync_to_async(connections.close_all)()
        return answers

    assert asyncio.run(many()) == [True] * 10


@pytest.mark.usefixtures("site")
def test_on_commit_and_health_checks() -> None:
    """What Django does by itself goes on working: hooks after COMMIT, pings of a kept connection, a lost connection replaced."""
    seen: list[int] = []
    with acting_as(ACME):
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(Note.objects.count()))
            Note.objects.count()
        assert seen == [2]
    assert connection.is_usable()
    connection.close_if_unusable_or_obsolete()
    with acting_as(ACME):
        connection.ensure_connection()
        connection.connection.close()
        assert connection.is_usable() is False
        connection.close()
        assert Note.objects.count() == 2


def test_an_unsafe_login_is_refused(made: tuple[str, str], cluster: Cluster) -> None:
    """Django as a superuser sees nothing: row security would not hold."""
    with databases({"default": database(cluster, made[0])}), acting_as(ACME), pytest.raises(UnsafeRole):
        Note.objects.count()


def test_a_connection_without_its_guard_is_not_kept(made: tuple[str, str], cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tenancy cannot be had, the first error does not leave an unguarded connection for the second attempt."""
    with databases({"default": database(cluster, made[0], user=made[1])}):
        monkeypatch.setattr(django_models, "tenancy", None)
        for _ in range(2):
            with acting_as(ACME), pytest.raises(ConfigError):
                Note.objects.count()
        assert connection.connection is None
        monkeypatch.undo()
        with acting_as(ACME):
            assert Note.objects.count() == 0


def test_the_control_djangos_own_backend_leaks(made: tuple[str, str], cluster: Cluster) -> None:
    """The same code on Django's own backend as a superuser sees every tenant's rows: what the tests above measure is the binding."""
    with databases({"default": database(cluster, made[0], user=made[1])}):
        for who in (ACME, GLOBEX):
            with acting_as(who):
                Book.objects.create(name="left")
    with databases({"default": database(cluster, made[0], engine="django.db.backends.postgresql")}), acting_as(ACME):
        assert {book.tenant_id for book in Book.objects.all()} == {1, 2}
        Book.objects.all().delete()


def test_the_plan_from_the_command_line(made: tuple[str, str], cluster: Cluster) -> None:
    """`manage.py axis_plan` prints what is missing and says so by its exit code; with `--apply`, it is there afterwards."""
    owner = {
        "default": database(cluster, made[0], user=made[1]),
        "owner": database(cluster, made[0], engine="django.db.backends.postgresql"),
    }
    with databases(owner):
        text = io.StringIO()
        call_command("axis_plan", stdout=text)
        assert "Nothing to do" in text.getvalue()
        with psycopg.connect(cluster.dsn(made[0]), autocommit=True) as admin:
            admin.execute("ALTER TABLE site_note NO FORCE ROW LEVEL SECURITY")
        text = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("axis_plan", stdout=text)
        assert 'ALTER TABLE "public"."site_note" FORCE ROW LEVEL SECURITY' in text.getvalue()
        call_command("axis_plan", apply=True, stdout=io.StringIO())
        call_command("axis_plan", stdout=io.StringIO())


def test_runserver_does_not_ask_as_the_app(made: tuple[str, str], cluster: Cluster) -> None:
    """Django's development server looks at the migrations as nobody; ours leaves that to the owner."""
    with databases({"default": database(cluster, made[0], user=made[1])}):
        command = load_command_class("axis_security.adapters.django", "runserver")
        command.stdout = io.StringIO()
        command.check_migrations()
        assert "owner" in command.stdout.getvalue()
        with pytest.raises(TenantNotBound):
            DjangosOwn().check_migrations()


def test_migrations_keep_away_from_the_app_login(made: tuple[str, str], cluster: Cluster) -> None:
    """With the router `makemigrations` does not ask a bound database; without it, it does, as nobody."""
    owner = database(cluster, made[0], engine="django.db.backends.postgresql")
    with databases({"default": database(cluster, made[0], user=made[1]), "owner": owner}):
        with override_settings(DATABASE_ROUTERS=["axis_security.adapters.django.OwnerMigrates"]):
            call_command("makemigrations", dry_run=True, stdout=io.StringIO())
            assert OwnerMigrates().allow_migrate("default", "site") is False
            assert OwnerMigrates().allow_migrate("owner", "site") is None
        with pytest.raises(TenantNotBound):
            call_command("makemigrations", dry_run=True, stdout=io.StringIO())


def test_every_model_needs_a_decision() -> None:
    """A model nobody decided about, one without a tenant column, and one without a table."""
    tenancy = ModelTenancy(key="tenant_id")
    tenancy.protect(Book)
    with pytest.raises(UndeclaredTable) as caught:
        tenancy.model()
    assert "public.site_note" in str(caught.value)
    assert "public.django_content_type" in str(caught.value)
    with pytest.raises(UnusableTable):
        tenancy.protect(Country)
    with pytest.raises(ConfigError):
        tenancy.protect(
            type("Base", (models.Model,), {"__module__": __name__, "Meta": type("Meta", (), {"abstract": True, "app_label": "site"})})
        )


def test_the_metadata_says_what_decides() -> None:
    """Key types through foreign keys, deferred constraints, identity columns."""
    tables = model_metadata().tables
    assert set(tables) == {"django_content_type", "site_book", "site_note", "site_country"}
    (key,) = tables["site_note"].foreign_key_constraints
    assert (key.deferrable, key.initially, key.referred_table.name) == (True, "DEFERRED", "site_book")
    assert tables["site_book"].c.id.identity is not None
