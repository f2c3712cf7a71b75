"""What every route takes and gives: a key, whose rows there are, a part of a list and the link to the next part.

Does not belong here: questions (api.py, agents.py), how keys are kept (keys.py).
"""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from pipelines.home import Home
from pipelines.serve import keys
from pipelines.serve.tenant_data import Row, TenantData, open_tenant

MAX_ROWS = 10_000
DEFAULT_ROWS = 1_000

Id = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:@+/-]+$")]
_MADE = "made by `apiary serve --make-key TENANT`"
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description=_MADE)
_bearer = HTTPBearer(auto_error=False, description=_MADE)


class Answer(BaseModel):
    """What every route says: when the data is of, and its rows. Exact amounts are text; null is unknown, not zero."""

    known_as_of: str | None = Field(description="when the last of what is known of the tenant had arrived")
    rows: list[dict[str, Any]]
    next: str | None = Field(None, description="path and query of the rows that follow; null: there are no more")


def given_key(
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    """The key of a request, from `X-API-Key` or `Authorization: Bearer`; None without one."""
    return header or (bearer.credentials if bearer else None)


Key = Annotated[str | None, Depends(given_key)]


def _data(request: Request, key: Key) -> Iterator[TenantData]:
    home: Home = request.app.state.home
    tenant = keys.tenant_of(home, key) if key else None
    if tenant is None:
        raise HTTPException(401, "no valid key in X-API-Key or Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
    _refuse_unknown(request)
    with open_tenant(home.published, tenant) as data:
        yield data


def _refuse_unknown(request: Request) -> None:
    """A filter with a typing error would answer with everything, and be summed up."""
    described = request.app.openapi()["paths"][request.scope["route"].path]["get"].get("parameters", ())
    known = [one["name"] for one in described if one["in"] == "query"]
    if unknown := sorted(set(request.query_params) - set(known)):
        raise HTTPException(422, f"unknown parameter {', '.join(unknown)}: known are {', '.join(known) or 'none'}")


Data = Annotated[TenantData, Depends(_data)]


class _Page:
    """A part of a list. A list is one of a publication: its parts are not those of another."""

    def __init__(
        self,
        request: Request,
        data: Data,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="rows at most")] = DEFAULT_ROWS,
        offset: Annotated[int, Query(ge=0, le=10**9, description="rows to leave out; see `next`")] = 0,
        publication: Annotated[str | None, Query(max_length=64, description="set by `next`")] = None,
    ) -> None:
        if publication is not None and publication != data.publication:
            raise HTTPException(410, "the data was published anew since the first part: ask for the list again")
        self.limit = limit
        self.offset = offset
        following = request.url.include_query_params(offset=offset + limit, publication=data.publication)
        self.next = f"{following.path}?{following.query}"


Page = Annotated[_Page, Depends()]


def answer(data: TenantData, rows: list[Row], following: str | None = None) -> Answer:
    """What a route says."""
    known = data.known_as_of()
    return Answer(known_as_of=known.isoformat() if known else None, rows=rows, next=following)


def listed(
    data: TenantData, page: _Page, mart: str, select: str = "* EXCLUDE (tenant_id)", rest: str = "", **values: object
) -> Answer:
    """A part of a list. `rest` orders it completely, or the parts would overlap."""
    found = data.rows(
        mart, select, f"{rest} LIMIT $limit OFFSET $offset", limit=page.limit + 1, offset=page.offset, **values
    )
    return answer(data, found[: page.limit], page.next if len(found) > page.limit else None)
