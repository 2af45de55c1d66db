"""The verbs of serving. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router import explain_commands

if TYPE_CHECKING:
    from router.settings import Settings

ConfigPath = Annotated[Path | None, typer.Option(help="config.yaml; default EMBEDROUTER_CONFIG or ./config.yaml.")]
Database = Annotated[str | None, typer.Option(help="Database URL; wins over the environment and config.yaml.")]
GARBAGE_EVERY = 20_000  # objects, a few megabytes; the interpreter's own 700 come with every few requests


class PolicyChoice(StrEnum):
    """The policies, as an option."""

    quality = "quality"
    balanced = "balanced"
    cheapest = "cheapest"
    fixed = "fixed"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; beyond loopback a key is needed.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, default 4141; 0 is any free one.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /metrics on loopback, default the next after --port.")
    ] = None,
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
    import gc
    from contextlib import ExitStack

    import uvicorn
    from threadpoolctl import threadpool_limits

    from router.admin import create_admin
    from router.app import create_app
    from router.interrupts import HeldInterrupts
    from router.joined_head import JoinedHeadProtocol
    from router.listener import bind
    from router.logs import configure_logs, secrets_of
    from router.loopback import serve_in_thread
    from router.settings import load_settings
    from router.start import serving_engine, simulated_models

    settings = load_settings(config)
    host, port = host or settings.server.host, settings.server.port if port is None else port
    settings.check_exposure(host)
    secrets = secrets_of(settings)
    configure_logs(settings.logs, secrets)
    with ExitStack() as stack:
        engine = serving_engine(settings, database)
        stack.callback(engine.dispose)
        listener = stack.enter_context(bind(host, port))
        admin_port = settings.server.admin_port if admin_port is None else admin_port
        if admin_port is None:
            admin_port = port + 1 if 0 < port < 65535 else 0
        interrupts = stack.enter_context(HeldInterrupts())
        simulated = None
        if simulate_upstreams:
            from router.simulator import run_simulator

            simulated = stack.enter_context(run_simulator(simulated_models(settings, engine)))
        app = create_app(settings, engine, simulated_base_url=simulated, secrets=secrets)
        admin_url = stack.enter_context(serve_in_thread(create_admin(app.state.metrics), admin_port, "--admin-port"))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                log_level="warning",
                http=JoinedHeadProtocol,
                ws="none",
                server_header=False,
                proxy_headers=False,  # nothing here asks where a client is
                timeout_graceful_shutdown=30,
            )
        )
        interrupts.stop(server)
        # one prompt's products are too small to share between cores: who waits for a core waits longer than it works
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        gc.collect()
        gc.freeze()  # libraries and artifact stay: searching them for garbage would take a tenth of the time
        gc.set_threshold(GARBAGE_EVERY)
        _greet(app.state.watch, settings, listener.getsockname(), admin_url, simulated is not None)
        server.run(sockets=[listener])


def _greet(watch: Any, settings: "Settings", address: tuple[Any, ...], admin_url: str, simulated: bool) -> None:
    """Say where the service listens, what it routes with, and how to ask it."""
    url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
    artifact, pool = watch.current.artifact, watch.current.pool
    print(f"EmbedRouter listens on {url}")
    print(f"metrics: {admin_url}/metrics")
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
    max_error: Annotated[float | None, typer.Option(help="What share of `quality`'s answers may be wrong.")] = None,
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
    from router.errors import ArtifactError, ConfigError, NoModelError
    from router.overrides import MAX_USD_WEIGHT
    from router.request import read_request
    from router.settings import load_settings

    _check_number("--lambda", usd_weight, MAX_USD_WEIGHT)
    _check_number("--min-p-correct", min_p_correct, 1)
    _check_number("--max-error", max_error, 1)
    settings = load_settings(config)
    engine = ready_engine(database or settings.database_url)
    overrides = {"policy": policy, "min_p_correct": min_p_correct, "max_error": max_error, "lambda": usd_weight}
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "embedrouter": overrides}
    request = read_request(json.dumps(body).encode(), {}, settings.policy.policy)
    watch = ChampionWatch(engine, settings)
    current = watch.current
    engine.dispose()
    if current.artifact is None:
        raise ArtifactError(watch.missing)
    try:
        explanation = explain(request, "command-line", current.artifact, current.pool)
    except NoModelError as error:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in list(error.reasons.items())[:top])
        raise ConfigError(f"{str(error).partition(';')[0]}: {reasons}") from None
    if as_json:
        print(json.dumps(explanation))
    else:
        _print_explanation(explanation, top)


def _check_number(option: str, value: float | None, most: float) -> None:
    """Complain of a number under the option's name; NaN and infinities would not even be JSON."""
    from router.errors import ConfigError

    if value is not None and not 0 <= value <= most:
        raise ConfigError(f"{option} is {value:g}; it must be a number from 0 to {most:g}")


def _print_explanation(explanation: dict[str, Any], top: int) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    candidates, excluded = explanation["candidates"], explanation["excluded"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("", "model", "P(correct)", "90%", "tokens", "USD"):
        table.add_column(header, justify="left" if header == "model" else "right", no_wrap=True)
    table.add_column("USD/1M in, out", no_wrap=True)
    for rank, shown in enumerate(candidates[:top], start=1):
        table.add_row(
            str(rank),
            shown["model"],
            f"{shown['p_correct']:.3f}",
            _interval(shown["p_correct_ci90"]),
            _tokens(shown),
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
    if bases := sorted({shown["output_tokens_basis"] for shown in candidates} - {None, "counted"}):
        console.print(f"tokens and USD are expected; ~ marks lengths that are {' or '.join(bases)}, not counted")
    console.print(f"artifact {explanation['artifact']}; about {explanation['input_tokens_estimate']} input tokens")


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2f}-{bounds[1]:.2f}"


def _tokens(shown: dict[str, Any]) -> str:
    tokens = shown["expected_output_tokens"]
    return "?" if tokens is None else f"{'' if shown['output_tokens_basis'] == 'counted' else '~'}{tokens:.0f}"


def _usd(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:.6f}".rstrip("0").rstrip(".") if amount else "0"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(serve)
    app.command()(route)
    explain_commands.register(app)
