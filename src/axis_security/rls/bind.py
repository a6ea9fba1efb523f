"""Who a transaction belongs to: the rules of binding, without a driver.

One rule, held at the lowest point that a driver offers: **no statement leaves the client outside a transaction that was bound at
its BEGIN, and none enters a transaction bound to somebody else.** The shells (:mod:`bind_psycopg`, :mod:`bind_sqlalchemy`) ask a
:class:`Binder` two questions: what does the transaction that begins now carry, and may the code that runs now use that one?

Why in the client, when the database checks the sealed context too: a raising getter inside ``(select …)`` is evaluated lazily, so an
unbound ``WHERE id = <missing>`` answers no rows while ``WHERE id = <existing>`` raises: not loud, and an oracle of existence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, NoReturn, Protocol

from axis_security.core.context import maybe_principal
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.ids import KeyType
from axis_security.core.principal import Principal

__all__ = [
    "SET_CONTEXT",
    "AutocommitRefused",
    "Binder",
    "Bound",
    "PrincipalChanged",
    "SessionNotClean",
    "TenantBinder",
    "TenantNotBound",
    "WrongTenantKey",
    "guarded_already",
    "outside",
]

SET_CONTEXT: Final = (
    "SELECT pg_catalog.set_config('axis.context',"
    "CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql) THEN '' ELSE $1 END,true)"
)
"""Sets the sealed context for the open transaction only; the sealed text travels as a parameter, never inside the query.

What is prepared outlives its transaction. Drivers prepare through the protocol; a statement that SQL prepared may stand under the name of one of
theirs, put there by whoever injected SQL before, to be run by the next principal. Where there is one, the transaction stays unbound.
"""


class TenantNotBound(AxisError):
    """A statement was about to be sent, and nobody is acting (or the open transaction was not begun by us)."""

    code = "rls.tenant_not_bound"
    http_status: ClassVar[int] = 401
    public_text = "Please sign in."

    def __init__(self, *, open_transaction: bool = False) -> None:
        super().__init__(
            what="no tenant is bound; the statement was not sent",
            why=(
                "the open transaction belongs to a principal, and the code that runs now acts for nobody"
                if open_transaction
                else "this code runs outside `acting_as(...)`, or in a thread that did not copy the context"
            ),
            fix="wrap the whole unit of work in `with acting_as(Principal(...)):`; in a thread, run it through `contextvars.copy_context().run`",
        )


class AutocommitRefused(AxisError):
    """A statement was about to be sent outside a transaction, where a transaction-local context cannot hold."""

    code = "rls.autocommit_refused"

    def __init__(self) -> None:
        super().__init__(
            what="a statement outside a transaction was not sent",
            why="the connection is in autocommit mode, where the tenant's context would end before the statement began",
            fix="use a transaction: drop isolation_level='AUTOCOMMIT' or autocommit=True, or open `with connection.transaction():`",
        )


class PrincipalChanged(AxisError):
    """The open transaction began for one principal, and another is acting now."""

    code = "rls.principal_changed"
    http_status: ClassVar[int] = 409

    def __init__(self) -> None:
        super().__init__(
            what="the open transaction belongs to another principal; the statement was not sent",
            why="a transaction keeps the principal it began with, and `acting_as(...)` was entered or left since",
            fix="end the transaction (commit, rollback or close the session) before acting as somebody else; use one session per principal",
        )


class SessionNotClean(AxisError):
    """The connection holds a statement that SQL prepared, in a transaction that is over; the connection was closed."""

    code = "rls.session_not_clean"

    def __init__(self) -> None:
        super().__init__(
            what="the connection holds a statement that was prepared by SQL; nothing was sent, and the connection was closed",
            why="PREPARE outlives its transaction, so injected SQL could put a statement of its own in the place of one that the next principal runs",
            fix="leave preparing to the driver, or DEALLOCATE before the transaction ends; if nobody here prepares in SQL, look for an injection",
        )


class WrongTenantKey(ConfigError):
    """The principal's tenant id is not of the type of the tenant column."""

    code = "rls.wrong_tenant_key"

    def __init__(self, *, wanted: KeyType, got: KeyType) -> None:
        super().__init__(
            what="the principal's tenant id has the wrong type; the statement was not sent",
            why=f"the tenant column is `{wanted.value}`, the id fits `{got.value}`",
            fix="build the Principal with the value the tenant column holds, such as uuid.UUID(text) for a uuid column",
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """What a transaction carries from its BEGIN to its end.

    Args:
        owner: whom it belongs to: a principal, or a system scope.
        sql: one statement, with ``$n`` parameters, that puts it into the transaction; sent in the same flush as BEGIN. It answers '' where it did not,
            and the shell then closes the connection and raises :class:`SessionNotClean`.
        params: the values.
    """

    owner: object
    sql: str
    params: tuple[str, ...]


class Binder(Protocol):
    """Decides, without I/O, what a transaction is bound to and who may use it."""

    def begin(self) -> Bound:
        """What the transaction that begins now carries; raises where nothing may begin."""
        ...

    def admit(self, bound: Bound | None) -> None:
        """Return if the code that runs now may use the open transaction *bound*; raise otherwise. Called for every statement."""
        ...


class TenantBinder:
    """Binds transactions to the acting principal.

    Args:
        seal: gives the sealed context of a principal, as the text for the setting ``axis.context``.
        key_type: the type of the tenant column; a principal of another type is refused.
    """

    __slots__ = ("_key_type", "_seal")

    def __init__(self, *, seal: Callable[[Principal], str], key_type: KeyType) -> None:
        self._seal: Final = seal
        self._key_type: Final = key_type

    def begin(self) -> Bound:
        """Seal the acting principal.

        Raises:
            TenantNotBound: nobody is acting.
            WrongTenantKey: the tenant id does not fit the tenant column.
        """
        principal = maybe_principal()
        if principal is None:
            raise TenantNotBound
        key_type = principal.tenant.key_type
        if key_type is not self._key_type:
            raise WrongTenantKey(wanted=self._key_type, got=key_type)
        return Bound(principal, SET_CONTEXT, (self._seal(principal),))

    def admit(self, bound: Bound | None) -> None:
        """Let the principal that the transaction began with through, and nobody else.

        Raises:
            TenantNotBound: nobody is acting, or the transaction was not begun by us.
            PrincipalChanged: another tenant, user or role is acting.
        """
        principal = maybe_principal()
        if bound is not None and principal is bound.owner:
            return
        _refuse_other(principal, bound)


def _refuse_other(principal: Principal | None, bound: Bound | None) -> None:
    if principal is None or bound is None:
        raise TenantNotBound(open_transaction=bound is not None)
    owner = bound.owner
    # Equal where the sealed context is: a step-up during the request raises the assurance and may be another object.
    if isinstance(owner, Principal) and owner.tenant == principal.tenant and owner.user == principal.user and owner.role == principal.role:
        return
    raise PrincipalChanged


def guarded_already(noun: str, held: Binder | None, binder: Binder) -> bool:
    """Whether what the host calls a *noun*, whose guard asks *held*, is guarded by *binder*: then there is nothing to do.

    Raises:
        ConfigError: it is guarded by another binder.
    """
    if held is None:
        return False
    if held is not binder:
        raise ConfigError(
            what=f"the {noun} is guarded already", why="another tenancy was installed on it", fix=f"install one tenancy per {noun}"
        )
    return True


def outside(binder: Binder) -> NoReturn:
    """Refuse a statement outside any transaction; says first that nobody is bound, where that is so.

    Raises:
        AutocommitRefused: always, unless the binder has a stronger reason.
    """
    binder.begin()
    raise AutocommitRefused
