"""The contract of accounts, passwords and purpose tokens, as cases. See :mod:`axis_security.testing.stores`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.auth.factors import BeginEnrolment, ConfirmEnrolment
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.testing.stores import CALLERS, Perform, account, expect, one_winner, race, sealed

__all__ = ["ACCOUNT_CASES", "ACCOUNT_RACES"]

START: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
WRONG: Final = b"\x01" * 32


def at(seconds: float) -> datetime:
    """A moment after the start."""
    return START + timedelta(seconds=seconds)


def digest() -> p.Digest:
    """Of a fresh id or token."""
    return "k1", secrets.token_bytes(32)


def stored() -> p.StoredHash:
    """A hash of our own form."""
    return p.StoredHash(f"axis1$-$-$m=47104,t=1,p=1${secrets.token_urlsafe(16)}${'A' * 43}", secrets.token_bytes(32))


def name_of(user: UserId) -> str:
    """The identifier that :func:`registered` gives an account."""
    return f"{user.text}@example.org"


def registered(perform: Perform, hash: p.StoredHash | None = None) -> UserId:
    """An account."""
    user = account()
    expect(perform(p.Register(user=user, identifier=name_of(user), hash=hash)), True, "an account is created")
    return user


def key(user: UserId, *digests: p.Digest) -> s.SessionKey:
    """What the browser of *user* presents."""
    return s.SessionKey(s.session_route(user), (("k0", secrets.token_bytes(32)), *digests))


def start(perform: Perform, user: UserId, *, seconds: float = 0, epoch: int = 0, **more: Any) -> tuple[UUID, p.Digest]:
    """A new session: its handle and digest."""
    handle, made = uuid4(), digest()
    request = s.StartSession(
        user=user, handle=handle, digest=made, epoch=epoch, now=at(seconds), idle=timedelta(minutes=30), lifetime=timedelta(hours=12),
        assurance=Assurance.AAL1, methods=("password",), **more,
    )  # fmt: skip
    expect(perform(request), True, "a session starts")
    return handle, made


def resolve(perform: Perform, user: UserId, made: p.Digest, seconds: float = 1) -> Any:
    """What the store says of a presented id."""
    return perform(s.ResolveSession(key=key(user, made), now=at(seconds)))


def is_live(perform: Perform, user: UserId, made: p.Digest, seconds: float = 1) -> bool:
    """Whether the id is good."""
    return isinstance(resolve(perform, user, made, seconds), s.LiveSession)


def check(perform: Perform, who: UserId | str, hash: p.StoredHash, **more: Any) -> p.PasswordChecked:
    """A comparison."""
    answer: p.PasswordChecked = perform(p.CheckPassword(account=who, settings=hash.settings, digest=hash.digest, **more))
    return answer


# --- accounts


def accounts_are_unique(perform: Perform) -> None:
    """One account per user and per identifier; what is registered is what is found."""
    user = registered(perform)
    expect(perform(p.Register(user=account(), identifier=name_of(user), hash=None)), False, "an identifier is taken once")
    expect(perform(p.Register(user=user, identifier="other-" + name_of(user), hash=None)), False, "a user has one account")
    seen = p.Account(user=user, active=True, verified=False, has_totp=False, epoch=0)
    expect(perform(p.AccountOf(user)), seen, "the account is found by its user")
    expect(perform(p.FindAccount(name_of(user))), seen, "and by its identifier")
    expect(perform(p.FindAccount("nobody\0\ud800")), None, "no text is an error")
    seed = sealed()
    perform(BeginEnrolment(user, seed))
    expect(perform(p.AccountOf(user)).has_totp, False, "a pending factor is none")
    perform(ConfirmEnrolment(user, seed, 1))
    expect(perform(p.AccountOf(user)).has_totp, True, "a confirmed one is")
    expect(perform(p.DeleteAccount(user)), True, "an account is deleted")
    expect(perform(p.AccountOf(user)), None, "wholly")
    expect(perform(p.DeleteAccount(user)), False, "once")


def passwords_are_compared_inside(perform: Perform) -> None:
    """Right, wrong, locked and stale; failures counted and forgiven."""
    kept = stored()
    user = registered(perform, kept)
    expect(perform(p.LoadSettings(user)), kept.settings, "settings come out, by user")
    expect(perform(p.LoadSettings(name_of(user))), kept.settings, "and by identifier")
    for who in (user, name_of(user)):
        expect(check(perform, who, kept).account, perform(p.AccountOf(user)), "the right digest matches")
    wrong = p.StoredHash(kept.settings, WRONG)
    for tried in range(3):
        expect(check(perform, user, wrong, max_failures=3).verdict, "mismatch", f"wrong digest {tried}")
    expect(check(perform, user, kept, max_failures=3).verdict, "locked", "the right one is not compared any more")
    expect(check(perform, user, kept, max_failures=4).verdict, "match", "a match under the cap")
    expect(check(perform, user, wrong, max_failures=1).verdict, "mismatch", "forgives")
    expect(perform(p.CheckPassword(account=user, settings=kept.settings, digest=None)).verdict, "mismatch", "no digest is no match")
    expect(check(perform, user, stored()).verdict, "stale", "other settings are stale")
    expect(check(perform, "nobody", kept).verdict, "mismatch", "an unknown account mismatches")
    expect(check(perform, registered(perform), kept).verdict, "mismatch", "as does one without a password")


def settings_of_nobody_stay_the_same(perform: Perform) -> None:
    """Unknown names have settings of the common form that do not change, and differ from one another."""
    like = stored()
    registered(perform, like)
    names = ["nobody-" + secrets.token_hex(4) for _ in range(3)]
    first = [perform(p.LoadSettings(name)) for name in names]
    expect([perform(p.LoadSettings(name)) for name in names], first, "made-up settings stay the same")
    expect(len(set(first)), 3, "and are no one's other's")
    for made in first:
        parts, real = made.split("$"), like.settings.split("$")
        expect([*parts[:4], len(parts[4]), parts[5]], [*real[:4], len(real[4]), real[5]], "and have the form of real ones")
    without = registered(perform)
    expect(perform(p.LoadSettings(without)) is not None, True, "an account without a password has some too")


def rehash_keeps_and_change_signs_out(perform: Perform) -> None:
    """A rehash leaves sessions; a change keeps one session, ends the others and voids tokens."""
    old, new, last = stored(), stored(), stored()
    user = registered(perform, old)
    kept, kept_id = start(perform, user)
    _, other_id = start(perform, user)
    expect(perform(p.Rehash(user=user, old=p.StoredHash(old.settings, WRONG), new=new)).verdict, "mismatch", "a rehash proves the old")
    expect(perform(p.Rehash(user=user, old=old, new=new)).verdict, "match", "a rehash")
    expect(check(perform, user, new).verdict, "match", "replaces the hash")
    expect(is_live(perform, user, other_id), True, "and leaves sessions")
    remember, token = digest(), digest()
    perform(s.IssueRemember(user=user, handle=kept, digest=remember, epoch=0, now=START, lasting=timedelta(days=14)))
    perform(p.IssueToken(purpose="password_reset", user=user, digest=token, now=START, lasting=timedelta(hours=1)))
    expect(perform(p.ChangePassword(user=user, old=old, new=last, keep=kept)).verdict, "stale", "a change proves the present")
    answer = perform(p.ChangePassword(user=user, old=new, new=last, keep=kept))
    expect((answer.verdict, answer.account.epoch), ("match", 1), "a change begins an epoch")
    expect([is_live(perform, user, i) for i in (kept_id, other_id)], [True, False], "and keeps one session")
    expect(perform(s.UseRemember(candidates=(remember,), digest=digest(), handle=uuid4(), now=at(1))), None, "remember tokens are void")
    expect(perform(p.PeekToken(purpose="password_reset", candidates=(token,), now=at(1))), None, "and purpose tokens")
    late = s.StartSession(
        user=user, handle=uuid4(), digest=digest(), epoch=0, now=at(2), idle=timedelta(1), lifetime=timedelta(1), assurance=Assurance.AAL1, methods=()
    )  # fmt: skip
    expect(perform(late), False, "no session starts in the old epoch")


def a_token_is_good_once_for_one_purpose(perform: Perform) -> None:
    """Purpose, expiry, replacement, and whose it is."""
    user, first, second, loose = registered(perform), digest(), digest(), digest()
    give: dict[str, Any] = {"purpose": "change_email", "now": START, "lasting": timedelta(minutes=10)}
    expect(perform(p.IssueToken(user=user, digest=first, payload="a@example.org", **give)), True, "a token is issued")
    expect(perform(p.IssueToken(user=account(), digest=digest(), **give)), False, "to accounts only")
    expect(perform(p.IssueToken(user=None, digest=loose, payload="x", **give)), True, "or to nobody")
    for verb in (p.PeekToken, p.ConsumeToken):
        expect(perform(verb(purpose="password_reset", candidates=(first,), now=START)), None, "of one purpose")
        expect(perform(verb(purpose="change_email", candidates=(first,), now=at(600))), None, "until it expires")
    perform(p.IssueToken(user=user, digest=second, payload="b@example.org", **give))
    expect(perform(p.PeekToken(purpose="change_email", candidates=(first,), now=START)), None, "a new one voids the earlier")
    grant = p.TokenGrant(user=user, payload="b@example.org", expires_at=at(600))
    look: dict[str, Any] = {"purpose": "change_email", "candidates": (digest(), second), "now": at(599)}
    expect([perform(p.PeekToken(**look)) for _ in "12"], [grant, grant], "a look leaves it")
    expect(perform(p.ConsumeToken(**look)), grant, "it is consumed")
    expect(perform(p.ConsumeToken(**look)), None, "once")
    expect(perform(p.ConsumeToken(purpose="change_email", candidates=(loose,), now=START)).user, None, "nobody's token is nobody's")
    perform(p.IssueToken(user=user, digest=digest(), **give))
    expect([perform(p.RevokeTokens(user=user)), perform(p.RevokeTokens(user=user, purpose="change_email"))], [1, 0], "tokens are revoked")


def identifiers_change_by_token_only(perform: Perform) -> None:
    """A verification counts for the identifier that it was sent to; a change binds the exact new one (CVE-2026-32700's class)."""
    user, taken = registered(perform), registered(perform)

    def token(purpose: str, payload: str) -> p.Digest:
        made = digest()
        perform(p.IssueToken(purpose=purpose, user=user, digest=made, payload=payload, now=START, lasting=timedelta(hours=1)))
        return made

    stale = token("verify_email", "old@example.org")
    expect(perform(p.VerifyIdentifier(candidates=(stale,), now=at(1))), None, "another address verifies nothing")
    good = token("verify_email", name_of(user))
    expect(perform(p.VerifyIdentifier(candidates=(good,), now=at(1))).verified, True, "its own does")
    expect(perform(p.VerifyIdentifier(candidates=(good,), now=at(1))), None, "once")
    clash = token("change_email", name_of(taken))
    expect(perform(p.ChangeIdentifier(candidates=(clash,), now=at(2))), None, "a taken identifier is refused")
    expect(perform(p.ChangeIdentifier(candidates=(clash,), now=at(2))), None, "and the token is spent")
    reset, change = token("password_reset", ""), token("change_email", "new-" + name_of(user))
    expect(perform(p.ChangeIdentifier(candidates=(change,), now=at(3))).user, user, "a free one is taken")
    expect(perform(p.FindAccount("new-" + name_of(user))).verified, True, "verified")
    expect(perform(p.FindAccount(name_of(user))), None, "and the old one is free")
    expect(
        perform(p.PeekToken(purpose="password_reset", candidates=(reset,), now=at(3))), None, "tokens mailed to the old address are void"
    )


def a_reset_consumes_and_signs_out(perform: Perform) -> None:
    """Token, new hash, failures, epoch and sessions in one step; factors stay; a disabled account resets nothing."""
    old, new = stored(), stored()
    user = registered(perform, old)
    seed = sealed()
    perform(BeginEnrolment(user, seed))
    perform(ConfirmEnrolment(user, seed, 1))
    _, session = start(perform, user)
    check(perform, user, p.StoredHash(old.settings, WRONG), max_failures=1)
    token = digest()
    perform(p.IssueToken(purpose="password_reset", user=user, digest=token, now=START, lasting=timedelta(hours=1)))
    answer = perform(p.ResetPassword(candidates=(token,), new=new, now=at(1)))
    expect((answer.epoch, answer.has_totp), (1, True), "a reset begins an epoch and keeps factors (ASVS 6.4.3)")
    expect(is_live(perform, user, session), False, "sessions are ended")
    expect(check(perform, user, new, max_failures=1).verdict, "match", "the new password is right and failures are forgiven")
    expect(perform(p.ResetPassword(candidates=(token,), new=old, now=at(1))), None, "a token resets once")
    perform(p.IssueToken(purpose="password_reset", user=user, digest=token, now=START, lasting=timedelta(hours=1)))
    expect(perform(p.SetActive(user, False)).active, False, "an account is disabled")
    expect(perform(p.ResetPassword(candidates=(token,), new=old, now=at(1))), None, "and resets nothing")
    expect(
        perform(p.IssueToken(purpose="password_reset", user=user, digest=digest(), now=START, lasting=timedelta(1))),
        False,
        "nor is given tokens",
    )


# --- many at one time


def one_caller_consumes_a_token(perform: Perform) -> None:
    """Fifty callers with one link."""
    user, token = registered(perform), digest()
    perform(p.IssueToken(purpose="verify_email", user=user, digest=token, now=START, lasting=timedelta(1)))
    one_winner(
        perform, [p.ConsumeToken(purpose="verify_email", candidates=(digest(), token), now=at(1))] * CALLERS, why="one token, one winner"
    )


def one_caller_resets_a_password(perform: Perform) -> None:
    """Fifty callers with one reset link and fifty new passwords; the winner's is the one kept."""
    user, token, hashes = registered(perform), digest(), [stored() for _ in range(CALLERS)]
    perform(p.IssueToken(purpose="password_reset", user=user, digest=token, now=START, lasting=timedelta(1)))
    one_winner(perform, [p.ResetPassword(candidates=(token,), new=new, now=at(1)) for new in hashes], why="one reset, one winner")
    expect(sum(check(perform, user, new).verdict == "match" for new in hashes), 1, "one hash is kept")


def wrong_passwords_are_counted_exactly(perform: Perform) -> None:
    """Fifty parallel guesses against a cap of twenty: exactly twenty are compared."""
    kept = stored()
    user = registered(perform, kept)
    guess = p.CheckPassword(account=user, settings=kept.settings, digest=WRONG, max_failures=20)
    verdicts = [answer.verdict for answer in race([lambda: perform(guess)] * CALLERS)]
    expect((verdicts.count("mismatch"), verdicts.count("locked")), (20, CALLERS - 20), "the cap holds under parallel guessing")


ACCOUNT_CASES: Final = (
    accounts_are_unique,
    passwords_are_compared_inside,
    settings_of_nobody_stay_the_same,
    rehash_keeps_and_change_signs_out,
    a_token_is_good_once_for_one_purpose,
    identifiers_change_by_token_only,
    a_reset_consumes_and_signs_out,
)
"""What every store of accounts must do."""
ACCOUNT_RACES: Final = (one_caller_consumes_a_token, one_caller_resets_a_password, wrong_passwords_are_counted_exactly)
"""The same with many callers at once."""
