"""A store in memory, for tests: the same contract as the vault, gone with the process, and refused anywhere but in tests."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from axis_security.auth import factors as f
from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.auth.memory_factors import MemoryLedger
from axis_security.auth.memory_state import AccountRow, LineRow, SessionRow, TokenRow
from axis_security.auth.vault import account_key, plain, vault_call
from axis_security.core.encoding import b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.ids import UserId
from axis_security.core.settings import Environment

__all__ = ["MemoryVault"]


class MemoryVault(MemoryLedger):
    """Answers every operation from dicts, one at a time.

    Args:
        environment: where this runs; anything but ``Environment.TEST`` is refused.

    Raises:
        ConfigError: not a test: sessions would end with each deployment, and two processes would not know each other's.
    """

    def __init__(self, *, environment: Environment) -> None:
        if environment is not Environment.TEST:
            raise ConfigError(
                what="the store in memory is for tests only",
                why=f"the environment is `{environment.value}`; nothing here survives the process or is shared with another",
                fix="use PostgresVault",
            )
        super().__init__()
        self._accounts: dict[str, AccountRow] = {}
        self._tokens: dict[bytes, TokenRow] = {}
        self._sessions: dict[UUID, SessionRow] = {}
        self._lines: list[LineRow] = []
        self._arrivals: dict[bytes, float] = {}
        self._pattern: str | None = None
        self._payload = ""
        self._key: Final = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._answers: Final[Mapping[type, Callable[[Any], Any]]] = {
            kind: getattr(self, "_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("_")) for kind in _KINDS
        }

    def perform(self, request: Any) -> Any:
        """Carry out *request* and return its answer.

        Raises:
            ConfigError: not a request of the vault.
        """
        vault_call(request)  # refuses what the vault refuses
        with self._lock:
            return self._answers[type(request)](request)

    async def aperform(self, request: Any) -> Any:
        """:meth:`perform` for ``adrive``."""
        return self.perform(request)

    # --- accounts

    def _find(self, who: UserId | str) -> AccountRow | None:
        if isinstance(who, UserId):
            return self._accounts.get(account_key(who))
        return next((row for row in self._accounts.values() if row.identifier == who), None)

    def _told(self, row: AccountRow | None) -> p.Account | None:
        if row is None:
            return None
        factor = self._factors.get(account_key(row.user))
        return p.Account(
            user=row.user,
            active=row.active,
            verified=row.verified_at is not None,
            has_totp=factor is not None and factor.sealed is not None,
            epoch=row.epoch,
        )

    def _keep(self, row: AccountRow, hash_: p.StoredHash | None) -> None:
        row.hash = hash_
        if hash_ is not None and hash_.settings.startswith("axis1$") and hash_.settings.split("$")[2] == "-":
            self._pattern = hash_.settings

    def _sign_out(self, row: AccountRow, *, keep: UUID | None = None, tokens: bool) -> None:
        row.epoch += 1
        self._drop(row.user, (one.handle for one in self._of(row.user) if one.handle != keep))
        if keep in self._sessions and self._sessions[keep].user == row.user:
            self._sessions[keep].epoch = row.epoch
        self._lines = [line for line in self._lines if line.user != row.user]
        if tokens:
            self._tokens = {digest: token for digest, token in self._tokens.items() if token.grant.user != row.user}

    def _register(self, r: p.Register) -> bool:
        if self._find(r.user) is not None or self._find(r.identifier) is not None:
            return False
        row = self._accounts[account_key(r.user)] = AccountRow(r.user, r.identifier, r.verified_at)
        self._keep(row, r.hash)
        return True

    def _load_settings(self, r: p.LoadSettings) -> str | None:
        row = self._find(r.account)
        if row is not None and row.hash is not None:
            return row.hash.settings
        if self._pattern is None:
            return None
        name = account_key(r.account) if isinstance(r.account, UserId) else "i" + r.account
        salt = hmac.new(self._key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()[:16]
        parts = self._pattern.split("$")
        return "$".join((*parts[:4], b64url_encode(salt), parts[5]))

    def _check_password(self, r: p.CheckPassword) -> p.PasswordChecked:
        row = self._find(r.account)
        if row is None or row.hash is None:
            return p.PasswordChecked("mismatch")
        if row.failures >= r.max_failures:
            return p.PasswordChecked("locked")
        if row.hash.settings != r.settings:
            return p.PasswordChecked("stale")
        if r.digest is None or not hmac.compare_digest(row.hash.digest, r.digest):
            row.failures += 1
            return p.PasswordChecked("mismatch")
        row.failures = 0
        return p.PasswordChecked("match", self._told(row))

    def _rehash(self, r: p.Rehash | p.ChangePassword) -> p.PasswordChecked:
        answer = self._check_password(
            p.CheckPassword(account=r.user, settings=r.old.settings, digest=r.old.digest, max_failures=r.max_failures)
        )
        if answer.verdict == "match":
            self._keep(self._accounts[account_key(r.user)], r.new)
        return answer

    def _change_password(self, r: p.ChangePassword) -> p.PasswordChecked:
        answer = self._rehash(r)
        if answer.verdict != "match":
            return answer
        row = self._accounts[account_key(r.user)]
        self._sign_out(row, keep=r.keep, tokens=True)
        return p.PasswordChecked("match", self._told(row))

    def _reset_password(self, r: p.ResetPassword) -> p.Account | None:
        row = self._taken(r)
        if row is not None:
            self._keep(row, r.new)
            row.failures = 0
            self._sign_out(row, tokens=True)
        return self._told(row)

    def _taken(self, r: p.ResetPassword | p.VerifyIdentifier | p.ChangeIdentifier) -> AccountRow | None:
        grant = self._consume_token(p.ConsumeToken(purpose=r.purpose, candidates=r.candidates, now=r.now))
        self._payload = "" if grant is None else grant.payload
        return None if grant is None or grant.user is None else self._find(grant.user)

    def _verify_identifier(self, r: p.VerifyIdentifier) -> p.Account | None:
        row = self._taken(r)
        if row is None or row.identifier != self._payload:
            return None
        row.verified_at = row.verified_at or r.now
        return self._told(row)

    def _change_identifier(self, r: p.ChangeIdentifier) -> p.Account | None:
        row = self._taken(r)
        if row is None or not 1 <= len(self._payload) <= 320 or self._find(self._payload) not in (None, row):
            return None
        row.identifier, row.verified_at = self._payload, r.now
        self._revoke_tokens(p.RevokeTokens(user=row.user))
        return self._told(row)

    def _account_of(self, r: p.AccountOf) -> p.Account | None:
        return self._told(self._find(r.user))

    def _find_account(self, r: p.FindAccount) -> p.Account | None:
        return self._told(self._find(r.identifier))

    def _set_active(self, r: p.SetActive) -> p.Account | None:
        row = self._find(r.user)
        if row is not None:
            row.active = r.active
            if not r.active:
                self._sign_out(row, tokens=True)
        return self._told(row)

    def _bump_epoch(self, r: p.BumpEpoch) -> p.Account | None:
        row = self._find(r.user)
        if row is not None:
            self._sign_out(row, tokens=False)
        return self._told(row)

    def _delete_account(self, r: p.DeleteAccount) -> bool:
        self._factors.pop(account_key(r.user), None)
        row = self._find(r.user)
        if row is None:
            return False
        self._sign_out(row, tokens=True)
        del self._accounts[account_key(r.user)]
        return True

    # --- tokens

    def _issue_token(self, r: p.IssueToken) -> bool:
        if r.user is not None:
            row = self._find(r.user)
            if row is None or not row.active:
                return False
            if r.replace:
                self._revoke_tokens(p.RevokeTokens(user=r.user, purpose=r.purpose))
        if r.digest[1] in self._tokens:
            return False
        self._tokens[r.digest[1]] = TokenRow(r.purpose, p.TokenGrant(user=r.user, payload=r.payload, expires_at=r.now + r.lasting))
        return True

    def _token(self, r: p.PeekToken | p.ConsumeToken) -> tuple[bytes, p.TokenGrant] | None:
        for digest in p.digests_of(r.candidates):
            row = self._tokens.get(digest)
            if row is None or row.purpose != r.purpose or row.grant.expires_at <= r.now:
                continue
            owner = None if row.grant.user is None else self._find(row.grant.user)
            if row.grant.user is None or (owner is not None and owner.active):
                return digest, row.grant
        return None

    def _peek_token(self, r: p.PeekToken) -> p.TokenGrant | None:
        found = self._token(r)
        return None if found is None else found[1]

    def _consume_token(self, r: p.ConsumeToken) -> p.TokenGrant | None:
        found = self._token(r)
        return None if found is None else self._tokens.pop(found[0]).grant

    def _revoke_tokens(self, r: p.RevokeTokens) -> int:
        gone = [digest for digest, row in self._tokens.items() if row.grant.user == r.user and r.purpose in (None, row.purpose)]
        for digest in gone:
            del self._tokens[digest]
        return len(gone)

    # --- sessions

    def _of(self, user: UserId) -> list[SessionRow]:
        return [row for row in self._sessions.values() if row.user == user]

    def _drop(self, user: UserId, handles: Iterable[UUID]) -> int:
        # The tokens given with them go as well, also where the session is over already.
        named = set(handles)
        gone = [row.handle for row in self._of(user) if row.handle in named]
        for handle in gone:
            del self._sessions[handle]
        self._lines = [line for line in self._lines if line.user != user or line.handle not in named]
        return len(gone)

    def _good(self, user: UserId, epoch: int) -> bool:
        row = self._find(user)
        return row is not None and row.active and row.epoch == epoch

    def _live(self, user: UserId, now: datetime) -> list[SessionRow]:
        live = [row for row in self._of(user) if row.is_live(now) and self._good(user, row.epoch)]
        return sorted(live, key=lambda row: (row.seen_at, row.started_at), reverse=True)

    def _session(self, key: s.SessionKey) -> tuple[SessionRow, bytes] | None:
        for row in self._sessions.values():
            for digest in p.digests_of(key.candidates):
                if digest in row.ids and s.session_route(row.user) == key.route:
                    return row, digest
        return None

    def _start_session(self, r: s.StartSession) -> bool:
        if not self._good(r.user, r.epoch):
            return False
        if r.ends is not None:
            self._end_session(s.EndSession(r.ends))
        live = self._live(r.user, r.now)
        for row in self._of(r.user):
            if row not in live:
                del self._sessions[row.handle]  # over by itself: a remember token is there to outlive it
        self._drop(r.user, (row.handle for row in live[max(r.max_live, 1) - 1 :]))
        self._sessions[r.handle] = SessionRow.started(r, client=plain(r.client, 200), network=plain(r.network, 200))
        return True

    def _resolve_session(self, r: s.ResolveSession) -> s.LiveSession | s.ReusedSession | None:
        found = self._session(r.key)
        if found is None or not found[0].is_live(r.now) or not self._good(found[0].user, found[0].epoch):
            return None
        row, digest = found
        superseded_at = row.ids[digest]
        if superseded_at is not None and superseded_at + min(r.grace, s.MAX_GRACE) <= r.now:
            self._drop(row.user, [row.handle])
            return s.ReusedSession(row.handle, row.user)
        if row.seen_at + r.touch_after <= r.now:
            row.seen_at = max(row.seen_at, r.now)
        return row.told(superseded=False) if superseded_at is None else row.was[digest]

    def _rotate_session(self, r: s.RotateSession) -> s.LiveSession | None:
        found = self._session(r.key)
        if found is None or not found[0].is_live(r.now) or not self._good(found[0].user, found[0].epoch):
            return None
        row, digest = found
        if row.ids[digest] is not None:
            return None
        row.ids[digest], row.ids[r.digest[1]] = r.now, None
        row.was[digest] = row.told(superseded=True)
        row.changed(r)
        return row.told(superseded=False)

    def _end_session(self, r: s.EndSession) -> s.EndedSession | None:
        found = self._session(r.key)
        if found is None:
            return None
        self._drop(found[0].user, [found[0].handle])
        return s.EndedSession(found[0].handle, found[0].user)

    def _revoke_sessions(self, r: s.RevokeSessions) -> int:
        if r.handle is not None:
            return self._drop(r.user, [r.handle])
        gone = self._drop(r.user, (row.handle for row in self._of(r.user) if row.handle != r.keep))
        self._lines = [line for line in self._lines if line.user != r.user or (r.keep is not None and line.handle == r.keep)]
        return gone

    def _list_sessions(self, r: s.ListSessions) -> tuple[s.LiveSession, ...]:
        return tuple(row.told(superseded=False) for row in self._live(r.user, r.now))

    # --- remember tokens

    def _issue_remember(self, r: s.IssueRemember) -> bool:
        if not self._good(r.user, r.epoch):
            return False
        self._lines.append(LineRow(r.user, r.handle, r.epoch, r.now + r.lasting, {r.digest[1]: None}))
        return True

    def _line(self, candidates: tuple[p.Digest, ...]) -> tuple[LineRow, bytes] | None:
        return next(((line, d) for line in self._lines for d in p.digests_of(candidates) if d in line.ids), None)

    def _use_remember(self, r: s.UseRemember) -> s.RememberUsed | None:
        found = self._line(r.candidates)
        if found is None or found[0].ends_at <= r.now or not self._good(found[0].user, found[0].epoch):
            return None
        line, digest = found
        spent = line.ids[digest]
        if spent is None:
            line.ids[digest], line.ids[r.digest[1]], line.handle = r.now, None, r.handle
            return s.RememberUsed("live", line.user, line.epoch)
        if spent + min(r.grace, s.MAX_GRACE) > r.now:
            return s.RememberUsed("raced", line.user, line.epoch)
        self._lines.remove(line)
        return s.RememberUsed("reused", line.user, line.epoch)

    def _end_remember(self, r: s.EndRemember) -> bool:
        found = self._line(r.candidates)
        if found is not None:
            self._lines.remove(found[0])
        return found is not None

    # --- throttle

    def _reserve(self, r: p.Reserve) -> p.Throttled:
        now = r.now.timestamp()
        tats = {b.key: max(self._arrivals.get(b.key, 0.0), now) + b.interval for b in r.budgets}
        waits = [(tats[b.key] - now - b.window.total_seconds(), b) for b in r.budgets]
        over = [(wait, b.key) for wait, b in waits if wait > b.interval / 100]
        if over:
            wait, key = max(over, key=lambda one: one[0])
            return p.Throttled(allowed=False, retry_after=wait, key=key)
        self._arrivals.update(tats)
        return p.Throttled(allowed=True)

    def _refund_throttle(self, r: p.RefundThrottle) -> bool:
        for b in r.budgets:
            if self._arrivals.get(b.key, 0.0) > r.now.timestamp():
                self._arrivals[b.key] -= b.interval
        return True

    def _reset_throttle(self, r: p.ResetThrottle) -> bool:
        for key in r.keys:
            self._arrivals.pop(key, None)
        return True

    def _prune(self, r: p.Prune) -> int:
        before = len(self._sessions) + len(self._lines) + len(self._tokens) + len(self._arrivals)
        self._sessions = {h: row for h, row in self._sessions.items() if row.is_live(r.now)}
        self._lines = [line for line in self._lines if line.ends_at > r.now]
        self._tokens = {d: row for d, row in self._tokens.items() if row.grant.expires_at > r.now}
        self._arrivals = {k: tat for k, tat in self._arrivals.items() if tat > r.now.timestamp()}
        return before - len(self._sessions) - len(self._lines) - len(self._tokens) - len(self._arrivals)


_KINDS: Final[tuple[type, ...]] = (
    f.BeginEnrolment, f.LoadTotp, f.ReserveCodeAttempt, f.ConfirmEnrolment, f.ClaimStep, f.RemoveFactors, f.ReplaceRecovery, f.ConsumeRecovery,
    f.CountRecovery, p.Register, p.LoadSettings, p.CheckPassword, p.Rehash, p.ChangePassword, p.ResetPassword, p.VerifyIdentifier,
    p.ChangeIdentifier, p.AccountOf, p.FindAccount, p.SetActive, p.BumpEpoch, p.DeleteAccount, p.IssueToken, p.PeekToken, p.ConsumeToken,
    p.RevokeTokens, s.StartSession, s.ResolveSession, s.RotateSession, s.EndSession, s.RevokeSessions, s.ListSessions, s.IssueRemember,
    s.UseRemember, s.EndRemember, p.Reserve, p.RefundThrottle, p.ResetThrottle, p.Prune,
)  # fmt: skip
