"""Building blocks of a self-contained HTML page; every text given to them is escaped."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light; --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --blue: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f8fafc; color: var(--ink);
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header { background: var(--ink); color: white; padding: 28px 0; }
header h1 { margin: 0; font-size: 24px; }
header p { margin: 4px 0 0; color: #cbd5e1; overflow-wrap: anywhere; }
.inside { max-width: 1040px; margin: 0 auto; padding: 0 24px; }
section, .tile { background: white; border: 1px solid var(--line); border-radius: 8px; }
section { margin: 20px 0; padding: 20px 24px; overflow-x: auto; }
h2 { margin: 0 0 4px; font-size: 17px; }
section > p { margin: 0 0 14px; color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
         margin: 20px 0; }
.tile { padding: 14px 16px; overflow-wrap: anywhere; }
.tile small { display: block; color: var(--soft); }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.note { margin: 12px 0; padding: 10px 16px; background: #fef3c7; border: 1px solid #fcd34d;
        border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
td.number, th.number { text-align: right; }
.bar { background: #e2e8f0; border-radius: 4px; height: 8px; min-width: 120px; }
.bar i { display: block; background: var(--blue); border-radius: 4px; height: 8px; }
img { max-width: 100%; }
.plot { display: block; margin: 10px auto; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
figure { margin: 0; }
figure img { width: 100%; border-radius: 6px; display: block; }
figcaption { color: var(--soft); font-size: 13px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 24px; margin: 12px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """Return the whole document; `parts` are what the other functions return."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<header><div class="inside"><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div>'
        f'</header><main class="inside">{"".join(parts)}</main></body></html>\n'
    )


def section(heading: str, text: str, *parts: str) -> str:
    """Return a section with a heading and a line of explanation."""
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(heading)}</h2>{paragraph}{''.join(parts)}</section>"


def tiles(shown: Sequence[tuple[str, str, str]]) -> str:
    """Return the figures that matter most, each as (name, value, remark)."""
    inner = "".join(
        f'<div class="tile"><small>{escape(name)}</small><b>{escape(value)}</b>'
        f"<small>{_foldable(remark)}</small></div>"
        for name, value, remark in shown
    )
    return f'<div class="tiles">{inner}</div>'


def _foldable(text: str) -> str:
    """Let the name of a topic go on in the next line before a slash."""
    return escape(text).replace("/", "<wbr>/")


def notes(lines: Sequence[str]) -> str:
    """Return what the reader must know first, each line in a frame of its own."""
    return "".join(f'<div class="note">{escape(line)}</div>' for line in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns from the third on are numbers."""
    kinds = ["" if index < 2 else ' class="number"' for index in range(len(head))]
    top = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def bars(head: Sequence[str], rows: Sequence[tuple[str, int, int, float]]) -> str:
    """Return a table of (name, count, count, share) with the share drawn as a bar."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{count}</td><td>{right}</td><td>{share:.1%}"
        f'<div class="bar"><i style="width:{share:.1%}"></i></div></td></tr>'
        for name, count, right, share in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def figure(svg: bytes, description: str) -> str:
    """Return a plot."""
    # As an image, so that the identifiers inside of two plots cannot clash.
    data = base64.b64encode(svg).decode()
    return f'<img class="plot" alt="{escape(description)}" src="data:image/svg+xml;base64,{data}">'


def gallery(pictures: Sequence[tuple[str, bytes]]) -> str:
    """Return JPEG pictures, each with its caption."""
    inner = "".join(
        f'<figure><img alt="{escape(caption)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, jpeg in pictures
    )
    return f'<div class="gallery">{inner}</div>'


def details(entries: Sequence[tuple[str, str]]) -> str:
    """Return a list of names and what they stand for."""
    inner = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries)
    return f"<dl>{inner}</dl>"
