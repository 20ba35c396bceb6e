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
      const chains = told.chains.length ? told.chains : [{ at: "the environment's document", signed: false, keyids: [], steps: told.document, alone: true }];
      fill(body, chains.map((c) => chain(c, told)));
    } catch (error) {
      fill(body, h("p", { class: "fault" }, error.message));
    }
  }
  return { node, update() {} };
}

function chain(c, told) {
  const steps = c.steps.length ? c.steps : told.document;
  const signed = c.signed && !c.error;
  const [mark, word, why] = judgement(c);
  return h("section", { class: `chain ${signed ? "signed" : "unsigned"}` },
    h("header", {}, h("h2", {}, short(c.at, 80)),
      h("span", { class: `pill ${mark}` }, word),
      h("p", { class: "quiet" }, c.verdict ? why
        : c.alone ? "No worker is watched: this is what the document wants."
        : c.error ? null : ["This worker gives no proof. The chain is made from the document and ", h("code", {}, "/status"), ": what is wanted, and what the worker says.",
          c.served === false ? " It does not serve this revision." : ""])),
    c.error && h("p", { class: "fault" }, short(c.error, 400)),
    differences(c),
    h("ol", { class: "steps" }, steps.map((s) => {
      const [name, what] = TOLD[s.step] ?? [s.step, ""];
      const odd = s.members?.as_pinned === false;
      return h("li", { class: odd ? "bad" : "" }, h("span", { class: "knot" }), h("div", { class: "link" },
        h("h3", {}, short(name || "step"), h("small", {}, what)), members(s.members, 0)));
    })));
}

// What `gtc op env verify` says of the worker: the class of the mark, a word, and a sentence.
function judgement(c) {
  const v = c.verdict;
  if (!v) return ["warn", "not signed", null];
  if (v.state === "unproven") return ["failed", "not believed", ["Nothing is proven: ", short(v.reason, 300), ". What follows is what the worker says."]];
  const who = ["Signed by key ", copyable(short(v.key_id, 20), v.key_id, { class: "digest" }), v.pinned
    ? ", which you pinned; the signature holds. " : "; the signature holds, and nobody vouches for the key. To vouch for it, start the console with --proof-key and this key. "];
  if (v.state === "behind") return ["warn", `behind by ${v.behind}`, [who, "It has yet to follow the newest changes."]];
  if (v.state === "differs") return ["failed", "differs", [who, "It does not serve what the environment wants."]];
  return [v.pinned ? "ready" : "warn", v.pinned ? "verified" : "signed, key not pinned", [who, c.served ? "It serves what the environment wants."
    : "It serves what the environment wants, and this revision is not part of that."]];
}

function differences(c) {
  const v = c.verdict;
  if (!v || v.state === "unproven") return null;
  const rows = v.differences.map((d) => h("li", {}, h("b", {}, named(d.field)), ": wanted is ", h("code", {}, short(d.expected, 160)),
    ", the worker serves ", h("code", {}, short(d.found, 160))));
  if (v.elsewhere) rows.push(h("li", {}, `${v.elsewhere} other ${v.elsewhere === 1 ? "revision differs" : "revisions differ"}, too; gtc op env verify tells all.`));
  return rows.length ? h("ul", { class: v.state === "differs" ? "fault" : "quiet" }, rows) : null;
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
