// Deployments with their routes, weights against measured shares, revisions, faults and ramps.

import { actions, changesUnderWay } from "./changes.js";
import { copyable, fill, h, inside, text } from "./dom.js";
import { age, digest, percent, rate, seconds, share, short } from "./format.js";
import { drawRamp } from "./ramp.js";

const FIRST_DEPLOYMENTS = 40;
const FIRST_REVISIONS = 6;
const STEP = 100;
const COLOURS = 6;

export function drawDeployments(context) {
  const node = h("div", { class: "deployments" });
  let digestDrawn = null, cards = [], wanted = "", limit = FIRST_DEPLOYMENTS;
  const open = new Map();
  const head = h("header", { class: "page" }), faults = h("div"), under = h("div"), list = h("div", { class: "cards" }), more = h("div", { class: "more" });
  const search = h("input", { type: "search", placeholder: "Filter by bundle, customer or route", "aria-label": "filter",
    oninput: (e) => { wanted = e.target.value.toLowerCase(); limit = FIRST_DEPLOYMENTS; draw(context); live(context); } });
  node.append(head, faults, under, list, more);

  function draw(now) {
    const env = now.env;
    const found = env.deployments.filter((d) => !wanted || named(d).includes(wanted));
    const count = env.deployments.reduce((n, d) => n + d.revisions.length, 0);
    fill(head, h("div", {}, h("h1", { title: env.name }, short(env.name || env.environment_id, 80)),
      h("p", { class: "quiet" }, [`${env.deployments.length} deployment${env.deployments.length === 1 ? "" : "s"}`, `${count} revision${count === 1 ? "" : "s"}`,
        env.generation ? `generation ${env.generation}` : null, env.sealed ? "sealed" : null, `signatures: ${env.signatures.mode}`].filter(Boolean).join(" · "))),
      env.deployments.length > 5 ? search : null);
    cards = found.slice(0, limit).map((d) => card(d, now, open));
    fill(list, cards.map((c) => c.node));
    if (!env.deployments.length) fill(list, h("section", { class: "notice" }, h("h2", {}, "Nothing is deployed here"),
      h("p", {}, "Next: ", h("code", {}, `gtc op deploy --bundle FILE --env ${env.environment_id}`))));
    fill(more, found.length > limit && h("button", { type: "button", onclick: () => { limit += STEP; draw(now); live(now); } }, `${found.length - limit} more deployments`));
  }

  function live(now) {
    fill(faults, now.env.fault && h("p", { class: "fault" }, now.env.fault),
      now.live.workers.filter((w) => !w.answers || w.error || w.behind || w.draining || w.env_id !== now.env.environment_id).map((w) =>
        h("p", { class: w.answers && !w.error ? "fault soft" : "fault" }, h("b", {}, short(w.at)), " ",
          !w.answers ? w.error : w.env_id !== now.env.environment_id ? `serves another environment: ${short(w.env_id)}` : w.draining ? "is stopping" : w.error ? `stays at generation ${w.serving}: ${w.error}` : "follows a change of the environment")));
    changesUnderWay(under, now);
    for (const c of cards) c.update(now);
  }

  return {
    node,
    update(now) {
      context = now;
      const key = now.env.digest + now.allowed;
      if (digestDrawn !== key) {
        const typing = document.activeElement === search;
        draw(now);
        digestDrawn = key;
        if (typing) search.focus();
      }
      live(now);
    },
  };
}

function named(d) {
  return [d.bundle_id, d.customer_id, d.deployment_id, ...d.hosts, ...d.path_prefixes].join("\n").toLowerCase();
}

function card(d, now, open) {
  const id = d.deployment_id;
  const total = numbers(), rows = new Map(), colours = new Map();
  const routed = d.revisions.filter((r) => r.weight_bps !== null);
  const taken = new Set();
  for (const r of [...routed].sort((x, y) => x.sequence - y.sequence)) { // a revision keeps its colour while weights move
    let c = Math.max(0, r.sequence - 1) % COLOURS;
    while (taken.has(c) && taken.size < COLOURS) c = (c + 1) % COLOURS;
    taken.add(c);
    colours.set(r.revision_id, `c${c}`);
  }
  const measured = h("div", { class: "bar measured", "aria-hidden": "true" });
  const faults = h("div"), ramp = d.ramp ? drawRamp(d, now) : null, table = h("div", { class: "revisions", role: "table", "aria-label": "revisions" });
  const body = h("div", { role: "rowgroup" }), more = h("div", { class: "more" });
  table.append(h("div", { class: "row head", role: "row" }, ["Revision", "State", "Weight", "Rate", "Failed", "p99", "Open", "Age"].map((t, i) =>
    h("span", { role: "columnheader", class: `k${i}` }, t))), body);

  function fillRows() {
    const limit = open.get(id) ?? Math.max(FIRST_REVISIONS, Math.min(routed.length, STEP));
    const some = d.revisions.slice(0, limit);
    rows.clear();
    fill(body, some.map((r) => {
      const row = revisionRow(d, r, colours.get(r.revision_id), now);
      rows.set(r.revision_id, row);
      return row.node;
    }));
    fill(more, d.revisions.length > limit && h("button", { type: "button", class: "small", onclick: () => { open.set(id, limit + STEP); fillRows(); update(now); } },
      `${d.revisions.length - limit} more revision${d.revisions.length - limit > 1 ? "s" : ""}`));
  }

  const routes = [...(d.hosts.length ? d.hosts : ["any host"])].slice(0, 3).map((host) => h("span", { class: "route", title: host },
    h("span", { class: "host" }, short(host, 60)), h("code", {}, short((d.path_prefixes.length ? d.path_prefixes : ["/"]).join(" "), 60))));
  const bar = h("div", { class: "bar", role: "img", "aria-label": routed.map((r) => `@${r.sequence} ${percent(r.weight_bps)}`).join(", ") || "no traffic" },
    routed.filter((r) => r.weight_bps).map((r) => h("span", { class: `part ${colours.get(r.revision_id)}`, css: { width: `${r.weight_bps / 100}%` }, title: `@${r.sequence}: ${percent(r.weight_bps)}` },
      r.weight_bps >= 800 ? `@${r.sequence} · ${percent(r.weight_bps)}` : "")));
  const node = h("section", { class: `card ${d.status}`, "aria-label": short(d.bundle_id) },
    h("header", {}, h("div", { class: "title" }, h("h2", { title: d.bundle_id }, short(d.bundle_id)),
      d.status !== "active" && h("span", { class: "pill" }, d.status), copyable(`…${id.slice(-6)}`, id, { class: "id" })),
      h("div", { class: "routes" }, routes, h("span", { class: "quiet", title: d.customer_id }, `for ${short(d.customer_id, 40)}`)),
      total.node),
    faults,
    h("div", { class: "bars" }, d.split ? bar : h("p", { class: "quiet" }, "No traffic is set."), measured),
    ramp?.node,
    table, more,
    h("footer", {}, inside(now.to("chat", id), { class: "button" }, "Talk to it"), actions(d, now),
      d.split && h("span", { class: "quiet", title: d.split.updated_at }, `split ${d.split.generation}, by ${short(d.split.updated_by, 30)}, ${age(d.split.updated_at)}`)));
  fillRows();

  function update(latest) {
    now = latest;
    const all = routed.map((r) => [r, latest.rates.of(r.revision_id)]);
    const known = all.filter(([, f]) => f.perSecond !== null);
    const sum = known.reduce((n, [, f]) => n + f.perSecond, 0);
    const turns = known.reduce((n, [, f]) => n + f.recent, 0);
    total.set(known.length ? sum : null, turns ? known.reduce((n, [, f]) => n + (f.failed ?? 0) * f.recent, 0) / turns : null,
      turns ? Math.max(...known.map(([, f]) => f.p99 ?? 0)) : null);
    measured.title = sum ? "measured: " + known.map(([r, f]) => `@${r.sequence} ${share(f.perSecond / sum)}`).join(", ") : "";
    fill(measured, sum > 0 && known.filter(([, f]) => f.perSecond > 0).map(([r, f]) => h("span", { class: `part ${colours.get(r.revision_id)}`, css: { width: `${(100 * f.perSecond) / sum}%` } })));
    fill(faults, latest.live.workers.flatMap((w) => (w.unavailable ?? []).filter((u) => u.deployment_id === id).map((u) =>
      h("p", { class: "fault" }, h("b", {}, `Not served by ${short(w.at)}: ${u.reason}`), " ", short(u.error, 400)))));
    for (const row of rows.values()) row.update(latest);
    ramp?.update(latest);
  }

  return { node, update };
}

function numbers() {
  const cells = [["turns", "–"], ["failed", "–"], ["p99", "–"]].map(([label, value]) => {
    const number = h("b", {}, value);
    return { number, node: h("span", { class: "number" }, number, h("small", {}, label)) };
  });
  return {
    node: h("div", { class: "numbers" }, cells.map((c) => c.node)),
    set(perSecond, failed, slow) {
      [rate(perSecond), share(failed), seconds(slow)].forEach((value, i) => text(cells[i].number, value));
      cells[1].node.classList.toggle("bad", (failed ?? 0) > 0.01);
    },
  };
}

function revisionRow(d, r, colour, now) {
  const cell = (i, label) => h("span", { role: "cell", class: `k${i}`, "data-label": label });
  const [speed, failed, slow, held] = [cell(3, "rate"), cell(4, "failed"), cell(5, "p99"), cell(6, "open")];
  const node = h("div", { class: "row", role: "row" },
    h("span", { role: "cell", class: "k0" }, h("i", { class: `swatch ${colour ?? "none"}` }),
      inside(now.to("revision", r.revision_id), { class: "name", title: `${d.bundle_id}@${r.sequence}\n${r.revision_id}\nwhy it may run` }, `@${r.sequence}`),
      h("code", { title: r.digest }, digest(r.digest)), copyable(`…${r.revision_id.slice(-6)}`, r.revision_id, { class: "id" })),
    h("span", { role: "cell", class: "k1" }, h("span", { class: `pill ${r.lifecycle}` }, r.lifecycle)),
    h("span", { role: "cell", class: "k2", "data-label": "weight" }, r.weight_bps === null ? "" : percent(r.weight_bps)),
    speed, failed, slow, held,
    h("span", { role: "cell", class: "k7", title: r.created_at, "data-label": "age" }, age(r.created_at)));
  return {
    node,
    update(latest) {
      const f = latest.rates.of(r.revision_id);
      if (!f.seen) return;
      text(speed, rate(f.perSecond));
      text(failed, share(f.failed));
      failed.classList.toggle("bad", (f.failed ?? 0) > 0.01);
      text(slow, seconds(f.p99));
      text(held, `${f.in_flight} / ${f.parked}`);
      held.title = `${f.in_flight} in flight, ${f.parked} parked, ${f.turns.toLocaleString("en")} turns in all`;
    },
  };
}
