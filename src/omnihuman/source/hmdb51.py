"""HMDB51: clips of films and web videos, 51 actions, three official splits."""

from collections.abc import Iterator
from functools import partial

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row

ACTIONS = (
    "brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat fall_floor fencing "
    "flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour pullup punch push pushup ride_bike "
    "ride_horse run shake_hands shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand swing_baseball "
    "sword sword_exercise talk throw turn walk wave"
)
"""Names of the folders, separated by spaces."""

LABELS = {action: action.replace("_", " ") for action in ACTIONS.split()}
SPLITS = {"1": "train", "2": "test"}
"""Mark of a clip in a split; the clips with 0 are in none."""

COLUMNS = ("file", "mark")


class HMDB51Source(DatasetSource):
    """The clips of a copy of HMDB51 in one of its three official splits.

    Reference: ``testTrainMulti_7030_splits/brush_hair_test_split1.txt`` with a line ``<file>.avi 1`` for each clip: 1
    is train, 2 test, 0 neither.
    """

    labels = LABELS
    num_folds = 3

    def clips(self) -> Iterator[Annotation]:
        folder = self.find("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "splits")
        files = sorted(folder.glob(f"*_test_split{self.fold}.txt"))
        if not files:
            raise ValueError(f"path={self.path}: expected brush_hair_test_split{self.fold}.txt in {folder}.")
        for file in files:
            action = file.stem.removesuffix(f"_test_split{self.fold}")
            yield from self.read_rows(file, partial(self._build, action), COLUMNS, delimiter=" ", names=COLUMNS)

    def _build(self, action: str, place: str, row: Row) -> Annotation | None:
        if row["mark"] == "0":
            return None
        video = self.find_media(f"{action}/{row['file']}", f"{action}/{action}/{row['file']}", suffixes=("",))
        return Annotation(place, action, {"video": video}, split=SPLITS.get(row["mark"], row["mark"]))
