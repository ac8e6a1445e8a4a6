/** Numbers, money and times as the reader's browser writes them; times are the home's. */

const NONE = "–";
const plain = (digits) =>
  new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const [whole, one, two, three] = [0, 1, 2, 3].map(plain);
const difference = new Intl.NumberFormat(undefined, { style: "percent", signDisplay: "exceptZero" });
const known = (value) => value !== null && value !== undefined;

export const kw = (value) => (known(value) ? `${three.format(value)}\u00a0kW` : NONE);
export const kwNumber = (value) => (known(value) ? three.format(value) : NONE);
export const kwh = (value) =>
  known(value) ? `${(Math.abs(value) < 100 ? two : one).format(value)}\u00a0kWh` : NONE;
export const percent = (value) => (known(value) ? `${whole.format(value)}\u00a0%` : NONE);
export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** Money, null if there is no price; a currency that is no code of three letters is not named. */
export function money(value, currency, digits = 2) {
  if (!known(value)) return null;
  const limits = { minimumFractionDigits: 2, maximumFractionDigits: digits };
  const named = /^[A-Z]{3}$/.test(currency ?? "") ? { style: "currency", currency } : {};
  return new Intl.NumberFormat(undefined, { ...limits, ...named }).format(value);
}

/** How much more or less than before, and what that was; nothing where nothing was before. */
export function change(now, before) {
  if (!known(now) || !before) return "";
  return `${difference.format((now - before) / Math.abs(before))} (${kwh(before)})`;
}

/** A clock of 24 hours has both digits always. */
export const HOURS = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions().hour12
  ? "numeric" : "2-digit";
const formats = new Map();
function formatted(at, zone, options) {
  const key = zone + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options }));
  return formats.get(key).format(at);
}
const DAY = { year: "numeric", month: "short", day: "numeric" };
const TIME = { hour: HOURS, minute: "2-digit" };

export const day = (at, zone) => formatted(at, zone, { weekday: "short", ...DAY });
export const month = (at, zone) => formatted(at, zone, { year: "numeric", month: "long" });
export const time = (at, zone) => formatted(at, zone, TIME);
export const second = (at, zone) => formatted(at, zone, { ...TIME, second: "2-digit" });
export const moment = (at, zone) => formatted(at, zone, { ...DAY, ...TIME });
export const exactly = (at, zone) => formatted(at, zone, { ...DAY, ...TIME, second: "2-digit" });

/** What a sum is of: an hour of the day, a weekday (0 is Monday), a month (1 is January), or a price. */
export function sumName(by, key) {
  // 2024 began on a Monday.
  const hour = (number) => time(Date.UTC(2024, 0, 1, number), "UTC");
  if (by === "hour") return `${hour(key)} – ${hour(key + 1)}`;
  if (by === "weekday") return formatted(Date.UTC(2024, 0, 1 + key), "UTC", { weekday: "long" });
  if (by === "month") return formatted(Date.UTC(2024, key - 1), "UTC", { month: "long" });
  return key;
}

/** A span of time, such as 3 minutes. */
export function lasting(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [amount, unit] = [
    [Math.floor(seconds / 86400), "day"], [Math.floor(seconds / 3600), "hour"],
    [Math.floor(seconds / 60), "minute"], [seconds, "second"],
  ].find(([amount, unit]) => amount || unit === "second");
  return new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay: "long" }).format(amount);
}
