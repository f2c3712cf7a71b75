"""The routes for people: the description of the API as a page, and the pages of the report for the tenant of a key.

A browser asks for the key (HTTP Basic: any user name, the key as the password). The pages load nothing and run nothing.
Does not belong here: what the pages hold (report.py), routes for programs (api.py, agents.py).
"""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from pipelines.home import Home
from pipelines.serve import keys, report
from pipelines.serve.api import MEASURES
from pipelines.serve.dependencies import Key
from pipelines.serve.report_pages import PAGES
from pipelines.warehouse.metrics import describe
from pipelines.warehouse.reading import connect

_basic = HTTPBasic(auto_error=False, description="any user name, the key as the password")


def _tenant(request: Request, key: Key, basic: Annotated[HTTPBasicCredentials | None, Depends(_basic)]) -> str:
    home: Home = request.app.state.home
    given = key or (basic.password if basic else None)
    tenant = keys.tenant_of(home, given) if given else None
    if tenant is None:
        raise HTTPException(401, "no valid key", {"WWW-Authenticate": 'Basic realm="key as the password"'})
    return tenant


Tenant = Annotated[str, Depends(_tenant)]


def html_routes(app: FastAPI) -> None:
    """Documentation and report."""

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        schema = app.openapi()
        text = report.page_of(
            "docs.html",
            title=schema["info"]["title"], version=schema["info"]["version"], routes=list(_routes(schema)),
            base=str(request.base_url).rstrip("/"), measures=[(name, describe(name)) for name in MEASURES],
        )  # fmt: skip
        return HTMLResponse(text)

    @app.get("/report/", include_in_schema=False)
    def report_of_key(tenant: Tenant) -> RedirectResponse:
        return RedirectResponse(f"{report.Scope(tenant).folder}/{report.file_name(PAGES[0], report.DEFAULT_PERIOD)}")

    @app.get("/report/{folder}/{file}", include_in_schema=False)
    def report_page(request: Request, tenant: Tenant, folder: str, file: str) -> HTMLResponse:
        scope = report.Scope(tenant)
        named = {report.file_name(page, period): (page, period) for page in PAGES for period in report.PERIODS}
        if folder != scope.folder or file not in named:
            raise HTTPException(404, "there is no such page")
        page, period = named[file]
        with connect(request.app.state.home.published) as connection, scope.opened(connection):
            meanings = report.meanings_of(connection)
            return HTMLResponse(report.render(connection, page, scope, period, [scope], meanings=meanings))


def _routes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in schema["paths"].items():
        for method, described in methods.items():
            yield {
                "id": described["operationId"],
                "method": method.upper(),
                "path": path,
                "text": described.get("description", described["summary"]),
                "parameters": [
                    {"name": one["name"], "place": one["in"], "is_required": one["required"],
                     "allowed": _values(one["schema"]), "text": one.get("description", "")}
                    for one in described.get("parameters", ())
                ],
            }  # fmt: skip


def _values(schema: dict[str, Any]) -> str:
    """What a parameter may be, in words."""
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    one = choices[0]
    words = ", ".join(one["enum"]) if "enum" in one else str(one.get("format", one.get("type", "")))
    if "minimum" in one and "maximum" in one:
        words += f" {one['minimum']} to {one['maximum']}"
    default = schema.get("default")
    return words if default is None else f"{words}; else {default}"
