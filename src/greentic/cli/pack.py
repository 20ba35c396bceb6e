"""`gtc pack`: new, build, sign, inspect."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import cast

from greentic.cli.command import Command, answered, command
from greentic.ground.disk import real_path
from greentic.ground.documents import Json, JsonObject

_EXAMPLES = """examples:
  gtc pack new ./my-pack
  gtc pack build ./my-pack --out my.gtpack
  gtc pack sign my.gtpack --key key.pem
  gtc pack inspect my.gtpack"""


def parser() -> Command:
    """The words that it takes."""
    pack = command("pack", "Start, build, sign and inspect packs.", _EXAMPLES, "new|build|sign|inspect")
    verbs = pack.verbs
    new = verbs.add_parser("new", help="a pack to start from, with a flow and a component in Python")
    new.add_argument("directory", type=Path, metavar="DIR")
    new.add_argument("--id", metavar="ID", help="the pack's id; default: the directory's name")
    new.add_argument("--publisher", default="example", metavar="NAME")
    build = verbs.add_parser("build", help="a pack from a directory with pack.yaml and flows/")
    build.add_argument("directory", type=Path, metavar="DIR")
    build.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/dist/<name>.gtpack")
    inspect = verbs.add_parser("inspect", help="what a pack holds, and what a worker would warn about")
    inspect.add_argument("file", type=Path, metavar="FILE")
    sign = verbs.add_parser("sign", help="a signature that `GREENTIC_PACK_SIGNATURES=require` accepts")
    sign.add_argument("file", type=Path, metavar="FILE")
    sign.add_argument("--key", type=Path, required=True, metavar="PEM", help="an Ed25519 private key (PKCS#8)")
    sign.add_argument("--chain", type=Path, metavar="PEM", help="its certificates; default: a self-signed one is made")
    sign.add_argument("--out", type=Path, metavar="FILE", help="default: the pack itself is replaced")
    return pack


def main(argv: list[str]) -> int:
    arguments = parser().parsed(argv)
    return answered("pack", arguments, lambda: _run(arguments), _hint(arguments))


def _run(arguments: argparse.Namespace) -> JsonObject:
    if arguments.verb == "inspect":
        from greentic.author.inspect import inspect_pack

        return inspect_pack(arguments.file)
    if arguments.verb == "new":
        from greentic.author.pack_new import new_pack

        return new_pack(arguments.directory, arguments.id, arguments.publisher)
    if arguments.verb == "sign":
        from greentic.author.pack_sign import sign_pack
        from greentic.ground.clock import SystemClock

        return sign_pack(arguments.file, arguments.key, arguments.chain, arguments.out, SystemClock())
    from greentic.author.inspect import write_checked
    from greentic.author.pack_build import build_pack, check_out

    name = real_path(arguments.directory).name
    out: Path = arguments.out or arguments.directory / "dist" / f"{name}.gtpack"
    check_out(out, arguments.directory)
    built = build_pack(arguments.directory)
    found = write_checked(out, built.data, built.where)
    return {
        "path": str(out),
        "digest": found["digest"],
        "size": len(built.data),
        "pack_id": built.manifest.pack_id,
        "version": built.manifest.version,
        "warnings": [*built.warnings, *cast("list[Json]", found["warnings"])],
    }


def _hint(arguments: argparse.Namespace) -> str:
    if arguments.verb == "new":
        return f"""gtc flow run {shlex.quote(str(arguments.directory))} main --input '{{"text": "Ada"}}'"""
    return "gtc bundle build DIR, with the pack below DIR/packs/" if arguments.verb == "build" else ""
