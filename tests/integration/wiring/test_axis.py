"""The wired object: from an empty database to a signed-in member who reads their workspace's rows, sync and async."""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Form, Response
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from axis_security import Axis, Principal, Secret, acting_as, public, requires
from axis_security.adapters.fastapi import CurrentPrincipal, CurrentSession, CurrentVisit, install
from axis_security.auth import PasswordService, SignedIn
from axis_security.auth.kdf import Argon2Cost
from axis_security.auth.lifecycle import Answered, Letter
from axis_security.auth.passwords import Passwords
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import LoggingSink
from axis_security.core.ids import KeyType, TenantId, UserId
from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.rbac import Capabilities, Policy, standard_policy
from axis_security.rls import SealKey, SealKeyring, Tenancy, UndeclaredTable
from axis_security.testing.cluster import Cluster
from axis_security.testing.factors import TestSealer
from axis_security.wiring.keys import KINDS, AppKeys
from axis_security.wiring.marks import signed_in

PASSWORD = Secret("an uncommon sentence")
ORIGIN = "https://crm.example.com"
CHEAP = Argon2Cost(memory_kib=19_456, passes=2, lanes=1)


@dataclass
class App:
    """The host's half: one table, four roles, a database."""

    cluster: Cluster
    name: str
    keys: AppKeys
    tenancy: Tenancy
    policy: Policy
    table: sa.Table
    letters: list[Letter] = field(default_factory=list)

    def url(self, user: str | None = None) -> str:
        return self.cluster.url(self.name, user=user or self.tenancy.roles.app)

    def axis(self, engine: Any, **more: Any) -> Any:
        return Axis(
            tenancy=self.tenancy,
            policy=self.policy,
            keys=self.keys,
            engine=engine,
            sealer=TestSealer(),
            product="Test CRM",
            origins=(ORIGIN,),
            passwords=PasswordService(Passwords(cost=CHEAP, peppers=self.keys.peppers)),
            **more,
        )


@pytest.fixture
def app(cluster: Cluster) -> Iterator[App]:
    keys = AppKeys.generate(environment=Environment.TEST)
    metadata = sa.MetaData()
    table = sa.Table(
        "contact",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True, default=uuid.uuid4),
        sa.Column("tenant_id", sa.Uuid, nullable=False, server_default=sa.text("axis.claimed_tenant_id()")),
        sa.Column("name", sa.Text),
    )
    caps = Capabilities(contacts=("read", "write"), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
    tenancy = Tenancy(metadata, policy=policy, seal=keys.seal, roles=DatabaseRoles.prefixed(f"axisapp_{secrets.token_hex(4)}"))
    tenancy.protect(table, read=caps.contacts.read, write=caps.contacts.write)
    with cluster.database("axisapp") as name:
        yield App(cluster, name, keys, tenancy, policy, table)


def plan(app: App, axis: Any) -> None:
    admin = sa.create_engine(app.cluster.url(app.name))
    with admin.begin() as conn:  # the default of the column names a function of ours, so the plan's schema comes first
        conn.exec_driver_sql("CREATE TABLE contact (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, name text)")
    axis.plan(admin).apply(admin)
    assert not axis.plan(admin)
    admin.dispose()


def crm(axis: Any, app: App, engine: AsyncEngine) -> FastAPI:
    """Sign-up, sign-in, a workspace, and one guarded resource."""
    api = FastAPI()
    caps: Any = app.policy.caps

    @api.post("/register")
    @public("anybody may sign up")
    async def register(email: Annotated[str, Form()], password: Annotated[str, Form()], visit: CurrentVisit) -> str:
        answer = await axis.run(
            axis.auth.lifecycle.register(user=UserId(uuid.uuid4()), identifier=email, password=Secret(password), visitor=visit.visitor)
        )
        if isinstance(answer, Answered) and answer.letter is not None:
            app.letters.append(answer.letter)
        return "see your letters"

    @api.post("/verify")
    @public("the token in the letter is the proof")
    async def verify(token: Annotated[str, Form()], visit: CurrentVisit) -> str:
        return type(await axis.run(axis.auth.lifecycle.verify(token=token, visitor=visit.visitor))).__name__

    @api.post("/login")
    @public("how one gets in")
    async def login(email: Annotated[str, Form()], password: Annotated[str, Form()], visit: CurrentVisit, response: Response) -> str:
        outcome = await axis.run(axis.auth.login.password(identifier=email, password=Secret(password), visitor=visit.visitor))
        if isinstance(outcome, SignedIn):
            visit.send(outcome.headers)
        else:
            response.status_code = outcome.http_status
        return type(outcome).__name__

    @api.post("/workspaces")
    @signed_in()
    async def create(visit: CurrentVisit, session: CurrentSession) -> str:
        tenant = TenantId(uuid.uuid4())
        with acting_as(session.principal(tenant=tenant, role="owner")):
            await axis.members.create_workspace("Acme")
        moved = await axis.run(axis.auth.sessions.switch_tenant(session, visitor=visit.visitor, tenant=tenant))
        visit.send(moved.headers)
        return tenant.text

    @api.get("/token")
    @signed_in()
    async def token(visit: CurrentVisit) -> str:
        return visit.csrf_token()

    @api.post("/contacts")
    @requires(caps.contacts.write)
    async def add(name: Annotated[str, Form()]) -> str:
        async with engine.begin() as conn:
            await conn.execute(sa.insert(app.table).values(name=name))
        return "added"

    @api.get("/contacts")
    @requires(caps.contacts.read)
    async def contacts(me: CurrentPrincipal) -> list[str]:
        async with engine.connect() as conn:
            return list((await conn.scalars(sa.select(app.table.c.name).order_by(app.table.c.name))).all())

    @api.get("/forgotten")
    async def forgotten() -> str:
        return "nobody thought of a guard"

    install(api, axis.gate)
    return api


def test_from_an_empty_database_to_a_workspace_of_ones_own(app: App) -> None:
    """Two people sign up, each makes a workspace, and each reads their own contacts; the log holds what happened; an unmarked route is shut."""

    async def story() -> None:
        engine = create_async_engine(app.url())
        axis = app.axis(engine)
        await asyncio.to_thread(plan, app, axis)
        api = crm(axis, app, engine)
        transport = httpx.ASGITransport(app=api, client=("192.0.2.7", 1234))
        seen = []
        for person in ("ann", "bob"):
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"origin": ORIGIN}) as client:
                form = {"email": f"{person}@example.com", "password": PASSWORD.reveal()}
                assert (await client.get("/contacts")).status_code == 401
                assert (await client.post("/register", data=form)).status_code == 200
                assert (await client.post("/login", data=form)).status_code in {401, 403}, "the address is not confirmed yet"
                token = app.letters[-1].token
                assert token is not None
                assert (await client.post("/verify", data={"token": token.reveal()})).json() == "AddressChanged"
                assert (await client.post("/login", data=form)).json() == "SignedIn"
                assert (await client.get("/contacts")).status_code == 403, "no workspace yet"
                csrf = {"x-csrf-token": (await client.get("/token")).json()}
                assert (await client.post("/workspaces", headers=csrf)).status_code == 200
                csrf = {"x-csrf-token": (await client.get("/token")).json()}
                assert (await client.post("/contacts", data={"name": f"{person}'s contact"})).status_code == 403, "no token"
                assert (await client.post("/contacts", data={"name": f"{person}'s contact"}, headers=csrf)).json() == "added"
                seen.append((await client.get("/contacts")).json())
                assert (await client.get("/forgotten")).status_code == 403
        assert seen == [["ann's contact"], ["bob's contact"]]
        await axis.aclose()
        await engine.dispose()

    asyncio.run(story())
    admin = sa.create_engine(app.cluster.url(app.name))
    with admin.connect() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM contact").scalar_one() == 2
        logged = [json.loads(body)["kind"] for body in conn.exec_driver_sql("SELECT body FROM axis.audit_event").scalars()]
    admin.dispose()
    assert {"auth.account_registered", "auth.login"} <= set(logged), sorted(set(logged))


def test_the_sync_form_is_the_same(app: App) -> None:
    """With a sync engine the runner, the members and the identity are sync, and accounts work the same way."""
    engine: Engine = sa.create_engine(app.url())
    axis = app.axis(engine)
    plan(app, axis)
    visitor = axis.auth.profile.read(None)
    from axis_security.auth import Visitor

    who = Visitor(cookies=visitor, address="192.0.2.7", agent="", host="crm.example.com")
    user = UserId(uuid.uuid4())
    answer = axis.run(axis.auth.lifecycle.register(user=user, identifier="ann@example.com", password=PASSWORD, visitor=who))
    axis.run(axis.auth.lifecycle.verify(token=answer.letter.token, visitor=who))
    outcome = axis.run(axis.auth.login.password(identifier="ann@example.com", password=PASSWORD, visitor=who))
    assert isinstance(outcome, SignedIn)
    tenant = TenantId(uuid.uuid4())
    with acting_as(Principal(tenant=tenant, user=user, role="owner")):
        axis.members.create_workspace("Acme")
        with engine.begin() as conn:
            conn.execute(sa.insert(app.table).values(name="x"))
            assert conn.scalars(sa.select(app.table.c.name)).all() == ["x"]
    membership = axis.members.resolve(tenant, user)
    assert membership is not None
    assert membership.role == "owner"
    axis.close()
    engine.dispose()


def test_a_policy_serves_one_database(app: App) -> None:
    """Over one policy the denials of two apps would stand in the log of the first, and the second's would miss them; so the second is refused."""
    first, second = sa.create_engine(app.url()), sa.create_engine(app.url())
    one = app.axis(first)
    with pytest.raises(ConfigError, match="serves another Axis already"):
        app.axis(second)
    assert app.policy.events is one.events
    one.close()
    two = app.axis(second)
    assert app.policy.events is two.events
    one.close()
    assert app.policy.events is two.events, "who closed already takes nothing away"
    three = app.axis(sa.create_engine(app.url()), events=two.events)
    assert three.events is two.events
    two.close()
    assert isinstance(app.policy.events, LoggingSink), "a log whose pool is closed is written to no more"


def test_a_policy_with_a_log_of_its_own_keeps_it(app: App) -> None:
    """Whatever kind of log that is, before and after the app's life."""
    caps: Any = app.policy.caps
    mine = LoggingSink()
    app.policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write], events=mine).activate()
    axis = app.axis(sa.create_engine(app.url()))
    assert app.policy.events is mine
    axis.close()
    assert app.policy.events is mine


def test_a_policy_that_guards_do_not_ask_is_refused(app: App) -> None:
    """Rows would follow one policy, and guards another that was built first over the same capabilities."""
    caps: Any = app.policy.caps
    app.policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
    with pytest.raises(ConfigError, match="not in force"):
        app.axis(sa.create_engine(app.url()))
    app.policy.activate()
    app.axis(sa.create_engine(app.url())).close()


def test_an_app_that_could_not_be_made_leaves_the_policy_to_the_next(app: App) -> None:
    """A forgotten table stops the start; once it is declared the same policy serves."""
    whole = app.tenancy
    app.tenancy = Tenancy(app.table.metadata, key_type=KeyType.UUID, policy=app.policy, seal=app.keys.seal)
    with pytest.raises(UndeclaredTable):
        app.axis(sa.create_engine(app.url()))
    app.tenancy = whole
    app.axis(sa.create_engine(app.url())).close()


def test_the_pools_beside_the_engine_connect_as_it_does(app: App) -> None:
    """What `connect_args` says holds for sessions, members and the log too: a certificate that only the app's own pool checked would be no check."""

    def names() -> set[str]:
        with psycopg.connect(app.cluster.dsn(app.name)) as conn:
            found = conn.execute("SELECT application_name FROM pg_stat_activity WHERE usename = %s", (app.tenancy.roles.app,))
            return {row[0] for row in found}

    engine = sa.create_engine(app.url(), connect_args={"application_name": "crm"})
    axis = app.axis(engine)
    plan(app, axis)
    assert axis.members.workspaces("nobody") == ()
    with acting_as(Principal(tenant=TenantId(uuid.uuid4()), user=UserId("nobody"), role="viewer")):
        assert axis.members.members() == ()
    assert names() == {"crm"}
    axis.close()
    engine.dispose()

    async def asynchronous() -> None:
        engine = create_async_engine(app.url(), connect_args={"application_name": "crm async", "sslmode": "verify-full"})
        axis = app.axis(engine)
        with pytest.raises(Unavailable):  # the server of the tests has no TLS
            await axis.members.workspaces("nobody")
        await axis.aclose()
        await engine.dispose()

    asyncio.run(asynchronous())
    url = app.url().replace("+psycopg", "+asyncpg")
    with pytest.raises(ConfigError, match="cannot be carried over"):
        app.axis(create_async_engine(url, connect_args={"ssl": "verify-full"}))
    asyncio.run(app.axis(create_async_engine(url, connect_args={"statement_cache_size": 0})).aclose())
    creators: list[Any] = [lambda: None, partial(dict)]
    for creator in creators:
        app.axis(sa.create_engine(app.url(), creator=creator)).close()


def test_keys_that_do_not_fit_are_refused(app: App) -> None:
    """A tenancy that seals with other keys would bind nothing that the database takes."""
    app.tenancy = Tenancy(sa.MetaData(), policy=app.policy, seal=SealKeyring(current=SealKey.generate(9)))
    with pytest.raises(ConfigError, match="does not seal with these keys"):
        app.axis(sa.create_engine(app.url()))
    with pytest.raises(ConfigError, match="not made at start"):
        AppKeys.generate(environment=Environment.PRODUCTION)


def test_minted_keys_load_and_rotate() -> None:
    """What is minted loads; after a rotation the previous version still checks what it made; a key of another kind is refused without being shown."""
    old, new = AppKeys.mint(), AppKeys.mint()
    assert tuple(old) == KINDS

    class Pairs:
        def __init__(self, current: dict[str, Secret[str]], previous: dict[str, Secret[str]] | None) -> None:
            self.current, self.previous = current, previous

        def pair(self, name: str) -> Any:
            from axis_security.ops.secrets import SecretPair

            kind = name.removeprefix("axis-")
            return SecretPair(self.current[kind], None if self.previous is None else self.previous[kind])

    seal = SealKey.generate(2).text()
    before, after = AppKeys.load(Pairs(old, None)), AppKeys.load(Pairs({**new, "seal": seal}, old))
    signed = before.cookies.signer("session").sign("payload")
    assert after.cookies.signer("session").unsign(signed.reveal()) == "payload"
    assert before.cookies.signer("session").unsign(after.cookies.signer("session").sign("payload").reveal()) is None
    assert before.digests.digest(b"x") in after.digests.candidates(b"x")
    assert [key.id for key in after.seal.keys] == [2, 1]
    with pytest.raises(ConfigError) as refused:
        AppKeys.load(Pairs({**new, "cookie": new["digest"]}, None))
    assert new["digest"].reveal() not in str(refused.value)
