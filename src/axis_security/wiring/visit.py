"""The request being handled, for the code that handles it: who it is from, the page's nonce, the form's token, headers for the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from axis_security.core.context import acting_as, acting_as_nobody
from axis_security.core.errors import AxisError, PrincipalRequired
from axis_security.rbac.guard import Guard, Open, Record, recording
from axis_security.wiring.errors import NoVisit
from axis_security.wiring.headers import SecurityHeaders, new_nonce

if TYPE_CHECKING:
    from axis_security.auth.csrf import Csrf
    from axis_security.auth.sessions import Session
    from axis_security.auth.visitor import Visitor
    from axis_security.core.principal import Principal
    from axis_security.rbac.members import Membership
    from axis_security.wiring.facts import RequestFacts

__all__ = ["Visit", "current_visit", "maybe_visit"]

_VISIT: Final[ContextVar[Visit | None]] = ContextVar("axis_security.wiring.visit", default=None)


class Visit:
    """One admitted request. The gate makes it, the adapter holds it, handlers ask :func:`current_visit` for it.

    Attributes:
        facts: the request.
        visitor: the request, as the flows of :mod:`axis_security.auth` want it.
        session: the session in good standing, or ``None``.
        membership: the person's role and the workspace's state, if they are a member of the session's workspace.
        principal: whom the request acts for; ``None`` where nobody is signed in, or ``problem`` says why not.
        problem: why a signed-in person acts for nobody: no workspace, not a member, workspace closed.
        mark: the guard or reason of the endpoint that was reached.
        security: the security headers of the answer; a handler may put others in its place.
    """

    __slots__ = (
        "_csrf",
        "_more",
        "_nonce",
        "_record",
        "facts",
        "mark",
        "membership",
        "principal",
        "problem",
        "route",
        "secure",
        "security",
        "session",
        "visitor",
    )

    def __init__(
        self,
        *,
        facts: RequestFacts,
        visitor: Visitor,
        secure: bool,
        security: SecurityHeaders,
        csrf: Csrf,
        session: Session | None,
        membership: Membership | None,
        principal: Principal | None,
        problem: AxisError | None,
        headers: Iterable[tuple[str, str]],
    ) -> None:
        self.facts: Final = facts
        self.visitor: Final = visitor
        self.secure: Final = secure
        self.security: SecurityHeaders = security
        self.session: Final = session
        self.membership: Final = membership
        self.principal: Final = principal
        self.problem: Final = problem
        self.mark: Guard | Open | None = None
        self.route: str = ""
        self._csrf: Final = csrf
        self._more: Final = list(headers)
        self._nonce: str | None = None
        self._record: Record | None = None

    @property
    def nonce(self) -> str:
        """The nonce of this answer's Content-Security-Policy, for ``<script nonce=…>``. Made when first asked for."""
        if self._nonce is None:
            self._nonce = new_nonce()
        return self._nonce

    @property
    def decided(self) -> bool:
        """Whether a guard was asked, or the endpoint is open with a reason."""
        return isinstance(self.mark, Open) or (self._record is not None and self._record.made)

    def csrf_token(self) -> str:
        """The token for this page's forms and scripts; empty where nobody is signed in, and none is asked for."""
        return "" if self.session is None else self._csrf.issue(self.session.handle).reveal()

    def send(self, headers: Iterable[tuple[str, str]]) -> None:
        """Add headers to the answer, such as those of a login's outcome."""
        self._more.extend(headers)

    def note_decision(self) -> None:
        """A guard of ours has looked at this request."""
        if self._record is not None:
            self._record.made = True

    def missing(self) -> AxisError:
        """What to answer when a principal is needed and there is none."""
        return self.problem or PrincipalRequired()

    def answer_headers(self) -> list[tuple[str, str]]:
        """Every header of ours for the answer, names in lower case. See :meth:`Gate.leave <axis_security.wiring.gate.Gate.leave>`."""
        found = self.security.render(secure=self.secure, nonce=self._nonce)
        seen: set[tuple[str, str]] = set()
        for name, value in self._more:
            pair = (name.lower(), value)
            if pair not in seen:  # several parts each say Cache-Control and Vary
                seen.add(pair)
                found.append(pair)
        return found

    @contextmanager
    def acting(self) -> Iterator[Visit]:
        """Handle the request inside the block: its principal is bound, decisions are noted, and :func:`current_visit` finds it.

        Hold it for the whole answer: streaming, background tasks and the teardown of generators included.
        """
        token = _VISIT.set(self)
        try:
            with recording() as record, acting_as_nobody() if self.principal is None else acting_as(self.principal):
                self._record = record
                yield self
        finally:
            _VISIT.reset(token)


def current_visit() -> Visit:
    """The request being handled.

    Raises:
        NoVisit: there is none.
    """
    visit = _VISIT.get()
    if visit is None:
        raise NoVisit
    return visit


def maybe_visit() -> Visit | None:
    """The request being handled, or ``None``."""
    return _VISIT.get()
