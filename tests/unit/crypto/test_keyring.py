"""The key ring: who seals, who opens, who asks the key service and how often, and what is gone for good."""

from __future__ import annotations

import asyncio
import hmac
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.crypto.envelope import read_header
from axis_security.crypto.errors import KeyMissing, KeyShredded, KmsRefused, KmsUnavailable, LedgerUnavailable, SealError, UnknownFormat
from axis_security.crypto.keyring import CachePolicy, KeyRing, RotationPolicy
from axis_security.crypto.keys import LEGAL, KeyState, wrap_context
from axis_security.crypto.kms.local import LocalFileKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.stream import ObjectName
from axis_security.testing.crypto import FakeKms, KekState, MemoryKeyStore

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
FIELD = "users.ssn"


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)


class Time:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class Bench:
    """A ring on fakes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.store, self.kms, self.sink, self.time = MemoryKeyStore(), FakeKms(), Sink(), Time()
        self.ledger = FileShredLedger(folder / "ledger", create=True)
        self.options = options
        self.ring = self.process()

    def process(self) -> KeyRing:
        """Another process over the same store."""
        return KeyRing(
            store=self.store,
            service=self.kms,
            ledger=self.ledger,
            sink=self.sink,
            clock=self.time,
            monotonic=self.time.monotonic,
            **self.options,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh ring with keys for two tenants."""
    made = Bench(tmp_path)
    made.ring.create(ACME)
    made.ring.create(GLOBEX)
    return made


def test_values_open_for_their_own_tenant_only(bench: Bench) -> None:
    """Sealed for one tenant, refused for the other, even under equal key ids."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    with pytest.raises(SealError):
        bench.ring.open(sealed, tenant=GLOBEX, field=FIELD)


def test_after_rotation_new_values_use_the_new_key_and_old_ones_open(bench: Bench) -> None:
    """Three versions live: each value opens, the newest key seals, ids never repeat; another process follows within its ttl."""
    other = bench.process()
    values = [bench.ring.seal(b"0", tenant=ACME, field=FIELD)]
    other.open(values[0], tenant=ACME, field=FIELD)
    for n in (1, 2):
        assert bench.ring.rotate(ACME) == n + 1
        values.append(bench.ring.seal(str(n).encode(), tenant=ACME, field=FIELD))
    assert [read_header(value, name="x").key_id for value in values] == [1, 2, 3]
    for ring in (bench.ring, other, bench.process()):
        assert [ring.open(value, tenant=ACME, field=FIELD) for value in values] == [b"0", b"1", b"2"]
    bench.time.seconds += 301
    assert read_header(other.seal(b"x", tenant=ACME, field=FIELD), name="x").key_id == 3
    assert [record.state for record in bench.ring.status(ACME)] == [KeyState.DECRYPT_ONLY, KeyState.DECRYPT_ONLY, KeyState.ACTIVE]


def test_a_warm_ring_asks_nobody_and_a_cold_one_once_per_key(tmp_path: Path) -> None:
    """10,000 values of 100 tenants make at most 100 calls; a stampede of 32 threads on one cold key makes one."""
    bench = Bench(tmp_path)
    tenants = [TenantId(f"t{n}") for n in range(100)]
    sealed = []
    for tenant in tenants:
        bench.ring.create(tenant)
        sealed.append(bench.ring.seal(b"x", tenant=tenant, field=FIELD))
    cold = bench.process()
    bench.kms.unwraps = 0
    for _ in range(100):
        for tenant, value in zip(tenants, sealed, strict=True):
            cold.open(value, tenant=tenant, field=FIELD)
    assert bench.kms.unwraps <= 100
    stampede = bench.process()
    bench.kms.unwraps = 0
    barrier, errors = threading.Barrier(32), list[Exception]()

    def work() -> None:
        barrier.wait()
        try:
            stampede.open(sealed[0], tenant=tenants[0], field=FIELD)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, bench.kms.unwraps) == ([], 1)


def test_threads_and_tasks_never_seal_under_anothers_key(tmp_path: Path) -> None:
    """100 tenants, 8 threads and an event loop at once: every value opens under its own tenant and under no other."""
    bench = Bench(tmp_path)
    tenants = [TenantId(f"t{n}") for n in range(100)]
    for tenant in tenants:
        bench.ring.create(tenant)
    made: list[tuple[int, bytes]] = []

    def work(offset: int) -> None:
        for n in range(300):
            at = (offset * 37 + n) % 100
            made.append((at, bench.ring.seal(tenants[at].text.encode(), tenant=tenants[at], field=FIELD)))

    async def tasks() -> None:
        async def one(at: int) -> None:
            await bench.ring.awarm(tenants[at])
            made.append((at, bench.ring.seal(tenants[at].text.encode(), tenant=tenants[at], field=FIELD)))

        await asyncio.gather(*(one(n % 100) for n in range(200)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    assert len(made) == 2600
    for at, value in made:
        assert bench.ring.open(value, tenant=tenants[at], field=FIELD) == tenants[at].text.encode()
        with pytest.raises(SealError):
            bench.ring.open(value, tenant=tenants[(at + 1) % 100], field=FIELD)


def test_shredded_is_gone_everywhere_and_stays_gone_after_a_restore(bench: Bench) -> None:
    """After shredding nothing opens; after the database is put back to before it, still nothing opens, and replay empties the store again."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    backup = bench.store.snapshot()
    with pytest.raises(ConfigError):
        bench.ring.shred(ACME, reason=" ")
    assert bench.ring.shred(ACME, reason="DSR-17") == 1
    with pytest.raises(KeyShredded):
        bench.ring.open(sealed, tenant=ACME, field=FIELD)
    with pytest.raises(KeyShredded):
        bench.ring.seal(b"y", tenant=ACME, field=FIELD)
    bench.store.restore(backup)
    assert bench.store.load("acme")[0].state is KeyState.ACTIVE
    for ring in (bench.ring, bench.process()):
        with pytest.raises(KeyShredded):
            ring.open(sealed, tenant=ACME, field=FIELD)
        for again in (ring.create, ring.rotate):
            with pytest.raises(KeyShredded):
                again(ACME)
    assert bench.process().replay_ledger() == 1
    assert bench.store.load("acme")[0].wrapped == b""
    assert EventKind.KEY_SHREDDED in {event.kind for event in bench.sink.events}
    assert bench.ring.open(bench.ring.seal(b"z", tenant=GLOBEX, field=FIELD), tenant=GLOBEX, field=FIELD) == b"z"


def test_nothing_is_destroyed_if_the_ledger_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    """The ledger comes first: without it, shredding refuses and the key still opens."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    (tmp_path / "ledger").rename(tmp_path / "moved")
    with pytest.raises(LedgerUnavailable):
        bench.ring.shred(ACME, reason="DSR-17")
    (tmp_path / "moved").rename(tmp_path / "ledger")
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"


@pytest.mark.parametrize("fault", ["missing", "edited", "cut line", "removed line", "garbage"])
def test_a_ledger_that_was_touched_opens_no_ring(bench: Bench, tmp_path: Path, fault: str) -> None:
    """Missing, edited, cut or shortened: no key is given out until a person has looked."""
    bench.ring.shred(GLOBEX, reason="DSR-18")
    bench.ring.shred(ACME, reason="DSR-19")
    path = tmp_path / "ledger"
    data = path.read_bytes()
    match fault:
        case "missing":
            path.unlink()
        case "edited":
            path.write_bytes(data.replace(b"globex", b"globey"))
        case "cut line":
            path.write_bytes(data[:-20])
        case "removed line":
            path.write_bytes(data.splitlines(keepends=True)[1])
        case _:
            path.write_bytes(data + b"{}\n")
    with pytest.raises(LedgerUnavailable):
        FileShredLedger(path)
    with pytest.raises(LedgerUnavailable):
        bench.process().create(TenantId("new"))


def test_a_shortened_ledger_is_noticed_by_whoever_saw_it_longer(bench: Bench, tmp_path: Path) -> None:
    """The newest line removed leaves a valid file; a process that had read it refuses, and the head kept elsewhere differs."""
    bench.ring.shred(GLOBEX, reason="DSR-18")
    bench.ring.shred(ACME, reason="DSR-19")
    head = bench.ledger.head
    path = tmp_path / "ledger"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert FileShredLedger(path).head != head
    with pytest.raises(LedgerUnavailable, match="gone"):
        bench.ledger.shredded()


@pytest.mark.parametrize("state", [KekState.DISABLED, KekState.PENDING_DELETION])
def test_a_key_service_that_refuses_ends_it_with_the_ttl(bench: Bench, state: KekState) -> None:
    """A disabled key is a decision: within the ttl what is in memory serves, then nothing does, though the ceiling is far; enabled again, all is back."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.kms.state = state
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    bench.time.seconds += 301
    for _ in range(2):
        with pytest.raises(KmsRefused):
            bench.ring.open(sealed, tenant=ACME, field=FIELD)
        with pytest.raises(KmsRefused):
            bench.ring.seal(b"y", tenant=ACME, field=FIELD)
    bench.kms.state = KekState.DOWN
    with pytest.raises(KmsUnavailable):
        bench.ring.open(sealed, tenant=ACME, field=FIELD)
    bench.kms.state = KekState.ENABLED
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"


@pytest.mark.parametrize("state", [KekState.THROTTLED, KekState.DOWN])
def test_a_key_service_that_does_not_answer_is_survived_for_a_bounded_time(bench: Bench, state: KekState) -> None:
    """Keys in memory go on until ttl + ceiling; then, and for keys never opened, the answer is no; nothing new is created meanwhile."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.kms.state = state
    with pytest.raises(KmsUnavailable):
        bench.process().open(sealed, tenant=ACME, field=FIELD)
    with pytest.raises(KmsUnavailable):
        bench.ring.create(TenantId("new"))
    assert bench.store.load("new") == []
    bench.time.seconds += 301
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    calls = bench.kms.unwraps
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    assert bench.kms.unwraps == calls, "a service that is down is not asked at every value"
    bench.time.seconds += 3601
    with pytest.raises(KmsUnavailable):
        bench.ring.open(sealed, tenant=ACME, field=FIELD)
    bench.kms.state = KekState.ENABLED
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    assert EventKind.KMS_UNAVAILABLE in {event.kind for event in bench.sink.events}


def test_a_service_that_gives_a_key_of_its_own_choosing_seals_nothing(bench: Bench) -> None:
    """A new key is opened once before it may seal; one that comes back different is never activated."""
    bench.kms.state = KekState.LIES
    with pytest.raises(KmsUnavailable, match="does not give back"):
        bench.ring.rotate(ACME)
    assert [record.state for record in bench.store.load("acme")] == [KeyState.ACTIVE]


def test_a_wrapped_key_copied_to_another_tenant_does_not_open(bench: Bench) -> None:
    """The wrap context names the tenant: a stolen row is useless."""
    stolen = bench.store.load("acme")[0].wrapped
    old = bench.store.load("globex")[0].wrapped
    assert bench.store.rewrap("globex", 1, old=old, new=stolen, kek="fake/1")
    with pytest.raises(KmsUnavailable):
        bench.process().seal(b"x", tenant=GLOBEX, field=FIELD)


def test_kek_rotation_rewraps_rows_and_no_value(bench: Bench) -> None:
    """Under a new kek the records change and the values stay as they are."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.kms.kek = "fake/2"
    assert bench.ring.rewrap(ACME) == 1
    assert bench.store.load("acme")[0].kek == "fake/2"
    assert bench.process().open(sealed, tenant=ACME, field=FIELD) == b"x"


def test_a_kek_that_keeps_its_name_when_it_rotates_is_rewrapped_too(bench: Bench) -> None:
    """Transit and AWS rotate under one name: what the version before wrapped is wrapped anew all the same, or retiring that version would lose it."""
    before = bench.store.load("acme")[0].wrapped
    bench.ring.shred(GLOBEX, reason="DSR-18")
    assert bench.ring.rewrap(ACME) == 1
    assert bench.store.load("acme")[0].wrapped != before
    assert bench.ring.rewrap(GLOBEX) == 0, "what was shredded stays so"


def test_a_key_that_the_new_kek_does_not_give_back_is_not_stored(bench: Bench) -> None:
    """A rewrap whose new bytes do not open to the same key would lose every value under it: it fails, and the old bytes stay."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    before = bench.store.load("acme")
    bench.kms.kek = "fake/2"
    kept, bench.kms.wrap = bench.kms.wrap, lambda key, context: kept(Secret(bytes(32)), context)  # type: ignore[method-assign]
    with pytest.raises(KmsUnavailable, match="does not give back"):
        bench.ring.rewrap(ACME)
    assert bench.store.load("acme") == before
    assert bench.process().open(sealed, tenant=ACME, field=FIELD) == b"x"


def test_a_key_service_cannot_choose_the_root_key(bench: Bench) -> None:
    """A service that answers every unwrap with the same key gets another root for every record: a salt of ours is extracted with it."""
    bench.kms.state = KekState.LIES  # 32 zero bytes, whatever is asked
    ring = bench.process()
    roots = {ring.subkey(tenant, "probe")[1].reveal() for tenant in (ACME, GLOBEX)}
    assert len(roots) == 2
    salts = {bench.store.load(tenant.text)[0].salt for tenant in (ACME, GLOBEX)}
    assert {len(salt) for salt in salts} == {32}
    assert len(salts) == 2
    chosen = hmac.digest(bytes(32), b"axis-security/subkey/v1\0probe\x01", "sha512")[:32]
    assert chosen not in roots


def test_the_root_is_extracted_as_rfc_5869_says(bench: Bench) -> None:
    """Root = HKDF-Extract-SHA256(salt, unwrapped key), by the library's own HKDF, so that another implementation can open a backup of the table."""
    record = bench.store.load("acme")[0]
    unwrapped = bench.kms.unwrap(record.wrapped, wrap_context("acme", 1)).reveal()
    root = HKDF.extract(hashes.SHA256(), record.salt, unwrapped)
    subkey = hmac.digest(root, b"axis-security/subkey/v1\0probe\x01", "sha512")[:32]
    assert bench.ring.subkey(ACME, "probe")[1].reveal() == subkey


def test_the_least_recently_used_tenant_is_forgotten_first(tmp_path: Path) -> None:
    """Memory holds as many tenants as it was told; one beyond that costs a call to the key service, and no more than one."""
    bench = Bench(tmp_path, cache=CachePolicy(tenants=2))
    others = [TenantId(name) for name in ("acme", "globex", "initech")]
    for tenant in others:
        bench.ring.create(tenant)
    ring = bench.process()
    for tenant in others:
        ring.seal(b"x", tenant=tenant, field=FIELD)
    before = bench.kms.unwraps
    ring.seal(b"x", tenant=others[2], field=FIELD)
    ring.seal(b"x", tenant=others[1], field=FIELD)
    assert bench.kms.unwraps == before, "both are held"
    ring.seal(b"x", tenant=others[0], field=FIELD)
    assert bench.kms.unwraps == before + 1, "the first had gone"


def test_a_record_of_another_suite_is_refused(bench: Bench) -> None:
    """The record says what its key may be used with; one that this release does not know seals and opens nothing."""
    record = bench.store.load("acme")[0]
    bench.store._records["acme", 1] = replace(record, suite=2)
    with pytest.raises(UnknownFormat):
        bench.process().seal(b"x", tenant=ACME, field=FIELD)


def test_the_defaults_are_the_documented_ones() -> None:
    """A factor of two under NIST SP 800-38D's 2**32, a year, five minutes, an hour, a thousand tenants."""
    assert RotationPolicy() == RotationPolicy(uses=2**31, age=timedelta(days=365))
    assert CachePolicy() == CachePolicy(ttl=timedelta(minutes=5), ceiling=timedelta(hours=1), tenants=1_000, missing=timedelta(seconds=5))


def test_a_key_is_due_at_its_limit_and_not_before(tmp_path: Path) -> None:
    """The hundredth use of a hundred, whether it is in the store already or still counted here; the day itself, too."""
    bench = Bench(tmp_path, rotation=RotationPolicy(uses=100, age=timedelta(days=1)))
    bench.ring.create(ACME)
    bench.store.add_uses("acme", 1, 99)
    assert not bench.ring.due(ACME)
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.ring.due(ACME)
    assert not bench.process().due(GLOBEX), "who has no key has none to rotate"
    bench.ring.rotate(ACME)
    assert not bench.ring.due(ACME)
    bench.time.seconds += 86_400
    assert bench.ring.due(ACME)


def test_rewrapping_drops_what_is_in_memory(bench: Bench) -> None:
    """After it the ring asks the key service again: a new key-encryption key that does not work shows at once."""
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.kms.kek = "fake/2"
    bench.ring.rewrap(ACME)
    before = bench.kms.unwraps
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.kms.unwraps == before + 1


def test_unknown_keys_are_refused_without_asking_at_each(bench: Bench) -> None:
    """A value that names a key that is not there costs one look, not one a value."""
    sealed = bytearray(bench.ring.seal(b"x", tenant=ACME, field=FIELD))
    sealed[2:6] = (99).to_bytes(4, "big")
    loads = bench.store.loads
    for _ in range(50):
        with pytest.raises(KeyMissing):
            bench.ring.open(bytes(sealed), tenant=ACME, field=FIELD)
    assert bench.store.loads - loads <= 1
    with pytest.raises(KeyMissing):
        bench.ring.seal(b"x", tenant=TenantId("nobody"), field=FIELD)


def test_use_and_age_make_a_key_due(tmp_path: Path) -> None:
    """A key is due for rotation after its budget of uses or its age, whichever comes first."""
    bench = Bench(tmp_path, rotation=RotationPolicy(uses=5000, age=timedelta(days=365)))
    bench.ring.create(ACME)
    assert not bench.ring.due(ACME)
    for _ in range(5001):
        bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.load("acme")[0].uses >= 4096
    assert bench.ring.due(ACME) or bench.store.load("acme")[0].uses < 5000
    (tmp_path / "b").mkdir()
    fresh = Bench(tmp_path / "b")
    fresh.ring.create(ACME)
    fresh.time.seconds += 366 * 86400
    assert fresh.ring.due(ACME)


def test_objects_and_subkeys_come_from_the_same_ring(bench: Bench) -> None:
    """An object's header names its key; each purpose has its own subkey; both end with shredding."""
    name = ObjectName(tenant="acme", bucket="files", key="a")
    assert bench.ring.object(name).header == bench.ring.object(name, key_id=1).header
    one, two = (bench.ring.subkey(ACME, purpose)[1].reveal() for purpose in ("backup", "export"))
    assert one != two
    bench.ring.shred(ACME, reason="DSR-17")
    with pytest.raises(KeyShredded):
        bench.ring.object(name, key_id=1)
    with pytest.raises(KeyShredded):
        bench.ring.subkey(ACME, "backup")


def test_every_transition_of_the_table_and_no_other() -> None:
    """The store's conditions are the table's: nothing leads back from decrypt-only or shredded."""
    assert set(LEGAL) == set(KeyState)
    assert LEGAL[KeyState.SHREDDED] == frozenset()
    assert all(KeyState.PENDING not in targets for targets in LEGAL.values())
    assert [state for state, targets in LEGAL.items() if KeyState.ACTIVE in targets] == [KeyState.PENDING]


def test_a_local_file_is_for_development(tmp_path: Path) -> None:
    """Refused in production without a reason, refused if others can read it, and each opening is an event."""
    sink = Sink()
    path = tmp_path / "kek"
    with pytest.raises(ConfigError):
        LocalFileKms(path, environment=Environment.PRODUCTION, sink=sink)
    kms = LocalFileKms(path, environment=Environment.DEVELOPMENT, sink=sink)
    again = LocalFileKms(path, environment=Environment.PRODUCTION, sink=sink, production_reason="air-gapped site, approved by J. Doe")
    wrapped = kms.wrap(Secret(bytes(32)), {"a": "b"})
    assert again.unwrap(wrapped, {"a": "b"}).reveal() == bytes(32)
    with pytest.raises(KmsUnavailable):
        again.unwrap(wrapped, {"a": "c"})
    assert [event.kind for event in sink.events] == [EventKind.DEVELOPMENT_KEK] * 2
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others"):
        LocalFileKms(path, environment=Environment.DEVELOPMENT, sink=sink)
    path.chmod(0o600)
    path.write_text("axis_kek_short", encoding="utf-8")
    with pytest.raises(ConfigError):
        LocalFileKms(path, environment=Environment.DEVELOPMENT, sink=sink)


def test_no_key_shows_in_reprs_or_events(bench: Bench) -> None:
    """Nothing that a log would print of the ring holds key bytes."""
    root = bench.kms.unwrap(
        bench.store.load("acme")[0].wrapped, {"app": "axis-security", "purpose": "tenant-root", "tenant": "acme", "key_id": "1"}
    ).reveal()
    text = repr(
        (
            bench.ring,
            bench.sink.events,
            bench.ring.field(ACME, FIELD),
            bench.ring.object(ObjectName(tenant="acme", bucket="b", key="k")),
            bench.store.load("acme"),
        )
    )
    assert root.hex() not in text
    assert repr(root) not in text


def test_unusable_cache_policies_are_refused() -> None:
    """A cache that never forgets can't be built."""
    bads: list[dict[str, Any]] = [{"ttl": timedelta(0)}, {"ttl": timedelta(days=2)}, {"ceiling": timedelta(days=9)}, {"tenants": 0}]
    for bad in bads:
        with pytest.raises(ConfigError):
            CachePolicy(**bad)


class Rotation(RuleBasedStateMachine):
    """Writers, rotations, restarts and time, in any order: every value ever written opens at each step."""

    values: Bundle[tuple[bytes, bytes]] = Bundle("values")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(Path(self.folder.name))
        self.bench.ring.create(ACME)
        self.rings = [self.bench.ring, self.bench.process()]
        self.written: list[tuple[bytes, bytes]] = []

    @rule(which=st.integers(0, 1), plain=st.binary(max_size=8))
    def write(self, which: int, plain: bytes) -> None:
        self.written.append((self.rings[which].seal(plain, tenant=ACME, field=FIELD), plain))

    @rule(which=st.integers(0, 1))
    def rotate(self, which: int) -> None:
        self.rings[which].rotate(ACME)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.rings[which] = self.bench.process()

    @rule(seconds=st.sampled_from([1, 200, 301]))
    def wait(self, seconds: int) -> None:
        self.bench.time.seconds += seconds

    @rule(which=st.integers(0, 1))
    def rewrap(self, which: int) -> None:
        self.bench.kms.kek = f"fake/{self.bench.kms.wraps}"
        self.rings[which].rewrap(ACME)

    @invariant()
    def every_value_opens_everywhere(self) -> None:
        for ring in self.rings:
            assert all(ring.open(sealed, tenant=ACME, field=FIELD) == plain for sealed, plain in self.written)

    def teardown(self) -> None:
        self.folder.cleanup()


TestRotation = Rotation.TestCase
TestRotation.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
