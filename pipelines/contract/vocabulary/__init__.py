"""Lists of public names: models, providers, built-in tools, queens, nodes. A name outside them is somebody's own.

One name a line, `#` starts a comment. Does not belong here: names of anybody's own models, tools, queens or nodes.
"""

import re
from functools import cache
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


@cache
def names(vocabulary: str) -> frozenset[str]:
    """The public names of one list (`models`, `providers`, `tools`, `queens`, `nodes`, `streams`, `agent_types`)."""
    text = files(__name__).joinpath(f"{vocabulary}.txt").read_text(encoding="ascii")
    return frozenset(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def is_public(vocabulary: str, name: str) -> bool:
    """Whether `name` may travel in clear, exactly as it is written."""
    return _is_public_model(name) if vocabulary == "models" else name in names(vocabulary)


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
