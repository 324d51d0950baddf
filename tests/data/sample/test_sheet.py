"""The sheets: both are written and hold pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from omnihuman.data.sample.sheet import contact_sheet, listening_sheet


def test_sheets_hold_pictures(tmp_path: Path) -> None:
    for make, least in ((contact_sheet, (9 * 128, 1500)), (listening_sheet, (1000, 500))):
        with Image.open(make(tmp_path / "sheet.png")) as sheet:
            assert sheet.width >= least[0] and sheet.height >= least[1]
            assert np.asarray(sheet.convert("L")).std() > 30
