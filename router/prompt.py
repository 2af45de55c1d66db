"""What of a conversation is encoded: the last thing that a human asked.

Logs hold single questions, so a forecast needs the question alone: tool results, the assistant's own words and the
system's do not tell how hard it is, nor does what tools and editors put into a user's turn.
"""

from collections.abc import Sequence

from router.encoder.text import readable
from router.turns import USER, Turn

MAX_CHARS = 32_768  # of a longer ask, its head and tail
FOLLOW_UP_WORDS = 5
FOLLOW_UP_BYTES = 40  # a script without spaces says more in one word
MAX_FOLLOWED = 3

# what coding assistants and chat front ends put into a user's turn
INJECTED = (
    "system-reminder",
    "system_reminder",
    "environment_context",
    "environment_details",
    "user_instructions",
    "user_info",
    "additional_data",
    "attached_files",
    "open_and_recently_viewed_files",
    "ide_opened_file",
    "ide_selection",
    "local-command-stdout",
    "local-command-caveat",
    "command-name",
    "command-message",
    "command-args",
    "tool_result",
    "function_results",
)


def asked(turns: Sequence[Turn]) -> str:
    """The last human ask; a short follow-up stands behind the ask before it. Empty where no human asked anything."""
    found: list[str] = []
    for turn in reversed(turns):
        if turn.role != USER:
            continue
        text = without_injected(turn.text).strip()
        if not text:
            continue
        found.append(text)
        if len(found) > MAX_FOLLOWED or not is_follow_up(text):
            break
    return readable("\n".join(reversed(found)), MAX_CHARS)


def is_follow_up(text: str) -> bool:
    """Whether a text is too short to be understood without what was asked before, such as `fix it`."""
    if len(text) > FOLLOW_UP_BYTES or len(text.encode("utf-8", "surrogatepass")) > FOLLOW_UP_BYTES:
        return False
    return len(text.split()) <= FOLLOW_UP_WORDS


def without_injected(text: str) -> str:
    """Take out the blocks that no human wrote. Each name is searched once, so a hostile text costs no more."""
    if "</" not in text:
        return text
    for name in INJECTED:
        opening, closing = f"<{name}", f"</{name}>"
        start = text.find(opening)
        if start < 0:
            continue
        kept, end = [], 0
        while start >= 0:
            after = start + len(opening)
            if text[after : after + 1] in (">", " "):  # else another name that begins with this one
                stop = text.find(closing, after)
                if stop < 0:
                    break
                kept.append(text[end:start])
                end = after = stop + len(closing)
            start = text.find(opening, after)
        text = "".join([*kept, text[end:]])
    return text
