"""The forest plot of RESULTS.md, written as SVG: a line for each effect, from what the notebooks recorded."""

from html import escape

# In pixels: where the axis begins, its width, the height of a row and of the head, the width of all.
_LEFT, _WIDTH, _ROW, _TOP, _ALL = 330, 300, 24, 44, 820
_LOW, _HIGH = -32, 32  # ends of the axis; what goes on beyond them ends in an arrow
_BLUE, _GREY = "#0072B2", "#555"
_BAND = 'height="20" fill="#bbbbbb" fill-opacity="0.45"'


def svg(rows):
    """The plot of `rows`: dictionaries with `label`, `value`, `low`, `high`, `registered`, `smallest` (or None) and `head`,
    question and answer that begin with this row (or nothing). The same rows give the same text. Raises `ValueError`
    without rows."""
    if not rows:
        raise ValueError("A forest plot needs a row; give a result of a claim a 'plot'.")
    parts, y = [], _TOP
    for row in rows:
        if row["head"]:
            y += _ROW
            question, answer = row["head"]
            parts += [
                _text(10, y + 5, question, weight="bold"),
                _text(_LEFT + _WIDTH + 12, y + 5, answer, weight="bold"),
            ]
        y += _ROW
        parts += _line(row, y)
    bottom = y + _ROW
    grid = [_axis(at, bottom) for at in range(_LOW + 2, _HIGH, 10)]
    height = bottom + 74
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_ALL} {height}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(alt(rows))}">\n<rect width="{_ALL}" height="{height}" fill="#ffffff"/>'
    )
    title = [
        _text(_x(0), 22, "change in points", anchor="middle"),
        _text(_LEFT + _WIDTH + 12, 22, "answer, value [95%]"),
    ]
    return "\n".join([head, *title, *grid, *parts, *_legend(bottom + 34), "</svg>\n"])


def alt(rows):
    """The plot in words: which lines lie above zero, which below, how many hold it."""
    above = [f"{row['label']} {_said(row)}" for row in rows if row["low"] > 0]
    below = [f"{row['label']} {_said(row)}" for row in rows if row["high"] < 0]
    return (
        f"Changes in points with 95% intervals, {len(rows)} lines. Above zero: {', '.join(above) or 'none'}. "
        f"Below zero: {', '.join(below) or 'none'}. All others hold zero."
    )


def _x(value):
    """Pixels from the left of a value on the axis; one beyond an end lies on it."""
    return round(_LEFT + _WIDTH * (min(max(value, _LOW), _HIGH) - _LOW) / (_HIGH - _LOW), 1)


def _said(row):
    return f"{row['value']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def _text(x, y, words, *, anchor="start", weight="normal"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="#222">{escape(words)}</text>'


def _axis(at, bottom):
    """A grid line with its number; that of zero is dark."""
    colour = _GREY if at == 0 else "#dddddd"
    line = f'<path d="M{_x(at)} {_TOP} V{bottom}" stroke="{colour}" stroke-width="1"/>'
    return f"{line}{_text(_x(at), _TOP - 6, f'{at:+d}' if at else '0', anchor='middle')}"


def _line(row, y):
    """A row's label, band, interval, point and numbers."""
    parts = [_text(22, y + 5, row["label"])]
    if band := row["smallest"]:
        width = round(_x(band) - _x(-band), 1)
        parts.append(f'<rect x="{_x(-band)}" y="{y - 10}" width="{width}" {_BAND}/>')
    parts.append(f'<path d="M{_x(row["low"])} {y} H{_x(row["high"])}" stroke="{_BLUE}" stroke-width="2.2"/>')
    parts += [_arrow(_LOW, y, 6)] if row["low"] < _LOW else []
    parts += [_arrow(_HIGH, y, -6)] if row["high"] > _HIGH else []
    if _LOW <= row["value"] <= _HIGH:
        parts.append(_point(_x(row["value"]), y, row["registered"]))
    return [*parts, _text(_LEFT + _WIDTH + 12, y + 5, _said(row))]


def _arrow(end, y, back):
    return f'<path d="M{_x(end) + back} {y - 5} L{_x(end)} {y} L{_x(end) + back} {y + 5}" stroke="{_BLUE}" stroke-width="2.2" fill="none"/>'


def _point(x, y, filled):
    fill = _BLUE if filled else "#ffffff"
    return f'<circle cx="{x}" cy="{y}" r="5" stroke="{_BLUE}" stroke-width="2" fill="{fill}"/>'


def _legend(y):
    """Registered filled, after the fact hollow, the smallest effect of interest as a band."""
    return [
        _point(20, y, True),
        _text(32, y + 5, "expectation registered before the run"),
        _point(290, y, False),
        _text(302, y + 5, "after the fact"),
        f'<rect x="412" y="{y - 10}" width="26" {_BAND}/>',
        _text(446, y + 5, "smaller than the smallest effect of interest"),
        _text(10, y + 28, "An arrow goes on beyond the axis."),
    ]
