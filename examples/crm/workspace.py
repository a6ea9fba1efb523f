"""Members, the audit log, the export, and the security page."""

from __future__ import annotations

import json
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from examples.crm.models import Profile
from examples.crm.pages import back_to, own_id, page
from examples.crm.security import Site, caps
from fastapi import APIRouter, Form
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import delete, select

from axis_security import current_principal, public, requires
from axis_security.core.settings import Environment
from axis_security.ops.audit_postgres import read_page
from axis_security.ops.export import export_tables, export_workspace
from axis_security.ops.promises import Promises
from axis_security.ops.verify.report import Report
from axis_security.ops.verify.run import verify
from axis_security.rbac.members import MemberRefused
from axis_security.wiring.sources import EngineSource

__all__ = ["router"]

Text = Annotated[str, Form(max_length=400, pattern=r"^[^\x00]*$")]  # PostgreSQL keeps no NUL


def router(site: Site, promises: Callable[[], Promises] | None) -> APIRouter:
    """The routes. *promises* says how the security page measures; without it the page lists what is promised."""
    api = APIRouter(include_in_schema=False)
    axis = site.axis
    measured = _Measured(promises)

    def members_page(*, status: int = 200, **more: Any) -> Response:
        principal = current_principal()
        with site.db() as db:
            names = {each.user_id: each for each in db.scalars(select(Profile))}
        found = [(each, names.get(each.user)) for each in axis.members.members()]
        return page(
            "members.html",
            status=status,
            members=found,
            roles=axis.policy.roles,
            manages=axis.policy.allows(principal, caps.users.manage),
            **more,
        )

    @api.get("/members")
    @requires(caps.contacts.read)
    def members() -> Response:
        return members_page()

    @api.post("/members/invite")
    @requires(caps.users.manage)
    def invite(email: Text, role: Text) -> Response:
        token, digest = axis.auth.invitations.mint()
        try:
            axis.members.invite(digest=digest, email=email.strip().lower(), role=role)
        except MemberRefused as error:
            return members_page(status=error.http_status, problem=error.public()["message"])
        site.send(email.strip().lower(), "You are invited", "/join", token)
        return members_page(notice="The invitation is on its way.")

    @api.post("/members/{user}/role")
    @requires(caps.users.manage)
    def change_role(user: uuid.UUID, role: Text) -> Response:
        try:
            axis.members.change_role(user, role)
        except MemberRefused as error:
            return members_page(status=error.http_status, problem=error.public()["message"])
        return back_to("/members")

    @api.post("/members/{user}/remove")
    @requires(caps.users.manage)
    def remove(user: uuid.UUID) -> Response:
        try:
            axis.members.remove(user)
        except MemberRefused as error:
            return members_page(status=error.http_status, problem=error.public()["message"])
        with site.db() as db:
            db.execute(delete(Profile).where(Profile.user_id == str(user)))
            db.commit()
        return back_to("/members")

    @api.post("/members/leave")
    @requires(caps.contacts.read)
    def leave() -> Response:
        with site.db() as db:
            db.execute(delete(Profile).where(Profile.user_id == own_id()))
            try:
                axis.members.leave()
            except MemberRefused as error:
                return members_page(status=error.http_status, problem=error.public()["message"])
            db.commit()
        return back_to("/workspaces")

    @api.get("/audit")
    @requires(caps.audit.read)
    def audit() -> Response:
        with EngineSource(site.engine).connection() as connection:
            entries = [(each.number, json.loads(each.body)) for each in read_page(connection, limit=100)]
        with site.db() as db:
            names = {each.user_id: each.name for each in db.scalars(select(Profile))}
        return page("audit.html", entries=entries, names=names)

    @api.post("/export")
    @requires(caps.users.manage)
    def export() -> Response:
        out = tempfile.SpooledTemporaryFile(max_size=1_000_000)  # noqa: SIM115  # closed when the last byte has been sent
        export_workspace(
            out, source=EngineSource(site.engine), tables=export_tables(axis.tenancy), policy=axis.policy, export=str(uuid.uuid4())
        )
        out.seek(0)

        def blocks() -> Iterator[bytes]:
            with out:
                while block := out.read(65_536):
                    yield block

        return StreamingResponse(
            blocks(), media_type="application/zip", headers={"content-disposition": 'attachment; filename="workspace.zip"'}
        )

    @api.get("/security")
    @public("the security page is for everybody")
    def security() -> Response:
        return page("security.html", report=measured.report())

    if site.environment is not Environment.PRODUCTION:

        @api.get("/outbox")
        @public("development only: the letters that a real product would send")
        def outbox() -> Response:
            return page("outbox.html", letters=list(site.outbox))

    return api


class _Measured:
    """The last report, measured again after a minute; one request measures, the others get what there is."""

    def __init__(self, promises: Callable[[], Promises] | None) -> None:
        self._promises, self._lock = promises, threading.Lock()
        self._report: Report | None = None
        self._at = 0.0

    def report(self) -> Report | None:
        if self._promises is None:
            return None
        if (self._report is None or time.monotonic() - self._at > 60) and self._lock.acquire(blocking=self._report is None):
            try:
                if self._report is None or time.monotonic() - self._at > 60:
                    self._report, self._at = verify(self._promises()), time.monotonic()
            finally:
                self._lock.release()
        return self._report
