"""Other sites, one a stranger's and one under our own domain, against a browser that is signed in; and what the browser keeps afterwards."""

from __future__ import annotations

import pytest
from examples.crm.seed import PASSWORD
from tests.browser.hosts.conftest import CRM, SISTER, STRANGER, People, Person

FORM = """<!doctype html><title>win</title>
<form method="post" action="{origin}{path}" enctype="{kind}">{fields}</form><script>document.forms[0].submit()</script>"""


def post_from(person: Person, host: str, path: str, kind: str = "application/x-www-form-urlencoded", **fields: str) -> int:
    """Visit *host*, whose page posts a form to the CRM at once; the status of the CRM's answer."""
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    person.site.pages[host] = FORM.format(origin=person.site.origin, path=path, kind=kind, fields=inputs)
    with person.page.expect_response(lambda answer: answer.url == person.site.origin + path and answer.request.method == "POST") as seen:
        person.page.goto(person.site.other(host), wait_until="commit")
    person.page.wait_for_load_state()
    return seen.value.status


@pytest.mark.parametrize("host", [STRANGER, SISTER])
def test_forms_and_scripts_of_other_sites_change_nothing(people: People, host: str) -> None:
    """Forms in each encoding and a script's requests arrive from a stranger's site and from a sister's, with whose requests the cookies travel: each is refused.

    The control: the same fields with the page's own token, sent from the CRM's page, are accepted.
    """
    mia = people.signed_in("member")
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        assert post_from(mia, host, "/contacts", kind, name="planted", csrf_token="A" * 86) == 403
    mia.site.pages.clear()
    mia.page.goto(mia.site.other(host))
    mia.site.answers.clear()
    # A simple request is sent, with the sister's cookies or the stranger's none; one that asks first gets no leave; no answer is readable.
    for path, options in (
        ("/contacts", "{method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams({name: 'planted'})}"),
        ("/api/contacts", "{method: 'PUT', credentials: 'include'}"),
        ("/api/contacts", "{credentials: 'include'}"),
    ):
        asked = f"url => fetch(url, {options}).then(() => 'read', () => 'blocked')"
        assert mia.page.evaluate(asked, mia.site.origin + path) == "blocked"
    assert ("POST", "/contacts", 403) in mia.site.answers
    assert "PUT" not in {method for method, _, _ in mia.site.answers}
    mia.go("/contacts")
    assert "planted" not in mia.main()
    mia.page.get_by_text("New contact").click()
    mia.page.locator("details form").get_by_label("Name").fill(f"own {host}")
    mia.press("Add")
    assert mia.page.get_by_role("heading", name=f"own {host}").is_visible()


def test_nobody_is_signed_in_to_somebody_elses_account(people: People) -> None:
    """A stranger's page cannot sign the browser in to an account of the stranger's, nor out of its own."""
    victim = people.stranger()
    victim.go("/sign-in")
    fields = {"email": victim.site.crm.person("viewer", "globex").email, "password": PASSWORD}
    assert post_from(victim, STRANGER, "/sign-in", **fields) == 403
    assert victim.go("/account").url.endswith("/sign-in?next=%2Faccount") or victim.path().startswith("/sign-in")
    victim.sign_in(victim.site.crm.person("viewer").email)
    assert post_from(victim, SISTER, "/sign-out") == 403
    victim.go("/contacts")
    assert victim.path() == "/contacts"


def test_cookies_stay_at_home(people: People) -> None:
    """Each is `__Host-`, Secure, HttpOnly, Lax and for one host; neither scripts nor the other two sites see one, though one shares our domain."""
    olga = people.signed_in("owner")
    jar = olga.context.cookies()
    assert jar, jar
    for cookie in jar:
        assert cookie["name"].startswith("__Host-"), cookie
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        assert cookie["sameSite"] == "Lax" or (cookie["sameSite"] == "Strict" and "session" not in cookie["name"])
        assert (cookie["path"], cookie["domain"]) == ("/", CRM)
    assert olga.page.evaluate("document.cookie") == ""
    for host in (SISTER, STRANGER):
        olga.page.goto(olga.site.other(host))
        assert set(olga.site.cookies[host]) == {""}


def test_a_sister_plants_no_session(people: People) -> None:
    """From under our domain a session is planted in every spelling that browsers take; the CRM adopts none, and a real one beside them still counts.

    The control: the browser does send what was planted.
    """
    thief, victim = people.signed_in("owner", "globex"), people.stranger()
    [mine] = [cookie for cookie in thief.context.cookies() if "session" in cookie["name"]]
    name, value = mine["name"], mine["value"]
    spellings = [
        name,
        name.removeprefix("__Host-"),
        f" {name}",
        f"{name} ",
        name.lower(),
        name.replace("__Host-", "__host-"),
        f"\u2003{name}",
        "",
    ]
    plant = """([names, value]) => { for (const name of names)
      document.cookie = `${name}=${name === '' ? names[0] + '=' : ''}${value}; Domain=tidepool.test; Path=/; Secure; SameSite=None` }"""
    victim.page.goto(victim.site.other(SISTER))
    victim.page.evaluate(plant, [spellings, value])
    planted = {cookie["name"] for cookie in victim.context.cookies(victim.site.origin)}
    assert name.removeprefix("__Host-") in planted
    assert name not in planted, "the browser keeps the prefix for the host itself"
    victim.go("/contacts")
    assert victim.path().startswith("/sign-in"), "nobody is signed in as the thief"
    victim.sign_in(victim.site.crm.person("viewer").email)
    assert victim.path() == "/contacts"
    assert "Ines Duarte" in victim.main()


def test_the_pages_are_in_nobodys_frame(people: People) -> None:
    """A page of ours in a frame of a sister's stays empty, so nothing of it can be clicked. The control: without the headers it is shown there."""
    olga = people.signed_in("owner")
    olga.site.pages[SISTER] = f'<!doctype html><title>frame</title><iframe src="{olga.site.origin}/members"></iframe>'
    olga.page.goto(olga.site.other(SISTER))
    assert "Olga" not in olga.page.frames[1].content()
    olga.site.spoil = lambda headers: [
        (name, value)
        for name, value in headers
        if name not in {b"x-frame-options", b"content-security-policy", b"cross-origin-resource-policy"}
    ]
    olga.page.goto(olga.site.other(SISTER))
    assert "Olga" in olga.page.frames[1].content()


def test_the_back_button_asks_the_server(people: People) -> None:
    """After signing out, going back shows nothing that needs a session. The control: without `no-store` the browser shows the page it kept."""

    def back(person: Person) -> str:
        person.follow("Ines Duarte")
        assert "ines@harbour.example" in person.page.content()
        person.press("Sign out", within="header")
        person.page.go_back()
        person.page.wait_for_load_state()
        return person.page.content()

    assert "harbour" not in back(people.signed_in("member"))
    careless = people.signed_in("member")
    careless.site.spoil = lambda headers: (
        [(name, value) for name, value in headers if name not in {b"cache-control", b"vary", b"clear-site-data"}]
        + [(b"cache-control", b"private, max-age=600")]
    )
    assert "ines@harbour.example" in back(careless)


def test_tabs_share_one_session_through_rotations(people: People) -> None:
    """A form that was open before a step-up still counts after it, twenty requests through rotations are all served, and signing out in one tab ends both."""
    first = people.signed_in("member", "globex")
    second = people.tab(first)
    second.go("/contacts")
    old = {cookie["value"] for cookie in first.context.cookies() if "session" in cookie["name"]}
    first.go("/confirm")
    first.fill(Password=PASSWORD)
    with second.page.expect_response("**/deals"):
        second.page.evaluate("window.seen = Promise.all(Array.from({length: 20}, () => fetch('/deals').then(answer => answer.url))); 0")
    # The other tab is still asking while the first is given a new id.
    first.press("Confirm")
    new = {cookie["value"] for cookie in first.context.cookies() if "session" in cookie["name"]}
    assert old.isdisjoint(new)
    assert {url.removeprefix(second.site.origin) for url in second.page.evaluate("window.seen")} == {"/deals"}
    second.page.get_by_text("New contact").click()
    second.page.locator("details form").get_by_label("Name").fill("From the other tab")
    second.press("Add")
    assert second.page.get_by_role("heading", name="From the other tab").is_visible()
    first.press("Sign out", within="header")
    second.go("/contacts")
    assert second.path().startswith("/sign-in")


def test_one_browser_ends_another(people: People) -> None:
    """The list of devices ends the session of a browser elsewhere; its next click leads to the door."""
    here, there = people.signed_in("viewer", "globex"), people.signed_in("viewer", "globex")
    here.go("/account")
    here.press("End all others")
    there.go("/contacts")
    assert there.path().startswith("/sign-in")
    here.go("/contacts")
    assert here.path() == "/contacts"
