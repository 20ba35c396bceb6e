"""Typed errors.

Rules:
1. Every error that a person may see is a `GreenticError` with a stable `kind`; the kinds are part of the
   interface (formats: op 3).
2. `message` says what was expected, what was found and where; `hint` says what to do next.
3. The text is `<prefix of the kind><message>`, as other programs print it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GreenticError(Exception):
    """An error with a stable `kind`, a text for people and, where there is one, the next step."""

    kind: ClassVar[str] = "store"
    prefix: ClassVar[str] = "storage error: "

    report: dict[str, Any] | None = None
    """What was done before the failure, for programs: JSON."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.prefix}{self.message}"


def worded(*parts: object) -> str:
    """What others say in parts, such as `Reason: message`, each of which may be missing or empty."""
    return ": ".join(text for part in parts if part is not None and (text := str(part).strip()))


class InvalidArgument(GreenticError):
    kind, prefix = "invalid-argument", "invalid argument: "


class AmbiguousName(GreenticError):
    """A name that could mean more than one thing; the message lists them."""

    kind, prefix = "ambiguous-name", "ambiguous name: "


class NotFound(GreenticError):
    kind, prefix = "not-found", "not found: "


class Conflict(GreenticError):
    kind, prefix = "conflict", "conflict: "


class SpecViolation(GreenticError):
    """A document breaks a rule of its schema."""

    kind, prefix = "spec", "spec validation failed: "


class StoreError(GreenticError):
    kind, prefix = "store", "storage error: "


class IoError(GreenticError):
    kind, prefix = "io", "io error on "


class AnswersParse(GreenticError):
    kind, prefix = "answers-parse", "invalid json/yaml in "


class PermissionMissing(GreenticError):
    """The identity may not do what a verb needs."""

    kind, prefix = "permission-missing", "permission missing: "


class NotYetImplemented(GreenticError):
    kind, prefix = "not-yet-implemented", "not yet implemented: "


class AuditError(GreenticError):
    kind, prefix = "audit", "audit log write failed after the mutation committed: "


class IntentError(AuditError):
    """The log could not tell what was about to be done, so it was not done."""

    prefix = "audit log cannot be written: "


class RevenuePolicyError(GreenticError):
    kind, prefix = "revenue-policy", "revenue policy: "


class TrustRootError(GreenticError):
    kind, prefix = "trust-root", "trust root: "


class OperatorKeyError(GreenticError):
    kind, prefix = "operator-key", "operator key: "


class FetchError(GreenticError):
    """A bundle could not be brought here."""

    kind, prefix = "fetch", "fetch failed: "


class Truncated(FetchError):
    """The body ended before its announced length: what came may be right, more must be asked for."""


class ServerBusy(FetchError):
    """The server has no answer now; `retry_after` is how many seconds it asks to wait, 0 if it does not say."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(FetchError):
    """The body is larger than the limit."""


class PartRefused(FetchError):
    """A part was asked for, and the answer is neither that part nor the whole."""


class UntrustedBundle(Conflict):
    """A bundle, revision or environment that is not signed as it must be, is revoked, or is older than what was seen."""


class DigestMismatch(Conflict):
    """The bytes are not the pinned ones: refuse, delete, never resume. `actual` is their digest, where it is known, `why` a known cause."""

    def __init__(self, message: str, *, actual: str = "", why: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.actual, self.why = actual, why


class MalformedArtifact(InvalidArgument):
    """A bundle or pack whose bytes break its format."""


class LimitExceeded(MalformedArtifact):
    """An artifact that would cost more than a named limit allows."""


class BootError(GreenticError):
    """A worker cannot start; `__cause__` holds the reason."""

    kind, prefix = "boot", ""


class FlowFailure(Exception):
    """A run that ended with an error; the text is what a caller is told.

    `retryable` is what a component said about trying again, nothing if it did not say; `backoff_ms` is how long it asks to wait.
    """

    def __init__(self, text: str = "", *, retryable: bool | None = None, backoff_ms: int | None = None) -> None:
        super().__init__(text)
        self.retryable, self.backoff_ms = retryable, backoff_ms
