"""Replies tell the truth about the scenes, besides one claim that each describer makes up."""

import json

from omnihuman.corpus.replies import FALSE_CLAIMS, REPLIES, find_scene, reply, split_sentences
from omnihuman.corpus.world import Scene, build_scenes
from omnihuman.corpus.write import build_records

SCENES = {scene.id: scene for scene in build_scenes(0)}


def write_item(scene: Scene, **fields: object) -> dict[str, object]:
    return {"records": [json.dumps(record) for record in build_records(scene, 0)], "start": 0.0, **fields}


def find(**fields: object) -> Scene:
    def matches(scene: Scene) -> bool:
        return all(getattr(scene, key) == value for key, value in fields.items())

    return next(filter(matches, SCENES.values()))


def test_scenes_are_known_by_their_records() -> None:
    for scene in (find(kind="talk"), find(kind="pair"), find(kind="shots")):
        assert find_scene(write_item(scene)["records"]) == scene  # type: ignore[arg-type]
    assert find_scene(['{"id": "7"}', '{"id": "train_talk_000_0_body", "meta": {"identity": -1}}']) is None
    assert reply("brief", {"records": []}) is None


def test_two_describers_agree_on_the_truth_alone() -> None:
    scene = find(kind="talk", split="train")
    first, second = (reply("detailed", write_item(scene), repeat=repeat) for repeat in (0, 1))
    assert first and second and first != second
    item = write_item(scene, first_caption=first["caption"], second_caption=second["caption"], caption=first["caption"])
    consensus, supported = reply("consensus", item), reply("supported", item)
    assert consensus and not set(split_sentences(consensus["caption"])) & set(FALSE_CLAIMS)
    assert consensus["only_first"][0] in FALSE_CLAIMS and consensus["only_second"][0] in FALSE_CLAIMS
    assert supported and supported["unsupported"] == consensus["only_first"] and 0.8 < supported["share"] < 1


def test_branches_are_null_where_nothing_is_visible() -> None:
    behind = reply("branches", write_item(find(from_behind=True)))
    talk, pair = (reply("branches", write_item(find(kind=kind))) for kind in ("talk", "pair"))
    assert behind and behind["face"] is None and behind["action"]
    assert talk and talk["emotion"] and talk["action"] is None
    assert pair and pair["interaction"] and pair["appearance"] is None


def test_the_second_shot_is_another_scene() -> None:
    scene = find(kind="shots", split="train")
    second = reply("summary", write_item(scene) | {"start": scene.shots[0].duration})
    assert second == reply("summary", write_item(scene) | {"start": scene.duration - 0.1})
    assert second != reply("summary", write_item(scene))


def test_made_up_claims_are_discarded() -> None:
    scene = find(kind="talk", shown_by="both")
    item = write_item(scene)
    faces = json.dumps([reply("face", item)])
    sound, description = reply("sound", item), reply("global", item)
    assert sound and description
    checked = reply("consistency", item | description | {"faces": faces, "sound": sound["caption"], "voice": None})
    assert checked and len(checked["discarded"]) == 1 and checked["discarded"][0] in FALSE_CLAIMS
    assert len(checked["claims"]) >= 4


def test_scores_follow_who_shows_the_emotion() -> None:
    scores = {}
    for shown_by in ("both", "face", "voice"):
        scene = find(kind="talk", shown_by=shown_by)
        judged = reply("alignment", write_item(scene, label=scene.emotion, description=""))
        assert judged
        scores[shown_by] = judged["score"]
    assert scores["both"] > scores["face"] > scores["voice"] > 2
    assert reply("alignment", write_item(scene, label="proud", description="")) == {
        "reason": f"The clip shows {scene.emotion}.",
        "score": 0,
    }


def test_replies_are_those_of_the_clip_alone() -> None:
    scene = find(kind="talk", shown_by="both")
    texts = {"first_caption": "", "second_caption": "", "caption": "", "label": scene.emotion}
    for protocol in REPLIES:
        item = write_item(scene, **texts)
        fields = reply(protocol, item)
        assert fields and fields == reply(protocol, item)
