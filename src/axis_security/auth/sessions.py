"""Sessions: who is behind this cookie, asked of the store once for each request.

The cookie holds ``route + id``: 12 characters that say where a spread-out store keeps the person's sessions, and 256 random bits. It is
signed, which spares the store made-up ids and means nothing else. The store has an HMAC of the id, so a copy of the store opens no session.

Limits (ASVS 7.3; those of the NIST SP 800-63B-4 drafts for AAL2): 30 minutes unused and 12 hours in all, both always on. An id is replaced on login, step-up
and role change (ASVS 7.2.4); the old one answers for ten more seconds, for requests already under way, and ends the session if it shows up later:
somebody has kept an id that its browser no longer has. An id that we did not make is never adopted.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from axis_security.auth.cookies import TOUCHED_HEADERS, CookieKind, CookieProblem, CookieProfile, CookiesRead, Header
from axis_security.auth.factors import ReauthProof
from axis_security.auth.ports import Account, BumpEpoch
from axis_security.auth.recovery import DigestRing
from axis_security.auth.remember import RememberTokens
from axis_security.auth.session_ports import (
    EndedSession,
    EndSession,
    ListSessions,
    LiveSession,
    ResolveSession,
    ReusedSession,
    RevokeSessions,
    RotateSession,
    SessionKey,
    StartSession,
    session_route,
)
from axis_security.auth.signing import SigningKeys
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome, Scalar
from axis_security.core.ids import IdValue, TenantId, UserId
from axis_security.core.principal import Assurance, Principal

__all__ = ["NEVER", "Anonymous", "Authenticated", "Device", "Session", "SessionPolicy", "Sessions", "Started"]

ID_BYTES: Final = 32
"""256 bits; ASVS 7.2.3 asks for 128."""

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Authentication time of a session that nobody proved anything for (a remember token began it): fresh for nothing."""

_LABEL: Final = b"axis-security/session/v1"
_FORM: Final = re.compile(r"([A-Za-z0-9_-]{12})([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """How long sessions last, and how many there may be.

    Args:
        idle: how long a session may go unused.
        absolute: how long it lasts at most; rotations do not prolong it.
        touch_after: a use is noted when the last note is older than this, so that not every request writes.
        grace: how long a replaced id still answers.
        max_live: sessions that a person may have at one time; the longest unused is ended by the next login.
        generation: raise it by one to end every session of everybody, after a leak. Rotating keys does not.

    Raises:
        ConfigError: limits that contradict one another.
    """

    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)
    touch_after: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=10)
    max_live: int = 10
    generation: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not timedelta(0) < self.idle <= self.absolute <= timedelta(days=30):
            problems.append("0 < idle <= absolute <= 30 days does not hold")
        if not timedelta(0) <= self.touch_after <= self.idle / 4:
            problems.append("touch_after is above a quarter of idle: a session in use could end")
        if not timedelta(seconds=1) <= self.grace <= timedelta(seconds=60):
            problems.append("grace is not 1 to 60 seconds")
        if not 1 <= self.max_live <= 1000 or not 0 <= self.generation < 2**32:
            problems.append("max_live is not 1 to 1000, or generation is negative")
        if problems:
            raise ConfigError(what="unusable session limits", why="; ".join(problems), fix="keep the defaults, or shorten them")

    def documented(self) -> str:
        """The limits in words, for the documentation that ASVS 7.1.1 and 7.1.2 ask for."""
        return (
            f"A session ends after {self.idle} without use and after {self.absolute} in all. A person may have {self.max_live} sessions at one "
            "time; a further login ends the one unused for longest."
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A session in good standing. Only :class:`Sessions` makes one, after the store has said so; guards take this type and no other."""

    live: LiveSession
    key: SessionKey = field(repr=False)

    @property
    def user(self) -> UserId:
        """Whose it is."""
        return self.live.user

    @property
    def handle(self) -> UUID:
        """Its public name."""
        return self.live.handle

    def is_fresh(self, *, now: datetime, within: timedelta = ReauthProof.LASTS) -> bool:
        """Whether the person proved who they are at most *within* ago."""
        return timedelta(0) <= now - self.live.auth_time <= within

    def proof(self) -> ReauthProof:
        """When this person last proved who they are, for what asks for a proof; it is refused there if that was too long ago."""
        return ReauthProof(self.live.user, self.live.auth_time)

    def principal(self, *, tenant: TenantId | IdValue, role: str) -> Principal:
        """The principal for *tenant*; *role* comes from the membership store, never from the session (ASVS 8.3.2)."""
        live = self.live
        return Principal(
            tenant=tenant, user=live.user, role=role, session=str(live.handle), assurance=live.assurance, auth_time=live.auth_time
        )


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Somebody is signed in. Add *headers* to the answer."""

    session: Session
    headers: tuple[Header, ...] = field(default=TOUCHED_HEADERS, repr=False)


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Nobody is signed in. Add *headers* to the answer: caches must know that the cookie was looked at, and a dead cookie is taken away.

    Args:
        why: ``no_cookie``, ``bad_cookie``, ``unknown`` (or ended, or expired) or ``reused``.
        headers: for the answer.
    """

    why: str
    headers: tuple[Header, ...] = field(default=TOUCHED_HEADERS, repr=False)


@dataclass(frozen=True, slots=True)
class Started:
    """A new session, or a new id of one."""

    session: Session
    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A row of the list of devices (ASVS 7.5.2)."""

    handle: UUID
    client: str
    network: str
    started_at: datetime
    seen_at: datetime
    current: bool


class Sessions:
    """Begins, resolves, rotates, lists and ends sessions. Methods are flows, for :class:`~axis_security.auth.work.AuthRunner`.

    Args:
        profile: how cookies are named and marked.
        keys: the cookie keys.
        digests: the digest keys for ids at rest.
        remember: remember-me tokens; a sign-out ends the one that is presented.
        events: takes the audit events.
        policy: the limits.
        clock: tells the time.
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        profile: CookieProfile,
        keys: SigningKeys,
        digests: DigestRing,
        remember: RememberTokens,
        events: EventSink,
        policy: SessionPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.policy: Final = policy or SessionPolicy()
        self.profile: Final = profile
        self._signer: Final = keys.signer(CookieKind.SESSION.value)
        self._digests: Final = digests
        self._remember: Final = remember
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy
        self._generation: Final = self.policy.generation.to_bytes(4, "big")

    # --- who is this

    def presented(self, cookies: CookiesRead) -> SessionKey | None:
        """The session key that the cookies hold, if we signed it. No store is asked; this says nothing about the session."""
        found = cookies.values.get(CookieKind.SESSION)
        payload = None if found is None else self._signer.unsign(found.reveal())
        match = None if payload is None else _FORM.fullmatch(payload)
        if match is None:
            return None
        return SessionKey(match[1], self._digests.candidates(_LABEL, self._generation, match[2].encode("ascii")))

    def resolve(self, visitor: Visitor) -> Generator[Any, Any, Authenticated | Anonymous]:
        """Who is *visitor*? One store operation if the cookie has our signature, none otherwise. Never raises on account of the cookie.

        Raises:
            Unavailable: the store did not answer; nobody is signed in.
        """
        if CookieKind.SESSION not in visitor.cookies.values and CookieKind.SESSION not in visitor.cookies.problems:
            return Anonymous("no_cookie")
        key = self.presented(visitor.cookies)
        if key is None:
            return self._anonymous("bad_cookie", visitor)
        answer: LiveSession | ReusedSession | None = yield ResolveSession(
            key=key, now=self._clock.now(), touch_after=self.policy.touch_after, grace=self.policy.grace
        )
        match answer:
            case LiveSession():
                return Authenticated(Session(answer, key))
            case ReusedSession():
                self._tell(EventKind.SESSION_REUSED, answer.user, answer.handle, Outcome.DENIED, client=visitor.label)
                return self._anonymous("reused", visitor)
            case _:
                return self._anonymous("unknown", visitor)

    # --- begin and replace

    def begin(
        self,
        *,
        account: Account,
        visitor: Visitor,
        handle: UUID,
        assurance: Assurance,
        methods: tuple[str, ...],
        auth_time: datetime | None = None,
        tenant: TenantId | None = None,
    ) -> Generator[Any, Any, Started | None]:
        """Start a session; whatever session the visitor presented is ended. For the login machine: nothing else starts one.

        Returns:
            ``None`` where the account was disabled, or signed out everywhere, since *account* was read.
        """
        now, route = self._clock.now(), session_route(account.user)
        value, digest = self._new_id()
        started = yield StartSession(
            user=account.user,
            handle=handle,
            digest=digest,
            epoch=account.epoch,
            now=now,
            idle=self.policy.idle,
            lifetime=self.policy.absolute,
            assurance=assurance,
            methods=methods,
            tenant=None if tenant is None else tenant.text,
            client=visitor.label,
            network=visitor.network,
            max_live=self.policy.max_live,
            ends=self.presented(visitor.cookies),
            auth_time=auth_time,
        )
        if not started:
            return None
        self._tell(EventKind.SESSION_STARTED, account.user, handle, Outcome.ALLOWED, client=visitor.label)
        live = LiveSession(
            handle=handle,
            user=account.user,
            tenant=None if tenant is None else tenant.text,
            assurance=assurance,
            methods=methods,
            auth_time=auth_time or now,
            started_at=now,
            seen_at=now,
            ends_at=now + self.policy.absolute,
            client=visitor.label,
            network=visitor.network,
        )
        return Started(Session(live, SessionKey(route, (digest,))), self._headers(route, value, visitor))

    def rotate(
        self,
        session: Session,
        *,
        visitor: Visitor,
        cause: str,
        assurance: Assurance | None = None,
        methods: tuple[str, ...] | None = None,
        auth_time: datetime | None = None,
    ) -> Generator[Any, Any, Started | None]:
        """Give *session* a new id; the old one answers for the grace.

        Args:
            session: as resolved for this request.
            visitor: the request.
            cause: such as ``step_up`` or ``role_change``, for the audit log.
            assurance, methods, auth_time: what a step-up proved.

        Returns:
            ``None`` where the session is gone, or another request has just rotated it: carry on with that one's cookie.
        """
        return (yield from self._rotate(session, visitor, cause, assurance=assurance, methods=methods, auth_time=auth_time))

    def switch_tenant(self, session: Session, *, visitor: Visitor, tenant: TenantId | None) -> Generator[Any, Any, Started | None]:
        """Choose another workspace: the role changes with it, so the id does too. Check membership before."""
        text = None if tenant is None else tenant.text
        return (yield from self._rotate(session, visitor, "switch_tenant", switch_tenant=True, tenant=text))

    # --- look at and end

    def devices(self, session: Session) -> Generator[Any, Any, tuple[Device, ...]]:
        """The person's live sessions, the last used first."""
        found: tuple[LiveSession, ...] = yield ListSessions(session.user, self._clock.now())
        return tuple(
            Device(
                handle=live.handle,
                client=live.client,
                network=live.network,
                started_at=live.started_at,
                seen_at=live.seen_at,
                current=live.handle == session.handle,
            )
            for live in found
        )

    def end(self, visitor: Visitor) -> Generator[Any, Any, tuple[Header, ...]]:
        """Sign out: end the presented session in the store, with its remember token, and take the cookies away (ASVS 7.4.1). A remember
        token that is presented ends also where its session has run out before.

        Returns:
            Headers for the answer, the same whether there was a session or not.
        """
        yield from self.displace(visitor)
        yield from self._remember.end(visitor)
        gone = (CookieKind.SESSION, CookieKind.PENDING, CookieKind.REMEMBER)
        return (*(self.profile.clear(kind, host=visitor.host) for kind in gone), *TOUCHED_HEADERS)

    def displace(self, visitor: Visitor) -> Generator[Any, Any, None]:
        """End the presented session, if there is one, and leave the cookies to the caller."""
        key = self.presented(visitor.cookies)
        ended: EndedSession | None = None if key is None else (yield EndSession(key))
        if ended is not None:
            self._tell_logout(ended)

    def revoke(self, session: Session, handle: UUID, *, proof: ReauthProof) -> Generator[Any, Any, bool]:
        """End one of the person's sessions by its public handle; returns whether there was one. Another person's handle finds nothing.

        Raises:
            ProofRefused: the person has not signed in or stepped up in the last five minutes (ASVS 7.5.2).
        """
        proof.check(user=session.user, now=self._clock.now())
        count: int = yield RevokeSessions(user=session.user, handle=handle)
        self._tell(EventKind.SESSION_REVOKED, session.user, handle, Outcome.ALLOWED, scope="one", count=count, cause="self")
        return count > 0

    def revoke_others(self, session: Session, *, proof: ReauthProof) -> Generator[Any, Any, int]:
        """End all of the person's sessions but this one; returns how many.

        Raises:
            ProofRefused: the person has not signed in or stepped up in the last five minutes (ASVS 7.5.2).
        """
        proof.check(user=session.user, now=self._clock.now())
        count: int = yield RevokeSessions(user=session.user, keep=session.handle)
        self._tell(EventKind.SESSION_REVOKED, session.user, session.handle, Outcome.ALLOWED, scope="others", count=count, cause="self")
        return count

    def revoke_all(self, user: UserId, *, cause: str) -> Generator[Any, Any, int]:
        """End every session of *user*, this one too, and begin a new epoch: logins that are under way end as well (ASVS 7.4.5).

        Args:
            user: whose.
            cause: such as ``admin`` or ``leak``, for the audit log. Checking who may do this is the caller's guard.
        """
        count: int = yield RevokeSessions(user=user)
        yield BumpEpoch(user)
        self._tell(EventKind.SESSION_REVOKED, user, None, Outcome.ALLOWED, scope="all", count=count, cause=cause)
        return count

    # --- parts

    def new_handle(self) -> UUID:
        """A fresh public handle."""
        return uuid.UUID(bytes=self._entropy(16), version=4)

    def _rotate(self, session: Session, visitor: Visitor, cause: str, **changes: Any) -> Generator[Any, Any, Started | None]:
        if session.live.superseded:
            return None
        value, digest = self._new_id()
        live: LiveSession | None = yield RotateSession(key=session.key, digest=digest, now=self._clock.now(), **changes)
        if live is None:
            return None
        self._tell(EventKind.SESSION_ROTATED, live.user, live.handle, Outcome.ALLOWED, cause=cause)
        route = session.key.route
        return Started(Session(live, SessionKey(route, (digest,))), self._headers(route, value, visitor))

    def _new_id(self) -> tuple[str, tuple[str, bytes]]:
        value = b64url_encode(self._entropy(ID_BYTES))
        return value, self._digests.digest(_LABEL, self._generation, value.encode("ascii"))

    def _headers(self, route: str, value: str, visitor: Visitor) -> tuple[Header, ...]:
        return (self.profile.set(CookieKind.SESSION, self._signer.sign(route + value), host=visitor.host), *TOUCHED_HEADERS)

    def _anonymous(self, why: str, visitor: Visitor) -> Anonymous:
        if visitor.cookies.problems.get(CookieKind.SESSION) is CookieProblem.HOST:
            return Anonymous(why)  # no cookie of this profile can be set for that host
        return Anonymous(why, (self.profile.clear(CookieKind.SESSION, host=visitor.host), *TOUCHED_HEADERS))

    def _tell_logout(self, ended: EndedSession) -> None:
        event = AuditEvent(
            kind=EventKind.LOGOUT,
            at=self._clock.now(),
            outcome=Outcome.ALLOWED,
            user=ended.user,
            session=str(ended.handle),
            detail={"account": ended.user.text},
        )
        self._events.emit(event)

    def _tell(self, kind: EventKind, user: UserId, handle: UUID | None, outcome: Outcome, **detail: Scalar) -> None:
        name = None if handle is None else str(handle)
        detail = {"account": user.text, "handle": name, **detail}
        self._events.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, user=user, session=name, detail=detail))
