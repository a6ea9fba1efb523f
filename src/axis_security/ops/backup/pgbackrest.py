"""Backups with pgBackRest: its configuration rendered from the settings, its passphrase from the secrets manager by environment.

The passphrase is in no file and in no argument: each call gets it as ``PGBACKREST_REPO1_CIPHER_PASS``, which only the same account and root can see. WAL
goes the same way, since PostgreSQL calls ``axis-security backup wal-push``, which fetches the passphrase and calls pgBackRest.

pgBackRest encrypts with AES-256-CBC and has no authentication of its own; what was changed shows by checksums inside the encrypted manifest, when it is
verified or restored. A new key is a new repository (``g2`` beside ``g1``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.ops.backup.driver import ArchivedWal, Artefact, Backup, BackupKind, Inventory, Progress, silent
from axis_security.ops.backup.errors import BackupDamaged, BackupError, ProgramFailed, WrongBackupKey
from axis_security.ops.backup.pgbackrest_config import render_configuration
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.restoring import empty_directory, plan_restore, recovery_target
from axis_security.ops.backup.settings import BackupKeys, BackupSettings
from axis_security.ops.backup.wal import check_archived_name

__all__ = ["PgBackRestDriver"]

_MAGIC: Final = b"Salted__"
_PROGRESS: Final = re.compile(r"(?:backup|restore) file .*?\([^()]*?([\d.]+)%\)")
_SEGMENT_FILE: Final = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?$", re.ASCII)
# pgBackRest's own exit statuses (src/common/error.auto.c of its source).
_CRYPTO: Final = 95
_NOT_FOUND: Final = 1
_STANZA_EXISTS: Final = frozenset({0, 2})
"""Status codes of ``info``: whole backups, or none yet."""
_OTHER: Final = 99
"""pgBackRest's word, in a stanza's status, for an error that each repository's own message tells."""


class PgBackRestDriver:
    """See the module.

    Args:
        settings: where things are.
        keys: one passphrase per generation.
        program: pgBackRest itself.
    """

    name: Final = "pgbackrest"
    magic: Final = _MAGIC

    def __init__(self, settings: BackupSettings, keys: BackupKeys, *, program: str = "pgbackrest") -> None:
        self._settings = settings
        self._keys = keys
        self._account = Account(settings.run_as)
        self._program = program
        self._configurations = {number: render_configuration(settings, number) for number in settings.generations}

    def files(self) -> Mapping[str, str]:
        """One configuration per generation."""
        return {str(self._path(number)): text for number, text in self._configurations.items()}

    def _path(self, generation: int) -> Path:
        return self._settings.state / f"pgbackrest-g{generation}.conf"

    def _ready(self, generation: int) -> Path:
        path, text = self._path(generation), self._configurations[generation]
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            self._account.directory(path.parent)
            temporary = path.with_suffix(".new")
            temporary.write_text(text, encoding="utf-8")
            self._account.own(temporary)
            temporary.replace(path)
        return path

    def command(self, generation: int, verb: str, *words: str) -> tuple[list[str], dict[str, str]]:
        """What to run for *verb*, and the environment it needs."""
        settings = self._settings
        env = {"PGBACKREST_REPO1_CIPHER_PASS": self._keys.text(generation).reveal()}
        for option, secret in settings.secret_options.items():
            env[f"PGBACKREST_{option.upper().replace('-', '_')}"] = self._keys.option(secret).reveal()
        return [self._program, f"--config={self._ready(generation)}", f"--stanza={settings.stanza}", verb, *words], env

    def _call(self, generation: int, verb: str, *words: str, on_line: Callable[[str], None] | None = None) -> str:
        command, env = self.command(generation, verb, *words)
        try:
            return self._account.run(command, env=env, on_line=on_line)
        except ProgramFailed as error:
            if error.facts["status"] == _CRYPTO:
                raise WrongBackupKey(name=f"g{generation}", generation=generation) from None
            raise

    def prepare(self) -> None:
        """Write the configuration and create the stanza."""
        self._account.directory(self._settings.state / "lock")
        self._account.directory(self._settings.root(self._settings.active))
        self._call(self._settings.active, "stanza-create")

    def run(self, kind: BackupKind = BackupKind.FULL, progress: Progress = silent) -> Backup:
        """Take one backup; pgBackRest lets go of old ones at its end (of none while one is damaged), and resumes or removes what a killed run left at its beginning."""
        generation = self._settings.active
        found = self._info(generation)
        if found.get("status", {}).get("code") not in _STANZA_EXISTS:
            self.prepare()
        self._call(generation, "check")
        known, damaged = self._backups(generation)
        words = [f"--type={kind}", "--log-level-console=detail"]
        if damaged:
            words.append("--no-expire-auto")  # whether one that cannot be read is the one to keep is not known
        self._call(generation, "backup", *words, on_line=_watch("backup", progress))
        new = [backup for backup in self._backups(generation)[0] if backup not in known]
        if not new:
            raise BackupError(
                what="pgBackRest lists no new backup",
                why="it ended without an error, and added none that is whole",
                fix="run `axis-security backup check`",
            )
        return new[-1]

    def _info(self, generation: int) -> Mapping[str, Any]:
        stanzas = json.loads(
            self._call(generation, "info", "--output=json") or "[]", strict=False
        )  # it leaves line ends in messages as they are
        found: Mapping[str, Any] = next((each for each in stanzas if each["name"] == self._settings.stanza), {})
        status = found.get("status", {}).get("code", 0)
        if status == _OTHER:
            why = " ".join(str(repo.get("status", {}).get("message", "")) for repo in found.get("repo", ()))
            # Without a MAC a wrong passphrase may well give bytes instead of an error. The message then shows them: it goes no further.
            if re.search(r"\[?(Crypto|Format)Error", why):
                raise WrongBackupKey(name=f"g{generation}", generation=generation)
            raise BackupDamaged(name=f"g{generation}", why="pgBackRest cannot read its info files")
        return found

    def _backups(self, generation: int) -> tuple[list[Backup], list[BackupDamaged]]:
        """What the generation lists: whole backups, and those that are none."""
        listed = self._info(generation).get("backup", ())
        if not listed:
            return [], []
        folder = f"backup/{self._settings.stanza}"
        # Only the manifests: a repository holds a file for each of the database's.
        kept = {name.partition("/")[0] for name in self._list(generation, folder, r"--filter=^[^/]+/backup\.manifest(\.copy)?$")}
        whole, damaged = [], []
        for each in listed:
            label, stamp = each["label"], each["timestamp"]
            lost = [name for name in (label, *(each.get("reference") or ())) if name not in kept]
            if each.get("error") or lost:
                why = f"the manifest of `{lost[0]}` is gone" if lost else "a page that it copied has a wrong checksum"
                damaged.append(BackupDamaged(name=f"g{generation}/{folder}/{label}", why=why))
                continue
            whole.append(
                Backup(
                    label=label,
                    kind=BackupKind(each["type"]),
                    generation=generation,
                    started=datetime.fromtimestamp(stamp["start"], UTC),
                    finished=datetime.fromtimestamp(stamp["stop"] + 1, UTC),  # whole seconds, cut off
                    first_wal=each["archive"]["start"],
                    last_wal=each["archive"]["stop"],
                    database_bytes=int(each["info"]["size"]),
                )
            )
        return whole, damaged

    def inventory(self) -> Inventory:
        """Ask pgBackRest what each generation holds. See :meth:`BackupDriver.inventory`."""
        backups: list[Backup] = []
        wal: list[ArchivedWal] = []
        damaged: list[BackupDamaged] = []
        for generation in self._settings.generations:
            try:
                whole, broken = self._backups(generation)
            except BackupDamaged as error:  # its lists cannot be read: the other generations' still can
                whole, broken = [], [error]
            backups += whole
            damaged += broken
            for name, entry in self._list(generation, f"archive/{self._settings.stanza}").items():
                match = _SEGMENT_FILE.search(name)
                if match is not None:
                    wal.append(ArchivedWal(name=match[1], at=datetime.fromtimestamp(entry["time"] + 1, UTC)))
        return Inventory.of(backups, wal, segment_bytes=self._segment_bytes(), damaged=damaged)

    def _segment_bytes(self) -> int:
        control = self._settings.data_dir / "global" / "pg_control"
        if not control.exists():
            return 16 << 20  # the server is lost; its default
        text = self._account.run([self._settings.program("pg_controldata"), str(self._settings.data_dir)])
        match = re.search(r"Bytes per WAL segment:\s+(\d+)", text)
        return int(match[1]) if match else 16 << 20

    def _list(self, generation: int, path: str, *words: str) -> Mapping[str, Any]:
        found = json.loads(self._call(generation, "repo-ls", path, "--recurse", "--output=json", *words) or "{}")
        return {name: entry for name, entry in found.items() if entry["type"] == "file"}

    def verify(self, progress: Progress = silent) -> CheckResult:
        """Have pgBackRest read every file and hold it against its checksum; and read its own lists, which it keeps twice and does not verify.

        Not authenticated: ``.backup`` labels in the archive and manifests in ``backup.history``. No restore reads them.
        """
        findings, lines = [], 0
        for generation in self._settings.generations:
            progress("verify", 0, 0)
            text = self._call(generation, "verify", "--verbose", "--output=text", "--log-level-console=info")
            lines += len(set(re.findall(r"(?:backup|archiveId): ([^,\s]+), total|backup: ([^,\s]+), status", text)))
            for name, what in _damage(text).items():
                findings.append(_damaged(generation, name, what))
            findings += [
                _damaged(generation, name, "it differs from its copy, or does not open") for name in self._unlike_copies(generation)
            ]
        return CheckResult(
            name="backup.verify",
            ok=not findings and lines > 0,
            seen=f"{lines} sets verified, {len(findings)} damaged",
            findings=tuple(findings),
        )

    def _unlike_copies(self, generation: int) -> Iterator[str]:
        # A damaged list is passed over in silence for its copy: the second fault then costs the backup.
        for name in self._list(generation, ""):
            if not name.endswith(".copy"):
                continue
            texts = set()
            for each in (name, name.removesuffix(".copy")):
                try:
                    texts.add(self._call(generation, "repo-get", each))
                except (ProgramFailed, WrongBackupKey):
                    texts.add("")
            if "" in texts or len(texts) > 1:
                yield name.removesuffix(".copy")

    def restore(self, into: Path, *, target: datetime | None, progress: Progress = silent) -> Backup:
        """See :meth:`BackupDriver.restore`. Raises as the native driver's does, and :class:`ProgramFailed` for what pgBackRest refuses."""
        backup = plan_restore(self.inventory(), target)
        words = [f"--pg1-path={into}", f"--set={backup.label}", f"--recovery-option=restore_command={self._settings.restore_command}"]
        words += ["--log-level-console=detail"]
        if target is None:
            words += ["--type=default", "--recovery-option=recovery_target_action=promote"]
        else:
            words += ["--type=time", f"--target={recovery_target(target)}", "--target-action=promote"]
        with empty_directory(into, self._account):
            self._call(backup.generation, "restore", *words, on_line=_watch("restore", progress))
        return backup

    def push_wal(self, path: Path) -> None:
        """``pgbackrest archive-push`` into the active generation."""
        check_archived_name(path.name)
        self._call(self._settings.active, "archive-push", str(path))

    def fetch_wal(self, name: str, into: Path) -> bool:
        """``pgbackrest archive-get`` from the newest generation that has it."""
        for generation in reversed(self._settings.generations):
            try:
                self._call(generation, "archive-get", check_archived_name(name), str(into))
                return True
            except ProgramFailed as error:
                if error.facts["status"] != _NOT_FOUND:
                    raise
        return False

    def artefacts(self) -> Iterator[Artefact]:
        """Every file of every generation; read from the directory where it is one, else through ``repo-get --raw``."""
        for generation in self._settings.generations:
            root = self._settings.root(generation)
            listed = sorted(self._list(generation, "").items(), key=lambda item: item[1].get("time", 0))
            for name, entry in listed:
                yield Artefact(
                    name=f"g{generation}/{name}", bytes=int(entry.get("size", 0)), open=self._opener(generation, root / name, name)
                )

    def _opener(self, generation: int, path: Path, name: str) -> Callable[[], AbstractContextManager[BinaryIO]]:
        if self._settings.options.get("repo1-type", "posix") == "posix":
            return lambda: path.open("rb")
        return partial(self._streamed, generation, name)

    @contextmanager
    def _streamed(self, generation: int, name: str) -> Iterator[BinaryIO]:
        # As they come, and no further than they are read: a stored file may be as large as a table.
        command, env = self.command(generation, "repo-get", name, "--raw")
        more = False
        try:
            with self._account.streaming(command, env=env) as process, BufferedReader(cast("FileIO", process.stdout)) as file:
                yield file
                more = bool(file.read(1))
        except ProgramFailed:
            if not more:  # else it failed because we left
                raise


def _watch(stage: str, progress: Progress) -> Callable[[str], None]:
    def look(line: str) -> None:
        match = _PROGRESS.search(line)
        if match is not None:
            progress(stage, int(float(match[1]) * 100), 10_000)

    return look


def _damaged(generation: int, name: str, why: str) -> Finding:
    return Finding(
        code="backup.damaged",
        severity=Severity.ERROR,
        object=f"g{generation}/{name}",
        what=f"`{name}` in the backup repository is damaged",
        why=why,
        fix="take a new full backup now, then find out who or what wrote there",
    )


def _damage(text: str) -> Mapping[str, str]:
    """What ``pgbackrest verify`` found, by file where it names one, else by set."""
    named = {name: f"{kind} is wrong" for kind, name in re.findall(r"invalid (checksum|size) '([^']+)'", text)}
    named |= dict.fromkeys(re.findall(r"missing '([^']+)'", text), "it is missing")
    current = "repository"
    for line in text.splitlines():
        match = re.search(r"(?:archiveId|backup): ([^,\s]+)", line)
        current = match[1] if match else current
        for kind, count in re.findall(r"(checksum invalid|missing|size invalid|other): (\d+)", line):
            if int(count) and not any(current in name for name in named):
                named[current] = f"{kind}: {count}"
    return named
