// What the page asks its own server, and nobody else.

export class Refused extends Error {
  constructor(told, status) {
    super(told?.message ?? `the console answered ${status}`);
    this.kind = told?.kind ?? "unknown";
    this.hint = told?.hint ?? null;
    this.status = status;
  }
}

const known = new Map();

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new Refused({ message: "The console does not answer. Is `gtc console` still running?" }, 0);
  }
  if (answer.status === 304) return answer;
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    if (answer.status === 401) throw new Refused({ message: "Open the address that `gtc console` printed." }, 401);
    throw new Refused(told?.error, answer.status);
  }
  return answer;
}

// A question; where `remembered` is set, the answer before is given again while it holds.
export async function ask(path, remembered = false) {
  const before = remembered ? known.get(path) : undefined;
  const answer = await answered(path, before ? { headers: { "if-none-match": before.tag } } : {});
  if (answer.status === 304) return before.value;
  const value = await answer.json();
  if (remembered) known.set(path, { tag: answer.headers.get("etag") ?? "", value });
  return value;
}

// Something to be done.
export async function send(path, body) {
  return answered(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-greentic-console": "1" },
    body: JSON.stringify(body),
  });
}
