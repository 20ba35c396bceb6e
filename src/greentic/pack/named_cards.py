"""The cards that flows name and that cannot be shown as they are in the pack: told to who builds or warms it (formats: flows 9, 12).

Rules:
1. Looked at are the cards of nodes that call components, by the path that stands in the flow; one with a template is known when it runs.
2. A card that is missing or no JSON goes to its component as it is, and translations are left out: nobody would say why.
3. Each card is read once. A worker reads none: its boot would wait for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from greentic.flow.cards import is_card
from greentic.flow.lint import Where, nowhere
from greentic.flow.nodes import FlowPlan, NodePlan
from greentic.ground.disk import io_error
from greentic.ground.documents import Json, open_file, parse, unmarked
from greentic.ground.errors import GreenticError
from greentic.ground.nearest import did_you_mean
from greentic.pack.archive import PackArchive
from greentic.pack.assets import entry_of
from greentic.pack.load import LoadedPack, first_told

_LANGUAGES = "assets/i18n/_manifest.json"
_MAX_CARD = 4 << 20
_PLACES = ((), ("input",), ("payload",), ("call", "payload"), ("input", "call", "payload"))


def with_cards(pack: LoadedPack, where: Where = nowhere) -> LoadedPack:
    """A pack with what is wrong with its cards among its warnings; `where` as it was loaded with.

    Raises `IoError` and `MalformedArtifact`, as whoever loaded it.
    """
    if not pack.flows:
        return pack
    try:
        with open_file(pack.place.path) as file:
            told = first_told(_told([flow.plan for flow in pack.flows], PackArchive(file), where))
    except OSError as error:
        raise io_error(pack.place.path, error) from None
    return pack._replace(warnings=(*pack.warnings, *told))


def _told(plans: list[FlowPlan], archive: PackArchive, where: Where) -> Iterator[str]:
    faults: dict[str, str | None] = {}
    shown = False
    for plan in plans:
        for node in plan.nodes.values():
            for card in _cards(node):
                shown = True
                path = _named(card)
                if path is None:
                    continue
                if path not in faults:
                    faults[path] = _fault(path, archive)
                if faults[path] is not None:
                    yield f"{where(plan.id, node.id, path)}flow {plan.id}: node {node.id}: {faults[path]}"
    if shown and _LANGUAGES in archive.entries:
        yield from _untranslated(archive)


def _named(card: dict[str, object]) -> str | None:
    """The path that stands in a flow (rule 1)."""
    spec, source = card.get("card_spec"), card.get("card_source")
    path = spec.get("asset_path") if isinstance(spec, dict) else None
    named = isinstance(source, str) and source.lower() == "asset" and isinstance(path, str) and "{{" not in path
    return cast("str", path) if named else None


def _cards(node: NodePlan) -> Iterator[dict[str, object]]:
    if node.kind not in ("exec", "component"):
        return
    for place in _PLACES:
        value = node.mapping
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if is_card(value):
            yield cast("dict[str, object]", value)


def _fault(path: str, archive: PackArchive) -> str | None:
    name = entry_of(path, archive.entries)
    if name is None:
        there = [entry for entry in archive.entries if entry.endswith(".json")]
        return f"its card `{path}` is not in the pack{did_you_mean(path, there)}"
    damage = _damage(name, archive)
    return None if damage is None else f"its card `{name}` cannot be shown: {damage}"


def _untranslated(archive: PackArchive) -> Iterator[str]:
    try:
        listed: object = parse(unmarked(archive.read(_LANGUAGES, limit=_MAX_CARD)))
    except (ValueError, GreenticError) as error:
        yield f"no card is translated: `{_LANGUAGES}` cannot be read: {error}"
        return
    if isinstance(listed, dict):
        listed = listed.get("locales")
    for locale in listed if isinstance(listed, list) else []:
        name = f"assets/i18n/{locale}.json"
        damage = _damage(name, archive) if name in archive.entries else "it is not in the pack"
        if damage is not None:
            yield f"cards are not translated into `{locale}`: `{name}`: {damage}"


def _damage(name: str, archive: PackArchive) -> str | None:
    try:
        read: Json = parse(unmarked(archive.read(name, limit=_MAX_CARD)))
    except GreenticError as error:
        return error.message
    except ValueError as error:
        return str(error)
    return None if isinstance(read, dict) else "it is no JSON object"
