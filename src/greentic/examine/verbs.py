"""The verbs that look at an environment, row by row: `env doctor`, `repair`, `log`, `changes` and `verify`."""

from __future__ import annotations

from greentic.operate.verb import AT, ENV, Flag, Verb

_D, _L = "greentic.examine.env_doctor", "greentic.examine.env_log"
_V = "greentic.examine.env_verify"

VERBS: tuple[Verb, ...] = (
    Verb("env", "doctor", f"{_D}:doctor", "", "examine an environment, even one that does not load",
         "gtc op env doctor prod", required=(ENV,)),
    Verb("env", "repair", f"{_D}:repair", f"{_D}:RepairPayload", "archive routed revisions whose files are gone",
         "gtc op env repair prod --check", required=(ENV,),
         flags=(Flag("--check", "check", "only look", switch=True), Flag("--apply", "apply", "do it", switch=True))),
    Verb("env", "log", f"{_L}:log", f"{_L}:EnvLogPayload", "who changed what, and when", "gtc op env log prod --last 20",
         flags=(Flag("--last", "last", "how many of the newest changes (50)", "N"),)),
    Verb("env", "changes", f"{_L}:changes", f"{_L}:EnvChangesPayload", "what differs between two generations",
         "gtc op env changes prod --from 7 --to 9",
         flags=(Flag("--from", "from_generation", "the older one; without it the newest backup", "N"),
                Flag("--to", "to_generation", "the newer one; without it the document", "N"))),
    Verb("env", "verify", f"{_V}:verify", f"{_V}:EnvVerifyPayload", "what workers prove that they serve, field by field",
         "gtc op env verify prod --at http://127.0.0.1:8080 --proof-key 21fe…", codes=f"{_V}:CODES",
         flags=(AT, Flag("--proof-key", "proof_keys", "who must have signed: a key id, or a file of public keys", "FILE|ID", repeat=True))),
)  # fmt: skip
