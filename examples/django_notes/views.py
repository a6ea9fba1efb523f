"""The pages. Every view says who may call it, right above its ``def``; there is no line about tenants."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views import View
from examples.django_notes.models import Note
from examples.django_notes.security import axis, caps

from axis_security import Secret, current_principal, public, requires
from axis_security.auth.login_states import SignedIn
from axis_security.auth.redirects import return_to
from axis_security.core.ids import TenantId
from axis_security.wiring.marks import signed_in
from axis_security.wiring.visit import current_visit

__all__ = ["Notes", "SignIn", "sign_out"]


class Notes(View):
    """The workspace's notes."""

    @requires(caps.notes.read)
    def get(self, request: HttpRequest) -> HttpResponse:
        """The list, and the form."""
        return render(request, "notes.html", {"notes": Note.objects.order_by("id"), "who": current_principal()})

    @requires(caps.notes.write)
    def post(self, request: HttpRequest) -> HttpResponse:
        """One more."""
        Note.objects.create(text=request.POST["text"][:500])
        return HttpResponseRedirect("/", status=303)


class SignIn(View):
    """The page to sign in on."""

    @public("the page to sign in on")
    def get(self, request: HttpRequest) -> HttpResponse:
        """The form."""
        return render(request, "sign_in.html")

    @public("whoever signs in is not signed in yet")
    def post(self, request: HttpRequest) -> HttpResponse:
        """The form, filled in."""
        visit = current_visit()
        email, password = request.POST["email"], Secret(request.POST["password"])
        outcome = axis.run(axis.auth.login.password(identifier=email, password=password, visitor=visit.visitor))
        if not isinstance(outcome, SignedIn):
            visit.send(outcome.headers)
            problem = getattr(outcome, "public_text", "Please use the other page.")
            return render(request, "sign_in.html", {"problem": problem}, status=403)
        headers = outcome.headers
        workspaces = axis.members.workspaces(outcome.session.user)
        if workspaces:
            chosen = TenantId(workspaces[0].tenant)
            started = axis.run(axis.auth.sessions.switch_tenant(outcome.session, visitor=visit.visitor, tenant=chosen))
            headers = headers if started is None else (*headers, *started.headers)
        visit.send(headers)
        return HttpResponseRedirect(return_to(request.GET.get("next")), status=303)


@signed_in()
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session, here and on the server."""
    visit = current_visit()
    if request.method == "POST":
        visit.send(axis.run(axis.auth.sessions.end(visit.visitor)))
    return HttpResponseRedirect("/sign-in", status=303)
