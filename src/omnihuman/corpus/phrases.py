"""Phrases of the built-in corpus: features, expressions, actions, voices, sound events, and the questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omnihuman.corpus import world
from omnihuman.corpus.lexicon import LEXICON
from omnihuman.corpus.world import Identity

#: emotion -> adjective for "looks ..." and "sounds ..."
EMOTION_ADJECTIVES = {
    "happy": "happy",
    "sad": "sad",
    "neutral": "neutral",
    "angry": "angry",
    "surprise": "surprised",
    "disgust": "disgusted",
    "fear": "afraid",
}
EXPRESSION_PHRASES = {
    "happy": ("smiles with red cheeks", "laughs with a wide mouth", "smiles and bobs up and down"),
    "sad": ("cries with the mouth turned down", "sinks slowly in tears", "cries and looks down"),
    "neutral": ("stays calm", "does not change", "stays still and calm"),
    "angry": ("frowns and shows the teeth", "turns red and frowns", "turns red and shakes from side to side"),
    "surprise": ("opens the eyes and the mouth wide", "raises the brows with a round mouth", "jumps up with wide eyes"),
    "disgust": (
        "wrinkles the nose and shows the tongue",
        "turns green and turns away",
        "turns away with the tongue out",
    ),
    "fear": ("trembles with wide eyes", "turns pale and trembles", "turns pale with raised brows"),
}
MOUTH_SENTENCES = {
    "happy": "It smiles and shows the teeth.",
    "sad": "It is turned down.",
    "neutral": "It stays calm.",
    "angry": "It shows the closed teeth.",
    "surprise": "It opens wide and round.",
    "disgust": "It shows the tongue.",
    "fear": "It opens and trembles.",
}
BROW_SENTENCES = {
    "happy": "They are a little raised.",
    "sad": "They are up in the middle and down outside.",
    "neutral": "They stay level.",
    "angry": "They are pulled down hard.",
    "surprise": "They are raised high.",
    "disgust": "They are pulled together.",
    "fear": "They are raised in the middle.",
}
EYE_SENTENCES = {
    "happy": "They are narrow and happy.",
    "sad": "They are wet with tears.",
    "neutral": "They stay calm.",
    "angry": "They stare.",
    "surprise": "They are wide open.",
    "disgust": "They are almost closed.",
    "fear": "They are wide with small pupils.",
}
VOICE_ADJECTIVES = {
    "happy": "bright and lively",
    "sad": "slow and quiet",
    "neutral": "flat and calm",
    "angry": "loud and harsh",
    "surprise": "rising and excited",
    "disgust": "low and creaky",
    "fear": "high and trembling",
}
#: action -> (clause, gerund)
ACTION_PHRASES = {
    "wave": ("waves with one hand", "waving"),
    "jump": ("jumps up and down", "jumping"),
    "clap": ("claps the hands", "clapping"),
    "bow": ("bows down", "bowing"),
    "dance": ("dances", "dancing"),
    "walk": ("walks from left to right", "walking"),
    "sit": ("sits down on a chair", "sitting down"),
    "point": ("points to the right", "pointing"),
}
POSE_SENTENCES = {
    "wave": "One hand is up and swings.",
    "jump": "Both feet leave the ground.",
    "clap": "Both hands meet in front.",
    "bow": "The body leans far down.",
    "dance": "The arms and legs swing.",
    "walk": "The legs step to the right.",
    "sit": "The knees are bent on a chair.",
    "point": "One arm is stretched out.",
}
#: interaction -> (clause, object or None, sentence about the pose)
INTERACTION_PHRASES = {
    "drink": ("drinks from a cup", "a cup", "One hand lifts a cup to the mouth."),
    "read": ("reads a book", "a book", "Both hands hold an open book."),
    "kick": ("kicks a ball", "a ball", "One foot kicks a ball."),
    "umbrella": ("holds an umbrella", "an umbrella", "One hand holds an umbrella up."),
    "phone": ("talks on a phone", "a phone", "One hand holds a phone to the ear."),
    "guitar": ("plays a guitar", "a guitar", "Both hands play a guitar."),
    "box": ("lifts a box", "a box", "Both hands lift a box."),
    "hug": ("hugs {other}", None, "Both arms are around {other}."),
    "handshake": ("shakes hands with {other}", None, "One hand shakes the hand of {other}."),
}
#: sound event -> clause
SOUND_CLAUSES = {
    "dog": "a dog barks",
    "bell": "a bell rings",
    "rain": "rain falls",
    "engine": "an engine runs",
    "siren": "a siren wails",
    "knocking": "somebody knocks on a door",
    "whistle": "somebody whistles",
    "clapping": "people clap",
    "music": "music plays",
}
PLACE_PHRASES = {
    "room": "in a room",
    "park": "in a park",
    "street": "on a street",
    "beach": "on a beach",
    "stage": "on a stage",
}

#: emotion -> synonyms, for open-vocabulary answers and their metrics
SYNONYMS = {
    "happy": ("happy", "joyful", "cheerful"),
    "sad": ("sad", "unhappy", "sorrowful"),
    "neutral": ("neutral", "calm", "relaxed"),
    "angry": ("angry", "furious", "mad"),
    "surprise": ("surprised", "amazed", "astonished"),
    "disgust": ("disgusted", "repelled", "sickened"),
    "fear": ("afraid", "scared", "frightened"),
}
#: attribute of a face -> labels
ATTRIBUTES = {
    "gender": ("man", "woman"),
    "skin": world.SKINS,
    "hair_style": ("short", "long", "curly", "no hair"),
    "hair_color": world.HAIR_COLORS,
    "glasses": ("glasses", "no glasses"),
    "beard": ("beard", "no beard"),
    "hat": (*(f"{color} hat" for color in world.HAT_COLORS), "no hat"),
    "brows": ("level", "raised high", "raised in the middle", "pulled down"),
    "eyes": ("calm", "wet with tears", "wide open", "narrow"),
    "mouth": ("calm", "smiling", "turned down", "closed teeth", "round and open", "tongue out"),
}
#: part of the face -> emotion -> label, for emotions whose state is distinct
FACE_STATES = {
    "brows": {
        "neutral": "level",
        "surprise": "raised high",
        "sad": "raised in the middle",
        "fear": "raised in the middle",
        "angry": "pulled down",
        "disgust": "pulled down",
    },
    "eyes": {
        "neutral": "calm",
        "sad": "wet with tears",
        "surprise": "wide open",
        "fear": "wide open",
        "happy": "narrow",
        "disgust": "narrow",
    },
    "mouth": {
        "neutral": "calm",
        "happy": "smiling",
        "sad": "turned down",
        "angry": "closed teeth",
        "surprise": "round and open",
        "disgust": "tongue out",
    },
}
#: questions about the emotion; the first two are the official ones
EMOTION_STEMS = (
    "As an emotional recognition expert, in the video, when the characters display their emotions, "
    "which predominant feeling is most clearly expressed?",
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters "
    "is the most obvious to you?",
    "Which emotion does the person feel most?",
    "What is the main emotion?",
    "Choose the emotion that fits the person best.",
)
VOICE_EMOTION_STEMS = (
    "Which emotion does the voice carry?",
    "What is the main emotion of the speaker?",
    "Choose the emotion that fits the voice best.",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "face_hair": ("What does the hair around the face look like?", "Describe the hair of the face."),
    "face_extras": ("Are there glasses or a beard on the face?", "Which facial features does the face have?"),
    "face_expression": ("Describe the facial expression.", "What does the face do?", "How does the face look?"),
    "face_emotion": ("Which emotion is on the face?", "What does the facial expression show?"),
    "face_mouth": ("What does the mouth in the face do?", "Describe the mouth of the face."),
    "face_brows": ("How are the brows of the face?", "Describe the brows in the face."),
    "face_eyes": ("How are the eyes of the face?", "Describe the eyes in the face."),
    "body_clothes": ("What does the person wear on the body?", "Describe the clothes on the body."),
    "body_action": ("What action does the body do?", "Which body action is this?", "Describe the body action."),
    "body_pose": ("Describe the pose of the body.", "How does the body move?"),
    "body_side": ("From which side is the body seen?", "Is the body seen from the front or from behind?"),
    "interaction_how": ("How does the person interact with objects or people?", "Describe the interaction."),
    "interaction_object": ("Which object does the person interact with?", "What object is used in the interaction?"),
    "interaction_people": ("Is another person there to interact with?", "Who takes part in the interaction?"),
    "interaction_place": ("Where does the interaction take place?", "In which place do objects and people interact?"),
    "caption_seen": ("Describe in detail what is seen.", "Give a detailed caption of the pictures."),
    "caption_both": ("Describe in detail what is seen and heard.", "Give a detailed caption with the sound."),
    "expression": (
        "Describe how the expression changes over time.",
        "Tell how the expression begins, grows and ends.",
        "How does the expression change from start to end?",
    ),
    "audio_caption": ("Describe what is heard.", "Give a caption of the sound.", "What can be heard?"),
    "audio_voice": ("Describe the voice.", "How does the voice sound?"),
    "transcription": ("Write down the spoken words.", "What words are spoken?", "Transcribe the speech."),
    "sound": ("Which sound is this?", "What kind of sound is heard?", "Name the sound."),
    "speaker": ("What does {who} say?", "Which words does {who} speak?"),
    "gender": ("Is the face that of a man or a woman?", "Which gender does the person have?"),
    "skin": ("What is the color of the skin?", "Which skin does the face have?"),
    "hair_style": ("What is the style of the hair?", "Which hair does the person have?"),
    "hair_color": ("What is the color of the hair?", "Which color does the hair have?"),
    "glasses": ("Are there glasses on the face?", "Does the person wear glasses?"),
    "beard": ("Is there a beard on the face?", "Does the person have a beard?"),
    "hat": ("Which hat is on the head?", "Does the person wear a hat?"),
    "brows": ("How are the brows?", "Which state are the brows in?"),
    "eyes": ("How are the eyes?", "Which state are the eyes in?"),
    "mouth": ("How is the mouth?", "Which state is the mouth in?"),
    "summary": ("Write a summary of the face over time.", "Tell in a paragraph who is seen and how the face changes."),
    "qa_gender": ("Who is seen, a man or a woman?",),
    "qa_skin": ("How light or dark is the skin of the face?",),
    "qa_hat": ("What does the person wear on the head?",),
    "hard_end": ("Which accessories does the person wear and how does the expression end?",),
    "hard_hair": ("What is the hair like, and which emotion is on the face first and last?",),
    "hard_yes": ("Is the person with {look} {feels} at the end?",),
    "hard_small": ("What does the person do, and what is on the face and on the head?",),
    "hard_who": ("How does the face of the person look who {does}?",),
    "hard_pair": ("Who wears {thing}, the left or the right person?",),
    "open_emotion": ("List all emotion words that fit the person.", "Which words say what the person feels?"),
    "reason": ("Which emotion does the person feel? Give {clues} clues.", "What is felt and why? Give {clues} clues."),
    "same_person": ("Is it the same person in both shots?", "Do both shots show the same person?"),
}


def join_phrases(parts: list[str]) -> str:
    """Join phrases with commas, and with ``and`` before the last.

    >>> join_phrases(["a hat", "glasses", "a beard"])
    'a hat, glasses and a beard'
    """
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def describe_hair(person: Identity) -> str:
    """Describe the style and the colour of the hair."""
    return "no hair" if person.hair == "no" else f"{person.hair} {person.hair_color} hair"


def list_accessories(person: Identity) -> list[str]:
    """List glasses and beard, if any."""
    return ["glasses"] * person.glasses + ["a beard"] * person.beard


def describe_accessories(person: Identity) -> str:
    """Describe glasses and beard, or their absence."""
    return join_phrases(list_accessories(person) or ["no glasses and no beard"])


def describe_headwear(person: Identity) -> str:
    """Describe the hat, or its absence."""
    return f"a {person.hat} hat" if person.hat else "no hat"


def list_clothes(person: Identity) -> list[str]:
    """List the shirt, and the hat if any."""
    clothes = [f"a {person.shirt} shirt"]
    if person.hat:
        clothes.append(describe_headwear(person))
    return clothes


def build_vocabulary() -> set[str]:
    """Return every word of every corpus, in lower case and without punctuation."""
    tables: list[Any] = [
        EMOTION_ADJECTIVES,
        EXPRESSION_PHRASES,
        MOUTH_SENTENCES,
        BROW_SENTENCES,
        EYE_SENTENCES,
        VOICE_ADJECTIVES,
        ACTION_PHRASES,
        POSE_SENTENCES,
        INTERACTION_PHRASES,
        SOUND_CLAUSES,
        PLACE_PHRASES,
        QUESTIONS,
        EMOTION_STEMS,
        VOICE_EMOTION_STEMS,
        SYNONYMS,
        ATTRIBUTES,
        FACE_STATES,
        tuple(LEXICON),
        _SENTENCE_WORDS,
        world.EMOTIONS,
        world.SOUNDS,
        world.HAIR_STYLES,
        world.HAIR_COLORS,
        world.SHIRT_COLORS,
        world.HAT_COLORS,
    ]
    vocabulary: set[str] = set()
    for text in _iterate_strings(tables):
        vocabulary |= set(text.lower().translate(_WITHOUT_PUNCTUATION).split())
    return vocabulary


_WITHOUT_PUNCTUATION = str.maketrans(",.;?{}\n", "       ")
#: words of the sentences in ``description``, ``conversation`` and ``closeup`` that are in no table
_SENTENCE_WORDS = (
    "a man woman with and is the face has no hair glasses beard looks of shirt hat wears seen from behind front it in "
    "there interaction object alone yes two people talk to each other they on left right says then voice sound "
    "expression tone sounds this first at end start stays neutral calm does not change calms down which "
    "second shot skin but so feels then last person nobody both visual vocal"
)


def _iterate_strings(value: Any) -> Iterator[str]:
    """Yield all strings of nested tables, keys of dictionaries excepted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _iterate_strings(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _iterate_strings(item)
