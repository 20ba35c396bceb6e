"""`gtc bundle`: build, inspect, verify, sign, publish, revoke, export."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import cast

from greentic.cli.command import Command, answered, command, number
from greentic.ground.documents import Json, JsonObject

_EXAMPLES = """examples:
  gtc bundle build ./my-bundle --out my.gtbundle
  gtc bundle inspect my.gtbundle
  gtc bundle verify my.gtbundle --digest sha256:… --key release.pub
  gtc bundle sign my.gtbundle --key release.pem
  gtc bundle publish my.gtbundle oci://registry.example.com/bots/my:1.0
  gtc bundle revoke sha256:… --list ./revocations.json --reason "leaks a token"
  gtc bundle export prod --out prod.tar"""


def parser() -> Command:
    """The words that it takes."""
    bundle = command(
        "bundle",
        "Build, inspect, verify, sign, publish, revoke and export bundles.",
        _EXAMPLES,
        "build|inspect|verify|sign|publish|revoke|export",
    )
    verbs = bundle.verbs
    build = verbs.add_parser("build", help="a bundle from a directory with bundle.yaml and packs/")
    build.add_argument("directory", type=Path, metavar="DIR")
    build.add_argument("--out", type=Path, metavar="FILE", help="default: <bundle directory>.gtbundle")
    inspect = verbs.add_parser("inspect", help="what a bundle holds")
    inspect.add_argument("file", type=Path, metavar="FILE")
    verify = verbs.add_parser("verify", help="whether its packs load and its digest is the pinned one")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("--digest", metavar="D", help="the sha256 that it must have")
    verify.add_argument(
        "--key", type=Path, action="append", metavar="PEM", help="a public key that must have signed it"
    )
    sign = verbs.add_parser("sign", help="a DSSE signature beside it, with which environments can require it")
    sign.add_argument("file", type=Path, metavar="FILE")
    publish = verbs.add_parser("publish", help="put it where workers pull it; prints what `revisions stage` takes")
    publish.add_argument("file", type=Path, metavar="FILE")
    publish.add_argument("target", metavar="TARGET", help="a directory, or oci://registry/repository:tag")
    publish.add_argument("--name", metavar="NAME", help="its name there; default: the file's")
    revoke = verbs.add_parser("revoke", help="put bundles or keys on a signed list that workers refuse")
    revoke.add_argument("digests", nargs="*", metavar="DIGEST", help="sha256:… of a bundle")
    revoke.add_argument(
        "--key-id", action="append", default=[], metavar="HEX", help="a key whose signatures end to count"
    )
    revoke.add_argument("--list", type=Path, required=True, metavar="FILE", help="the list; made if it is not there")
    revoke.add_argument("--reason", default="revoked", metavar="TEXT", help="what workers say")
    revoke.add_argument(
        "--days", type=number(1, 3650), default=30, metavar="N", help="how long the list is good (default: 30)"
    )
    export = verbs.add_parser(
        "export", help="an environment with its bundles in one file, for a worker without a network"
    )
    export.add_argument("environment", metavar="ENV")
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    export.add_argument("--store-root", type=Path, metavar="DIR", help="default: ~/.greentic/environments")
    for verb in (sign, revoke):
        verb.add_argument("--key", type=Path, metavar="PEM", help="an Ed25519 private key; default: the operator's")
    return bundle


def main(argv: list[str]) -> int:
    arguments = parser().parsed(argv)
    return answered("bundle", arguments, lambda: _run(arguments), _hint(arguments))


def _run(arguments: argparse.Namespace) -> JsonObject:
    if arguments.verb == "build":
        from greentic.author.bundle_build import build_bundle
        from greentic.author.inspect import inspect_bundle
        from greentic.ground.disk import real_path

        out = arguments.out or Path(f"{real_path(arguments.directory).name}.gtbundle")
        built = build_bundle(arguments.directory, out)
        return {
            "path": str(built.path),
            "digest": built.digest,
            "size": built.size,
            "packs": list[Json](built.packs),
            "warnings": [*built.warnings, *cast("list[Json]", inspect_bundle(built.path, built.where)["warnings"])],
        }
    if arguments.verb in ("inspect", "verify"):
        from greentic.author.inspect import inspect_bundle, verify_bundle

        if arguments.verb == "inspect":
            return inspect_bundle(arguments.file)
        report = verify_bundle(arguments.file, arguments.digest)
        if arguments.key:
            from greentic.author.bundle_sign import verify_signature

            report |= verify_signature(arguments.file, str(report["digest"]), arguments.key)
        return report
    if arguments.verb == "export":
        from greentic.materialize.export_archive import export
        from greentic.store.environments import EnvironmentStore
        from greentic.store.layout import worked_on

        store = EnvironmentStore(worked_on(arguments.store_root))
        return export(store, arguments.environment, arguments.out)
    from greentic.author.bundle_publish import publish_file
    from greentic.author.bundle_revoke import revoke
    from greentic.author.bundle_sign import sign_file
    from greentic.ground.clock import SystemClock

    if arguments.verb == "sign":
        return sign_file(arguments.file, arguments.key, SystemClock())
    if arguments.verb == "publish":
        return publish_file(arguments.file, arguments.target, arguments.name)
    return revoke(
        arguments.list,
        arguments.digests,
        arguments.key_id,
        arguments.reason,
        arguments.key,
        arguments.days,
        SystemClock(),
    )


def _hint(arguments: argparse.Namespace) -> str:
    file, out, env = (shlex.quote(str(getattr(arguments, name, ""))) for name in ("file", "out", "environment"))
    hints = {
        "build": "gtc op deploy --bundle {path} --path-prefix /",
        "sign": f"publish it: gtc bundle publish {file} TARGET",
        "publish": f"gtc op revisions stage ENV --deployment NAME --bundle {file} --source-uri {{bundle_source_uri}}",
        "export": f"greentic-start start --env {env} --from {out}",
    }
    return hints.get(arguments.verb, "")
