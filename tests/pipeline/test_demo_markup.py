"""Plain text and Markdown as HTML fragments."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.demo import markup


def test_paragraphs_headings_lists_and_code() -> None:
    html = markup.from_plain(
        "A title\n=======\n\nFirst line\nsecond ``line``.\n\n"
        "- one\n- two\n  more\n\n    x = 1 < 2\n"
    )
    assert html == (
        "<h2>A title</h2>\n<p>First line second <code>line</code>.</p>\n"
        "<ul>\n<li>one</li>\n<li>two more</li>\n</ul>\n<pre><code>x = 1 &lt; 2</code></pre>"
    )


def test_directives_and_fields_are_left_out() -> None:
    assert markup.from_plain(".. image:: x.png\n   :alt: y") == ""


def test_markdown_has_tables() -> None:
    assert "<td>1</td>" in markup.from_markdown("| a |\n|---|\n| 1 |\n")


def test_addresses_and_streams_are_scrubbed() -> None:
    text = "<function f at 0x7f00deadbeef> writes <_io.TextIOWrapper name='<stdout'>"
    assert "0x7f" not in markup.scrub(text)
    assert "TextIOWrapper" not in markup.scrub(text)
    assert markup.scrub("a\x00b\tc") == "ab      c"


def test_what_leads_to_an_example_ends_in_one_colon() -> None:
    assert markup.from_plain("So a::b is, as here::") == "<p>So a:b is, as here:</p>"
    assert markup.from_plain("So is a::b.") == "<p>So is a::b.</p>"


@given(st.text())
def test_any_text_becomes_fragments_without_a_raw_tag(text: str) -> None:
    html = markup.from_plain(text.replace("<", "(").replace(">", ")"))
    for tag in ("<script", "<style", "<iframe"):
        assert tag not in html


@given(st.text(alphabet="<>&=-* \n`:ab"))
def test_what_stood_in_angle_brackets_is_escaped(text: str) -> None:
    html = markup.from_plain(f"<b {text}")
    assert "<b" not in html
