"""Tables of statistics on narrow terminals."""

from data_pipeline.look.stats import table

ROWS = [["source", "samples", "share"], ["a corpus of a long name", "1,000", "100 %"]]


def test_a_table_that_is_too_wide_has_its_names_on_lines_of_their_own() -> None:
    assert table(ROWS, 40).splitlines() == [
        "source                   samples  share",
        "a corpus of a long name    1,000  100 %",
    ]
    assert table(ROWS, 38).splitlines() == [
        "source",
        "  samples  share",
        "a corpus of a long name",
        "    1,000  100 %",
    ]
