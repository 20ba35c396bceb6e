"""The media types of manifests and layers that registries hold, and which of them a bundle may have."""

from __future__ import annotations

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPTED = (
    MANIFEST, INDEX, "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
"""Kinds of manifest that are asked for."""
EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"
"""The configuration of an artifact that has none."""
BUNDLE_LAYER = "application/octet-stream"
"""What bundles are published as: the type that every worker of the field accepts."""
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
"""What a signature is attached as."""
PREFERRED = (
    "application/vnd.greentic.pack+json", "application/vnd.greentic.gtpack.v1+zip", "application/vnd.greentic.gtpack+zip",
    "application/vnd.greentic.pack+zip", "text/markdown",
)  # fmt: skip
"""Of several layers the first of these types is the bundle."""
LAYER_TYPES = frozenset(
    {
        *PREFERRED, "application/vnd.greentic.gtpack.layer.v1+tar", BUNDLE_LAYER, "application/json",
        "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    }
)  # fmt: skip
LAYER_ENDINGS = ("+tar", "+tar+gzip", "+tar+zstd")
"""Types of layers that are taken besides `LAYER_TYPES`."""
