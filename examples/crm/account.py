"""Signing up and in, the account, its devices and its second factor."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from examples.crm.models import Profile
from examples.crm.pages import back_to, page
from examples.crm.security import Site
from fastapi import APIRouter, Form
from fastapi.responses import Response

from axis_security import Secret, acting_as, public
from axis_security.adapters.fastapi import CurrentSession, CurrentVisit
from axis_security.auth.factors import LoadTotp, ProofRefused
from axis_security.auth.identifiers import identifier_or_decoy
from axis_security.auth.lifecycle import AddressChanged, Answered, PasswordChanged, PasswordSet
from axis_security.auth.login_states import NeedsSecondFactor, Refused, SignedIn
from axis_security.auth.password_rules import Rejected
from axis_security.auth.ports import FindAccount
from axis_security.auth.redirects import return_to
from axis_security.auth.sessions import Session
from axis_security.auth.stepup import CodeNeeded, SteppedUp
from axis_security.auth.tokens import Landed, LinkRefused, Purpose
from axis_security.auth.totp import CodeAccepted
from axis_security.core.ids import TenantId, UserId
from axis_security.wiring.marks import signed_in
from axis_security.wiring.visit import Visit

__all__ = ["router"]

Text = Annotated[str, Form(max_length=400, pattern=r"^[^\x00]*$")]  # PostgreSQL keeps no NUL


def router(site: Site) -> APIRouter:
    """The routes."""
    api = APIRouter(include_in_schema=False)
    axis = site.axis
    auth, run = axis.auth, axis.run

    def enter(visit: Visit, outcome: SignedIn, path: str) -> Response:
        """After signing in: into the first workspace, if there is one."""
        visit.send(outcome.headers)
        workspaces = [each for each in axis.members.workspaces(outcome.session.user) if each.state == "active"]
        if workspaces:
            moved = run(
                auth.sessions.switch_tenant(outcome.session, visitor=visit.visitor, tenant=TenantId(uuid.UUID(workspaces[0].tenant)))
            )
            if moved is not None:
                visit.send(moved.headers)
        return back_to(path if workspaces else "/workspaces")

    def answer(visit: Visit, outcome: Any, path: str, template: str) -> Response:
        if isinstance(outcome, SignedIn):
            return enter(visit, outcome, path)
        if isinstance(outcome, NeedsSecondFactor):
            visit.send(outcome.headers)
            return back_to("/sign-in/code")
        visit.send(outcome.answer_headers)
        return page(template, status=outcome.http_status, problem=outcome.public_text, next=path)

    def land(visit: Visit, landed: Landed | LinkRefused, path: str, template: str) -> Response:
        """The token moves from the address into a cookie of ten minutes: no history, log or Referer keeps it, and nothing is spent."""
        visit.send(landed.headers)
        return back_to(path) if isinstance(landed, Landed) else page(template, status=410, ok=False)

    @api.get("/sign-up")
    @public("anybody may open an account")
    def sign_up_page() -> Response:
        return page("sign_up.html")

    @api.post("/sign-up")
    @public("anybody may open an account")
    def sign_up(email: Text, password: Annotated[str, Form(max_length=4000)], visit: CurrentVisit) -> Response:
        outcome = run(
            auth.lifecycle.register(user=UserId(uuid.uuid4()), identifier=email, password=Secret(password), visitor=visit.visitor)
        )
        if isinstance(outcome, Rejected):
            return page("sign_up.html", status=422, problem=" ".join(outcome.texts))
        visit.send(outcome.headers)
        if isinstance(outcome, Refused):
            return page("sign_up.html", status=outcome.http_status, problem=outcome.public_text)
        if outcome.letter is not None:
            path = "/verify" if outcome.letter.token is not None else "/sign-in"
            site.send(
                outcome.letter.to,
                "Confirm your address" if outcome.letter.token else "You have an account already",
                path,
                outcome.letter.token,
            )
        return page("letter_sent.html", status=202, text=outcome.public_text)

    @api.get("/verify")
    @public("the token in the letter is the proof; opening the page spends nothing")
    def verify_page(visit: CurrentVisit, token: str = "") -> Response:
        if token:
            return land(visit, run(auth.tokens.land(Purpose.VERIFY_EMAIL, token, visitor=visit.visitor)), "/verify", "verify.html")
        ok = auth.tokens.landed(Purpose.VERIFY_EMAIL, visitor=visit.visitor) is not None
        return page("verify.html", status=200 if ok else 410, ok=ok)

    @api.post("/verify")
    @public("the token in the letter is the proof")
    def verify(visit: CurrentVisit) -> Response:
        token = auth.tokens.landed(Purpose.VERIFY_EMAIL, visitor=visit.visitor)
        outcome = run(auth.lifecycle.verify(token=token or "", visitor=visit.visitor))
        visit.send(outcome.headers)
        if isinstance(outcome, AddressChanged):
            return page("sign_in.html", notice="Your address is confirmed. You can sign in now.", next="/contacts")
        return page("verify.html", status=410, ok=False)

    @api.get("/sign-in")
    @public("how one gets in")
    def sign_in_page(next: str = "/contacts") -> Response:  # the name of the parameter in the address
        return page("sign_in.html", next=return_to(next, default="/contacts"))

    @api.post("/sign-in")
    @public("how one gets in")
    def sign_in(
        email: Text,
        password: Annotated[str, Form(max_length=4000)],
        visit: CurrentVisit,
        remember: Annotated[bool, Form()] = False,
        next: Text = "/contacts",
    ) -> Response:
        outcome = run(auth.login.password(identifier=email, password=Secret(password), visitor=visit.visitor, remember=remember))
        return answer(visit, outcome, return_to(next, default="/contacts"), "sign_in.html")

    @api.get("/sign-in/code")
    @public("the second half of signing in")
    def code_page() -> Response:
        return page("code.html", next="/contacts")

    @api.post("/sign-in/code")
    @public("the second half of signing in")
    def code(code: Text, visit: CurrentVisit) -> Response:
        return answer(visit, run(auth.login.second_factor(code=code, visitor=visit.visitor)), "/contacts", "code.html")

    @api.get("/forgot")
    @public("whoever forgot the password cannot sign in")
    def forgot_page() -> Response:
        return page("forgot.html")

    @api.post("/forgot")
    @public("whoever forgot the password cannot sign in")
    def forgot(email: Text, visit: CurrentVisit) -> Response:
        outcome = run(auth.lifecycle.forgot(identifier=email, visitor=visit.visitor))
        visit.send(outcome.headers)
        if isinstance(outcome, Answered) and outcome.letter is not None:
            site.send(outcome.letter.to, "Set a new password", "/reset", outcome.letter.token)
        if isinstance(outcome, Refused):
            return page("forgot.html", status=outcome.http_status, problem=outcome.public_text)
        return page("letter_sent.html", status=202, text=outcome.public_text)

    @api.get("/reset")
    @public("the token in the letter is the proof; opening the page spends nothing")
    def reset_page(visit: CurrentVisit, token: str = "") -> Response:
        if token:
            return land(visit, run(auth.tokens.land(Purpose.PASSWORD_RESET, token, visitor=visit.visitor)), "/reset", "reset.html")
        ok = auth.tokens.landed(Purpose.PASSWORD_RESET, visitor=visit.visitor) is not None
        return page("reset.html", status=200 if ok else 410, ok=ok)

    @api.post("/reset")
    @public("the token in the letter is the proof")
    def reset(password: Annotated[str, Form(max_length=4000)], visit: CurrentVisit) -> Response:
        token = auth.tokens.landed(Purpose.PASSWORD_RESET, visitor=visit.visitor)
        outcome = run(auth.lifecycle.reset(token=token or "", password=Secret(password), visitor=visit.visitor))
        if isinstance(outcome, Rejected):
            return page("reset.html", status=422, ok=True, problem=" ".join(outcome.texts))
        visit.send(outcome.headers)
        if isinstance(outcome, PasswordSet):
            return page("sign_in.html", notice="Your password is set, and you are signed out everywhere.", next="/contacts")
        return page("reset.html", status=410, ok=False)

    @api.post("/sign-out")
    @signed_in()
    def sign_out(visit: CurrentVisit) -> Response:
        visit.send(run(auth.sessions.end(visit.visitor)))
        return back_to("/sign-in")

    @api.get("/confirm")
    @signed_in()
    def confirm_page(next: str = "/account") -> Response:
        return page("confirm.html", next=return_to(next, default="/account"))

    @api.post("/confirm")
    @signed_in()
    def confirm(
        password: Annotated[str, Form(max_length=4000)],
        session: CurrentSession,
        visit: CurrentVisit,
        code: Text = "",
        next: Text = "/account",
    ) -> Response:
        path = return_to(next, default="/account")
        outcome = run(auth.step_up.confirm(session, password=Secret(password), visitor=visit.visitor, code=code or None))
        if isinstance(outcome, SteppedUp):
            visit.send(outcome.headers)
            return back_to(path)
        if isinstance(outcome, CodeNeeded):
            return page("confirm.html", status=422, next=path, problem="Please give a code of your authenticator as well.")
        visit.send(outcome.answer_headers)
        return page("confirm.html", status=outcome.http_status, next=path, problem=outcome.public_text)

    # --- the account

    def account_page(session: Session, *, status: int = 200, **more: Any) -> Response:
        has_totp = axis.runner.perform(LoadTotp(session.user, pending=False)) is not None
        values = {
            "devices": run(auth.sessions.devices(session)),
            "has_totp": has_totp,
            "codes_left": run(auth.recovery.remaining(user=session.user)) if has_totp else 0,
            "enrolment": None,
            "codes": None,
        }
        return page("account.html", status=status, **{**values, **more})

    @api.get("/account")
    @signed_in()
    def account(session: CurrentSession) -> Response:
        return account_page(session)

    @api.post("/account/totp")
    @signed_in()
    def totp_begin(session: CurrentSession) -> Response:
        try:
            enrolment = run(auth.totp.enrol(user=session.user, account="Tidepool", proof=session.proof()))
        except ProofRefused:
            return back_to("/confirm?next=/account")
        return account_page(session, enrolment={"svg": enrolment.svg(scale=5).reveal(), "secret": enrolment.secret_base32.reveal()})

    @api.post("/account/totp/confirm")
    @signed_in()
    def totp_confirm(code: Text, session: CurrentSession) -> Response:
        if not isinstance(run(auth.totp.confirm(user=session.user, code=code)), CodeAccepted):
            return account_page(session, status=422, problem="That code is not right. Set the authenticator up again.")
        codes = run(auth.recovery.issue(user=session.user, proof=session.proof()))
        return account_page(session, codes=[each.reveal() for each in codes], notice="From now on you sign in with a code as well.")

    @api.post("/account/totp/disable")
    @signed_in()
    def totp_disable(session: CurrentSession) -> Response:
        try:
            run(auth.totp.disable(user=session.user, proof=session.proof()))
        except ProofRefused:
            return back_to("/confirm?next=/account")
        return account_page(session, notice="The second factor is off.")

    @api.post("/account/devices/others")
    @signed_in()
    def revoke_others(session: CurrentSession) -> Response:
        try:
            count = run(auth.sessions.revoke_others(session, proof=session.proof()))
        except ProofRefused:
            return back_to("/confirm?next=/account")
        return account_page(session, notice=f"{count} other session(s) ended.")

    @api.post("/account/devices/{handle}")
    @signed_in()
    def revoke(handle: uuid.UUID, session: CurrentSession) -> Response:
        try:
            run(auth.sessions.revoke(session, handle, proof=session.proof()))
        except ProofRefused:
            return back_to("/confirm?next=/account")
        return back_to("/account")

    @api.post("/account/password")
    @signed_in()
    def password(
        current: Annotated[str, Form(max_length=4000)],
        new: Annotated[str, Form(max_length=4000)],
        session: CurrentSession,
        visit: CurrentVisit,
    ) -> Response:
        outcome = run(auth.lifecycle.change_password(session, current=Secret(current), new=Secret(new), visitor=visit.visitor))
        if isinstance(outcome, PasswordChanged):
            visit.send(outcome.headers)
            return back_to("/account")
        if isinstance(outcome, Rejected):
            return account_page(session, status=422, problem=" ".join(outcome.texts))
        return account_page(session, status=outcome.http_status, problem=outcome.public_text)

    # --- workspaces

    @api.get("/workspaces")
    @signed_in()
    def workspaces(session: CurrentSession) -> Response:
        return page("workspaces.html", workspaces=axis.members.workspaces(session.user))

    @api.post("/workspaces")
    @signed_in()
    def create(title: Text, name: Text, email: Text, session: CurrentSession, visit: CurrentVisit) -> Response:
        if not _is_theirs(site, session, email) or not title.strip():
            return page(
                "workspaces.html",
                status=422,
                workspaces=axis.members.workspaces(session.user),
                problem="Please give the address you sign in with, and a title.",
            )
        tenant = TenantId(uuid.uuid4())
        with acting_as(session.principal(tenant=tenant, role="owner")):
            axis.members.create_workspace(title.strip()[:80])
            with site.db() as db:
                db.add(Profile(user_id=session.user.text, name=name.strip()[:80] or email, email=email.strip().lower()))
                db.commit()
        site.ring.create(tenant)
        return switch(session, visit, tenant)

    @api.post("/workspaces/choose")
    @signed_in()
    def choose(tenant: Annotated[uuid.UUID, Form()], session: CurrentSession, visit: CurrentVisit) -> Response:
        # Whether the person is a member is asked at each request by the gate: choosing another's workspace shows nothing of it.
        return switch(session, visit, TenantId(tenant))

    def switch(session: Session, visit: Visit, tenant: TenantId) -> Response:
        moved = run(auth.sessions.switch_tenant(session, visitor=visit.visitor, tenant=tenant))
        if moved is not None:
            visit.send(moved.headers)
        return back_to("/contacts")

    @api.get("/join")
    @public("whoever is invited may have no account yet; opening the page spends nothing")
    def join_page(visit: CurrentVisit, token: str = "") -> Response:
        if token:
            return land(visit, auth.invitations.land(token, visitor=visit.visitor), "/join", "join.html")
        ok = auth.invitations.landed(visitor=visit.visitor) is not None
        return page("join.html", status=200 if ok else 410, ok=ok)

    @api.post("/join")
    @signed_in()
    def join(name: Text, session: CurrentSession, visit: CurrentVisit) -> Response:
        token = auth.invitations.landed(visitor=visit.visitor)
        for digest in auth.invitations.digests(None if token is None else token.reveal()):
            invitation = axis.members.peek(digest=digest)
            # The letter went to that address: only the account that signs in with it may accept.
            if invitation is not None and _is_theirs(site, session, invitation.email):
                tenant = TenantId(uuid.UUID(invitation.tenant))
                with acting_as(session.principal(tenant=tenant, role=invitation.role)):
                    axis.members.accept(digest=digest, email=invitation.email)
                    with site.db() as db:
                        db.add(Profile(user_id=session.user.text, name=name.strip()[:80] or invitation.email, email=invitation.email))
                        db.commit()
                visit.send(auth.tokens.leave(visitor=visit.visitor))
                return switch(session, visit, tenant)
        return page("join.html", status=410, ok=False)

    return api


def _is_theirs(site: Site, session: Session, email: str) -> bool:
    account = site.axis.runner.perform(FindAccount(identifier_or_decoy(email)))
    return account is not None and account.verified and account.user == session.user
