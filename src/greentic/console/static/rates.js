// Rates from counts. Pure. Rules:
// 1. Counts belong to a process and only grow. What is compared are two answers of one process; a count that fell is a new beginning.
// 2. A worker tells of all its processes, and an address may lead to several workers. What was seen of each within the window is added up.
// 3. The window is half a minute: long enough to be calm, short enough to follow a ramp.

export const WINDOW = 30_000;

const EMPTY = { turns: 0, failures: 0, in_flight: 0, parked: 0, buckets: [], bounds: [] };

export class Rates {
  #processes = new Map();

  // `workers` as the console tells them, at a moment in milliseconds.
  feed(workers, now) {
    for (const process of workers.filter((w) => w.answers).flatMap((w) => [w, ...w.others])) {
      const rows = new Map();
      for (const row of process.revisions) rows.set(row.revision_id, row);
      for (const row of process.draining_revisions) if (!rows.has(row.revision_id)) rows.set(row.revision_id, row);
      const seen = this.#processes.get(process.process) ?? [];
      seen.push({ now, rows });
      this.#processes.set(process.process, seen);
    }
    for (const [process, seen] of this.#processes) {
      while (seen.length > 2 && now - seen[0].now > WINDOW) seen.shift();
      if (now - seen[seen.length - 1].now > WINDOW) this.#processes.delete(process);
    }
  }

  // What is known of a revision, or of the control slice that is counted beside it.
  of(revision, control = false) {
    let perSecond = null;
    const sum = { turns: 0, failures: 0, buckets: [] };
    const now = { in_flight: 0, parked: 0, turns: 0, seen: false, bounds: [] };
    for (const seen of this.#processes.values()) {
      const last = seen[seen.length - 1];
      const newest = counts(last.rows.get(revision), control);
      if (newest === null) continue;
      now.seen = true;
      now.in_flight += newest.in_flight;
      now.parked += newest.parked;
      now.turns += newest.turns;
      now.bounds = newest.bounds;
      const first = seen.find((s) => counts(s.rows.get(revision), control) !== null);
      if (first === last) continue;
      let oldest = counts(first.rows.get(revision), control);
      if (oldest.turns > newest.turns) oldest = EMPTY;
      perSecond = (perSecond ?? 0) + ((newest.turns - oldest.turns) * 1000) / (last.now - first.now);
      sum.turns += newest.turns - oldest.turns;
      sum.failures += Math.max(0, newest.failures - oldest.failures);
      newest.buckets.forEach((n, i) => (sum.buckets[i] = (sum.buckets[i] ?? 0) + Math.max(0, n - (oldest.buckets[i] ?? 0))));
    }
    return {
      ...now, perSecond, recent: sum.turns,
      failed: sum.turns ? sum.failures / sum.turns : null,
      p99: quantile(sum.buckets, now.bounds, 0.99),
    };
  }
}

function counts(row, control) {
  if (row === undefined) return null;
  return (control ? row.control : row.counts) ?? null;
}

// The upper bound below which a share of the turns ended; infinity above the last, null without turns.
export function quantile(buckets, bounds, wanted) {
  const total = buckets.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let seen = 0;
  for (let i = 0; i < buckets.length; i++) {
    seen += buckets[i];
    if (seen >= wanted * total) return i < bounds.length ? bounds[i] : Infinity;
  }
  return Infinity;
}
