"""Writes the samples that are no text, a PDF and a DOCX, from their text here; run it after a change."""

import textwrap
from pathlib import Path

import docx

SAMPLES = Path(__file__).parent / "samples"

MANUAL = {
    "Kelp T2 tide gauge: manual, short form": """
        The Kelp T2 measures the level of the water by radar from above, without touching it. It is
        made by Halden Instruments in Bergen. This short form holds what an installer needs on the
        quay; the long form is on the memory card in the box.""",
    "1 What is in the box": """
        The gauge, a bracket of stainless steel, eight M10 bolts, an earthing cable of three metres,
        a magnet for the reset, and two lithium batteries. The batteries last four years at one
        reading a minute.""",
    "2 Mounting": """
        Mount the gauge between 2 and 18 metres above the lowest water, pointing straight down to
        within 2 degrees. Keep 1.5 metres away from walls, pilings and ladders: the beam opens by 8
        degrees to each side. Tighten the bolts with 40 newton metres.""",
    "3 Earthing": """
        Connect the earthing cable to the quay's earth before you connect anything else. The
        resistance to earth has to be below 10 ohms. The warranty covers lightning only where this
        was done.""",
    "4 Commissioning": """
        Switch the gauge on with the magnet. It blinks green once a second while it looks for the
        network, which may take five minutes. Enter the height of the bracket above chart datum in
        the Halden app, to the millimetre. Wait for ten readings and compare them with a staff
        gauge: they must agree to within 1 centimetre.""",
    "5 Care": """
        Wipe the antenna window with fresh water twice a year. Replace the batteries when the gauge
        blinks red three times. Have the gauge calibrated in our basin every five years; calibration
        takes ten working days and we lend you another gauge meanwhile.""",
    "6 Technical data": """
        Range 0.5 to 20 metres. Accuracy 3 millimetres. Temperature from -30 to 60 degrees Celsius.
        Protection IP68 to 2 metres for 24 hours. Radio LTE-M and NB-IoT. Weight 2.4 kilograms.""",
}

ON_CALL = {
    "On-call guide": """
        For the engineers who keep the Halden cloud running. Duty lasts a week, from Monday ten
        o'clock, and pays 650 euros a week and 90 euros for each hour worked at night.""",
    "When the pager goes off": """
        Acknowledge within ten minutes. If you do not, the pager calls the second on duty, and after
        ten more minutes the head of engineering.

        Open a channel named after the incident and say what you see. Restore service first; look
        for causes later.

        A severity 1 incident is one in which readings are lost or wrong for more than one port.
        Tell the affected ports within 30 minutes, by the status page, even if you do not know the
        cause.""",
    "Rolling back": """
        Every release can be rolled back for 14 days with the command `mast rollback`. Rolling back
        never loses readings: they are kept in the queue until a release takes them.""",
    "After the incident": """
        Write the review within three working days. It has a timeline, what went well, what we were
        lucky with, and at most three actions with names. Reviews name systems, not people.

        Who was called at night starts work eleven hours after the last call ended.""",
}


def main() -> None:
    """Write both files beside the others."""
    (SAMPLES / "kelp-t2-manual.pdf").write_bytes(_pdf(MANUAL))
    document = docx.Document()
    for level, (heading, text) in enumerate(ON_CALL.items()):
        document.add_heading(heading, level=min(level, 1))
        for paragraph in text.split("\n\n"):
            document.add_paragraph(" ".join(paragraph.split()))
    document.save(str(SAMPLES / "on-call.docx"))


def _pdf(sections: dict[str, str]) -> bytes:
    """A PDF of two pages in Helvetica, which every reader has."""
    headings = list(sections)
    pages = [_content({name: sections[name] for name in part}) for part in (headings[:4], headings[4:])]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    plain = b"/F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    bold = b"/F2 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Font << %s %s >> >>" % (plain, bold),
    ]
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources 3 0 R /Contents %d 0 R >>"
    for number, content in enumerate(pages):
        stream = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
        objects += [page % (5 + 2 * number), stream]
    return _file(objects)


def _content(sections: dict[str, str]) -> bytes:
    lines = ["BT", "72 770 Td", "15 TL"]
    for heading, text in sections.items():
        words = " ".join(text.split())
        body = [f"({line}) Tj T*" for line in textwrap.wrap(words, 88)]
        lines += ["/F2 12 Tf", f"({heading}) Tj T*", "/F1 10 Tf", *body, "T*"]
    return "\n".join([*lines, "ET"]).encode("ascii")


def _file(objects: list[bytes]) -> bytes:
    """The objects with the table of where each begins."""
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


if __name__ == "__main__":
    main()
