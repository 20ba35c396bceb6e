"""The standard variables of OpenTelemetry, as far as traces go (OpenTelemetry specification: environment variables, OTLP exporter). Pure.

Rules:
1. Nothing is traced unless an endpoint is told; `OTEL_SDK_DISABLED` and `OTEL_TRACES_EXPORTER=none` switch it off again.
2. What is told for traces wins over what is told for all signals. `/v1/traces` is put behind the endpoint of all, and not behind that
   of traces.
3. A value that makes no sense switches tracing off and is told in `/status`, by the variable's name; it never ends a boot. Values of
   headers, which are secrets, are never told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from greentic import __version__
from greentic.ground import variables
from greentic.ground.errors import InvalidArgument
from greentic.telemetry.tracing import Sampling, Value

Form = Literal["http/protobuf", "http/json"]
_PREFIX = "OTEL_EXPORTER_OTLP_"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_VALUE = re.compile(r"[\t\x20-\x7e]{0,8192}\Z")
TIMEOUT_MS, DELAY_MS = 10_000, 5_000


class TraceSettings(NamedTuple):
    """Where spans go, and which."""

    endpoint: str
    form: Form
    headers: Mapping[str, str]
    timeout: float
    delay: float
    """Seconds after which spans are sent, however few."""
    sampling: Sampling
    resource: Mapping[str, Value]


def read_trace_settings(environ: Mapping[str, str], program: str, instance: str) -> TraceSettings | None:
    """The settings, nothing if nothing is to be traced. Raises `InvalidArgument` (rule 3)."""
    endpoint = _endpoint(environ)
    if not endpoint or variables.text("OTEL_SDK_DISABLED", environ).lower() == "true":
        return None
    exporter = variables.text("OTEL_TRACES_EXPORTER", environ)
    if exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise InvalidArgument(f"OTEL_TRACES_EXPORTER=`{exporter[:60]}`: expected `otlp` or `none`")
    return TraceSettings(
        endpoint,
        _form(environ),
        _headers(environ),
        _milliseconds("TIMEOUT", environ, TIMEOUT_MS) / 1000,
        (variables.count("OTEL_BSP_SCHEDULE_DELAY", environ, least=1, most=600_000) or DELAY_MS) / 1000,
        _sampling(environ),
        _resource(environ, program, instance),
    )


def _told(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """A value and the variable that has it; that of traces wins."""
    special = f"{_PREFIX}TRACES_{name}"
    found = variables.text(special, environ)
    return (found, special) if found else (variables.text(_PREFIX + name, environ), _PREFIX + name)


def _endpoint(environ: Mapping[str, str]) -> str:
    text, name = _told("ENDPOINT", environ)
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or "@" in text:  # the text may hold a password, so it is not told
        raise InvalidArgument(f"{name}: expected http://HOST:PORT without credentials; put those into {_PREFIX}HEADERS")
    return text if "TRACES" in name else f"{text.rstrip('/')}/v1/traces"


def _form(environ: Mapping[str, str]) -> Form:
    text, name = _told("PROTOCOL", environ)
    match text or "http/protobuf":
        case "http/protobuf":
            return "http/protobuf"
        case "http/json":
            return "http/json"
    raise InvalidArgument(f"{name}=`{text[:60]}`: expected `http/protobuf` or `http/json`")


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    text, name = _told("HEADERS", environ)
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = (unquote(word.strip()) for word in part.partition("="))
        if not part.strip():
            continue
        if not equals or not _NAME.match(key) or not _VALUE.match(value):
            raise InvalidArgument(f"{name}: expected NAME=VALUE, separated by commas")
        found[key] = value
    return found


def _milliseconds(name: str, environ: Mapping[str, str], default: int) -> int:
    text, variable = _told(name, environ)
    return variables.count(variable, environ, least=1, most=600_000) or default if text else default


def _sampling(environ: Mapping[str, str]) -> Sampling:
    name = variables.text("OTEL_TRACES_SAMPLER", environ) or "parentbased_always_on"
    argument = variables.text("OTEL_TRACES_SAMPLER_ARG", environ)
    kind = name.removeprefix("parentbased_")
    if kind not in ("always_on", "always_off", "traceidratio"):
        raise InvalidArgument(
            f"OTEL_TRACES_SAMPLER=`{name[:60]}`: expected always_on, always_off or traceidratio, or these behind `parentbased_`"
        )
    share = {"always_on": 1.0, "always_off": 0.0}.get(kind)
    if share is None:
        try:
            share = float(argument or "1")
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            raise InvalidArgument(f"OTEL_TRACES_SAMPLER_ARG=`{argument[:60]}`: expected a number from 0 to 1")
    return Sampling(share, name.startswith("parentbased_"))


def _resource(environ: Mapping[str, str], program: str, instance: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for part in variables.listed("OTEL_RESOURCE_ATTRIBUTES", environ):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InvalidArgument("OTEL_RESOURCE_ATTRIBUTES: expected NAME=VALUE, separated by commas")
        found[key.strip()] = unquote(value.strip())
    own: dict[str, Value] = {
        "service.name": variables.text("OTEL_SERVICE_NAME", environ) or found.get("service.name") or program,
        "service.version": __version__,
        "service.instance.id": instance,
        "telemetry.sdk.name": "greentic",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    return {**own, **found, "service.name": own["service.name"]}
