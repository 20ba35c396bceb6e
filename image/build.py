"""`make image`: the worker's image, made from this interpreter and this project's locked packages, without Docker or a registry.

    image/build.py [--out FILE.tar] [--name NAME] [--rootfs DIR]

What is inside: CPython without its tests and tools, the shared libraries that it and the packages name, the packages that a
worker needs at the versions that are installed here (scripts/setup.sh installs the locked ones), certificates of public
authorities, two programs. No shell, no package tools, no user that may write anywhere. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oci_layout import Layer, write_layout

PROJECT = Path(__file__).resolve().parent.parent
NAME = "greentic.local/worker:dev"
USER = "65532:65532"
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LIBRARIES = f"usr/lib/{platform.machine()}-linux-gnu"
PREFIX = "usr/local"
"""Where CPython lies in the image, wherever it lies here."""
LEFT_OUT = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "__pycache__", "venv",
    "distutils", "turtle.py", "_tkinter", "_test", "_xxtestfuzz", "xxlimited",
}  # fmt: skip
LEFT_OUT_PREFIXES = ("_tkinter", "_test", "_xx", "xxlimited", "xxsubtype")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = {"greentic-start": "start", "greentic-operator": "operator", "gtc": "gtc"}
"""Each program, and where it begins in `greentic.cli.programs`."""


def build_root(root: Path) -> None:
    """Fill `root` with the image's files."""
    for directory in ("etc", "tmp", "usr/lib", "usr/lib64", "var/greentic", "proc", "sys", "dev", "run"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for link in ("lib", "lib64", "bin"):
        (root / link).symlink_to(f"usr/{link}")
    _interpreter(root)
    _packages(root)
    _shared_libraries(root)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/:/sbin/nologin\nworker:x:65532:65532:worker:/var/greentic:/sbin/nologin\n"
    )
    (root / "etc/group").write_text("root:x:0:\nworker:x:65532:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    if AUTHORITIES.exists():
        (root / "etc/ssl/certs").mkdir(parents=True)
        shutil.copyfile(AUTHORITIES, root / "etc/ssl/certs/ca-certificates.crt")
    for name, beginning in PROGRAMS.items():
        program = root / PREFIX / "bin" / name
        program.write_text(
            f"#!/{PREFIX}/bin/python3 -I\nfrom greentic.cli.programs import {beginning}\n\n{beginning}()\n"
        )
        program.chmod(0o755)
    compiled = root / PREFIX / "lib" / VERSION
    # Checked by nobody at run time: the files cannot change, and no time stamp gets into the image.
    compileall.compile_dir(
        str(compiled),
        quiet=2,
        stripdir=str(root),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=0,
        optimize=0,
    )


def _interpreter(root: Path) -> None:
    source = Path(sys.base_prefix) / "lib" / VERSION
    target = root / PREFIX / "lib" / VERSION
    skipped = re.compile(r"^(config-.*|.*\.a|.*\.exe|libpython.*\.a)$")

    def ignore(directory: str, names: list[str]) -> set[str]:
        return {n for n in names if n in LEFT_OUT or skipped.match(n) or n.startswith(LEFT_OUT_PREFIXES)}

    shutil.copytree(source, target, ignore=ignore)
    binary = root / PREFIX / "bin" / "python3"
    binary.parent.mkdir(parents=True)
    shutil.copyfile(Path(sys.executable).resolve(), binary)
    binary.chmod(0o755)


def _packages(root: Path) -> None:
    """What workers and operators need: the project and what it requires with the extras `worker` and `cluster`."""
    site = root / PREFIX / "lib" / VERSION / "site-packages"
    site.mkdir(parents=True)
    for distribution in required("greentic", "worker", "cluster"):
        if distribution.metadata["Name"].lower() == "greentic":
            shutil.copytree(PROJECT / "src/greentic", site / "greentic", ignore=shutil.ignore_patterns("__pycache__"))
            metadata = site / f"greentic-{distribution.version}.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: greentic\nVersion: {distribution.version}\n"
            )
            continue
        for file in distribution.files or []:
            source = Path(str(distribution.locate_file(file)))
            inside = not file.parts[0].startswith("..")
            if (
                not inside
                or "__pycache__" in file.parts
                or file.suffix in (".pyc", ".pyi", ".h", ".pxd")
                or "tests" in file.parts
            ):
                continue
            if file.parts[0].endswith(".dist-info") and file.name not in ("METADATA", "LICENSE", "LICENSE.txt"):
                continue
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source.suffix == ".so" else 0o644)


def required(name: str, *extras: str) -> list[importlib.metadata.Distribution]:
    """The distribution `name` and all that it requires on this machine with some of its extras; of the others it takes none."""
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    pending = [name]
    while pending:
        wanted = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if wanted in found:
            continue
        found[wanted] = distribution = importlib.metadata.distribution(wanted)
        for line in _requirements(*extras) if wanted == name else distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return [found[key] for key in sorted(found)]


def _requirements(*extras: str) -> list[str]:
    """What the project itself requires, by its own file: what an installation was told may be older than that."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]


def _shared_libraries(root: Path) -> None:
    """Every library that a binary in the image names, and what those name, into the loader's own folder."""
    target = root / LIBRARIES
    target.mkdir(parents=True, exist_ok=True)
    binaries = [
        p
        for p in root.rglob("*")
        if p.is_file() and not p.is_symlink() and (p.suffix == ".so" or ".so." in p.name or p.name == "python3")
    ]
    origins = [Path(sys.executable).resolve(), *binaries]
    named: dict[str, Path] = {}
    for binary in origins:
        told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for library, place in re.findall(r"^\s*(\S+) => (/\S+)", told, re.MULTILINE):
            if not place.startswith(str(root)):
                named.setdefault(library, Path(place))
        loader = re.search(r"^\s*(/lib64/ld-linux\S*)", told, re.MULTILINE)
        if loader:
            shutil.copyfile(loader.group(1), root / "usr/lib64" / Path(loader.group(1)).name)
            (root / "usr/lib64" / Path(loader.group(1)).name).chmod(0o755)
    for library, place in sorted(named.items()):
        shutil.copyfile(place.resolve(), target / library)
        (target / library).chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make the worker's image.",
        epilog="example: image/build.py --out dist/worker.tar --name registry.example.com/worker:1.0",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=PROJECT / "dist" / "greentic-worker.tar",
        help="the tar file (default: dist/greentic-worker.tar)",
    )
    parser.add_argument("--name", default=NAME, help=f"the image's name (default: {NAME})")
    parser.add_argument("--rootfs", type=Path, help="write the files there instead of an image; the Dockerfile uses it")
    arguments = parser.parse_args()
    if arguments.rootfs is not None:
        build_root(arguments.rootfs)
        return 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        build_root(root)
        size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and not p.is_symlink())
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        digest = write_layout(
            arguments.out, arguments.name, [Layer.of_tree(root)], entrypoint=[f"/{PREFIX}/bin/greentic-start"], user=USER,
            environment=["HOME=/var/greentic", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"], architecture=machine,
        )  # fmt: skip
    print(
        f"{arguments.out}: {arguments.name}, {arguments.out.stat().st_size / 1e6:.1f} MB packed, {size / 1e6:.1f} MB unpacked"
    )
    print(f"{digest}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
