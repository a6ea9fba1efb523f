"""``axis-security rbac``: the policy as a table, and why somebody may or may not."""

from __future__ import annotations

import json
import sys

import click

from axis_security.cli.loading import HostObject
from axis_security.core.principal import Principal
from axis_security.rbac.matrix import FORMATS
from axis_security.rbac.policy import Policy
from axis_security.rbac.transitions import rules_of

_POLICY = click.argument("policy", type=HostObject(default="policy", kind="axis_security.rbac.policy.Policy"))


@click.group("rbac")
def command() -> None:
    """Show a policy, and explain its decisions. POLICY is MODULE:NAME, such as app.security:policy."""


@command.command("matrix")
@_POLICY
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), default="table", show_default=True)
def matrix(policy: Policy, form: str) -> None:
    """Print roles and capabilities as a table."""
    click.echo(FORMATS[form](policy), nl=False)


@command.command("transitions")
@_POLICY
def transitions(policy: Policy) -> None:
    """Print who may do what to whom's membership, and why."""
    for rule in rules_of(policy):
        click.echo(f"{'yes' if rule.allowed else 'no ':<4}{rule.actor:<12}{rule.action:<12}{rule.target:<12}{rule.why}")


@command.command("explain")
@_POLICY
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
