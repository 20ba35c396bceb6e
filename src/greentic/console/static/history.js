// What changed: the audit as a time line.

import { ask } from "./api.js";
import { fill, h, tell } from "./dom.js";
import { clock, day, percent, short } from "./format.js";

const EVERY = 3;

export function drawHistory(context) {
  const node = h("div", { class: "history" }, h("header", { class: "page" }, h("div", {}, h("h1", {}, "History"), h("p", { class: "quiet" }, "Who changed what, newest first."))));
  const list = h("div", {}, h("p", { class: "quiet wait" }, "Reading…"));
  node.append(list);
  let turn = 0, newest = null;

  async function load(now) {
    let told;
    try {
      told = await ask(`/api/history/${encodeURIComponent(now.env.environment_id)}`);
    } catch (error) {
      return tell(error.message, true);
    }
    const key = `${told.changes.length} ${told.changes[0]?.id} ${told.changes[0]?.outcome}`;
    if (key === newest) return;
    newest = key;
    const days = Map.groupBy ? Map.groupBy(told.changes, (c) => day(c.at)) : new Map([["", told.changes]]);
    fill(list, told.damaged > 0 && h("p", { class: "fault" }, `${told.damaged} line${told.damaged > 1 ? "s" : ""} of the log cannot be read; gtc op env doctor tells more`),
      [...days].map(([name, changes]) => h("section", {}, h("h2", { class: "day" }, name), h("ol", { class: "line" }, changes.map((c) => change(c, now))))),
      !told.changes.length && h("p", { class: "quiet" }, "Nothing was changed yet."),
      told.older && h("p", { class: "quiet" }, "What is older stands in the audit log itself."));
  }
  return { node, update(now) { if (turn++ % EVERY === 0) load(now); } };
}

function change(c, now) {
  const names = new Map();
  for (const d of now.env.deployments) {
    names.set(d.deployment_id, d.bundle_id);
    for (const r of d.revisions) names.set(r.revision_id, `${d.bundle_id}@${r.sequence}`);
  }
  const bad = c.outcome !== "ok";
  return h("li", { class: bad ? "bad" : c.noun }, h("time", { datetime: c.at, title: c.at }, clock(c.at)), h("span", { class: "knot" }),
    h("div", {}, h("p", {}, h("b", {}, short(`${c.noun} ${c.verb}`)), " ", h("span", { class: "quiet" }, c.who && `by ${short(c.who, 40)}`),
      c.from !== null && c.from !== undefined && c.to !== null && c.to !== undefined && h("span", { class: "pill" }, `${c.from} → ${c.to}`),
      c.recovered && h("span", { class: "pill" }, "recovered"),
      bad && h("span", { class: "pill failed" }, c.outcome === "error" ? "refused" : "end not known")),
    h("p", { class: "target" }, Object.entries(c.target).filter(([, v]) => !blank(v)).slice(0, 12).map(([key, value]) => h("span", { class: "part" }, h("small", {}, short(key.replaceAll("_", " "), 30)), " ", shown(value, names)))),
    c.message && h("p", { class: bad ? "reason" : "quiet" }, short(c.message, 400))));
}

function blank(v) {
  return v === null || v === "" || (typeof v === "object" && !Object.keys(v).length);
}

/** A short list or object without its signs: `greentic 10000`. */
function words(value) {
  if (Array.isArray(value)) return value.map(words).join(", ");
  return value && typeof value === "object" ? Object.values(value).map(words).join(" ") : String(value);
}

function shown(value, names) {
  if (typeof value === "string" && names.has(value)) return h("span", { title: value }, short(names.get(value)));
  if (Array.isArray(value) && value.length && value.every((v) => Array.isArray(v) && v.length === 2 && typeof v[1] === "number"))
    return value.map(([id, bps]) => h("span", { class: "part", title: String(id) }, `${short(names.get(id) ?? "…" + String(id).slice(-6))} ${percent(bps)}`));
  const whole = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return h("span", { title: short(whole, 2000) }, short(whole.length > 2000 ? whole : words(value), 80));
}
