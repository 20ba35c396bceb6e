"""`gtc bundle`: build, inspect, verify."""

from __future__ import annotations

import argparse
from pathlib import Path

from greentic.cli.output import chosen_form, print_failure, print_success
from greentic.ground.documents import JsonObject
from greentic.ground.errors import GreenticError

_EXAMPLES = """examples:
  gtc bundle build ./my-bundle --out my.gtbundle
  gtc bundle inspect my.gtbundle
  gtc bundle verify my.gtbundle --digest sha256:…"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gtc bundle",
        description="Build, inspect and verify bundles.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build|inspect|verify")
    build = verbs.add_parser("build", help="a bundle from a directory with bundle.yaml and packs/")
    build.add_argument("directory", type=Path, metavar="DIR")
    build.add_argument("--out", type=Path, metavar="FILE", help="default: <bundle directory>.gtbundle")
    inspect = verbs.add_parser("inspect", help="what a bundle holds")
    inspect.add_argument("file", type=Path, metavar="FILE")
    verify = verbs.add_parser("verify", help="whether its packs load and its digest is the pinned one")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("--digest", metavar="D", help="the sha256 that it must have")
    for verb in (build, inspect, verify):
        verb.add_argument("--output", choices=("json", "table"), help="default: a table at a terminal, else JSON")
    arguments = parser.parse_args(argv)
    form = chosen_form(arguments.output)
    try:
        print_success(form, "bundle", arguments.verb, _run(arguments), _hint(arguments))
    except GreenticError as error:
        print_failure(form, "bundle", arguments.verb, error)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> JsonObject:
    if arguments.verb == "build":
        from greentic.operate.bundle_build import build_bundle

        out = arguments.out or Path(f"{arguments.directory.resolve().name}.gtbundle")
        built = build_bundle(arguments.directory, out)
        return {"path": str(built.path), "digest": built.digest, "size": built.size, "packs": list(built.packs)}
    from greentic.operate.inspect import inspect_bundle, verify_bundle

    return (
        inspect_bundle(arguments.file)
        if arguments.verb == "inspect"
        else verify_bundle(arguments.file, arguments.digest)
    )


def _hint(arguments: argparse.Namespace) -> str:
    return "gtc op deploy --bundle FILE, or gtc op revisions stage" if arguments.verb == "build" else ""
