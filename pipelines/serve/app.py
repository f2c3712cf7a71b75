"""The application: all routes, their description, and what is said when nothing is published.

Does not belong here: routes (api.py, agents.py, operation.py, html_routes.py).
"""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from pipelines import __version__
from pipelines.home import Home
from pipelines.serve.agents import agent_routes, tool_routes
from pipelines.serve.api import MEASURES, usage_routes
from pipelines.serve.html_routes import html_routes
from pipelines.serve.operation import operation_routes
from pipelines.warehouse.metrics import describe
from pipelines.warehouse.reading import NothingPublishedError


def make_app(home: Home) -> FastAPI:
    """The API over what is published under a home."""
    app = FastAPI(
        title="Apiary",
        version=__version__,
        description="Usage and status of AI agents, read-only, from the last publication.\n\n"
        + "\n".join(f"* `{name}`: {describe(name)}" for name in MEASURES),
        docs_url=None,
        redoc_url=None,  # both would load scripts from elsewhere; html_routes.py has a page
    )
    app.state.home = home

    @app.exception_handler(NothingPublishedError)
    def nothing_published(_: Request, error: NothingPublishedError) -> JSONResponse:
        return JSONResponse({"detail": "nothing is published yet"}, 404)

    usage_routes(app)
    agent_routes(app)
    tool_routes(app)
    operation_routes(app)
    html_routes(app)
    return app
