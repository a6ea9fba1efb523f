"""``axis-security rbac``: the policy as a table, and why somebody may or may not."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import click

from axis_security.core.principal import Principal
from axis_security.rbac.matrix import FORMATS
from axis_security.rbac.policy import Policy
from axis_security.rbac.transitions import rules_of


class _PolicyAt(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    name = "MODULE:NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Policy:
        if isinstance(value, Policy):
            return value
        module, _, name = str(value).partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            found = getattr(import_module(module), name or "policy")
        except (ImportError, AttributeError, ValueError) as error:
            self.fail(f"cannot load a policy from {value!s}: {error}", param, ctx)
        if not isinstance(found, Policy):
            self.fail(f"{value!s} is a {type(found).__name__}, not a Policy", param, ctx)
        return found


@click.group("rbac")
def command() -> None:
    """Show a policy, and explain its decisions. POLICY is MODULE:NAME, such as app.security:policy."""


@command.command("matrix")
@click.argument("policy", type=_PolicyAt())
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), default="table", show_default=True)
def matrix(policy: Policy, form: str) -> None:
    """Print roles and capabilities as a table."""
    click.echo(FORMATS[form](policy), nl=False)


@command.command("transitions")
@click.argument("policy", type=_PolicyAt())
def transitions(policy: Policy) -> None:
    """Print who may do what to whom's membership, and why."""
    for rule in rules_of(policy):
        click.echo(f"{'yes' if rule.allowed else 'no ':<4}{rule.actor:<12}{rule.action:<12}{rule.target:<12}{rule.why}")


@command.command("explain")
@click.argument("policy", type=_PolicyAt())
@click.option("--role", required=True, help="The role the person acts in.")
@click.option("--cap", required=True, help="The capability's wire name, such as users.manage.")
@click.option("--user", help="The person's id; conditions such as owns(...) look at it.")
@click.option("--resource", help="The object, as JSON, where a condition looks at one.")
@click.option("--json", "as_json", is_flag=True, help="Print the audit form.")
def explain(policy: Policy, role: str, cap: str, user: str | None, resource: str | None, *, as_json: bool) -> None:
    """Say whether a person in ROLE may use CAP, why, and what would change it. Exit status 1 if not."""
    try:
        thing = None if resource is None else json.loads(resource)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--resource") from None
    decision = policy.decide(Principal(tenant="explain", user=user, role=role), cap, thing)
    click.echo(json.dumps(decision.audit(), indent=2) if as_json else decision.explain())
    sys.exit(0 if decision.allowed else 1)
