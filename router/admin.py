"""The port that only this machine reaches: GET /metrics for Prometheus."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.metrics import Metrics


def create_admin(metrics: Metrics) -> Starlette:
    """Build the application that is served beside the router's own."""

    def show(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/metrics", show)])
