"""What reconciling would do, and what is waited for, over plain values: ownership, plan, health. No cluster."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.cluster.apply import ApplyRules, refuse, scoped
from greentic.cluster.handed_over import handed_over
from greentic.cluster.verdicts import added
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.health import GROWING_SECONDS, PASSING_SECONDS, PAUSED, next_step, rollout, runs_template, trouble
from greentic.k8s.objects import FieldConflict, Ref, ref_of
from greentic.k8s.ownership import compare
from greentic.k8s.plan import Owner, make_plan

OWNER = Owner("prod", "s-0123456789abcdef")
LABELS = {names.MANAGED_BY: "greentic", names.ENV: "prod", names.STORE: OWNER.store}


def tree(value: object, keys: dict[str, str] | None = None, path: str = "") -> dict:
    """The ownership tree of a value; lists named in `keys` (path to key field) are merged by that key, others are whole."""
    keys = keys or {}
    if isinstance(value, dict):
        return {f"f:{k}": tree(v, keys, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list) and path in keys:
        field = keys[path]
        return {
            f'k:{{"{field}":{json.dumps(item[field])}}}': {".": {}, **tree(item, keys, f"{path}[]")} for item in value
        }
    return {}


def live_of(
    stated: dict,
    *others: tuple[str, dict],
    keys: dict[str, str] | None = None,
    manager: str = names.FIELD_MANAGER,
    **metadata: object,
) -> dict:
    """An object as the server has it after `manager` applied it."""
    thing = copy.deepcopy(stated)
    body = {k: v for k, v in stated.items() if k not in ("apiVersion", "kind")}
    body["metadata"] = {k: v for k, v in stated["metadata"].items() if k not in ("name", "namespace")}
    fields = [{"manager": manager, "operation": "Apply", "fieldsV1": tree(body, keys)}]
    fields += [{"manager": name, "operation": "Update", "fieldsV1": owned} for name, owned in others]
    thing["metadata"] |= {
        "uid": f"uid-{stated['metadata']['name']}",
        "resourceVersion": "7",
        "managedFields": fields,
        **metadata,
    }
    return thing


def config_map(name: str = "gtc-env-store", labels: dict | None = None, **data: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "gtc-prod", "labels": LABELS if labels is None else labels},
        "data": data,
    }


# -- ownership --------------------------------------------------------------------------------------------------------


def test_what_was_applied_is_in_order_whatever_defaults_were_filled_in():
    stated = {
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"replicas": 2, "containers": [{"name": "c", "image": "i", "args": ["x"], "empty": {}}]},
    }
    stated["metadata"]["labels"] = LABELS
    live = live_of(stated, keys={".spec.containers": "name"})
    live["spec"]["containers"][0] |= {"imagePullPolicy": "Always"}
    live["spec"] |= {"paused": False}
    live["status"] = {"replicas": 2}
    assert compare(stated, live) == ([], [])


def test_a_changed_field_and_its_manager():
    stated = config_map(a="1")
    live = live_of(stated, ("kubectl-edit", {"f:data": {"f:a": {}}}))
    live["data"]["a"] = "2"
    found = compare(stated, live)
    assert [(c.path, c.before, c.after) for c in found.changes] == [(".data.a", "2", "1")]
    assert found.conflicts == [FieldConflict("kubectl-edit", ".data.a")]


def test_a_field_with_our_value_that_is_not_ours_yet_is_a_change_and_no_conflict():
    stated = config_map(a="1", b="2")
    live = live_of(config_map(a="1"), ("other", {"f:data": {"f:b": {}}}))
    live["data"]["b"] = "2"
    found = compare(stated, live)
    assert [c.path for c in found.changes] == [".data.b"] and found.conflicts == []


def test_a_field_that_is_no_longer_stated_is_taken_away():
    live = live_of(config_map(a="1", b="2"))
    assert [(c.path, c.before, c.after) for c in compare(config_map(a="1"), live).changes] == [(".data.b", "2", None)]


def test_fields_of_others_are_left_alone():
    live = live_of(config_map(a="1"), ("other", {"f:data": {"f:z": {}}}))
    live["data"]["z"] = "theirs"
    assert compare(config_map(a="1"), live).changes == []


def test_lists_are_compared_as_the_server_merges_them():
    stated = {
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "n", "labels": LABELS},
        "spec": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x", "y"]},
    }
    live = live_of(stated, keys={".spec.env": "name"})
    live["spec"]["env"] = [{"name": "Z", "value": "theirs"}, {"name": "B", "value": "2"}, {"name": "A", "value": "1"}]
    assert compare(stated, live).changes == []
    live["spec"]["args"] = ["x", "y", "z"]
    assert [c.path for c in compare(stated, live).changes] == [".spec.args"]
    fewer = copy.deepcopy(stated)
    fewer["spec"]["env"].pop()
    assert ".spec.env[name=B]" in [c.path for c in compare(fewer, live).changes]
    more = copy.deepcopy(stated)
    more["spec"]["env"].append({"name": "C", "value": "3"})
    assert ".spec.env[name=C]" in [c.path for c in compare(more, live).changes]


@pytest.mark.parametrize("manager", ["kubectl-client-side-apply", "kubectl"])
def test_what_another_tool_applied_of_ours_goes_over_without_a_conflict_until_something_differs(manager):
    """Defaults that the server filled in stand inside of containers of which nothing is ours yet."""
    keys = {".spec.containers": "name", ".spec.containers[].ports": "name"}
    ports = [{"name": "http", "containerPort": 8080}]
    stated = {
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "gtc-prod", "labels": LABELS},
        "spec": {"containers": [{"name": "router", "image": "a", "args": ["x"], "ports": ports}], "finalizers": ["f"]},
    }
    live = live_of(stated, keys=keys, manager=manager)
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:finalizers"] = {'v:"f"': {}}
    container = live["spec"]["containers"][0]
    container["imagePullPolicy"] = "IfNotPresent"
    found = compare(stated, live)
    assert found.conflicts == [] and {c.path for c in found.changes} >= {
        ".spec.containers[name=router].image",
        ".spec.containers[name=router].args",
        ".spec.finalizers[f]",
    }
    container["image"] = "b"
    assert compare(stated, live).conflicts == [FieldConflict(manager, ".spec.containers[name=router].image")]
    both = live_of(stated, (manager, live["metadata"]["managedFields"][0]["fieldsV1"]), keys=keys)
    both["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:finalizers"] = {'v:"f"': {}}
    assert compare(stated, both).changes == []
    both["spec"]["containers"].append({"name": "theirs", "image": "c"})
    both["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"theirs"}'] = {"f:image": {}}
    assert compare(stated, both).changes == []


def test_an_object_that_we_never_applied_is_a_change_throughout():
    stated = config_map(a="1")
    found = compare(stated, live_of(stated, manager="kubectl"))
    assert {c.path for c in found.changes} >= {".data.a"} and found.conflicts == []


_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=2),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("xyz"), v, min_size=1, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("pqr"), _values, min_size=1),
    st.dictionaries(st.sampled_from("pqr"), _values, min_size=1),
)
def test_in_order_means_equal_wherever_the_values_came_from(first, second):
    """After applying one body, another is in order exactly if it is the same."""
    one = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "labels": LABELS}, "spec": first}
    two = one | {"spec": second}
    assert compare(one, live_of(one)).changes == []
    assert bool(compare(two, live_of(one)).changes) == (first != second)


# -- plan -------------------------------------------------------------------------------------------------------------


def plan(desired: list[dict], live: list[dict], **options: object):
    return make_plan(desired, live, OWNER, **options)


def test_create_update_leave_and_delete():
    same, other, gone = config_map("same", a="1"), config_map("other", a="1"), config_map("gone", a="1")
    changed = live_of(other)
    changed["data"]["a"] = "0"
    found = plan([same, other, config_map("new")], [live_of(same), changed, live_of(gone)])
    assert {i.ref.name: i.action for i in found.items} == {"same": "unchanged", "other": "update", "new": "create"}
    assert [(d.ref.name, d.uid, d.resource_version) for d in found.deletions] == [("gone", "uid-gone", "7")]
    assert not found.in_sync and plan([same], [live_of(same)]).in_sync


def test_threat_prune_strangers_only_what_this_store_made_is_deleted():
    strangers = {
        "nobody": {}, "helm": {names.MANAGED_BY: "Helm", names.ENV: "prod", names.STORE: OWNER.store}, "env": LABELS | {names.ENV: "dev"}, "store": LABELS | {names.STORE: "s-ffff"},
        "old": {names.MANAGED_BY: "greentic", names.ENV: "prod"}, "identity": LABELS | {names.COMPONENT: "deployer-identity"}, "key": LABELS | {names.COMPONENT: "session-key"},
    }  # fmt: skip
    live = [live_of(config_map(name, labels)) for name, labels in strangers.items()]
    found = plan([], [*live, live_of(config_map("mine"))])
    assert [d.ref.name for d in found.deletions] == ["mine"]
    assert [r.name for r in found.unattributed] == ["old"]


def test_a_copy_that_carries_our_labels_is_not_ours():
    """`kubectl expose` and copies of manifests take the labels along; what we did not apply is not deleted."""
    copied = live_of(config_map("public"), manager="kubectl-expose")
    assert plan([], [copied, live_of(config_map("mine"))]).deletions[0].ref.name == "mine"
    assert len(plan([], [copied]).deletions) == 0


def test_pod_security_is_stated_where_the_namespace_is_ours_to_state_it():
    restricted = LABELS | {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gtc-prod", "labels": restricted}}
    assert plan([space], []).items[0].stated == space
    there = live_of({**space, "metadata": {"name": "gtc-prod", "labels": {"team": "a"}}}, manager="kubectl-create")
    adopted = plan([space], [there]).items[0].stated["metadata"]["labels"]
    assert adopted == LABELS
    assert plan([space], [live_of(space)]).items[0].action == "unchanged"
    again = live_of({**space, "metadata": {"name": "gtc-prod", "labels": LABELS}})
    assert plan([space], [again]).items[0].action == "unchanged"


def test_replicas_are_an_autoscalers_where_there_is_one():
    stated = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gtc-router", "namespace": "n", "labels": LABELS},
        "spec": {"replicas": 2, "paused": False},
    }
    scaled = live_of(stated, ("kube-controller-manager", {"f:spec": {"f:replicas": {}}}))
    scaled["spec"]["replicas"] = 7
    found = plan([stated], [scaled]).items[0]
    assert found.conflicts == [] and "replicas" not in found.stated["spec"]
    by_hand = live_of(stated, ("kubectl", {"f:spec": {"f:replicas": {}}}))
    by_hand["spec"]["replicas"] = 7
    assert plan([stated], [by_hand]).items[0].conflicts == [FieldConflict("kubectl", ".spec.replicas")]


def test_an_account_that_is_answered_no_more_gives_way_by_name():
    """A server keeps the old name as `serviceAccount`, and pods of an account that is pruned cannot start."""

    def router(**pod: object) -> dict:
        metadata = {"name": "gtc-router", "namespace": "n", "labels": LABELS}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"enableServiceLinks": False, **pod}}
        spec = {"replicas": 2, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    def account(found: dict) -> object:
        return found["spec"]["template"]["spec"].get("serviceAccountName")

    def left(name: str, *others: tuple[str, dict]) -> dict:
        """What is there once the member was left out."""
        thing = live_of(router(), *others)
        thing["spec"]["template"]["spec"] |= {"serviceAccountName": name, "serviceAccount": name}
        return thing

    answered = live_of(router(serviceAccountName="bots"))
    (item,) = plan([router()], [answered]).items
    assert (item.action, account(item.stated)) == ("update", "default")
    assert account(plan([router()], [left("bots")]).items[0].stated) == "default"
    done = live_of(router(serviceAccountName="default"))
    assert plan([router()], [done]).items[0].action == "unchanged"
    assert account(plan([router()], [live_of(router())]).items[0].stated) is None  # nobody's pods are replaced for it
    mine = left("theirs", ("webhook", tree({"spec": {"template": {"spec": {"serviceAccountName": "theirs"}}}})))
    assert account(plan([router()], [mine]).items[0].stated) is None
    assert account(plan([router(serviceAccountName="bots")], [done]).items[0].stated) == "bots"


def test_workloads_are_deleted_before_the_policies_that_fence_them():
    mine = [
        {"apiVersion": "v", "kind": k, "metadata": {"name": k.lower(), "namespace": "n", "labels": LABELS}}
        for k in ("NetworkPolicy", "Deployment", "Service")
    ]
    assert [d.ref.kind for d in plan([], [live_of(t) for t in mine]).deletions] == [
        "Deployment",
        "Service",
        "NetworkPolicy",
    ]


@pytest.mark.parametrize(
    ("labels", "refused", "adopted"),
    [
        (LABELS, False, False), ({}, True, False), ({names.MANAGED_BY: "greentic", names.ENV: "prod"}, True, False), (LABELS | {names.STORE: "s-ffff"}, True, False),
        (LABELS | {names.ENV: "dev"}, True, True), ({names.MANAGED_BY: "Helm"}, True, False),
    ],
)  # fmt: skip
def test_an_object_of_others_under_our_name(labels, refused, adopted):
    live = [live_of(config_map("gtc-env-store", labels, a="theirs"), manager="them")]
    assert bool(plan([config_map(a="1")], live).refused) is refused
    assert bool(plan([config_map(a="1")], live, adopt=True).refused) is adopted


def test_who_takes_an_object_over_takes_all_that_is_ours_alone_in_it():
    """What stood in a stranger's ConfigMap would be mounted by pods; the file is named before, and goes with the taking over."""
    live = live_of(config_map("gtc-env-store", {}, a="1", mine="1"), manager="kubectl-create")
    (refused,), (adopted,) = (plan([config_map("gtc-env-store", a="1")], [live], adopt=a).items for a in (False, True))
    assert refused.refused and ".data.mine" in [c.field for c in refused.conflicts]
    assert adopted.refused is None and ".data.mine" not in [c.field for c in adopted.conflicts]
    assert ".data.mine" in [a.change.path for a in adopted.taken]


def test_a_changed_label_of_ours_is_named_and_no_store_is_told_to_differ_from_itself():
    labels = LABELS | {names.MANAGED_BY: "Helm"}
    (refused,) = plan([config_map(a="1")], [live_of(config_map("gtc-env-store", labels, a="1"))]).refused
    assert str(refused.refused).startswith(f"somebody changed its label `{names.MANAGED_BY}`")


@pytest.mark.parametrize(
    ("label", "value"),
    [(names.STORE, "s-ffff"), (names.ENV, "dev"), (names.MANAGED_BY, "Helm"), (names.ENV, None)],
)
def test_a_label_that_somebody_writes_over_makes_an_object_nobody_elses(label, value):
    live = live_of(config_map(a="1"))
    own = live["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"]
    del own[f"f:{label}"]
    live["metadata"]["labels"] = {k: v for k, v in LABELS.items() if k != label}
    if value is not None:
        live["metadata"]["labels"][label] = value
        theirs = {"f:metadata": {"f:labels": {f"f:{label}": {}}}}
        live["metadata"]["managedFields"].append(
            {"manager": "kubectl-label", "operation": "Update", "fieldsV1": theirs}
        )
    (item,) = plan([config_map(a="1")], [live]).items
    assert (item.action, item.refused) == ("update", None)
    assert [(c.before, c.after) for c in item.changes] == [(value, LABELS[label])]
    assert [c.manager for c in item.conflicts] == ([] if value is None else ["kubectl-label"])
    if value is not None:
        own[f"f:{label}"] = {}  # another of our deployers applied it so
        assert plan([config_map(a="1")], [live]).refused
    live["metadata"]["managedFields"].pop(0)
    assert plan([config_map(a="1")], [live]).refused, "we never applied it"


def test_an_object_without_a_store_is_nobodys():
    live = live_of(config_map(labels={k: v for k, v in LABELS.items() if k != names.STORE}, a="1"))
    assert plan([config_map(a="1")], [live]).refused


def test_rules_that_somebody_adds_where_none_are_stated_are_taken_back():
    bare = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "d", "namespace": "gtc-prod", "labels": LABELS},
        "spec": {"policyTypes": ["Egress"]},
    }
    live = live_of(bare)
    (item,) = plan([bare], [live]).items
    assert (item.action, item.stated) == ("unchanged", bare)
    for owned in ([], [("kubectl-edit", {"f:spec": {"f:egress": {}}})]):
        opened = live_of(bare, *owned)
        opened["spec"]["egress"] = [{}]
        (item,) = plan([bare], [opened]).items
        assert [(c.path, c.before, c.after) for c in item.changes] == [(".spec.egress", [{}], None)]
        assert item.conflicts == [FieldConflict(name, ".spec.egress") for name, _ in owned]
        patch: dict = handed_over(opened, item.taken)
        after = patch["metadata"]["managedFields"]
        assert [e["manager"] for e in after] == [names.FIELD_MANAGER] and "f:egress" in after[0]["fieldsV1"]["f:spec"]


MERGED = {
    ".spec.ports": "port",
    ".spec.template.spec.containers": "name",
    ".spec.template.spec.containers[].env": "name",
}


def service() -> dict:
    spec = {"selector": {"app": "a"}, "ports": [{"port": 8080, "targetPort": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "n", "labels": LABELS},
        "spec": spec,
    }


def deployment_with(**container: object) -> dict:
    own = {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], **container}
    pod = {"containers": [own], "securityContext": {"runAsNonRoot": True}}
    spec = {"template": {"spec": pod}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": LABELS},
        "spec": spec,
    }


_IN_POD = ("f:spec", "f:template", "f:spec")
_IN_CONTAINER = (*_IN_POD, "f:containers", 'k:{"name":"c"}')
CLOSED = [
    (service(), ("f:spec", "f:selector", "f:x"), "y"),
    (service(), ("f:spec", "f:ports", 'k:{"port":9}'), {"port": 9}),
    (deployment_with(), (*_IN_POD, "f:hostNetwork"), True),
    (deployment_with(), (*_IN_POD, "f:securityContext", "f:fsGroup"), 0),
    (deployment_with(), (*_IN_CONTAINER, "f:command"), ["sh"]),
    (deployment_with(), (*_IN_CONTAINER, "f:env", 'k:{"name":"GREENTIC_HTTP_EGRESS"}'), {"name": "GREENTIC_HTTP_EGRESS", "value": "unrestricted"}),
    (deployment_with(readinessProbe={"httpGet": {}}), (*_IN_CONTAINER, "f:readinessProbe", "f:exec"), {"command": ["true"]}),
    (config_map(a="1"), ("f:data", "f:b"), "2"),
    ({**config_map(), "kind": "PodDisruptionBudget", "spec": {"minAvailable": 1}}, ("f:spec", "f:maxUnavailable"), 1),
    ({**config_map(), "kind": "NetworkPolicy", "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}, ("f:spec", "f:podSelector", "f:matchLabels"), {"a": "b"}),
]  # fmt: skip
LEFT = [
    (service(), ("f:spec", "f:externalTrafficPolicy"), "Local", False),
    (service(), ("f:spec", "f:ports", 'k:{"port":8080}', "f:nodePort"), 30000, False),
    (service(), ("f:metadata", "f:annotations"), {"cloud": "x"}, False),
    (service(), ("f:spec", "f:externalIPs"), ["1.2.3.4"], True),
    (deployment_with(), ("f:spec", "f:replicas"), 3, False),
    (deployment_with(), ("f:spec", "f:paused"), True, True),
    (deployment_with(), ("f:spec", "f:template", "f:metadata"), {"annotations": {"mesh": "x"}}, False),
    (deployment_with(), (*_IN_POD, "f:containers", 'k:{"name":"mesh"}'), {"name": "mesh"}, True),
    (deployment_with(), (*_IN_POD, "f:dnsPolicy"), "ClusterFirst", False),
    (deployment_with(), (*_IN_CONTAINER, "f:env", 'k:{"name":"OTHER"}'), {"name": "OTHER"}, True),
]  # fmt: skip


def added_by_hand(stated: dict, steps: tuple[str, ...], value: object, *, owned: bool = True) -> dict:
    """What was applied, with a further value in it, of somebody's or of nobody's."""
    fields: dict = {}
    for step in reversed(steps):
        fields = {step: fields}
    live = live_of(stated, *([("kubectl-edit", fields)] if owned else []), keys=MERGED)
    own = live["metadata"]["managedFields"][0]["fieldsV1"]
    own.get("f:spec", {}).pop("f:podSelector", None)  # a server keeps no book of what is empty
    place = live
    for step in steps[:-1]:
        if step.startswith("f:"):
            place = place[step[2:]]
        else:
            place = next(i for i in place if json.loads(step[2:]).items() <= i.items())
    if steps[-1].startswith("k:"):
        place.append(value)
    else:
        place[steps[-1][2:]] = value
    return live


@pytest.mark.parametrize(("stated", "steps", "value"), CLOSED, ids=lambda v: v[-1] if isinstance(v, tuple) else "")
def test_what_others_add_where_an_object_is_ours_alone_is_taken_back(stated, steps, value):
    live = added_by_hand(stated, steps, value)
    (item,) = plan([stated], [live]).items
    assert [(c.before, c.after) for c in item.changes] == [(value, None)] and item.told == []
    assert item.conflicts == [FieldConflict("kubectl-edit", item.changes[0].path)]
    patch: dict = handed_over(live, item.taken)
    book = patch["metadata"].pop("managedFields")
    assert patch == {"metadata": {"uid": live["metadata"]["uid"], "resourceVersion": "7"}}
    assert [entry["manager"] for entry in book] == [names.FIELD_MANAGER]  # the other's was of this alone
    live["metadata"]["managedFields"] = book
    (change,) = compare(stated, live).changes  # so applying takes it away
    assert item.changes[0].path.startswith(change.path)
    by_admission = added_by_hand(stated, steps, value, owned=False)
    closed_anyway = stated["kind"] == "NetworkPolicy"
    assert (plan([stated], [by_admission]).items[0].action == "update") is closed_anyway


@pytest.mark.parametrize(
    ("stated", "steps", "value", "told"), LEFT, ids=lambda v: v[-1] if isinstance(v, tuple) else ""
)
def test_what_platforms_add_stays_and_is_told_where_it_runs_or_opens_something(stated, steps, value, told):
    live = added_by_hand(stated, steps, value)
    (item,) = plan([stated], [live]).items
    assert (item.action, item.taken, item.conflicts) == ("unchanged", [], [])
    said = added([item])
    assert len(said) == told
    if told:
        assert "`kubectl-edit`" in said[0] and "kubectl -n n edit" in said[0] and item.told[0].change.path in said[0]


def test_what_another_manager_has_beside_an_addition_stays_its_own():
    theirs = {"f:spec": {"f:selector": {"f:x": {}}, "f:type": {}}, "f:metadata": {"f:labels": {"f:team": {}}}}
    live = live_of(service(), ("kubectl-edit", theirs), keys=MERGED)
    live["spec"]["selector"]["x"] = "y"
    patch: dict = handed_over(live, plan([service()], [live]).items[0].taken)
    own, left = patch["metadata"]["managedFields"]
    assert left["fieldsV1"] == {"f:spec": {"f:type": {}}, "f:metadata": {"f:labels": {"f:team": {}}}}
    assert set(own["fieldsV1"]["f:spec"]["f:selector"]) == {"f:app", "f:x"}
    assert live["metadata"]["managedFields"][1]["fieldsV1"] == theirs, "what was read is not written into"


def test_what_a_newer_server_merges_as_a_whole_is_handed_over_as_a_whole():
    live = live_of(service(), ("kubectl-edit", {"f:spec": {"f:selector": {}}}), keys=MERGED)
    del live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"]
    live["spec"]["selector"]["x"] = "y"
    patch: dict = handed_over(live, plan([service()], [live]).items[0].taken)
    (own,) = patch["metadata"]["managedFields"]
    assert own["fieldsV1"]["f:spec"]["f:selector"] == {}


def test_a_namespace_that_nobody_claims_is_used_and_one_of_another_environment_is_not():
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gtc-prod", "labels": LABELS}}
    plain = live_of({**space, "metadata": {"name": "gtc-prod", "labels": {"team": "a"}}}, manager="kubectl-create")
    assert plan([space], [plain]).refused == []
    foreign = live_of({**space, "metadata": {"name": "gtc-prod", "labels": LABELS | {names.ENV: "dev"}}})
    assert "environment `dev`" in plan([space], [foreign]).refused[0].refused


def test_refusals_and_conflicts_stop_everything_and_say_whose_it_is():
    with pytest.raises(Conflict) as refused:
        refuse(plan([config_map(a="1")], [live_of(config_map(labels={}, a="1"), manager="them")]), force=True)
    assert "nothing was applied" in str(refused.value) and "--adopt" in refused.value.hint
    live = live_of(config_map(a="1"), ("hpa", {"f:data": {"f:a": {}}}))
    live["data"]["a"] = "9"
    contested = plan([config_map(a="1")], [live])
    with pytest.raises(Conflict) as refused:
        refuse(contested, force=False)
    assert ".data.a" in str(refused.value) and "`hpa`" in str(refused.value)
    refuse(contested, force=True)


def test_one_revision_deletes_nothing_of_others():
    gone = plan([], [live_of(config_map("one")), live_of(config_map("two"))])
    assert [
        d.ref.name for d in scoped(gone, ApplyRules(scope=frozenset({Ref("ConfigMap", "one", "gtc-prod")}))).deletions
    ] == ["one"]
    assert scoped(gone, ApplyRules(scope=frozenset())).deletions == []


def test_unknown_kinds_and_missing_namespaces_are_errors():
    with pytest.raises(Conflict, match="unsupported object `batch/v1/Job`"):
        ref_of({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}})
    with pytest.raises(Conflict, match="metadata.namespace"):
        ref_of({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})


# -- health -----------------------------------------------------------------------------------------------------------


def deployment(**status: object) -> dict:
    container = {"name": "worker", "image": "i:1", "args": ["start"], "env": [{"name": "A", "value": "1"}]}
    template = {
        "metadata": {"labels": {"app": "w"}, "annotations": {names.CHECKSUM: "1"}},
        "spec": {"containers": [container]},
    }
    return {
        "metadata": {"name": "w", "generation": 3},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "w"}}, "template": template},
        "status": status,
    }


DONE = {"observedGeneration": 3, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    "missing",
    [
        {"observedGeneration": 2},
        {"updatedReplicas": 1},
        {"replicas": 3},
        {"availableReplicas": 1},
        {"observedGeneration": None},
    ],
)
def test_a_rollout_is_done_only_when_everything_is(missing):
    assert rollout(deployment(**DONE)).done
    assert not rollout(deployment(**(DONE | missing))).done


def test_the_controllers_own_verdict_counts_for_this_generation_only():
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no progress"}
    quota = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert "ProgressDeadlineExceeded" in rollout(deployment(observedGeneration=3, conditions=[late])).failed
    assert "exceeded quota" in rollout(deployment(observedGeneration=3, conditions=[quota])).failed
    assert rollout(deployment(observedGeneration=2, conditions=[late])).failed is None
    assert rollout(deployment(**DONE, conditions=[quota])).failed is None


@pytest.mark.parametrize("silent", [{}, {"message": ""}, {"message": None}])
def test_a_reason_without_a_message_is_told_alone(silent):
    """Controllers, kubelets and gateways may leave either out; texts of both ended with a colon, or with `None`."""
    late = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", **silent}
    assert rollout(deployment(observedGeneration=3, conditions=[late])).failed == "ProgressDeadlineExceeded"
    quota = {"type": "ReplicaFailure", "status": "True", **silent}
    assert rollout(deployment(observedGeneration=3, conditions=[quota])).failed == "ReplicaFailure"
    pending = {"type": "PodScheduled", "reason": "Unschedulable", **silent}
    waits = [{"reason": reason, **silent} for reason in ("ImagePullBackOff", "CreateContainerConfigError")]
    looping: Any = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 3, **silent}},
        "restartCount": 9,
    }
    states: list[Any] = [
        {"conditions": [pending]},
        *({"containerStatuses": [{"image": "i", "state": {"waiting": w}}]} for w in waits),
        {"containerStatuses": [looping]},
    ]
    for status in states:
        told = trouble({"metadata": {"name": "p"}, "status": status})
        assert told is not None and not told.reason.rstrip().endswith((":", "None")), told


def test_a_paused_deployment_is_told_as_that_and_one_that_is_done_is_not():
    held = deployment(observedGeneration=3)
    held["spec"]["paused"] = True
    assert "paused" in str(rollout(held).failed)
    done = deployment(**DONE)
    done["spec"]["paused"] = True
    assert rollout(done).failed is None


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (PAUSED, "rollout resume"),
        ('FailedCreate: pods "p" is forbidden: exceeded quota: q', "ResourceQuota"),
        ("FailedCreate: failed quota: q: must specify limits.ephemeral-storage for: router", "ResourceQuota"),
        ("FailedCreate: minimum cpu usage per Container is 200m, but request is 100m", "LimitRange"),
        ('FailedCreate: pods "p" is forbidden: violates PodSecurity "restricted:latest": x', "restricted"),
        ("the image `i` cannot be had: ErrImagePull", "image_pull_secrets"),
        ("unschedulable: 0/1 nodes are available", "node_selector"),
        ("it ended with code 1: whatever", None),
    ],
)
def test_what_keeps_pods_from_running_is_told_with_the_next_step(reason, step):
    assert step is next_step(reason) is None or step in str(next_step(reason))


def pod(
    waiting: dict | None = None,
    ended: dict | None = None,
    restarts: int = 0,
    conditions: list | None = None,
    **spec: object,
) -> dict:
    state = {
        "name": "worker",
        "image": "i:1",
        "restartCount": restarts,
        "state": {"waiting": waiting} if waiting else {"running": {}},
        "ready": False,
    }
    if ended:
        state["lastState"] = {"terminated": ended}
    container = {"name": "worker", "image": "i:1", "args": ["start"], "env": [{"name": "A", "value": "1"}]} | spec
    meta = {"name": "w-1", "labels": {"app": "w", "pod-template-hash": "x"}, "annotations": {names.CHECKSUM: "1"}}
    return {
        "metadata": meta,
        "spec": {"containers": [container, {"name": "sidecar"}]},
        "status": {"containerStatuses": [state], "conditions": conditions or []},
    }


def test_pods_of_an_older_template_do_not_count():
    assert runs_template(pod(), deployment())
    assert runs_template(pod(image="mirror.example.com/i:1", env=[{"name": "INJECTED", "value": "1"}]), deployment())
    other = pod()
    other["metadata"]["annotations"] = {names.CHECKSUM: "0"}
    assert not runs_template(other, deployment())
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert not runs_template(leaving, deployment())


@pytest.mark.parametrize(
    ("ailing", "text", "crashed", "patience"),
    [
        (pod({"reason": "ImagePullBackOff", "message": "no such image"}), "ImagePullBackOff: no such image", False, PASSING_SECONDS),
        (pod({"reason": "ErrImageNeverPull"}), "ErrImageNeverPull", False, 0),
        (pod({"reason": "CreateContainerConfigError", "message": "secret not found"}), "secret not found", False, PASSING_SECONDS),
        (pod({"reason": "CrashLoopBackOff"}, {"exitCode": 1, "message": "boom"}, 3), "crashed 3 times, last with code 1: boom", True, 0),
        (pod({"reason": "CrashLoopBackOff"}, {"exitCode": 1, "message": "pulled bundle digest `sha256:1` does not match revision `R`'s pinned `sha256:2`; deleted"}, 1), "pinned `sha256:2`", False, 0),
        (pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]), "0/1 nodes", False, GROWING_SECONDS),
    ],
)  # fmt: skip
def test_what_ails_a_pod(ailing, text, crashed, patience):
    found = trouble(ailing)
    assert text in found.reason and (found.crashed, found.patience) == (crashed, patience)


@pytest.mark.parametrize(
    "well",
    [
        pod(),
        pod({"reason": "ContainerCreating"}),
        pod({"reason": "ErrImagePull"}),
        pod({"reason": "CrashLoopBackOff"}, {"exitCode": 1, "message": "x"}, 2),
        pod(None, {"exitCode": 1, "message": "last week"}, 9),
    ],
)
def test_a_start_that_takes_its_time_is_no_trouble(well):
    assert trouble(well) is None
