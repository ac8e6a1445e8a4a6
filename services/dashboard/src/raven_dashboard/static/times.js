/** Days, weeks, months and years of the home's time zone; instants are milliseconds since 1970. */

export const HOUR = 3_600_000;
const formats = new Map();

/** Return what a clock in the zone shows, as the milliseconds at which one in UTC shows it. */
export function wall(at, zone) {
  if (!formats.has(zone)) {
    const digits = { year: "numeric", month: "numeric", day: "numeric" };
    const clock = { hour: "numeric", minute: "numeric", second: "numeric", hourCycle: "h23" };
    formats.set(zone, new Intl.DateTimeFormat("en-US", { timeZone: zone, ...digits, ...clock }));
  }
  const shown = {};
  for (const { type, value } of formats.get(zone).formatToParts(at)) shown[type] = Number(value);
  return Date.UTC(shown.year, shown.month - 1, shown.day, shown.hour, shown.minute, shown.second);
}

/** Return when a clock in the zone first shows a time; one that it leaves out is when it jumps. */
function instant(shown, zone) {
  let at = shown;
  for (let tries = 0; tries < 3; tries += 1) at += shown - wall(at, zone);
  if (wall(at, zone) < shown) at += shown - wall(at, zone);
  return wall(at - HOUR, zone) === shown ? at - HOUR : at;
}

const UNITS = {
  day: (date, more) => date.setUTCDate(date.getUTCDate() + more),
  week: (date, more) => date.setUTCDate(date.getUTCDate() + 7 * more),
  month: (date, more) => date.setUTCMonth(date.getUTCMonth() + more),
  year: (date, more) => date.setUTCFullYear(date.getUTCFullYear() + more),
};

/** Return the day, week (from Monday), month or year that an instant is in, `more` units later. */
export function unitOf(unit, at, zone, more = 0) {
  const date = new Date(wall(at, zone));
  date.setUTCHours(0, 0, 0, 0);
  if (unit === "week") date.setUTCDate(date.getUTCDate() - ((date.getUTCDay() + 6) % 7));
  if (unit === "month" || unit === "year") date.setUTCDate(1);
  if (unit === "year") date.setUTCMonth(0);
  UNITS[unit](date, more);
  const from = instant(date.getTime(), zone);
  UNITS[unit](date, 1);
  return [from, instant(date.getTime(), zone)];
}

/** Return the unit that a span is exactly, undefined if none. */
export function unit([from, to], zone) {
  return Object.keys(UNITS).find((one) => {
    const [start, end] = unitOf(one, from, zone);
    return start === from && end === to;
  });
}

/** Return the span so many spans later: a month for a month, else as many whole days, else as long. */
export function moved([from, to], zone, more) {
  const exact = unit([from, to], zone);
  if (exact) return unitOf(exact, from, zone, more);
  const shown = [from, to].map((at) => wall(at, zone));
  if (shown.every((at) => at % (24 * HOUR) === 0)) {
    return shown.map((at) => instant(at + more * (shown[1] - shown[0]), zone));
  }
  return [from, to].map((at) => at + more * (to - from));
}

/** Return a date as a form's field has it, in the zone. */
export const dateField = (at, zone) => new Date(wall(at, zone)).toISOString().slice(0, 10);

/** Return when the day of a form's field begins, `more` days later; NaN without one. */
export function fromField(text, zone, more = 0) {
  const shown = Date.parse(`${text}T00:00:00Z`);
  return Number.isNaN(shown) ? NaN : instant(shown + more * 24 * HOUR, zone);
}

/** Return an instant as the service and addresses have it. */
export const iso = (at) => new Date(at).toISOString().replace(/\.000Z$/, "Z");

const SECOND_STEPS = [
  1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60, 120];

/** Return round times of the zone in a span, at most so many, each with what a clock shows. */
export function ticks(from, to, most, zone) {
  const found = [];
  const seconds = SECOND_STEPS.find((step) => (to - from) / (step * 1000) <= most);
  if (seconds) {
    const step = seconds * 1000;
    const monday = seconds === 604800 ? 4 * 24 * HOUR : 0;
    const start = Math.ceil((wall(from, zone) - monday) / step) * step + monday;
    for (let shown = start; found.length <= most + 2; shown += step) {
      const at = instant(shown, zone);
      if (at > to) break;
      if (at >= from) found.push({ at, shown, seconds });
    }
    return found;
  }
  const months = MONTH_STEPS.find((step) => (to - from) / (step * 30 * 24 * HOUR) <= most) ?? 240;
  const date = new Date(wall(unitOf("year", from, zone)[0], zone));
  for (; ; date.setUTCMonth(date.getUTCMonth() + months)) {
    const at = instant(date.getTime(), zone);
    if (at > to) return found;
    if (at >= from) found.push({ at, shown: date.getTime(), seconds: months * 30 * 86400 });
  }
}
