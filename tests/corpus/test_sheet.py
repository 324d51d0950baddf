"""Charts of the corpus: both are written and not blank."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnihuman.corpus.sheet import draw_contact_sheet, draw_mel_sheet


@pytest.mark.parametrize(
    ("draw_sheet", "min_size"), [(draw_contact_sheet, (1152, 1500)), (draw_mel_sheet, (1000, 500))]
)
def test_sheets_are_not_blank(tmp_path: Path, draw_sheet: Callable[[Path], Path], min_size: tuple[int, int]) -> None:
    with Image.open(draw_sheet(tmp_path / "sheet.png")) as sheet:
        assert sheet.width >= min_size[0] and sheet.height >= min_size[1]
        assert np.asarray(sheet.convert("L")).std() > 30
