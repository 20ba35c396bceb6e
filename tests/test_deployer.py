"""The deployer's verbs over a simulated cluster: what they answer, and what must never be seen, sent or used."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IMAGE, PLANTED, Author
from greentic.controller.left_behind import left_behind
from greentic.deployer import binding, cluster_identity, cluster_status, reconcile, rollout, sweep
from greentic.deployer.dry_run import DryRun
from greentic.deployments import env_status, revisions
from greentic.examine.env_doctor import doctor
from greentic.ground.documents import Json, JsonObject, replace
from greentic.ground.errors import Conflict
from greentic.ground.reply import reply_object
from greentic.history.left_namespaces import left_in
from greentic.k8s import names
from greentic.k8s.objects import ApiRefused, Listed, Ref, member, metadata_of, objects_in
from greentic.k8s.plan import MARKED, Owner
from greentic.manifests import env_render
from greentic.model.environment import Environment
from greentic.operate import env
from greentic.store.environments import EnvironmentStore
from greentic.store.secret_variables import secret_of, variable_of
from greentic.terminal.changes_view import show_changes
from greentic.terminal.output import print_failure, print_success
from simulators import SimulatedCluster

E = "local"


def reconciled(author: Author, **how: object) -> reconcile.ReconcileReport | DryRun:
    payload = reconcile.EnvReconcilePayload(environment_id=E, no_wait=True, **how)
    return reconcile.reconcile_environment(author.context, payload)


def test_threat_false_convergence_a_second_reconcile_writes_nothing(bound, cluster):
    first = reconciled(bound)
    assert first.applied_count == 15 and len(first.created) == 15 and first.writes == 16
    again = reconciled(bound)
    assert (again.created, again.changed, again.pruned, again.writes - first.writes) == ([], [], [], 0)
    assert again.applied == first.applied and again.unchanged_count == 15
    told = reconciled(bound, dry_run=True)
    assert told.in_sync and told.changes == [] and reply_object(told)["dry_run"] is True


EXPOSED = {"runtime_image": IMAGE, "expose": "ingress", "hosts": ["bots.example.com"]}
INGRESS = Ref("Ingress", names.ROUTER, "gtc-local")


class Meanwhile:
    """Does something to the cluster once the plan was made, before the first object is written."""

    def __init__(self, cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
        self._apply, self._act, self.applied = cluster.apply, act, 0
        self._once = threading.Lock()
        monkeypatch.setattr(cluster, "apply", self)

    def __call__(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        with self._once:
            if not self.applied:
                self._act()
            self.applied += 1
        return self._apply(thing, force=force, dry_run=dry_run)


def strangers(ref: Ref) -> JsonObject:
    own: JsonObject = {
        "name": ref.name,
        "namespace": ref.namespace,
        "uid": "theirs",
        "resourceVersion": "77",
        "labels": {"app": "theirs"},
    }
    return {"apiVersion": "v1", "kind": ref.kind, "metadata": own, "data": {"theirs": "value"}}


@pytest.mark.parametrize("force", [False, True])
def test_threat_prune_strangers_an_object_that_somebody_makes_between_plan_and_write_is_left_as_it_is(
    bound, cluster, monkeypatch, force
):
    ref = Ref("ConfigMap", names.ENV_STORE, "gtc-local")
    theirs = strangers(ref)
    with monkeypatch.context() as patch:
        Meanwhile(cluster, patch, lambda: cluster.objects.update({ref: theirs}))
        with pytest.raises(
            Conflict, match="made by somebody else while this ran, and was left as it is: .*no label"
        ) as told:
            reconciled(bound, force=force)
    assert cluster.objects[ref] == theirs and "--adopt" in str(told.value.hint)
    with pytest.raises(Conflict, match="are not its own, nothing was applied"):
        reconciled(bound)


def test_threat_prune_strangers_an_object_that_somebody_puts_in_the_place_of_ours_is_left_as_it_is(
    bound, cluster, monkeypatch
):
    reconciled(bound)
    ref = Ref("ConfigMap", names.ENV_STORE, "gtc-local")
    theirs = strangers(ref)
    bound.add("another", ("/another",))  # the document changes, and with it what is written
    Meanwhile(cluster, monkeypatch, lambda: cluster.objects.update({ref: theirs}))
    with pytest.raises(Conflict, match="made by somebody else while this ran"):
        reconciled(bound)
    assert cluster.objects[ref] == theirs


@pytest.mark.parametrize("adopt", [False, True])
def test_what_another_run_of_ours_makes_meanwhile_is_written_to_and_what_goes_is_made_again(
    bound, cluster, monkeypatch, adopt
):
    reconciled(bound)
    ref = Ref("ConfigMap", names.ENV_STORE, "gtc-local")
    whole = copy.deepcopy(cluster.objects)
    bound.add("another", ("/another",))
    with monkeypatch.context() as patch:
        gone = Meanwhile(cluster, patch, lambda: cluster.objects.pop(ref) and None)
        assert names.ENV_STORE in [told.name for told in reconciled(bound, adopt=adopt).changed]
    assert gone.applied == 2 and ref in cluster.objects
    after = metadata_of(cluster.objects[ref])["labels"]
    cluster.objects.clear()
    with monkeypatch.context() as patch:
        Meanwhile(cluster, patch, lambda: cluster.objects.update(whole))
        report = reconciled(bound, adopt=adopt)
    assert not (report.failed or []) and metadata_of(cluster.objects[ref])["labels"] == after
    assert names.ENV_STORE in [told.name for told in report.changed]  # another run made it, this one wrote to it
    assert names.ENV_STORE not in [told.name for told in report.created]
    assert "another" in str(cluster.objects[ref]["data"])


def test_a_first_reconcile_takes_one_request_an_object_beside_what_is_read(bound, cluster):
    reconciled(bound)
    read = 10 + sum(ref.kind in ("Secret", "ServiceAccount", "Role", "RoleBinding") for ref in cluster.objects)
    assert cluster.requests <= read + len(cluster.objects) and cluster.writes == len(cluster.objects)


def answered(author: Author, answers: dict) -> None:
    (author.context.store.paths(E).root / "answers.json").write_text(json.dumps(answers))


def test_in_sync_ten_requests_do_and_kinds_that_were_never_asked_for_are_not_looked_for(bound, cluster):
    reconciled(bound)
    before = cluster.requests
    cluster.listed.clear()
    told = reconciled(bound)
    assert (told.unchanged_count, told.created, told.changed, told.pruned) == (15, [], [], [])
    assert cluster.requests - before <= 10 and not MARKED & set(cluster.listed)
    assert "Lease" not in cluster.listed  # nobody puts back what is in sync, so nobody is looked for
    assert {"HorizontalPodAutoscaler", "Secret", "Deployment", "NetworkPolicy"} < set(cluster.listed)


def test_what_is_being_deleted_is_not_in_sync_and_says_what_holds_it(bound, cluster):
    reconciled(bound)
    thing = next(thing for ref, thing in cluster.objects.items() if (ref.kind, ref.name) == ("Service", names.ROUTER))
    thing["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["example.com/lb"]}
    told = reconciled(bound, dry_run=True)
    assert not told.in_sync and told.changes == []
    for report in (told, reconciled(bound)):
        (warned,) = [w for w in report.warnings if "is being deleted" in w]
        assert (
            f"`{names.ROUTER}`" in warned
            and "since 2026-01-02T03:04:05Z, held by example.com/lb. Next: once it is gone" in warned
        )


def put_beside(cluster: SimulatedCluster, ref: Ref, path: tuple[str, ...], value: Json) -> None:
    """Add a field to an object, as `kubectl edit` does."""
    thing = cluster.objects[ref]
    fields: JsonObject = {}
    member(thing, *path[:-1])[path[-1]] = value
    for step in reversed(path):
        fields = {f"f:{step}": fields}
    metadata = metadata_of(thing)
    metadata["managedFields"] = [
        *objects_in(metadata["managedFields"]),
        {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields},
    ]
    metadata["resourceVersion"] = f"{metadata['resourceVersion']}0"


def test_threat_false_convergence_what_is_added_by_hand_is_seen_named_and_taken_back(bound, cluster):
    reconciled(bound)
    selector, budget = Ref("Service", names.ROUTER, "gtc-local"), Ref("PodDisruptionBudget", names.ROUTER, "gtc-local")
    put_beside(cluster, selector, ("spec", "selector", "tier"), "web")
    put_beside(cluster, budget, ("spec", "maxUnavailable"), 1)
    told = reconciled(bound, dry_run=True)
    fields = {(c.name, f.field, f.after) for c in told.changes for f in c.fields}
    assert fields == {("gtc-router", ".spec.selector.tier", None), ("gtc-router", ".spec.maxUnavailable", None)}
    assert not told.in_sync and {c.manager for c in told.conflicts} == {"kubectl-edit"}
    with pytest.raises(Conflict, match=r"\.spec\.selector\.tier of Service .* is managed by `kubectl-edit`"):
        reconciled(bound)
    report = reconciled(bound, force=True)
    assert {(c.kind, c.name) for c in report.changed} == {(ref.kind, ref.name) for ref in (selector, budget)}
    assert "tier" not in cluster.objects[selector]["spec"]["selector"]
    assert (
        cluster.objects[budget]["spec"]["minAvailable"] == 1 and "maxUnavailable" not in cluster.objects[budget]["spec"]
    )
    assert reconciled(bound, dry_run=True).in_sync


def test_what_is_added_and_stays_is_told_by_who_looks_and_by_who_writes(bound, cluster):
    reconciled(bound)
    put_beside(cluster, Ref("Deployment", names.ROUTER, "gtc-local"), ("spec", "paused"), True)
    for report in (reconciled(bound, dry_run=True), reconciled(bound)):
        (told,) = [w for w in report.warnings if "kubectl-edit" in w]
        assert ".spec.paused" in told and "kubectl -n gtc-local edit deployment gtc-router" in told
    assert reconciled(bound, dry_run=True).in_sync


def test_a_namespace_that_was_answered_before_is_told_until_nothing_of_it_is_left(bound, cluster):
    answers = bound.context.store.paths(E).ref("answers.json")
    known = json.loads(answers.read_text())
    reconciled(bound)
    asked = env_status.EnvStatusPayload(environment_id=E)
    assert "warnings" not in reply_object(cluster_status.status(bound.context, asked))
    assert not [f for f in doctor(bound.context, E).findings or [] if f.kind == "left-behind"]
    answers.write_text(json.dumps({**known, "namespace": "elsewhere"}))
    command = "kubectl -n gtc-local delete "
    for said in (reconciled(bound).warnings, cluster_status.status(bound.context, asked).warnings):
        (told,) = [w for w in said if "was answered before" in w]
        assert "still runs there" in told and command in told and "-l app.kubernetes.io/managed-by=greentic" in told
        owner = binding.resolve(bound.context, E, None, live=False).owner
        assert f",greentic.ai/env={E},greentic.ai/store={owner.store}" in told, "another store's stay"
    (found,) = [f for f in doctor(bound.context, E).findings if f.kind == "left-behind"]
    assert "`gtc-local`" in found.message and f"gtc op env status {E}" in str(found.fix)
    assert command not in str(found.fix), "who asked no cluster does not know whose they are"
    for ref in [ref for ref in cluster.objects if ref.namespace == "gtc-local"]:
        del cluster.objects[ref]
    assert "warnings" not in reply_object(cluster_status.status(bound.context, asked))
    assert [f for f in doctor(bound.context, E).findings if f.kind == "left-behind"], "the log says so still"
    answers.write_text(json.dumps({**known, "namespace": "elsewhere", "router_replicas": 3}))
    reconciled(bound)
    assert not [f for f in doctor(bound.context, E).findings or [] if f.kind == "left-behind"]
    answers.write_text(json.dumps(known))
    reconciled(bound)
    (found,) = [f for f in doctor(bound.context, E).findings if f.kind == "left-behind"]
    assert "`elsewhere`" in found.message


def test_a_namespace_that_this_identity_may_not_see_may_hold_what_was_left(bound, cluster, monkeypatch):
    def refused(kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        raise ApiRefused("deployments is forbidden", status=403)

    paths, owner = bound.context.store.paths(E), Owner(E, "s")
    reconciled(bound)
    assert left_behind(cluster, left_in(paths, "gtc-local"), owner) == ([], [])
    monkeypatch.setattr(cluster, "list", refused)
    (told,), empty = left_behind(cluster, left_in(paths, "elsewhere"), owner)
    assert empty == [] and "may still be there, which this identity may not see" in told


@pytest.mark.parametrize("older", [False, True])
def test_threat_false_convergence_a_kind_that_was_asked_for_is_looked_for_after_a_failure_too(
    older, bound, cluster, monkeypatch
):
    """An Ingress that is not answered any more and could not be deleted is not forgotten; nor one from before kinds were named."""
    answered(bound, EXPOSED)
    reconciled(bound)
    assert INGRESS in cluster.objects
    store = cluster.objects[Ref("ConfigMap", names.ENV_STORE, "gtc-local")]
    if older:
        del store["metadata"]["annotations"]
        del store["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:annotations"]
    answered(bound, {"runtime_image": IMAGE})

    def refused(*_: object, **__: object) -> bool:
        raise ApiRefused("no deleting today", status=403)

    with monkeypatch.context() as patched, pytest.raises(Conflict, match="no deleting today"):
        patched.setattr(cluster, "delete", refused)
        reconciled(bound)
    assert INGRESS in cluster.objects
    told = reconciled(bound)
    assert [(o.kind, o.name) for o in told.pruned] == [("Ingress", names.ROUTER)] and INGRESS not in cluster.objects
    writes = cluster.writes
    assert reconciled(bound).pruned == [] and cluster.writes == writes


def test_kinds_that_a_stranger_names_are_not_believed(bound, cluster):
    answered(bound, EXPOSED)
    reconciled(bound)
    store = cluster.objects[Ref("ConfigMap", names.ENV_STORE, "gtc-local")]
    store["metadata"]["annotations"][names.KINDS] = ""
    store["metadata"]["labels"][names.STORE] = "s-of-somebody-else"
    answered(bound, {"runtime_image": IMAGE})
    assert reconciled(bound, dry_run=True, adopt=True).in_sync is False
    assert "Ingress" in cluster.listed


def test_a_reconcile_names_what_the_image_or_a_source_lacks(bound, cluster):
    root = bound.context.store.paths(E).root
    (root / "answers.json").write_text(json.dumps({"runtime_image": "registry.example.com/worker:1"}))
    assert "names no digest" in reconciled(bound).warnings[0]
    (root / "answers.json").write_text("{}")
    writes = cluster.writes
    with pytest.raises(Conflict, match="does not say which image"):
        reconciled(bound)
    assert cluster.writes == writes


@pytest.mark.parametrize("refused", [False, True])
def test_threat_secret_leak_a_dry_run_never_shows_the_value_of_a_secret(bound, cluster, capsys, refused):
    """Neither the one that is there nor the one that would come, in no form, not even where the server repeats it."""
    new = base64.b64encode(f"TOKEN={PLANTED}\n".encode()).decode()
    reconciled(bound)
    ref = Ref("Secret", names.DEV_SECRETS, "gtc-local")
    old = base64.b64encode(b"TOKEN=the-one-before\n").decode()
    before = cluster.objects[ref]
    before["data"] = {".dev.secrets.env": old}
    before["stringData"] = {"more": "the-one-before"}
    if refused:
        cluster.refuse = {"Secret": f"admission webhook denied the request: data is {new}"}
    told = reconciled(bound, dry_run=True)
    assert not told.in_sync and "(secret)" in json.dumps(reply_object(told))
    print_success("json", "env", "diff", reply_object(told), "")
    print_success("table", "env", "diff", reply_object(told), "")
    show_changes(reply_object(told))
    shown = "".join(capsys.readouterr())
    assert names.DEV_SECRETS in shown
    assert not [text for text in (PLANTED, new, old, "the-one-before") if text in shown]


def test_a_failed_reconcile_reports_what_was_done_and_holds_no_secret(bound, cluster, capsys):
    cluster.refuse = {"Service": "no services today"}
    with pytest.raises(Conflict, match="no services today") as failed:
        reconciled(bound)
    report = failed.value.report
    assert {f["kind"] for f in report["failed"]} == {"Service"} and report["not_attempted"]
    print_failure("json", "env", "reconcile", failed.value)
    print_failure("table", "env", "reconcile", failed.value)
    assert PLANTED not in "".join(capsys.readouterr())
    assert bound.audit()[-1]["verb"] == "reconcile"


@pytest.mark.parametrize("name", [names.DEV_SECRETS, names.SESSION_KEY])
@pytest.mark.parametrize("form", ["encoded", "decoded", "value"])
def test_threat_secret_leak_a_webhook_that_repeats_what_it_refuses_is_not_repeated(
    bound, cluster, capsys, monkeypatch, form, name
):
    """Neither to a person, nor in the report, nor in the audit; what the webhook wants is."""
    apply, said = cluster.apply, list[str]()

    def refusing(thing: dict, **how: object) -> dict:
        if thing["metadata"]["name"] != name:
            return apply(thing, **how)
        encoded = next(iter(thing["data"].values()))
        whole = base64.b64decode(encoded).decode(errors="replace")
        said.append({"encoded": encoded, "decoded": whole, "value": whole.partition("=")[2].strip() or encoded}[form])
        raise ApiRefused(f"admission webhook denied the request: `{said[-1]}`, ask security", status=400)

    monkeypatch.setattr(cluster, "apply", refusing)
    with pytest.raises(Conflict, match="ask security") as failed:
        reconciled(bound)
    for how in ("json", "table"):
        print_failure(how, "env", "reconcile", failed.value)
    seen = "".join(capsys.readouterr()) + json.dumps(bound.audit()) + json.dumps(failed.value.report)
    assert "ask security" in seen and said and not [text for text in said if text in seen or text.strip() in seen]
    assert "webhook" in (failed.value.hint or "")


def test_one_revision_is_applied_alone_and_told(bound, cluster):
    reconciled(bound)
    revision = bound.context.store.load(E).revisions[0]
    payload = rollout.ApplyRevisionPayload(environment_id=E, revision_id=revision.revision_id, no_wait=True)
    told = rollout.apply_revision(bound.context, payload)
    assert (told.action, told.worker_name, told.identity) == (
        "warmed",
        names.worker_name(revision.revision_id),
        "ambient",
    )
    assert told.pruned_count == 0


def test_threat_prune_strangers_a_sweep_deletes_orphans_of_this_store_alone(bound, cluster):
    reconciled(bound)
    orphan = Ref("Deployment", "gtc-worker-orphan", "gtc-local")
    known = next(t for r, t in cluster.objects.items() if r.kind == "Deployment" and "worker" in r.name)
    for name, store in (("gtc-worker-orphan", None), ("gtc-worker-stranger", "s-of-somebody-else")):
        thing = json.loads(json.dumps(known))
        thing["metadata"] |= {"name": name, "uid": name}
        thing["metadata"]["labels"][names.REVISION] = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        if store:
            thing["metadata"]["labels"][names.STORE] = store
        cluster.objects[Ref("Deployment", name, "gtc-local")] = thing
    looked = sweep.sweep(bound.context, sweep.SweepPayload(environment_id=E))
    assert looked.dry_run and [o.name for o in looked.orphans] == [orphan.name] and orphan in cluster.objects
    assert [o.name for o in looked.skipped] == ["gtc-worker-stranger"]
    done = sweep.sweep(bound.context, sweep.SweepPayload(environment_id=E, apply=True))
    assert [o.name for o in done.removed] == [orphan.name] and orphan not in cluster.objects
    assert Ref("Deployment", "gtc-worker-stranger", "gtc-local") in cluster.objects


def test_destroying_takes_the_cluster_first_and_the_plain_verb_asks_none(bound, cluster, monkeypatch):
    reconciled(bound)
    document = bound.context.store.load(E)
    with bound.context.store.transaction(E) as transaction:
        transaction.save(replace(document, traffic_splits=[]))
    told = sweep.destroy(bound.context, sweep.EnvDestroyPayload(environment_id=E, confirm=True))
    left = {r.kind for r in cluster.objects}
    assert told.cluster.removed_count >= 13 and left <= {"Namespace", "Secret"} and not bound.context.store.exists(E)
    asked = cluster.requests
    Author(bound.context, "other").create()
    assert env.destroy(bound.context, env.DestroyPayload(environment_id="other", confirm=True)).destroyed
    assert cluster.requests == asked


def test_a_rollout_belongs_to_the_deployer_and_the_plain_warm_asks_no_cluster(bound, cluster):
    document = bound.context.store.load(E)
    staged = bound.stage(document.bundles[0].deployment_id, _bundle(bound))
    plain = rollout.warm(bound.context, rollout.RevisionWarmPayload(environment_id=E, revision_id=staged))
    assert plain.lifecycle == "ready" and cluster.requests == 0
    assert reply_object(plain)["cluster_asked"] is False
    again = bound.stage(document.bundles[0].deployment_id, _bundle(bound))
    transition = revisions.RevisionTransitionPayload(environment_id=E, revision_id=again)
    assert revisions.warm(bound.context, transition).lifecycle == "ready" and cluster.requests == 0


def test_warming_with_a_rollout_says_that_the_cluster_was_asked(bound, cluster, monkeypatch):
    monkeypatch.setattr(rollout, "apply_pair", lambda *_: cluster.list("Deployment", None))
    deployment = bound.context.store.load(E).bundles[0].deployment_id
    staged = bound.stage(deployment, _bundle(bound))
    told = rollout.warm(bound.context, rollout.RevisionWarmPayload(environment_id=E, revision_id=staged, rollout=True))
    assert told.lifecycle == "ready" and reply_object(told)["cluster_asked"] is True and cluster.requests == 1
    document = bound.context.store.load(E)
    with bound.context.store.transaction(E) as transaction:
        transaction.save(replace(document, packs=[p for p in document.packs if p.slot != "deployer"]))
    alone = bound.stage(deployment, _bundle(bound))
    plain = rollout.warm(bound.context, rollout.RevisionWarmPayload(environment_id=E, revision_id=alone))
    assert "cluster_asked" not in reply_object(plain)


def test_a_rollout_tells_what_can_never_work_also_when_it_had_to_be_called_again(bound, cluster, monkeypatch):
    monkeypatch.setattr(rollout, "loaded_or_failed", lambda *_: ["pack `app`: node `ask` leads nowhere"])
    staged = bound.stage(bound.context.store.load(E).bundles[0].deployment_id, _bundle(bound))
    payload = rollout.RevisionWarmPayload(environment_id=E, revision_id=staged, rollout=True)

    def away(*_: object) -> None:
        raise Conflict("the cluster is away")

    monkeypatch.setattr(rollout, "apply_pair", away)
    with pytest.raises(Conflict, match="away"):
        rollout.warm(bound.context, payload)
    assert bound.context.store.load(E).revision(staged).lifecycle == "warming"
    monkeypatch.setattr(rollout, "apply_pair", lambda *_: None)
    told = rollout.warm(bound.context, payload)
    assert told.lifecycle == "ready" and told.warnings == ["pack `app`: node `ask` leads nowhere"]
    assert "warnings" not in reply_object(rollout.warm(bound.context, payload))  # nothing was warmed any more


def _bundle(author: Author) -> Path:
    revision = author.context.store.load(E).revisions[0]
    return author.context.store.paths(E).revision(revision.revision_id) / "bundle.gtbundle"


# -- tokens ---------------------------------------------------------------------------------------------------------


def token(ends: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"iat": 1, "exp": ends}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


@pytest.mark.parametrize("place", ["variable", "file", "cluster"])
def test_a_token_that_ended_is_not_used_wherever_it_lies(bound, monkeypatch, place):
    """It is not sent anywhere; the next place is asked, and if none has one that lives, the verb fails."""
    store = bound.context.store
    now = store.clock.now_ns() // 1_000_000_000
    ref = cluster_identity.credentials_ref(E)
    with store.transaction(E) as transaction:
        transaction.save(replace(transaction.load(), credentials_ref=ref))
    ended, alive = token(now - 1), token(now + 3600)
    sent: list[str | None] = []
    secrets: dict[str, str] = {}

    class Api:
        def __init__(self, connection: str | None, **how: float) -> None:
            sent.append(connection)

        def get(self, ref: Ref) -> dict | None:
            data = {k: base64.b64encode(v.encode()).decode() for k, v in secrets.items()}
            return {"metadata": {"labels": {names.ENV: E}}, "data": data} if data else None

    monkeypatch.setattr(cluster_identity, "ApiServer", Api)
    monkeypatch.setattr(cluster_identity, "connect", lambda context, told=None: told)

    def lay(where: str, what: str) -> None:
        if where == "variable":
            monkeypatch.setenv(variable_of(ref), what)
        elif where == "file":
            cluster_identity.keep_token(store.paths(E), what)
        else:
            secrets["bearer"] = what

    lay(place, ended)
    deployer = binding.resolve(bound.context, E, None, live=True)
    with pytest.raises(Conflict, match="nowhere to be found") as missing:
        cluster_identity.reach(bound.context, deployer)
    assert ended not in sent and ended not in str(missing.value)
    lay("cluster", alive)
    cluster_identity.reach(bound.context, deployer)
    assert sent[-1] == alive and ended not in sent


def test_a_variable_that_means_two_environments_is_used_for_neither(bound, monkeypatch):
    """`prod-1` and `prod.1` have one variable; the token of one is nothing to send to the API server of the other."""
    store = bound.context.store
    monkeypatch.setenv("GREENTIC_SECRET_PROD_1_DEFAULT_K8S_DEPLOYER_DEPLOYER_TOKEN", " mine ")
    for name in ("prod-1", "prod-2", "elsewhere"):
        Author(bound.context, name).create()
    found = [secret_of(store.paths(name), cluster_identity.credentials_ref(name)) for name in ("prod-1", "prod-2")]
    assert found == ["mine", ""]
    (store.root / "prod.1").mkdir()  # no environment, as there is no document
    assert secret_of(store.paths("prod-1"), cluster_identity.credentials_ref("prod-1")) == "mine"
    Author(bound.context, "Prod_1").create()
    for name, other in (("prod-1", "Prod_1"), ("Prod_1", "prod-1")):
        with pytest.raises(Conflict, match=f"is the variable of `{other}`, too") as told:
            secret_of(store.paths(name), cluster_identity.credentials_ref(name))
        assert "mine" not in str(told.value)
    assert secret_of(store.paths("prod-2"), cluster_identity.credentials_ref("prod-2")) == ""


# -- once ---------------------------------------------------------------------------------------------------------------


def _by(verb: str) -> Callable[[Author], object]:
    told: dict[str, Callable[[Author], object]] = {
        "status": lambda a: cluster_status.status(a.context, env_status.EnvStatusPayload(environment_id=E)),
        "reconcile": reconciled,
        "diff": lambda a: reconcile.diff(a.context, reconcile.EnvDiffPayload(environment_id=E)),
        "render": lambda a: env_render.render_objects(a.context, env_render.EnvRenderPayload(environment_id=E)),
        "sweep": lambda a: sweep.sweep(a.context, sweep.SweepPayload(environment_id=E)),
    }
    return told[verb]


@pytest.mark.parametrize("answers", [{}, EXPOSED, {"autoscale": {"min": 1, "max": 3, "cpu": 50}}])
@pytest.mark.parametrize("verb", ["status", "reconcile", "diff", "render", "sweep"])
def test_a_verb_of_a_bound_environment_reads_its_document_once(bound, cluster, monkeypatch, verb, answers):
    """A large one takes a second; and what is told is of one moment."""
    answered(bound, {"runtime_image": IMAGE} | ({"worker": answers} if "autoscale" in answers else answers))
    loaded: list[str] = []
    load = EnvironmentStore.load

    def counted(store: EnvironmentStore, env_id: str) -> Environment:
        loaded.append(env_id)
        return load(store, env_id)

    monkeypatch.setattr(EnvironmentStore, "load", counted)
    _by(verb)(bound)
    assert loaded == [E]
