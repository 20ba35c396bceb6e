"""How often a verb reads the environment's document: once, and once more after each change that it made itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import Author
from greentic.cli import op, op_table
from greentic.ground.errors import StoreError
from greentic.model.environment import Environment
from greentic.release import env_rehearsal
from greentic.store import environments
from greentic.trust.keys import SigningKey, public_pem
from simulators import SimulatedCluster


class Counted:
    """What became of the documents of environments, by their paths: a plan is rehearsed in a store of its own."""

    def __init__(self) -> None:
        self.read, self.written = Counter[Path](), Counter[Path]()

    def more_than_it_must(self) -> list[Path]:
        return [path for path, times in self.read.items() if times > 1 + self.written[path]]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    parse, save, readable = environments._read, environments.Transaction.save, environments.readable

    def reading(read: Callable[[bytes], Any], data: bytes, path: Path) -> Any:
        found.read[path] += path.name == "environment.json"
        return parse(read, data, path)

    def saving(transaction: environments.Transaction, env: Environment) -> None:
        found.written[transaction.paths.environment] += 1
        save(transaction, env)

    def read_back(document: Any, path: Path) -> bytes:
        found.read[path] -= path.name == "environment.json"  # that it can be read is the point there
        return readable(document, path)

    with monkeypatch.context() as patch:
        patch.setattr(environments, "_read", reading)
        patch.setattr(environments.Transaction, "save", saving)
        for module in (environments, env_rehearsal):
            patch.setattr(module, "readable", read_back)
        yield found


def words_of(author: Author, bundle: Path, tmp_path: Path) -> list[list[str]]:
    place = str(tmp_path / "published")
    manifest, pem, key = tmp_path / "env.yaml", tmp_path / "key.pem", SigningKey(bytes(32))
    manifest.write_text("schema: greentic.env-manifest.v1\nenvironment:\n  id: local\n  name: Again\n")
    pem.write_text(public_pem(key.public))
    return [
        line.split()
        for line in f"""
        env show local
        env list
        env update local --name Other
        env set-public-url local https://x.example
        env init
        env doctor local
        env repair local --apply
        env log local
        env changes local
        env status local
        env render local
        env reconcile local --dry-run
        env reconcile local --no-wait
        env diff local
        env sweep local
        env publish local {place}
        env pull local {place} --output {tmp_path}/pulled
        env history local {place}
        env rollback local {place}
        env create second --name S
        env migrate-dev second
        env verify local --at http://127.0.0.1:1
        env apply-traffic local demo
        env apply --answers {manifest} --yes
        credentials bootstrap local
        credentials rotate local
        revisions retry local demo@1
        trust-root add local --key-id {key.key_id} --public-key-file {pem}
        trust-root remove local --key-id {key.key_id}
        env prune local --dry-run
        env prune local --keep-revisions 1
        trust-root bootstrap local
        trust-root list local
        credentials requirements local
        delivery set local --signatures warn
        delivery show local
        bundles list local
        bundles add local bundle_id=other customer_id=acme route_binding.path_prefixes=["/o"]
        bundles update local --deployment other status=paused
        revisions stage local --deployment demo --bundle {bundle} --source-uri https://bundles.example.com/hello.gtbundle
        revisions warm local demo@2
        revisions list local
        traffic set local demo@2=100 --deployment demo --idempotency-key s2
        traffic show local --deployment demo
        traffic rollback local --deployment demo
        traffic set local demo@1=50 demo@2=50 --deployment demo --idempotency-key s3
        traffic set local demo@1=100 --deployment demo --idempotency-key s4
        revisions drain local demo@2
        revisions archive local demo@2
        env apply-revision local demo@1 --no-wait
        bundles remove local --deployment other
        env-packs list local
        env-packs add local slot=secrets kind=greentic.secrets.dev-store@1.0.0 pack_ref=builtin
        env-packs update local slot=secrets kind=greentic.secrets.dev-store@1.0.0 pack_ref=builtin
        env-packs rollback local slot=secrets
        env-packs remove local slot=secrets
        config show local
        config set local region=eu
        operator render local --from oci://r.example/e:1 --image r.example/w@sha256:{"0" * 64}
        deploy --env local --bundle {bundle} --bundle-id third --customer-id acme --path-prefix /t --source-uri https://b.example/hello.gtbundle
        bundles retire local third --customer acme --store-only
        traffic ramp local --deployment demo --to demo@9
        traffic clear local --deployment demo
        bundles retire local demo --customer acme --store-only
        env destroy local --confirm --store-only
        """.splitlines()
        if line.strip()
    ]


REFUSED = frozenset(
    {("env", "rollback"), ("env", "apply-traffic"), ("env", "verify"), ("revisions", "retry"), ("traffic", "clear"), ("traffic", "ramp"),
     ("credentials", "requirements"), ("credentials", "bootstrap"), ("credentials", "rotate"), ("env", "migrate-dev"),
     ("env-packs", "add")}
)  # fmt: skip
"""Verbs that need more than there is here; what they read before they say so counts as well."""


def test_no_verb_makes_a_value_of_the_same_document_twice(
    bound: Author,
    cluster: SimulatedCluster,
    hello: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A large one takes a second; a verb of several steps asked for it in each of them, `deploy` nine times."""
    seen: set[tuple[str, str]] = set()
    for words in words_of(bound, hello, tmp_path):
        verb = ("deploy", "run") if words[0] == "deploy" else (words[0], words[1])
        with counted(monkeypatch) as found:
            code = op.main(["--store-root", str(bound.context.store.root), *words])
        told = capsys.readouterr().err
        assert code in (0, 2) or verb in REFUSED, (words, told)
        assert not found.more_than_it_must(), (words, found.read, found.written)
        seen.add(verb)
    assert seen == {(v.noun, v.verb) for v in op_table.VERBS}


def test_a_document_that_somebody_changed_is_made_anew(bound: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bound.context.store
    path = store.paths("local").environment
    with counted(monkeypatch) as found:
        first = store.load("local")
        assert store.load("local") is first and found.read[path] == 1
        text = path.read_bytes()
        path.write_bytes(text + b"\n")
        again = store.load("local")
        assert again == first and again is not first and found.read[path] == 2
        path.write_bytes(b"{}")
        for _ in range(2):
            with pytest.raises(StoreError):
                store.load("local")
        path.write_bytes(text)
        assert store.load("local") == first
    other = Author(bound.context, "other").create()
    assert store.load(other.env_id).environment_id == "other" and store.load("local").environment_id == "local"
