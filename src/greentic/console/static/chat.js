// A chat with a deployment, through a worker as anybody reaches it, with the steps of each turn beside it.

import { send } from "./api.js";
import { cardsOf, readCard, textOf } from "./cards/model.js";
import { drawCard, seal } from "./cards/draw.js";
import { fill, h, inside } from "./dom.js";
import { percent, seconds, short } from "./format.js";
import { drawSteps } from "./steps.js";

const kept = new Map(); // conversations live as long as the page

export function drawChat(context) {
  const d = context.env.deployments.find((x) => x.deployment_id === context.argument);
  if (!d) return { node: h("section", { class: "notice" }, h("h1", {}, "This deployment is not here"), inside(context.to(), {}, "← Deployments")), update() {} };
  const place = `${context.env.environment_id} ${d.deployment_id}`;
  let talk = kept.get(place) ?? begin(place);
  const node = h("div", { class: "chat" });
  const log = h("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": "conversation" });
  const beside = h("aside", { class: "beside", "aria-label": "steps of a turn" });
  const served = d.revisions.filter((r) => r.weight_bps !== null);
  const revision = h("select", { "aria-label": "revision" }, h("option", { value: "" }, "as the split draws"), served.map((r) => h("option", { value: r.revision_id }, `@${r.sequence} (${percent(r.weight_bps)})`)));
  const words = h("textarea", { rows: 1, placeholder: "Say something", "aria-label": "message", maxlength: 20000, onkeydown: (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); form.requestSubmit(); }
  } });
  const button = h("button", { type: "submit", class: "main" }, "Send");
  const form = h("form", { class: "say", onsubmit: (e) => {
    e.preventDefault();
    const text = words.value.trim();
    if (!text || talk.busy) return;
    words.value = "";
    say({ text }, text);
  } }, words, button);
  node.append(inside(context.to(), { class: "back" }, "← Deployments"),
    h("header", { class: "page" }, h("div", {}, h("h1", { title: d.bundle_id }, short(d.bundle_id)), h("p", { class: "quiet" }, context.watched.length ? `through ${short(context.watched[0], 80)}` : "no worker is watched: start the console with --at URL")),
      h("div", { class: "tools" }, h("label", {}, "Revision ", revision), h("button", { type: "button", onclick: () => { talk = begin(place); redraw(); words.focus(); } }, "New conversation"))),
    h("div", { class: "split" }, h("section", { class: "talk" }, log, form), beside));
  if (!context.watched.length) words.disabled = button.disabled = true;
  redraw();

  function redraw() {
    fill(log, talk.turns.length ? talk.turns.map((t) => t.node) : h("p", { class: "quiet empty" }, "Nothing was said yet."));
    choose(talk.turns.at(-1));
    requestAnimationFrame(() => talk.turns.at(-1)?.node.scrollIntoView({ block: "nearest" }));
  }

  function choose(turn) {
    for (const t of talk.turns) t.node.classList.toggle("chosen", t === turn);
    fill(beside, turn ? drawSteps(turn, d) : h("p", { class: "quiet empty" }, "The steps of a turn stand here: what each node was given, what came of it, and how long it took."));
  }

  async function say(what, shown) {
    const mine = talk;
    mine.busy = button.disabled = true;
    const answer = h("div", { class: "answer" }, h("span", { class: "typing", "aria-label": "waiting" }));
    const turn = { asked: what, told: null };
    turn.node = h("article", { class: "turn" }, h("div", { class: "mine" }, shown), answer);
    turn.node.addEventListener("click", (e) => e.target.closest("input, select, textarea, a, .adaptive button") || choose(turn));
    for (const before of mine.turns) before.node.querySelectorAll(".adaptive").forEach(seal);
    mine.turns.push(turn);
    redraw();
    try {
      const message = { deployment_id: d.deployment_id, conversation: mine.id, message_id: crypto.randomUUID(), ...what };
      if (revision.value) message.revision_id = revision.value;
      turn.told = await (await send("/api/say", message)).json();
    } catch (error) {
      turn.told = { ok: false, error: error.message, hint: error.hint };
    }
    mine.busy = button.disabled = false;
    fill(answer, drawn(turn));
    choose(turn);
    turn.node.scrollIntoView({ block: "nearest" });
    if (!turn.node.contains(document.activeElement)) (turn.node.querySelector(".adaptive input, .adaptive select") ?? words).focus({ preventScroll: true });
  }

  // What nobody foresaw in an answer takes no conversation with it.
  function drawn(turn) {
    try {
      return reply(turn);
    } catch (error) {
      return h("p", { class: "fault" }, `This answer cannot be drawn: ${short(error.message, 200)}`);
    }
  }

  function reply(turn) {
    const told = turn.told;
    if (!told.ok) return h("p", { class: "fault" }, told.status ? `${told.status}: ` : "", short(told.error ?? "", 600), told.hint && [" Next: ", h("code", {}, told.hint)]);
    const waits = told.trace?.waits ?? told.replies.some((r) => r?.status === "pending");
    const meta = h("button", { type: "button", class: "meta", onclick: () => choose(turn) }, [
      seconds(told.seconds), told.trace?.revision_id && `@${d.revisions.find((r) => r.revision_id === told.trace.revision_id)?.sequence ?? "?"}`,
      told.trace && `${told.trace.steps.length} step${told.trace.steps.length === 1 ? "" : "s"}`, waits && "waits for you"].filter(Boolean).join(" · "));
    return [told.replies.map((r) => one(r)), meta];
  }

  function one(raw) {
    const cards = cardsOf(raw), text = textOf(raw);
    const failed = raw?.metadata?.error_kind;
    const parts = [
      text !== null && h("p", { class: failed ? "bubble bad" : "bubble" }, text, failed && h("small", {}, short(textOf(raw.metadata.error_message) ?? textOf(failed) ?? "failed", 600))),
      cards.map((c) => drawCard(readCard(c), (data, title) => talk.busy || say({ text: "", data }, title || "(sent the card)"))),
    ].flat().filter(Boolean);
    return parts.length ? parts : h("pre", { class: "bubble" }, JSON.stringify(raw, null, 1)?.slice(0, 4000) ?? "(nothing)");
  }

  return { node, update() {} };
}

function begin(place) {
  const talk = { id: crypto.randomUUID(), turns: [], busy: false };
  kept.set(place, talk);
  return talk;
}
