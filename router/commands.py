"""The verbs of serving. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from router.settings import Settings

ConfigPath = Annotated[Path | None, typer.Option(help="config.yaml; default EMBEDROUTER_CONFIG or ./config.yaml.")]
Database = Annotated[str | None, typer.Option(help="Database URL; wins over the environment and config.yaml.")]


class PolicyChoice(StrEnum):
    """The policies, as an option."""

    quality = "quality"
    balanced = "balanced"
    cheapest = "cheapest"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; beyond loopback a key is needed.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, default 4141; 0 is any free one.")] = None,
    config: ConfigPath = None,
    database: Database = None,
    simulate_upstreams: Annotated[
        bool, typer.Option("--simulate-upstreams", help="Simulate an upstream for every model that has none.")
    ] = False,
) -> None:
    """Serve the router: an OpenAI-compatible endpoint that sends each prompt to the best model.

    Examples:

    `embedrouter serve`

    `embedrouter serve --simulate-upstreams --port 4141`
    """
    import logging
    from contextlib import ExitStack

    import uvicorn

    from data.database import ready_engine
    from router.app import create_app
    from router.listener import bind
    from router.settings import load_settings

    settings = load_settings(config)
    host, port = host or settings.server.host, settings.server.port if port is None else port
    settings.check_exposure(host)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("router").setLevel(logging.INFO)
    with ExitStack() as stack:
        engine = ready_engine(database or settings.database_url)
        stack.callback(engine.dispose)
        listener = stack.enter_context(bind(host, port))
        simulated = None
        if simulate_upstreams:
            from data.queries import pool_models
            from router.simulator import run_simulator

            names = dict.fromkeys([*(e.name for e in settings.pool), *(row.name for row in pool_models(engine))])
            simulated = stack.enter_context(run_simulator(list(names)))
        app = create_app(settings, engine, simulated_base_url=simulated)
        _greet(app.state.watch, settings, listener.getsockname(), simulated is not None)
        uvicorn.Server(
            uvicorn.Config(
                app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=30
            )
        ).run(sockets=[listener])


def _greet(watch: Any, settings: "Settings", address: tuple[Any, ...], simulated: bool) -> None:
    """Say where the service listens, what it routes with, and how to ask it."""
    url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
    artifact, pool = watch.current.artifact, watch.current.pool
    print(f"EmbedRouter listens on {url}")
    print(f"artifact: {artifact.id if artifact else watch.missing}")
    print(f"routable: {len(pool.routable)} of {len(pool.entries)} models{_some(e.name for e in pool.routable)}")
    if simulated:
        print("upstreams: SIMULATED for every model that has none; no LLM is asked. The demo's models (sim-*)")
        print("compute their answers to its kinds of question; any other answer is a text that says it is simulated")
    elif pool.entries and not pool.routable:
        print("no model can be called: give them upstreams in config.yaml or with `embedrouter models set`,")
        print("or try `embedrouter serve --simulate-upstreams`")
    if not settings.has_keys:
        print("keys: NONE, anyone on this machine may ask; set EMBEDROUTER_MASTER_KEY to require one")
    authorization = ' -H "authorization: Bearer $EMBEDROUTER_MASTER_KEY"' if settings.has_keys else ""
    question = '{"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 23?"}]}'
    print(f"try: curl {url}/v1/chat/completions -H 'content-type: application/json'{authorization} -d '{question}'")
    print("", end="", flush=True)


def _some(names: Any, n_shown: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - n_shown} more" if len(names) > n_shown else ""
    return f": {', '.join(names[:n_shown])}{more}" if names else ""


def route(
    prompt: Annotated[str, typer.Argument(help="The prompt to route.")],
    policy: Annotated[PolicyChoice | None, typer.Option(help="Instead of the configured policy.")] = None,
    min_p_correct: Annotated[float | None, typer.Option(help="What `cheapest` asks for at least.")] = None,
    usd_weight: Annotated[float | None, typer.Option("--lambda", help="What `balanced` charges for a dollar.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many candidates the table shows.")] = 15,
    config: ConfigPath = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Explain which model would answer a prompt, without calling any model.

    Examples:

    `embedrouter route "Prove that the square root of 2 is irrational."`

    `embedrouter route "Translate 'good morning' into French." --policy cheapest --min-p-correct 0.8 --json`
    """
    import json

    from data.database import ready_engine
    from router.champion import ChampionWatch
    from router.choice import explain
    from router.errors import ArtifactError
    from router.request import read_chat_request
    from router.settings import load_settings

    settings = load_settings(config)
    engine = ready_engine(database or settings.database_url)
    overrides = {"policy": policy, "min_p_correct": min_p_correct, "lambda": usd_weight}
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "embedrouter": overrides}
    request = read_chat_request(json.dumps(body).encode(), {}, settings.policy.policy())
    watch = ChampionWatch(engine, settings)
    current = watch.current
    engine.dispose()
    if current.artifact is None:
        raise ArtifactError(watch.missing)
    explanation = explain(request, "command-line", current.artifact, current.pool)
    if as_json:
        print(json.dumps(explanation))
    else:
        _print_explanation(explanation, top)


def _print_explanation(explanation: dict[str, Any], top: int) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    candidates, excluded = explanation["candidates"], explanation["excluded"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header, justify in (("", "right"), ("model", "left"), ("P(correct)", "right"), ("expected USD", "right")):
        table.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("USD/1M in, out", no_wrap=True)
    for rank, shown in enumerate(candidates[:top], start=1):
        table.add_row(
            str(rank),
            shown["model"],
            f"{shown['p_correct']:.3f}",
            _usd(shown["expected_cost_usd"]),
            f"{_usd(shown['usd_per_1m_input'])}, {_usd(shown['usd_per_1m_output'])}",
            style="bold" if rank == 1 else None,
        )
    console.print(table)
    if len(candidates) > top:
        console.print(f"and {len(candidates) - top} more; --top {len(candidates)} shows all")
    for shown in excluded[:top]:
        console.print(f"out: {shown['model']}: {shown['reason']}", markup=False)
    if len(excluded) > top:
        console.print(f"and {len(excluded) - top} more that are out; --json lists them")
    policy = explanation["policy"]["name"]
    setting = "".join(f" ({name} {value:g})" for name, value in list(explanation["policy"].items())[1:])
    if explanation["model"] is not None:
        console.print(f"\n{policy}{setting} chooses [bold]{explanation['model']}[/bold]")
    else:
        reasons = Counter(shown["reason"] for shown in candidates)
        why = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common())
        console.print(f"\n[bold]no model can be called[/bold] ({why}): ranked as if each could; serve would refuse")
    if explanation["note"]:
        console.print(f"note: {explanation['note']}", markup=False)
    console.print(f"artifact {explanation['artifact']}; about {explanation['input_tokens_estimate']} input tokens")


def _usd(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:.6f}".rstrip("0").rstrip(".") if amount else "0"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(serve)
    app.command()(route)
