"""Evidence that cannot be changed unnoticed, in the forms that auditors and their tools read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jsonschema import Draft7Validator

from axis_security.cli.evidence import command as evidence_command
from axis_security.cli.secrets import command as secrets_command
from axis_security.core.checks import CheckResult
from axis_security.core.encoding import b64url_decode
from axis_security.core.errors import ConfigError
from axis_security.core.minted import minted_text
from axis_security.ops.evidence import (
    CONTROLS,
    STATEMENT,
    EvidenceKey,
    check_bundle,
    check_records,
    record_report,
    to_csv,
    to_oscal,
    write_bundle,
)
from axis_security.ops.promises import PROMISES
from axis_security.ops.promises.answer import answer, finding
from axis_security.ops.verify.report import Report, Row

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = EvidenceKey(minted_text("evidence", bytes(range(32))))
OTHER = EvidenceKey(minted_text("evidence", bytes(range(1, 33))))


OTHER_CHAPTERS = {
    f"{section}.{number}"
    for section, last in {
        "8.1": 4,
        "8.2": 4,
        "8.3": 3,
        "8.4": 2,
        "11.3": 5,
        "11.4": 3,
        "12.1": 5,
        "12.2": 2,
        "12.3": 5,
        "13.2": 6,
        "13.3": 4,
        "16.4": 3,
    }.items()
    for number in range(1, last + 1)
}
"""The requirements of ASVS 5.0.0 in the sections that we refer to, besides those of the vector."""


def report(at: datetime = NOON, *, seen: str = "TLSv1.3", broken: int | None = 10, declined: int | None = 6) -> Report:
    """One promise broken, one declined, the others held with one check each."""

    def checks(number: int) -> tuple[CheckResult, ...]:
        if number == declined:
            return ()
        found = [finding("x.broken", "thing", "it is broken", "it was dropped", "mend it")] if number == broken else []
        return (answer(f"p{number}.look", seen, found),)

    rows = tuple(
        Row(promise=each, checks=checks(each.id), seconds=0.1, declined="not in this product" if each.id == declined else None)
        for each in PROMISES
    )
    return Report(product="Example", version="1.0", at=at, seconds=1.5, rows=rows)


def test_the_control_map_names_real_requirements_and_promises() -> None:
    """Every ASVS id is one of 5.0.0's, every SOC 2 id has the shape of the criteria, each is listed once and supported by a promise, and each promise supports one."""
    lines = (ROOT / "tests/vectors/auth/asvs_5_0_0_ids.csv").read_text().splitlines()
    known = {row["req_id"].lstrip("V") for row in csv.DictReader(lines)} | OTHER_CHAPTERS
    listed = [control.id for control in CONTROLS if control.framework == "ASVS"]
    assert set(listed) - known == set()
    assert all(re.fullmatch(r"CC[1-9]\.\d|A1\.[1-3]|C1\.[12]", control.id) for control in CONTROLS if control.framework == "SOC 2")
    assert len({control.short for control in CONTROLS}) == len(CONTROLS)
    assert {number for control in CONTROLS for number in control.promises} == set(range(1, 15))


def schema() -> dict[str, Any]:
    """The published schema; `\\p{L}` and `\\p{N}` put in the words of Python's patterns."""
    text = gzip.decompress((ROOT / "tests/vectors/ops/oscal-1.0.6-assessment-results-schema.json.gz").read_bytes()).decode()
    found: dict[str, Any] = json.loads(text.replace("\\\\p{L}", "[^\\\\W\\\\d_]").replace("\\\\p{N}", "\\\\d"))
    return found


def test_oscal_is_what_the_published_schema_asks() -> None:
    """Assessment results for a mixed report, a green one, and one that saw odd text, validate against NIST's schema; control: a wrong document does not."""
    validator = Draft7Validator(schema())
    for made in (report(), report(broken=None, declined=None), report(seen=" \n two  lines\t")):
        assert [error.message for error in validator.iter_errors(json.loads(to_oscal(made)))] == []
    wrong = json.loads(to_oscal(report()))
    wrong["assessment-results"]["results"][0]["observations"][0]["collected"] = "yesterday"
    assert list(validator.iter_errors(wrong))


def test_oscal_says_what_the_report_says() -> None:
    """A control is satisfied exactly if every promise that is made and supports it holds; the same report gives the same bytes; it confers nothing."""
    text = to_oscal(report())
    assert text == to_oscal(report())
    document = json.loads(text)["assessment-results"]
    (result,) = document["results"]
    states = {each["title"]: each["target"]["status"]["state"] for each in result["findings"]}
    assert {name for name, state in states.items() if state == "not-satisfied"} == {
        control.short for control in CONTROLS if 10 in control.promises
    }
    assert "ASVS 6.5.3" not in states, "a declined promise supports nothing"
    assert len(result["observations"]) == 13
    observed = {each["uuid"] for each in result["observations"]}
    assert {each["observation-uuid"] for finding in result["findings"] for each in finding["related-observations"]} <= observed
    assert document["metadata"]["remarks"] == STATEMENT


def test_csv_has_a_line_for_each_control_and_check_and_no_formula() -> None:
    """A spreadsheet shows what was seen, and runs nothing of it."""
    rows = list(csv.DictReader(io.StringIO(to_csv(report(seen="=cmd|' /C calc'!A0")))))
    assert {row["ok"] for row in rows} == {"yes", "no"}
    assert {row["seen"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert {(row["framework"], row["control"]) for row in rows} == {
        (control.framework, control.id) for control in CONTROLS if set(control.promises) - {6}
    }


def test_records_are_a_chain(tmp_path: Path) -> None:
    """Runs follow one another; every record carries its controls; a changed, removed or exchanged one is found; nothing is added to a broken chain."""
    path = tmp_path / "evidence.jsonl"
    assert record_report(path, report()) == 13
    assert record_report(path, report(NOON + timedelta(days=1), broken=None)) == 13
    week = timedelta(days=7)
    assert [each.ok for each in check_records(path, now=NOON + week, within=week)] == [True, True]
    lines = path.read_text().splitlines(keepends=True)
    assert json.loads(lines[0])["controls"][:2] == ["SOC 2 CC6.6", "SOC 2 CC6.7"]
    damaged: dict[str, list[str]] = {
        "changed": [*lines[:8], lines[8].replace('"ok":false', '"ok":true'), *lines[9:]],
        "removed": lines[:9] + lines[10:],
        "first removed": lines[1:],
        "exchanged": [lines[1], lines[0], *lines[2:]],
    }
    for how, text in damaged.items():
        path.write_text("".join(text))
        assert not check_records(path, now=NOON, within=week)[0].ok, how
        with pytest.raises(ConfigError):
            record_report(path, report())
    path.write_text("{}\n")
    assert [each.ok for each in check_records(path, now=NOON, within=week)] == [False, False], "no date to be had, and no crash"
    path.write_text("no json\n")
    with pytest.raises(ConfigError):
        check_records(path, now=NOON, within=week)


def test_old_evidence_and_none_are_found(tmp_path: Path) -> None:
    """A file that nobody adds to, or that does not exist, shows nothing of today."""
    path = tmp_path / "evidence.jsonl"
    assert [each.ok for each in check_records(path, now=NOON, within=timedelta(days=8))] == [True, False]
    record_report(path, report())
    assert [each.ok for each in check_records(path, now=NOON + timedelta(days=9), within=timedelta(days=8))] == [True, False]


def test_a_bundle_is_what_was_signed(tmp_path: Path) -> None:
    """It verifies with the public key alone, also by hand; the same input gives the same bytes; it says plainly what it is not."""
    path, again = tmp_path / "a.zip", tmp_path / "b.zip"
    manifest = write_bundle(path, report(), KEY, files={"evidence.jsonl": b"{}\n"})
    write_bundle(again, report(), KEY, files={"evidence.jsonl": b"{}\n"})
    assert path.read_bytes() == again.read_bytes()
    assert check_bundle(path, KEY.public).ok
    assert not check_bundle(path, OTHER.public).ok
    with zipfile.ZipFile(path) as archive:
        Ed25519PublicKey.from_public_bytes(b64url_decode(KEY.public)).verify(archive.read("manifest.sig"), archive.read("manifest.json"))
        assert {"report.json", "report.html", "controls.csv", "assessment-results.oscal.json", "evidence.jsonl"} < set(archive.namelist())
        assert b"confers no attestation" in archive.read("README.txt")
    assert manifest["ok"] is False
    assert "0001" not in repr(KEY)
    for name in ("../x", "manifest.json", "report.json", "", ".x"):
        with pytest.raises(ConfigError):
            write_bundle(tmp_path / "c.zip", report(), KEY, files={name: b""})
    assert not (tmp_path / "c.zip").exists()


def repacked(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The bundle with other contents."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    out = path.with_name("changed.zip")
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out


def resigned(contents: dict[str, bytes]) -> None:
    """A forger signs again, with another key, and names it in the manifest."""
    contents["manifest.json"] = contents["manifest.json"].replace(KEY.public.encode(), OTHER.public.encode())
    contents["manifest.sig"] = OTHER.sign(contents["manifest.json"])


CHANGES: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "a report changed": lambda files: files.update({"report.json": files["report.json"].replace(b"false", b"true")}),
    "a file removed": lambda files: files.pop("controls.csv"),
    "a file added": lambda files: files.update({"attestation.pdf": b"%PDF"}),
    "the manifest changed": lambda files: files.update({"manifest.json": files["manifest.json"].replace(b"false", b"true")}),
    "no signature": lambda files: files.pop("manifest.sig"),
    "no manifest": lambda files: files.pop("manifest.json"),
    "signed by another": resigned,
}


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    """Any file changed, added or removed, another signer, and any one bit of the zip flipped: no."""
    path = tmp_path / "a.zip"
    write_bundle(path, report(), KEY)
    for how, change in CHANGES.items():
        assert not check_bundle(repacked(path, change), KEY.public).ok, how
    whole = path.read_bytes()
    signed = {"manifest.json", "manifest.sig"}
    for _ in range(200):
        at = random.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << random.randrange(8)]) + whole[at + 1 :])
        result = check_bundle(path, KEY.public)
        if result.ok:  # a bit of the zip's own book-keeping: times, attributes. What is read is as signed all the same
            with zipfile.ZipFile(path) as archive:
                assert signed < set(archive.namelist())
    path.write_bytes(b"no zip")
    assert not check_bundle(path, KEY.public).ok
    assert not check_bundle(path, "no key").ok


def test_the_command_line_signs_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minted key in, signed bundle out, checked with the public key; a changed bundle and a wrong key are status 1."""
    module = "from axis_security.ops.promises import Promises\npromises = Promises(product='Example')\n"
    (tmp_path / "promises_for_evidence.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    key, out, notes = tmp_path / "key", tmp_path / "out.zip", tmp_path / "notes.jsonl"
    notes.write_text("{}\n")
    minted = CliRunner().invoke(secrets_command, ["mint", "evidence"])
    assert minted.exit_code == 0
    key.write_text(minted.output.strip().splitlines()[-1])

    def run(*words: str) -> Any:
        return CliRunner().invoke(evidence_command, list(words))

    public = run("public-key", "--key-file", str(key)).output.strip()
    made = run("bundle", "promises_for_evidence", "--key-file", str(key), "--out", str(out), "--with", str(notes))
    assert made.exit_code == 1, "nothing is measured, so nothing holds; the bundle is written and says so"
    assert json.loads(made.output) == {"file": str(out), "ok": False, "files": 6, "public_key": public}
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.jsonl").write_text("{}\n")
    twice = run(
        "bundle",
        "promises_for_evidence",
        "--key-file",
        str(key),
        "--out",
        str(out),
        "--with",
        str(notes),
        "--with",
        str(tmp_path / "more" / "notes.jsonl"),
    )
    assert twice.exit_code == 2, "one of two files of a name must not be dropped in silence"
    assert run("check", str(out), "--public-key", public).exit_code == 0
    assert run("check", str(out), "--public-key", OTHER.public).exit_code == 1
    assert "SOC 2 CC6.1" in run("controls").output
    assert len(json.loads(run("controls", "--json").output)) == len(CONTROLS)
