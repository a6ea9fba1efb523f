"""``axis-security keys``: which keys there are, rotate them, seal old rows anew, shred a tenant's for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from axis_security.cli.loading import HostObject
from axis_security.core.clock import SYSTEM_CLOCK
from axis_security.core.errors import MalformedId
from axis_security.core.ids import TenantId
from axis_security.crypto.errors import KmsUnavailable
from axis_security.crypto.keys import KeyState

if TYPE_CHECKING:
    from axis_security.crypto.reencrypt import Progress as Resealed
    from axis_security.crypto.upkeep import KeyUpkeep


_HOST = click.argument("host", type=HostObject("MODULE:UPKEEP", default="upkeep", kind="axis_security.crypto.upkeep.KeyUpkeep"))
_TENANTS = click.argument("tenants", nargs=-1, metavar="[TENANT]...")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("keys")
def command() -> None:
    """Look after a ring's keys. HOST is MODULE:NAME of an axis_security.crypto.upkeep.KeyUpkeep, such as app.security:upkeep."""


@command.command("status")
@_HOST
@_TENANTS
@click.option("--rows", is_flag=True, help="Count the rows that older keys still seal; reads every table.")
@_JSON
def status(host: KeyUpkeep, tenants: tuple[str, ...], *, rows: bool, as_json: bool) -> None:
    """Print every key of TENANT… (of everybody, without any): its state, age and uses, and whether it is due for rotation.

    Asks the key service too, past what is in memory: exit status 1 if it does not wrap and unwrap, or if a key belongs to what is no tenant's id.
    """
    found: list[dict[str, Any]] = []
    strays: list[str] = []
    now = SYSTEM_CLOCK.now()
    for text in tenants or host.ring.tenants():
        try:
            tenant = host.tenant(text)
        except MalformedId:
            if tenants:
                raise
            strays.append(text)
            continue
        for record in host.ring.status(tenant):
            entry: dict[str, Any] = {
                "tenant": text, "key": record.key_id, "state": record.state.value, "kek": record.kek,
                "age_days": (now - record.created).days, "uses": record.uses,
            }  # fmt: skip
            if record.state is KeyState.ACTIVE:
                entry["due"] = host.ring.due(tenant)
                if rows:
                    entry["rows_left"] = {str(column): host.left(tenant, column) for column in host.columns(tenant)}
            found.append(entry)
    refused = ""
    try:
        kek = host.ring.probe()
    except KmsUnavailable as error:
        kek, refused = "", str(error)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _table(found)
        if kek:
            click.echo(f"{kek} wraps and unwraps")
    for text in strays:
        click.echo(f"{text!a} has a row in the key table and is no tenant's id: find out who planted it", err=True)
    if refused:
        click.echo(refused, err=True)
    if refused or strays:
        sys.exit(1)


def _table(found: Sequence[dict[str, Any]]) -> None:
    lines: list[tuple[str, ...]] = [("tenant", "key", "state", "kek", "age, days", "uses", "due", "rows left")]
    for entry in found:
        left = ", ".join(f"{name} {count}" for name, count in entry.get("rows_left", {}).items() if count)
        row = (entry["tenant"], entry["key"], entry["state"], entry["kek"], entry["age_days"], entry["uses"])
        lines.append((*map(str, row), "yes" if entry.get("due") else "", left))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:  # never cut to the terminal's width: a tenant's id is there to be copied
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@command.command("rotate")
@_HOST
@_TENANTS
@click.option("--due", is_flag=True, help="Everybody whose key has served long or often enough.")
@_JSON
def rotate(host: KeyUpkeep, tenants: tuple[str, ...], *, due: bool, as_json: bool) -> None:
    """Give TENANT… a new key that seals from now on. Old rows go on opening; `reencrypt` moves them."""
    if bool(tenants) == due:
        raise click.UsageError("name tenants, or say --due")
    chosen = host.tenants(due=True) if due else _named(host, tenants)
    _told(_each(chosen, "rotating", host.ring.rotate), as_json, lambda tenant, key: f"{tenant}: key {key} is active")


@command.command("rewrap")
@_HOST
@_TENANTS
@_JSON
def rewrap(host: KeyUpkeep, tenants: tuple[str, ...], *, as_json: bool) -> None:
    """Wrap the keys of TENANT… (of everybody, without any) anew under the key service's present key. No row changes."""
    _told(_each(_named(host, tenants), "rewrapping", host.ring.rewrap), as_json, lambda tenant, count: f"{tenant}: {count} keys rewrapped")


@command.command("reencrypt")
@_HOST
@_TENANTS
@_JSON
def reencrypt(host: KeyUpkeep, tenants: tuple[str, ...], *, as_json: bool) -> None:
    """Seal the rows of TENANT… (of everybody, without any) under the active key. Stop and start it as you like: it goes on where rows are left."""
    done: list[dict[str, Any]] = []
    with _bar() as bar:
        for tenant in _named(host, tenants):
            for column in host.columns(tenant):
                task = bar.add_task(f"{tenant} {column}", total=host.left(tenant, column))
                progress = host.reseal(tenant, column, report=_shown(bar, task))
                left = host.left(tenant, column)
                done.append(
                    {"tenant": tenant.text, "column": str(column), "done": progress.done, "contested": progress.contested, "left": left}
                )
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        for each in done:
            click.echo(f"{each['tenant']} {each['column']}: {each['done']} sealed anew, {each['left']} left")
    sys.exit(1 if any(each["left"] for each in done) else 0)


@command.command("shred")
@_HOST
@click.argument("tenant")
@click.option("--reason", required=True, help="Why; it is kept in the ledger and in the audit log.")
@click.option("--yes-shred", metavar="TENANT", help="The same id again, instead of typing it when asked.")
@_JSON
def shred(host: KeyUpkeep, tenant: str, *, reason: str, yes_shred: str | None, as_json: bool) -> None:
    """Destroy every key of TENANT, for good: nothing that they sealed can be read again, by anybody, from any backup."""
    target = host.tenant(tenant)
    alive = [record.key_id for record in host.ring.status(target) if record.state is not KeyState.SHREDDED]
    if not alive:
        click.echo(f"{tenant} has no key that lives", err=True)
        sys.exit(1)
    if yes_shred is None:
        click.echo(f"This destroys {len(alive)} keys of {tenant}. What they sealed stays unreadable for ever, backups included.", err=True)
        yes_shred = click.prompt("Type the tenant's id again", err=True)
    if yes_shred != tenant:
        click.echo("the ids differ: nothing was destroyed", err=True)
        sys.exit(1)
    _told({target.text: host.ring.shred(target, reason=reason)}, as_json, lambda text, count: f"{text}: {count} keys shredded")


@command.command("replay")
@_HOST
def replay(host: KeyUpkeep) -> None:
    """After a restore: shred again whatever the ledger says was shredded. A ring refuses those keys in any case; this takes them out of the table."""
    click.echo(f"{host.ring.replay_ledger()} keys had come back and are shredded again")


def _named(host: KeyUpkeep, tenants: Sequence[str]) -> Sequence[TenantId]:
    return [host.tenant(text) for text in tenants] if tenants else host.tenants()


def _each(tenants: Sequence[TenantId], verb: str, work: Callable[[TenantId], int]) -> dict[str, int]:
    done = {}
    with _bar() as bar:
        task = bar.add_task(verb, total=len(tenants))
        for tenant in tenants:
            done[tenant.text] = work(tenant)
            bar.advance(task)
    return done


def _shown(bar: Progress, task: TaskID) -> Callable[[Resealed], None]:
    return lambda now: bar.update(task, completed=now.done)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, console=Console(stderr=True))


def _told(done: dict[str, int], as_json: bool, line: Callable[[str, int], str]) -> None:
    click.echo(json.dumps(done, indent=2) if as_json else "\n".join(line(*each) for each in done.items()) or "nothing to do")
