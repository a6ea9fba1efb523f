"""What two people in two browsers do with each other, a second factor, and pages that are asked for what they do not offer."""

from __future__ import annotations

import re

import pyotp
import pytest
from tests.browser.hosts.conftest import People


@pytest.mark.parametrize(("role", "works", "manages"), [("member", True, False), ("viewer", False, False)])
def test_a_forged_form_with_a_good_token_is_refused(people: People, role: str, works: bool, manages: bool) -> None:
    """What has no button for a role is refused when its own page asks for it, with the session's cookie and the right token."""
    person = people.signed_in(role)
    person.go("/workspaces")
    for path, fields, allowed in (
        ("/contacts", {"name": f"{role} was here"}, works),
        ("/members/invite", {"email": f"{role}@x.example", "role": "viewer"}, manages),
        ("/export", {}, manages),
    ):
        assert person.page.evaluate(_FORGE, [path, fields]) == (200 if allowed else 403), path


# As the app's own page: the session's cookie travels, and the token is the right one.
_FORGE = """async ([path, fields]) => {
  const token = document.querySelector('input[name=csrf_token]').value
  const answer = await fetch(path, {method: 'POST', body: new URLSearchParams({csrf_token: token, ...fields})})
  return answer.status
}"""


def test_the_second_factor_from_the_picture_to_the_door(people: People) -> None:
    """The picture is drawn, its seed makes codes, and from then on the password alone is half a sign-in; a recovery code is the spare key."""
    adam = people.signed_in("admin", "globex")
    adam.go("/account")
    adam.press("Set up an authenticator")
    box = adam.page.locator(".qr svg").bounding_box()
    assert box is not None
    assert box["width"] > 120
    seed = pyotp.TOTP(adam.page.locator("#seed").inner_text())
    adam.fill(Code=seed.now())
    adam.press("Turn it on")
    codes = adam.page.locator(".codes code").all_inner_texts()
    assert len(codes) >= 8
    again = people.stranger()
    again.sign_in("admin@globex.example")
    assert again.path() == "/sign-in/code"
    again.go("/contacts")
    assert again.path().startswith("/sign-in")
    again.go("/sign-in/code")
    again.fill(Code=codes[0])
    again.press("Continue")
    assert again.path() == "/contacts"
    again.go("/account")
    assert f"{len(codes) - 1} recovery codes left" in again.main()
    again.press("Turn it off")
    assert "second factor is off" in again.main()


def test_an_invitation_in_two_browsers(people: People) -> None:
    """One invites, the other opens the letter, signs in with that address and joins; whoever invited sees them come, and takes the role away again."""
    olga, victor = people.signed_in("owner"), people.signed_in("member", "globex")
    olga.go("/members")
    invite = olga.page.locator("form[action='/members/invite']")
    invite.get_by_label("E-mail").fill("member@globex.example")
    invite.get_by_label("Role").select_option("viewer")
    olga.press("Send the invitation")
    victor.page.goto(olga.letter())
    victor.fill(Your_name="Mia the guest")
    victor.press("Join")
    assert "Ines Duarte" in victor.main()
    assert not victor.page.get_by_text("New contact").is_visible()
    olga.go("/members")
    row = olga.page.get_by_role("row").filter(has_text="Mia the guest")
    row.get_by_role("combobox").select_option("member")
    with olga.page.expect_navigation():
        row.get_by_role("button", name="Set").click()
    victor.go("/contacts")
    assert victor.page.get_by_text("New contact").is_visible(), "the role counts from the next request on"
    row = olga.page.get_by_role("row").filter(has_text="Mia the guest")
    with olga.page.expect_navigation():
        row.get_by_role("button", name="Remove").click()
    assert victor.go("/contacts").status == 403
    victor.follow("Workspaces")
    victor.press("Globex member")
    assert "Lena Fischer" in victor.main()


def test_the_security_page_is_measured_and_open(people: People) -> None:
    """Anybody may read it, over TLS 1.3; every promise is held, or not made with a reason."""
    anybody = people.stranger()
    details = anybody.go("/security").security_details()
    assert details is not None
    assert details["protocol"] == "TLS 1.3"
    verdicts = anybody.page.locator(".verdict").all_inner_texts()
    assert {text.lower() for text in verdicts} == {"held", "not made here"}
    assert re.search(r"Measured on this system at \d{4}-", anybody.main())
    assert anybody.complaints == []
