"""Render stacks as a flame graph: as SVG, or as a web page with zoom and search.

Neither loads anything.
"""

from __future__ import annotations

from colorsys import hls_to_rgb
from html import escape
from zlib import crc32

from .._engine.traps import KERNEL_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .profile import FunctionTime

WIDTH, ROW, TOP, MARGIN = 1200, 18, 44, 10
_CHARACTER_WIDTH = 6.7
_MIN_WIDTH = 0.3
"""Pixels below which a frame is left out."""
MAX_DEPTH = 300
MAX_TABLE_ROWS = 50
ROOT_NAME = "all"
KERNEL_PREFIX = f"{KERNEL_NAME}!"


class _Node:
    __slots__ = ("children", "name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        self.children: dict[str, _Node] = {}


def _build_tree(stacks: Mapping[tuple[str, ...], float]) -> _Node:
    root = _Node(ROOT_NAME)
    for stack, seconds in stacks.items():
        node = root
        node.seconds += seconds
        for name in stack[:MAX_DEPTH]:
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = _Node(name)
            node = child
            node.seconds += seconds
    return root


def _iterate_boxes(root: _Node) -> Iterator[tuple[_Node, int, float]]:
    """Yield each node that is wide enough, its depth, and the seconds left of it."""
    todo = [(root, 0, 0.0)]
    least = root.seconds * _MIN_WIDTH / (WIDTH - 2 * MARGIN)
    while todo:
        node, depth, left = todo.pop()
        if node.seconds < least:
            continue
        yield node, depth, left
        for name in sorted(node.children):
            child = node.children[name]
            todo.append((child, depth + 1, left))
            left += child.seconds


def _pick_color(name: str) -> str:
    """Return the color of a function: warm for the guest, blue for the kernel, grey for the
    host."""
    if name.startswith("["):
        return "#c7c7c7"
    number = crc32(name.encode())
    if name.startswith(KERNEL_PREFIX):
        red, green, blue = hls_to_rgb((195 + number % 25) / 360, 0.74, 0.55)
    else:
        red, green, blue = hls_to_rgb((8 + number % 47) / 360, 0.66, 0.85)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def render_svg(stacks: Mapping[tuple[str, ...], float], title: str) -> str:
    """Return a flame graph: callees stand on their callers."""
    root = _build_tree(stacks)
    boxes = list(_iterate_boxes(root)) if root.seconds else []
    rows = 1 + max((depth for _, depth, _ in boxes), default=0)
    height = TOP + rows * ROW + MARGIN
    scale = (WIDTH - 2 * MARGIN) / root.seconds if root.seconds else 0.0
    font = "ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace"
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    subtitle = _format_seconds(root.seconds) if boxes else "no samples: the calls were too short"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{font}" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="20" font-size="15">{_escape_xml(title)}</text>',
        f'<text x="{MARGIN}" y="36" fill="#666">{subtitle}</text>',
    ]
    for node, depth, left in boxes:
        width, y = node.seconds * scale, TOP + (rows - 1 - depth) * ROW
        x = MARGIN + left * scale
        fits = int((width - 6) / _CHARACTER_WIDTH)
        name = node.name.removeprefix(KERNEL_PREFIX)  # the color shows it
        label = "" if fits < 3 else name if len(name) <= fits else f"{name[: fits - 1]}…"
        share = node.seconds / root.seconds
        about = f"{node.name}: {_format_seconds(node.seconds)}, {100 * share:.1f} %"
        parts.append(
            f'<g data-n="{_escape_xml(node.name)}" data-d="{depth}" '
            f'data-l="{left / root.seconds:.6f}" data-w="{share:.6f}">'
            f"<title>{_escape_xml(about)}</title>"
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" rx="1" '
            f'fill="{_pick_color(node.name)}"/>'
            f'<text x="{x + 3:.2f}" y="{y + 12.5}" pointer-events="none">'
            f"{_escape_xml(label)}</text></g>"
        )
    parts.append("</svg>")
    return "\n".join(parts)


def render_html(
    stacks: Mapping[tuple[str, ...], float], title: str, functions: Sequence[FunctionTime]
) -> str:
    """Return a page with the flame graph and a table of functions.

    A click on a frame zooms in, a click on the lowest one shows everything again.
    """
    rows = "\n".join(
        f"<tr><td>{_format_seconds(time.own)}</td><td>{_format_seconds(time.total)}</td><td>{_escape_xml(time.function)}</td></tr>"
        for time in functions[:MAX_TABLE_ROWS]
    )
    return _PAGE.format(
        title=_escape_xml(title), graph=render_svg(stacks, title), rows=rows, script=_SCRIPT
    )


def _escape_xml(text: str) -> str:
    """Escape text that a guest may have chosen, without characters that XML cannot express."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body {{ font: 14px system-ui, sans-serif; margin: 1em auto; max-width: 1220px }}
svg {{ width: 100%; height: auto }} g {{ cursor: pointer }}
g:hover rect {{ stroke: #000 }} g.found rect {{ fill: #b36bff }}
table {{ border-collapse: collapse; font-family: ui-monospace, monospace; font-size: 12px }}
td, th {{ padding: 2px 12px; text-align: right }}
td:last-child, th:last-child {{ text-align: left }}
</style></head><body>
<p><input id="search" type="search" placeholder="find functions" aria-label="find functions"></p>
{graph}
<table><thead><tr><th>own</th><th>total</th><th>function</th></tr></thead><tbody>
{rows}
</tbody></table>
<script>{script}</script>
</body></html>
"""

_SCRIPT = (
    f"const width = {WIDTH}, margin = {MARGIN}, character = {_CHARACTER_WIDTH};"
    """
const frames = [...document.querySelectorAll("svg g")].map(g => ({
  g, rect: g.querySelector("rect"), text: g.querySelector("text"),
  name: g.dataset.n,
  label: g.dataset.n.replace(/^extism:host\\/env!/, ""),
  depth: +g.dataset.d, left: +g.dataset.l, share: +g.dataset.w }));
function zoom(to) {
  for (const f of frames) {
    const end = f.left + f.share, toEnd = to.left + to.share;
    const around = f.depth < to.depth && f.left <= to.left + 1e-9 && end >= toEnd - 1e-9;
    const inside = f.depth >= to.depth && f.left >= to.left - 1e-9 && end <= toEnd + 1e-9;
    f.g.style.display = around || inside ? "" : "none";
    const x = around ? 0 : (f.left - to.left) / to.share, w = around ? 1 : f.share / to.share;
    const px = margin + x * (width - 2 * margin), pw = w * (width - 2 * margin);
    f.rect.setAttribute("x", px); f.rect.setAttribute("width", pw);
    f.rect.style.opacity = around ? 0.5 : 1;
    f.text.setAttribute("x", px + 3);
    const fits = Math.floor((pw - 6) / character);
    const text = f.label.length <= fits ? f.label : f.label.slice(0, fits - 1) + "…";
    f.text.textContent = fits < 3 ? "" : text;
  }
}
for (const f of frames) f.g.addEventListener("click", () => zoom(f));
document.getElementById("search").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const f of frames) {
    f.g.classList.toggle("found", wanted !== "" && f.name.toLowerCase().includes(wanted));
  }
});
"""
)
