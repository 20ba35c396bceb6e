// Why a revision may run: the chain from its source to who serves it, as a picture.

import { ask } from "./api.js";
import { copyable, fill, h, inside } from "./dom.js";
import { digest, percent, short } from "./format.js";

const TOLD = {
  source: ["Source", "where the bundle was fetched from"],
  bundle: ["Bundle", "the digest that its bytes had to have"],
  signatures: ["Signatures", "who vouched for it"],
  tree: ["Tree", "what it was unpacked to"],
  packs: ["Packs", "what was loaded from it"],
  compiled: ["Compiled", "the machine code that was made of these"],
  routes: ["Routes", "who reaches it, with what weight"],
  serving: ["Serving", "by whom, since when"],
};
const DEPTH = 6;
const BAD = new Map([["as_pinned", false], ["valid", false], ["accepted", false], ["revoked", true], ["expired", true]]); // what must not be

export function drawProof(context) {
  const id = context.argument;
  const node = h("div", { class: "proof" });
  const body = h("div", {}, h("p", { class: "quiet wait" }, "Asking…"));
  const d = context.env.deployments.find((x) => x.revisions.some((r) => r.revision_id === id));
  const r = d?.revisions.find((x) => x.revision_id === id);
  node.append(inside(context.to(), { class: "back" }, "← Deployments"),
    h("header", { class: "page" }, h("div", {}, h("h1", {}, r ? `${short(d.bundle_id)}@${r.sequence}` : "Revision"),
      h("p", { class: "quiet" }, "Why it may run: each step rests on the one before it."), copyable(id, id, { class: "id" })),
      r && h("span", { class: `pill ${r.lifecycle}` }, r.lifecycle)), body);
  load();

  async function load() {
    try {
      const told = await ask(`/api/proof/${encodeURIComponent(context.env.environment_id)}/${encodeURIComponent(id)}`);
      const chains = told.chains.length ? told.chains : [{ at: "the environment's document", signed: false, steps: told.document, alone: true }];
      fill(body, chains.map((c) => chain(c, told)));
    } catch (error) {
      fill(body, h("p", { class: "fault" }, error.message));
    }
  }
  return { node, update() {} };
}

const STATES = { serves: ["ready", "as wanted"], behind: ["warn", "behind"], differs: ["failed", "differs"] };

function chain(c, told) {
  const steps = c.steps.length ? c.steps : told.document;
  const [kind, state] = STATES[c.state] ?? ["warn", c.signed ? "signed" : "not proven"];
  const word = c.state === "serves" && c.pinned ? "proven" : state;
  return h("section", { class: `chain ${c.signed && !c.error ? "signed" : "unsigned"}` },
    h("header", {}, h("h2", {}, short(c.at, 80)), h("span", { class: `pill ${kind}` }, word), h("p", { class: "quiet" }, vouching(c))),
    c.behind > 0 && h("p", {}, `It has yet to follow ${c.behind} generation${c.behind > 1 ? "s" : ""} of the environment.`),
    c.differences?.length > 0 && h("ul", { class: "fault" }, c.differences.slice(0, 20).map((d) =>
      h("li", {}, h("b", {}, named(d.field)), ": wanted ", h("code", {}, short(d.expected, 120)), ", it serves ", h("code", {}, short(d.found, 120))))),
    c.error && h("p", { class: "fault" }, short(c.error, 400)),
    h("ol", { class: "steps" }, steps.map((s) => {
      const [name, what] = TOLD[s.step] ?? [s.step, ""];
      const odd = s.members?.as_pinned === false;
      return h("li", { class: odd ? "bad" : "" }, h("span", { class: "knot" }), h("div", { class: "link" },
        h("h3", {}, short(name || "step"), h("small", {}, what)), members(s.members, 0)));
    })));
}

function vouching(c) {
  if (c.signed) {
    const key = h("code", {}, c.key_id);
    return c.pinned ? ["Signed by the pinned key ", key, ", in answer to this page's question."]
      : ["Signed by the worker's own key ", key, ", for which nobody vouches. To pin it: ", h("code", {}, `gtc console … --proof-key ${c.key_id}`)];
  }
  if (c.alone) return "No worker is watched: this is what the document wants.";
  if (c.error) return null;
  return ["This worker gives no proof. The chain is made from the document and ", h("code", {}, "/status"), ": what is wanted, and what the worker says.",
    c.served === false ? " It does not serve this revision." : ""];
}

function members(value, depth) {
  if (depth > DEPTH) return h("span", { class: "quiet" }, "…");
  const rows = Object.entries(value ?? {}).slice(0, 60);
  return h("dl", {}, rows.map(([key, item]) => [h("dt", {}, named(key)), h("dd", {}, one(key, item, depth))]));
}

function named(key) {
  return short(key.replace(/_bps$/, "").replaceAll("_", " "), 40);
}

function one(key, value, depth) {
  if (key === "hosts" && Array.isArray(value) && !value.length) return "any";
  if (value === null || value === undefined || value === "") return h("span", { class: "quiet" }, "none");
  if (key === "weight_bps" && typeof value === "number") return percent(value);
  if (typeof value === "boolean") return h(value === BAD.get(key) ? "b" : "span", { class: value === BAD.get(key) && "bad" }, value ? "yes" : "no");
  if (typeof value === "string" && /^(sha256:)?[0-9a-f]{64}$/.test(value)) return copyable(digest(value), value, { class: "digest" });
  if (Array.isArray(value)) {
    if (!value.length) return h("span", { class: "quiet" }, "none");
    return h("ul", {}, value.slice(0, 100).map((v) => h("li", {}, typeof v === "object" && v !== null ? compact(v, depth) : one("", v, depth))));
  }
  if (typeof value === "object") return members(value, depth + 1);
  return h("span", { class: "value", title: String(value) }, short(value, 160));
}

// An object of plain values in one line; another one in full.
function compact(value, depth) {
  const plain = Object.entries(value).every(([, v]) => typeof v !== "object" || v === null);
  return plain ? Object.entries(value).map(([k, v]) => h("span", { class: "part" }, h("small", {}, named(k)), " ", one(k, v, depth))) : members(value, depth + 1);
}
