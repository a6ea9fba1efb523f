"""Reading the server's wording of predicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.rls.audit.expression import (
    calls_outside_selects,
    coerced_settings,
    compares,
    correlated_exists,
    is_true,
    mentions,
    opens_unbound,
    outside_selects,
    selects,
    settings_read,
    without_literals,
)

WRAPPED = "(tenant_id = ( SELECT axis.tenant_id() AS tenant_id))"


def test_sub_selects_are_told_from_the_filter() -> None:
    """A getter in a sub-select is not a call of the filter; a bare one is."""
    assert calls_outside_selects(WRAPPED) == []
    assert calls_outside_selects("(tenant_id = axis.tenant_id())") == ["axis.tenant_id"]
    assert calls_outside_selects("((a = ANY (ARRAY( SELECT f(b) AS f))) AND g(c))") == ["g"]
    assert list(selects(WRAPPED)) == [" SELECT axis.tenant_id() AS tenant_id"]


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("(tenant_id = 1)", True),
        ('("tenant_id" = 1)', True),
        ("(t.tenant_id = 1)", True),
        ("(other_tenant_id = 1)", False),
        ("(a = 'tenant_id'::text)", False),
        ("tenant_id()", False),
    ],
)
def test_a_column_is_a_name_and_not_a_word(text: str, yes: bool) -> None:
    """Literals, longer names and functions of the same name do not count."""
    assert mentions(text, "tenant_id") is yes


def test_asking_for_null_is_not_comparing() -> None:
    """`tenant_id IS NOT NULL` lets every row through."""
    assert not compares("(tenant_id IS NOT NULL)", "tenant_id")
    assert compares("((tenant_id IS NOT NULL) AND (tenant_id = 1))", "tenant_id")


@pytest.mark.parametrize("text", ["true", "(true)", "((true))"])
def test_true_is_true_in_any_parentheses(text: str) -> None:
    """However the server writes it."""
    assert is_true(text)
    assert not is_true(f"({text} AND a)")


def test_settings() -> None:
    """Names of settings are read from literals; a cast of a missing one is seen, `nullif` is respected."""
    assert settings_read("current_setting('app.tenant'::text, true)") == ["app.tenant"]
    assert coerced_settings(without_literals("(current_setting('app.tenant'::text, true))::integer"))
    assert not coerced_settings(without_literals("(NULLIF(current_setting('app.tenant'::text, true), ''::text))::integer"))
    assert opens_unbound("((current_setting('a'::text, true) IS NULL) OR (tenant_id = 1))")
    assert not opens_unbound(WRAPPED)


def test_correlation() -> None:
    """A sub-select is correlated where it names the outer table, and not where it reads that table itself."""
    assert correlated_exists("(EXISTS ( SELECT 1 FROM shop.m WHERE (m.id = task.m_id)))", "task")
    assert not correlated_exists("(id = ANY (ARRAY( SELECT m.id FROM shop.m)))", "task")
    assert not correlated_exists("(EXISTS ( SELECT 1 FROM shop.task WHERE (task.id = 1)))", "task")


@given(st.text(alphabet="()'SELECT or=ab.\\\"", max_size=60))
def test_no_text_breaks_the_reading(text: str) -> None:
    """Unbalanced parentheses and quotes end in an answer."""
    outside_selects(text)
    list(selects(text))
    calls_outside_selects(text)
    correlated_exists(text, "a")
    opens_unbound(text)
    coerced_settings(text)
