"""Templates, and what every page has in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from axis_security.core.context import current_principal, maybe_principal
from axis_security.wiring.visit import maybe_visit

__all__ = ["back_to", "own_id", "page", "refused"]

HERE = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def own_id() -> str:
    """The id of whoever is acting; pages are for people, so there is one."""
    user = current_principal().user
    return "" if user is None else user.text


def page(name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template; ``me`` and ``csrf_token`` are there for all of them."""
    visit = maybe_visit()
    shared = {
        "me": maybe_principal(),
        "signed_in": visit is not None and visit.session is not None,
        "csrf": lambda: _field("" if visit is None else visit.csrf_token()),
        "path": "" if visit is None else visit.facts.path,
        "problem": None,
        "notice": None,
    }
    return HTMLResponse(_TEMPLATES.get_template(name).render({**shared, **values}), status_code=status)


def _field(token: str) -> Markup:
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(token) if token else Markup("")


def back_to(path: str) -> RedirectResponse:
    """See other."""
    return RedirectResponse(path, status_code=303)


_TITLES: Mapping[int, str] = {
    401: "Please sign in",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible",
    429: "Too many tries",
    503: "Not available",
}


def refused(status: int, public: Mapping[str, Any]) -> str:
    """The page of a refusal."""
    shared = {"me": None, "signed_in": False, "csrf": lambda: "", "path": "", "problem": None, "notice": None}
    title = _TITLES.get(status, "That did not work")
    return _TEMPLATES.get_template("refused.html").render(
        {**shared, "title": title, "status": status, "detail": public.get("message", ""), "code": public.get("code", "")}
    )
