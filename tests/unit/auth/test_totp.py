"""TOTP and recovery codes: standard vectors, and every code works once."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.auth.factors import LoadTotp, ProofRefused, ReauthProof, TotpRecord
from axis_security.auth.recovery import DigestRing, RecoveryCodes, RecoveryRefused, RecoveryUsed
from axis_security.auth.totp import CodeAccepted, CodeRefused, Totp, TotpPolicy, _code_at, matching_step
from axis_security.core.errors import AxisError, ConfigError, Unavailable
from axis_security.core.events import AuditEvent, Outcome
from axis_security.core.flow import drive
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret
from axis_security.testing.factors import MemoryFactors, TestSealer

ANN, BOB = UserId("ann"), UserId("bob")


@dataclass
class World:
    """One store, one clock, and short ways to run the flows."""

    store: MemoryFactors = field(default_factory=MemoryFactors)
    events: list[AuditEvent] = field(default_factory=list)
    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    drift: int = 1

    def __post_init__(self) -> None:
        policy = TotpPolicy(issuer="Axis CRM", drift_steps=self.drift, max_failures=5)
        self.totp = Totp(policy=policy, sealer=TestSealer(), events=self, clock=self)
        self.ring = DigestRing(active="d1", keys={"d1": Secret(b"d" * 32)})
        self.codes = RecoveryCodes(digests=self.ring, events=self, clock=self)

    def now(self) -> datetime:
        return self.time

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)

    def run(self, flow: Generator[Any, Any, Any]) -> Any:
        return drive(flow, self.store.perform)

    def proof(self, user: UserId = ANN) -> ReauthProof:
        return ReauthProof(user, self.time)

    def enrolled(self) -> pyotp.TOTP:
        """A confirmed authenticator; one period has passed since."""
        enrolment = self.run(self.totp.enrol(user=ANN, account="ann@example.com", proof=self.proof()))
        phone = pyotp.TOTP(enrolment.secret_base32.reveal())
        assert isinstance(self.run(self.totp.confirm(user=ANN, code=phone.at(self.time))), CodeAccepted)
        self.time += timedelta(seconds=60)
        return phone

    def verify(self, code: str) -> Any:
        return self.run(self.totp.verify(user=ANN, code=code))


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_rfc6238_appendix_b(seconds: int, code: str) -> None:
    """The SHA-1 vectors, cut to six digits."""
    assert matching_step(secret=Secret(b"12345678901234567890"), code=code, unix_seconds=seconds, drift_steps=0) == seconds // 30


def test_rfc4226_appendix_d_and_short_secrets() -> None:
    """The ten HOTP vectors; and our path for 80-bit seeds agrees with the library's where both apply."""
    vectors = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
    assert [_code_at(b"12345678901234567890", step) for step in range(10)] == vectors
    short = b"1234567890"
    for step in range(200):  # every place that the truncation can take
        assert _code_at(short, step) == _code_at(short + b"\0" * 10, step)  # HMAC pads a key with zeros, so these are equal


def test_a_code_works_once_and_the_enrolment_code_not_again() -> None:
    """RFC 6238 5.2: neither the confirming code nor a used one passes a second time, inside the drift window."""
    world = World()
    enrolment = world.run(world.totp.enrol(user=ANN, account="ann@example.com", proof=world.proof()))
    phone = pyotp.TOTP(enrolment.secret_base32.reveal())
    first = phone.at(world.time)
    assert isinstance(world.run(world.totp.confirm(user=ANN, code=first)), CodeAccepted)
    assert world.verify(first) == CodeRefused("replayed")
    world.time += timedelta(seconds=30)
    assert world.verify(first) == CodeRefused("replayed")
    code = phone.at(world.time)
    assert isinstance(world.verify(code), CodeAccepted)
    assert world.verify(code) == CodeRefused("replayed")


def test_an_earlier_code_never_passes_after_a_later_one() -> None:
    """Steps only grow: the code of the step before, unused, is dead once a later one was accepted."""
    world = World()
    phone = world.enrolled()
    assert isinstance(world.verify(phone.at(world.time + timedelta(seconds=30))), CodeAccepted)
    assert world.verify(phone.at(world.time)) == CodeRefused("replayed")


def test_fifty_parallel_callers_one_winner() -> None:
    """One TOTP code, one recovery code: fifty threads, one success each."""
    world = World()
    world.totp = Totp(policy=TotpPolicy(issuer="Axis", max_failures=100), sealer=TestSealer(), events=world, clock=world)
    code = world.enrolled().at(world.time)
    recovery = world.run(world.codes.issue(user=ANN, proof=world.proof()))[0]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: world.verify(code), range(50)))
        used = list(pool.map(lambda _: world.run(world.codes.use(user=ANN, code=recovery)), range(50)))
    assert sum(isinstance(a, CodeAccepted) for a in answers) == 1
    assert sum(isinstance(a, RecoveryUsed) for a in used) == 1


@pytest.mark.parametrize(
    ("drift", "shift", "ok"), [(1, -30, True), (1, 30, True), (1, -60, False), (1, 60, False), (0, -30, False), (0, 0, True)]
)
def test_the_drift_window_is_exact(drift: int, shift: int, ok: bool) -> None:
    """One step either side by default, none in the strict profile (ASVS 6.5.5)."""
    world = World(drift=drift)
    phone = world.enrolled()
    world.time += timedelta(seconds=300)
    assert isinstance(world.verify(phone.at(world.time + timedelta(seconds=shift))), CodeAccepted) is ok


def test_wrong_codes_lock_the_factor_and_a_recovery_code_unlocks_it() -> None:
    """Five failures lock it for right codes too, whatever the address; the recovery code is the way out; a success resets the count."""
    world = World()
    phone = world.enrolled()
    right = phone.at(world.time)
    wrong = f"{(int(right) + 1) % 10**6:06d}"
    recovery = world.run(world.codes.issue(user=ANN, proof=world.proof()))[0]
    assert [world.verify(wrong).why for _ in range(6)] == ["mismatch"] * 5 + ["locked"]
    assert world.verify(right) == CodeRefused("locked")
    assert isinstance(world.run(world.codes.use(user=ANN, code=recovery)), RecoveryUsed)
    assert isinstance(world.verify(right), CodeAccepted)


def test_enrol_and_disable_need_a_fresh_proof_of_the_same_person() -> None:
    """ASVS 7.5.1; a proof of somebody else, an old one and one from the future are refused."""
    world = World()
    world.enrolled()
    for proof in (
        world.proof(BOB),
        ReauthProof(ANN, world.time - timedelta(minutes=6)),
        ReauthProof(ANN, world.time + timedelta(minutes=1)),
    ):
        for flow in (
            world.totp.disable(user=ANN, proof=proof),
            world.totp.enrol(user=ANN, account="a", proof=proof),
            world.codes.issue(user=ANN, proof=proof),
        ):
            with pytest.raises(ProofRefused):
                world.run(flow)
    assert world.run(world.totp.disable(user=ANN, proof=world.proof())) is True
    assert (str(world.events[-1].kind), world.events[-1].outcome) == ("auth.totp_disabled", Outcome.ALLOWED)
    assert world.verify("123456") == CodeRefused("not_enrolled")


def test_the_seed_is_sealed_and_bound_to_its_owner() -> None:
    """The store never holds the seed, and one moved to another account does not open."""
    world = World()
    phone = world.enrolled()
    record = world.store.perform(LoadTotp(ANN, False))
    assert isinstance(record, TotpRecord)
    assert phone.byte_secret() not in record.sealed
    flow = world.totp.verify(user=BOB, code="123456")
    next(flow)
    with pytest.raises(AxisError):
        flow.send(record)


def test_recovery_codes_are_120_bits_single_use_and_replaced_as_a_set() -> None:
    """ASVS 6.5.1 and 6.5.2; typing is tolerant; regenerating ends the old set; the count is told."""
    world = World()
    old = world.run(world.codes.issue(user=ANN, proof=world.proof()))
    assert len({c.reveal() for c in old}) == 10
    assert all(len(c.reveal().replace("-", "")) * 5 == 120 for c in old)
    typed = Secret(f"  {old[0].reveal().lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} ")
    assert world.run(world.codes.use(user=ANN, code=typed)) == RecoveryUsed(9)
    assert world.run(world.codes.use(user=ANN, code=typed)) == RecoveryRefused("unknown")
    assert world.run(world.codes.use(user=BOB, code=old[1])) == RecoveryRefused("unknown")
    new = world.run(world.codes.issue(user=ANN, proof=world.proof()))
    assert world.run(world.codes.use(user=ANN, code=old[1])) == RecoveryRefused("unknown")
    assert world.run(world.codes.remaining(user=ANN)) == 10
    world.codes = RecoveryCodes(
        digests=DigestRing(active="d2", keys={"d2": Secret(b"e" * 32), "d1": Secret(b"d" * 32)}), events=world, clock=world
    )
    assert world.run(world.codes.use(user=ANN, code=new[0])) == RecoveryUsed(9)


@given(
    st.one_of(st.text(), st.text(alphabet="0123456789\u0661\uff11 ", min_size=5, max_size=8), st.just("\ud800"), st.just("1" * 1_000_000))
)
def test_any_text_is_a_typed_answer(text: str) -> None:
    """No code input raises: TOTP, confirm and recovery answer with their own types."""
    world = World()
    assert isinstance(world.verify(text), CodeRefused)
    assert isinstance(world.run(world.totp.confirm(user=ANN, code=text)), CodeRefused)
    assert isinstance(world.run(world.codes.use(user=ANN, code=Secret(text))), RecoveryRefused)
    matching_step(secret=Secret(b"x" * 20), code=text, unix_seconds=0, drift_steps=1)


def test_no_event_holds_a_code_or_seed() -> None:
    """ASVS 16.2.5: over enrolment, wrong, right and recovery codes."""
    world = World()
    phone = world.enrolled()
    recovery = world.run(world.codes.issue(user=ANN, proof=world.proof()))[0]
    world.verify(phone.at(world.time))
    world.verify("000000")
    world.run(world.codes.use(user=ANN, code=recovery))
    shown = repr([event.as_dict() for event in world.events])
    assert [str(e.kind) for e in world.events] == [
        "auth.totp_enrolled",
        "auth.recovery_codes_issued",
        "auth.second_factor",
        "auth.second_factor",
        "auth.recovery_code_used",
    ]
    for secret in (phone.secret, phone.at(world.time), "000000", recovery.reveal(), recovery.reveal().replace("-", "")):
        assert secret not in shown


def test_the_uri_and_qr_code() -> None:
    """The URI is what authenticators read, and the SVG is inert."""
    world = World()
    enrolment = world.run(world.totp.enrol(user=ANN, account="ann@example.com", proof=world.proof()))
    read = pyotp.parse_uri(enrolment.uri.reveal())
    assert (read.issuer, read.name, read.secret) == ("Axis CRM", "ann@example.com", enrolment.secret_base32.reveal())
    svg = enrolment.svg().reveal()
    assert svg.startswith("<svg")
    assert "script" not in svg
    assert enrolment.secret_base32.reveal() not in repr(enrolment)


def test_policies_outside_the_limits_cannot_be_built() -> None:
    """No window of minutes, no unlimited guessing."""
    for bad in ({"drift_steps": 3}, {"max_failures": 101}, {"max_failures": 0}, {"issuer": "a:b"}):
        with pytest.raises(ConfigError):
            TotpPolicy(**{"issuer": "Axis", **bad})  # type: ignore[arg-type]


def test_the_policy_s_edges() -> None:
    """Ten failures unless told; an issuer of 64 characters is the longest, and a colon would end the label too early."""
    assert TotpPolicy(issuer="Product").max_failures == 10
    assert TotpPolicy(issuer="x" * 64).issuer == "x" * 64
    for issuer in ("", "x" * 65, "a:b", "a\nb"):
        with pytest.raises(ConfigError, match="issuer"):
            TotpPolicy(issuer=issuer)


def test_seeds_windows_and_limits_unless_told_otherwise() -> None:
    """160 bits (RFC 4226, section 4), one step either way, no step before the first; limits hold at their edges."""
    enrolment = World().run(World().totp.enrol(user=ANN, account="ann", proof=World().proof()))
    assert len(base64.b32decode(enrolment.secret_base32.reveal())) == 20
    assert TotpPolicy(issuer="Axis").drift_steps == 1
    seed = Secret(bytes(20))
    assert matching_step(secret=seed, code=_code_at(bytes(20), 0), unix_seconds=0, drift_steps=1) == 0
    for good in ({"drift_steps": 0}, {"drift_steps": 2}, {"max_failures": 1}, {"max_failures": 100}):
        TotpPolicy(**{"issuer": "Axis", **good})  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        TotpPolicy(issuer="Axis", drift_steps=-1)
    assert inspect.signature(enrolment.svg).parameters["scale"].default == 4


@pytest.mark.parametrize("code", [123456, None, b"123456"])
def test_a_code_that_is_no_text_is_malformed(code: Any) -> None:
    """Whatever a form sends: a typed refusal, and no attempt is counted."""
    world = World()
    assert world.run(world.totp.verify(user=ANN, code=code)) == CodeRefused("malformed")


def test_a_key_service_that_is_away_locks_nobody_out() -> None:
    """An attempt is counted when a code can be compared, not before: whoever tried twenty times meanwhile signs in when the keys are back."""
    world = World()
    phone = world.enrolled()

    class Away(TestSealer):
        """Opens nothing."""

        def open(self, sealed: bytes, context: bytes) -> bytes:
            raise Unavailable(what="the key service did not answer", why="test", fix="none")

    present = world.totp
    world.totp = Totp(policy=present.policy, sealer=Away(), events=world, clock=world)
    for _ in range(20):
        with pytest.raises(Unavailable):
            world.verify(phone.at(world.time))
    world.totp = present
    assert isinstance(world.verify(phone.at(world.time)), CodeAccepted)


def test_whoever_mistypes_at_enrolment_may_begin_again() -> None:
    """Wrong codes lock the pending factor until another proof of identity; enrolling asks for one, so a fresh enrolment is not born locked."""
    world = World()

    def enrol() -> str:
        enrolment = world.run(world.totp.enrol(user=ANN, account="ann@example.com", proof=world.proof()))
        return pyotp.TOTP(enrolment.secret_base32.reveal()).at(world.time)

    wrong = f"{(int(enrol()) + 1) % 10**6:06d}"
    assert [world.run(world.totp.confirm(user=ANN, code=wrong)).why for _ in range(6)] == ["mismatch"] * 5 + ["locked"]
    assert isinstance(world.run(world.totp.confirm(user=ANN, code=enrol())), CodeAccepted)
