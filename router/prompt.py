"""What of a conversation is encoded: the last thing that a human asked.

Logs hold single questions, so a forecast needs the question alone: tool results, the assistant's own words and the
system's do not tell how hard it is, nor does what tools and editors put into a user's turn.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from router.encoder.text import readable, shortened
from router.turns import USER, Turn

MAX_CHARS = 32_768  # of a longer ask, its head and tail
MAX_SEARCHED = 4 * 1024 * 1024  # for what no human wrote, likewise; more than any model reads
MAX_TAGS = 10_000  # of which a human's turn is searched: a hostile one must not keep others waiting
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
    "ide_diagnostics",
    "environment_info",
    "workspace_info",
    "editorContext",
    "reminderInstructions",
    "user-prompt-submit-hook",
    "task-notification",
    "local-command-stdout",
    "local-command-caveat",
    "command-name",
    "command-message",
    "command-args",
    "tool_result",
    "function_results",
)
# a tag may hold attributes, over several lines too; what is not closed before the next one begins is none
_NAMES = "|".join(map(re.escape, INJECTED))
_TAG = re.compile(rf"""<(?=/?[a-z])(/?)({_NAMES})(?=[\s>])(?:"[^"]*"|'[^']*'|[^<>"'])*>""", re.IGNORECASE)


def asked(turns: Sequence[Turn]) -> str:
    """The last human ask; a short follow-up stands behind the ask before it. Empty where no human asked anything."""
    found: list[str] = []
    for turn in reversed(turns):
        if turn.role != USER:
            continue
        text = without_injected(shortened(turn.text, MAX_SEARCHED)).strip()
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


def _outermost(opened: Sequence[tuple[str, int]], name: str, text: str) -> int | None:
    """Where the first open block of a name begins a line; none where none does."""
    return next((at for which, at in opened if which == name and text[max(at - 1, 0) : at] in ("", "\n")), None)


def without_injected(text: str) -> str:
    """Take out the blocks that no human wrote, whatever stands in them. Read once, so a hostile text costs no more.

    A block ends where as many were closed as opened within it. What a block mentions of its own name without closing it
    is a part of it too, if the block begins a line.
    """
    if "</" not in text:
        return text
    tags = [(bool(tag[1]), tag[2].lower(), tag.start(), tag.end()) for tag in islice(_TAG.finditer(text), MAX_TAGS)]
    n_closing = Counter(name for closes, name, _, _ in tags if closes)
    opened: list[tuple[str, int]] = []
    n_open: Counter[str] = Counter()
    blocks: list[tuple[int, int]] = []  # none of them within another
    for closes, name, at, stop in tags:
        if not closes:
            opened.append((name, at))
            n_open[name] += 1
            continue
        n_closing[name] -= 1
        if n_open[name]:
            first = _outermost(opened, name, text) if not n_closing[name] else None
            last, start = "", len(text)
            while last != name or (first is not None and start > first):  # what was opened within is a part of it
                last, start = opened.pop()
                n_open[last] -= 1
            while blocks and blocks[-1][0] > start:
                blocks.pop()
            blocks.append((start, stop))
    kept, end = [], 0
    for start, stop in blocks:
        kept.append(text[end:start])
        end = stop
    return "".join([*kept, text[end:]])
