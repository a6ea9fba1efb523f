"""The pages. Every view says who may call it, right above its ``def``; there is no line about tenants."""

from __future__ import annotations

from typing import Any

import flask
from examples.flask_notes.security import Note, caps
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from axis_security import Secret, current_principal, public, requires
from axis_security.adapters.flask import AxisFlask
from axis_security.auth.login_states import SignedIn
from axis_security.auth.redirects import return_to
from axis_security.core.ids import TenantId
from axis_security.wiring.axis import Axis
from axis_security.wiring.marks import signed_in
from axis_security.wiring.visit import current_visit

__all__ = ["create_app"]


def create_app(axis: Axis[Any, Any]) -> flask.Flask:
    """The app over *axis*."""
    app = flask.Flask(__name__, static_folder=None)
    AxisFlask(axis.gate, app)

    @app.get("/")
    @requires(caps.notes.read)
    def notes() -> str:
        with Session(axis.engine) as db:
            return flask.render_template("notes.html", notes=db.scalars(select(Note).order_by(Note.id)).all(), who=current_principal())

    @app.post("/")
    @requires(caps.notes.write)
    def add() -> Response:
        with Session(axis.engine) as db:
            db.add(Note(text=flask.request.form["text"][:500]))
            db.commit()
        return flask.redirect("/", 303)

    @app.get("/sign-in")
    @public("the page to sign in on")
    def sign_in_page() -> str:
        return flask.render_template("sign_in.html", problem=None)

    @app.post("/sign-in")
    @public("whoever signs in is not signed in yet")
    def sign_in() -> Response | tuple[str, int]:
        visit, form = current_visit(), flask.request.form
        outcome = axis.run(axis.auth.login.password(identifier=form["email"], password=Secret(form["password"]), visitor=visit.visitor))
        if not isinstance(outcome, SignedIn):
            visit.send(outcome.headers)
            return flask.render_template("sign_in.html", problem=getattr(outcome, "public_text", "Please use the other page.")), 403
        headers = outcome.headers
        workspaces = axis.members.workspaces(outcome.session.user)
        if workspaces:
            chosen = TenantId(workspaces[0].tenant)
            started = axis.run(axis.auth.sessions.switch_tenant(outcome.session, visitor=visit.visitor, tenant=chosen))
            headers = headers if started is None else (*headers, *started.headers)
        visit.send(headers)
        return flask.redirect(return_to(flask.request.args.get("next")), 303)

    @app.post("/sign-out")
    @signed_in()
    def sign_out() -> Response:
        visit = current_visit()
        visit.send(axis.run(axis.auth.sessions.end(visit.visitor)))
        return flask.redirect("/sign-in", 303)

    return app
