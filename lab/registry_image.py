"""A registry for tests and the demo: prints its image and the program in it, and loads it where it had to be made.

In the lab it is Debian's registry, with the libraries that it names; elsewhere the public image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
NAME, PROGRAM = "greentic.lab/registry:1", "/usr/bin/docker-registry"


def main() -> None:
    if os.environ.get("CLUSTER", "lab") != "lab":
        print("registry:2 /bin/registry")
        return
    sys.path.insert(0, str(PROJECT / "image"))
    from oci_layout import Layer, write_layout

    binary = shutil.which("docker-registry")
    if binary is None:
        sys.exit("docker-registry is missing: apt-get install docker-registry")
    with tempfile.TemporaryDirectory() as top:
        root = Path(top)
        target = root / "files" / PROGRAM.lstrip("/")
        target.parent.mkdir(parents=True)
        shutil.copyfile(binary, target)
        target.chmod(0o755)
        told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        for place in re.findall(r"(/\S+) \(0x", told):
            library = root / "files" / place.lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(place).resolve(), library)
            library.chmod(0o755)
        archive = root / "registry.tar"
        write_layout(archive, NAME, [Layer.of_tree(root / "files")], entrypoint=[PROGRAM], user="65532")
        subprocess.run(
            [PROJECT / "lab/run.sh", "load", archive],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, "CLUSTER": "lab"},
        )
    print(f"{NAME} {PROGRAM}")


if __name__ == "__main__":
    main()
