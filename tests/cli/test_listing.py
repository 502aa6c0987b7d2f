"""Lists: printing one in parts prints what printing it at once does."""

from __future__ import annotations

import pytest

from streamkit.cli.listing import FORMATS, ListWriter, write_list

ROWS = [{"name": f"row {n}", "count": n, "tags": ["a", "b"], "none": None} for n in range(5)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cut", range(6))
def test_a_list_in_parts_is_the_list_at_once(
    form: str, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list("rows", ROWS, form, empty_text="no rows")
    at_once = capsys.readouterr()
    out = ListWriter("rows", form)
    out.write(ROWS[:cut])
    out.write(ROWS[cut:])
    out.end("no rows")
    assert capsys.readouterr() == at_once


@pytest.mark.parametrize(
    ("form", "printed"),
    [("table", ""), ("json", "[]\n"), ("yaml", "[]\n"), ("toml", "rows = []\n")],
)
def test_a_list_without_rows_is_empty(
    form: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list("rows", [], form, empty_text="no rows")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (printed, "no rows\n" if form == "table" else "")


def test_a_row_of_a_table_is_one_line_without_terminal_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_list("rows", [{"name": "a\nb\x1b[2J"}], "table", empty_text="no rows")
    assert capsys.readouterr().out == "NAME\na\\nb\\x1b[2J\n"
