"""One frozen object that a host holds: its tables, roles, accounts, members and gate, wired together once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from axis_security.auth.cookies import CookieProfile
from axis_security.auth.kdf_pool import PasswordService
from axis_security.auth.passwords import Passwords
from axis_security.auth.service import Auth
from axis_security.auth.store_postgres import AsyncPostgresVault, PostgresVault
from axis_security.auth.totp import Sealer, TotpPolicy
from axis_security.auth.vault_sql import VAULT
from axis_security.auth.work import AsyncAuthRunner, AuthRunner
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventSink
from axis_security.core.schema import SchemaPart
from axis_security.core.settings import Environment
from axis_security.crypto.keystore import KEYSTORE_PART
from axis_security.ops.audit_postgres import AUDIT_PART, PostgresAuditSink
from axis_security.rbac.capability import in_force
from axis_security.rbac.members_sql import members_part
from axis_security.rbac.policy import Policy
from axis_security.rbac.store_postgres import AsyncPostgresMembers, PostgresMembers
from axis_security.wiring.gate import Endpoint, Gate
from axis_security.wiring.identity import AsyncVaultIdentity, VaultIdentity
from axis_security.wiring.sources import AsyncEngineSource, EngineSource

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from axis_security.rls.plan import Plan
    from axis_security.rls.tenancy import Tenancy
    from axis_security.wiring.headers import SecurityHeaders
    from axis_security.wiring.keys import AppKeys
    from axis_security.wiring.refusals import Pages

__all__ = ["Axis"]

Runner = TypeVar("Runner", AuthRunner, AsyncAuthRunner)
Members = TypeVar("Members", PostgresMembers, AsyncPostgresMembers)

_POOL: Final = {"pool_size": 5, "max_overflow": 5, "pool_pre_ping": False}


class Axis(Generic[Runner, Members]):
    """Everything wired: give it to the adapter of your framework (``install(app, axis.gate)``), and call its parts from your handlers.

    ::

        axis = Axis(tenancy=tenancy, policy=policy, keys=AppKeys.load(manager), engine=engine, sealer=RingSealer(ring, "totp.seed"),
                    product="Acme CRM", origins=("https://app.example.com",))
        axis.plan(admin).apply(admin)            # in the migration, not in the app

        axis.run(axis.auth.login.password(...))  # accounts: flows of `auth`, carried out
        axis.members.invite(...)                 # workspaces and roles

    Args:
        tenancy: the host's tables.
        policy: the host's roles, in force over their registry. Its denials go where all *events* go, unless it was made with a sink of its own. It serves
            one Axis at a time.
        keys: from the secrets manager.
        engine: the app's engine, sync or async, as the app role. It is guarded here (``tenancy.install``); sessions, credentials, members and
            audit events use pools of their own to the same database, by its URL and its ``connect_args``.
        sealer: seals TOTP seeds (:class:`~axis_security.crypto.sealer.RingSealer`).
        product: the name that authenticator apps show.
        origins: the app's own origins, for CSRF.
        system: an engine of the system login, for ``tenancy.system``.
        environment: in development the app does not start with an unmarked route, and cookies work over http on localhost.
        events: takes the audit events; the database's own log unless told.
        passwords: how passwords are hashed, and how much of the machine that may take; the default cost with the keys' pepper unless told.
        parts: further parts of schema ``axis``, for :meth:`plan`.
        hops, pages, security, anonymous, endpoints: of the gate, see :class:`~axis_security.wiring.gate.Gate`.
        auth: further settings of :class:`~axis_security.auth.service.Auth`: policies of sessions, tokens, throttles.
        clock: tells the time.

    Raises:
        ConfigError: the tenancy's seal is not that of the keys, the policy is not in force or serves another Axis, or the engine cannot be used: not
            PostgreSQL's, or its TLS is set up in ``connect_args`` that only its own driver knows.
        UndeclaredTable: tables of the metadata are neither protected nor open.
    """

    auth: Auth
    gate: Gate
    runner: Runner
    members: Members

    @overload
    def __init__(
        self: Axis[AuthRunner, PostgresMembers],
        *,
        tenancy: Tenancy,
        policy: Policy,
        keys: AppKeys,
        engine: Engine,
        sealer: Sealer,
        product: str,
        origins: tuple[str, ...],
        system: Engine | None = ...,
        environment: Environment = ...,
        events: EventSink | None = ...,
        passwords: PasswordService | None = ...,
        parts: Sequence[SchemaPart] = ...,
        hops: int = ...,
        pages: Pages | None = ...,
        security: SecurityHeaders | None = ...,
        anonymous: Sequence[str] = ...,
        endpoints: Sequence[Endpoint] = ...,
        clock: Clock = ...,
        **auth: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: Axis[AsyncAuthRunner, AsyncPostgresMembers],
        *,
        tenancy: Tenancy,
        policy: Policy,
        keys: AppKeys,
        engine: AsyncEngine,
        sealer: Sealer,
        product: str,
        origins: tuple[str, ...],
        system: AsyncEngine | None = ...,
        environment: Environment = ...,
        events: EventSink | None = ...,
        passwords: PasswordService | None = ...,
        parts: Sequence[SchemaPart] = ...,
        hops: int = ...,
        pages: Pages | None = ...,
        security: SecurityHeaders | None = ...,
        anonymous: Sequence[str] = ...,
        endpoints: Sequence[Endpoint] = ...,
        clock: Clock = ...,
        **auth: Any,
    ) -> None: ...

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        policy: Policy,
        keys: AppKeys,
        engine: Any,
        sealer: Sealer,
        product: str,
        origins: tuple[str, ...],
        system: Any = None,
        environment: Environment = Environment.PRODUCTION,
        events: EventSink | None = None,
        passwords: PasswordService | None = None,
        parts: Sequence[SchemaPart] = (),
        hops: int = 0,
        pages: Pages | None = None,
        security: SecurityHeaders | None = None,
        anonymous: Sequence[str] = (),
        endpoints: Sequence[Endpoint] = (),
        clock: Clock = SYSTEM_CLOCK,
        **auth: Any,
    ) -> None:
        if tenancy.seal is None or {key.id for key in tenancy.seal.keys} != {key.id for key in keys.seal.keys}:
            raise ConfigError(
                what="the tenancy does not seal with these keys",
                why="it was made with other seal keys, or none",
                fix="Tenancy(…, seal=keys.seal)",
            )
        if in_force(policy.caps).policy is not policy:
            raise ConfigError(
                what="the policy is not in force",
                why="guards over its capabilities ask another policy, which was built first, and the rows would follow this one",
                fix="call policy.activate() before, or give each app a registry of its own",
            )
        if environment is Environment.DEVELOPMENT:
            auth.setdefault("profile", CookieProfile.development(environment=environment))
        own = _Own.to(engine)
        self.events: Final = PostgresAuditSink(own.audit) if events is None else events
        self.tenancy: Final = tenancy
        self.policy: Final = policy
        self.engine: Final = tenancy.install(engine, system=system, sink=self.events, clock=clock)
        self.parts: Final = (VAULT, members_part(policy), AUDIT_PART, KEYSTORE_PART, *parts)
        self.passwords: Final = passwords or PasswordService(Passwords(peppers=keys.peppers))
        self.auth = Auth(
            keys=keys.cookies,
            digests=keys.digests,
            totp=TotpPolicy(issuer=product),
            sealer=sealer,
            origins=origins,
            events=self.events,
            clock=clock,
            **auth,
        )
        tenancy.install(own.bound_engine, sink=self.events, clock=clock)
        identity: Any
        runner: Any
        members: Any
        if own.is_async:
            vault: Any = AsyncPostgresVault(own.unbound)
            identity, runner = AsyncVaultIdentity(vault, policy=policy), AsyncAuthRunner(store=vault, passwords=self.passwords)
            members = AsyncPostgresMembers(policy, bound=own.bound, unbound=own.unbound)
        else:
            vault = PostgresVault(own.unbound)
            identity, runner = VaultIdentity(vault, policy=policy), AuthRunner(store=vault, passwords=self.passwords)
            members = PostgresMembers(policy, bound=own.bound, unbound=own.unbound)
        self.runner, self.members = runner, members
        self._own = own
        self.gate = Gate(
            auth=self.auth,
            identity=identity,
            events=self.events,
            key=tenancy.key_type,
            environment=environment,
            security=security,
            hops=hops,
            anonymous=anonymous,
            endpoints=endpoints,
            pages=pages,
            clock=clock,
        )
        policy.tell(self.events)  # last: an Axis that could not be made has told nobody

    def run(self, flow: Any) -> Any:
        """Carry out a flow of :attr:`auth`; await it where the engine is async. Raises: Unavailable."""
        return self.runner.run(flow)

    def plan(self, connection: Any) -> Plan:
        """What the database lacks of all this: :meth:`Tenancy.plan <axis_security.rls.tenancy.Tenancy.plan>` with every part."""
        return self.tenancy.plan(connection, parts=self.parts)

    def close(self) -> None:
        """Close the pools that were made here; not the host's engine. The policy may serve another Axis after that. In async code :meth:`aclose`."""
        self.policy.untell(self.events)
        self._own.close()

    async def aclose(self) -> None:
        """:meth:`close` for async code."""
        self.policy.untell(self.events)
        await self._own.aclose()

    def __repr__(self) -> str:
        return f"Axis(tables={len(self.tenancy.metadata.tables)}, roles={list(self.policy.roles)})"


class _Own:
    """The pools for what is not the host's own work: each connection is unbound, or bound, for good."""

    def __init__(self, *, audit: Engine, unbound: Any, bound: Any) -> None:
        self.engines: Final = [audit, unbound, bound]
        self.bound_engine: Final = bound
        self.is_async: Final = hasattr(bound, "sync_engine")
        source: Any = AsyncEngineSource if self.is_async else EngineSource
        self.audit: Final = EngineSource(audit)
        self.unbound: Final = source(unbound)
        self.bound: Final = source(bound)

    @classmethod
    def to(cls, engine: Any) -> _Own:
        """Pools to the database of *engine*, over psycopg, with its login."""
        from sqlalchemy import create_engine

        url, more = engine.url.set(drivername="postgresql+psycopg"), _beyond_the_url(getattr(engine, "sync_engine", engine))
        make: Any = create_engine
        if hasattr(engine, "sync_engine"):
            from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet, which a sync app has no use for

            make = create_async_engine
        given = {**_POOL, "connect_args": more}
        return cls(audit=create_engine(url, **given), unbound=make(url, **given), bound=make(url, **given))

    def close(self) -> None:
        for engine in self.engines:
            engine.dispose()

    async def aclose(self) -> None:
        audit, *others = self.engines
        audit.dispose()
        for engine in others:
            await engine.dispose()


def _beyond_the_url(engine: Engine) -> dict[str, Any]:
    """What ``create_engine`` was told in ``connect_args``, for pools beside it: a certificate that only the app's own pool checks would be no check.

    SQLAlchemy keeps it where the pool's creator sees it, and nowhere else. With a creator of the host's own there is none.

    Raises:
        ConfigError: it sets up TLS for another driver than psycopg.
    """
    creator: Any = engine.pool._creator  # noqa: SLF001  # see above
    told = inspect.getclosurevars(creator).nonlocals["cparams"] if getattr(creator, "__module__", "") == "sqlalchemy.engine.create" else {}
    plain = engine.dialect.create_connect_args(engine.url)[1]
    more = {name: value for name, value in told.items() if name not in plain or plain[name] != value}
    if engine.dialect.driver in ("psycopg", "psycopg_async"):
        return more
    if "ssl" in more:
        raise ConfigError(
            what="the engine's TLS cannot be carried over",
            why=f"`connect_args` sets it up for `{engine.dialect.driver}`; sessions and members have pools of their own, over psycopg",
            fix="make the engine with postgresql+psycopg and secure_dsn(…)",
        )
    return {}
