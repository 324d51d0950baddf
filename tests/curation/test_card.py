"""The data card has the counts of the account, the models and the prompts."""

from pathlib import Path

from PIL import Image

from omnihuman.curation.card import is_finished, write_card
from omnihuman.curation.folder import write_state
from tests.curation.conftest import build_on, run_here
from tests.curation.test_backend import list_nodes


def test_a_card_tells_what_became_of_the_clips(clips: Path, tmp_path: Path) -> None:
    nodes = {name: node for name, node in list_nodes().items() if name not in ("dedupe", "sample")}
    pipeline = build_on(clips, nodes, tmp_path / "out", 4)
    pipeline.out.mkdir()
    write_state(pipeline, [])
    assert not is_finished(pipeline)
    run_here(pipeline)
    assert is_finished(pipeline)
    write_card(pipeline, "CC-BY-4.0")
    card = (tmp_path / "out" / "card.md").read_text()
    assert "6 clips: 5 are written, 0 dropped and 1 failed" in card and "labels: CC-BY-4.0." in card
    assert "| probe | 5 | 0 | 1 unreadable |" in card and "5 emotion, 5 body" in card
    assert "| brief | brief 1 | 5 scripted |" in card and "Describe the video" in card
    with Image.open(tmp_path / "out" / "card.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20
