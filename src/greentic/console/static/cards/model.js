// What a card means: from JSON that somebody else wrote to a bounded model with known members. Pure. Rules:
// 1. Nothing is trusted: members of the wrong kind are left out, nesting ends at MAX_DEPTH, so many elements are read in all, and of a card
//    that is larger than MAX_SIZE nothing, for its cells, choices and lines would hold up the page.
// 2. An element of an unknown type, or whose `requires` is not met, is replaced by its `fallback`: an element, or nothing for "drop".
//    Without one, the nearest element around it that has a fallback is replaced; where none has, it is left out, and that is noted.
// 3. An address that may not be opened makes an action without one, which says so.

import { pictureUrl, safeUrl } from "../urls.js";

export const MAX_DEPTH = 50;
export const MAX_ELEMENTS = 2000;
export const MAX_SIZE = 250_000; // characters and members
const MAX_TEXT = 20_000;
const VERSION = [1, 6];

const list = (v) => (Array.isArray(v) ? v : []);
const object = (v) => (v !== null && typeof v === "object" && !Array.isArray(v) ? v : {});
const words = (v, most = MAX_TEXT) => (typeof v === "string" ? v.slice(0, most) : typeof v === "number" || typeof v === "boolean" ? String(v) : "");
const number = (v) => (typeof v === "number" && Number.isFinite(v) ? v : typeof v === "string" && v.trim() !== "" && Number.isFinite(Number(v)) ? Number(v) : null);
const of = (v, known, otherwise) => known.find((k) => k.toLowerCase() === words(v).toLowerCase()) ?? otherwise;

const SIZES = ["default", "small", "medium", "large", "extraLarge"];
const COLORS = ["default", "dark", "light", "accent", "good", "warning", "attention"];
const ALIGN = ["left", "center", "right"];
const SPACING = ["default", "none", "small", "medium", "large", "extraLarge", "padding"];
const STYLES = ["default", "emphasis", "good", "attention", "warning", "accent"];

class Bubbles extends Error {}

// The model of a card: body, actions, and notes about what was left out.
export function readCard(raw) {
  const reader = new Reader(), whole = !isLarger(raw);
  if (!whole) reader.notes.add("this card is too large to be drawn");
  return { ...reader.card(whole ? object(raw) : {}, 0), notes: [...reader.notes] };
}

// Whether a card is larger than what is read; looked at only as far as that.
function isLarger(raw) {
  const waiting = [raw];
  let left = MAX_SIZE;
  while (waiting.length && left > 0) {
    const v = waiting.pop();
    left -= typeof v === "string" ? v.length + 1 : 1;
    if (v === null || typeof v !== "object") continue;
    for (const [key, inner] of Object.entries(v)) {
      left -= Array.isArray(v) ? 0 : key.length;
      waiting.push(inner);
    }
  }
  return left <= 0;
}

class Reader {
  left = MAX_ELEMENTS;
  notes = new Set();
  guarded = 0; // how many elements around have a fallback

  card(raw, depth) {
    const version = words(raw.version, 20).split(".").map(Number);
    const newer = version[0] > VERSION[0] || (version[0] === VERSION[0] && version[1] > VERSION[1]);
    if (newer && raw.fallbackText) this.notes.add(`the card is of version ${words(raw.version, 20)}; it says for older readers: ${words(raw.fallbackText, 400)}`);
    return { kind: "AdaptiveCard", body: this.elements(raw.body, depth + 1), actions: this.actions(raw.actions, depth + 1), select: this.select(raw.selectAction, depth) };
  }

  elements(raw, depth) {
    return list(raw).map((e) => this.one(e, depth, ELEMENTS)).filter((e) => e !== null);
  }

  actions(raw, depth) {
    return list(raw).map((a) => this.one(a, depth, ACTIONS)).filter((a) => a !== null);
  }

  select(raw, depth) {
    return raw === undefined || raw === null ? null : this.one(raw, depth + 1, ACTIONS);
  }

  one(raw, depth, known) {
    raw = object(raw);
    if (depth > MAX_DEPTH) {
      this.notes.add(`what is nested deeper than ${MAX_DEPTH} is not shown`);
      return null;
    }
    if (--this.left < 0) {
      this.notes.add(`more than ${MAX_ELEMENTS} elements are not shown`);
      return null;
    }
    const kind = words(raw.type, 80);
    const read = Object.hasOwn(known, kind) ? known[kind] : undefined;
    const has = raw.fallback !== undefined && raw.fallback !== null;
    if (read !== undefined && met(raw.requires)) {
      if (!has) return { ...common(raw), ...read.call(this, raw, depth) };
      this.guarded++;
      try {
        return { ...common(raw), ...read.call(this, raw, depth) };
      } catch (error) {
        if (!(error instanceof Bubbles)) throw error;
      } finally {
        this.guarded--;
      }
    }
    if (has) return raw.fallback === "drop" ? null : this.one(raw.fallback, depth + 1, known);
    if (this.guarded > 0) throw new Bubbles();
    this.notes.add(`left out: an element of the type ${kind || "that is missing"}`);
    return null;
  }
}

function met(requires) {
  return Object.entries(object(requires)).every(([name, version]) => {
    if (name !== "adaptiveCards") return false;
    const [major, minor = 0] = words(version, 20).split(".").map(Number);
    return version === "*" || major < VERSION[0] || (major === VERSION[0] && minor <= VERSION[1]);
  });
}

function common(raw) {
  return { kind: raw.type, id: words(raw.id, 300), visible: raw.isVisible !== false, separator: raw.separator === true, spacing: of(raw.spacing, SPACING, "default") };
}

function textual(raw) {
  return { text: words(raw.text), size: of(raw.size, SIZES, "default"), bolder: of(raw.weight, ["bolder", "lighter", "default"], "default"), color: of(raw.color, COLORS, "default"), subtle: raw.isSubtle === true, mono: of(raw.fontType, ["monospace"], "") !== "" };
}

function input(raw) {
  return { label: words(raw.label, 1000), required: raw.isRequired === true, error: words(raw.errorMessage, 1000), value: words(raw.value) };
}

function columns(raw) {
  const width = typeof raw === "string" && /^\d{1,4}px$/.test(raw) ? raw : number(raw) !== null && number(raw) > 0 ? Math.min(number(raw), 1000) : of(raw, ["auto", "stretch"], "stretch");
  return { width };
}

const ELEMENTS = {
  TextBlock(raw) {
    return { ...textual(raw), wrap: raw.wrap === true, maxLines: Math.max(0, Math.min(100, number(raw.maxLines) ?? 0)), align: of(raw.horizontalAlignment, ALIGN, "left"), heading: of(raw.style, ["heading", "columnHeader"], "") };
  },
  RichTextBlock(raw, depth) {
    const runs = list(raw.inlines).slice(0, 500).map((run) => {
      if (typeof run === "string") return { ...textual({ text: run }), select: null };
      const r = object(run);
      return { ...textual(r), italic: r.italic === true, strike: r.strikethrough === true, underline: r.underline === true, highlight: r.highlight === true, select: this.select(r.selectAction, depth) };
    });
    return { runs, align: of(raw.horizontalAlignment, ALIGN, "left") };
  },
  Image(raw, depth) {
    return { url: pictureUrl(raw.url), alt: words(raw.altText, 1000), size: of(raw.size, ["auto", "stretch", "small", "medium", "large"], "auto"), person: of(raw.style, ["person"], "") !== "", align: of(raw.horizontalAlignment, ALIGN, "left"), select: this.select(raw.selectAction, depth) };
  },
  ImageSet(raw, depth) {
    return { kind: "Container", style: "default", across: true, items: this.elements(list(raw.images).map((i) => ({ type: "Image", ...object(i) })), depth + 1), select: null };
  },
  Container(raw, depth) {
    return { style: of(raw.style, STYLES, ""), items: this.elements(raw.items, depth + 1), select: this.select(raw.selectAction, depth), bleed: raw.bleed === true };
  },
  ColumnSet(raw, depth) {
    const found = list(raw.columns).slice(0, 50).map((c) => {
      const column = object(c);
      return { ...common({ type: "Column", ...column }), kind: "Column", style: of(column.style, STYLES, ""), ...columns(column.width), items: this.elements(column.items, depth + 2), select: this.select(column.selectAction, depth + 1) };
    });
    return { style: of(raw.style, STYLES, ""), columns: found, select: this.select(raw.selectAction, depth) };
  },
  FactSet(raw) {
    return { facts: list(raw.facts).slice(0, 200).map((f) => ({ title: words(object(f).title), value: words(object(f).value) })) };
  },
  Table(raw, depth) {
    const widths = list(raw.columns).slice(0, 50).map((c) => columns(object(c).width));
    const rows = list(raw.rows).slice(0, 500).map((r) => list(object(r).cells).slice(0, 50).map((c) => this.elements(object(c).items, depth + 3)));
    return { widths, rows, headed: raw.firstRowAsHeader !== false, lines: raw.showGridLines !== false };
  },
  ActionSet(raw, depth) {
    return { actions: this.actions(raw.actions, depth + 1) };
  },
  "Input.Text"(raw) {
    return { ...input(raw), lines: raw.isMultiline === true, placeholder: words(raw.placeholder, 1000), most: Math.max(0, number(raw.maxLength) ?? 0), form: of(raw.style, ["text", "tel", "url", "email", "password"], "text") };
  },
  "Input.Number"(raw) {
    return { ...input(raw), placeholder: words(raw.placeholder, 1000), min: number(raw.min), max: number(raw.max) };
  },
  "Input.Date"(raw) {
    return { ...input(raw), min: words(raw.min, 20), max: words(raw.max, 20) };
  },
  "Input.Time"(raw) {
    return { ...input(raw), min: words(raw.min, 20), max: words(raw.max, 20) };
  },
  "Input.Toggle"(raw) {
    return { ...input(raw), title: words(raw.title, 1000), on: words(raw.valueOn) || "true", off: words(raw.valueOff) || "false" };
  },
  "Input.ChoiceSet"(raw) {
    const choices = list(raw.choices).slice(0, 500).map((c) => ({ title: words(object(c).title, 1000), value: words(object(c).value) }));
    return { ...input(raw), choices, many: raw.isMultiSelect === true, expanded: of(raw.style, ["expanded"], "") !== "", placeholder: words(raw.placeholder, 1000) };
  },
};

function pressed(raw) {
  return { title: words(raw.title, 300), tone: of(raw.style, ["positive", "destructive"], ""), enabled: raw.isEnabled !== false, hint: words(raw.tooltip, 300) };
}

const ACTIONS = {
  "Action.Submit"(raw) {
    return { ...pressed(raw), data: raw.data, inputs: of(raw.associatedInputs, ["none"], "auto") };
  },
  "Action.Execute"(raw) {
    const data = raw.verb === undefined ? raw.data : { ...object(raw.data), action: words(raw.verb, 300) };
    return { ...pressed(raw), kind: "Action.Submit", data, inputs: of(raw.associatedInputs, ["none"], "auto") };
  },
  "Action.OpenUrl"(raw) {
    return { ...pressed(raw), url: safeUrl(raw.url) };
  },
  "Action.ShowCard"(raw, depth) {
    return { ...pressed(raw), card: this.card(object(raw.card), depth) };
  },
  "Action.ToggleVisibility"(raw) {
    const targets = list(raw.targetElements).slice(0, 200).map((t) => (typeof t === "string" ? { id: t, visible: null } : { id: words(object(t).elementId, 300), visible: typeof object(t).isVisible === "boolean" ? object(t).isVisible : null }));
    return { ...pressed(raw), targets };
  },
};

// The cards in what a flow answered, wherever flows put them; not deeper than eight levels.
export function cardsOf(reply, depth = 0) {
  if (depth > 8 || reply === null || typeof reply !== "object") return [];
  if (Array.isArray(reply)) return reply.slice(0, 50).flatMap((r) => cardsOf(r, depth + 1));
  if (reply.type === "AdaptiveCard") return [reply];
  if (reply.renderedCard !== null && typeof reply.renderedCard === "object") return [reply.renderedCard];
  if (reply.contentType === "application/vnd.microsoft.card.adaptive") return [object(reply.content)];
  return ["response", "payload", "outputs", "result", "structured_content", "attachments", "card", "output"].flatMap((name) => cardsOf(reply[name], depth + 1));
}

// The text that a person reads of an answer, or null.
export function textOf(reply) {
  if (typeof reply === "string") return reply;
  if (reply === null || typeof reply !== "object" || Array.isArray(reply)) return null;
  if (typeof reply.text === "string" && reply.text) return reply.text;
  return reply.status === "pending" ? textOf(reply.response) : null;
}

// The little markdown of a text: bold, italic and links, as spans; everything else is text.
export function spans(text) {
  const found = [];
  const mark = /\*\*([^*\n]{1,2000})\*\*|__([^_\n]{1,2000})__|\*([^*\n]{1,2000})\*|\[([^\]\n]{1,500})\]\(([^)\s]{1,2000})\)/g;
  let last = 0;
  for (const hit of text.matchAll(mark)) {
    if (hit.index > last) found.push({ text: text.slice(last, hit.index) });
    if (hit[4] !== undefined) found.push({ text: hit[4], url: hit[5] });
    else found.push({ text: hit[1] ?? hit[2] ?? hit[3], bold: hit[3] === undefined, italic: hit[3] !== undefined });
    last = hit.index + hit[0].length;
  }
  if (last < text.length) found.push({ text: text.slice(last) });
  return found;
}

// What a submit sends: the data of the button with the inputs over it.
export function submitted(data, inputs) {
  const base = data !== null && typeof data === "object" && !Array.isArray(data) ? data : data === undefined || data === null ? {} : { data };
  return { ...base, ...inputs };
}
