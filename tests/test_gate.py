"""What the gate lets through, on planted logs in both databases."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from data import promotions, queries, store
from data.database import open_engine, upgrade
from data.errors import EmbedRouterError
from data.log import CorrectnessLog
from data.queries import RepeatRate
from router.artifact import Artifact, Manifest, write_artifact
from router.encoder.lsa import LsaEncoder
from tests.planted import planted_log
from tests.stored import flip, pick, relabel, store_log
from training.alternation import FitSettings
from training.dataset import Correctness
from training.fit import fit_scorer
from training.gate import judge, no_worse_as_it_stood, promote_through_gate
from training.held_out import mean_and_error
from training.metrics import Cells
from training.suspicion import contradicting_labels
from training.train import train

LOG = planted_log(400, 5).log
FIRST, LATER = np.arange(260), np.arange(260, 400)
QUICK = FitSettings(noises=(1.0,), n_folds=2)


@dataclass(frozen=True)
class Workshop:
    """A database, a place for artifacts, and the champion that the first part of the log made."""

    engine: Engine
    root: Path
    champion: Artifact

    def fit(self, *, models: Sequence[str] | None = None, seed: int = 0) -> Artifact:
        return fitted(self.engine, self.root, models=models, seed=seed)


def fitted(engine: Engine, root: Path, *, models: Sequence[str] | None = None, seed: int = 0) -> Artifact:
    """A real artifact of the logs as they are, without the comparison that the gate does not read."""
    log = queries.read_log(engine)
    if models is not None:
        wanted = np.flatnonzero(log.models["model_name"].isin(models))
        log = replace(log, cells=log.cells[log.cells["model"].isin(wanted)])
    data = Correctness.from_log(log)
    encoder = LsaEncoder.fit([data.prompts[row] for row in data.part("train")])
    scorer = fit_scorer(data, encoder.encode(data.prompts), seed, QUICK).scorer
    manifest = Manifest(
        model_names=data.model_names,
        expected_output_tokens=(None,) * data.n_models,
        encoder="lsa",
        encoder_fingerprint=encoder.fingerprint,
        data_fingerprint=data.fingerprint(),
        outcome_watermark=data.watermark,
        seed=seed,
        metrics={},
    )
    artifact = write_artifact(root, manifest, scorer, encoder)
    register(engine, artifact)
    return artifact


def register(engine: Engine, artifact: Artifact) -> None:
    manifest = artifact.manifest
    promotions.add_artifact(
        engine,
        artifact.id,
        path=str(artifact.folder),
        encoder_fingerprint=manifest.encoder_fingerprint,
        data_fingerprint=manifest.data_fingerprint,
        outcome_watermark=manifest.outcome_watermark,
        metrics={},
    )


def overconfident(workshop: Workshop) -> Artifact:
    """The champion, had its calibration gone wrong."""
    scorer = replace(workshop.champion.scorer, slope=5 * workshop.champion.scorer.slope)
    worse = write_artifact(workshop.root, workshop.champion.manifest, scorer, workshop.champion.encoder)
    register(workshop.engine, worse)
    return worse


@pytest.fixture(scope="module")
def first_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """What the first part of the log makes, on any database."""
    folder = tmp_path_factory.mktemp("first")
    engine = open_engine(f"sqlite:///{folder / 'logs.db'}")
    upgrade(engine)
    store_log(engine, pick(LOG, FIRST), "first")
    artifact = fitted(engine, folder / "artifacts")
    engine.dispose()
    return artifact


@pytest.fixture
def workshop(engine: Engine, tmp_path: Path, first_artifact: Artifact) -> Workshop:
    store_log(engine, pick(LOG, FIRST), "first")
    assert queries.read_log(engine).watermark == first_artifact.manifest.outcome_watermark
    register(engine, first_artifact)
    assert promote_through_gate(engine, first_artifact, "train").promote
    return Workshop(engine, tmp_path / "artifacts", first_artifact)


def champion_id(engine: Engine) -> str | None:
    row = queries.champion(engine)
    return None if row is None else row.artifact_id


def test_the_first_artifact_is_promoted_at_once(workshop: Workshop) -> None:
    row = queries.champion(workshop.engine)
    assert row is not None
    assert (row.artifact_id, row.kind, row.parent_id) == (workshop.champion.id, "train", None)
    assert "no champion" in row.reason


def test_more_honest_logs_promote_the_challenger(workshop: Workshop) -> None:
    store_log(workshop.engine, pick(LOG, LATER), "later")
    challenger = workshop.fit()
    verdict = promote_through_gate(workshop.engine, challenger, "retrain")
    assert verdict.promote, verdict.reasons
    assert champion_id(workshop.engine) == challenger.id
    assert verdict.figures["since"]["challenger_nll"] < verdict.figures["since"]["model_mean_nll"]
    gate = next(row.gate for row in queries.artifacts(workshop.engine) if row.id == challenger.id)
    assert gate is not None
    assert (gate["promote"], gate["champion"], gate["kind"]) == (True, workshop.champion.id, "retrain")


def test_an_equal_challenger_is_promoted(workshop: Workshop) -> None:
    equal = write_artifact(
        workshop.root,
        workshop.champion.manifest.model_copy(update={"seed": 99}),
        workshop.champion.scorer,
        workshop.champion.encoder,
    )
    register(workshop.engine, equal)
    verdict = promote_through_gate(workshop.engine, equal, "retrain")
    assert verdict.promote
    assert "no difference" in verdict.reasons[0]
    assert champion_id(workshop.engine) == equal.id != workshop.champion.id


def test_the_champion_itself_stays_champion_without_another_promotion(workshop: Workshop) -> None:
    before = queries.champion(workshop.engine)
    assert promote_through_gate(workshop.engine, workshop.champion, "retrain").promote
    assert queries.champion(workshop.engine) == before


def test_a_worse_challenger_is_refused_with_both_figures(workshop: Workshop) -> None:
    worse = overconfident(workshop)
    verdict = promote_through_gate(workshop.engine, worse, "retrain")
    assert not verdict.promote
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith("held-out NLL ")
    assert "more than its standard error" in verdict.reasons[0]
    assert champion_id(workshop.engine) == workshop.champion.id


def test_a_challenger_that_lost_a_model_is_refused_with_its_name(workshop: Workshop) -> None:
    known = workshop.champion.model_names
    verdict = judge(workshop.engine, workshop.fit(models=known[:-1]), workshop.champion)
    assert not verdict.promote
    assert any(known[-1] in reason and "does not know" in reason for reason in verdict.reasons)


def test_a_lost_model_that_is_retired_is_no_loss(workshop: Workshop) -> None:
    known = workshop.champion.model_names
    store.set_model(workshop.engine, known[-1], retired=True)
    verdict = judge(workshop.engine, workshop.fit(models=known[:-1]), workshop.champion)
    assert verdict.figures["models"] == {"passed": True, "lost": []}


def test_half_of_the_labels_flipped_is_refused_and_the_import_is_named(workshop: Workshop) -> None:
    store_log(workshop.engine, flip(pick(LOG, FIRST), 0.5), "long:flipped")
    verdict = promote_through_gate(workshop.engine, workshop.fit(), "retrain")
    assert not verdict.promote
    accusation = next(reason for reason in verdict.reasons if "long:flipped" in reason)
    counted = next(one for one in verdict.figures["contradictions"]["sources"] if one["source"] == "long:flipped")
    assert counted["n_pairs"] == len(FIRST) * 5
    assert 0.45 < counted["n_contradicting"] / counted["n_pairs"] < 0.55
    assert f"{counted['n_contradicting']:,} of 1,300" in accusation
    assert all(f"{model} " in accusation for model in workshop.champion.model_names)
    assert champion_id(workshop.engine) == workshop.champion.id


def test_flipped_labels_of_questions_never_seen_are_refused_too(workshop: Workshop) -> None:
    store_log(workshop.engine, flip(pick(LOG, LATER), 0.5), "long:noise")
    verdict = judge(workshop.engine, workshop.fit(), workshop.champion)
    assert verdict.figures["contradictions"]["n_pairs"] == 0
    assert not verdict.figures["unlikely_labels"]["passed"]
    assert any("source long:noise" in reason and "coin toss" in reason for reason in verdict.reasons)


def test_one_model_inverted_on_questions_never_seen_is_found_by_its_name(workshop: Workshop) -> None:
    later = pick(LOG, LATER)
    inverted = np.where(later.cells["model"] == 2, 1 - later.cells["label"], later.cells["label"])
    store_log(workshop.engine, relabel(later, inverted), "long:later")
    verdict = judge(workshop.engine, workshop.fit(), workshop.champion)
    assert [one["what"] for one in verdict.figures["unlikely_labels"]["suspects"]] == ["model model-2"]


def test_a_benchmark_that_the_champion_does_not_know_may_go_against_it(workshop: Workshop) -> None:
    foreign = pick(LOG, LATER)
    questions = foreign.questions.assign(benchmark="a new one")
    turned = CorrectnessLog(questions, foreign.models, foreign.cells.assign(label=1 - foreign.cells["label"]))
    store_log(workshop.engine, turned, "long:new")
    verdict = judge(workshop.engine, workshop.fit(), workshop.champion)
    assert verdict.figures["unlikely_labels"]["passed"]


def test_another_honest_run_of_the_same_models_is_no_contradiction(workshop: Workshop) -> None:
    store_log(workshop.engine, flip(pick(LOG, FIRST), 0.03, seed=1), "second run")
    verdict = judge(workshop.engine, workshop.fit(), workshop.champion)
    assert verdict.figures["contradictions"]["passed"], verdict.reasons
    assert verdict.figures["contradictions"]["n_pairs"] == 1300


def test_a_promotion_in_between_has_the_challenger_judged_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two retrains at once: the one that comes second meets the new champion, not the one it was first judged by."""
    store_log(workshop.engine, pick(LOG, LATER), "later")
    contenders = [workshop.fit(seed=seed) for seed in (1, 2)]
    both_judged = threading.Barrier(2, timeout=60)
    promote_over = promotions.promote_over
    judged_against: list[int | None] = []

    def promote_together(engine: Engine, artifact_id: str, over: int | None, kind: str, reason: str) -> bool:
        if len(judged_against) < 2:
            judged_against.append(over)
            both_judged.wait()
        else:
            judged_against.append(over)
        return promote_over(engine, artifact_id, over, kind, reason)

    monkeypatch.setattr(promotions, "promote_over", promote_together)
    threads = [
        threading.Thread(target=promote_through_gate, args=(workshop.engine, contender, "retrain"))
        for contender in contenders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    gates = {row.id: row.gate for row in queries.artifacts(workshop.engine)}
    opponents = {gates[contender.id]["champion"] for contender in contenders}  # type: ignore[index]
    assert workshop.champion.id in opponents
    assert len(opponents) == 2, "one was judged again, against the other"
    assert judged_against[0] == judged_against[1]


def test_rolling_back_twice_goes_two_champions_back(workshop: Workshop) -> None:
    others = [workshop.fit(seed=seed) for seed in (1, 2)]
    for other in others:
        promotions.promote(workshop.engine, other.id, "manual", "a test")
    assert promotions.rollback(workshop.engine, "once").artifact_id == others[0].id
    assert promotions.rollback(workshop.engine, "twice").artifact_id == workshop.champion.id
    with pytest.raises(EmbedRouterError, match="nothing to roll back to"):
        promotions.rollback(workshop.engine, "thrice")
    assert champion_id(workshop.engine) == workshop.champion.id


def test_promote_over_changes_nothing_when_the_champion_is_another(workshop: Workshop) -> None:
    other = workshop.fit(seed=1)
    assert not promotions.promote_over(workshop.engine, other.id, None, "retrain", "late")
    assert champion_id(workshop.engine) == workshop.champion.id


def cells_with(p: Sequence[float]) -> Cells:
    return Cells(np.arange(len(p)), np.ones(len(p)), np.array(p), len(p))


def test_a_difference_of_exactly_its_standard_error_passes() -> None:
    # losses differ by (0, 2 d) on two questions: mean d, standard error sqrt(2 (d^2 + d^2)) / 2 = d
    champion, challenger = cells_with([0.5, 0.5]), cells_with([0.5, 0.25])
    finding = no_worse_as_it_stood(challenger, champion, np.arange(2))
    assert finding.figures["difference"] == pytest.approx(np.log(2) / 2)
    assert finding.figures["standard_error"] == pytest.approx(np.log(2) / 2)
    three = no_worse_as_it_stood(cells_with([0.5, 0.25, 0.25]), cells_with([0.5] * 3), np.arange(3))
    assert not three.passed


@pytest.mark.parametrize(("p", "passed", "said"), [(0.6, True, "better by"), (0.4, False, "worse by")])
def test_a_single_group_of_near_duplicates_has_no_error_and_says_so(p: float, passed: bool, said: str) -> None:
    finding = no_worse_as_it_stood(cells_with([p, p]), cells_with([0.5, 0.5]), np.array([7, 7]))
    assert (finding.passed, finding.figures["standard_error"]) == (passed, None)
    assert said in finding.sentence
    assert "from one group of near-duplicate questions no standard error can be told" in finding.sentence
    assert "nan" not in finding.sentence


def test_one_question_added_since_has_no_error_either(workshop: Workshop) -> None:
    test = np.flatnonzero(LOG.questions["split"] == "test")
    store_log(workshop.engine, pick(LOG, test[test >= len(FIRST)][:1]), "one question")
    verdict = judge(workshop.engine, workshop.fit(), workshop.champion)
    assert verdict.figures["since"]["standard_error"] is None
    assert any("(1 questions) added since" in reason for reason in verdict.reasons)
    assert "nan" not in " ".join(verdict.reasons)


def test_without_a_held_out_outcome_nothing_shows_that_a_challenger_is_no_worse() -> None:
    none = Cells(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), 0)
    assert not no_worse_as_it_stood(none, none, np.zeros(0, np.int64)).passed


def test_copies_of_a_question_do_not_shrink_the_standard_error() -> None:
    values = np.array([0.0, 1.0, 0.5, 2.0])
    _, once = mean_and_error(values, np.arange(4))
    _, copied = mean_and_error(np.repeat(values, 10), np.repeat(np.arange(4), 10))
    assert once == pytest.approx(np.std(values, ddof=1) / 2)
    assert copied == pytest.approx(once)


def added(n_pairs: int, n_contradicting: int, source: str = "s", model: str = "m", first: int = 0) -> pd.DataFrame:
    """Pairs of one model that were right before, of which some are wrong now."""
    right = (np.arange(n_pairs) >= n_contradicting).astype(int)
    fields = {"source": source, "benchmark": "b", "group": 0, "model_name": model, "n": 1, "n_right": right}
    return pd.DataFrame({"question": first + np.arange(n_pairs), **fields, "n_earlier": 1, "n_earlier_right": 1})


NO_REPEATS = RepeatRate(0, 0)


@pytest.mark.parametrize(("n_contradicting", "passed"), [(8, True), (10, False)])
def test_contradictions_are_tested_against_four_percent_where_nothing_repeats(
    n_contradicting: int, passed: bool
) -> None:
    # Binomial(100, 0.04): P(X >= 9) = 0.019, P(X >= 10) = 0.0068
    assert contradicting_labels(added(100, n_contradicting), NO_REPEATS).passed is passed


def test_logs_that_contradict_themselves_excuse_contradictions() -> None:
    noisy = RepeatRate(1000, 300.0)
    finding = contradicting_labels(added(100, 30), noisy)
    assert finding.passed
    assert finding.figures["usual_rate"] == pytest.approx((300 + 0.04 * 50) / 1050)


def test_logs_that_never_contradict_themselves_excuse_little() -> None:
    assert not contradicting_labels(added(100, 5), RepeatRate(5000, 0.0)).passed


def test_fewer_than_twenty_pairs_prove_nothing() -> None:
    assert contradicting_labels(added(19, 19), NO_REPEATS).passed


def test_a_bad_log_split_over_many_sources_is_found_in_their_sum() -> None:
    parts = [added(10, 5, source=f"part {i}", first=10 * i) for i in range(8)]
    finding = contradicting_labels(pd.concat(parts, ignore_index=True), NO_REPEATS)
    assert not finding.passed
    assert "all sources together" in finding.sentence
    assert "40 of 80" in finding.sentence


def test_one_model_turned_round_in_a_large_log_is_found_by_its_name() -> None:
    honest = [added(100, 2, model=f"honest {i}") for i in range(30)]
    finding = contradicting_labels(pd.concat([*honest, added(40, 40, model="turned")], ignore_index=True), NO_REPEATS)
    assert not finding.passed
    assert finding.sentence.startswith("labels of model turned contradict")


def test_labels_of_one_import_that_contradict_each_other_count() -> None:
    twice = added(30, 0).assign(n=2, n_right=1, n_earlier=0, n_earlier_right=0)
    finding = contradicting_labels(twice, NO_REPEATS)
    assert not finding.passed
    assert "30 of 30" in finding.sentence


def test_no_added_label_on_a_known_pair_passes_and_says_so() -> None:
    finding = contradicting_labels(added(0, 0), NO_REPEATS)
    assert finding.passed
    assert "no label was added" in finding.sentence


def test_additions_stand_beside_what_was_known_before(engine: Engine) -> None:
    log = pick(planted_log(40, 2).log, np.arange(40))
    ones = relabel(log, np.ones(len(log.cells)))
    store_log(engine, ones, "a")
    before = queries.read_log(engine).watermark
    store_log(engine, relabel(pick(ones, np.arange(3)), np.zeros(6)), "b")
    seen = queries.additions(engine, before)
    assert (
        seen[["source", "n", "n_right", "n_earlier", "n_earlier_right"]].to_numpy().tolist() == [["b", 1, 0, 1, 1]] * 6
    )
    assert queries.additions(engine, before, before).empty
    everything = queries.additions(engine, 0)
    assert (everything["n_earlier"] == 0).all()
    assert len(everything) == 86


def test_repeats_disagree_by_the_share_of_their_pairs(engine: Engine) -> None:
    log = pick(planted_log(40, 2).log, np.arange(1))
    for source, label in (("a", 1.0), ("b", 1.0), ("c", 0.0)):
        store_log(engine, relabel(log, np.full(2, label)), source)
    repeats = queries.repeat_rate(engine)
    assert repeats.n_pairs == 2
    assert repeats.n_disagreeing == pytest.approx(2 * 2 / 3)


def test_a_model_in_the_logs_since_is_judged_against_model_mean_alone(workshop: Workshop) -> None:
    later = pick(LOG, LATER)
    newcomer = later.models.assign(model_name=[f"new-{name}" for name in later.models["model_name"]])
    store_log(workshop.engine, CorrectnessLog(later.questions, newcomer, later.cells), "newcomers")
    challenger = workshop.fit()
    verdict = judge(workshop.engine, challenger, workshop.champion)
    assert set(challenger.model_names) > set(workshop.champion.model_names)
    assert verdict.figures["since"]["n_cells"] == int((later.questions["split"] == "test").sum()) * 5
    assert verdict.figures["as_it_stood"]["n_cells"] == int((LOG.questions["split"][:260] == "test").sum()) * 5


def test_train_and_gate_fit_together(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, pick(LOG, FIRST), "first")
    trained = train(sqlite_engine, tmp_path)
    assert promote_through_gate(sqlite_engine, trained.artifact, "train").promote
    assert champion_id(sqlite_engine) == trained.artifact.id


def outdated(workshop: Workshop) -> Artifact:
    """A champion that an earlier release wrote, of the logs as they are."""
    artifact = workshop.fit(seed=1)
    promotions.promote(workshop.engine, artifact.id, "manual", "by a test")
    manifest = artifact.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 1'))
    return artifact


def test_a_champion_of_an_earlier_format_is_replaced_and_named(workshop: Workshop) -> None:
    old = outdated(workshop)
    store_log(workshop.engine, pick(LOG, LATER), "later")
    challenger = workshop.fit()
    verdict = promote_through_gate(workshop.engine, challenger, "train")
    assert verdict.promote
    assert verdict.reasons[0].startswith("there is no comparable champion: ")
    assert f"{old.id} has format version 1, this release reads 2" in verdict.reasons[0]
    assert set(verdict.figures) == {"champion", "since", "contradictions"}
    assert champion_id(workshop.engine) == challenger.id
    gate = next(row.gate for row in queries.artifacts(workshop.engine) if row.id == challenger.id)
    assert gate is not None
    assert gate["champion"] == old.id


def test_without_a_comparable_champion_contradicting_labels_are_refused_all_the_same(workshop: Workshop) -> None:
    old = outdated(workshop)
    store_log(workshop.engine, flip(pick(LOG, FIRST), 1.0), "contradicting")
    verdict = promote_through_gate(workshop.engine, workshop.fit(), "train")
    assert not verdict.promote
    assert not verdict.figures["contradictions"]["passed"]
    assert champion_id(workshop.engine) == old.id
