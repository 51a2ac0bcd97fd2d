"""The table of libraries beside each other."""

from bench.parsers import LIBRARIES, Result, table


def test_a_row_a_library_a_column_a_format() -> None:
    """Likeness counts a file that failed as 0, time leaves it out; who reads none of a format does not run."""
    weights = {library.name: 12.0 for library in LIBRARIES}
    results = [
        Result("pypdf", "pdf", "a.pdf", 1.0, 10.0, ""),
        Result("pypdf", "pdf", "b.pdf", 0.0, 0.0, "ValueError"),
        Result("docling", "pdf", "a.pdf", 0.0, 0.0, "no model"),
    ]
    lines = table(results, weights).splitlines()
    assert lines[0].startswith("| library | licence | MB | pdf (2) | docx (0) |")
    assert "| pypdf | BSD-3-Clause | 12 | 0.500, 10 ms, 1 failed |  |" in "\n".join(lines)
    assert "| docling | MIT | 12 | does not run |" in "\n".join(lines)
