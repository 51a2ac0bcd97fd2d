"""Filters as Milvus reads them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_lite.search.filter import parse_expr
from milvus_lite.search.filter.ast import And, CmpOp, InOp, StringLit

from meshkit.errors import InvalidArgument
from retriever_svc.filtering import parse
from retriever_svc.milvus_filter import literal, within
from tests.retriever_svc.test_index_filters import FIELDS, ODD, OURS, odd_filters, strings


@settings(max_examples=300, deadline=None)
@given(odd_filters)
def test_a_filter_is_one_conjunct_beside_its_scope(filter: str) -> None:
    """However odd: it is refused, or Milvus Lite reads the scope's two predicates with the filter as a third."""
    try:
        condition = parse(filter, FIELDS, OURS.name)
    except InvalidArgument:
        return
    tree = parse_expr(within(OURS, condition))
    assert isinstance(tree, And)
    assert len(tree.operands) == 2 + (condition is not None)
    tenant, collection = tree.operands[:2]
    assert isinstance(tenant, CmpOp)
    assert (tenant.left.name, tenant.op, tenant.right.value) == ("tenant", "==", "acme")
    assert isinstance(collection, InOp)
    assert (collection.field.name, collection.negate) == ("collection", False)
    assert [element.value for element in collection.values.elements] == ["kb", "kb/"]


@settings(max_examples=300, deadline=None)
@given(strings | st.sampled_from([ODD, "\r\n\t", "\\\\n"]))
def test_a_text_is_one_literal(text: str) -> None:
    """Whatever it holds, Milvus Lite reads it back as it was."""
    tree = parse_expr(f"lang == {literal(text)}")
    assert isinstance(tree, CmpOp)
    assert isinstance(tree.right, StringLit)
    assert tree.right.value == text
