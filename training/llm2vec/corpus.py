"""What the encoder reads to learn language: training questions, the demo's kind of questions, installed documentation.

Of logs, the train split alone: validation and test questions stay unseen. Documentation is the docstrings of packages
that EmbedRouter itself depends on, each under a licence that allows it; nothing is fetched.
"""

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from random import Random

from data.demo.generate import generate
from training.errors import TrainingError

LICENCES = {
    "numpy": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "scikit-learn": "BSD-3-Clause",
    "pandas": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "networkx": "BSD-3-Clause",
}
MODULE_NAMES = {"scikit-learn": "sklearn"}
SHORTEST_PARAGRAPH = 80  # characters; shorter ones are headings and types
GENERATED_SEED = 7_001
DEMO_SEED = 1  # what the demo's unseen questions are drawn with
N_DEMO = 2_000  # more than the demo draws
HELD_OUT_OF = 50  # one text in so many is kept out, for the evaluation after each step
LEAST_HELD_OUT, MOST_HELD_OUT = 8, 400


@dataclass(frozen=True)
class Source:
    """Where texts come from, and under which licence."""

    name: str
    licence: str
    texts: tuple[str, ...]

    @property
    def n_characters(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from, and some that are only for evaluation."""

    sources: tuple[Source, ...]
    texts: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> "Corpus":
        """Join sources; TrainingError where they hold no text."""
        distinct = list(dict.fromkeys(text for source in sources for text in source.texts if text.strip()))
        if len(distinct) < 2 * LEAST_HELD_OUT:
            raise TrainingError(f"{len(distinct)} texts to learn from: too few; give more by --text")
        kept_out = [text for text in distinct if _draw(text) % HELD_OUT_OF == 0][:MOST_HELD_OUT]
        if len(kept_out) < LEAST_HELD_OUT:
            kept_out = sorted(distinct, key=_draw)[:LEAST_HELD_OUT]
        without = set(kept_out)
        texts = tuple(text for text in distinct if text not in without)
        return cls(tuple(sources), texts, tuple(kept_out))


def read_texts(path: Path) -> Source:
    """Read a long-format folder's train questions, or the paragraphs of a text file."""
    if (path / "questions.csv").is_file():
        return Source(path.name, "as the folder says", tuple(_train_questions(path / "questions.csv")))
    if path.is_file():
        return Source(path.name, "as the file says", tuple(_paragraphs(path.read_text(encoding="utf-8"))))
    raise TrainingError(f"{path} is neither a folder with questions.csv nor a text file")


def generated_questions(n_questions: int) -> Source:
    """Questions of the demo's kind, none of them one that the demo tests on."""
    unseen = {question.prompt for question in generate(N_DEMO, DEMO_SEED)}
    prompts = (question.prompt for question in generate(n_questions, GENERATED_SEED))
    return Source("generated questions", "Apache-2.0", tuple(p for p in prompts if p not in unseen))


def documentation(n_characters: int, seed: int = 0) -> list[Source]:
    """Docstring paragraphs of installed packages and of Python's library, an equal part of each."""
    roots = {f"{name} {version(name)}": (_folder(name), licence) for name, licence in LICENCES.items()}
    roots["Python's standard library"] = (Path(sysconfig.get_paths()["stdlib"]), "PSF-2.0")
    sources = []
    for name, (root, licence) in roots.items():
        paragraphs = sorted(set(_docstrings(root)))
        Random(seed).shuffle(paragraphs)
        sources.append(Source(name, licence, tuple(_first(paragraphs, n_characters // len(roots)))))
    return sources


def _train_questions(path: Path) -> list[str]:
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "split" not in table or "prompt" not in table:
        raise TrainingError(f"{path} lacks a prompt or a split column: without a split, test questions would be read")
    return [str(prompt) for prompt in table.loc[table["split"] == "train", "prompt"]]


def _folder(package: str) -> Path:
    found = find_spec(MODULE_NAMES.get(package, package))
    assert found is not None  # a dependency of ours
    assert found.origin is not None
    return Path(found.origin).parent


def _docstrings(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).parts
        if {"site-packages", "tests", "test", "idlelib", "lib2to3"} & set(inside):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from _paragraphs(ast.get_docstring(node) or "")


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"[ \t]+", " ", part).strip()
        if len(paragraph) >= SHORTEST_PARAGRAPH and not paragraph.startswith(">>>"):
            yield paragraph


def _first(texts: Sequence[str], n_characters: int) -> Iterator[str]:
    for text in texts:
        n_characters -= len(text)
        if n_characters < 0:
            return
        yield text


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big")


def digest_of(texts: Iterable[str]) -> str:
    """Name texts, in their order, by their content: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    return digest.hexdigest()[:16]
