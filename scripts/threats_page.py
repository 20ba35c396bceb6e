"""docs/threats.md: what may go wrong, the rule that answers it, where the rule lives, the tests that hold it.

The rules are written here; the tests are found by their names: `test_threat_<row>_…` holds a row, and a kind is held by its rows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "threats.md"


class Row(NamedTuple):
    """One attack or accident. Its name with `_` for `-` begins the names of its tests."""

    name: str
    rule: str
    where: str
    """Rooms and modules below src/greentic, with blanks between."""


class Kind(NamedTuple):
    """One kind of fault, whose rows are examples."""

    number: int
    name: str
    rule: str
    where: str
    rows: str
    """Names of rows, with blanks between."""


ROWS = (
    # -- trust
    Row("stripped-signature", "A required signature that is missing, empty or of an unknown form is refused; nothing optional decides whether it is asked for.", "trust materialize/trusted.py deployments/stage.py"),
    Row("signature-purpose", "A signed statement says what it is. A reader takes one payload type and one predicate, and refuses every other.", "trust store/seal.py"),
    Row("pinned-subset", "What is served equals what was pinned, pack for pack; nothing that came along is added.", "materialize/placed.py materialize/pull.py"),
    Row("edited-document", "A document that an anchor must have sealed is refused after any change that the seal does not cover.", "materialize/trusted.py store/seal.py"),
    Row("rollback", "A generation that is older than one that was seen is refused, unless the operator says that it is meant.", "materialize/trusted.py"),
    Row("state-beside", "What protects does not rest on a file whose loss nobody notices.", "materialize/trusted.py store"),
    Row("poisoned-document", "What is saved was read back first, so no value from outside makes the document unreadable.", "store/environments.py operate/change.py"),
    Row("refused-import", "Every check comes before the first write; what was refused changed nothing.", "materialize/import_archive.py materialize/seed.py"),
    Row("fail-open-gate", "A gate that is configured for one is closed for all that it covers; an empty list opens nothing.", "ingress/auth.py trust"),
    Row("unauthenticated-invoke", "Strangers drive no worker: a bearer token compared in constant time, or a peer on loopback that no proxy speaks for.", "ingress/auth.py ingress/identity.py k8s/network_policies.py"),
    Row("browser-on-loopback", "A page in a browser on the same machine is no trusted peer: the host must be ours, and the origin not foreign.", "ingress"),
    Row("lying-worker", "What a worker says it serves is believed with a signature by its key and the asker's nonce, and compared field by field, not as a subset.", "trust/proof.py trust/proof_verdict.py ingress/status_proof.py examine/env_verify.py"),
    Row("host-rebinding", "A name of somebody else's that leads to this machine opens nothing: a page that is served here answers to its own address and port alone.", "console/door.py ingress/trusted_peer.py"),
    Row("foreign-page", "A page of another site can neither read nor do anything through a browser that may: its origin is refused, and what acts needs a header that no form sends.", "console/door.py ingress/trusted_peer.py"),
    Row("text-of-others", "What bundles say is a text: never markup, never a script, never an address that runs or reaches inside, and bounded in depth and length.", "console/static console/pictures.py"),
    # -- bytes
    Row("verify-then-refetch", "The file that was hashed is the file that is read: private, opened once, written by nobody else.", "trust/gate.py materialize/pull.py"),
    Row("prefix-signed", "A digest covers every byte, also beyond 2 and 4 GiB.", "trust/gate.py"),
    Row("archive-escape", "Unpacking makes regular files, directories and links that stay inside, relative to an open directory, never through a link.", "materialize/unpack.py bundle/contents.py"),
    Row("bomb", "Entries, bytes, ratio, depth and block sizes are limited while inflating.", "bundle/limits.py bundle/compression.py"),
    Row("malformed-image", "Whatever the bytes are, reading ends in one typed error, within the limits of time and memory.", "bundle pack"),
    Row("expansion", "A limit is on the total and on the product, and comes before the work.", "pack bundle flow"),
    Row("cbor-bomb", "Few bytes of a manifest never become many values.", "pack/cbor.py"),
    Row("deep-body", "Depth of a body is bounded at the door and inside a run.", "ingress/app.py flow/bounds.py"),
    Row("foreign-native-code", "Machine code is made here, kept in a directory of this user by what it was made from, and never taken from a bundle.", "wasm/compile_cache.py pack/components.py"),
    # -- servers
    Row("truncation", "A body that is short is asked for again from where it ended; only a whole one is compared.", "distribute/fetch.py"),
    Row("lying-server", "A part is taken only with the start and validator that were asked for; anything else begins anew, under limits of bytes and time.", "distribute"),
    Row("torn-cache", "A kept file is named by its digest, comes to its place whole, and is hashed again when a process first uses it.", "distribute/bundle_cache.py distribute/journal.py"),
    Row("ssrf", "Addresses of metadata services and of the machine's own network are refused in every spelling and after every redirect; names are compared in the ASCII form that is asked.", "net/egress.py net/dial.py ground/host_name.py"),
    Row("credential-origin", "A credential goes to the origin that it is for, judged by where the answer came from.", "registry/login.py registry/client.py net/request.py"),
    Row("slow-peer", "Whatever somebody sends or withholds has a deadline and a count; probes are answered meanwhile.", "httpd ingress net"),
    Row("unbounded-head", "Target, fields, their number and trailers are limited, and told early.", "httpd"),
    Row("body-lost", "Announced and received lengths are compared; what we do not speak is ignored and the body kept.", "httpd net/request.py"),
    Row("header-injection", "A field that could smuggle a request is refused, and its value is not shown.", "components/http_client.py"),
    Row("no-way-back", "Every failure leaves a state from which the next try can succeed.", "distribute"),
    Row("optional-fatal", "What is optional is told once by its name and done without.", "ground/optional.py"),
    # -- secrets
    Row("secret-leak", "Credentials are references; no output of a whole run holds a planted secret.", "k8s/render.py deployer/credentials.py telemetry/log.py"),
    # -- what a worker tells of itself
    Row("unbounded-labels", "Series are capped, what is beyond counts under `other`; no value of a label comes from a caller.", "telemetry/families.py telemetry/tallies.py ingress/metrics.py"),
    Row("hostile-trace-context", "A trace context that is not exactly what the standard says is as if it were not there.", "telemetry/tracing.py"),
    Row("slow-collector", "A collector that is down, slow or wrong costs no request: the queue is bounded, a thread sends, the end waits a moment.", "telemetry/exporter.py"),
    Row("log-injection", "A record is one line without control characters; a caller's request id is taken only if it is short and inert.", "telemetry/log_lines.py telemetry/request_id.py"),
    Row("terminal-escapes", "No text of others steers a terminal or moves what stands beside it: what is not printable, or not seen, is shown as its escape, and what is read from the right is isolated.", "terminal"),
    Row("audit-edited", "A line of the audit that was changed, moved or taken out shows at the line behind it.", "history/line_chain.py store/audit.py examine/env_doctor.py"),
    Row("log-flood", "What a component says is limited by time; what is left out is counted and told.", "telemetry/component_output.py"),
    Row("secret-before-validation", "Nothing is recorded before it was recognised; addresses with credentials are refused when they are authored.", "operate/payload.py store/audit.py"),
    # -- the store and the machine
    Row("id-traversal", "Ids have one grammar, checked where they enter; nothing else becomes part of a path.", "model/ids.py store/layout.py"),
    Row("stale-lock", "A lock ends with its process.", "ground/lock.py"),
    Row("torn-store", "A command that ended anywhere leaves the old state or the new one, and the next repairs the rest.", "store/recovery.py materialize/staging.py"),
    Row("two-writers", "Of two writers one waits or fails with a conflict; no change is lost.", "store/environments.py"),
    Row("needed-gone", "What is routed, one step back, not archived, retained or held by a process is never tidied away; what goes leaves no half.", "materialize/retention.py materialize/prune.py store/in_use.py worker/tidy.py"),
    # -- components and conversations
    Row("runaway-component", "A call has a deadline and a limit of memory; after a trap its instance is gone and the worker serves.", "wasm components"),
    Row("waiting-component", "Waiting counts against the deadline and holds up nobody else.", "wasm ingress/app.py"),
    Row("confused-types", "What a component answers is judged by its type, not by a field that says it went well.", "components/interfaces.py flow/results.py"),
    Row("replayed-message", "A message is applied once, to the state that it was sent for.", "sessions activate/turn.py flow"),
    Row("failure-forgets", "A failure keeps what waited; only what says that it may be repeated is repeated.", "activate/turn.py flow/engine.py"),
    Row("drain-race", "A worker that ends says so first, finishes what runs, and loses no request.", "worker/server.py"),
    # -- clusters
    Row("oversized-environment", "What is larger than a cluster takes is refused before anything is applied, with the size and the limit.", "k8s/render.py"),
    Row("false-convergence", "In sync means that the fields we own are the ones that were wished.", "k8s/plan.py cluster/apply.py"),
    Row("prune-strangers", "Only what carries our labels and this store's identity is deleted, and what is written is written to what was seen, under preconditions.", "k8s/ownership.py cluster/apply.py"),
    Row("lists-disagree", "One definition of private and metadata addresses is used by the worker, by components and by rendered policies.", "net/egress.py k8s/network_policies.py"),
)  # fmt: skip

KINDS = (
    Kind(1, "one signature, one meaning", "Every signed statement says what it is, and every reader checks it.", "trust store/seal.py", "signature-purpose stripped-signature"),
    Kind(2, "equality, not subset", "Served is exactly what was pinned and sealed: packs, digests, configuration, routes.", "materialize", "pinned-subset verify-then-refetch prefix-signed edited-document"),
    Kind(3, "one question to every key", "Trusted for this, now, not revoked, within the threshold; requiring signatures names by whom.", "trust", "stripped-signature fail-open-gate"),
    Kind(4, "protective state", "What protects is bound to what it protects; untrusted input never replaces it before every check has passed.", "store materialize", "state-beside rollback refused-import poisoned-document"),
    Kind(5, "closed when in doubt", "A gate covers all that it is for, what loosens it is loud, and loopback is no proof of a person.", "ingress", "fail-open-gate unauthenticated-invoke browser-on-loopback host-rebinding foreign-page"),
    Kind(6, "nothing secret is written", "First recognise, then record; what is shown of an address has no credentials and no query.", "operate store telemetry", "secret-leak secret-before-validation log-injection"),
    Kind(7, "a credential has an origin", "It goes to the host that it is for, by the rules of the files that it stands in.", "registry net", "credential-origin ssrf"),
    Kind(8, "limits before the work", "On the total and the product: names by depth, shared references, entries, all memories, all calls.", "bundle pack flow wasm", "bomb expansion cbor-bomb unbounded-head deep-body unbounded-labels"),
    Kind(9, "a deadline on everything from outside", "Heads, idle connections, tokens, documents, addresses, a component's sleep.", "net httpd ingress wasm", "slow-peer waiting-component runaway-component slow-collector"),
    Kind(10, "only typed errors", "Untrusted bytes and command lines end in a sentence, in seconds, in bounded memory.", "bundle pack flow registry", "malformed-image expansion confused-types"),
    Kind(11, "patience is a property of asking", "Every question to a server has the same tries, deadlines, cut detection and errors.", "ground/backoff.py net distribute", "truncation lying-server"),
    Kind(12, "the answer as a whole", "Length against announcement, repeated fields, lists, the scope that was asked for; requests likewise.", "net registry httpd", "body-lost lying-server header-injection"),
    Kind(13, "a way back", "Nothing that was kept makes every later try fail the same way.", "distribute", "no-way-back torn-cache torn-store"),
    Kind(14, "optional things are optional", "Told once, by the right name, and done without.", "ground/optional.py", "optional-fatal"),
    Kind(15, "as liberal as the format's own program", "The digest decides what is right, so a reader takes what the format's writers make.", "bundle net", "malformed-image archive-escape"),
    Kind(16, "a message and its state", "Applied to the state that it was sent for, once.", "activate sessions flow", "replayed-message"),
    Kind(17, "failure takes nothing away", "What waited still waits, and no effect is made twice.", "activate flow", "failure-forgets"),
    Kind(18, "what can never work is said early", "At build, lint, verify, warm and in the status, before anybody waits for it.", "components/foreseen.py activate/warm.py flow/lint.py author", "foreign-native-code"),
    Kind(19, "values cross whole", "Or they are refused with a sentence.", "wasm/values.py components/interfaces.py", "confused-types"),
    Kind(20, "two lists never disagree", "One definition of which addresses are private, and ids that are inert wherever they are written.", "net/egress.py k8s", "lists-disagree id-traversal"),
)  # fmt: skip


def tests_of(name: str) -> list[str]:
    """The tests that are named after a row, in the order of their names."""
    return sorted(
        test
        for test in threat_tests()
        if test.startswith(f"test_threat_{name.replace('-', '_')}_") or test == f"test_threat_{name.replace('-', '_')}"
    )


def threat_tests() -> set[str]:
    """Every test that is named after a threat."""
    # Not below the folders that a test which runs at the same time makes and takes away.
    texts = (
        path.read_text() for path in sorted([*ROOT.glob("tests/test_*.py"), *ROOT.glob("tests/cluster/test_*.py")])
    )
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_threat_\w+)\(", text, re.MULTILINE)}


def page() -> str:
    """The whole page."""
    lines = [
        "# Threats",
        "",
        "What may go wrong, by attack or by accident, and what must happen then. Printed by `make docs` from `scripts/threats_page.py`, where the",
        "rules are written; the tests are found by their names. Refusing always means: a typed error, nothing activated, and what served before",
        "serves still.",
        "",
        "## By kind",
        "",
        "A fault that was found is one example of a kind; the rule holds wherever the kind may occur.",
        "",
        "| | kind | rule | where | rows below |",
        "|---|---|---|---|---|",
        *(f"| {k.number} | {k.name} | {k.rule} | {_code(k.where)} | {', '.join(k.rows.split())} |" for k in KINDS),
        "",
        "## By row",
        "",
        "| row | rule | where | tests |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        prefix = f"test_threat_{row.name.replace('-', '_')}"
        short = [f"`…{test.removeprefix(prefix)}`" if test != prefix else f"`{test}`" for test in tests_of(row.name)]
        lines.append(f"| {row.name} | {row.rule} | {_code(row.where)} | {', '.join(short) or 'none yet'} |")
    return "\n".join(
        [
            *lines,
            "",
            "The name of a test is `test_threat_`, the row with `_` for `-`, and what stands in the table.",
            "",
        ]
    )


def _code(where: str) -> str:
    return ", ".join(f"`{name if name.endswith('.py') else name + '/'}`" for name in where.split())
