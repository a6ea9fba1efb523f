"""Any cookie header, any token, any code, any address: a typed answer, never an unhandled exception, and never a session."""

from __future__ import annotations

from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.auth.cookies import CookieKind, CookieProfile
from axis_security.auth.csrf import CsrfAllowed, CsrfRefused, RequestOrigin
from axis_security.auth.identifiers import identifier_or_decoy, normalise_identifier
from axis_security.auth.login_states import NeedsSecondFactor, Refused
from axis_security.auth.network import client_address, network_of
from axis_security.auth.redirects import return_to
from axis_security.auth.sessions import Anonymous, Authenticated
from axis_security.auth.signing import SigningKeys
from axis_security.auth.tokens import LinkRefused, Purpose
from axis_security.auth.visitor import Visitor, client_label
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import AuthWorld

PROFILE = CookieProfile.production()
NAMES = [PROFILE.name(kind) for kind in CookieKind]
ANY_TEXT = st.text() | st.text(alphabet=st.characters()) | st.binary().map(lambda raw: raw.decode("latin-1")) | st.just("\ud800")
PAIRS = st.lists(
    st.tuples(st.sampled_from([*NAMES, "a", "", "\u2000" + NAMES[0], " " + NAMES[0]]), st.sampled_from(["=", "", "=="]), ANY_TEXT).map(
        "".join
    ),
    max_size=6,
).map("; ".join)
HEADERS = ANY_TEXT | PAIRS | st.binary() | PAIRS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.lists(PAIRS, max_size=3)


@pytest.fixture(scope="module")
def world() -> AuthWorld:
    """An account with a second factor, and its pending login in nobody's hands."""
    world = AuthWorld()
    world.phone(world.account())
    return world


@given(header=HEADERS)
def test_any_cookie_header_is_read_and_signs_nobody_in(header: str | bytes | list[str], world: AuthWorld) -> None:
    """Every flow that looks at cookies answers; none of them finds a session in what we did not sign."""
    visitor = Visitor(cookies=PROFILE.read(header), address="192.0.2.1")
    assert isinstance(world.run(world.auth.sessions.resolve(visitor)), Anonymous)
    assert isinstance(world.run(world.auth.login.second_factor(code="000000", visitor=visitor)), Refused)
    assert isinstance(world.run(world.auth.login.remembered(visitor=visitor)), Refused)
    assert world.run(world.auth.login.pending(visitor=visitor)) is None
    assert world.auth.browsers.read(visitor, now=world.time) is None
    assert world.auth.tokens.landed(Purpose.PASSWORD_RESET, visitor=visitor) is None
    world.run(world.auth.sessions.end(visitor))


@given(values=st.dictionaries(st.sampled_from(list(CookieKind)), st.text(alphabet="abcXYZ019_~-.", max_size=120)))
def test_any_payload_that_we_signed_is_read_as_what_it_is_or_not_at_all(values: dict[CookieKind, str], world: AuthWorld) -> None:
    """Even under our own signature, a payload of the wrong form is absent: the form is checked as well."""
    jar = {}
    for kind, payload in values.items():
        try:
            jar[kind] = world.keys.signer(kind.value).sign(payload).reveal()
        except ValueError:
            continue
    header = "; ".join(f"{PROFILE.name(kind)}={value}" for kind, value in jar.items())
    visitor = Visitor(cookies=PROFILE.read(header))
    assert isinstance(world.run(world.auth.sessions.resolve(visitor)), Anonymous)
    assert isinstance(world.run(world.auth.login.remembered(visitor=visitor)), Refused)
    assert world.run(world.auth.login.pending(visitor=visitor)) is None
    assert world.auth.browsers.known(world.auth.browsers.read(visitor, now=world.time), "ann@example.com") is None


@given(text=ANY_TEXT | st.none() | st.integers() | st.binary())
def test_any_token_is_a_typed_refusal(text: object, world: AuthWorld) -> None:
    """Whatever stands in the link: refused, for every purpose."""
    visitor = world.browser().visitor
    for purpose in Purpose:
        assert isinstance(world.run(world.auth.tokens.peek(purpose, text)), LinkRefused)
        assert isinstance(world.run(world.auth.tokens.consume(purpose, text)), LinkRefused)
    assert isinstance(world.run(world.auth.tokens.land(Purpose.VERIFY_EMAIL, text, visitor=visitor)), LinkRefused)
    assert world.auth.invitations.digests(text) == ()


@given(code=ANY_TEXT)
def test_any_code_is_a_typed_answer(code: str) -> None:
    """Whatever is typed into the second form: refused, or the one right code in a million."""
    world = AuthWorld()
    world.phone(world.account())
    browser = world.browser()
    assert isinstance(browser.login(), NeedsSecondFactor)
    outcome = browser.code(code)
    assert isinstance(outcome, Refused) or code.isdigit()


@given(name=ANY_TEXT, password=ANY_TEXT)
def test_any_name_and_password_is_a_typed_answer(name: str, password: str) -> None:
    """Whatever is typed into the first form."""
    world = AuthWorld()
    assert isinstance(world.browser().login(name, Secret(password)), Refused)


@given(text=ANY_TEXT)
def test_a_login_name_has_one_form(text: str) -> None:
    """Normalising twice is normalising once, case does not matter to it, and the decoy is never a name."""
    normal = normalise_identifier(text)
    if normal is None:
        assert normalise_identifier(identifier_or_decoy(text)) is None
    else:
        assert normalise_identifier(normal) == normal
        assert normalise_identifier(normal.upper()) in {normal, normalise_identifier(normal.upper().casefold())}


@given(target=ANY_TEXT | st.text(alphabet="/\\.%09afAF2?#@: \t", max_size=30))
def test_return_to_is_a_local_path(target: str) -> None:
    """What passes begins with one slash, and neither a browser nor a parser finds a host in it."""
    found = return_to(target, default="/")
    for text in (found, unquote(found)):
        joined = urlsplit(urljoin("https://app.example.com/login", text.replace("\\", "/")))
        assert (joined.scheme, joined.netloc) == ("https", "app.example.com")
    assert found.startswith("/")
    assert not found.startswith("//")


@given(headers=st.lists(ANY_TEXT, max_size=4), peer=ANY_TEXT, hops=st.integers(0, 8))
def test_any_forwarded_chain_gives_an_address(headers: list[str], peer: str, hops: int) -> None:
    """Never an exception; and with no declared proxy, never anything but the peer."""
    found = client_address(peer, forwarded_for=headers, hops=hops)
    assert network_of(found)
    assert hops or found == peer


@given(agent=ANY_TEXT)
def test_a_device_label_is_one_printable_line(agent: str) -> None:
    """What the client calls itself is fit for a list and a log."""
    label = client_label(agent)
    assert len(label) <= 200
    assert "\n" not in label
    assert "\x1b" not in label


@given(method=ANY_TEXT, origin=ANY_TEXT | st.none(), site=ANY_TEXT | st.none(), token=ANY_TEXT | st.none(), path=ANY_TEXT)
def test_any_request_gets_a_csrf_verdict(
    method: str, origin: str | None, site: str | None, token: str | None, path: str, world: AuthWorld
) -> None:
    """A verdict for any headers; an unsafe method passes on a session only with its token."""
    request = RequestOrigin(method=method, path=path, origin=origin, sec_fetch_site=site, token=token)
    verdict = world.auth.csrf.judge(request, session=world.auth.sessions.new_handle())
    assert isinstance(verdict, CsrfRefused) or (isinstance(verdict, CsrfAllowed) and verdict.why == "safe_method")


@given(payload=ANY_TEXT)
def test_signing_takes_plain_payloads_and_gives_them_back(payload: str) -> None:
    """What it signs it gives back; what it does not sign it refuses by name."""
    signer = SigningKeys([Secret(b"k" * 32)]).signer("session")
    assert signer.unsign(payload) is None
    try:
        signed = signer.sign(payload)
    except ValueError:
        return
    assert signer.unsign(signed.reveal()) == payload


def test_control_a_real_session_resolves() -> None:
    """The properties above can fail: our own cookie signs in."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in()
    assert isinstance(browser.resolve(), Authenticated)
