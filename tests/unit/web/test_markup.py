import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.web.markup import Html, join, table, tag
from tests.support.html import text_of, wellformed

EVIL = "<script>alert('1')</script>\"&"


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", EVIL) == "<p>&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;</p>"
    assert tag("p", tag("b", "x"), " & ", ["a", None, ("b",)]) == "<p><b>x</b> &amp; ab</p>"
    assert join(None) == ""
    assert isinstance(join("x"), Html)


def test_attributes_are_escaped_and_named_as_html_names_them():
    made = tag(
        "input", type="text", value='"><script>', data_label="x", class_="y", for_="z", checked=True, hidden=False
    )
    assert made == ('<input type="text" value="&quot;&gt;&lt;script&gt;" data-label="x" class="y" for="z" checked>')
    assert tag("meta", content=10, name=None) == '<meta content="10">'


def test_markup_that_was_cut_or_joined_is_text_again():
    """Only what was made here is markup: a slice of it, or a sum with a text, is not to be trusted."""
    assert not isinstance(tag("b", "x")[0:3], Html)
    assert not isinstance(tag("b", "x") + EVIL, Html)


@given(st.text(), st.text(), st.text())
def test_whatever_stands_in_a_table_is_shown_as_it_is(caption, column, cell):
    made = table(caption, (column, "b"), [(cell, tag("b", cell))], "nothing")
    assert wellformed(made)
    assert text_of(made).count(cell) >= 2


def test_a_table_says_what_its_cells_are():
    made = table("Models", ("model", "state"), [("yolo", "ready")], "none")
    assert "<caption>Models</caption>" in made
    assert '<th scope="col" role="columnheader">model</th>' in made
    assert '<th role="rowheader" data-label="model" scope="row">yolo</th>' in made
    assert '<td role="cell" data-label="state">ready</td>' in made
    assert table("Models", ("model",), [], "none yet") == '<p class="empty">none yet</p>'


@pytest.mark.parametrize("void", ["meta", "link", "input", "br"])
def test_elements_without_an_end(void):
    assert tag(void) == f"<{void}>"
