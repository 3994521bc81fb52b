"""The pictures in docs/pictures/, drawn here so that they can be read, changed and compared as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

INK, SOFT, DARK, _PAPER = "#1f2328", "#656d76", "#0550ae", "#ffffff"
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


@dataclass
class Drawing:
    """Shapes on white paper, so that it can be read on a dark page too. Units are pixels."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: int, y: int, words: str, *, anchor: str = "middle", ink: str = INK, size: int = 13
    ) -> None:
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{ink}" font-size="{size}">'
            f"{escape(words)}</text>"
        )

    def line(self, ends: tuple[int, int, int, int], *, ink: str = SOFT, style: str = "") -> None:
        x1, y1, x2, y2 = ends
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{ink}" {style}/>')

    def arrow(self, ends: tuple[int, int, int, int], *, dark: bool = False, dashed: bool = False) -> None:
        style = (
            'marker-end="url(#dark)" stroke-width="3"'
            if dark
            else 'marker-end="url(#clear)" stroke-width="1.5"'
        )
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.line(ends, ink=DARK if dark else INK, style=style + dashes)

    def box(self, place: tuple[int, int, int, int], lines: Iterable[str], *, ours: bool = False) -> None:
        x, y, width, height = place
        ink, fill = (DARK, "#ddf4ff") if ours else (INK, "#f6f8fa")
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{ink}"/>'
        )
        words = list(lines)
        top = y + height // 2 - 9 * (len(words) - 1) + 4
        for number, one in enumerate(words):
            self.text(x + width // 2, top + 18 * number, one, ink=ink if number == 0 else INK)

    def svg(self) -> str:
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="{size}" '
            f'markerHeight="{size}" orient="auto"><path d="M0 0L10 5L0 10z" fill="{ink}"/></marker>'
            for name, ink, size in (("clear", INK, 8), ("dark", DARK, 5))
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="{_FONT}" role="img">'
        )
        paper = f'<rect width="{self.width}" height="{self.height}" fill="{_PAPER}"/>'
        return "\n".join(
            [
                head,
                f"<title>{escape(self.title)}</title>",
                f"<defs>{markers}</defs>",
                paper,
                *self.parts,
                "</svg>\n",
            ]
        )


# --- The protocol ---------------------------------------------------------------------------------------

_COLUMNS = (90, 310, 690, 910)
_MESSAGES = (
    # from column, to column, words, in the dark?
    (3, 2, "220 mx.b", False),
    (2, 1, "220 mx.b", False),
    (1, 0, "220 mx.b", False),
    (0, 1, "EHLO mail.a", False),
    (1, 2, "EHLO mail.a", False),
    (2, 3, "EHLO mail.a", False),
    (3, 2, "250 mx.b ...", False),
    (2, 1, "250-mx.b ...  250 XNIGHTMAIL 1 4/4 ...", False),
    (1, 0, "250 mx.b ...", False),
    (0, 1, "MAIL FROM", False),
    (1, 2, "XNIGHTMAIL, frame(answer)", False),
    (1, 2, "record(PARAMS) record(DATA)", True),
    (2, 3, "MAIL FROM", False),
    (2, 1, "record(PARAMS)", True),
    (3, 2, "250 Ok", False),
    (2, 1, "record(DATA)", True),
    (1, 0, "250 Ok", False),
)
_NOTES = {
    7: "R adds its offer: message 1",
    8: "S takes it out, checks it",
    10: "message 2: one write with the first records",
    13: "R has proven itself",
}


def protocol() -> str:
    top, step = 70, 34
    height = top + step * len(_MESSAGES) + 40
    drawing = Drawing(1000, height, "An SMTP session between two mail servers with a gateway at each")
    for x, words in zip(_COLUMNS, ("sender", "S", "R", "receiver"), strict=True):
        ours = len(words) == 1
        drawing.box((x - 70, 16, 140, 30), [f"gateway {words}" if ours else words], ours=ours)
        drawing.line((x, 46, x, height - 20), ink=DARK if ours else SOFT)
    for number, (begin, end, words, dark) in enumerate(_MESSAGES):
        y = top + step * number + 16
        inward = 6 if end > begin else -6
        drawing.arrow((_COLUMNS[begin] + inward, y, _COLUMNS[end] - inward, y), dark=dark)
        middle = (_COLUMNS[begin] + _COLUMNS[end]) // 2
        drawing.text(middle, y - 6, words, ink=DARK if dark else INK, size=12)
        if number in _NOTES:
            drawing.text(middle, y + 13, _NOTES[number], ink=SOFT, size=11)
    drawing.text(500, height - 6, "thick and blue: encrypted", ink=DARK, size=12)
    return drawing.svg()


# --- The placement "router" -----------------------------------------------------------------------------


def router() -> str:
    drawing = Drawing(1000, 400, "The placement router: the gateway is a router on the path of the mail")
    drawing.box((20, 150, 150, 60), ["mail server", "192.0.2.25"])
    drawing.box((830, 150, 150, 60), ["the Internet", "any port 25"])
    drawing.parts.append(
        f'<rect x="230" y="30" width="540" height="340" rx="10" fill="none" stroke="{SOFT}" '
        'stroke-dasharray="6 4"/>'
    )
    drawing.text(500, 22, "one Linux router, two interfaces", ink=SOFT)
    drawing.box((260, 60, 150, 50), ["iptables", "NFQUEUE, marks"])
    drawing.box((420, 60, 160, 50), ["gate", "SYN: ours? dial"], ours=True)
    drawing.box((260, 155, 150, 50), ["nft tproxy", "marked packets"])
    drawing.box((420, 155, 160, 50), ["worker", "two sockets, a session"], ours=True)
    drawing.box((590, 155, 150, 50), ["dialled socket", "client's address"])
    drawing.box((420, 240, 160, 50), ["supervisor", "rules, peers, health"], ours=True)
    drawing.box((260, 315, 480, 36), ["kernel's forwarding: all else, and all when we are dead"])
    drawing.arrow((170, 165, 258, 90))
    drawing.arrow((410, 85, 418, 85))
    drawing.arrow((170, 180, 258, 180))
    drawing.arrow((410, 180, 418, 180))
    drawing.arrow((580, 180, 588, 180))
    drawing.arrow((740, 180, 828, 180), dark=True)
    drawing.arrow((500, 110, 500, 153), dashed=True)
    drawing.arrow((500, 240, 500, 207), dashed=True)
    drawing.arrow((110, 210, 258, 330))
    drawing.arrow((740, 330, 890, 212))
    drawing.text(200, 112, "SYN", size=11)
    drawing.text(212, 172, "octets", size=11)
    drawing.text(785, 172, "encrypted", ink=DARK, size=11)
    return drawing.svg()


# --- The placement "host" -------------------------------------------------------------------------------


def host() -> str:
    drawing = Drawing(1000, 430, "The placement host: the gateway on the mail server itself")
    drawing.box((830, 175, 150, 60), ["the Internet", "any port 25"])
    drawing.parts.append(
        f'<rect x="20" y="30" width="750" height="380" rx="10" fill="none" stroke="{SOFT}" '
        'stroke-dasharray="6 4"/>'
    )
    drawing.text(395, 22, "one machine: mail server and gateway", ink=SOFT)
    drawing.box((40, 175, 150, 60), ["mail server", "192.0.2.25"])
    drawing.box((260, 60, 150, 50), ["iptables", "NFQUEUE, marks"])
    drawing.box((420, 60, 160, 50), ["gate", "SYN: ours? dial"], ours=True)
    drawing.box((260, 180, 150, 50), ["lo, nft tproxy", "marked packets"])
    drawing.box((420, 180, 160, 50), ["worker", "two sockets, a session"], ours=True)
    drawing.box((590, 180, 160, 50), ["dialled socket", "192.0.2.25, its port"])
    drawing.box((420, 270, 160, 50), ["supervisor", "rules, peers, health"], ours=True)
    drawing.box((260, 350, 490, 40), ["the kernel's usual way: all else, and all when we are dead"])
    drawing.arrow((190, 190, 258, 90))
    drawing.arrow((410, 85, 418, 85))
    drawing.arrow((190, 205, 258, 205))
    drawing.arrow((410, 205, 418, 205))
    drawing.arrow((580, 205, 588, 205))
    drawing.arrow((750, 205, 828, 205), dark=True)
    drawing.arrow((500, 110, 500, 178), dashed=True)
    drawing.arrow((500, 270, 500, 232), dashed=True)
    drawing.arrow((120, 235, 258, 365))
    drawing.arrow((750, 370, 890, 237))
    drawing.text(214, 128, "SYN", size=11)
    drawing.text(224, 197, "octets", size=11)
    drawing.text(800, 166, "encrypted", ink=DARK, size=11)
    return drawing.svg()


# --- The placement "bridge" -----------------------------------------------------------------------------


def bridge() -> str:
    drawing = Drawing(1000, 430, "The placement bridge: the gateway in the cable, without an address")
    drawing.box((20, 310, 150, 60), ["mail server", "192.0.2.25"])
    drawing.box((830, 310, 150, 60), ["switch, router", "the Internet"])
    drawing.parts.append(
        f'<rect x="230" y="30" width="540" height="370" rx="10" fill="none" stroke="{SOFT}" '
        'stroke-dasharray="6 4"/>'
    )
    drawing.text(500, 22, "one Linux bridge, two ports, no address", ink=SOFT)
    drawing.box((260, 60, 150, 50), ["iptables", "NFQUEUE, marks"])
    drawing.box((420, 60, 160, 50), ["gate", "SYN: ours? dial"], ours=True)
    drawing.box((590, 60, 150, 50), ["supervisor", "rules, peers, health"], ours=True)
    drawing.box((420, 150, 160, 50), ["worker", "two sockets, a session"], ours=True)
    drawing.box((420, 235, 160, 40), ["nm1 | nm0, a port"])
    drawing.box((260, 320, 480, 40), ["br0: all else, and all when we are dead"])
    drawing.arrow((335, 318, 335, 112))
    drawing.arrow((410, 85, 418, 85))
    drawing.arrow((500, 110, 500, 148), dashed=True)
    drawing.arrow((640, 110, 560, 148), dashed=True)
    drawing.arrow((470, 318, 470, 277))
    drawing.arrow((470, 235, 470, 202))
    drawing.arrow((530, 200, 530, 233))
    drawing.arrow((530, 275, 530, 318))
    drawing.arrow((170, 340, 258, 340))
    drawing.arrow((740, 340, 828, 340), dark=True)
    drawing.text(318, 220, "SYN", size=11, anchor="end")
    drawing.text(462, 302, "marked frames", size=11, anchor="end")
    drawing.text(538, 302, "in the names and MACs of both", size=11, anchor="start")
    drawing.text(785, 332, "encrypted", ink=DARK, size=11)
    return drawing.svg()
