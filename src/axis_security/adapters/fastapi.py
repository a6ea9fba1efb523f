"""FastAPI: the gate, typed dependencies, guards as dependencies, and what the guards demand in the OpenAPI document.

::

    app = FastAPI()
    install(app, gate)

    @app.get("/contacts")
    @requires(caps.contacts.read)                       # right above def; or, for a whole router:
    async def contacts(me: CurrentPrincipal): ...       # APIRouter(dependencies=[needs(caps.contacts.read)])
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from axis_security.adapters import starlette
from axis_security.auth.cookies import CookieKind
from axis_security.auth.csrf import SAFE_METHODS
from axis_security.auth.sessions import Session
from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError, MissingExtra, PrincipalRequired
from axis_security.core.principal import Assurance, Principal
from axis_security.core.settings import Environment
from axis_security.rbac.capability import Capability
from axis_security.rbac.guard import Guard, Open, requires
from axis_security.wiring.gate import Gate
from axis_security.wiring.visit import Visit, current_visit

try:
    from fastapi import Depends, FastAPI
except ImportError:
    raise MissingExtra(package="fastapi", extra="fastapi") from None

__all__ = ["CurrentPrincipal", "CurrentSession", "CurrentVisit", "install", "needs", "opens"]

_DOCUMENTED: Final = {
    "401": "Nobody is signed in.",
    "403": "Not allowed: by role, by workspace, or the request carries no CSRF token.",
}
_PROBLEM: Final = {
    "type": "object",
    "description": "A refusal (RFC 9457). `code` is stable; a program should look at it and at nothing else.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "step_up": {"type": "object"},
    },
}


async def _visit() -> Visit:
    return current_visit()


async def _session() -> Session:
    session = current_visit().session
    if session is None:
        raise PrincipalRequired
    return session


async def _principal() -> Principal:
    principal = maybe_principal()
    if principal is None:
        raise current_visit().missing()
    return principal


CurrentVisit = Annotated[Visit, Depends(_visit)]
"""The request: its nonce, its CSRF token, headers for the answer."""
CurrentSession = Annotated[Session, Depends(_session)]
"""The session; 401 without one. A value, not a guard: the endpoint still needs its mark."""
CurrentPrincipal = Annotated[Principal, Depends(_principal)]
"""Whoever is acting; 401 or 403 without. A value, not a guard: the endpoint still needs its mark."""


def needs(capability: Capability, *, fresh: timedelta | None = None, aal: Assurance | None = None) -> Any:
    """:func:`~axis_security.rbac.guard.requires` as a dependency, for a whole router or app: ``dependencies=[needs(caps.users.manage)]``.

    As the default of a parameter it gives the principal: ``me: Principal = needs(caps.contacts.read)``.

    Raises:
        ConfigError: (at declaration) as ``requires``.
    """

    @requires(capability, fresh=fresh, aal=aal)
    async def allowed() -> Principal:
        return await _principal()

    return Depends(allowed)


def opens(reason: str) -> Any:
    """:func:`~axis_security.rbac.guard.public` as a dependency, for routes whose endpoint is a package's own.

    Raises:
        ConfigError: (at declaration) no reason.
    """
    if not reason.strip():
        raise ConfigError(what="opens() needs a reason", why="the audit of routes shows it", fix='write opens("the built frontend")')
    mark = Open(reason)

    async def opened() -> None:
        visit = current_visit()
        visit.mark = visit.mark or mark

    opened.__axis_guard__ = mark  # type: ignore[attr-defined]  # where `guard_of` looks
    return Depends(opened)


def install(app: FastAPI, gate: Gate, *, opened: Mapping[str, str] | None = None) -> None:
    """Put *app* behind *gate*; see :func:`axis_security.adapters.starlette.install`. The OpenAPI document says which operations need a session.

    In development FastAPI's own pages (``/docs``, ``/redoc``, the document) are open; in production they answer 403 unless *opened* names them.
    """
    opened = dict(opened or {})
    if gate.environment is Environment.DEVELOPMENT:
        own = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url if app.docs_url else None)
        there = {getattr(route, "path", None) for route in app.routes}
        opened = {path: "API reference, in development" for path in own if path is not None and path in there} | opened
    starlette.install(app, gate, opened=opened)
    _describe(app, gate)


def _describe(app: FastAPI, gate: Gate) -> None:
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(plain(), app, gate)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents for changing the description


def _described(schema: dict[str, Any], app: FastAPI, gate: Gate) -> dict[str, Any]:
    guarded = {(route.path, method) for route in starlette.listed(app) if isinstance(route.mark, Guard) for method in route.methods}
    parts = schema.setdefault("components", {})
    parts.setdefault("securitySchemes", {}).update(
        session={"type": "apiKey", "in": "cookie", "name": gate.auth.profile.name(CookieKind.SESSION)},
        csrf={"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
    )
    parts.setdefault("schemas", {})["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in schema.get("paths", {}).items():
        for method, operation in operations.items():
            unsafe = method.upper() not in SAFE_METHODS
            is_guarded = (path, method.upper()) in guarded
            if is_guarded:
                operation["security"] = [{"session": [], "csrf": []}] if unsafe else [{"session": []}]
            for status, text in _DOCUMENTED.items():
                if is_guarded or (unsafe and status == "403"):
                    operation.setdefault("responses", {}).setdefault(status, {"description": text, "content": content})
    return schema
