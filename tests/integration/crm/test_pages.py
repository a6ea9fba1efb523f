"""A day in the CRM: sign-up to export, four roles, two workspaces, and the security page."""

from __future__ import annotations

import io
import json
import re
import zipfile

import psycopg
import pyotp
import pytest
from examples.crm.seed import PASSWORD
from tests.integration.crm.conftest import Browser, Crm

from axis_security.adapters.audit import audit


def test_every_route_is_marked(crm: Crm) -> None:
    """The audit of routes finds nothing that nobody decided about, and lists the JSON interface with its guards."""
    found = audit(crm.app)
    found.require_marked()
    may = {(method, route.path): route.may for route in found.routes for method in route.methods}
    assert may["POST", "/export"] == "users.manage"
    assert may["GET", "/api/contacts"] == "contacts.read"


def test_from_sign_up_to_export(crm: Crm) -> None:
    """A stranger opens an account and a workspace, adds a contact with a file, finds it by its sealed address, and exports everything; letters are links."""
    client = crm.client()
    email = "nadia@new.example"
    assert "sent a letter" in client.post("/sign-up", data={"email": email, "password": PASSWORD}).text
    link = crm.site.outbox[0].link.removeprefix(crm.origin)
    assert "Confirm" in client.get(link).text
    assert "confirmed" in client.post("/verify").text
    answer = client.post("/sign-in", data={"email": email, "password": PASSWORD})
    assert answer.url.path == "/workspaces"
    nadia = Browser(client)
    assert nadia.post("/workspaces", {"title": "Nadia's", "name": "Nadia", "email": "owner@acme.example"}).status_code == 422
    assert nadia.post("/workspaces", {"title": "Nadia's", "name": "Nadia", "email": email}).url.path == "/contacts"
    page = nadia.post("/contacts", {"name": "Rui", "company": "Rui & Co", "email": "Rui@Example.com", "phone": "1"})
    key = page.url.path.rpartition("/")[2]
    page = nadia.post(f"/contacts/{key}/files", files={"file": ("offer é.txt", b"the offer" * 5000, "text/html")})
    [file] = re.findall(r"/files/([0-9a-f-]{36})", page.text)
    served = nadia.get(f"/files/{file}")
    assert (served.content, served.headers["content-type"]) == (b"the offer" * 5000, "application/octet-stream")
    assert "Rui" in nadia.get("/contacts", email="rui@EXAMPLE.com").text
    assert "Nobody here" in nadia.get("/contacts", email="rui@example.org").text
    stored = [path.read_bytes() for path in (crm.home / "objects").rglob("*") if path.is_file()]
    assert stored
    assert not any(b"the offer" in data for data in stored)
    archive = nadia.post("/export")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        manifest = json.loads(opened.read("manifest.json"))
        rows = [json.loads(line) for line in opened.read("public.contact.jsonl").splitlines()]
    assert [row["name"] for row in rows] == ["Rui"]
    assert {entry["file"] for entry in manifest["files"]} >= {"public.attachment.csv", "public.deal.jsonl"}
    gone = nadia.post(f"/contacts/{key}/delete")
    assert (gone.status_code, gone.url.path) == (200, "/contacts"), gone.text
    assert nadia.get(f"/files/{file}").status_code == 404


def test_a_contact_that_a_program_deletes_takes_its_files_along(crm: Crm) -> None:
    """What a person deletes on a page and a program through the interface is the same: nothing of it stays in the object store."""

    def kept() -> set[str]:
        return {str(path) for path in (crm.home / "objects").rglob("*") if path.is_file()}

    owner, before = crm.signed_in("owner"), kept()
    for program in (True, False):
        key = owner.post("/contacts", {"name": "Short stay"}).url.path.rpartition("/")[2]
        assert owner.post(f"/contacts/{key}/files", files={"file": ("a.txt", b"x" * 100, "text/plain")}).status_code == 200
        assert kept() - before
        if program:
            assert owner.client.delete(f"/api/contacts/{key}", headers={"x-csrf-token": owner.token()}).status_code == 204
        else:
            assert owner.post(f"/contacts/{key}/delete").status_code == 200
        assert kept() == before


def test_an_address_or_a_role_that_cannot_be_is_told_on_the_page(crm: Crm) -> None:
    """A typing error is the person's to mend: a page that says so, not an error of the server; and nobody is invited."""
    owner = crm.signed_in("owner")
    for form in ({"email": "x", "role": "viewer"}, {"email": "x" * 390, "role": "viewer"}, {"email": "new@x.example", "role": "r" * 100}):
        answer = owner.post("/members/invite", form)
        assert (answer.status_code, "Please check what you entered" in answer.text) == (400, True)
    assert owner.post(f"/members/{crm.person('member').user}/role", {"role": "r" * 100}).status_code == 400
    assert owner.post("/members/nobody/role", {"role": "viewer"}).status_code == 422


def test_the_database_holds_no_plain_address(crm: Crm) -> None:
    """What is shown on the page is not what is stored."""
    assert "ines@harbour.example" in crm.signed_in("viewer").get("/contacts").text
    with psycopg.connect(crm.dsn) as connection:
        rows = connection.execute("SELECT contact::text FROM contact").fetchall()
    assert rows
    assert not any("harbour.example" in row[0] or "+351" in row[0] or "fair" in row[0] for row in rows)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("owner", {"/contacts", "/members/invite", "/audit", "/export"}),
        ("admin", {"/contacts", "/members/invite", "/audit", "/export"}),
        ("member", {"/contacts"}),
        ("viewer", set()),
    ],
)
def test_each_role_may_what_its_line_says(crm: Crm, role: str, allowed: set[str]) -> None:
    """Writing, inviting, the log and the export, asked as each role: forms and addresses alike."""
    browser = crm.signed_in(role)
    answers = {
        "/contacts": browser.post("/contacts", {"name": f"by {role}"}).status_code,
        "/members/invite": browser.post("/members/invite", {"email": f"{role}-friend@x.example", "role": "viewer"}).status_code,
        "/audit": browser.get("/audit").status_code,
        "/export": browser.post("/export").status_code,
    }
    assert {path for path, status in answers.items() if status == 200} == allowed
    assert {status for path, status in answers.items() if path not in allowed} <= {403}
    page = browser.get("/contacts").text
    assert ("New contact" in page) == ("/contacts" in allowed)
    assert ("Export the workspace" in page) == ("/export" in allowed)


def test_workspaces_are_islands(crm: Crm) -> None:
    """Ids of one workspace's contacts, deals and files lead nowhere in the other, whatever is done with them."""
    olga, other = crm.signed_in("owner"), crm.signed_in("owner", "globex")
    key = olga.ids("contacts")[0]
    page = olga.post(f"/contacts/{key}/files", files={"file": ("a.txt", b"x", "text/plain")})
    [file] = re.findall(r"/files/([0-9a-f-]{36})", page.text)[:1]
    [deal] = olga.ids("deals", "/deals")[:1]
    assert other.get(f"/contacts/{key}").status_code == 404
    assert other.get(f"/files/{file}").status_code == 404
    for path, data in {
        f"/contacts/{key}": {"name": "taken"},
        f"/contacts/{key}/delete": {},
        f"/contacts/{key}/deals": {"title": "taken"},
        f"/deals/{deal}/stage": {"stage": "won"},
    }.items():
        assert other.post(path, data).status_code == 404
    assert other.post(f"/contacts/{key}/files", files={"file": ("a.txt", b"x", "text/plain")}).status_code == 404
    assert "taken" not in olga.get(f"/contacts/{key}").text


def test_an_invitation_is_for_its_address(crm: Crm) -> None:
    """The letter's link joins the account that signs in with that address, and nobody else; then the role may be changed, and the last owner stays."""
    olga = crm.signed_in("owner")
    olga.post("/members/invite", {"email": "viewer@globex.example", "role": "member"})
    link = crm.site.outbox[0].link.removeprefix(crm.origin)
    stranger = crm.signed_in("member", "globex")
    stranger.get(link)
    assert stranger.post("/join", {"name": "not me"}).status_code == 410
    victor = crm.signed_in("viewer", "globex")
    assert "Your name" in victor.get(link).text
    assert victor.post("/join", {"name": "Victor too"}).url.path == "/contacts"
    assert "Ines" in victor.get("/contacts").text
    user = crm.person("viewer", "globex").user.text
    assert olga.post(f"/members/{user}/role", {"role": "admin"}).status_code == 200
    assert victor.get("/audit").status_code == 200, "the role counts from the next request on"
    assert olga.post(f"/members/{user}/remove").status_code == 200
    assert victor.get("/contacts").status_code == 403
    assert olga.post("/members/leave").status_code == 409
    assert "Olga" in olga.get("/members").text


def test_the_second_factor_from_enrolment_to_sign_in(crm: Crm) -> None:
    """Scan, confirm, keep the codes; then the password alone is half a sign-in, and a recovery code works once."""
    adam = crm.signed_in("admin", "globex")
    page = adam.post("/account/totp").text
    assert "<svg" in page
    seed = re.search(r'id="seed">([A-Z2-7]+)<', page)
    assert seed is not None
    page = adam.post("/account/totp/confirm", {"code": pyotp.TOTP(seed[1]).now()}).text
    codes = re.findall(r"<li><code>([^<]+)</code>", page)
    assert len(codes) >= 8
    client = crm.client()
    answer = client.post("/sign-in", data={"email": "admin@globex.example", "password": PASSWORD})
    assert answer.url.path == "/sign-in/code"
    assert client.get("/contacts").url.path == "/sign-in"
    assert client.post("/sign-in/code", data={"code": "000000"}).status_code == 401
    assert client.post("/sign-in/code", data={"code": codes[0]}).url.path == "/contacts"
    again = crm.client()
    again.post("/sign-in", data={"email": "admin@globex.example", "password": PASSWORD})
    assert again.post("/sign-in/code", data={"code": codes[0]}).status_code == 401
    assert "this one" in adam.get("/account").text
    assert adam.post("/account/totp/disable").status_code == 200


def test_signing_out_ends_the_session_and_devices_can_be_ended(crm: Crm) -> None:
    """A copied cookie is worth nothing after signing out, and one browser ends another."""
    mia, second = crm.signed_in("member", "globex"), crm.signed_in("member", "globex")
    [handle] = re.findall(r"/account/devices/([0-9a-f-]{36})", mia.get("/account").text)[:1]
    mia.post(f"/account/devices/{handle}")
    assert second.client.get("/contacts").url.path == "/sign-in"
    copied = dict(mia.client.cookies)
    mia.post("/sign-out")
    thief = crm.client()
    thief.cookies.update(copied)
    assert thief.get("/contacts").url.path == "/sign-in"


def test_the_security_page_holds(crm: Crm) -> None:
    """Every promise that the CRM makes is measured green on the page; what it does not make says why."""
    page = crm.client().get("/security").text
    verdicts = re.findall(r'class="verdict">([^<]+)<', page)
    assert verdicts.count("held") == 11, re.findall(r"<strong>[^<]+</strong>: [^<]+", page)
    assert verdicts.count("not made here") == 3
    assert PASSWORD not in page
    assert crm.client().get("/readyz").status_code == 200
    assert "Contact: mailto:security@tidepool.example" in crm.client().get("/.well-known/security.txt").text


def test_headers_and_cookies_of_a_page(crm: Crm) -> None:
    """A page says what browsers may do with it; the session's cookie is `__Host-`, Secure, HttpOnly and Lax; nothing is kept by caches."""
    client = crm.client()
    answer = client.post("/sign-in", data={"email": "viewer@acme.example", "password": PASSWORD}, follow_redirects=False)
    cookies = [line for line in answer.headers.get_list("set-cookie") if "session" in line.split("=")[0]]
    assert cookies
    assert all(line.startswith("__Host-") and "; Secure" in line and "; HttpOnly" in line and "; SameSite=Lax" in line for line in cookies)
    page = client.get("/contacts")
    assert page.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert not re.search(r"<script|\son\w+=|\sstyle=", page.text)
