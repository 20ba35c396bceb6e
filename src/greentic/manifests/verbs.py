"""The verbs that render objects as text, row by row: `env render` and `operator render`."""

from __future__ import annotations

from greentic.operate.verb import ENV, Flag, Verb

_N, _O = "greentic.manifests.env_render", "greentic.manifests.operator_render"
_OUTPUT = Flag("--output", "output", "write one YAML file an object there", "DIR")

VERBS: tuple[Verb, ...] = (
    Verb("env", "render", f"{_N}:render_objects", f"{_N}:EnvRenderPayload", "the Kubernetes objects, without asking a cluster",
         "gtc op env render prod --output manifests/", required=(ENV,),
         flags=(Flag("--kind", "kind", "the deployer's descriptor", "PATH@VERSION"), _OUTPUT,
                Flag("--push", "push", "push a document that the objects only point to", switch=True))),
    Verb("operator", "render", f"{_O}:render_operator", f"{_O}:OperatorRenderPayload",
         "the objects that let an operator keep a namespace, without asking a cluster",
         "gtc op operator render prod --from oci://registry.example.com/envs/prod:prod --output operator/",
         required=(ENV,),
         flags=(Flag("--from", "place", "where the environment is published", "PLACE"),
                Flag("--image", "image", "the operator's image (default: what pods run)", "IMAGE"),
                Flag("--wish", "kind", "Environment, or ConfigMap where none may be defined", "KIND"),
                Flag("--paused", "paused", "write nothing until that is taken back", switch=True),
                Flag("--operator-dry-run", "dry_run", "let it tell what it would write, and write nothing", switch=True),
                Flag("--adopt", "adopt", "let it take over objects of others under our names", switch=True),
                _OUTPUT),
         hint="kubectl apply -f DIR"),
)  # fmt: skip
