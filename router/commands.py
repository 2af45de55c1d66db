"""The verbs of serving. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router import explain_commands

if TYPE_CHECKING:
    from router.settings import Settings

ConfigPath = Annotated[Path | None, typer.Option(help="config.yaml; default EMBEDROUTER_CONFIG or ./config.yaml.")]
Database = Annotated[str | None, typer.Option(help="Database URL; wins over the environment and config.yaml.")]
GARBAGE_EVERY = 20_000  # objects, a few megabytes; the interpreter's own 700 come with every few requests


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


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(serve)
    explain_commands.register(app)
