/** From the service's answers to the rows of charts: pure. */

import { wall } from "./times.js";

/** Readings this far apart are compared with each other. */
const NEAR_MS = 30_000;

/** Return the rows of the demand's answer; the finest has the times of readings, no lengths. */
export function powerRows(answer) {
  const starts = answer.start.map((at) => at * 1000);
  const raw = answer.step === "raw";
  const length = (index) => {
    const next = index + 1 < starts.length ? index + 1 : index;
    return next ? starts[next] - starts[next - 1] : 0;
  };
  const rows = starts.map((at, index) => {
    const values = [answer.min_kw, answer.mean_kw, answer.max_kw].map((of) => of[index]);
    return { at, end: raw ? at : at + length(index), values: [values[1] === null ? null : values] };
  });
  return raw ? withGaps(rows) : rows;
}

/**
 * Return for each row the one of the period before that the clock shows at the same place in it.
 *
 * Days and months are counted, since months have not as many days.
 */
export function pairs(rows, [from], before, [fromBefore], step, zone) {
  if (step === "day" || step === "month") return rows.map((_, index) => before[index] ?? null);
  const places = before.map((row) => wall(row.at, zone) - wall(fromBefore, zone));
  let next = 0;
  return rows.map((row) => {
    const place = wall(row.at, zone) - wall(from, zone);
    const apart = (index) => Math.abs(places[index] - place);
    // The hour that comes twice goes back to the same one.
    while (next > 0 && places[next] > place) next -= 1;
    while (next + 1 < before.length && apart(next + 1) <= apart(next)) next += 1;
    return apart(next) <= Math.max((row.end - row.at) / 2, NEAR_MS) ? before[next] : null;
  });
}

/** Return the rows, each with the mean of the period before beside its own. */
export function besides(rows, pairsOfRows) {
  return rows.map((row, index) => {
    const value = pairsOfRows[index]?.values[0];
    return { ...row, values: [...row.values, value ? [value[1], value[1], value[1]] : null] };
  });
}

/** Return the rows of the energy's answer; what is given stands below zero. */
export function energyRows({ start, end, delivered_kwh: delivered, received_kwh: received, intervals, cost }) {
  const bar = (value) => (value === null ? null : [value, value, value]);
  const down = (value) => (value ? -value : value);
  return start.map((at, index) => ({
    at: at * 1000,
    end: end[index] * 1000,
    values: [bar(delivered[index]), bar(down(received[index]))],
    delivered: delivered[index],
    received: received[index],
    intervals: intervals[index],
    cost: cost[index],
  }));
}

/** Put a row without values where readings are missing for longer than they usually are apart. */
export function withGaps(rows) {
  if (rows.length < 3) return rows;
  const apart = rows.slice(1).map((row, index) => row.at - rows[index].at).sort((a, b) => a - b);
  const longest = Math.max(60_000, 4 * apart[apart.length >> 1]);
  return rows.flatMap((row, index) => {
    const before = rows[index - 1];
    if (!before || row.at - before.at <= longest) return [row];
    const nothing = row.values.map(() => null);
    return [{ at: before.at + 1, end: row.at - 1, values: nothing }, row];
  });
}
