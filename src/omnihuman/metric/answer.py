"""The part of an answer that counts: what follows its reasoning, and what it does not deny."""

import re

from omnihuman.metric.chinese import HAN, to_half_width

CUT = (None, "cut")
"""Result of parsing an answer that ends within its reasoning."""

_NEGATION = (
    r"\b(?:not|no|never|neither|nor|without|hardly|barely|cannot|\w+n['’]t|rather than|instead of|lack of|absence of)\b"
    r"(?!\s+(?:only|just|merely|simply|doubt|hide|contain|conceal|help)\b)"
)
_DENIED = re.compile(rf"{_NEGATION}(?:[^\w]+\w+){{0,3}}[^\w]*$")
_DENIED_CHINESE = re.compile(
    r"(?:不|没|没有|并非|毫无|[而绝决]非|无)(?:是|太|很|够|算|怎么|那么|感到|觉得|显得|看起来|表现出|带有|任何|明显的?)*$"
)
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
    """Return a text without regard to case and width, and without the spaces and full stops around it.

    >>> fold(" Very  happy. "), fold("高兴。")
    ('very happy', '高兴')
    """
    folded = " ".join(to_half_width(text).casefold().split())
    return folded.strip(" .!") or folded


def says(text: str, phrase: str) -> bool:
    """Return whether a text has a phrase as complete words and does not deny it, without regard to case and width.

    Chinese words have no spaces around them, so that a phrase may begin and end within a run of characters.

    >>> says("She is not happy.", "happy"), says("She is not sad, but _happy_!", "happy"), says("unhappy", "happy")
    (False, True, False)
    >>> says("她看起来很高兴。", "高兴"), says("她不高兴，而是难过", "高兴"), says("她不高兴，而是难过", "难过")
    (True, False, True)
    """
    words = re.findall(r"[^\W_]+", to_half_width(phrase).casefold())
    if not words:
        return False
    text = to_half_width(text).casefold()
    # not \b: the underscores of Markdown's _happy_ are punctuation here
    before, after = r"(?<![^\W_])", r"(?![^\W_])"
    if re.match(f"[{HAN}]", words[0]):
        before = ""
    if re.search(f"[{HAN}]$", words[-1]):
        after = ""
    for match in re.finditer(before + r"[\W_]+".join(words) + after, text):
        clause = _CLAUSE_END.split(text[: match.start()])[-1]
        if not (_DENIED.search(clause) or _DENIED_CHINESE.search(clause)):
            return True
    return False
