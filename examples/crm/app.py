"""The app: pages behind the gate. Every endpoint says who may call it, right above its ``def``."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from axis_security import public
from axis_security.adapters.fastapi import install
from axis_security.ops.promises import Promises
from axis_security.wiring.visit import current_visit

from examples.crm import account, records, workspace
from examples.crm.pages import HERE, back_to, page
from examples.crm.security import Site

__all__ = ["create_app"]


def create_app(site: Site, promises: Promises | None = None) -> FastAPI:
    """The CRM over *site*."""
    app = FastAPI(title="Tidepool CRM", docs_url=None, redoc_url=None)

    @app.get("/", include_in_schema=False)
    @public("the front page; it leads elsewhere whoever is signed in")
    def front() -> Response:
        return page("front.html") if current_visit().session is None else back_to("/contacts")

    app.include_router(account.router(site))
    app.include_router(records.router(site))
    app.include_router(workspace.router(site, promises))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    install(app, site.axis.gate, opened={"/static": "styles and pictures, the same for everybody"})
    return app
