// Elements made by hand. Rules: a text is only ever a text (no markup is parsed anywhere); handlers are functions; an address
// passes `safeUrl` before it becomes a link.

import { safeUrl } from "./urls.js";

export function h(name, properties, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "css") for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else if (key === "href") throw new Error("a link is made by link()");
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// Replace what a node holds.
export function fill(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

// Set a text if it is another one, so that nothing that a person marked is lost.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

// A link inside of this page.
export function inside(hash, properties, ...children) {
  const node = h("a", properties, ...children);
  node.href = hash;
  return node;
}

// A link to elsewhere, or the plain text where the address is none that may be opened.
export function link(url, properties, ...children) {
  const address = safeUrl(url);
  if (address === null) return h("span", { ...properties, title: "this address is not opened here" }, ...children);
  const node = h("a", { ...properties, target: "_blank", rel: "noopener noreferrer", title: address }, ...children);
  node.href = address;
  return node;
}

// A name that is copied by a click.
export function copyable(shown, whole, properties) {
  const node = h("button", { type: "button", ...properties, class: `copy ${properties?.class ?? ""}`, title: `${whole}\nclick to copy` }, shown);
  node.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(whole);
      tell(`Copied ${whole}`);
    } catch {
      tell(whole);
    }
  });
  return node;
}

let silence = 0;

// Say something at the edge of the page, for a moment.
export function tell(what, bad = false) {
  const node = document.getElementById("said");
  node.className = bad ? "shown bad" : "shown";
  fill(node, what);
  clearTimeout(silence);
  silence = setTimeout(() => (node.className = ""), bad ? 9000 : 3000);
}
