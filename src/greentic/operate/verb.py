"""One verb of `gtc op`: a row that says how its words become a payload and which function takes it.

Rules:
1. A row names its module and function as text; they are imported when the verb runs, so that starting one verb loads one module.
2. Rows stand beside their verbs, in `verbs.py` of the room whose functions they name; `cli/op_table.py` only joins them.
3. A function of a verb takes a `Context` and a payload (or ids) and answers a value; JSON is made of it at the edge.
"""

from __future__ import annotations

import msgspec


class Flag(msgspec.Struct, frozen=True):
    """A command line flag that fills a field of the payload, or of the options; without a field it is accepted and does nothing."""

    name: str
    field: str
    help: str
    metavar: str = "VALUE"
    switch: bool = False
    repeat: bool = False


class Verb(msgspec.Struct, frozen=True):
    """One verb. `call` is `module:function`; `payload` is `module:Struct`, or empty for verbs that take an id alone."""

    noun: str
    verb: str
    call: str
    payload: str
    summary: str
    example: str
    positionals: tuple[str, ...] = ("environment_id",)
    """Payload fields that may be given as plain words, in order."""
    required: tuple[str, ...] = ()
    """Positionals without which the command line is wrong."""
    flags: tuple[Flag, ...] = ()
    options: str = ""
    """`module:Type` of what steers the verb and is no part of its payload; the function takes it third."""
    needs: tuple[tuple[str, str], ...] = ()
    """Fields that the inline form must have, with how to give them."""
    exclusive: bool = False
    """Whether inline words and --answers together are an error."""
    schema_text: str = ""
    """What `--schema` prints where there is no payload."""
    changes_member: str = ""
    """A member of the result that, when true, makes the exit code 2: there is something to do."""
    codes: str = ""
    """`module:name` of exit codes by the result's `state`; a state that is not among them is 0."""
    watch: bool = False
    """Whether `--watch` asks again and again, until it is interrupted."""
    hint: str = ""
    """The next step, shown at a terminal after success; fields of the result stand in braces."""

    @property
    def name(self) -> str:
        """What stands behind `gtc op`."""
        return self.noun if self.noun == "deploy" else f"{self.noun} {self.verb}"


ENV = "environment_id"
DEPLOYMENT = Flag("--deployment", "deployment_id", "the deployment: its bundle, or its ULID", "NAME")
KEY = Flag("--idempotency-key", "idempotency_key", "makes a repeated call safe", "KEY")
AT = Flag("--at", "at", "the address of a worker to ask", "URL", repeat=True)
UPDATED_BY = Flag("--updated-by", "updated_by", "who is recorded as the author", "WHO")
