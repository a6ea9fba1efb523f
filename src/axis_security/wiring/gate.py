"""The gate: request facts in, verdict out. Everything an adapter needs, and all that it decides about nothing of.

A request passes four points, in this order::

    verdict = drive(gate.enter(facts), perform)   # Visit, or an Answer to send as it is
    with visit.acting():                          # principal bound, decisions noted, until the last byte is sent
        gate.reached(visit, mark, route)          # before the endpoint's own code: raises what refuses it
        ...                                       # the framework's own handling; an AxisError becomes gate.refuse(error, visit)
        answer = gate.leave(visit, status=...)    # before the first byte: an Answer to send instead, or None

:meth:`Gate.enter` is a flow (:mod:`axis_security.core.flow`). It yields :class:`~axis_security.wiring.identity.Identify`, for the identity store;
:class:`ReadForm`, for the adapter; and :class:`Call`, which an adapter makes in the way that suits it. See ``docs/how-to/write-an-adapter.md``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from axis_security.auth.csrf import CsrfRefused, RequestOrigin
from axis_security.auth.network import client_address
from axis_security.auth.service import Auth
from axis_security.auth.session_ports import ListSessions
from axis_security.auth.sessions import Anonymous, Authenticated, Session
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError, ConfigError, MalformedId, PrincipalRequired
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import KeyType, parse_id
from axis_security.core.principal import Principal
from axis_security.core.settings import Environment
from axis_security.rbac.guard import Guard, Open
from axis_security.rbac.members import Membership
from axis_security.wiring.errors import CrossSite, NoDecision, NotAMember, NoWorkspace, UnmarkedEndpoint, WorkspaceClosed
from axis_security.wiring.facts import RequestFacts
from axis_security.wiring.form import FORM_PREFIX_BYTES, carries_form, form_token
from axis_security.wiring.headers import SecurityHeaders
from axis_security.wiring.identity import AsyncIdentity, Identified, Identify, Identity, Recheck
from axis_security.wiring.marks import SIGNED_IN
from axis_security.wiring.refusals import Answer, Pages, refusal
from axis_security.wiring.visit import Visit

__all__ = ["Call", "Endpoint", "Gate", "Mark", "ReadForm", "Verdict"]

Mark = Guard | Open | None
"""What an endpoint says of itself: guarded, open with a reason, or nothing, which is refused."""
Verdict = Visit | Answer
"""What the gate answers: a visit for the app, or a finished answer."""
_LOG: Final = logging.getLogger("axis_security.gate")
_MAX_LOGGED: Final = 200


@dataclass(frozen=True, slots=True)
class ReadForm:
    """Read the first *limit* bytes of the body (all of it if shorter), and let the app read them again. Answer: the bytes."""

    limit: int = FORM_PREFIX_BYTES


@dataclass(frozen=True, slots=True)
class Call:
    """Work that waits for something: call *sync* where blocking is allowed, else await *asynchronous*. Answer: what it returns."""

    sync: Callable[[], Any]
    asynchronous: Callable[[], Awaitable[Any]]


class Endpoint(Protocol):
    """An address that the gate answers itself, so that every framework has it: health, ``security.txt``, metrics."""

    @property
    def path(self) -> str:
        """The exact path."""
        ...

    @property
    def reason(self) -> str:
        """Why it is open, or whom it is open to; for the audit of routes."""
        ...

    def answer(self, facts: RequestFacts, visit: Callable[[], Generator[Any, Any, Visit]]) -> Generator[Any, Any, Answer]:
        """A flow to the answer. *visit* is a flow that finds out who asks; one that does not run it touches no store."""
        ...


class Gate:
    """Decides about requests; holds no connection and no state.

    Args:
        auth: sessions, cookies and CSRF.
        identity: the store of sessions and memberships; sync or async, as the adapter is.
        events: takes the audit events.
        key: type of the tenant's key.
        environment: in development an app with unmarked routes does not start.
        security: the headers of every answer.
        hops: how many proxies of ours stand in front; each appends to ``X-Forwarded-For`` and the nearest sets ``X-Forwarded-Proto``.
        anonymous: path prefixes, such as ``/static/``, for which no session is looked up: there everybody is a stranger, and caches may keep answers.
        endpoints: addresses that the gate answers itself.
        pages: where people go who open a page and may not.
        clock: tells the time.

    Raises:
        ConfigError: a prefix does not begin and end with a slash, or two endpoints share a path.
    """

    def __init__(
        self,
        *,
        auth: Auth,
        identity: Identity | AsyncIdentity,
        events: EventSink,
        key: KeyType = KeyType.UUID,
        environment: Environment = Environment.PRODUCTION,
        security: SecurityHeaders | None = None,
        hops: int = 0,
        anonymous: Sequence[str] = (),
        endpoints: Sequence[Endpoint] = (),
        pages: Pages | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        client_address("", hops=hops)
        if any(not prefix.startswith("/") or not prefix.endswith("/") or len(prefix) < 2 for prefix in anonymous):
            raise ConfigError(
                what="unusable anonymous prefix",
                why="each begins and ends with a slash, and is not the whole app",
                fix='pass ("/static/",)',
            )
        if len({endpoint.path for endpoint in endpoints}) != len(endpoints):
            raise ConfigError(what="two endpoints share a path", why="the gate would answer with one of them", fix="leave one out")
        self.auth: Final = auth
        self.identity: Final = identity
        self.is_async: Final = inspect.iscoroutinefunction(identity.perform)
        """Whether the identity store is awaited."""
        self.environment: Final = environment
        self.endpoints: Final = tuple(endpoints)
        self._events: Final = events
        self._key: Final = key
        self._security: Final = security or SecurityHeaders()
        self._hops: Final = hops
        self._anonymous: Final = tuple(anonymous)
        self._by_path: Final = {endpoint.path: endpoint for endpoint in endpoints}
        self._pages: Final = pages or Pages()
        self._clock: Final = clock

    # --- the four points

    def enter(self, facts: RequestFacts) -> Generator[Any, Any, Verdict]:
        """Who asks, and whether the request may go on. Never raises on account of the request.

        Returns:
            A :class:`~axis_security.wiring.visit.Visit` to hold, or an :class:`~axis_security.wiring.refusals.Answer` to send as it is.
        """
        try:
            endpoint = self._by_path.get(facts.path)
            if endpoint is not None and not facts.is_websocket:
                found: Answer = yield from endpoint.answer(facts, lambda: self._visit(facts))
                given = {name for name, _ in found.headers}
                ours = [pair for pair in self._security.render(secure=self._secure(facts)) if pair[0] not in given]
                return Answer(status=found.status, headers=[*ours, *found.headers], body=found.body)
            visit = yield from self._visit(facts)
        except AxisError as error:
            return self.refuse(error, facts)
        refused = yield from self._forged(visit)
        return visit if refused is None else self.refuse(refused, visit)

    def reached(self, visit: Visit, mark: Mark, route: str) -> None:
        """The endpoint that will handle the request is known, and none of its code has run.

        Args:
            mark: what :func:`~axis_security.wiring.marks.mark_of` found on it.
            route: its name or template, for the log.

        Raises:
            UnmarkedEndpoint: nobody decided about it.
            PrincipalRequired, NoWorkspace, NotAMember, WorkspaceClosed: its guard would say no, so its arguments are not even parsed.
        """
        visit.mark, visit.route = mark, route
        if isinstance(mark, Open):
            return
        if mark is None:
            self._tell(EventKind.UNMARKED_ENDPOINT, visit, Outcome.DENIED, method=visit.facts.method, route=route)
            raise UnmarkedEndpoint(route[:_MAX_LOGGED])
        if mark.capability == SIGNED_IN:
            if visit.session is None:
                raise PrincipalRequired
        elif visit.principal is None:
            error = visit.missing()
            if visit.problem is not None:
                self._tell(EventKind.DECISION, visit, Outcome.DENIED, capability=mark.capability, code=error.code)
            raise error

    def leave(self, visit: Visit, *, status: int) -> Answer | None:
        """The app is about to answer with *status*. Send the returned answer instead, if there is one.

        An answer below 400 to which no guard was asked, and that is not open with a reason, is withheld: status 500, and an event. A redirect
        without an endpoint (a router that adds a slash) passes.
        """
        if visit.decided or status >= 400 or (300 <= status < 400 and not visit.route):
            return None
        self._tell(EventKind.NO_DECISION, visit, Outcome.FAILED, method=visit.facts.method, route=visit.route or visit.facts.path)
        return self.refuse(NoDecision((visit.route or visit.facts.path)[:_MAX_LOGGED]), visit)

    def refuse(self, error: AxisError, asked: Visit | RequestFacts) -> Answer:
        """The answer for *error*, the same bytes through every adapter."""
        if isinstance(error, PrincipalRequired) and isinstance(asked, Visit):
            error = asked.missing()
        facts = asked.facts if isinstance(asked, Visit) else asked
        if error.http_status >= 500:
            _LOG.error("%s", error, extra={"error": dict(error.audit())})
        more = asked.answer_headers() if isinstance(asked, Visit) else []
        own = {name for name, _ in self._security.render(secure=True)}
        return refusal(
            error,
            facts,
            security=self._security,
            secure=self._secure(facts),
            pages=self._pages,
            more=[pair for pair in more if pair[0] not in own],
        )

    # --- a connection that lasts

    def still(self, visit: Visit) -> Generator[Any, Any, bool]:
        """Whether the person behind a long connection may still act as they did when it began: the session lives, the role is the same."""
        if visit.session is None:
            return True
        live = visit.session.live
        seen: Identified = yield Recheck(sessions=ListSessions(live.user, self._clock.now()), handle=live.handle, tenant=live.tenant)
        return seen.session is not None and seen.membership == visit.membership

    # --- parts

    def _visit(self, facts: RequestFacts) -> Generator[Any, Any, Visit]:
        header = facts.headers.get
        host = header("host", "")
        visitor = Visitor(
            cookies=self.auth.profile.read(header("cookie"), host=host),
            address=client_address(facts.peer, forwarded_for=(header("x-forwarded-for", ""),), hops=self._hops),
            agent=header("user-agent", ""),
            host=host,
        )
        session: Session | None = None
        membership: Membership | None = None
        headers: Sequence[tuple[str, str]] = ()
        if not facts.path.startswith(self._anonymous):
            found, membership = yield from self._who(visitor)
            headers = found.headers
            session = found.session if isinstance(found, Authenticated) else None
        principal, problem = (None, None) if session is None else self._principal(session, membership)
        return Visit(
            facts=facts,
            visitor=visitor,
            secure=self._secure(facts),
            security=self._security,
            csrf=self.auth.csrf,
            session=session,
            membership=membership,
            principal=principal,
            problem=problem,
            headers=headers,
        )

    def _who(self, visitor: Visitor) -> Generator[Any, Any, tuple[Authenticated | Anonymous, Membership | None]]:
        # The session's own flow, with its one store operation carried out together with the membership's.
        flow = self.auth.sessions.resolve(visitor)
        try:
            wanted = next(flow)
        except StopIteration as done:
            return done.value, None
        seen: Identified = yield Identify(wanted)
        try:
            flow.send(seen.session)
        except StopIteration as done:
            return done.value, seen.membership
        raise ConfigError(what="the session asked twice", why="one operation resolves it", fix="use the Sessions of this release")

    def _principal(self, session: Session, membership: Membership | None) -> tuple[Principal | None, AxisError | None]:
        tenant = session.live.tenant
        if tenant is None:
            return None, NoWorkspace()
        if membership is None:
            return None, NotAMember()
        if membership.state != "active":
            return None, WorkspaceClosed(membership.state)
        try:
            return session.principal(tenant=parse_id(tenant, self._key), role=membership.role), None
        except MalformedId:
            return None, NotAMember()

    def _forged(self, visit: Visit) -> Generator[Any, Any, AxisError | None]:
        facts, header = visit.facts, visit.facts.headers.get
        if facts.is_safe:
            return None
        origin, token, session = header("origin"), header("x-csrf-token"), None if visit.session is None else visit.session.handle
        if facts.is_websocket:
            # No script can add a token to a handshake, so the browser's own word is asked for: every browser sends Origin here (RFC 6455 4.1).
            origin = "null" if origin is None and session is not None else origin
            session = None
        elif session is not None and token is None and carries_form(header("content-type")):
            prefix: bytes = yield ReadForm()
            token = form_token(header("content-type", ""), prefix[:FORM_PREFIX_BYTES])
        verdict = self.auth.csrf.judge(
            RequestOrigin(method=facts.method, path=facts.path, origin=origin, sec_fetch_site=header("sec-fetch-site"), token=token),
            session=session,
        )
        return CrossSite(verdict.code, verdict.public_text) if isinstance(verdict, CsrfRefused) else None

    def _secure(self, facts: RequestFacts) -> bool:
        if self._hops:
            return facts.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"
        return facts.secure

    def _tell(self, kind: EventKind, visit: Visit, outcome: Outcome, **detail: str) -> None:
        principal, session = visit.principal, visit.session
        short = {name: value.encode("ascii", "backslashreplace").decode("ascii")[:_MAX_LOGGED] for name, value in detail.items()}
        if principal is not None or session is None:
            event = AuditEvent.by(principal, kind, at=self._clock.now(), outcome=outcome, **short)
        else:
            event = AuditEvent(
                kind=kind, at=self._clock.now(), outcome=outcome, user=session.user, session=str(session.handle), detail=short
            )
        self._events.emit(event)
