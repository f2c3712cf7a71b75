"""Lists of public names: models, providers, built-in tools, queens, nodes. A name outside them is somebody's own.

One name a line, `#` starts a comment. Does not belong here: names of anybody's own models, tools, queens or nodes.
"""

import re
from functools import cache, lru_cache
from importlib.resources import files

# The sizes, variants and dates that catalogues hang onto a model's name. Closed on purpose: a free tag could be a name.
_TAG = re.compile(
    r":(?:latest|free|beta|extended|thinking|exacto|nitro|floor|online|cloud|\d"
    r"|(?:\d{1,3}x)?\d{1,4}(?:\.\d{1,2})?[bmk](?:-a\d{1,3}b)?(?:-cloud)?"
    r"(?:-(?:instruct|chat|text|base|it|code|vision|thinking))?(?:-qat)?(?:-(?:q\d(?:_[k01](?:_[sml])?)?|fp16|bf16|fp8|int8|int4))?)$",
    re.IGNORECASE | re.ASCII,
)
_DATE = re.compile(r"[-@](?:20[2-3]\d[01]\d[0-3]\d|20\d\d-[01]\d-[0-3]\d|latest)$", re.ASCII)
# How clouds name the models of others: a region's profile, the vendor, the model, its version.
_CLOUD = re.compile(
    r"(?:(?:us|us-gov|eu|apac|au|jp|global)\.)?(?:anthropic|meta|mistral|cohere|amazon|deepseek|openai|qwen)\."
    r"(?P<model>[a-z0-9.-]{1,80}?)(?:-v\d{1,2})?(?::\d{1,2})?",
    re.ASCII,
)
UNKNOWN_MODEL = "unknown"
# Tab and every space separator of Unicode: texts that were copied from a page end in a no-break space. No line breaks.
_BLANKS = "\t \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


@cache
def names(vocabulary: str) -> frozenset[str]:
    """The public names of one list (`models`, `providers`, `tools`, `queens`, `nodes`, `streams`, `agent_types`)."""
    text = files(__name__).joinpath(f"{vocabulary}.txt").read_text(encoding="ascii")
    return frozenset(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def is_public(vocabulary: str, name: str) -> bool:
    """Whether `name` may travel in clear, exactly as it is written."""
    return _is_public_model(name) if vocabulary == "models" else name in names(vocabulary)


def public_form(vocabulary: str, name: str) -> str | None:
    """`name` as it may travel in clear, or None if it may not.

    A model's name with blanks around it or in another case is the model: catalogues, gateways and people write it in
    several ways. It travels as the list writes it; where the list has several cases, exactly as written if that is one
    of them, else in the last of them in plain sort order, which has small letters. Of other lists only the exact name
    is public.
    """
    for written in (name, name.strip(_BLANKS)) if vocabulary == "models" else (name,):
        if is_public(vocabulary, written):
            return written
    return _public_model(name.strip(_BLANKS)) if vocabulary == "models" else None


@cache
def _folded(vocabulary: str) -> dict[str, str]:
    return {name.casefold(): name for name in sorted(names(vocabulary))}


@lru_cache(maxsize=10_000)
def _public_model(model: str) -> str | None:
    """A model string with each part in the case of its list; None if a part is on none."""
    *route, name = model.split("/")
    segments = [_folded("providers").get(segment.casefold()) for segment in route]
    listed = _folded("models")
    # The longest first: a date may be a part of the listed name.
    for pattern in (None, _TAG, _DATE):
        stem, tail = name, ""
        if pattern is not None and (found := pattern.search(name.lower())):
            stem, tail = name[: found.start()], name[found.start() :].lower()
        form = "/".join([*(segment or "" for segment in segments), listed.get(stem.casefold(), "") + tail])
        if _is_public_model(form):
            return form
    return None


@cache
def _is_public_model(model: str) -> bool:
    """Whether every part of a model string is public: provider and route segments, name, tag and date."""
    *route, name = model.split("/")
    if not all(segment in names("providers") for segment in route):
        return False
    models = names("models")
    cloud = _CLOUD.fullmatch(name)
    untagged = cloud["model"] if cloud else _TAG.sub("", name)
    return any(candidate in models for candidate in (name, untagged, _DATE.sub("", untagged)))
