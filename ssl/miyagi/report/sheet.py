"""A contact sheet: columns of pictures with their names above them, as one PNG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from miyagi.files import replacing
from miyagi.report.figures import Image

TILE, GAP, FONT = 96, 6, 13
PAGE, INK = "white", "black"


def write_sheet(columns: Mapping[str, np.ndarray], file: Path) -> None:
    """Write the sheet, one row an image.

    Args:
        columns: name -> N x H x W x 3 uint8; H and W may differ by column.
        file: the PNG.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    rows = min(map(len, columns.values()))
    font = ImageFont.load_default(FONT)
    words = {name: _lines(name) for name in columns}
    head = GAP + (FONT + 3) * max(map(len, words.values()))
    step = TILE + GAP
    sheet = Pillow.new("RGB", (GAP + step * len(columns), head + step * rows + GAP), PAGE)
    draw = ImageDraw.Draw(sheet)
    for left, (name, images) in zip(range(GAP, GAP + step * len(columns), step), columns.items(), strict=True):
        draw.multiline_text((left, GAP), "\n".join(words[name]), INK, font, spacing=2)
        for row, image in enumerate(images[:rows]):
            sheet.paste(Pillow.fromarray(_enlarged(image)), (left, head + step * row))
    with replacing(file) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _lines(name: str) -> list[str]:
    """A name in lines that are no wider than a tile."""
    from textwrap import wrap

    return wrap(name, width=TILE // 6) or [""]


def _enlarged(image: Image) -> Image:
    """An image at the tile's size: small ones pixel by pixel, so that nothing is invented."""
    from PIL import Image as Pillow

    small = max(image.shape[:2]) <= TILE
    how = Pillow.Resampling.NEAREST if small else Pillow.Resampling.LANCZOS
    return np.asarray(Pillow.fromarray(np.ascontiguousarray(image)).resize((TILE, TILE), how))
