"""Secrets made at run time from templates of published token formats. No whole token stands in the repository.

A template's fields say how many characters of which alphabet: `{A93}` is 93 of letters, digits, `_` and `-`.
Does not belong here: where they are put and looked for (test_secrets.py).
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from urllib.parse import quote

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALPHABETS = {
    "A": UPPER + LOWER + DIGITS + "_-", "a": LOWER + DIGITS, "h": DIGITS + "abcdef", "d": DIGITS, "u": UPPER + DIGITS,
    "w": UPPER + LOWER + DIGITS, "U": UPPER, "s": UPPER + LOWER + DIGITS + "+/",
}  # fmt: skip
TEMPLATES: dict[str, str] = {
    "anthropic": "sk-ant-api03-{A93}AA", "anthropic_admin": "sk-ant-admin01-{A93}AA",
    "openai": "sk-{w20}T3BlbkFJ{w20}", "openai_project": "sk-proj-{A74}T3BlbkFJ{A74}",
    "openrouter": "sk-or-v1-{h64}", "groq": "gsk_{w52}", "huggingface": "hf_{w34}", "replicate": "r8_{w37}",
    "xai": "xai-{w80}", "perplexity": "pplx-{w48}", "google_api": "AIza{A35}", "google_oauth": "GOCSPX-{A28}",
    "google_refresh": "1//0{A60}", "aws_access": "AKIA{u16}", "aws_session": "ASIA{u16}",
    "aws_secret": "aws_secret_access_key = {s40}", "azure_storage": "AccountKey={s86}==",
    "azure_openai": "api-key: {h32}", "github": "ghp_{w36}", "github_fine": "github_pat_{w22}_{w59}",
    "github_oauth": "gho_{w36}", "github_app": "ghs_{w36}", "github_refresh": "ghr_{w36}", "gitlab": "glpat-{A20}",
    "gitlab_runner": "GR1348941{A20}", "gitlab_trigger": "glptt-{h40}", "bitbucket": "ATBB{w32}",
    "atlassian": "ATATT3{A186}", "slack_bot": "xoxb-{d12}-{d12}-{w24}", "slack_user": "xoxp-{d11}-{d11}-{d12}-{h32}",
    "slack_app": "xapp-1-{u11}-{d13}-{h64}",
    "slack_hook": "https://hooks.slack.com/services/T{u8}/B{u8}/{w24}",
    "discord": "M{w23}.{w6}.{A27}", "telegram": "{d9}:AA{A33}", "stripe": "sk_live_{w24}",
    "stripe_restricted": "rk_live_{w24}",
    "square": "sq0csp-{A43}", "paypal": "access_token$production${a16}${h32}", "shopify": "shpat_{h32}",
    "shopify_secret": "shpss_{h32}", "twilio": "SK{h32}", "twilio_account": "AC{h32}", "sendgrid": "SG.{A22}.{A43}",
    "mailchimp": "{h32}-us12", "mailgun": "key-{h32}", "postmark": "X-Postmark-Server-Token: {h8}-{h4}",
    "npm": "npm_{w36}", "npm_line": "//registry.example/:_authToken=npm_{w36}", "pypi": "pypi-AgEIcHlwaS5vcmc{A80}",
    "rubygems": "rubygems_{h48}", "docker": "dckr_pat_{A27}", "terraform": "{w14}.atlasv1.{A67}", "vault": "hvs.{A92}",
    "pulumi": "pul-{h40}", "digitalocean": "dop_v1_{h64}", "heroku": "HRKU-{A60}", "linear": "lin_api_{w40}",
    "notion": "secret_{w43}", "figma": "figd_{A40}", "airtable": "pat{w14}.{h64}", "asana": "1/{d16}:{h32}",
    "databricks": "dapi{h32}", "snowflake": "password={w24}", "sentry": "sntrys_{w60}", "grafana": "glc_{s40}",
    "newrelic": "NRAK-{u27}", "datadog": "DD_API_KEY={h32}", "dynatrace": "dt0c01.{u24}.{u64}", "okta": "00{A40}",
    "auth_basic": "https://ada:{w16}@example.com/x", "dsn": "postgres://ada:{w18}@db.example.com:5432/prod",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ{w20}In0.{A43}", "bearer": "Authorization: Bearer {A60}",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\n{s64}\n{s64}\n-----END RSA PRIVATE KEY-----",
    "openssh": "-----BEGIN OPENSSH PRIVATE KEY-----\n{s64}\n-----END OPENSSH PRIVATE KEY-----",
    "age": "AGE-SECRET-KEY-1{u58}", "cloudant": "cloudant_password={h64}", "ibm_cloud": "ibm_cloud_api_key={A44}",
    "ibm_cos": "cos_hmac_secret_access_key={h48}", "softlayer": "softlayer_api_key={h64}",
    "artifactory": " AKC{w60}", "facebook": "EAACEdEose0cBA{w60}", "twitter_bearer": "AAAAAAAAAAAAAAAAAAAAA{w80}",
    "entropy": "{s60}", "password": "password: '{A20}'",
    "word": "{a24}",
}  # fmt: skip
_FIELD = re.compile(rf"\{{([{''.join(ALPHABETS)}])(\d+)\}}")


def make(template: str, rng: random.Random) -> str:
    """A token of a template's form."""
    return _FIELD.sub(lambda field: "".join(rng.choices(ALPHABETS[field[1]], k=int(field[2]))), template)


def tokens(seed: int) -> dict[str, str]:
    """One token of each kind."""
    rng = random.Random(seed)
    return {name: make(template, rng) for name, template in TEMPLATES.items()}


def forms(token: str) -> list[str]:
    """A token plain, as base64, URL-encoded, and in two halves."""
    half = len(token) // 2
    return [token, base64.b64encode(token.encode()).decode(), quote(token, safe=""), token[:half], token[half:]]


def plant(placeholder: str, values: list[str], texts: dict[object, str]) -> tuple[dict[object, str], int]:
    """Texts in which each placeholder, quoted as JSON, is another one of the values; and how many there were."""
    count = 0

    def value(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return json.dumps(values[count % len(values)])

    quoted = re.compile(re.escape(json.dumps(placeholder)))
    return {path: quoted.sub(value, text) for path, text in texts.items()}, count
