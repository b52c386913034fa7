import pytest

from ragpack.report import PackReport, PassageReport
from ragpack.text import plural


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("hit",), "0 hits"),
        (1, ("hit",), "1 hit"),
        (1, ("entry", "entries"), "1 entry"),
        (1200, ("entry", "entries"), "1,200 entries"),
    ],
)
def test_one_is_one(number, words, said):
    assert plural(number, *words) == said


def test_a_notebook_reads_one_hit_and_one_miss():
    rows = (PassageReport("a", (), 9, 9, "hit"), PassageReport("b", (), 9, 9, "miss"))
    report = PackReport("identity", tokens_in=18, tokens_out=18, passages=rows)
    assert "1 hit, 1 miss, " in report._repr_html_()
