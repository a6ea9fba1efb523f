"""The app: pages behind the gate. Every endpoint says who may call it, right above its ``def``."""

from __future__ import annotations

from collections.abc import Callable

from examples.crm import account, records, workspace
from examples.crm.pages import HERE, back_to, page
from examples.crm.security import Site
from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from axis_security import public
from axis_security.adapters.fastapi import install
from axis_security.ops.promises import Promises
from axis_security.wiring.visit import current_visit

__all__ = ["create_app"]


def create_app(site: Site, promises: Callable[[FastAPI], Promises] | None = None) -> FastAPI:
    """The CRM over *site*. *promises* says how the security page measures; without it the page lists nothing measured."""
    app = FastAPI(title="Tidepool CRM", docs_url=None, redoc_url=None)

    @app.get("/", include_in_schema=False)
    @public("the front page; it leads elsewhere whoever is signed in")
    def front() -> Response:
        return page("front.html") if current_visit().session is None else back_to("/contacts")

    app.include_router(account.router(site))
    app.include_router(records.router(site))
    app.include_router(workspace.router(site, None if promises is None else lambda: promises(app)))
    app.mount("/static", public("styles and pictures, the same for everybody")(StaticFiles(directory=HERE / "static")), name="static")
    install(app, site.axis.gate, opened={"/openapi.json": "describes the JSON interface; it holds no data"})
    return app
