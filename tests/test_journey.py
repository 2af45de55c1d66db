"""The journey on real logs, as the README tells it: import, train, route, serve, refuse worse logs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pandas as pd

from data.database import open_engine
from router.app import create_app
from router.loopback import serve_in_thread
from router.settings import Settings
from router.simulator import run_simulator

ROOT = Path(__file__).parents[1]
N_QUESTIONS = 700


def embedrouter(*arguments: str, cwd: Path) -> Any:
    """Run a verb in a folder of its own and read its JSON."""
    command = [sys.executable, str(ROOT / "embedrouter.py"), *arguments, "--json"]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def write_part(whole: Path, part: Path, *, flip: bool = False) -> Path:
    """A folder with some of a real log's questions; flipped, every second label is turned round."""
    part.mkdir()
    questions = pd.read_csv(whole / "questions.csv", keep_default_na=False).sample(N_QUESTIONS, random_state=0)
    questions.to_csv(part / "questions.csv", index=False)
    (part / "models.csv").write_bytes((whole / "models.csv").read_bytes())
    outcomes = pd.read_parquet(whole / "correctness.parquet")
    outcomes = outcomes[outcomes["question_id"].isin(questions["question_id"])].reset_index(drop=True)
    if flip:
        outcomes["label"] = outcomes["label"].where(outcomes.index % 2 == 0, 1 - outcomes["label"])
    outcomes.to_parquet(part / "correctness.parquet", index=False)
    return part


def test_real_logs_become_a_served_router_and_worse_logs_are_refused(shared_data: Path, tmp_path: Path) -> None:
    logs = write_part(shared_data / "zeroeval", tmp_path / "logs")
    imported = embedrouter("import", "long", str(logs), cwd=tmp_path)
    assert imported["n_new"] > 20_000
    trained = embedrouter("train", cwd=tmp_path)
    methods = trained["comparison"]["methods"]
    assert trained["promoted"]
    assert methods["embedrouter"]["nll"] < methods["model_mean"]["nll"]
    routed = embedrouter("route", "What is 17 * 23?", cwd=tmp_path)
    assert len(routed["candidates"]) >= 1
    assert routed["artifact"] == trained["artifact"]

    database_url = f"sqlite:///{tmp_path / 'var' / 'embedrouter.db'}"
    engine = open_engine(database_url)
    names = pd.read_csv(logs / "models.csv")["model_name"].tolist()
    settings = Settings(database_url=database_url, artifacts_dir=tmp_path / "var" / "artifacts")
    with (
        run_simulator(names) as upstream_url,
        serve_in_thread(create_app(settings, engine, simulated_base_url=upstream_url)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "What is 17 * 23?"}]
        )
    engine.dispose()
    assert answer.model == routed["candidates"][0]["model"]

    worse = write_part(shared_data / "zeroeval", tmp_path / "worse", flip=True)
    embedrouter("import", "long", str(worse), "--source", "long:worse", cwd=tmp_path)
    retrained = embedrouter("jobs", "run", "retrain", cwd=tmp_path)
    assert retrained["status"] == "refused"
    assert any("long:worse" in reason for reason in retrained["reasons"])
