// Which addresses of bundles may become links. Pure.

const OPENED = new Set(["https:", "http:", "mailto:"]);

// The address if it may be opened, else null: no scripts, no documents made of text, nothing relative, nobody's password.
export function safeUrl(raw) {
  if (typeof raw !== "string" || raw.length > 4096) return null;
  let url;
  try {
    url = new URL(raw.trim());
  } catch {
    return null;
  }
  if (!OPENED.has(url.protocol) || url.username || url.password) return null;
  return url.href;
}

// The address of a picture that may be fetched when somebody asks for it.
export function pictureUrl(raw) {
  const address = safeUrl(raw);
  return address !== null && address.startsWith("https:") ? address : null;
}
