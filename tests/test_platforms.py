"""What an operator may lack: Linux, and the packages that only a worker needs. Each is tried in a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PROGRAMS

AUTHORING = """
import json, pathlib, sys
from greentic.cli.gtc import _dispatch
store, bundle = sys.argv[1:3]
def op(*words):
    import contextlib, io
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = _dispatch(["op", "--store-root", store, *words])
    assert code == 0, (words, said.getvalue())
    return json.loads(said.getvalue())["result"]
op("env", "create", "prod", "--name", "P")
op("trust-root", "bootstrap", "prod")
deployment = op("bundles", "add", "prod", "bundle_id=hello", "customer_id=acme", 'route_binding.path_prefixes=["/"]')["deployment_id"]
revision = op("revisions", "stage", "prod", "--deployment", deployment, "--bundle", bundle, "--source-uri", "https://example.com/b")["revision_id"]
op("revisions", "warm", "prod", "revision_id=" + revision)
op("traffic", "set", "prod", revision + "=100", "--deployment", deployment, "--idempotency-key", "k")
op("delivery", "set", "prod", "--signatures", "warn")
for words in (("env", "doctor", "prod"), ("env", "list"), ("bundles", "list", "prod"), ("revisions", "list", "prod"), ("traffic", "show", "prod", "--deployment", deployment),
              ("trust-root", "list", "prod"), ("delivery", "show", "prod"), ("config", "show", "prod"), ("env-packs", "list", "prod"),
              ("env", "update", "prod", "--name", "Q"), ("revisions", "archive", "prod", "revision_id=" + op(
                  "revisions", "stage", "prod", "--deployment", deployment, "--bundle", bundle, "--source-uri", "https://example.com/b")["revision_id"])):
    op(*words)
import shutil
copy = pathlib.Path(store).parent / "copy.gtbundle"
shutil.copy(bundle, copy)
pack = str(copy.with_name("a-pack"))
for words in (("bundle", "inspect", str(copy)), ("bundle", "verify", str(copy)), ("bundle", "sign", str(copy)), ("cache", "list"), ("cache", "verify"),
              ("cache", "prune"), ("bundle", "publish", str(copy), str(copy.with_name("published"))), ("pack", "new", pack),
              ("bundle", "revoke", "sha256:" + "0" * 64, "--list", str(copy.with_name("revoked")))):
    import contextlib, io
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = _dispatch(list(words))
    assert code == 0, (words, said.getvalue())
print("authored", *sorted({"wasmtime", "redis", "uvicorn"} & set(sys.modules)))
"""

ELSEWHERE = """
import asyncio, ctypes, multiprocessing, os, select, socket, subprocess, sys, urllib.request  # the library was built for this system
for name in ("fdatasync", "sched_getaffinity", "pidfd_open", "memfd_create", "O_PATH", "O_TMPFILE", "posix_fallocate", "posix_fadvise",
             "copy_file_range", "splice", "getrandom", "setns", "unshare", "eventfd", "getxattr", "listxattr", "setxattr"):
    if hasattr(os, name):
        delattr(os, name)
for module, name in ((select, "epoll"), (socket, "SOCK_CLOEXEC"), (socket, "SOCK_NONBLOCK"), (socket, "MSG_NOSIGNAL")):
    if hasattr(module, name):
        delattr(module, name)
library = ctypes.CDLL
def without_linux_calls(*words, **options):
    found = library(*words, **options)
    if words[:1] == (None,):
        def refuse(*arguments):
            raise SystemError("a call by a number of Linux")
        found.syscall = found.prctl = refuse
    return found
ctypes.CDLL = without_linux_calls
sys.platform = "darwin"
"""

WITHOUT_PACKAGES = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("wasmtime", "redis", "uvicorn", "httptools", "lightkube", "httpx2", "componentize_py"):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
"""


LINUX_ONLY = {
    "os": {
        "fdatasync", "sched_getaffinity", "sched_setaffinity", "pidfd_open", "memfd_create", "O_PATH", "O_TMPFILE", "O_DIRECT", "posix_fallocate",
        "posix_fadvise", "copy_file_range", "splice", "getrandom", "setns", "unshare", "eventfd", "getxattr", "listxattr", "setxattr", "P_PIDFD",
        "getresuid", "setresuid", "getresgid", "setresgid", "fexecve", "sendfile",
    },
    "select": {"epoll"},
    "socket": {"SOCK_CLOEXEC", "SOCK_NONBLOCK", "MSG_NOSIGNAL", "SO_PEERCRED", "TCP_USER_TIMEOUT", "TCP_QUICKACK", "TCP_DEFER_ACCEPT", "AF_NETLINK"},
    "signal": {"sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX"},
    "resource": {"prlimit"},
}  # fmt: skip
"""What macOS has not, or has with another meaning."""

ALLOWED = {"materialize/sandbox.py": {"O_PATH"}, "distribute/serve_directory.py": {"sendfile"}}
"""Who uses one where it is the same: once it is known that the kernel is Linux's, or from a file to a socket."""

PROC = {"bundle/cores.py", "ingress/metrics.py", "wasm/engine.py"}
"""Who reads `/proc`, and does without where there is none."""


def test_nobody_calls_what_only_linux_has() -> None:
    """`hasattr(os, …)` and `getattr(os, …)` name it as a text, so an attribute that is written out is used unasked."""
    import ast

    source = Path(__file__).resolve().parent.parent / "src" / "greentic"
    found: list[str] = []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name.startswith("sdk/"):
            continue  # runs inside components
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used, module = node.attr, node.value.id
            elif isinstance(node, ast.ImportFrom) and node.module in LINUX_ONLY:
                found += [f"{name}:{node.lineno}: {a.name}" for a in node.names if a.name in LINUX_ONLY[node.module]]
                continue
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/proc"):
                found += [] if name in PROC else [f"{name}:{node.lineno}: {node.value}"]
                continue
            else:
                continue
            if used in LINUX_ONLY.get(module, ()) and used not in ALLOWED.get(name, ()):
                found.append(f"{name}:{node.lineno}: {module}.{used}")
    assert not found


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("lacking", [ELSEWHERE, WITHOUT_PACKAGES], ids=["no-linux", "no-packages-of-a-worker"])
def test_the_operators_program_authors_without(lacking: str, tmp_path: Path, hello: Path) -> None:
    done = run(lacking + AUTHORING, tmp_path / "store", hello)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "authored"


def test_the_sandbox_says_that_it_is_missing_and_asks_no_other_kernel(tmp_path: Path) -> None:
    done = run(
        ELSEWHERE + "from pathlib import Path\nfrom greentic.materialize.sandbox import restrict_writes\n"
        "print(restrict_writes([Path(sys.argv[1])]))",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "landlock: not available in this kernel\n"), done.stderr


@pytest.mark.parametrize(
    ("package", "program"),
    [
        (
            "wasmtime",
            "from greentic.components.runtime import ComponentRuntime; ComponentRuntime(None, None, print).made",
        ),
        (
            "wasmtime",
            "from pathlib import Path; from greentic.author.component_build import _from_text; _from_text(Path('a.wat'), b'')",
        ),
        ("redis", "from greentic.sessions.redis_store import RedisStore; RedisStore('redis://127.0.0.1:1')"),
    ],
)
def test_an_error_says_which_extra_is_missing(package: str, program: str) -> None:
    told = "from greentic.ground.errors import GreenticError\nimport json\n"
    told += f"try:\n    exec({program!r})\nexcept GreenticError as error:\n    print(json.dumps([error.kind, str(error), error.hint]))"
    done = run(WITHOUT_PACKAGES + told)
    kind, text, hint = json.loads(done.stdout or "[0,0,0]")
    assert kind == "missing-package", done.stderr
    assert f"`{package}`" in text and hint == "pip install 'greentic[worker]'"


def test_one_place_tells_the_version() -> None:
    import greentic

    for name in ("gtc", "greentic-start"):
        said = subprocess.run([PROGRAMS / name, "--version"], capture_output=True, text=True, check=True).stdout
        assert said == f"{name} {greentic.__version__}\n"
    project = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and 'attr = "greentic.__version__"' in project
