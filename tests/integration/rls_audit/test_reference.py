"""docs/reference/findings.md is written from the rules and the corpus, and stays so.

To write it anew: AXIS_WRITE_DOCS=1 pytest tests/integration/rls_audit/test_reference.py
"""

from __future__ import annotations

import os
from pathlib import Path

from axis_security.rls.audit import RULES
from axis_security.rls.audit.engine import DRIFT, MODULES
from axis_security.rls.audit.modes import MODES
from axis_security.rls.audit.rule import Rule

from .corpus import Case, cases

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "findings.md"

DECLARED = {
    "rls.undeclared_table": (
        "CREATE TABLE stray (tenant_id uuid);\nGRANT SELECT ON stray TO axis_app;",
        "-- tenancy.protect(Stray) or tenancy.open(Stray, reason=…), or:\nREVOKE ALL ON stray FROM axis_app;",
    ),
    "rls.open_table_has_key": (
        '-- tenancy.open(Country, reason="the same for all"), and then:\nALTER TABLE country ADD COLUMN tenant_id uuid;',
        "-- tenancy.protect(Country)",
    ),
}
"""Rules that compare with a declaration; the corpus has none."""

HEAD = """# Findings of the audit

<!-- Written by tests/integration/rls_audit/test_reference.py from the rules and the corpus. Change those. -->

`axis-security rls audit` and `tenancy.audit()` report these codes. A code never changes its meaning. How to run the audit:
[Audit a schema](../how-to/audit-a-schema.md).

Each example is a case of the corpus: the audit names exactly this fault in the first, and has nothing to say about the second. They change the
same small sound schema: `shop.project`, `shop.task` and `shop.event` with the tenant column `tenant_id`, used by the role `corpus_app`.
"""


def page() -> str:
    """The whole reference."""
    examples: dict[str, Case] = {}
    for case in sorted(cases(), key=lambda case: len(case.codes)):
        for code in case.codes:
            examples.setdefault(code, case)
    parts = [HEAD]
    for module in MODULES:
        title = (module.__doc__ or "").splitlines()[0].removeprefix("Rules about ").rstrip(".")
        parts.append(f"## {title[0].upper()}{title[1:]}\n")
        parts += [section(rule, examples) for rule in RULES.values() if rule.check.__module__ == module.__name__]
    parts += [drift(), modes()]
    return "\n".join(parts)


def section(rule: Rule, examples: dict[str, Case]) -> str:
    """One finding."""
    failing, fixed = DECLARED[rule.code] if rule.code in DECLARED else (examples[rule.code].broken, examples[rule.code].fixed)
    numbers = ", ".join(f"[{number}](#kinds-of-failure)" for number in rule.modes)
    return (
        f"### {rule.code}\n\n**{rule.severity}**: {rule.what}. {rule.why[0].upper()}{rule.why[1:]}.\n\nKinds of failure: {numbers}.\n\n"
        f"Failing:\n\n```sql\n{failing}\n```\n\nFixed:\n\n```sql\n{fixed}\n```\n"
    )


def drift() -> str:
    """The finding that is not a rule."""
    return (
        f"## Drift\n\n### {DRIFT}\n\n**error** or **warning**: the database is not as declared. With a declaration, everything that `tenancy.plan()` would "
        "change is a finding: a policy edited under its name, one added by hand, a grant, a key, a function of schema `axis`. An error where the step is "
        "one to look at twice.\n\nFailing:\n\n```sql\nALTER POLICY axis_select ON contact USING (true);\n```\n\nFixed:\n\n```sql\n-- tenancy.plan(connection).apply(connection)\n```\n"
    )


def modes() -> str:
    """The numbered list."""
    return "## Kinds of failure\n\n" + "\n".join(f"{number}. {words[0].upper()}{words[1:]}." for number, words in MODES.items()) + "\n"


def test_the_reference_is_as_the_rules_say() -> None:
    """Every code has its severity, its words, a failing and a fixed example, all from where the tests take them."""
    text = page()
    if os.environ.get("AXIS_WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text
    assert all(f"### {code}\n" in text for code in RULES)


def test_every_kind_of_failure_has_a_rule() -> None:
    """All 32."""
    assert set(MODES) == set(range(1, 33)) == {mode for rule in RULES.values() for mode in rule.modes}
