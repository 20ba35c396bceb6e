"""The worker's image: complete by itself, small in what it holds, and the same bytes each time."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from turns import once

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "image"))
import build
from oci_layout import Layer, write_layout


@pytest.fixture(scope="module")
def root(shared_directory) -> Path:
    """The image's files, laid out once for all processes of the run. Nobody writes there."""
    made = shared_directory / "rootfs"
    with once(shared_directory / "rootfs.lock"):
        if not made.exists():
            build.build_root(made.with_suffix(".new"))
            made.with_suffix(".new").rename(made)
    return made


def inside(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the image as its whole file system."""
    if os.geteuid() != 0:
        pytest.skip("changing the root directory needs root")
    return subprocess.run(
        [shutil.which("chroot") or "/usr/sbin/chroot", str(root), *words],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/var/greentic"},
    )


@pytest.mark.e2e
def test_both_programs_run_with_nothing_but_the_image(root):
    for program in ("greentic-start", "greentic-operator", "gtc"):
        done = inside(root, f"/usr/local/bin/{program}", "--version")
        assert done.returncode == 0 and done.stdout.startswith(program), done.stderr


@pytest.mark.e2e
def test_every_part_of_a_worker_loads_in_the_image(root):
    script = "import ssl, sqlite3, wasmtime, cryptography.hazmat.primitives.asymmetric.ed25519, cbor2, msgspec, greentic.worker.server, greentic.wasm.engine; print(ssl.OPENSSL_VERSION)"
    done = inside(root, "/usr/local/bin/python3", "-I", "-c", script)
    assert done.returncode == 0, done.stderr


def test_there_is_no_shell_and_no_installer_and_three_programs(root):
    names = {p.name for p in root.rglob("*")}
    assert not names & {"sh", "bash", "busybox", "pip", "apt-get", "kubectl", "pytest", "mypy", "ensurepip"}
    assert {p.name for p in (root / "usr/local/bin").iterdir()} == {
        "python3",
        "greentic-start",
        "greentic-operator",
        "gtc",
    }


def test_nothing_tells_where_it_was_built(root):
    here = str(Path(__file__).resolve().parents[1]).encode()
    assert [
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and not p.is_symlink() and here in p.read_bytes()
    ] == []


def test_the_same_files_are_the_same_layer_whatever_their_times(tmp_path):
    for name, when in (("one", 1), ("two", 2_000_000_000)):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/a").write_text("a")
        (tmp_path / name / "bin/a").chmod(0o755)
        (tmp_path / name / "link").symlink_to("bin/a")
        os.utime(tmp_path / name / "bin/a", (when, when))
    assert Layer.of_tree(tmp_path / "one") == Layer.of_tree(tmp_path / "two")


def test_the_layout_names_its_parts_by_digest(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_text("a")
    layers = [Layer.of_tree(tmp_path / "root")]
    digest = write_layout(tmp_path / "image.tar", "example.com/a:1", layers, entrypoint=["/a"], user="65532")
    with tarfile.open(tmp_path / "image.tar") as tar:
        read = lambda name: tar.extractfile(name).read()
        index = json.loads(read("index.json"))
        assert index["manifests"][0]["digest"] == digest
        manifest = json.loads(read(f"blobs/sha256/{digest.removeprefix('sha256:')}"))
        layer = read(f"blobs/sha256/{manifest['layers'][0]['digest'].removeprefix('sha256:')}")
        config = json.loads(read(f"blobs/sha256/{manifest['config']['digest'].removeprefix('sha256:')}"))
    assert config["config"]["User"] == "65532" and config["rootfs"]["diff_ids"] == [layers[0].unpacked]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert [(i.name, i.mode, i.mtime, i.uid) for i in inner] == [("a", 0o644, 0, 0)]
    assert write_layout(tmp_path / "again.tar", "example.com/a:1", layers, entrypoint=["/a"], user="65532") == digest
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "image.tar").read_bytes()
