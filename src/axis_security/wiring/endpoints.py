"""Addresses that the gate answers itself, so that every framework has them: health, ``security.txt``, metrics.

None of them looks a session up unless it is asked for details: a database that is down must not make the liveness probe fail.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError, ConfigError, PrincipalRequired
from axis_security.core.secret import Secret
from axis_security.ops.disclosure import WELL_KNOWN_PATH, SecurityTxt
from axis_security.ops.health import Detail, HealthAnswer, HealthMonitor
from axis_security.rbac.capability import Capability
from axis_security.rbac.decision import PermissionDenied
from axis_security.rbac.guard import decide
from axis_security.wiring.facts import RequestFacts
from axis_security.wiring.gate import Call, Endpoint
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit

__all__ = ["health", "metrics", "security_txt"]

_MIN_TOKEN_CHARS: Final = 32
_Visit = Callable[[], Generator[Any, Any, Visit]]


class _MethodNotAllowed(AxisError):
    code = "gate.method_not_allowed"
    http_status = 405
    public_text = "This address can only be read."


def _answer(facts: RequestFacts, body: bytes, kind: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    if facts.method not in {"GET", "HEAD"}:
        raise _MethodNotAllowed(what="a method that changes something", why="the address can only be read", fix="use GET")
    found = [("content-length", str(len(body))), ("content-type", kind), ("x-content-type-options", "nosniff")]
    return Answer(status=status, headers=[*(headers or {}).items(), *found], body=b"" if facts.method == "HEAD" else body)


@dataclass(frozen=True, slots=True)
class _Health:
    path: str
    reason: str
    look: Callable[[Detail], Call]
    capability: Capability | None

    def answer(self, facts: RequestFacts, visit: _Visit) -> Generator[Any, Any, Answer]:
        detail = Detail.PUBLIC
        if facts.query == "verbose" and self.capability is not None:
            principal = (yield from visit()).principal
            if principal is None:
                raise PrincipalRequired  # before the guard: whoever is nobody writes nothing into the audit log
            decision = decide(principal, self.capability)
            if not decision.allowed:
                raise PermissionDenied(decision)
            detail = Detail.FULL
        found: HealthAnswer = yield self.look(detail)
        return _answer(
            facts, json.dumps(found.body).encode(), "application/json", status=found.status, headers={"cache-control": "no-store"}
        )


def health(monitor: HealthMonitor, *, capability: Capability | None = None) -> tuple[Endpoint, ...]:
    """``/livez``, ``/readyz`` and ``/startupz``. Strangers see one word.

    Args:
        capability: who may ask for ``?verbose``, with every check's name, code and time; nobody if not given.
    """

    async def live() -> HealthAnswer:
        return monitor.live()

    return (
        _Health("/livez", "liveness probe: one word", lambda detail: Call(monitor.live, live), None),
        _Health(
            "/readyz",
            "readiness probe: one word",
            lambda detail: Call(lambda: monitor.ready(detail), lambda: monitor.aready(detail)),
            capability,
        ),
        _Health(
            "/startupz",
            "start-up probe: one word",
            lambda detail: Call(lambda: monitor.startup(detail), lambda: monitor.astartup(detail)),
            capability,
        ),
    )


@dataclass(frozen=True, slots=True)
class _SecurityTxt:
    text: SecurityTxt
    clock: Clock
    path: str = WELL_KNOWN_PATH
    reason: str = "RFC 9116: where to report a vulnerability"

    def answer(self, facts: RequestFacts, visit: _Visit) -> Generator[Any, Any, Answer]:
        yield from ()
        return _answer(facts, self.text.render(self.clock.now()), "text/plain; charset=utf-8", headers={"cache-control": "max-age=3600"})


def security_txt(text: SecurityTxt, *, clock: Clock = SYSTEM_CLOCK) -> tuple[Endpoint, ...]:
    """``/.well-known/security.txt`` (RFC 9116 section 3)."""
    return (_SecurityTxt(text, clock),)


@dataclass(frozen=True, slots=True)
class _Metrics:
    render: Callable[[], bytes]
    token: Secret[str]
    kind: str
    path: str = "/metrics"
    reason: str = "for whoever has the scraper's token"

    def answer(self, facts: RequestFacts, visit: _Visit) -> Generator[Any, Any, Answer]:
        yield from ()
        sent = facts.headers.get("authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(sent, b"Bearer " + self.token.reveal().encode()):
            raise PrincipalRequired
        return _answer(facts, self.render(), self.kind, headers={"cache-control": "no-store"})


def metrics(
    render: Callable[[], bytes], *, token: Secret[str], kind: str = "text/plain; version=0.0.4; charset=utf-8"
) -> tuple[Endpoint, ...]:
    """``/metrics`` for a scraper that sends ``Authorization: Bearer`` and the token.

    Args:
        render: the exposition, such as ``lambda: prometheus_client.generate_latest(registry)``.
        token: from the secrets manager; at least 32 characters.

    Raises:
        ConfigError: the token is too short.
    """
    if len(token.reveal()) < _MIN_TOKEN_CHARS:
        raise ConfigError(what="the scraper's token is too short", why="it could be guessed", fix="mint one of at least 32 characters")
    return (_Metrics(render, token, kind),)
