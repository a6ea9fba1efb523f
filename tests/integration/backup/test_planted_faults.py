"""The promises of one whole product, measured: all hold; and each of more than thirty planted faults turns its own row red, and no other.

It lies here because the product has real backups.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import Column, ForeignKey, LargeBinary, MetaData, Table, Text, create_engine

from axis_security.auth.cookies import CookieProfile
from axis_security.auth.kdf import Argon2Call, KdfCall
from axis_security.auth.passwords import Passwords
from axis_security.auth.totp import TotpPolicy
from axis_security.auth.vault_sql import VAULT
from axis_security.core.checks import CheckResult
from axis_security.core.events import AuditEvent, EventKind, NullSink, Outcome
from axis_security.core.ids import KeyType, TenantId
from axis_security.core.schema import DatabaseRoles
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.crypto.keyring import KeyRing, RotationPolicy
from axis_security.crypto.keystore import KEYSTORE_PART, PostgresKeyStore
from axis_security.crypto.kms.local import LocalFileKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.objects import Files
from axis_security.crypto.sealer import RingSealer
from axis_security.ops import promises as p
from axis_security.ops.audit_files import write_anchors
from axis_security.ops.audit_postgres import AUDIT_PART, PostgresAuditSink, anchors
from axis_security.ops.backup import Backups
from axis_security.ops.backup.records import append_record
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.evidence import record_report
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.probes import database
from axis_security.ops.secrets import EnvironmentSecrets, MountedFiles
from axis_security.ops.tls import secure_dsn, server_context
from axis_security.ops.verify import Report, to_html, verify
from axis_security.rbac import Capabilities, Policy, Role, standard_policy
from axis_security.rbac.guard import Open
from axis_security.rbac.members_sql import members_part
from axis_security.rls import Tenancy
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.testing.clock import ManualClock
from axis_security.testing.crypto import FakeKms, KekState, MemoryKeyStore
from axis_security.testing.servers import TlsCluster, make_certificates
from axis_security.wiring.routes import Audit, ListedRoute

Site = Any  # conftest.py
Looks = dict[str, Sequence[p.Look]]
ACME = TenantId("acme")


@dataclass(frozen=True)
class Product:
    """Everything that the promises are measured on."""

    site: Site
    home: Path
    name: str
    roles: DatabaseRoles
    tenancy: Tenancy
    policy: Policy
    caps: Capabilities[str]
    pool: ConnectionPool[Any]
    guarded: ConnectionPool[Any]
    ring: KeyRing
    tls_dsn: str
    tls_files: tuple[Path, Path, Path]
    https: int

    def dsn(self, role: str | None = None) -> str:
        return str(self.site.cluster.dsn(self.name, user=role))

    def plain(self, role: str | None = None) -> Callable[[], AbstractContextManager[Any]]:
        """Opens plain connections as *role*; the superuser unless told."""
        return lambda: psycopg.connect(self.dsn(role))

    def system(self) -> AbstractContextManager[Any]:
        return psycopg.connect(self.dsn(self.roles.system), autocommit=True)

    def change(self, *statements: str) -> None:
        """As the superuser."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def monitor(self, dsn: str) -> HealthMonitor:
        @dataclass
        class Source:
            dsn: str

            def connection(self) -> AbstractContextManager[Any]:
                return psycopg.connect(self.dsn, connect_timeout=2)

        return HealthMonitor([HealthCheck(name="database", run=database(Source(dsn)))], sink=NullSink())

    def disclosure(self, reviewed: date) -> SecurityTxt:
        return SecurityTxt(contact=("mailto:security@example.com",), reviewed_on=reviewed)

    def looks(self) -> Looks:
        """One or more looks for every promise."""
        ca = self.tls_files[0]
        return {
            "transport": [p.endpoint("localhost", self.https, cafile=ca), p.database_connection(Secret(self.tls_dsn))],
            "at_rest": [
                p.key_ring(self.ring, ACME),
                p.sealed_column(self.system, "contact", "ssn"),
                p.objects(self.ring, Files(self.home / "objects"), ACME),
            ],
            "isolation": [
                p.app_login(self.plain(self.roles.app), self.tenancy),
                p.as_declared(self.plain(), self.tenancy, accept={"rls.primary_key_guessable": "nobody chooses these ids"}),
                p.strangers(self.guarded.connection, self.tenancy, system=self.system),
            ],
            "passwords": [NEW_HASHES, p.stored_passwords(self.plain())],
            "sessions": [p.session_cookies(CookieProfile.production()), p.cookies_seen("sessions.login", lambda: [COOKIE])],
            "second_factor": [p.totp(TotpPolicy(issuer="Product"), RingSealer(self.ring, "totp.seed"))],
            "roles": [p.policy_lock(self.policy, self.home / "policy.lock.json")],
            "requests": [p.routes(lambda: Audit.of([GUARDED]))],
            "members": [p.managers(self.policy), p.members_held(self.plain(self.roles.app), self.tenancy, self.policy)],
            "backups": [p.backups(self.site.backups), p.drills(self.home / "drills.jsonl")],
            "health": [p.health(self.monitor(self.dsn(self.roles.app))), p.gate(self.home / "ci.yml")],
            "secrets": [p.secrets_manager(MountedFiles(self.home / "secrets"), ["session-key"]), p.source_scan(self.home / "source")],
            "disclosure": [p.security_txt(self.disclosure(datetime.now(UTC).date()))],
            "controls": [p.audit_log(self.system, anchors=self.home / "anchors.jsonl"), p.evidence_chain(self.home / "evidence.jsonl")],
        }

    def measured(self, **looks: Sequence[p.Look]) -> Report:
        """Verified, with some looks in place of others."""
        every: dict[str, Any] = {**self.looks(), **looks}
        return verify(p.Promises(product="Product", **every))


@functools.cache
def _new_hashes() -> CheckResult:
    result = p.argon2id(Passwords())()
    assert isinstance(result, CheckResult)
    return result


NEW_HASHES: p.Look = _new_hashes
"""Five Argon2id hashes by code alone, which no fault of another promise can reach: measured once, they save half of the file's time."""

GUARDED = ListedRoute(path="/", methods=("GET",), endpoint="app.home", mark=Open("the front page"))
COOKIE = "__Host-axis_session=x; Path=/; Secure; HttpOnly; SameSite=Lax"


@contextmanager
def https_server(certificate: Path, key: Path, *, tls12: bool = False) -> Iterator[int]:
    """A loopback server that completes handshakes; the weak one takes TLS 1.2 too."""
    context = server_context(certfile=certificate, keyfile=key)
    if tls12:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):  # TimeoutError and failed handshakes among them
                    connection, _ = listener.accept()
                    connection.settimeout(2)
                    with connection, context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="module")
def product(own_archive: Site, tls_cluster: TlsCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A database with every part, keys, files, backups, a drill, an audit log and evidence; all of it in order."""
    site, home = own_archive, tmp_path_factory.mktemp("product")
    for folder in ("objects", "source", "secrets"):
        (home / folder).mkdir()
    certificates = (home / "ca.pem", home / "cert.pem", home / "key.pem")
    for path, data in zip(certificates, make_certificates(["localhost"]), strict=True):
        path.write_bytes(data)
    (home / "source" / "app.py").write_text("print('hello')\n")
    (home / "secrets" / "session-key").write_text("tulip-harbour-9281\n")
    (home / "secrets" / "session-key").chmod(0o400)
    (home / "ci.yml").write_text("steps:\n  - run: axis-security verify app.promises\n")

    caps = Capabilities(contacts=("read", "write"), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write], events=NullSink())
    p.write_policy_lock(policy, home / "policy.lock.json")
    metadata = MetaData()
    contact = Table("contact", metadata, Column("id", Text, primary_key=True), Column("tenant_id", Text), Column("ssn", LargeBinary))
    deal = Table(
        "deal", metadata, Column("id", Text, primary_key=True), Column("tenant_id", Text), Column("contact_id", ForeignKey("contact.id"))
    )
    roles = DatabaseRoles.prefixed("product_" + secrets.token_hex(4))
    parts = (members_part(policy), VAULT, KEYSTORE_PART, AUDIT_PART)
    tenancy = Tenancy(
        metadata, policy=policy, roles=roles, seal=SealKeyring(current=SealKey.generate(1)), parts=parts, key_type=KeyType.TEXT
    )
    for table in (contact, deal):
        tenancy.protect(table, read=caps.contacts.read, write=caps.contacts.write)

    with contextlib.ExitStack() as stack:
        name = stack.enter_context(site.cluster.database("product"))
        engine = create_engine(site.cluster.url(name))
        metadata.create_all(engine)
        engine.dispose()
        with psycopg.connect(site.cluster.dsn(name)) as connection:
            tenancy.plan(connection).apply(connection)
        with psycopg.connect(site.cluster.dsn(name), autocommit=True) as connection:
            for login in (roles.app, roles.system):
                connection.execute(f"ALTER ROLE {login} LOGIN")
        app_dsn = site.cluster.dsn(name, user=roles.app)
        pool, guarded = (stack.enter_context(ConnectionPool(app_dsn, min_size=1, max_size=3, open=True)) for _ in range(2))
        tenancy.install(guarded, sink=NullSink())
        ledger = FileShredLedger(home / "ledger", create=True)
        ring = KeyRing(store=PostgresKeyStore(pool), service=FakeKms(), ledger=ledger, sink=NullSink())
        ring.create(ACME)
        with psycopg.connect(site.cluster.dsn(name), autocommit=True) as connection:
            for number in range(4):
                sealed = ring.seal(b"123-45-6789", tenant=ACME, field="contact.ssn", row=str(number).encode())
                connection.execute("INSERT INTO contact VALUES (%s, 'acme', %s)", (str(number), sealed))
            for number in range(2):
                settings = Passwords().split(Passwords().hash(Secret("correct horse battery")))
                connection.execute(
                    "INSERT INTO axis.vault_account (account, identifier, settings, digest) VALUES (%s, %s, %s, %s)",
                    (f"text:{number}", f"{number}@example.com", settings.settings, settings.digest),
                )
        sink = PostgresAuditSink(pool)
        for number in range(5):
            sink.emit(
                AuditEvent(
                    kind=EventKind.LOGOUT, at=datetime.now(UTC), outcome=Outcome.ALLOWED, tenant=ACME, detail={"account": str(number)}
                )
            )
        with psycopg.connect(site.cluster.dsn(name, user=roles.system), autocommit=True) as connection:
            write_anchors(home / "anchors.jsonl", anchors(connection), at=datetime.now(UTC).isoformat())
        site.backups.run()
        append_record(home / "drills.jsonl", site.backups.drill().evidence)
        weak = tls_cluster.tls_dsn(sslrootcert=str(tls_cluster.root_certificate))
        made = Product(
            site=site, home=home, name=name, roles=roles, tenancy=tenancy, policy=policy, caps=caps, pool=pool, guarded=guarded, ring=ring,
            tls_dsn=secure_dsn(weak), tls_files=certificates, https=stack.enter_context(https_server(certificates[1], certificates[2])),
        )  # fmt: skip
        record_report(home / "evidence.jsonl", made.measured(controls=[p.findings_of("first", list)]))
        try:
            yield made
        finally:
            pool.close()
            guarded.close()


@pytest.fixture(scope="module")
def own_archive(helper: tuple[str, ...], make_archive: Any) -> Iterator[Site]:
    """The native driver, in a repository that began just now."""
    with make_archive("native", helper) as site:
        began = datetime.now(UTC) - timedelta(hours=1)
        site.config.write_text(site.config.read_text() + f"[policy]\nbegan = {began:%Y-%m-%dT%H:%M:%SZ}\n")
        yield site


def red(report: Report) -> list[str]:
    """The promises that do not hold."""
    return [row.promise.key for row in report.rows if not row.ok]


def test_every_promise_of_a_whole_product_holds(product: Product) -> None:
    """All fourteen, measured on real servers; each says what it saw, and nothing of it is a secret."""
    report = product.measured()
    assert red(report) == [], [check.as_dict() for row in report.rows for check in row.checks if not check.ok]
    seen = {row.promise.key: row.seen for row in report.rows}
    assert "TLSv1.3" in seen["transport"]
    assert "4 values, 4 sealed" in seen["at_rest"]
    assert "2 protected tables, 1 of them hold rows; a stranger sees none" in seen["isolation"]
    assert "2 tables, 0 findings, 2 accepted" in seen["isolation"]
    assert "m=47104" in seen["passwords"]
    assert "RPO" in seen["backups"]
    page = to_html(report)
    assert "14 of 14" in page
    for secret in (product.tls_dsn, "tulip-harbour", "correct horse"):
        assert secret not in page


def test_engines_do_as_well_as_psycopg(product: Product) -> None:
    """The same looks through SQLAlchemy's connections; and through a guarded engine a leak is seen as well."""
    plain, guarded, owner = (
        create_engine(product.site.cluster.url(product.name, user=role)) for role in (product.roles.app, product.roles.app, None)
    )
    product.tenancy.install(guarded, sink=NullSink())
    looks = [
        p.app_login(plain.connect, product.tenancy),
        p.as_declared(owner.connect, product.tenancy),
        p.strangers(guarded.connect, product.tenancy, system=owner.connect),
    ]
    members = [p.members_held(plain.connect, product.tenancy, product.policy)]
    only = p.Promises(product="Engines", isolation=looks, members=members, at_rest=[p.sealed_column(owner.connect, "contact", "ssn")])
    try:
        rows = {row.promise.key: row for row in verify(only).rows}
        for key in ("isolation", "members", "at_rest"):
            assert rows[key].ok, rows[key].as_dict()
        product.change("ALTER TABLE contact DISABLE ROW LEVEL SECURITY")
        found = {each.code for check in verify(only).rows[2].checks for each in check.findings}
        assert {"isolation.leak", "rls.differs_from_declaration"} <= found
    finally:
        product.change("ALTER TABLE contact ENABLE ROW LEVEL SECURITY")
        for engine in (plain, guarded, owner):
            engine.dispose()


Plant = Callable[[Product], AbstractContextManager[Looks]]
FAULTS: dict[str, tuple[str, Plant]] = {}


def fault(promise: str, what: str) -> Callable[[Callable[[Product], Iterator[Looks]]], None]:
    """Register a fault: plant it, yield the looks that it replaces, undo it."""

    def register(plant: Callable[[Product], Iterator[Looks]]) -> None:
        FAULTS[f"{promise}: {what}"] = (promise, contextmanager(plant))

    return register


def sql_fault(promise: str, what: str, do: str, undo: str) -> None:
    """A fault in the live database."""

    @fault(promise, what)
    def plant(product: Product) -> Iterator[Looks]:
        names = {"app": product.roles.app, "owner": product.roles.owner, "system": product.roles.system}
        product.change(*[each.format(**names) for each in do.split(";")])
        try:
            yield {}
        finally:
            product.change(*[each.format(**names) for each in undo.split(";")])


def look_fault(promise: str, what: str, made: Callable[[Product], Sequence[p.Look]]) -> None:
    """A fault in what the host uses."""

    @fault(promise, what)
    def plant(product: Product) -> Iterator[Looks]:
        yield {promise: made(product)}


def file_fault(promise: str, what: str, where: Callable[[Product], Path], change: Callable[[str], str]) -> None:
    """A fault in a file, undone afterwards."""

    @fault(promise, what)
    def plant(product: Product) -> Iterator[Looks]:
        path = where(product)
        before = path.read_text()
        path.write_text(change(before))
        try:
            yield {}
        finally:
            path.write_text(before)


# 1
@fault("transport", "TLS 1.2 is accepted")
def _tls12(product: Product) -> Iterator[Looks]:
    ca, certificate, key = product.tls_files
    with https_server(certificate, key, tls12=True) as port:
        yield {"transport": [p.endpoint("localhost", port, cafile=ca)]}


look_fault(
    "transport", "the certificate is not the one of the host", lambda at: [p.endpoint("127.0.0.1", at.https, cafile=at.tls_files[0])]
)
look_fault("transport", "nobody listens", lambda at: [p.endpoint("localhost", 1)])
look_fault(
    "transport", "the DSN takes any certificate", lambda at: [p.database_connection(Secret(at.tls_dsn.replace("verify-full", "require")))]
)
look_fault(
    "transport",
    "the database connection is plaintext",
    lambda at: [p.database_connection(Secret(at.dsn(at.roles.app) + f" host=127.0.0.1 port={at.site.cluster.port}"))],
)

# 2
sql_fault(
    "at_rest",
    "a value was written around the sealed type",
    "INSERT INTO contact VALUES ('plain', 'acme', 'plain 123-45-6789 plain 123-45-6789 plain 123-45-6789')",
    "DELETE FROM contact WHERE id = 'plain'",
)


def ring_with(product: Product, service: Any, **settings: Any) -> KeyRing:
    """A ring of its own, in memory, with a key for ACME."""
    ledger = FileShredLedger(product.home / f"ledger-{secrets.token_hex(4)}", create=True)
    made = KeyRing(store=MemoryKeyStore(), service=service, ledger=ledger, sink=NullSink(), **settings)
    made.create(ACME)
    return made


def in_a_file(product: Product) -> LocalFileKms:
    """A key service that is a file."""
    return LocalFileKms(product.home / "kek", environment=Environment.DEVELOPMENT, sink=NullSink())


class NoCipher:
    """In the ring's place: seals nothing."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ring, name)

    def seal(self, plaintext: bytes, **_: Any) -> bytes:
        return plaintext

    open = seal


look_fault("at_rest", "tenant keys are wrapped by a file", lambda at: [p.key_ring(ring_with(at, in_a_file(at)), ACME)])


def disabled(at: Product) -> KeyRing:
    """A ring whose key service was disabled after its keys were opened: what is in memory still seals."""
    kms = FakeKms()
    ring = ring_with(at, kms)
    ring.seal(b"warm", tenant=ACME, field="x")
    kms.state = KekState.DISABLED
    return ring


look_fault("at_rest", "the key service was disabled an hour ago", lambda at: [p.key_ring(disabled(at), ACME)])
look_fault("at_rest", "a key was never rotated", lambda at: [p.key_ring(ring_with(at, FakeKms(), rotation=RotationPolicy(uses=1)), ACME)])
look_fault("at_rest", "encryption was replaced by nothing", lambda at: [p.key_ring(NoCipher(at.ring), ACME)])  # type: ignore[arg-type]

# 3
look_fault("isolation", "the app connects as a superuser", lambda at: [p.app_login(at.plain(), at.tenancy)])
sql_fault(
    "isolation", "FORCE was dropped", "ALTER TABLE contact NO FORCE ROW LEVEL SECURITY", "ALTER TABLE contact FORCE ROW LEVEL SECURITY"
)
sql_fault(
    "isolation", "row security is off", "ALTER TABLE contact DISABLE ROW LEVEL SECURITY", "ALTER TABLE contact ENABLE ROW LEVEL SECURITY"
)
sql_fault(
    "isolation",
    "a policy for everybody was added",
    "CREATE POLICY all_see ON contact TO {app} USING (true)",
    "DROP POLICY all_see ON contact",
)
sql_fault("isolation", "the app may truncate", "GRANT TRUNCATE ON contact TO {app}", "REVOKE TRUNCATE ON contact FROM {app}")
sql_fault("isolation", "the app is a member of the owner", "GRANT {owner} TO {app}", "REVOKE {owner} FROM {app}")

# 4
sql_fault(
    "passwords",
    "a stored hash is weak",
    "UPDATE axis.vault_account SET settings = replace(settings, 'm=47104', 'm=1024') WHERE identifier = '0@example.com'",
    "UPDATE axis.vault_account SET settings = replace(settings, 'm=1024', 'm=47104')",
)
sql_fault(
    "passwords",
    "two people share a salt",
    "UPDATE axis.vault_account a SET settings = b.settings FROM axis.vault_account b WHERE a.account = 'text:0' AND b.account = 'text:1'",
    "UPDATE axis.vault_account SET settings = regexp_replace(settings, '[A-Za-z0-9_-]{{22}}', repeat('A', 22)) WHERE account = 'text:0'",
)
look_fault("passwords", "salts are constant", lambda at: [p.argon2id(Passwords(entropy=bytes))])


class FastHash:
    """In the KDF's place: no KDF."""

    def derive(self, call: KdfCall, secret: bytes) -> bytes:
        import hashlib

        assert isinstance(call, Argon2Call)
        return hashlib.sha256(call.salt + secret).digest()


look_fault("passwords", "the KDF was replaced by a fast hash", lambda at: [p.argon2id(Passwords(kdf=FastHash()))])

# 5
look_fault(
    "sessions", "cookies without Secure", lambda at: [p.session_cookies(CookieProfile.development(environment=Environment.DEVELOPMENT))]
)


def weakened(what: str) -> p.Look:
    """The cookie as it arrives through a proxy that takes *what* off."""
    return p.cookies_seen("login", lambda: [COOKIE.replace(what, "")])


look_fault("sessions", "a proxy takes HttpOnly off", lambda _: [weakened("; HttpOnly")])
look_fault("sessions", "a proxy takes Secure off", lambda _: [weakened("; Secure")])
look_fault("sessions", "a proxy takes SameSite off", lambda _: [weakened("; SameSite=Lax")])
look_fault("sessions", "a cookie without the prefix", lambda _: [weakened("__Host-")])

# 6


class NoSealer:
    """In the sealer's place: seals nothing."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes, context: bytes) -> bytes:
        return sealed


look_fault("second_factor", "seeds are stored in the clear", lambda at: [p.totp(TotpPolicy(issuer="Product"), NoSealer())])

# 7
file_fault(
    "roles",
    "a member holds a right that nobody reviewed",
    lambda at: at.home / "policy.lock.json",
    lambda text: text.replace('"contacts.write": "yes"', '"contacts.write": "when own"', 1),
)


def four_roles(at: Product, *, manager: str) -> Policy:
    """Not the standard policy: *manager* holds users.manage as well."""
    caps = at.caps
    wide: dict[str, list[Any]] = {manager: [caps.users.manage]}
    names = ("viewer", "member", "admin", "owner")
    roles = [
        Role(name, (caps.contacts.read, *wide.get(name, ())), (names[number - 1],) if number else ()) for number, name in enumerate(names)
    ]
    return Policy(caps, roles=roles, order=names, events=NullSink())


def lock_of_less(at: Product) -> Sequence[p.Look]:
    """The reviewed file is of a policy with one right less for members."""
    path = at.home / "less.json"
    p.write_policy_lock(standard_policy(at.caps, viewer=[at.caps.contacts.read], events=NullSink()), path)
    return [p.policy_lock(at.policy, path)]


look_fault("roles", "an extra capability for member", lock_of_less)

# 8
look_fault(
    "requests",
    "a route without a guard",
    lambda at: [p.routes(lambda: Audit.of([GUARDED, dataclasses.replace(GUARDED, path="/contacts", mark=None)]))],
)
look_fault("requests", "nobody audits the routes", lambda at: [])

# 9
look_fault("members", "members manage users", lambda at: [p.managers(four_roles(at, manager="member"))])

# 10


def later(at: Product, **by: float) -> Sequence[p.Look]:
    """The same repository, looked at later."""
    moment = ManualClock(datetime.now(UTC) + timedelta(**by))
    backups: Backups = at.site.backups
    return [p.backups(type(backups)(backups.settings, _keys(at), clock=moment))]


def _keys(at: Product) -> Any:
    from axis_security.ops.backup import load_settings

    return load_settings(at.site.config)[1]


look_fault("backups", "the newest backup is stale", lambda at: later(at, days=2))


@fault("backups", "a WAL segment is gone")
def _gap(product: Product) -> Iterator[Looks]:
    inventory = product.site.backups.driver.inventory()
    newest = max(wal.name for wal in inventory.wal)
    gone = next(wal.name for wal in inventory.wal if inventory.backups[-1].last_wal < wal.name < newest)
    path = next(product.site.repository.rglob(gone))
    path.rename(product.home / "aside")
    try:
        yield {}
    finally:
        (product.home / "aside").rename(path)


@fault("backups", "a copy in the clear lies in the repository")
def _clear(product: Product) -> Iterator[Looks]:
    path = product.site.repository / "g1" / "dump.sql"
    path.write_text("INSERT INTO contact ...")
    try:
        yield {}
    finally:
        path.unlink()


file_fault(
    "backups",
    "the record of a drill was changed",
    lambda at: at.home / "drills.jsonl",
    lambda text: text.replace('"rto_seconds":', '"rto_seconds":1'),
)
look_fault(
    "backups",
    "no restore was drilled lately",
    lambda at: [p.drills(at.home / "drills.jsonl", clock=ManualClock(datetime.now(UTC) + timedelta(days=8)))],
)

# 11
look_fault("health", "the database does not answer", lambda at: [p.health(at.monitor("host=127.0.0.1 port=1 user=x dbname=x"))])
file_fault("health", "the gate was commented out", lambda at: at.home / "ci.yml", lambda text: text.replace("- run", "# - run"))

# 12
look_fault(
    "secrets",
    "secrets from the environment in production",
    lambda at: [
        p.secrets_manager(EnvironmentSecrets(environment=Environment.DEVELOPMENT, variables={"AXIS_SESSION_KEY": "x"}), ["session-key"])
    ],
)
look_fault("secrets", "a secret is missing", lambda at: [p.secrets_manager(MountedFiles(at.home / "secrets"), ["no-such-key"])])
file_fault(
    "secrets",
    "a key in the source",
    lambda at: at.home / "source" / "app.py",
    lambda text: text + "KEY = '-----BEGIN " + "PRIVATE KEY-----'\n",
)

# 13
look_fault("disclosure", "security.txt has expired", lambda at: [p.security_txt(at.disclosure(date(2020, 1, 1)))])

# 14
sql_fault(
    "controls",
    "an audit event was changed",
    "UPDATE axis.audit_event SET body = replace(body, 'allowed', 'ALLOWED') WHERE number = 2",
    "UPDATE axis.audit_event SET body = replace(body, 'ALLOWED', 'allowed')",
)
file_fault(
    "controls",
    "the audit log was rewritten",
    lambda at: at.home / "anchors.jsonl",
    lambda text: text.replace('"hash":"', '"hash":"00', 1)[:-4] + '"}\n',
)
file_fault(
    "controls", "evidence was changed", lambda at: at.home / "evidence.jsonl", lambda text: text.replace('"ok":true', '"ok":false', 1)
)
look_fault(
    "controls",
    "nobody recorded evidence lately",
    lambda at: [p.evidence_chain(at.home / "evidence.jsonl", clock=ManualClock(datetime.now(UTC) + timedelta(days=9)))],
)


def test_there_are_faults_for_every_promise() -> None:
    """Thirty and more, and no promise without one."""
    assert len(FAULTS) >= 30
    assert {promise for promise, _ in FAULTS.values()} == {each.key for each in p.PROMISES}


NIGHTLY = {
    "transport: nobody listens",
    "at_rest: a key was never rotated",
    "isolation: the app may truncate",
    "isolation: the app is a member of the owner",
    "passwords: two people share a salt",
    "passwords: salts are constant",
    "sessions: a proxy takes Secure off",
    "sessions: a proxy takes SameSite off",
    "sessions: a cookie without the prefix",
    "roles: a member holds a right that nobody reviewed",
    "requests: nobody audits the routes",
    "backups: no restore was drilled lately",
    "secrets: a secret is missing",
    "controls: nobody recorded evidence lately",
}
"""Near relations of others; each look at the whole product costs half a second."""


def test_nightly_faults_are_faults() -> None:
    """No name is stale, and thirty are left for every run."""
    assert set(FAULTS) >= NIGHTLY
    assert len(FAULTS) - len(NIGHTLY) >= 30


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.nightly] * (name in NIGHTLY)) for name in FAULTS])
def test_a_planted_fault_turns_its_own_row_red_and_no_other(product: Product, name: str) -> None:
    """Each fault is seen where it is, says what, why and how to mend it, and when it is mended the row is green again."""
    promise, plant = FAULTS[name]
    with plant(product) as looks:
        report = product.measured(**looks)
    assert red(report) == [promise]
    findings = [each for row in report.rows for check in row.checks for each in check.findings]
    assert findings
    assert all(each.what and each.why and each.fix for each in findings)
    assert not [each.code for each in findings if each.code in {"verify.crashed", "verify.timeout"}], "seen, not stumbled over"
