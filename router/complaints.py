"""What an upstream complains of when it refuses a request: a parameter, one of its values, a role, a type of part.

Every vendor says it otherwise. Where a complaint may be about this model alone, another is asked; it is remembered only
where the words leave no doubt, since what is remembered keeps requests from a model for a while.
"""

import re
from collections.abc import Mapping, Sequence

from router.endpoints import Endpoint
from router.parameters import FIXED
from router.refusals import Refusal
from router.reply import MAX_READ_CHARS, Reply
from router.turns import WORD_KEYS, words_of

LEAST_BARE_WORD = 8  # letters; a shorter one without quotes, such as user or stop, is just a word
# what every model for chats knows: a complaint of one of these is about where it stands
ORDINARY = frozenset({"user", "assistant", "tool", "function", "text", "message", "input_text", "output_text"})

_UNKNOWN = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|not (supported|permitted|allowed|recognized|available)"
    r"|does(n't| not) support|extra inputs|additional propert",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\bvalue\b|must be|invalid_value|unsupported_value|only .{0,40}default", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_QUOTED = re.compile(r"['\"`]([A-Za-z_][A-Za-z0-9_]{0,63})")
_STEP = re.compile(r"[^.\[\]]+")
_PLACE = re.compile(r"\b(messages|input)[.\[][\w.\[\]]*")
# that a role or a type is none of those known
_NO_SUCH = re.compile(
    r"invalid[ _](value|role|type)|input should be|not one of|must be one of|supported values|variant|input tag"
    r"|discriminator|not a valid",
    re.IGNORECASE,
)
# that one file or image is none it takes
_DETAIL = re.compile(
    r"mime|scheme|\bsize|format|base64|\burl\b|bytes|resolution|corrupt|decod|too large|\bdata\b|\w/\w", re.IGNORECASE
)
# that a turn stands where it must not, which every upstream would say
_ORDER = re.compile(
    r"\bafter\b|\bbefore\b|\bfirst\b|\blast\b|must (be )?follow|followed by|following (an?|the|another) "
    r"(user|assistant|tool|system)|preced|alternat|respon(d|se to)|duplicate|position|\bfinal|\bend with|pending",
    re.IGNORECASE,
)
_NO_PATH = re.compile(
    r"^\W*not found\W*$|404 (page )?not found|method not allowed|cannot post|the upstream said 404"
    r"|(invalid|unknown|no such|unsupported)\b.{0,20}\b(url|path|endpoint|route)",
    re.IGNORECASE,
)


def refusal_in(reply: Reply, sent: Mapping[str, object]) -> Refusal | None:
    """What of the body sent a refusal is about; none where it is the client's fault, whoever is asked.

    A parameter stands in `param` or in quotes. Of a conversation it is a role or a type of part, none (no `word`) where
    the complaint is of one but does not say which.
    """
    if reply.fault != "client":
        return None
    said = f"{reply.error.get('code')} {reply.error.get('message')}"[:MAX_READ_CHARS]
    unknown = _UNKNOWN.search(said) is not None
    param = reply.error.get("param")
    path = _STEP.findall(param[:MAX_READ_CHARS]) if isinstance(param, str) else []
    named = path[:1]
    if unknown:
        named += _QUOTED.findall(said)
        named += [word for word in _WORD.findall(said) if "_" in word or len(word) >= LEAST_BARE_WORD]
    name = next((name for name in named if name in sent and name not in FIXED), None)
    if name is not None:
        return Refusal(name, any_value=unknown and not _VALUE.search(said))
    return _of_conversation(said, path, sent, unknown=unknown)


def _of_conversation(said: str, path: Sequence[str], sent: Mapping[str, object], *, unknown: bool) -> Refusal | None:
    """The role or the type of part that a complaint is about; `path` is where it says that it stands."""
    conversation = next((name for name in ("messages", "input") if isinstance(sent.get(name), list)), None)
    if conversation is None or _ORDER.search(said) or not (unknown or _NO_SUCH.search(said)):
        return None
    place = path or _STEP.findall((_PLACE.search(said) or [""])[0])
    is_inside = place[:1] == [conversation]
    words = frozenset(words_of(sent[conversation])) - ORDINARY
    word = None
    if is_inside and place[-1] in WORD_KEYS:
        word = _standing_at(place, sent)
    elif (not is_inside or place[-1].isdecimal()) and not _DETAIL.search(said):
        word = next((word for word in _QUOTED.findall(said) if word in words), None)
    if word in words and (word != "system" or f"support '{word}'" in said):
        return Refusal(conversation, any_value=False, word=word)
    is_about_it = is_inside or any(word in words for word in _WORD.findall(said))
    return Refusal(conversation, any_value=False) if is_about_it else None


def is_named(reply: Reply) -> bool:
    """Whether a complaint says in `param` or `code` what it is about."""
    return bool(reply.error.get("param") or reply.error.get("code"))


def lacks_endpoint(reply: Reply, endpoint: Endpoint) -> bool:
    """Whether an upstream has no such endpoint, and not just no such thing as the request is about."""
    if reply.fault != "absent":
        return False
    message = str(reply.error.get("message"))[:MAX_READ_CHARS]
    return reply.status == 405 or endpoint.path in message or _NO_PATH.search(message) is not None


def _standing_at(place: Sequence[str], body: Mapping[str, object]) -> str | None:
    """The text at a place in a body, given as the steps to it."""
    held: object = body
    for step in place:
        if isinstance(held, dict):
            held = held.get(step)
        elif isinstance(held, list) and step.isdecimal() and int(step[:9]) < len(held):
            held = held[int(step[:9])]
        else:
            return None
    return held if isinstance(held, str) else None
