"""Letters and what they do: one purpose, one account, once; and what a reset or a disabled account leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from axis_security.auth.cookies import CookieKind
from axis_security.auth.factors import ProofRefused
from axis_security.auth.invites import InvitationLinks
from axis_security.auth.kdf_pool import Busy
from axis_security.auth.lifecycle import AddressChanged, Answered, Letter, LetterKind, PasswordChanged, PasswordSet
from axis_security.auth.login_states import NeedsSecondFactor, RefusalCode, Refused, SignedIn
from axis_security.auth.password_rules import Rejected
from axis_security.auth.ports import ConsumeToken, PeekToken
from axis_security.auth.recovery import DigestRing
from axis_security.auth.sessions import Anonymous, Authenticated
from axis_security.auth.tokens import Landed, LinkRefused, Purpose, TokenPolicy
from axis_security.auth.work import HashPassword, SpendPassword
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventKind, Outcome
from axis_security.core.flow import drive
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld, TestBrowser

NEW = Secret("another uncommon sentence")


def letter_of(answer: Any) -> Letter:
    assert isinstance(answer, Answered)
    assert answer.letter is not None
    return answer.letter


def forgot(world: AuthWorld, name: str = "ann@example.com") -> Secret[str]:
    token = letter_of(world.run(world.auth.lifecycle.forgot(identifier=name, visitor=world.browser().visitor))).token
    assert token is not None
    return token


def reset(world: AuthWorld, token: object, password: Secret[str] = NEW) -> Any:
    return world.run(world.auth.lifecycle.reset(token=token, password=password, visitor=world.browser().visitor))


def test_a_reset_works_once_keeps_the_factor_and_ends_every_session() -> None:
    """ASVS 6.4.3: the new password signs nobody in by itself, the second factor is still asked for, old sessions and tokens are dead."""
    world = AuthWorld()
    user = world.account()
    signed_in = world.browser()
    signed_in.sign_in(remember=True)
    phone = world.phone(user)
    first, token = forgot(world), forgot(world)
    answer = reset(world, token)
    assert isinstance(answer, PasswordSet)
    assert not any(name == "Set-Cookie" and "_session=" in line and "Max-Age=0" not in line for name, line in answer.headers)
    assert isinstance(reset(world, token), LinkRefused)
    assert isinstance(reset(world, first), LinkRefused)
    assert isinstance(signed_in.resolve(), Anonymous)
    assert isinstance(signed_in.run(world.auth.login.remembered(visitor=signed_in.visitor)), Refused)
    browser = world.browser()
    assert isinstance(browser.login(), Refused)
    assert isinstance(browser.login(password=NEW), NeedsSecondFactor)
    assert isinstance(browser.code(phone.at(world.time)), SignedIn)
    assert EventKind.PASSWORD_CHANGED in world.kinds()


def test_a_get_never_consumes() -> None:
    """A mail scanner follows the link as often as it likes, and gets a page; the person's POST still works, once."""
    world = AuthWorld()
    world.account()
    token = forgot(world)
    for _ in range(5):
        scanner = world.browser("198.51.100.1")
        world.ops.clear()
        landed = scanner.run(world.auth.tokens.land(Purpose.PASSWORD_RESET, token.reveal(), visitor=scanner.visitor))
        assert isinstance(landed, Landed)
        assert [type(op) for op in world.ops] == [PeekToken]
        assert not isinstance(scanner.resolve(), Authenticated)
        assert ("Referrer-Policy", "no-referrer") in landed.headers
        assert ("Cache-Control", "no-store") in landed.headers
    person = world.browser()
    person.run(world.auth.tokens.land(Purpose.PASSWORD_RESET, token.reveal(), visitor=person.visitor))
    held = world.auth.tokens.landed(Purpose.PASSWORD_RESET, visitor=person.visitor)
    assert held == token
    assert world.auth.tokens.landed(Purpose.VERIFY_EMAIL, visitor=person.visitor) is None
    done = person.run(world.auth.lifecycle.reset(token=held, password=NEW, visitor=person.visitor))
    assert isinstance(done, PasswordSet)
    assert person.cookie(CookieKind.LANDING) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "\t\n",
        "\0",
        "a",
        "A" * 42,
        "A" * 44,
        " " + "A" * 43,
        "A" * 43 + "=",
        "A" * 42 + "B",
        "é" * 43,
        "\ud800" * 43,
        b"A" * 43,
        0,
        [],
        {},
    ],
)
def test_cve_2019_16109_and_cve_2026_34531_empty_and_malformed_tokens_are_refused_before_any_lookup(text: object) -> None:
    """Nothing that cannot be a token reaches the store: an empty token never meets an empty row."""
    world = AuthWorld()
    world.account()
    world.ops.clear()
    visitor = world.browser().visitor
    lifecycle = world.auth.lifecycle
    for flow in (
        world.auth.tokens.peek(Purpose.VERIFY_EMAIL, text),
        world.auth.tokens.consume(Purpose.VERIFY_EMAIL, text),
        world.auth.tokens.land(Purpose.VERIFY_EMAIL, text, visitor=visitor),
        lifecycle.reset(token=text, password=NEW, visitor=visitor),
        lifecycle.verify(token=text, visitor=visitor),
        lifecycle.change_address(token=text, visitor=visitor),
    ):
        assert isinstance(world.run(flow), LinkRefused)
    assert world.ops == []
    assert world.auth.invitations.digests(text) == ()


def test_cve_2026_28802_and_cve_2026_28498_an_unknown_purpose_or_key_is_a_refusal() -> None:
    """A token of one purpose is unknown for every other, and one under a key that is not listed for all of them."""
    world = AuthWorld()
    world.account()
    token = forgot(world)
    for purpose in Purpose:
        answer = world.run(world.auth.tokens.peek(purpose, token.reveal()))
        assert isinstance(answer, LinkRefused) is (purpose is not Purpose.PASSWORD_RESET)
    other = AuthWorld(store=world.store, digests=DigestRing(active="d2", keys={"d2": Secret(b"e" * 32)}))
    assert isinstance(reset(other, token), LinkRefused)
    both = DigestRing(active="d2", keys={"d2": Secret(b"e" * 32), "d1": Secret(b"d" * 32)})
    assert isinstance(reset(AuthWorld(store=world.store, digests=both), token), PasswordSet), "control: with the old key listed it is good"


def test_tokens_expire_by_purpose() -> None:
    """A reset lives ten minutes (ASVS 6.5.5); a lifetime beyond reason is refused."""
    world = AuthWorld()
    world.account()
    token = forgot(world)
    world.later(minutes=10, seconds=1)
    assert isinstance(reset(world, token), LinkRefused)
    for purpose, lasting in (
        (Purpose.PASSWORD_RESET, timedelta(days=1)),
        (Purpose.VERIFY_EMAIL, timedelta(days=31)),
        (Purpose.STEP_UP, timedelta(0)),
    ):
        with pytest.raises(ConfigError):
            TokenPolicy(lasting={purpose: lasting})


def test_cve_2019_19844_letters_go_to_the_stored_address_only() -> None:
    """A look-alike of an address is another address or, where it folds to the same, leads to the stored one; never to what was typed."""
    world = AuthWorld()
    world.account("mike@example.com")
    typed = "M\u0130KE@example.com", "m\u0131ke@example.com"
    for name in typed:
        answer = world.run(world.auth.lifecycle.forgot(identifier=name, visitor=world.browser().visitor))
        assert isinstance(answer, Answered)
        assert answer.letter is None
    folded = world.run(world.auth.lifecycle.forgot(identifier="mi\u212ae@EXAMPLE.com", visitor=world.browser().visitor))
    assert letter_of(folded).to == "mike@example.com"


def test_cve_2026_32700_a_changed_address_is_exactly_the_one_the_letter_went_to() -> None:
    """Two racing requests never cross: the later voids the earlier, and each token carries its own address."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    session = browser.sign_in()
    ask = world.auth.lifecycle.request_address
    one = letter_of(world.run(ask(session, identifier="evil@example.net", proof=session.proof(), visitor=browser.visitor)))
    two = letter_of(world.run(ask(session, identifier="Good@Example.net", proof=session.proof(), visitor=browser.visitor)))
    assert (one.to, two.to) == ("evil@example.net", "good@example.net")
    assert isinstance(world.run(world.auth.lifecycle.change_address(token=one.token, visitor=browser.visitor)), LinkRefused)
    changed = world.run(world.auth.lifecycle.change_address(token=two.token, visitor=browser.visitor))
    assert isinstance(changed, AddressChanged)
    assert isinstance(world.browser().login("good@example.net"), SignedIn)
    assert isinstance(world.browser().login("evil@example.net"), Refused)
    assert isinstance(world.browser().login("ann@example.com"), Refused)


def test_an_address_that_was_taken_meanwhile_is_not_taken_over() -> None:
    """Whoever verified first keeps it; asking for a taken address tells the asker nothing."""
    world = AuthWorld()
    world.account()
    world.account("bob@example.com")
    browser = world.browser()
    session = browser.sign_in()
    answers = [
        world.run(world.auth.lifecycle.request_address(session, identifier=name, proof=session.proof(), visitor=browser.visitor))
        for name in ("free@example.com", "bob@example.com")
    ]
    assert answers[0].public_text == answers[1].public_text
    taken = letter_of(answers[1])
    assert isinstance(world.run(world.auth.lifecycle.change_address(token=taken.token, visitor=browser.visitor)), LinkRefused)
    assert isinstance(world.browser().login("bob@example.com"), SignedIn)


def test_account_changes_need_a_fresh_proof() -> None:
    """ASVS 7.5.1: five minutes after the last proof, no other address can be asked for."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    session = browser.sign_in()
    world.later(minutes=6)
    with pytest.raises(ProofRefused):
        world.run(world.auth.lifecycle.request_address(session, identifier="x@example.com", proof=session.proof(), visitor=browser.visitor))


def test_registration_answers_alike_and_tells_the_owner() -> None:
    """A free and a taken address get one answer; the owner of the taken one gets a letter without a token, and nothing of theirs changes."""
    world = AuthWorld()
    world.account()
    register, visitor = world.auth.lifecycle.register, world.browser().visitor
    taken = world.run(register(user=UserId("thief"), identifier="ANN@example.com", password=NEW, visitor=visitor))
    free = world.run(register(user=UserId("bob"), identifier="Bob@example.com", password=NEW, visitor=visitor))
    assert (taken.public_text, taken.http_status, taken.headers) == (free.public_text, free.http_status, free.headers)
    assert repr(taken) == repr(free), "not even the repr tells"
    assert (letter_of(taken).kind, letter_of(taken).to, letter_of(taken).token) == (LetterKind.ALREADY_REGISTERED, "ann@example.com", None)
    assert isinstance(world.browser().login(password=NEW), Refused)
    assert isinstance(world.browser().login(), SignedIn)
    verify = letter_of(free)
    assert isinstance(world.browser().login("bob@example.com", NEW), Refused), "not before the address is confirmed"
    assert isinstance(world.run(world.auth.lifecycle.verify(token=verify.token, visitor=visitor)), AddressChanged)
    assert isinstance(world.browser().login("bob@example.com", NEW), SignedIn)
    assert isinstance(
        world.run(register(user=UserId("x"), identifier="c@example.com", password=Secret("short"), visitor=visitor)), Rejected
    )


def test_a_password_change_needs_the_current_one_and_ends_the_others() -> None:
    """ASVS 6.2.3 and 7.4.3: a wrong current password changes nothing; a right one ends every other session and gives this one a new id."""
    world = AuthWorld()
    world.account()
    here, there = world.browser(), world.browser()
    here.sign_in()
    there.sign_in(remember=True)
    old = here.cookie(CookieKind.SESSION)
    change = world.auth.lifecycle.change_password
    wrong = here.run(change(here.session(), current=Secret("wrong"), new=NEW, visitor=here.visitor))
    assert wrong == Refused(RefusalCode.MISMATCH)
    assert isinstance(there.resolve(), Authenticated)
    assert isinstance(here.run(change(here.session(), current=GOOD_PASSWORD, new=Secret("password"), visitor=here.visitor)), Rejected)
    done = here.run(change(here.session(), current=GOOD_PASSWORD, new=NEW, visitor=here.visitor))
    assert isinstance(done, PasswordChanged)
    assert here.cookie(CookieKind.SESSION) != old
    assert isinstance(here.resolve(), Authenticated)
    assert isinstance(there.resolve(), Anonymous)
    assert isinstance(there.run(world.auth.login.remembered(visitor=there.visitor)), Refused)
    assert isinstance(world.browser().login(password=NEW), SignedIn)


def test_a_disabled_account_is_out_at_its_next_request_by_every_road() -> None:
    """ASVS 7.4.2: session, pending login, remember token, reset letter and external login all end with the account."""
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    token = forgot(world)
    phone = world.phone(user)
    pending = world.browser()
    pending.login()
    assert world.run(world.auth.lifecycle.set_active(user, active=False, by="admin"))
    assert isinstance(browser.resolve(), Anonymous)
    assert isinstance(browser.run(world.auth.login.remembered(visitor=browser.visitor)), Refused)
    assert isinstance(pending.code(phone.at(world.time)), Refused)
    assert isinstance(reset(world, token), LinkRefused)
    assert world.run(world.auth.login.external(user=user, visitor=browser.visitor)) == Refused(RefusalCode.DISABLED)
    assert isinstance(world.browser().login(), Refused)
    assert EventKind.ACCOUNT_DISABLED in world.kinds()
    assert world.run(world.auth.lifecycle.set_active(user, active=True, by="admin"))
    assert isinstance(browser.resolve(), Anonymous), "enabled again, old sessions stay dead"


def test_an_administrator_starts_a_reset_and_never_chooses() -> None:
    """ASVS 6.4.6: the letter goes to the person, and no flow takes a password for somebody else."""
    world = AuthWorld()
    user = world.account()
    letter = world.run(world.auth.lifecycle.start_reset(user=user, identifier="ann@example.com"))
    assert letter.to == "ann@example.com"
    assert letter.token.reveal() not in repr(letter)
    assert isinstance(reset(world, letter.token), PasswordSet)
    assert world.run(world.auth.lifecycle.start_reset(user=UserId("nobody"), identifier="x@example.com")) is None


def test_invitation_links_never_consume_and_follow_key_rotation() -> None:
    """The link lands in a cookie; its digest is the one the members' store was given, also after a rotation."""
    world = AuthWorld()
    links = world.auth.invitations
    token, digest = links.mint()
    assert links.digests(token.reveal()) == (digest,)
    both = DigestRing(active="d2", keys={"d1": Secret(b"d" * 32), "d2": Secret(b"e" * 32)})
    rotated = AuthWorld(digests=both)
    assert rotated.auth.invitations.digests(token.reveal())[1] == digest
    browser = world.browser()
    landed = links.land(token.reveal(), visitor=browser.visitor)
    assert isinstance(landed, Landed)
    browser.take(landed.headers)
    assert links.landed(visitor=browser.visitor) == token
    assert world.ops == []
    assert isinstance(links.land("x", visitor=browser.visitor), LinkRefused)
    assert isinstance(links, InvitationLinks)


def test_a_refused_link_says_one_thing() -> None:
    """Malformed, spent, expired and never issued look the same from outside."""
    assert len({(LinkRefused(code).public_text, LinkRefused(code).http_status) for code in ("malformed", "unknown")}) == 1
    world = AuthWorld()
    world.account()
    token = forgot(world)
    world.ops.clear()
    reset(world, token, Secret("short"))
    assert not any(isinstance(op, ConsumeToken) for op in world.ops)
    assert isinstance(reset(world, token), PasswordSet), "a rejected password leaves the link good"
    assert TestBrowser.__test__ is False


def test_a_password_does_not_expire() -> None:
    """ASVS 6.2.10: ten years on, the same password signs in, and nothing asks for another."""
    world = AuthWorld()
    world.account()
    world.later(days=3650)
    assert isinstance(world.browser().login(), SignedIn)


@pytest.mark.parametrize("way", ["forgot", "resend", "register"])
def test_a_full_queue_takes_no_letter_from_anybody(way: str) -> None:
    """Busy gives back what was counted: three letters an hour are still three after a storm."""
    world = AuthWorld()
    world.account(verified=False)
    auth, visitor = world.auth.lifecycle, world.browser().visitor

    def flow() -> Any:
        if way == "register":
            return auth.register(user=UserId("new"), identifier="new@example.com", password=NEW, visitor=visitor)
        return getattr(auth, way)(identifier="ann@example.com", visitor=visitor)

    def full(request: Any) -> Any:
        if isinstance(request, HashPassword | SpendPassword):
            raise Busy(retry_after=1)
        return world.perform(request)

    for _ in range(40):
        with pytest.raises(Busy):
            drive(flow(), full)
    assert isinstance(world.run(flow()), Answered)


def test_a_made_up_reset_token_costs_no_hash() -> None:
    """Nobody counts who posts reset forms, so a token that was never issued must not be a way to keep the hashing busy."""
    world = AuthWorld()
    world.account()
    token = forgot(world)
    world.kdf.take()
    world.events.clear()
    assert reset(world, "A" * 43) == LinkRefused("unknown")
    assert not world.kdf.take()
    assert [event.detail["code"] for event in world.events if event.kind is EventKind.TOKEN_REFUSED] == ["unknown"], "told once"
    assert isinstance(reset(world, token), PasswordSet)
    assert world.kdf.take(), "control: a reset hashes"


def test_a_wrong_current_password_is_told_to_the_log() -> None:
    """Whoever guesses the password in somebody's open session leaves a trace, as in a step-up (ASVS 16.3.1)."""
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    session = browser.sign_in()
    world.events.clear()
    change = world.auth.lifecycle.change_password(session, current=Secret("wrong"), new=NEW, visitor=browser.visitor)
    assert world.run(change) == Refused(RefusalCode.MISMATCH)
    told = [(event.kind, event.outcome, event.user, event.detail["code"]) for event in world.events]
    assert told == [(EventKind.STEP_UP, Outcome.DENIED, user, "mismatch")]


def test_lifetimes_that_were_checked_cannot_be_changed_afterwards() -> None:
    """Neither through the policy nor through the dict that it was made from: a reset letter does not come to last a month."""
    given = {Purpose.PASSWORD_RESET: timedelta(minutes=5)}
    policy = TokenPolicy(lasting=given)
    given[Purpose.PASSWORD_RESET] = timedelta(days=30)
    with pytest.raises(TypeError):
        policy.lasting[Purpose.PASSWORD_RESET] = timedelta(days=30)  # type: ignore[index]
    assert policy.of(Purpose.PASSWORD_RESET) == timedelta(minutes=5)
