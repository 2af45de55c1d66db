"""What each step of the LLM2Vec recipe brings: forecasts and likeness after random weights, after causal training,
bidirectional attention, MNTP, SimCSE, crops, topics, whitening, and learning from outcomes.

    python -m tests.benchmarks.bench_llm2vec_steps PATH --work DIR [--text PATH ...] [--minutes 10]

PATH: a long-format folder. `embedrouter llm2vec bundle` makes a small encoder in DIR, and each step's checkpoint
encodes the train and val questions; the test questions are not read. Interrupted, run it again and it goes on.

Forecasts are cross-fitted over near-duplicate groups. Outcomes are learned from twice: by one encoder on one half of
the questions, by another on the other half (a sixth more minutes), and each is judged on forecasts fitted, and made, on
the half that it did not learn from. The last table compares that with the step before, fitted on the same half, and
with LSA fitted on all. Differences are paired, with 95% intervals by bootstrap over near-duplicate groups.

Likeness: average precision of the centred cosine in telling pairs of near-duplicates from two hundred times as many
random ones of the same half. Near-duplicates are found by shared words, so that encoders of words have it easy here.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.importers.long import read_folder
from router.encoder.base import Vectors
from router.encoder.checkpoint import Pooling
from router.encoder.lsa import LsaEncoder
from tests.benchmarks.cross_fitted import Floats, Forecasts, beside, cross_fit
from tests.benchmarks.near_duplicates import Pairs
from training.dataset import Correctness
from training.folds import deal_folds
from training.llm2vec.bundle import bundle
from training.llm2vec.checkpoint_folders import open_model, open_tokenizer
from training.llm2vec.outcomes import Answered
from training.llm2vec.recipe import SERVED_TOKENS, Settings, Steps
from training.llm2vec.similarity import encode_texts
from training.llm2vec.tokenizer import pad_token_of
from training.llm2vec.whitening import whiten
from training.metrics import interval

SHARE = 0.3  # of a step's vectors beside LSA's
POWER = 0.7  # of the whitening
N_APART = 200  # random pairs for each of near-duplicates
UNSUPERVISED = ("random", "causal", "bidirectional", "mntp", "simcse", "crops", "topics")
LAST = UNSUPERVISED[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for the encoders")
    parser.add_argument("--text", type=Path, action="append", default=[], help="more to learn language from")
    parser.add_argument("--minutes", type=float, default=10, help="of the recipe on one half of the outcomes")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=6,
        metavar=("CAUSAL", "MNTP", "SIMCSE", "CROPS", "TOPICS", "OUTCOMES"),
        help="instead of minutes",
    )
    parser.add_argument("--max-tokens", type=int, default=SERVED_TOKENS, help="of a question that is encoded")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = Correctness.from_log(read_folder(arguments.path))
    data = data.rows(np.flatnonzero(data.split != "test"))
    halves = deal_folds(data.groups, 2, seed=0)
    texts = [arguments.path, *arguments.text]
    steps = Steps(*arguments.steps) if arguments.steps else None
    works = make_encoders(data, halves, arguments.work, texts, arguments.minutes, steps)
    vectors = encode_steps(data, halves, works, arguments.work / "vectors", arguments.max_tokens)
    of_words = LsaEncoder.fit([data.prompts[row] for row in data.part("train")]).encode(data.prompts)
    compare(data, halves, of_words, vectors)


def make_encoders(
    data: Correctness,
    halves: NDArray[np.int64],
    work: Path,
    texts: Sequence[Path],
    minutes: float,
    steps: Steps | None = None,
) -> list[Path]:
    """Run the recipe; the folders of the two encoders' steps, which share all steps but the last."""
    folders = [work / f"half {half}" for half in range(2)]
    answered = [Answered.of(data.rows(np.flatnonzero(halves == half))) for half in range(2)]
    first = bundle(folders[0], texts=texts, answered=answered[0], minutes=minutes, steps=steps)
    for name in ("start", *UNSUPERVISED):
        copy = folders[1] / "work" / name
        if not copy.is_dir():
            unfinished = shutil.copytree(folders[0] / "work" / name, copy.with_suffix(".tmp"), dirs_exist_ok=True)
            Path(unfinished).rename(copy)
    other = bundle(folders[1], texts=texts, answered=answered[1], steps=Steps(**first["steps"]))
    print_losses({**first["stages"], "outcomes, the other half": other["stages"]["outcomes"]})
    return [folder / "work" for folder in folders]


def print_losses(stages: dict[str, dict[str, float]]) -> None:
    """Print how each step's loss fell, and what it is worth on held-out texts."""
    print(f"\n{'step':<28}{'steps':>7}   loss, first and last tenth   masked tokens   copy found     AUC")
    for name, row in stages.items():
        curve = f"{row['loss_first']:.3f} to {row['loss_last']:.3f}" if "loss_first" in row else ""
        shown = f"{row['masked_loss']:>16.3f}{row['found']:>13.3f}{row['auc']:>8.4f}"
        print(f"{name:<28}{row['n_steps']:>7}   {curve:<26}{shown}")


def encode_steps(
    data: Correctness, halves: NDArray[np.int64], works: Sequence[Path], kept: Path, max_tokens: int
) -> dict[str, Vectors]:
    """Encode all questions by each step's checkpoint, kept on disk as they are made.

    Of the last step every question is encoded by the encoder that did not learn from its half.
    """
    vectors: dict[str, Vectors] = {}
    start = works[0] / "start"
    vectors |= _kept(kept, {"random weights": "mean"}, _randomized(start), start, data.prompts, max_tokens)
    for name in UNSUPERVISED:
        title = "latent token embeddings" if name == "random" else name
        poolings: dict[str, Pooling] = {title: "mean"}
        if name == "causal":
            poolings = {"causal, last token": "last", "causal, mean": "mean"}
        folder = works[0] / name / "model"
        vectors |= _kept(kept, poolings, open_model(folder, "cpu"), folder, data.prompts, max_tokens)
    outcomes = np.zeros_like(vectors[LAST])
    for half, work in enumerate(works):
        rows = np.flatnonzero(halves != half)
        folder = work / "outcomes" / "model"
        title = f"outcomes of half {half}"
        prompts = [data.prompts[row] for row in rows]
        model = open_model(folder, "cpu")
        outcomes[rows] = _kept(kept, {title: "mean"}, model, folder, prompts, max_tokens)[title]
    whitened = whiten(vectors[LAST][data.part("train")], POWER)(vectors[LAST])
    return vectors | {"whitened": whitened, "outcomes": outcomes, "outcomes, whitened": _by_half(outcomes, halves)}


def _by_half(vectors: Vectors, halves: NDArray[np.int64]) -> Vectors:
    """Whiten each half by itself: another encoder made it."""
    whitened = np.zeros_like(vectors)
    for half in np.unique(halves):
        whitened[halves == half] = whiten(vectors[halves == half], POWER)(vectors[halves == half])
    return whitened


def _randomized(start: Path) -> Any:
    """A model whose token embeddings are drawn too, as all its other weights are at the start."""
    model = open_model(start, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=model.config.initializer_range)
    return model


def _kept(
    folder: Path,
    poolings: dict[str, Pooling],
    model: Any,
    tokenizer_folder: Path,
    prompts: Sequence[str],
    max_tokens: int,
) -> dict[str, Vectors]:
    paths = {title: folder / f"{title}.npy" for title in poolings}
    if not all(path.is_file() for path in paths.values()):
        tokenizer = open_tokenizer(tokenizer_folder)
        ways = list(poolings.values())
        made = encode_texts(model, tokenizer, prompts, ways, max_tokens, pad_token_of(tokenizer))
        folder.mkdir(exist_ok=True)
        for path, of_all in zip(paths.values(), made, strict=True):
            np.save(path, of_all)
    return {title: np.load(path) for title, path in paths.items()}


def compare(data: Correctness, halves: NDArray[np.int64], of_words: Vectors, vectors: dict[str, Vectors]) -> None:
    """Print the tables."""
    print(f"\n{data.n_questions:,} questions, {data.n_models} models; {Settings().shape}", flush=True)
    print_likeness(data, halves, {"lsa": of_words, **vectors})
    unsupervised = {name: of for name, of in vectors.items() if not name.startswith("outcomes")}
    alone = {"lsa": cross_fit(data, of_words)}
    alone |= {name: cross_fit(data, of) for name, of in unsupervised.items()}
    print("\n" + Forecasts(data, alone).table("lsa", "alone"), flush=True)
    joined = {f"lsa + {name}": beside(of_words, of, SHARE) for name, of in unsupervised.items()}
    both = {"lsa": alone["lsa"]} | {name: cross_fit(data, of) for name, of in joined.items()}
    print("\n" + Forecasts(data, both).table("lsa", "beside LSA"), flush=True)
    in_halves = {"lsa": cross_fit_in_halves(data, halves, of_words)}
    last = (LAST, "whitened", "outcomes", "outcomes, whitened")
    in_halves |= {name: cross_fit_in_halves(data, halves, vectors[name]) for name in last}
    for name in last:
        in_halves[f"lsa + {name}"] = cross_fit_in_halves(data, halves, vectors[name], beside_words=of_words)
    for name in ("lsa", "lsa + whitened"):
        in_halves[f"{name}, fitted on all"] = both[name]
    for against in ("lsa", LAST, "whitened", "lsa + whitened"):
        print("\n" + Forecasts(data, in_halves).table(against, "fitted on one half"), flush=True)


def cross_fit_in_halves(
    data: Correctness, halves: NDArray[np.int64], vectors: Vectors, beside_words: Vectors | None = None
) -> Floats:
    """Forecast each half by scorers fitted on the rest of that half; (n_questions, n_models)."""
    p = np.zeros(data.label.shape)
    for half in np.unique(halves):
        rows = np.flatnonzero(halves == half)
        of = vectors[rows] if beside_words is None else beside(beside_words[rows], vectors[rows], SHARE)
        p[rows] = cross_fit(data.rows(rows), of)
    return p


def print_likeness(data: Correctness, halves: NDArray[np.int64], vectors: dict[str, Vectors]) -> None:
    """Print how well near-duplicates are told from random pairs."""
    pairs = Pairs.draw(data.groups, halves, N_APART)
    print(f"\nnear-duplicates: {pairs.alike.sum():,} pairs among {len(pairs.alike):,}")
    print(f"{'':<30}average precision   less the last unsupervised step's")
    cosines: dict[str, Floats] = {}
    for name, of in vectors.items():
        centred = of.copy()
        for half in np.unique(halves):
            centred[halves == half] -= of[halves == half].mean(axis=0)
        cosines[name] = pairs.cosines(centred)
    samples = {name: pairs.resampled(of, data.groups) for name, of in cosines.items()}
    for name, cosine in cosines.items():
        low, high = interval(samples[name])
        least, most = interval(samples[name] - samples[LAST])
        precision = pairs.average_precision(cosine)
        less = precision - pairs.average_precision(cosines[LAST])
        print(f"{name:<30}{precision:.3f} ({low:.3f} to {high:.3f})   {less:+.3f} ({least:+.3f} to {most:+.3f})")


if __name__ == "__main__":
    main()
