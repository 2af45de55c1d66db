"""Which encoders there are: how to ask for one, and how to bring a saved one back.

Each is imported only when it is used, so that serving LSA never pays for transformers.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.encoder.base import Encoder
from router.errors import EncoderError

WINDOWS = re.compile(r"#windows=([1-9][0-9]?)$")  # of a long prompt, at the end of a spec


@dataclass(frozen=True)
class Kind:
    """One kind of encoder; `fit` takes the training prompts and what stands after the colon of its spec."""

    usage: str
    fit: Callable[[Sequence[str], str], Encoder]
    open: Callable[[Path], Encoder]


def fit_encoder(spec: str, prompts: Sequence[str]) -> Encoder:
    """Make the encoder that `spec` asks for, fitted on the training prompts where its kind is fitted at all."""
    name = re.split("[:#]", spec, maxsplit=1)[0]
    argument = spec[len(name) :].removeprefix(":")
    if name not in KINDS:
        valid = ", ".join(kind.usage for kind in KINDS.values())
        raise EncoderError(f"no encoder is called {spec!r}; valid are {valid}")
    return KINDS[name].fit(prompts, argument)


def open_encoder(folder: Path) -> Encoder:
    """Bring back what an encoder's `save` wrote."""
    path = folder / "encoder.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise EncoderError(f"no encoder in {folder}: {error}") from error
    name = saved.get("kind") if isinstance(saved, dict) else None
    if not isinstance(name, str) or name not in KINDS:
        raise EncoderError(f"{path} is of kind {name!r}; this release knows {', '.join(KINDS)}")
    return KINDS[name].open(folder)


def _takes_no_path(what: str, argument: str, instead: str) -> None:
    if argument:
        raise EncoderError(f"{what} takes no path, got {argument!r}: say {instead}")


def _n_windows(argument: str) -> int:
    """How many windows of a long prompt to read, one where nothing is said."""
    asked = WINDOWS.search(argument)
    return int(asked[1]) if asked else 1


def _fit_lsa(prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.lsa import LsaEncoder

    _takes_no_path("the lsa encoder is fitted and", argument, "`lsa`")
    return LsaEncoder.fit(prompts)


def _open_lsa(folder: Path) -> Encoder:
    from router.encoder.lsa import LsaEncoder

    return LsaEncoder.open(folder)


def _load_llm2vec(_prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.llm2vec import Llm2VecEncoder

    if not argument:
        raise EncoderError("llm2vec needs the folder of a checkpoint: say `llm2vec:PATH`")
    return Llm2VecEncoder.load_here(Path(WINDOWS.sub("", argument)), _n_windows(argument))


def _open_llm2vec(folder: Path) -> Encoder:
    from router.encoder.llm2vec import Llm2VecEncoder

    return Llm2VecEncoder.open(folder)


def _load_bundled(_prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.bundled import BundledEncoder

    _takes_no_path("the bundled encoder", WINDOWS.sub("", argument), "`bundled`, or `llm2vec:PATH`")
    return BundledEncoder(n_windows=_n_windows(argument))


def _open_bundled(folder: Path) -> Encoder:
    from router.encoder.bundled import BundledEncoder

    return BundledEncoder.open(folder)


def _fit_joined(prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.joined import JoinedEncoder

    _takes_no_path("lsa+bundled", WINDOWS.sub("", argument), "`lsa+bundled`")
    return JoinedEncoder.fit(prompts, n_windows=_n_windows(argument))


def _open_joined(folder: Path) -> Encoder:
    from router.encoder.joined import JoinedEncoder

    return JoinedEncoder.open(folder)


def _load_remote(_prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.remote import RemoteEncoder

    return RemoteEncoder.load(argument)


def _open_remote(folder: Path) -> Encoder:
    from router.encoder.remote import RemoteEncoder

    return RemoteEncoder.open(folder)


def _load_sentence(_prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.sentence import SentenceEncoder

    if not argument:
        raise EncoderError("sentence needs the folder of a SentenceTransformer: say `sentence:PATH`")
    return SentenceEncoder.load(Path(argument))


def _fetch_sentence(_prompts: Sequence[str], argument: str) -> Encoder:
    from router.encoder.sentence import SentenceEncoder

    return SentenceEncoder.fetch(argument)


def _open_sentence(folder: Path) -> Encoder:
    from router.encoder.sentence import SentenceEncoder

    return SentenceEncoder.open(folder)


KINDS = {
    "lsa": Kind("lsa", _fit_lsa, _open_lsa),
    "bundled": Kind("bundled", _load_bundled, _open_bundled),
    "lsa+bundled": Kind("lsa+bundled", _fit_joined, _open_joined),
    "llm2vec": Kind("llm2vec:PATH", _load_llm2vec, _open_llm2vec),
    "sentence": Kind("sentence:PATH", _load_sentence, _open_sentence),
    "hub": Kind("hub:ORGANIZATION/NAME", _fetch_sentence, _open_sentence),
    "remote": Kind("remote:URL#MODEL", _load_remote, _open_remote),
}
