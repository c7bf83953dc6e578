"""Self-contained HTML: one file, its pictures and style within, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence

_STYLE = """
:root { --ink: #23262d; --soft: #6b7280; --line: #e3e5ea; --accent: #3465c0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 28px 80px; }
h1 { font-size: 27px; font-weight: 650; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; font-weight: 650; margin: 0 0 12px; }
p.lead, p.note, figcaption { color: var(--soft); }
p.lead { margin: 0 0 28px; }
p.note, figcaption { font-size: 13px; margin: 8px 0 0; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px; margin: 0 0 20px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px 22px; }
.facts div span { display: block; color: var(--soft); font-size: 12.5px; }
.facts div b { font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
tr.strong td { font-weight: 650; }
.scroll { overflow-x: auto; }
figure { margin: 0; }
img, svg { max-width: 100%; height: auto; display: block; border-radius: 6px; }
.labelled { display: grid; grid-template-columns: 92px 1fr; gap: 0 10px; }
.labelled .labels { display: grid; grid-auto-rows: 1fr; color: var(--soft); font-size: 13px; text-align: right; }
.labelled .labels span { align-self: center; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 20px; }
"""

_COLOURS = ("#3465c0", "#d97a2b", "#8a8f99", "#3a9a6b", "#a14fb5", "#c04a4a")


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A whole document; ``title`` and ``lead`` are plain text, ``sections`` HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body><main>\n<h1>{html.escape(title)}</h1>\n"
        f'<p class="lead">{html.escape(lead)}</p>\n{"".join(sections)}</main></body></html>\n'
    )


def section(heading: str, *parts: str) -> str:
    """A titled block of HTML parts."""
    return f"<section><h2>{html.escape(heading)}</h2>\n{''.join(parts)}</section>\n"


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Large figures with small captions."""
    cells = (f"<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b></div>" for name, value in items)
    return f'<div class="facts">{"".join(cells)}</div>\n'


def note(text: str) -> str:
    """A line of small print."""
    return f'<p class="note">{html.escape(text)}</p>\n'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> str:
    """A table of text; the rows whose index is in ``strong`` are set in bold."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=strong' if index in strong else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'


def image(data: bytes, kind: str, caption: str = "", width: int | None = None) -> str:
    """A picture embedded in the page; ``kind`` is ``png`` or ``webp``."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    size = f' width="{width}"' if width else ""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{html.escape(caption)}"{size}>{below}</figure>\n'


def labelled(labels: Sequence[str], content: str) -> str:
    """Labels beside the equally high rows of a picture."""
    cells = "".join(f"<span>{html.escape(label)}</span>" for label in labels)
    return f'<div class="labelled"><div class="labels">{cells}</div><div>{content}</div></div>\n'


def side_by_side(*parts: str) -> str:
    """Blocks beside each other where there is room."""
    return f'<div class="pair">{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def line_chart(
    series: Mapping[str, Sequence[float]], *, x_label: str, y_label: str, width: int = 540, height: int = 230
) -> str:
    """A line chart as inline SVG: one line for each named series over the index; NaN leaves a gap."""
    left, right, top, bottom = 58, 14, 26, 38
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    ceiling, step = _nice_scale(max(known, default=1.0))
    longest = max((len(values) for values in series.values()), default=1)

    def x(index: float) -> float:
        return left + (width - left - right) * index / max(longest - 1, 1)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / ceiling

    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="11.5" fill="#6b7280">']
    for tick in range(round(ceiling / step) + 1):
        at = y(tick * step)
        parts.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="#e3e5ea"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{tick * step:.10g}</text>')
    for index in _ticks(longest):
        parts.append(f'<text x="{x(index):.1f}" y="{height - bottom + 17}" text-anchor="middle">{index}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 5}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    parts.append(f'<text x="4" y="13">{html.escape(y_label)}</text>')
    legend = width - right
    for number, (name, values) in reversed(list(enumerate(series.items()))):
        colour = _COLOURS[number % len(_COLOURS)]
        path, pen = [], "M"
        for index, value in enumerate(values):
            if math.isfinite(value):
                path.append(f"{pen}{x(index):.1f} {y(value):.1f}")
                pen = "L"
            else:
                pen = "M"
        parts.append(f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(series) > 1:
            parts.append(f'<text x="{legend}" y="13" text-anchor="end" fill="{colour}">{html.escape(name)}</text>')
            legend -= 7 * len(name) + 16
    return "".join(parts) + "</svg>\n"


def _nice_scale(largest: float) -> tuple[float, float]:
    """The end of an axis that holds ``largest`` and the distance of its ticks, both round numbers."""
    if largest <= 0:
        return 1.0, 0.25
    power = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= largest / 4)
    return step * math.ceil(largest / step - 1e-9), step


def _ticks(count: int) -> range:
    """About eight indices below ``count``."""
    return range(0, count, max(1, math.ceil(count / 8)))
