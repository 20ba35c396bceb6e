"""Adaptive cards: what the engine does before the card component is called (formats: flows 9).

Rules:
1. A card invocation is an object with `card_source` or `card_spec`. It gets the locale of the message, unless it has one.
2. An input of an adaptive-card component that is none yet becomes one where the message says which card comes next.
3. The default card of the configuration makes one of what is still none.
4. A card that is an asset is read here and put in place, with its translations, since components cannot read the pack. One
   that is missing or no JSON stays as it is: the component says what is wrong with it. What is put in place is bounded as any
   value that a flow makes, a card and its translations together.
"""

from __future__ import annotations

from typing import cast

from greentic.expressions.value_range import in_range
from greentic.flow.bounds import MAX_SIZE
from greentic.flow.node_names import metadata_of
from greentic.flow.ports import Assets
from greentic.flow.state import Map
from greentic.ground.documents import parse
from greentic.ground.errors import FlowFailure, LimitExceeded

CARD_COMPONENT = "adaptive-card"
_NEXT_CARD = ("routeToCardId", "toCardId", "nextCardId")
_MAX_LOCALES = 64


def is_card(value: object) -> bool:
    """Whether a value is a card invocation (rule 1)."""
    return isinstance(value, dict) and ("card_source" in value or "card_spec" in value)


def before_dispatch(component: str, value: object, entry: object) -> object:
    """The input of a component with what the message adds (rules 1 and 2)."""
    if not isinstance(value, dict):
        return value
    metadata = metadata_of(entry)
    if not is_card(value) and CARD_COMPONENT in component:
        card = next((metadata[key] for key in _NEXT_CARD if isinstance(metadata.get(key), str)), None)
        if card:
            value = {**value, "card_source": "asset", "card_spec": {"asset_path": f"assets/cards/{card}.json"}}
    if is_card(value) and "locale" not in value and isinstance(metadata.get("locale"), str):
        value = {**value, "locale": metadata["locale"]}
    return value


def card_invocation(value: object, config: object, assets: Assets) -> Map | None:
    """The card invocation that a component is to be given raw, or nothing if the input is none (rules 3 and 4)."""
    if not isinstance(value, dict):
        return None
    if not is_card(value):
        promoted = _promoted(value, config)
        if promoted is None:
            return None
        value = promoted
    return _inlined(value, assets)


def inlined_call(value: object, assets: Assets) -> object:
    """The input with the card of its `call.payload` in place, if it has one."""
    call = value.get("call") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(call, dict) or not is_card(call.get("payload")):
        return value
    return {**value, "call": {**call, "payload": _inlined(cast(Map, call["payload"]), assets)}}


def _promoted(value: Map, config: object) -> Map | None:
    inner = value.get("config")
    for defaults in (config, inner):
        if not isinstance(defaults, dict):
            continue
        asset, inline = defaults.get("default_card_asset"), defaults.get("default_card_inline")
        source = defaults.get("default_source")
        if asset is None and inline is None:
            continue
        spec: Map = {}
        if isinstance(asset, str):
            spec["asset_path"] = asset
        if inline is not None:
            spec["inline_json"] = inline
        kind = source.lower() if isinstance(source, str) else "inline" if inline is not None else "asset"
        return {**value, "card_source": kind, "card_spec": spec}
    return None


def _inlined(value: Map, assets: Assets) -> Map:
    source, spec = value.get("card_source"), value.get("card_spec")
    if not isinstance(source, str) or source.lower() != "asset" or not isinstance(spec, dict):
        return value
    path = spec.get("asset_path")
    reading = _Reading(assets)
    card = reading.json(path) if isinstance(path, str) else None
    if card is None:
        return value
    spec = {key: item for key, item in spec.items() if key != "asset_path"} | {"inline_json": card}
    translations = _translations(spec, reading)
    if translations:
        spec["i18n_inline"] = translations
    return {**value, "card_source": "inline", "card_spec": spec}


class _Reading:
    """The JSON documents of one card, which have a size together."""

    def __init__(self, assets: Assets) -> None:
        self._assets, self._left = assets, MAX_SIZE

    def json(self, path: str) -> object:
        """A document, or nothing for one that is missing or no JSON. Raises `FlowFailure` for one too many bytes."""
        try:
            data = self._assets.read(path, self._left)
        except LimitExceeded:
            raise FlowFailure(
                f"a card and its translations are larger than {MAX_SIZE} bytes together, with `{path[:200]}`"
            ) from None
        if data is None:
            return None
        self._left -= len(data)
        try:
            return in_range(parse(data.removeprefix(b"\xef\xbb\xbf")))
        except (ValueError, FlowFailure):
            return None


def _translations(spec: Map, reading: _Reading) -> Map:
    told = spec.get("i18n_bundle_path")
    base = (told if isinstance(told, str) and told else "assets/i18n").rstrip("/")
    listed = reading.json(f"{base}/_manifest.json")
    if isinstance(listed, dict):
        listed = listed.get("locales")
    locales = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    found: Map = {}
    for locale in dict.fromkeys([*locales[:_MAX_LOCALES], "en"]):
        entries = reading.json(f"{base}/{locale}.json")
        if isinstance(entries, dict):
            found[locale] = entries
    return found
