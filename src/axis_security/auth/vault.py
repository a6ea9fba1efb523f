"""What each request is to the vault: one call of one function, and how its answer reads. Pure: no driver in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

from axis_security.auth.factors import (
    BeginEnrolment,
    ClaimStep,
    ConfirmEnrolment,
    ConsumeRecovery,
    CountRecovery,
    LoadTotp,
    RemoveFactors,
    ReplaceRecovery,
    ReserveCodeAttempt,
    TotpRecord,
)
from axis_security.core.errors import ConfigError
from axis_security.core.flow import Rows, Statement
from axis_security.core.ids import UserId

__all__ = ["VaultCall", "account_key", "vault_call"]


@dataclass(frozen=True, slots=True)
class VaultCall:
    """One round trip.

    Args:
        statement: the call.
        answer: reads its rows.
    """

    statement: Statement
    answer: Callable[[Rows], Any]


def account_key(user: UserId) -> str:
    """The vault's key of an account: ids of different types never meet."""
    return f"{user.key_type.value}:{user.text}"


def _call(sql: LiteralString, *params: Any, answer: Callable[[Rows], Any] | None = None) -> VaultCall:
    return VaultCall(Statement(sql, params), answer or _only)


def _only(rows: Rows) -> Any:
    return rows[0][0]


def _sealed(rows: Rows) -> TotpRecord | None:
    return None if rows[0][0] is None else TotpRecord(bytes(rows[0][0]))


def vault_call(request: object) -> VaultCall:
    """The call that carries out *request*.

    Raises:
        ConfigError: the vault does not know this kind of request.
    """
    match request:
        case BeginEnrolment():
            return _call("SELECT axis.vault_begin_enrolment(%s::text, %s::bytea)", account_key(request.user), request.sealed)
        case LoadTotp():
            return _call("SELECT axis.vault_load_totp(%s::text, %s)", account_key(request.user), request.pending, answer=_sealed)
        case ReserveCodeAttempt():
            return _call("SELECT axis.vault_reserve_code_attempt(%s::text, %s::int)", account_key(request.user), request.limit)
        case ConfirmEnrolment():
            key = account_key(request.user)
            return _call("SELECT axis.vault_confirm_enrolment(%s::text, %s::bytea, %s::bigint)", key, request.sealed, request.step)
        case ClaimStep():
            return _call("SELECT axis.vault_claim_step(%s::text, %s::bigint)", account_key(request.user), request.step)
        case RemoveFactors():
            return _call("SELECT axis.vault_remove_factors(%s::text)", account_key(request.user))
        case ReplaceRecovery():
            names, digests = _columns(request.digests)
            return _call("SELECT axis.vault_replace_recovery(%s::text, %s::text[], %s::bytea[])", account_key(request.user), names, digests)
        case ConsumeRecovery():
            names, digests = _columns(request.candidates)
            return _call("SELECT axis.vault_consume_recovery(%s::text, %s::text[], %s::bytea[])", account_key(request.user), names, digests)
        case CountRecovery():
            return _call("SELECT axis.vault_count_recovery(%s::text)", account_key(request.user))
        case _:
            raise ConfigError(
                what="a request that the vault does not know", why=type(request).__name__, fix="pass it to the store that it was made for"
            )


def _columns(pairs: tuple[tuple[str, bytes], ...]) -> tuple[list[str], list[bytes]]:
    return [key_id for key_id, _ in pairs], [digest for _, digest in pairs]
