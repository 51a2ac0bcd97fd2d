"""The shared loader files, where they are at hand, through a real parser process."""

import statistics
from pathlib import Path

from bench.loaders import answer, cases, default_limits, likeness
from ingest_svc.parser_processes import open_parser_processes

LOADERS = Path(__file__).parents[3] / "shared" / "data" / "loaders"
LEAST, LEAST_MEAN = 0.91, 0.98
# Its second page is a loop, its first is whole: that one is read, and the other warned of.
HALF_READABLE = "Pages-tree-refs.pdf"


async def test_shared_files_come_out_as_wanted() -> None:
    """Each file has the outcome that its manifest asks for; the expected texts come out, but for what is said of them.

    Below 0.95 are equations (signs stay as Unicode has them, the reference names them), and slides, whose notes and
    charts the reference leaves out.
    """
    found: dict[str, float] = {}
    async with open_parser_processes(1, default_limits()) as parser:
        for case in cases(LOADERS):
            got, text, as_wanted = await answer(parser, case)
            assert as_wanted or case.file.name == HALF_READABLE, (case.file.name, case.wanted, got)
            assert "root:" not in text
            found[case.file.name] = likeness(case, text, as_wanted=as_wanted)
    known = {name: like for name, like in found.items() if like >= 0}
    assert [name for name, like in known.items() if like < LEAST] == []
    assert statistics.mean(known.values() or [1.0]) >= LEAST_MEAN
