"""What each operation is to the vault: one call of one function, and how its answer reads. Pure: no driver in here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, LiteralString

from axis_security.auth import factors as f
from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.core.errors import ConfigError
from axis_security.core.flow import Rows, Statement
from axis_security.core.ids import KeyType, UserId, parse_id
from axis_security.core.principal import Assurance

__all__ = ["VaultCall", "account_key", "plain", "user_of", "vault_call"]


@dataclass(frozen=True, slots=True)
class VaultCall:
    """One round trip.

    Args:
        statement: the call.
        answer: reads its rows.
    """

    statement: Statement
    answer: Callable[[Rows], Any]


def vault_call(request: object) -> VaultCall:
    """The call that carries out *request*.

    Raises:
        ConfigError: the vault does not know this kind of request, or the request holds what can't be stored.
    """
    make = _CALLS.get(type(request))
    if make is None:
        raise ConfigError(
            what="a request that the vault does not know", why=type(request).__name__, fix="pass it to the store that it was made for"
        )
    return make(request)


def account_key(user: UserId) -> str:
    """The vault's key of an account: ids of different types never meet."""
    return f"{user.key_type.value}:{user.text}"


def user_of(key: str) -> UserId:
    """The user that :func:`account_key` named."""
    kind, _, text = key.partition(":")
    return UserId(parse_id(text, KeyType(kind)))


def plain(text: str, limit: int) -> str:
    """*text* as the database can keep it: cut to *limit* characters, without NUL and lone surrogates."""
    return text[:limit].replace("\0", "").encode("utf-8", "replace").decode("utf-8")


# --- how answers read


def _only(rows: Rows) -> Any:
    return rows[0][0]


def _sealed(rows: Rows) -> f.TotpRecord | None:
    return None if rows[0][0] is None else f.TotpRecord(bytes(rows[0][0]))


def _account(rows: Rows) -> p.Account | None:
    if not rows:
        return None
    key, active, verified, has_totp, epoch = rows[0]
    return p.Account(user=user_of(key), active=active, verified=verified, has_totp=has_totp, epoch=epoch)


def _checked(rows: Rows) -> p.PasswordChecked:
    verdict, *account = rows[0]
    return p.PasswordChecked(verdict, _account([tuple(account)]) if verdict == "match" else None)


def _grant(rows: Rows) -> p.TokenGrant | None:
    if not rows:
        return None
    key, payload, expires_at = rows[0]
    return p.TokenGrant(user=None if key is None else user_of(key), payload=payload, expires_at=expires_at)


def _throttled(rows: Rows) -> p.Throttled:
    key, wait = rows[0]
    return p.Throttled(allowed=True) if key is None else p.Throttled(allowed=False, retry_after=wait, key=bytes(key))


def _live(row: tuple[Any, ...]) -> s.LiveSession:
    _, handle, key, tenant, assurance, methods, auth_time, started_at, seen_at, ends_at, client, network, superseded = row
    return s.LiveSession(
        handle=handle,
        user=user_of(key),
        tenant=tenant,
        assurance=Assurance(assurance),
        methods=tuple(methods),
        auth_time=auth_time,
        started_at=started_at,
        seen_at=seen_at,
        ends_at=ends_at,
        client=client,
        network=network,
        superseded=superseded,
    )


def _resolved(rows: Rows) -> s.LiveSession | s.ReusedSession | None:
    if not rows:
        return None
    return s.ReusedSession(rows[0][1], user_of(rows[0][2])) if rows[0][0] == "reused" else _live(rows[0])


def _remembered(rows: Rows) -> s.RememberUsed | None:
    return s.RememberUsed(rows[0][0], user_of(rows[0][1]), rows[0][2]) if rows else None


def _ended(rows: Rows) -> s.EndedSession | None:
    return s.EndedSession(rows[0][0], user_of(rows[0][1])) if rows else None


# --- how requests are asked


def _who(account: UserId | str) -> tuple[str | None, str | None]:
    if isinstance(account, UserId):
        return account_key(account), None
    if plain(account, 320) != account:
        # No account can have this name; ask for one that none has, so that the answer is the same as for any unknown name.
        return None, "\x01" + hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()
    return None, account


def _pairs(pairs: tuple[p.Digest, ...]) -> tuple[list[str], list[bytes]]:
    return [key_id for key_id, _ in pairs], p.digests_of(pairs)


def _steps(budgets: tuple[p.Budget, ...]) -> tuple[list[bytes], list[float]]:
    return [b.key for b in budgets], [b.interval for b in budgets]


def _call(sql: LiteralString, *params: Any, read: Callable[[Rows], Any] = _only) -> VaultCall:
    return VaultCall(Statement(sql, params), read)


def _register(r: p.Register) -> VaultCall:
    if not r.identifier or plain(r.identifier, 320) != r.identifier:
        raise ConfigError(
            what="unusable identifier", why="it is empty, longer than 320 characters, or no text", fix="refuse it in the form"
        )
    kept = (None, None) if r.hash is None else (r.hash.settings, r.hash.digest)
    return _call(
        "SELECT axis.vault_register(%s::text, %s::text, %s::text, %s::bytea, %s::timestamptz)",
        account_key(r.user),
        r.identifier,
        *kept,
        r.verified_at,
    )


def _start(r: s.StartSession) -> VaultCall:
    return _call(
        "SELECT axis.vault_start_session(%s::text, %s::text, %s::uuid, %s::bytea, %s::int, %s::timestamptz, %s::interval, %s::interval, "
        "%s::smallint, %s::text[], %s::text, %s::text, %s::text, %s::int, %s::text, %s::bytea[], %s::timestamptz)",
        account_key(r.user),
        s.session_route(r.user),
        r.handle,
        r.digest[1],
        r.epoch,
        r.now,
        r.idle,
        r.lifetime,
        int(r.assurance),
        list(r.methods),
        r.tenant,
        plain(r.client, 200),
        plain(r.network, 200),
        r.max_live,
        None if r.ends is None else r.ends.route,
        None if r.ends is None else p.digests_of(r.ends.candidates),
        r.auth_time,
    )


def _rotate(r: s.RotateSession) -> VaultCall:
    return _call(
        "SELECT * FROM axis.vault_rotate_session(%s::text, %s::bytea[], %s::bytea, %s::timestamptz, %s::smallint, %s::text[], %s::timestamptz, "
        "%s::boolean, %s::text)",
        r.key.route,
        p.digests_of(r.key.candidates),
        r.digest[1],
        r.now,
        None if r.assurance is None else int(r.assurance),
        None if r.methods is None else list(r.methods),
        r.auth_time,
        r.switch_tenant,
        r.tenant,
        read=_resolved,
    )


def _replace(r: p.Rehash | p.ChangePassword) -> tuple[Any, ...]:
    return account_key(r.user), r.old.settings, r.old.digest, r.new.settings, r.new.digest


def _reserve(r: p.Reserve) -> VaultCall:
    return _call(
        "SELECT * FROM axis.vault_reserve(%s::bytea[], %s::float8[], %s::float8[], %s::float8)",
        *_steps(r.budgets),
        [b.window.total_seconds() for b in r.budgets],
        r.now.timestamp(),
        read=_throttled,
    )


_FACTORS: Final[Mapping[type, Callable[[Any], VaultCall]]] = {
    f.BeginEnrolment: lambda r: _call("SELECT axis.vault_begin_enrolment(%s::text, %s::bytea)", account_key(r.user), r.sealed),
    f.LoadTotp: lambda r: _call("SELECT axis.vault_load_totp(%s::text, %s::boolean)", account_key(r.user), r.pending, read=_sealed),
    f.ReserveCodeAttempt: lambda r: _call("SELECT axis.vault_reserve_code_attempt(%s::text, %s::int)", account_key(r.user), r.limit),
    f.ConfirmEnrolment: lambda r: _call(
        "SELECT axis.vault_confirm_enrolment(%s::text, %s::bytea, %s::bigint)", account_key(r.user), r.sealed, r.step
    ),
    f.ClaimStep: lambda r: _call("SELECT axis.vault_claim_step(%s::text, %s::bigint)", account_key(r.user), r.step),
    f.RemoveFactors: lambda r: _call("SELECT axis.vault_remove_factors(%s::text)", account_key(r.user)),
    f.ReplaceRecovery: lambda r: _call(
        "SELECT axis.vault_replace_recovery(%s::text, %s::text[], %s::bytea[])", account_key(r.user), *_pairs(r.digests)
    ),
    f.ConsumeRecovery: lambda r: _call(
        "SELECT axis.vault_consume_recovery(%s::text, %s::text[], %s::bytea[])", account_key(r.user), *_pairs(r.candidates)
    ),
    f.CountRecovery: lambda r: _call("SELECT axis.vault_count_recovery(%s::text)", account_key(r.user)),
}

_ACCOUNTS: Final[Mapping[type, Callable[[Any], VaultCall]]] = {
    p.Register: _register,
    p.LoadSettings: lambda r: _call("SELECT axis.vault_load_settings(%s::text, %s::text)", *_who(r.account)),
    p.CheckPassword: lambda r: _call(
        "SELECT * FROM axis.vault_check_password(%s::text, %s::text, %s::text, %s::bytea, %s::int)",
        *_who(r.account),
        r.settings,
        r.digest,
        r.max_failures,
        read=_checked,
    ),
    p.Rehash: lambda r: _call(
        "SELECT * FROM axis.vault_rehash(%s::text, %s::text, %s::bytea, %s::text, %s::bytea, %s::int)",
        *_replace(r),
        r.max_failures,
        read=_checked,
    ),
    p.ChangePassword: lambda r: _call(
        "SELECT * FROM axis.vault_change_password(%s::text, %s::text, %s::bytea, %s::text, %s::bytea, %s::uuid, %s::int)",
        *_replace(r),
        r.keep,
        r.max_failures,
        read=_checked,
    ),
    p.ResetPassword: lambda r: _call(
        "SELECT * FROM axis.vault_reset_password(%s::text, %s::bytea[], %s::timestamptz, %s::text, %s::bytea)",
        r.purpose,
        p.digests_of(r.candidates),
        r.now,
        r.new.settings,
        r.new.digest,
        read=_account,
    ),
    p.VerifyIdentifier: lambda r: _call(
        "SELECT * FROM axis.vault_verify_identifier(%s::text, %s::bytea[], %s::timestamptz)",
        r.purpose,
        p.digests_of(r.candidates),
        r.now,
        read=_account,
    ),
    p.ChangeIdentifier: lambda r: _call(
        "SELECT * FROM axis.vault_change_identifier(%s::text, %s::bytea[], %s::timestamptz)",
        r.purpose,
        p.digests_of(r.candidates),
        r.now,
        read=_account,
    ),
    p.AccountOf: lambda r: _call("SELECT * FROM axis.vault_account_of(%s::text)", account_key(r.user), read=_account),
    p.FindAccount: lambda r: _call("SELECT * FROM axis.vault_find_account(%s::text)", _who(r.identifier)[1], read=_account),
    p.SetActive: lambda r: _call(
        "SELECT * FROM axis.vault_set_active(%s::text, %s::boolean)", account_key(r.user), r.active, read=_account
    ),
    p.BumpEpoch: lambda r: _call("SELECT * FROM axis.vault_bump_epoch(%s::text)", account_key(r.user), read=_account),
    p.DeleteAccount: lambda r: _call("SELECT axis.vault_delete_account(%s::text)", account_key(r.user)),
    p.IssueToken: lambda r: _call(
        "SELECT axis.vault_issue_token(%s::text, %s::text, %s::bytea, %s::text, %s::timestamptz, %s::boolean)",
        r.purpose,
        None if r.user is None else account_key(r.user),
        r.digest[1],
        r.payload,
        r.now + r.lasting,
        r.replace,
    ),
    p.PeekToken: lambda r: _call(
        "SELECT * FROM axis.vault_peek_token(%s::text, %s::bytea[], %s::timestamptz)",
        r.purpose,
        p.digests_of(r.candidates),
        r.now,
        read=_grant,
    ),
    p.ConsumeToken: lambda r: _call(
        "SELECT * FROM axis.vault_take_token(%s::text, %s::bytea[], %s::timestamptz)",
        r.purpose,
        p.digests_of(r.candidates),
        r.now,
        read=_grant,
    ),
    p.RevokeTokens: lambda r: _call("SELECT axis.vault_revoke_tokens(%s::text, %s::text)", account_key(r.user), r.purpose),
}

_SESSIONS: Final[Mapping[type, Callable[[Any], VaultCall]]] = {
    s.StartSession: _start,
    s.ResolveSession: lambda r: _call(
        "SELECT * FROM axis.vault_resolve_session(%s::text, %s::bytea[], %s::timestamptz, %s::interval, %s::interval)",
        r.key.route,
        p.digests_of(r.key.candidates),
        r.now,
        r.touch_after,
        r.grace,
        read=_resolved,
    ),
    s.RotateSession: _rotate,
    s.EndSession: lambda r: _call(
        "SELECT * FROM axis.vault_end_session(%s::text, %s::bytea[])", r.key.route, p.digests_of(r.key.candidates), read=_ended
    ),
    s.RevokeSessions: lambda r: _call(
        "SELECT axis.vault_revoke_sessions(%s::text, %s::uuid, %s::uuid)", account_key(r.user), r.handle, r.keep
    ),
    s.ListSessions: lambda r: _call(
        "SELECT * FROM axis.vault_list_sessions(%s::text, %s::timestamptz)",
        account_key(r.user),
        r.now,
        read=lambda rows: tuple(_live(row) for row in rows),
    ),
    s.IssueRemember: lambda r: _call(
        "SELECT axis.vault_issue_remember(%s::text, %s::uuid, %s::bytea, %s::int, %s::timestamptz, %s::text)",
        account_key(r.user),
        r.handle,
        r.digest[1],
        r.epoch,
        r.now + r.lasting,
        plain(r.client, 200),
    ),
    s.UseRemember: lambda r: _call(
        "SELECT * FROM axis.vault_use_remember(%s::bytea[], %s::bytea, %s::uuid, %s::timestamptz, %s::interval)",
        p.digests_of(r.candidates),
        r.digest[1],
        r.handle,
        r.now,
        r.grace,
        read=_remembered,
    ),
    s.EndRemember: lambda r: _call("SELECT axis.vault_end_remember(%s::bytea[])", p.digests_of(r.candidates)),
    p.Reserve: _reserve,
    p.RefundThrottle: lambda r: _call(
        "SELECT axis.vault_refund(%s::bytea[], %s::float8[], %s::float8)", *_steps(r.budgets), r.now.timestamp()
    ),
    p.ResetThrottle: lambda r: _call("SELECT axis.vault_reset_throttle(%s::bytea[])", list(r.keys)),
    p.Prune: lambda r: _call("SELECT axis.vault_prune(%s::timestamptz)", r.now),
}

_CALLS: Final[Mapping[type, Callable[[Any], VaultCall]]] = MappingProxyType({**_FACTORS, **_ACCOUNTS, **_SESSIONS})
