"""Somebody with accounts of their own, a raw HTTP client and patience: no server error, no foreign row, nothing changed."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from examples.crm.seed import PASSWORD
from tests.integration.crm.conftest import Browser, Crm

from axis_security import Principal, Secret, acting_as
from axis_security.adapters.audit import audit
from axis_security.auth.visitor import Visitor
from axis_security.core.ids import UserId

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
VERBS = (*SAFE, "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "QUERY", "get", "FOO")
SECRETS = ("Ines", "Harbour", "Berg", "Mori", "of Acme", "acme.example")
"""Words of the victims' workspace."""


def newcomer(crm: Crm, role: str = "member", workspace: str = "acme") -> tuple[str, str]:
    """Address and id of a fresh member, for tests that spend them."""
    axis, email, user = crm.site.axis, f"{uuid.uuid4().hex[:12]}@{workspace}.example", UserId(uuid.uuid4())
    visitor = Visitor(cookies=axis.auth.profile.read(None), address="127.0.0.1", agent="setup", host="localhost")
    answer: Any = axis.run(axis.auth.lifecycle.register(user=user, identifier=email, password=Secret(PASSWORD), visitor=visitor))
    axis.run(axis.auth.lifecycle.verify(token=answer.letter.token, visitor=visitor))
    owner = crm.person("owner", workspace)
    _, digest = axis.auth.invitations.mint()
    with acting_as(Principal(tenant=owner.tenant, user=owner.user, role="owner")):
        axis.members.invite(digest=digest, email=email, role=role)
    with acting_as(Principal(tenant=owner.tenant, user=user, role=role)):
        axis.members.accept(digest=digest, email=email)
    return email, user.text


def enter(crm: Crm, email: str, password: str = PASSWORD) -> Browser:
    client = crm.client()
    answer = client.post("/sign-in", data={"email": email, "password": password})
    assert (answer.status_code, answer.url.path) == (200, "/contacts"), answer.text
    return Browser(client)


def session_of(crm: Crm, browser: Browser) -> tuple[str, str]:
    """Name and value of the session's cookie."""
    [found] = [(name, value) for name, value in browser.client.cookies.items() if "session" in name]
    return found


def with_cookie(crm: Crm, header: str | bytes, path: str = "/contacts") -> httpx.Response:
    """Ask with exactly that ``Cookie`` header."""
    client = crm.client()
    client.follow_redirects = False
    answer: httpx.Response = client.get(path, headers=[(b"cookie", header if isinstance(header, bytes) else header.encode())])
    return answer


def rows(crm: Crm, workspace: str) -> list[tuple[Any, ...]]:
    """Everything that a workspace holds, as the administrator sees it, members and sessions included."""
    tenant = crm.person("owner", workspace).tenant.value
    with psycopg.connect(crm.dsn) as connection:
        found: list[tuple[Any, ...]] = []
        for table in ("profile", "contact", "deal"):
            found += connection.execute(f"SELECT '{table}', t::text FROM {table} t WHERE tenant_id = %s ORDER BY 2", (tenant,)).fetchall()
        found += connection.execute(
            "SELECT 'attachment', a::text FROM attachment a JOIN contact c ON c.id = a.contact_id WHERE c.tenant_id = %s ORDER BY 2",
            (tenant,),
        ).fetchall()
        return found


@pytest.fixture(scope="module")
def victim(crm: Crm) -> Browser:
    """The owner of the workspace that everybody is after; a file and a second device are there to be taken."""
    olga = crm.signed_in("owner")
    key = olga.ids("contacts")[0]
    assert olga.post(f"/contacts/{key}/files", files={"file": ("plan.txt", b"the plan of Harbour Foods", "text/plain")}).status_code == 200
    return olga


@pytest.fixture(scope="module")
def loot(crm: Crm, victim: Browser) -> dict[str, list[str]]:
    """Every id of the victims' workspace, by what it names."""
    key = victim.ids("contacts")[0]
    crm.signed_in("owner")  # a second device, which shows in the list with its handle
    found = {
        "contact": victim.ids("contacts"),
        "deal": victim.ids("deals", "/deals"),
        "file": victim.ids("files", f"/contacts/{key}"),
        "device": victim.ids("account/devices", "/account"),
        "user": [each.user.text for each in crm.people if each.workspace == "acme"],
        "tenant": [str(crm.person("owner").tenant.value)],
    }
    assert all(found.values()), found
    return found


def addresses(crm: Crm, keys: list[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Every route of the app with every id in every place for one."""
    for route in audit(crm.app).routes:
        places = re.findall(r"\{(\w+)(?::\w+)?\}", route.path)
        if not places or route.path.startswith("/static"):
            continue
        for key in keys:
            yield re.sub(r"\{\w+(?::\w+)?\}", key, route.path), frozenset(route.methods)


def test_no_id_of_another_workspace_opens_anything(crm: Crm, victim: Browser, loot: dict[str, list[str]]) -> None:
    """Every id of one workspace, in every route that takes an id, with each method the route has, as the other's owner: 403, 404, 405, 409 or 422, no word of theirs,
    no row changed, nobody signed out. The control: some of these requests do open something for the victim.
    """
    before = rows(crm, "acme")
    mallory = crm.signed_in("owner", "globex")
    token = mallory.token()
    keys = [key for found in loot.values() for key in found[:2]]
    tried, opened = 0, 0
    for path, methods in addresses(crm, keys):
        for method in methods - {"OPTIONS"}:
            answer = mallory.client.request(
                method,
                path,
                headers={"x-csrf-token": token},
                data=None if method in {"GET", "HEAD"} else {"name": "taken", "title": "taken", "stage": "won", "role": "owner"},
                follow_redirects=False,
            )
            tried += 1
            # Ending a device that is not one's own answers as ending one that is gone does.
            allowed = {303} if path.startswith("/account/devices/") and method == "POST" else {403, 404, 405, 409, 422}
            assert answer.status_code in allowed, (method, path, answer.status_code)
            assert not any(word in answer.text for word in SECRETS), (method, path)
        if "GET" in methods:
            opened += victim.client.get(path).status_code == 200
    assert tried > 100
    assert opened >= 5
    assert rows(crm, "acme") == before
    assert victim.get("/account").status_code == 200
    assert len(victim.ids("account/devices", "/account")) == len(loot["device"]), "no device of the victim's was ended"


@pytest.mark.parametrize(
    "key",
    ["0", "-1", "%00", "..%2f..%2fetc%2fpasswd", "' OR 1=1 --", "{{7*7}}", "A" * 5000, "00000000-0000-0000-0000-000000000000", "é", "%ff"],
)
def test_ids_that_are_none_find_nothing(crm: Crm, key: str) -> None:
    """Odd text in the place of an id is refused before it reaches anything."""
    mallory = crm.signed_in("owner", "globex")
    token = mallory.token()
    for path, methods in addresses(crm, [key]):
        for method in methods - {"OPTIONS"}:
            answer = mallory.client.request(method, path, headers={"x-csrf-token": token}, follow_redirects=False)
            gone = path.startswith("/account/devices/") and answer.status_code == 303  # a device that is gone has been ended
            assert gone or 400 <= answer.status_code < 500, (method, path, answer.status_code)


def test_no_verb_opens_what_another_keeps_shut(crm: Crm, victim: Browser) -> None:
    """Every route with a dozen methods, and with headers that ask a framework to take one for another, as nobody and as a viewer: no server error, nothing changed."""
    key = victim.ids("contacts")[0]
    before = rows(crm, "acme")
    viewer, nobody = enter(crm, newcomer(crm, "viewer")[0]), crm.client()
    token = viewer.token()
    paths = sorted(
        {re.sub(r"\{\w+(?::\w+)?\}", key, route.path) for route in audit(crm.app).routes if not route.path.startswith("/static")}
    )
    asked = 0
    for path, verb in itertools.product(paths, VERBS):
        if path == "/members/leave" or (path == "/sign-out" and verb == "POST"):
            continue  # a viewer's own affair
        answers = [nobody.request(verb, path, follow_redirects=False)]
        if verb not in SAFE or path.startswith("/api"):
            answers.append(viewer.client.request(verb, path, headers={"x-csrf-token": token}, follow_redirects=False))
        if verb == "GET":
            override = {"x-http-method-override": "DELETE", "x-method-override": "POST", "x-csrf-token": token}
            answers.append(viewer.client.get(path, params={"_method": "DELETE"}, headers=override, follow_redirects=False))
        asked += len(answers)
        assert all(answer.status_code < 500 for answer in answers), (verb, path)
        if path.startswith(("/api/", "/contacts", "/deals", "/files", "/members", "/audit", "/export")):
            assert answers[0].status_code in {303, 401, 403, 404, 405}, (verb, path, answers[0].status_code)
    assert asked > 400
    assert [row for row in rows(crm, "acme") if row not in before] == []
    assert len(rows(crm, "acme")) == len(before)


def test_nobody_assigns_what_is_not_theirs(crm: Crm) -> None:
    """A tenant, an owner, an id or a role in a body: refused where the interface is strict, without effect where it is a form."""
    mallory, victims = crm.signed_in("member", "globex"), crm.person("owner")
    token, before = mallory.token(), rows(crm, "acme")
    planted = {
        "id": str(uuid.uuid4()),
        "tenant_id": str(victims.tenant.value),
        "owner_id": victims.user.text,
        "user_id": victims.user.text,
        "role": "owner",
        "created_at": "1999-01-01T00:00:00",
    }
    for field, value in planted.items():
        answer = mallory.client.post("/api/contacts", json={"name": "planted", field: value}, headers={"x-csrf-token": token})
        assert answer.status_code == 422, field
    made = mallory.client.post("/contacts", data={"csrf_token": token, "name": "planted", **planted})
    key = made.url.path.rpartition("/")[2]
    with psycopg.connect(crm.dsn) as connection:
        row = connection.execute(
            "SELECT tenant_id, owner_id, extract(year FROM created_at) > 2000 FROM contact WHERE id = %s", (key,)
        ).fetchone()
    me = crm.person("member", "globex")
    assert row == (me.tenant.value, me.user.text, True)
    assert key != planted["id"]
    assert mallory.client.post("/members/invite", data={"csrf_token": token, "email": "x@y.example", "role": "owner"}).status_code == 403
    assert mallory.client.post(f"/members/{me.user.text}/role", data={"csrf_token": token, "role": "owner"}).status_code == 403
    # Choosing the victims' workspace is no membership of it.
    mallory.client.post("/workspaces/choose", data={"csrf_token": token, "tenant": planted["tenant_id"]})
    assert mallory.get("/contacts").status_code == 403
    assert not any(word in mallory.get("/members").text for word in SECRETS)
    mallory.client.post("/workspaces/choose", data={"csrf_token": mallory.token(), "tenant": str(me.tenant.value)})
    assert rows(crm, "acme") == before


def test_an_admin_makes_no_owner(crm: Crm) -> None:
    """Rights are passed on, never made: an admin can neither invite an owner, nor become one, nor unseat one; an unknown role is no role."""
    adam = crm.signed_in("admin")
    owner, me = crm.person("owner").user.text, crm.person("admin").user.text
    assert adam.post("/members/invite", {"email": "friend@x.example", "role": "owner"}).status_code == 403
    assert adam.post(f"/members/{me}/role", {"role": "owner"}).status_code in {403, 409}
    assert adam.post(f"/members/{owner}/role", {"role": "viewer"}).status_code in {403, 409}
    assert adam.post(f"/members/{owner}/remove").status_code in {403, 409}
    for role in ("root", "", "OWNER", "owner ", "member\x00"):
        assert 400 <= adam.post("/members/invite", {"email": "friend@x.example", "role": role}).status_code < 500, role
    page = adam.get("/members").text
    assert 'role-owner">owner' in page or "<option selected>owner" in page


def test_a_session_is_not_fixed_in_advance(crm: Crm) -> None:
    """Ids that the browser brings along, made up or an attacker's own, are never adopted: signing in makes a new one, and the old one does not become the victim's."""
    mallory = crm.signed_in("viewer", "globex")
    name, value = session_of(crm, mallory)
    for brought in (value, "A" * 86, value[:-1] + ("A" if value[-1] != "A" else "B"), "x"):
        client = crm.client()
        client.follow_redirects = False
        fields = {"email": crm.person("viewer").email, "password": PASSWORD}
        # Without its token the form of somebody who is signed in is refused; with a session of nobody's the form is a stranger's.
        answer = client.post("/sign-in", data=fields, headers=[("cookie", f"{name}={brought}")])
        set_now = [line.partition("=")[2].partition(";")[0] for line in answer.headers.get_list("set-cookie") if line.startswith(name)]
        assert brought not in set_now
        if brought == value:
            assert (answer.status_code, set_now) == (403, [])
        else:
            assert answer.status_code == 303
            assert with_cookie(crm, f"{name}={set_now[-1]}").status_code == 200
        assert "Ines" not in with_cookie(crm, f"{name}={brought}").text


def test_a_cookie_is_worth_nothing_under_another_name(crm: Crm) -> None:
    """A good id under each spelling that a sibling host could plant, doubled, quoted or padded, signs nobody in. The control: in its one spelling it does."""
    name, value = session_of(crm, crm.signed_in("viewer"))
    bare = name.removeprefix("__Host-")
    assert with_cookie(crm, f"{name}={value}").status_code == 200
    spoofed: list[str | bytes] = [
        f"{bare}={value}",
        f"__Secure-{bare}={value}",
        f"__host-{bare}={value}",
        f"__HOST-{bare}={value}",
        f" \u2003{name}={value}",
        f"\u00a0{name}={value}".encode("latin-1"),
        f"\x85{name}={value}".encode("latin-1"),
        f"={name}={value}",
        f'{name}="{value}"',
        f"{name}= {value} x",
        f"{name}={value}; {name}={value}",
        f"{name}={value}; {name}=other",
        f"{name}=other; {name}={value}",
        f'a="b; {name}={value}"; {bare}="c',
        f"{name}%3d{value}",
        f"__Host%2d{bare}={value}",
        f"$Version=1; $Path=/; {bare}={value}",
        f"{name}={value[:-2]}",
        f"{name}={value}.{value}",
        f"{name}={value}\x00",
        f"{name}=" + "A" * 5000,
        "x=" + "A" * 20_000 + f"; {name}={value}",
    ]
    for header in spoofed:
        answer = with_cookie(crm, header)
        if isinstance(header, str) and header.startswith('a="b; '):
            continue  # RFC 6265 splits at the semicolon: this is the cookie itself
        assert answer.status_code in {303, 400, 401}, header
        assert "Ines" not in answer.text


def test_a_copied_cookie_dies_with_its_session(crm: Crm) -> None:
    """After signing out, a change of password, or the end of a membership, a copy made before opens nothing."""
    email, user = newcomer(crm)
    mia = enter(crm, email)
    name, value = session_of(crm, mia)
    assert with_cookie(crm, f"{name}={value}").status_code == 200
    mia.post("/sign-out")
    assert with_cookie(crm, f"{name}={value}").status_code in {303, 401}

    mia, elsewhere = enter(crm, email), enter(crm, email)
    copy, other = session_of(crm, mia), session_of(crm, elsewhere)
    assert mia.post("/account/password", {"current": PASSWORD, "new": "another uncommon sentence"}).status_code == 200
    assert with_cookie(crm, f"{other[0]}={other[1]}").status_code in {303, 401}, "sessions elsewhere end"
    assert mia.get("/contacts").status_code == 200
    fresh = session_of(crm, mia)
    assert fresh != copy

    owner = crm.signed_in("owner")
    assert owner.post(f"/members/{user}/remove").status_code == 200
    answer = with_cookie(crm, f"{fresh[0]}={fresh[1]}")
    assert answer.status_code == 403
    assert not any(word in answer.text for word in SECRETS[:4])


def test_half_a_sign_in_and_other_cookies_open_nothing(crm: Crm) -> None:
    """The value of each cookie, put under the name of the session's, is not a session: every kind is signed for its own purpose."""
    client = crm.client()
    client.post("/sign-in", data={"email": crm.person("member").email, "password": PASSWORD, "remember": "true"})
    name = next(each for each in client.cookies if "session" in each)
    others = {each: value for each, value in client.cookies.items() if each != name}
    assert len(others) >= 2
    for value in others.values():
        assert with_cookie(crm, f"{name}={value}").status_code in {303, 401}


def test_a_token_is_for_one_session(crm: Crm) -> None:
    """A form's token of another session, of before signing in again, cut, doubled or absent is refused; a request from another origin is refused with a good one."""
    mia, other = crm.signed_in("member"), crm.signed_in("member")
    good = mia.token()
    for token in (other.token(), crm.signed_in("viewer").token(), good[:-1], good + good, "", "A" * 86):
        assert mia.client.post("/contacts", data={"csrf_token": token, "name": "forged"}).status_code == 403
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "https://crm.example.com.evil.example"},
        {"origin": "http://crm.example.com"},
        {"origin": "null"},
    ):
        assert mia.client.post("/contacts", data={"csrf_token": good, "name": "forged"}, headers=headers).status_code == 403, headers
    assert mia.client.post("/contacts", data={"csrf_token": good, "name": f"honest {uuid.uuid4().hex[:6]}"}).status_code == 200
    assert "forged" not in mia.get("/contacts").text


def test_nowhere_leads_out_of_the_app(crm: Crm) -> None:
    """What says where to go after signing in leads to the app itself, whatever it says."""
    for outside in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "%2f%2fevil.example",
    ):
        client = crm.client()
        client.follow_redirects = False
        answer = client.post("/sign-in", data={"email": crm.person("viewer").email, "password": PASSWORD, "next": outside})
        assert answer.headers["location"].startswith("/"), outside
        assert "evil" not in answer.headers["location"].lstrip("/").partition("?")[0] or answer.headers["location"].startswith("/%"), (
            outside
        )
        assert not answer.headers["location"].startswith(("//", "/\\")), outside


def test_no_byte_of_a_form_breaks_the_server(crm: Crm) -> None:
    """NUL, lone surrogates, other alphabets, marks that turn text round and very long text, in every field of every form that takes text: refused or kept, never a server error."""
    owner, key = crm.signed_in("owner", "globex"), ""
    key = owner.ids("contacts")[0]
    forms = {
        "/contacts": ("name", "company", "email", "phone"),
        f"/contacts/{key}": ("name", "company", "email", "phone", "notes"),
        f"/contacts/{key}/deals": ("title", "amount"),
        "/members/invite": ("email", "role"),
        "/workspaces": ("title", "name", "email"),
        "/workspaces/choose": ("tenant",),
        "/account/totp/confirm": ("code",),
        "/sign-up": ("email", "password"),
        "/sign-in/code": ("code",),
        "/forgot": ("email",),
    }
    token = owner.token()
    for path, fields in forms.items():
        for field, odd in itertools.product(fields, (b"%00", b"a%00b", b"%ED%A0%80", b"%FF", b"%E2%80%AE", b"x" * 390, b"x" * 5000, b"")):
            whole = dict.fromkeys(fields, b"1") | {field: odd, "csrf_token": token.encode()}
            body = b"&".join(name.encode() + b"=" + value for name, value in whole.items())
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = owner.client.post(path, content=body, headers=headers, follow_redirects=False)
            assert answer.status_code < 500, (path, field, odd[:20], answer.status_code)
