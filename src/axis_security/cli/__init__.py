"""``axis-security``: the command line. No logic of its own; each group lives in the module of its name and loads when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "audit": "Verify, export and prune the hash-chained audit log.",
    "backup": "Take, check, drill and restore encrypted backups.",
    "demo": "Attack one workspace from another, on a real PostgreSQL.",
    "disclosure": "Write and check security.txt (RFC 9116).",
    "keys": "Show, rotate, re-seal and shred the keys of tenants.",
    "evidence": "Sign what was measured, for an auditor; show the control map.",
    "passwords": "Calibrate the cost of a hash; build the breached-password filter.",
    "rbac": "Show the policy as a table; explain a decision.",
    "report": "Show which requirements of ASVS are held, and by which test.",
    "rls": "Audit row-level security; show who sees what; rehearse migrations; adopt a live table.",
    "routes": "List an app's routes with their guards; find the ones without.",
    "secrets": "Mint keys, and find secrets in source.",
    "tenant": "Export, suspend, resume or erase a workspace.",
    "tls": "Probe endpoints and connection strings for TLS 1.3.",
    "verify": "Measure every promise on the running system.",
}
"""Every command with its one line; the module ``axis_security.cli.<name>`` has it as ``command``."""


def main() -> None:
    """Run the command line; ends the process."""
    try:
        root = _root()
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit("axis-security: the command line needs click and rich.\nFix: pip install 'axis-security[cli]'")
    root.main(prog_name="axis-security")


def _root() -> click.Group:
    import click

    from axis_security import __version__
    from axis_security.core.errors import AxisError

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in COMMANDS:
                return None
            found: click.Command = import_module(f"axis_security.cli.{cmd_name}").command
            return found

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            # From the table: --help must not import a database driver.
            with formatter.section("Commands"):
                formatter.write_dl(sorted(COMMANDS.items()))

        def invoke(self, ctx: click.Context) -> object:
            try:
                return super().invoke(ctx)
            except AxisError as error:
                click.echo(f"{error.what}\n  why: {error.why}\n  fix: {error.fix}\n  [{error.code}]", err=True)
                ctx.exit(2)

    return Lazy(
        "axis-security",
        help="The security page of a SaaS product, as code that proves itself.",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version(__version__),
                help="Print the version.",
            )
        ],
    )


def _print_version(version: str) -> object:
    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        import click

        if value:
            click.echo(version)
            ctx.exit()

    return show
