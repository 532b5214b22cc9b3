"""What every picture is drawn on: a figure, colours, ticks, labels that some font can draw, a PNG file.

Everything goes through matplotlib's Figure and never through pyplot, whose global state is not safe to use from the
threads of a server. Matplotlib is known to this file, and to one scale of colours in plots.py, and loaded when the first
picture is drawn: that takes longer than many a command. The colours are those of Okabe and Ito (2008), "Color Universal
Design", and shades of one hue, which readers with any common form of colour blindness can tell apart.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertwright.atomic import atomic_write_bytes
from bertwright.errors import BertwrightError
from bertwright.evaluation.report import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
BLUE, SKY_BLUE, VERMILION, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#999999"
LABEL_COLUMNS = 32  # of a terminal; a Chinese character takes two

# Comes with matplotlib, so it is there whatever the machine has installed.
PLAIN_FONT = "DejaVu Sans"
# The wide-coverage fonts that Linux distributions, macOS and Windows install for Chinese, Japanese and Korean.
CJK_FONTS = (
    *(f"{family} {script}" for family in ("Noto Sans CJK", "Source Han Sans") for script in ("SC", "TC", "JP", "KR")),
    *("Noto Sans SC", "Noto Sans TC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "Unifont"),
    *("IPAexGothic", "IPAGothic", "NanumGothic"),
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "SimHei", "SimSun", "Microsoft JhengHei", "Yu Gothic", "Meiryo", "Malgun Gothic"),
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def whole_numbers(axis: Any, **options: Any) -> None:
    """Put ticks at whole numbers only; options are those of matplotlib's MaxNLocator."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, **({"min_n_ticks": 1} | options)))


def per_cent(axis: Any) -> None:
    """Write ticks from 0 to 1 as 0 % to 100 %."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


@dataclass(frozen=True)
class Labels:
    """Names as a picture can show them, the fonts that have their characters, and what to say below it."""

    texts: list[str]
    families: list[str]
    note: str


def drawable_labels(names: Sequence[str]) -> Labels:
    """Shorten names and find fonts for them; a glyph that is missing would be a box in the picture and a warning."""
    from matplotlib import font_manager

    families = [PLAIN_FONT]
    drawable = set(_codepoints(_font_file(PLAIN_FONT)))
    needed = {ord(character) for name in names for character in name}
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for family in CJK_FONTS:
        if needed <= drawable:
            break
        if family in installed and (needed - drawable) & _codepoints(_font_file(family)):
            families.append(family)
            drawable |= _codepoints(_font_file(family))
    texts, numbered = [], 0
    for position, name in enumerate(names):
        if name.strip() and name.isprintable() and drawable.issuperset(map(ord, name)):
            texts.append(shortened(name, LABEL_COLUMNS))
        else:
            texts.append(f"#{position}")
            numbered += 1
    subject = f"#n: the class at position n, counted from 0; no installed font can draw {numbered:,} of the names"
    return Labels(texts, families, subject if numbered else "")


def _font_file(family: str) -> str:
    from matplotlib import font_manager

    found = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
    return str(found)


@functools.cache
def _codepoints(font_file: str) -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_file).get_charmap())


def caption(figure: Figure, parts: Sequence[str]) -> None:
    """Write small lines, those that are not empty, below a figure."""
    text = "\n".join(part for part in parts if part)
    if text:
        figure.supxlabel(text, fontsize=8, color="#444444", wrap=True)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure to its place in one step, so that no reader ever sees half a picture."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise BertwrightError(f"cannot write the plot {target}; plots are PNG files, so give a name that ends in .png")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    atomic_write_bytes(target, picture.getvalue())
