"""Rules for new passwords, the bundled list, the offline filter and the range client."""

from __future__ import annotations

import asyncio
import random
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.auth.breach import BreachFilter, MalformedBreachData, RangeClient, build_filter, range_contains, read_ordered, sha1_of
from axis_security.auth.password_rules import Accepted, PasswordRules, Reason, Rejected, common_passwords
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.secret import Secret

LISTED = [f"listed password {i}".encode() for i in range(5000)]


@pytest.fixture
def download(tmp_path: Path) -> Path:
    path = tmp_path / "pwned.txt"
    path.write_text("\r\n".join(f"{h.hex().upper()}:{i + 1}" for i, h in enumerate(sorted(map(sha1_of, LISTED)))))
    return path


def reasons(rules: PasswordRules, text: str, *about: str) -> set[Reason]:
    answer = rules.check(Secret(text), about=about)
    return set(answer.reasons) if isinstance(answer, Rejected) else set()


def test_length_rules() -> None:
    """ASVS 6.2.1 and 6.2.9: 15 alone by default, 8 allowed with a second factor, never less; 512 characters pass."""
    assert reasons(PasswordRules(), "vkq wmz pfh rt") == {Reason.TOO_SHORT}
    assert reasons(PasswordRules(), "vkq wmz pfh rtb") == set()
    assert reasons(PasswordRules(minimum=8), "vkq wmzx") == set()
    assert reasons(PasswordRules(), "".join(map(chr, range(0x100, 0x100 + 512)))) == set()
    assert reasons(PasswordRules(), "x" * 1_000_000) == {Reason.TOO_LONG}
    for bad in (7, 65):
        with pytest.raises(ConfigError):
            PasswordRules(minimum=bad)


def test_no_composition_rules() -> None:
    """ASVS 6.2.5: lower case letters alone are fine, and so are spaces and emoji."""
    assert PasswordRules().check(Secret("onlylowercaselettershere")) == Accepted()
    assert PasswordRules().check(Secret("🐎 🔋 staple words in a row")) == Accepted()


def test_the_common_list_covers_the_top_3000_and_ignores_case() -> None:
    """ASVS 6.2.4: the list is larger than asked for, and case is no way round it."""
    assert len(common_passwords()) >= 19_000
    assert Reason.COMMON in reasons(PasswordRules(minimum=8), "PassWord1")


def test_context_words_and_repetition() -> None:
    """ASVS 6.2.11: a password made of product, person and a year is refused; one that merely contains a word is not."""
    rules = PasswordRules(context_words=("Axis CRM", "axis.example"))
    assert reasons(rules, "axis-crm-2026!!", "ann@example.com") == {Reason.CONTEXT}
    assert reasons(rules, "example-ann@example.com", "ann@example.com") == {Reason.CONTEXT}
    assert reasons(rules, "the axis of a spinning wheel is still") == set()
    assert reasons(PasswordRules(), "abcabcabcabcabcabc") == {Reason.REPETITIVE}


def test_the_filter_finds_every_listed_password_and_rejects_by_it(download: Path, tmp_path: Path) -> None:
    """No false negatives; a rejected password carries the reason; other passwords pass."""
    target = tmp_path / "breach.axbf"
    assert build_filter(read_ordered(download), target) == 5000
    breach = BreachFilter(target)
    assert all(breach.contains(sha1_of(p)) for p in LISTED)
    assert not any(breach.contains(sha1_of(f"other {i}".encode())) for i in range(5000))
    rules = PasswordRules(breached=breach)
    assert reasons(rules, "listed password 77") == {Reason.BREACHED}
    assert rules.check(Secret("never listed passwords")) == Accepted()
    breach.close()


def test_the_documented_false_positive_rate_holds(download: Path, tmp_path: Path) -> None:
    """Measured with a two-byte fingerprint over random digests at a density where alarms are seen."""
    rng = random.Random(7)
    target = tmp_path / "f"
    build_filter(sorted(bytes([0, 0]) + rng.randbytes(18) for _ in range(20_000)), target, fingerprint_bytes=2)
    breach = BreachFilter(target)
    hits = sum(breach.contains(bytes([0, 0]) + rng.randbytes(18)) for _ in range(20_000)) / 20_000
    assert hits == pytest.approx(breach.count / 65_536, rel=0.1)
    assert breach.false_positive_rate == breach.count / 2**32
    breach.close()


def test_range_files_and_one_file_give_equal_filters(download: Path, tmp_path: Path) -> None:
    """Both forms of the public download; padding entries with count 0 are left out; a minimum count thins the list."""
    folder = tmp_path / "ranges"
    folder.mkdir()
    for line in download.read_text().splitlines():
        with (folder / f"{line[:5]}.txt").open("a") as out:
            out.write(line[5:] + "\n" + ("F" * 35 + ":0\n"))
    assert list(read_ordered(folder)) == list(read_ordered(download))
    assert len(list(read_ordered(download, minimum_count=4001))) == 1000


@pytest.mark.parametrize("damage", ["cut", "magic", "index", "empty"])
def test_damaged_files_are_refused(download: Path, tmp_path: Path, damage: str) -> None:
    """A filter that is not whole answers nothing."""
    target = tmp_path / "f"
    build_filter(read_ordered(download), target)
    data = bytearray(target.read_bytes())
    match damage:
        case "cut":
            data = data[:-1]
        case "magic":
            data[0] ^= 1
        case "index":
            data[30] ^= 0xFF
        case "empty":
            data.clear()
    target.write_bytes(data)
    with pytest.raises(MalformedBreachData):
        BreachFilter(target)


def test_unordered_or_foreign_input_leaves_no_file(tmp_path: Path) -> None:
    """A failed build neither replaces nor leaves anything."""
    target = tmp_path / "f"
    with pytest.raises(MalformedBreachData):
        build_filter([b"\2" * 20, b"\1" * 20], target)
    (tmp_path / "in").write_text("hello\n")
    with pytest.raises(MalformedBreachData):
        build_filter(read_ordered(tmp_path / "in"), target)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.fixture
def service() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    hashes = [sha1_of(p).hex().upper() for p in LISTED]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = "\r\n".join([*(f"{h[5:]}:3" for h in hashes if h.startswith(self.path[-5:])), "0" * 35 + ":0"]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/range/", asked
        server.shutdown()
        thread.join()


def test_the_range_client_sends_five_digits_only(service: tuple[str, list[str]]) -> None:
    """Over real HTTP: listed and unlisted are told apart, and nothing but the prefix leaves."""
    base, asked = service

    def fetch(prefix: str) -> str:
        with urllib.request.urlopen(base + prefix, timeout=5) as answer:
            return str(answer.read().decode())

    async def afetch(prefix: str) -> str:
        return await asyncio.to_thread(fetch, prefix)

    client = RangeClient(fetch)
    assert client.contains(sha1_of(LISTED[0]))
    assert not client.contains(sha1_of(b"unlisted"))
    assert asyncio.run(range_contains(afetch, sha1_of(LISTED[0])))
    assert all(len(path) == len("/range/") + 5 for path in asked)


def test_a_failing_range_service_is_unavailable_and_nonsense_is_refused() -> None:
    """Neither counts as 'not listed'."""

    def down(prefix: str) -> str:
        raise OSError(prefix)

    with pytest.raises(Unavailable):
        PasswordRules(breached=RangeClient(down)).check(Secret("a long enough password"))
    with pytest.raises(MalformedBreachData):
        RangeClient(lambda _: "<html>").contains(sha1_of(b"x"))


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    """Empty, NUL, lone surrogates, anything: a typed answer with texts for people."""
    answer = PasswordRules(context_words=("axis",)).check(Secret(text), about=(text, "\ud800"))
    assert isinstance(answer, Accepted) or all(answer.texts)
