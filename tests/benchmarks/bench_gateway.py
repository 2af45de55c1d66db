"""The gateway beside a bare pass-through and LiteLLM's proxy, in one run: python -m tests.benchmarks.bench_gateway

It starts everything itself: the upstreams, FastAPI with the same HTTP client and nothing else, this router once with
its LSA encoder and once with the bundled one, and LiteLLM in a virtual environment of its own (`--without-litellm`
leaves it out). The servers take turns in short rounds; a figure is the median of its rounds, a ratio the median of the
rounds' ratios. What counts are the ratios: the machine's speed, and most of what else it does, falls out of them.
`--rss` asks the first router 200,000 times and looks for leaks.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.gateway_load import Round, filler, load, streams
from tests.benchmarks.gateway_servers import Server, bare, litellm, router, streaming_upstream, train, upstream

LITELLM = "1.106.0"
PEERS = ("bare", "litellm")
RSS_AFTER = (20_000, 200_000)
Figures = dict[str, float]


def main() -> None:
    arguments = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for encoder in arguments.encoders:
            _say(f"training on simulated logs, encoder {encoder}")
            (folder / encoder).mkdir()
            train(folder / encoder, encoder)
        if arguments.rss:
            result: dict[str, object] = {"rss": _rss(folder / arguments.encoders[0], arguments.rss_requests)}
        else:
            result = {"rounds": arguments.rounds, **_compare(folder, arguments)}
    if arguments.json:
        print(json.dumps(result, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--encoders", nargs="+", default=["lsa", "bundled"], help="a router for each: lsa, bundled, ..."
    )
    parser.add_argument("--streams", type=int, default=40, help="in each round")
    parser.add_argument("--litellm", default=LITELLM, metavar="VERSION")
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--rss", action="store_true", help="this router's memory after 20,000 and 200,000 requests")
    parser.add_argument("--rss-requests", type=int, nargs=2, default=RSS_AFTER, metavar=("FIRST", "LAST"))
    parser.add_argument("--json", action="store_true", help="print one JSON object after the table")
    return parser.parse_args()


def _compare(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {}
    with ExitStack() as stack:
        url = stack.enter_context(upstream(folder))
        servers = _servers(stack, folder, url, arguments)
        for name, n_connections, before in (
            ("16 connections", 16, ""),
            ("1 connection", 1, ""),
            ("16 connections, 2,000-token prompts", 16, filler(2_000)),
            ("1 connection, 2,000-token prompts", 1, filler(2_000)),
        ):

            def measure(server: Server, n: int = n_connections, text: str = before) -> Figures:
                return _figures(load(server, folder, n, arguments.seconds, text))

            result[name] = _in_turns(name, servers, measure, arguments.rounds)
    with ExitStack() as stack:
        url = stack.enter_context(streaming_upstream(folder))
        servers = _servers(stack, folder, url, arguments)
        for name, n_connections in (("streams, 1 connection", 1), ("streams, 16 connections", 16)):

            def measure_streams(server: Server, n: int = n_connections) -> Figures:
                seen = streams(server, arguments.streams, n)
                return {"first chunk ms": seen.first_ms, "chunk ms": seen.chunk_ms}

            result[name] = _in_turns(name, servers, measure_streams, arguments.rounds)
    return result


def _servers(stack: ExitStack, folder: Path, url: str, arguments: argparse.Namespace) -> list[Server]:
    _say("starting servers")
    servers = [stack.enter_context(bare(folder, url))]
    servers += [stack.enter_context(router(folder / encoder, url, encoder)) for encoder in arguments.encoders]
    if not arguments.without_litellm:
        servers.append(stack.enter_context(litellm(folder, url, arguments.litellm)))
    return servers


def _figures(measured: Round) -> Figures:
    return {"requests/s": measured.per_second, "p50 ms": measured.p50_ms, "CPU ms": measured.cpu_ms}


def _in_turns(
    name: str, servers: Sequence[Server], measure: Callable[[Server], Figures], n_rounds: int
) -> dict[str, object]:
    """Measure the servers in turns, after a round that only warms up, and print medians and our ratios to the peers."""
    for server in servers:
        measure(server)
    rounds = [{server.name: measure(server) for server in servers} for _ in range(n_rounds)]
    ours = [server.name for server in servers if server.name not in PEERS]
    peers = [server.name for server in servers if server.name in PEERS]
    print(f"\n{name} (median of {n_rounds} rounds; ours / the peer's, least to greatest)")
    found: dict[str, object] = {}
    for figure in rounds[0][servers[0].name]:
        row: dict[str, float] = {each: statistics.median(one[each][figure] for one in rounds) for each in rounds[0]}
        print(f"  {figure:15}" + "".join(f"{peer:>13} {row[peer]:9.2f}" for peer in peers))
        for mine in ours:
            line = f"  {'':15}{mine:>13} {row[mine]:9.2f}"
            for peer in peers:
                ratios = sorted(one[mine][figure] / one[peer][figure] for one in rounds)
                row[f"{mine} / {peer}"] = statistics.median(ratios)
                row[f"{mine} - {peer}"] = statistics.median(one[mine][figure] - one[peer][figure] for one in rounds)
                line += f"   {peer} {statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(line, flush=True)
        found[figure] = row
    return found


def _rss(folder: Path, after: Sequence[int]) -> dict[str, float]:
    """This router's resident memory after so many requests, in MiB."""
    found: dict[str, float] = {}
    with ExitStack() as stack:
        server = stack.enter_context(router(folder, stack.enter_context(upstream(folder))))
        n = 0
        for wanted in after:
            while n < wanted:
                n += load(server, folder, 16, 5.0).n
            time.sleep(3)  # until what waits is recorded
            found[f"after {wanted}"] = server.rss_mb
            print(f"RSS after {n:,} requests: {server.rss_mb:.1f} MiB", flush=True)
    first, last = (found[f"after {wanted}"] for wanted in after)
    print(f"grown by {last / first - 1:+.1%}")
    return found


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
