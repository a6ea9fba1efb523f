"""The gate over a real PostgreSQL: the conformance suite, one round trip, and what ends a right between two requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.unit.adapters.test_asgi_family import fastapi, plain, starlette

from axis_security import requires
from axis_security.adapters.fastapi import CurrentPrincipal, install
from axis_security.auth.store_postgres import AsyncPostgresVault, PostgresVault
from axis_security.core.errors import Unavailable
from axis_security.core.flow import drive
from axis_security.testing.adapter_clients import AsgiClient, Sent
from axis_security.testing.adapter_conformance import PAGES, Little, conforms
from axis_security.testing.cluster import Cluster
from axis_security.testing.gate_database import GateDatabase, gate_database
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.wiring.facts import RequestFacts
from axis_security.wiring.gate import Gate
from axis_security.wiring.identity import AsyncVaultIdentity, Identify, VaultIdentity
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[GateDatabase]:
    """A world in a database of its own."""
    with gate_database(cluster) as made:
        yield made


class Opened:
    """An async identity whose pool opens on the loop of its first request."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: AsyncConnectionPool | None = None
        self._identity: Any = None

    async def perform(self, request: Any, /) -> Any:
        """Carry out a request of the gate."""
        if self._pool is None:
            self._pool = AsyncConnectionPool(self._dsn, min_size=1, max_size=2, open=False)
            await self._pool.open()
            self._identity = AsyncVaultIdentity(AsyncPostgresVault(self._pool))
        return await self._identity.perform(request)

    async def close(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            await self._pool.close()


@pytest.mark.parametrize("build", [plain, starlette, fastapi], ids=lambda build: build.__name__)
def test_the_asgi_family_conforms_on_postgresql(cluster: Cluster, build: Any) -> None:
    """Same requests, same verdicts, refusals equal to the byte, with sessions and members in PostgreSQL; async against the sync reference."""
    with gate_database(cluster) as database:
        world, identity = database.world, Opened(database.dsn)
        little = Little(world)
        gate = world.gate(pages=PAGES, anonymous=("/static/",))
        behind = world.gate(pages=PAGES, anonymous=("/static/",), identity=identity)
        with AsgiClient(build(little, behind)) as client:
            try:
                assert conforms(client.send, little, gate) > 45
            finally:
                client.runner.run(identity.close())


def test_session_and_membership_are_one_round_trip(cluster: Cluster, database: GateDatabase) -> None:
    """Who asks, with which role, in which state of the workspace: one statement, counted on the wire."""
    world = database.world
    person = world.person("rosa", tenant="trip", role="admin")
    with LatencyProxy("127.0.0.1", cluster.port, delay_seconds=0) as proxy:
        through = database.dsn.replace(f"port={cluster.port}", f"port={proxy.port}").replace(f":{cluster.port}/", f":{proxy.port}/")
        with ConnectionPool(through, min_size=1, max_size=1) as pool:
            identity = VaultIdentity(PostgresVault(pool))
            gate = world.gate(identity=identity)
            facts = RequestFacts(method="GET", path="/", headers=person.headers())
            drive(gate.enter(facts), identity.perform)
            before = proxy.round_trips
            visit = drive(gate.enter(facts), identity.perform)
            assert proxy.round_trips - before == 1
    assert isinstance(visit, Visit)
    assert visit.principal is not None
    assert visit.principal.role == "admin"


def enter(gate: Gate, person: Any) -> Visit:
    """One request."""
    visit = drive(gate.enter(RequestFacts(method="GET", path="/", headers=person.headers())), gate.identity.perform)
    assert isinstance(visit, Visit)
    return visit


def test_what_ends_a_right_ends_it_at_the_next_request(database: GateDatabase) -> None:
    """Another role, a suspended workspace, an ended membership, a revoked session: each counts from the next request on."""
    world = database.world
    gate = world.gate()
    person = world.person("rita", tenant="ends", role="admin")
    members: Any = world.members
    before = enter(gate, person)
    assert before.principal is not None
    members.put("ends", person.user, "viewer")
    now = enter(gate, person)
    assert now.principal is not None
    assert now.principal.role == "viewer"
    assert not drive(gate.still(before), gate.identity.perform), "a long connection with the old role"
    assert drive(gate.still(now), gate.identity.perform)
    members.put("ends", person.user, "viewer", state="suspended")
    assert enter(gate, person).principal is None
    assert not drive(gate.still(now), gate.identity.perform)
    members.put("ends", person.user, "viewer")
    members.remove("ends", person.user)
    closed = enter(gate, person)
    assert closed.principal is None
    assert closed.session is not None
    members.put("ends", person.user, "viewer")
    again = enter(gate, person)
    assert drive(gate.still(again), gate.identity.perform)
    world.world.run(world.auth.sessions.revoke_all(person.user, cause="test"))
    assert enter(gate, person).session is None
    assert not drive(gate.still(again), gate.identity.perform)


def test_a_long_connection_survives_a_rotated_id(database: GateDatabase) -> None:
    """The look at a long connection does not present the cookie it began with, so a rotation is no theft."""
    world = database.world
    gate = world.gate()
    person = world.person("rolf", tenant="rotates", role="member")
    visit = enter(gate, person)
    person.browser.run(world.auth.sessions.rotate(person.session, visitor=person.browser.visitor, cause="test"))
    world.world.later(minutes=2)
    assert drive(gate.still(visit), gate.identity.perform)
    assert enter(gate, person).session is not None


def test_a_store_that_is_down_is_a_503_and_nobody_gets_in(database: GateDatabase) -> None:
    """Where the store does not answer, the answer is no: the endpoint does not run."""
    world = database.world
    person = world.person("rob", tenant="down", role="owner")
    ran = []

    class Down:
        async def perform(self, request: Identify, /) -> Any:
            try:
                raise psycopg.OperationalError("the server closed the connection")
            except psycopg.OperationalError:
                raise Unavailable(what="the vault did not answer", why="it is down", fix="wait") from None

    app = FastAPI()
    install(app, world.gate(identity=Down()))

    @app.get("/contacts")
    @requires(world.caps.contacts.read)
    async def contacts(me: CurrentPrincipal) -> str:
        ran.append(me)
        return "contacts"

    with AsgiClient(app) as client:
        got = client.send(Sent(method="GET", target="/contacts", headers=tuple(person.headers().items())))
    assert got.status == 503
    assert ran == []


def test_a_cookie_that_we_did_not_sign_asks_no_store(database: GateDatabase) -> None:
    """Made-up cookies cost the database nothing."""
    gate = database.world.gate()
    flow = gate.enter(RequestFacts(method="GET", path="/", headers={"cookie": "__Host-axis_session=made.up"}))
    with pytest.raises(StopIteration) as done:
        next(flow)
    assert isinstance(done.value.value, (Visit, Answer))
