"""The part of an answer that counts: what follows its reasoning, and what it does not deny."""

import re

CUT = (None, "cut")
"""Result of parsing an answer that ends within its reasoning."""

_NEGATION = (
    r"\b(?:not|no|never|neither|nor|without|hardly|barely|cannot|\w+n['’]t|rather than|instead of|lack of|absence of)\b"
    r"(?!\s+(?:only|just|merely|simply|doubt|hide|contain|conceal|help)\b)"
)
_DENIED = re.compile(rf"{_NEGATION}(?:[^\w]+\w+){{0,3}}[^\w]*$")
_CLAUSE_END = re.compile(r"[.,;:!?\n()]|\bbut\b|\band\b")


def final_answer(answer: str | None) -> str | None:
    r"""Return what an answer says after its reasoning; ``None`` if it ends before.

    Reference: the form of R1-Omni and others, ``<think>...</think><answer>...</answer>``. The prompt may hold the first
    tag.

    >>> final_answer("<think>Is she sad?</think>\n<answer>happy</answer>"), final_answer("<think>Is she")
    ('happy', None)
    """
    text = answer or ""
    reasoning = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)
    text = reasoning[-1]
    if re.search(r"<think(?:ing)?>", text, re.IGNORECASE):
        return None
    parts = re.split(r"<answer>", text, flags=re.IGNORECASE)
    final = re.split(r"</answer>", parts[-1], flags=re.IGNORECASE)[0].strip()
    is_tagged = len(reasoning) > 1 or len(parts) > 1
    return None if is_tagged and not final else final


def tagged_answer(answer: str) -> str:
    """Return the text in the ``<answer>`` tag of an answer; the whole of one without the tag.

    Reference: R1-Omni's ``accuracy_reward``, which takes the first tag that ends in the line where it begins.

    >>> tagged_answer("<think>He frowns.</think> <answer> angry </answer>"), tagged_answer(" angry")
    ('angry', 'angry')
    """
    match = re.search("<answer>(.*?)</answer>", answer)
    return (match[1] if match else answer).strip()


def fold(text: str) -> str:
    """Return a text without regard to case, and without the spaces and full stops around it.

    >>> fold(" Very  happy. ")
    'very happy'
    """
    folded = " ".join(text.casefold().split())
    return folded.strip(" .!") or folded


def says(text: str, phrase: str) -> bool:
    """Return whether a text has a phrase as complete words and does not deny it, without regard to case.

    >>> says("She is not happy.", "happy"), says("She is not sad, but _happy_!", "happy"), says("unhappy", "happy")
    (False, True, False)
    """
    words = re.findall(r"[^\W_]+", phrase.casefold())
    if not words:
        return False
    text = text.casefold()
    pattern = r"[\W_]+".join(words)
    # not \b: the underscores of Markdown's _happy_ are punctuation here
    for match in re.finditer(rf"(?<![^\W_]){pattern}(?![^\W_])", text):
        clause = _CLAUSE_END.split(text[: match.start()])[-1]
        if not _DENIED.search(clause):
            return True
    return False
