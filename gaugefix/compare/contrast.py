"""Whether a colour can be seen on dark paper, and how much brighter it must be."""

from __future__ import annotations


def brightness(color: str, paper: str = "#16181b", wanted: float = 3.0) -> float:
    """Return the factor that brings a colour to the contrast that WCAG 2 asks of graphics, on dark paper."""
    factor = 1.0
    while factor < 2.5 and (luminance(color, factor) + 0.05) / (luminance(paper) + 0.05) < wanted:
        factor += 0.05
    return 1.0 if color == "#000000" else round(factor, 2)


def luminance(color: str, factor: float = 1.0) -> float:
    """Return the relative luminance of ``#rrggbb``, each channel times a factor first (WCAG 2.2)."""
    channels = [min(1.0, int(color[k : k + 2], 16) / 255 * factor) for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
