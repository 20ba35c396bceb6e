"""`gtc bundle publish`: a bundle, and the signature beside it, to where workers pull them."""

from __future__ import annotations

from pathlib import Path

from greentic.distribute.publish import Bundle, PublishedBundle, publish
from greentic.distribute.sources import signatures_at
from greentic.ground.disk import io_error
from greentic.ground.documents import JsonObject, open_file
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.net.terms import own_terms
from greentic.trust.gate import pin

_ASK_AGAIN = (
    "check the address, whether it answers from here, and as whom it is asked (`docker login`, OCI_USERNAME); "
    "publishing again is safe"
)


def publish_file(path: Path, target: str, name: str | None) -> JsonObject:
    """Publish a bundle, with its signature if one stands beside it."""
    called = name or path.name
    if "/" in called or called.startswith(".") or not called.isprintable():
        raise InvalidArgument(
            f"--name `{called}` is no name of a file", hint="a name without slashes, such as my.gtbundle"
        )
    try:
        with open_file(path) as file:
            bundle = pin(file)
            signature = next(iter(signatures_at(str(path), own_terms())), None)
            annotations = {
                "dev.greentic.bundle.digest": bundle.digest,
                "org.opencontainers.image.title": called,
            }
            found = publish(Bundle(called, file, bundle.digest, bundle.size, signature, annotations), target)
    except FetchError as error:
        error.hint = error.hint or _ASK_AGAIN
        raise
    except OSError as error:
        raise io_error(Path(error.filename or path), error) from None
    told: JsonObject = {} if found.replaced is None else {"warnings": [_replaced(found, called)]}
    return {
        "bundle_source_uri": found.uri,
        "bundle_digest": found.digest,
        "size": found.size,
        "uploaded": found.moved,
        "signature": found.signature,
        **told,
    }


def _replaced(found: PublishedBundle, name: str) -> str:
    return (
        f"`{name}` was `{found.replaced}` there until now: a revision that pinned it finds other bytes at this address and is refused; "
        "publish each version under a name of its own"
    )
