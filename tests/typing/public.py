"""The public names as a host's type checker sees them: mypy checks this file with the tests, pyright by test_pyright.py. Nothing here is run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, assert_type

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axis_security import AxisError, Principal, Secret, acting_as, current_principal
from axis_security.core.ids import TenantId
from axis_security.crypto import EncryptedText, KeyRing
from axis_security.ops.health import HealthAnswer, HealthMonitor
from axis_security.rbac import Capabilities, Decision, Policy, requires, standard_policy
from axis_security.rls import Dialect, Plan, Tenancy

caps = Capabilities(contacts=("read", "write"))


class Base(DeclarativeBase):
    """A host's tables."""


class Contact(Base):
    """One of them, with a sealed column."""

    __tablename__ = "contact"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(EncryptedText("contact.email"))


def declared(engine: Engine, aengine: AsyncEngine) -> None:
    """What comes out is what went in, and a plan is a plan."""
    tenancy = Tenancy(Base.metadata, policy=standard_policy(caps))
    tenancy.protect(Contact, read=caps.contacts.read)
    assert_type(tenancy.install(engine), Engine)
    assert_type(tenancy.install(aengine), AsyncEngine)
    assert_type(tenancy.plan(engine), Plan)
    assert_type(tenancy.plan(engine).sql, str)
    assert_type(tenancy.script(Dialect.CITUS), str)


def acting(tenant: uuid.UUID) -> None:
    """A principal, and who is acting."""
    with acting_as(Principal(tenant=tenant, user=1, role="member")):
        assert_type(current_principal(), Principal)
        assert_type(current_principal().tenant, TenantId)


@requires(caps.contacts.read)
def listed(page: int, *, size: int = 50) -> list[str]:
    """A guarded function."""
    return ["x"] * (page * size)


@requires(caps.contacts.read)
async def alisted(page: int) -> list[str]:
    """A guarded coroutine function."""
    return ["x"] * page


async def guarded() -> None:
    """A guard keeps the signature."""
    assert_type(listed(1, size=2), list[str])
    assert_type(await alisted(1), list[str])
    listed("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listed(1, length=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def sealing(ring: KeyRing, tenant: TenantId) -> None:
    """Bytes in, bytes out; no key, nonce or mode among the arguments."""
    assert_type(ring.seal(b"x", tenant=tenant, field="f"), bytes)
    ring.seal("x", tenant=tenant, field="f")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ring.seal(b"x", tenant=tenant, field="f", nonce=b"")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def secret(value: Secret[str]) -> None:
    """A secret gives its value when asked by name, and is no text."""
    assert_type(value.reveal(), str)
    _: str = value  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def policy(made: Policy) -> None:
    """A policy answers with a decision."""
    assert_type(made.decide(current_principal(), caps.contacts.read), Decision)


def refused(error: AxisError) -> None:
    """What an error tells, and whom."""
    assert_type(error.public(), Mapping[str, str])
    assert_type(error.audit(), Mapping[str, Any])


def healthy(monitor: HealthMonitor) -> None:
    """A monitor reports."""
    assert_type(monitor.ready(), HealthAnswer)
