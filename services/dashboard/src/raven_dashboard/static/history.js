/** The page of what was; its address says all of what it shows. */

import { Chart } from "./chart.js";
import { address, ask, askMeters, byId, isolated, keepDoing, make, notice, pick, query, say, sayCost, unknownHome } from "./page.js";
import { besides, energyRows, pairs, powerRows } from "./rows.js";
import { dateField, fromField, HOUR, iso, moved, unit, unitOf } from "./times.js";
import { change, day, exactly, kw, kwh, moment, money, month, second, sumName, time } from "./words.js";

const REFRESH_MS = 60_000;
const DAY = 24 * HOUR;
const STEP_MS = { "5min": HOUR / 12, hour: HOUR, day: DAY, month: 30 * DAY };
/** More bars than this are finer than a screen. */
const MOST_BARS = 800;
const SUMS = { hour: "Hour of the day", weekday: "Weekday", month: "Month", price: "Price" };
/** The service sums up the hours of the day of no longer time. */
const LONGEST_BY_HOUR = 2 * 366 * DAY;

let meters = [];
let runs = [];
let runsOf = null;
let current = null;
let zone = null;
let asking = new AbortController();

const power = new Chart(byId("power"), { read: readPower, zoom: narrowed });
const energy = new Chart(byId("energy"), { read: readEnergy, zoom: narrowed });

function view() {
  const asked = new URLSearchParams(location.search);
  const ends = ["from", "to"].map((name) => Date.parse(asked.get(name)));
  const span = ends[0] < ends[1] ? ends : unitOf("day", Date.now(), zone);
  const bars = asked.get("bars") in STEP_MS ? asked.get("bars") : "auto";
  const by = Object.hasOwn(SUMS, asked.get("by")) ? asked.get("by") : null;
  return { span, bars, compare: asked.get("compare") === "1", by };
}

function go(change, back = null) {
  const { span, bars, compare, by } = { ...view(), ...change };
  const [from, to] = span.map(iso);
  const parameters = { ...current, from, to, bars: bars === "auto" ? null : bars, compare: compare ? 1 : null, by };
  history.pushState({ back }, "", `history?${query(parameters)}`);
  asking.abort();
  refresh();
}

function narrowed(from, to) {
  const least = 10_000;
  const middle = (from + to) / 2;
  const span = to - from < least ? [middle - least / 2, middle + least / 2] : [from, to];
  go({ span, bars: "auto" }, location.search);
}

/** Go back to what was zoomed into; an address that was sent has nothing before it, so look wider. */
function wider() {
  if (history.state?.back) {
    history.pushState(null, "", `history${history.state.back}`);
    refresh();
    return;
  }
  const { span: [from, to] } = view();
  go({ span: [from - (to - from) / 2, to + (to - from) / 2], bars: "auto" });
}

function ranges() {
  const now = Date.now();
  const { first, last } = meters.find((one) => one.node === current.node && one.meter === current.meter);
  return {
    today: unitOf("day", now, zone),
    yesterday: unitOf("day", now, zone, -1),
    week: unitOf("week", now, zone),
    month: unitOf("month", now, zone),
    year: unitOf("year", now, zone),
    all: [unitOf("day", Date.parse(first), zone)[0], unitOf("day", Date.parse(last) - 1, zone)[1]],
  };
}

/** Return a run's span, of the one that goes on up to the last day with readings. */
function spanOf({ start, end }) {
  const from = Date.parse(start);
  return [from, end ? Date.parse(end) : Math.max(ranges().all[1], from + 1000)];
}

/** Ask for the runs of the home that is shown, and offer them if there are several. */
async function offerRuns() {
  ({ runs } = await ask("runs", { node: current.node }));
  const names = runs.map((one) => {
    const until = one.end ? day(Date.parse(one.end), zone) : "now";
    return `${isolated(one.run)}, ${day(Date.parse(one.start), zone)} – ${until}`;
  });
  byId("run").replaceChildren(...["any", ...names].map((name, index) => make("option", { value: index }, name)));
  byId("run").parentElement.hidden = runs.length < 2;
  runsOf = current.node;
}

/** Return the step of the bars: the one asked for if it makes not too many, else a fitting one. */
function stepOf({ span: [from, to], bars }) {
  const length = to - from;
  if (bars !== "auto" && length / STEP_MS[bars] <= MOST_BARS) return bars;
  if (length <= 4 * HOUR) return "5min";
  if (length <= 3 * DAY) return "hour";
  return length <= 93 * DAY ? "day" : "month";
}

function spanInWords([from, to]) {
  const of = unit([from, to], zone);
  if (of === "day") return day(from, zone);
  if (of === "month") return month(from, zone);
  if (of === "year") return String(new Date(from + DAY).getUTCFullYear());
  const [start, end] = unitOf("day", from, zone);
  if (start === from && unitOf("day", to, zone)[0] === to) return `${day(from, zone)} – ${day(to - 1, zone)}`;
  if (to - from < HOUR) return `${exactly(from, zone)} – ${second(to, zone)}`;
  return `${moment(from, zone)} – ${to <= end ? time(to, zone) : moment(to, zone)}`;
}

function readPower({ at, end, values: [value, before] }) {
  const words = [at === end ? exactly(at, zone) : moment(at, zone)];
  words.push(value ? `: ${kw(value[1])}` : ": no reading");
  if (value && value[0] !== value[2]) words.push(`, from ${kw(value[0])} to ${kw(value[2])}`);
  if (before) words.push(`; the period before: ${kw(before[1])}`);
  return words.join("");
}

let currency = null;
let bars = "hour";

function barInWords(at, end) {
  if (bars === "month") return month(at, zone);
  if (bars === "day") return day(at, zone);
  return `${moment(at, zone)} – ${time(end, zone)}`;
}

function readEnergy({ at, end, delivered, received, intervals, cost, before }) {
  const words = [`${barInWords(at, end)}: taken ${kwh(delivered)}, given ${kwh(received)}`];
  if (intervals) words.push(", by the meter's own memory");
  if (cost !== null) words.push(`, cost ${money(cost, currency)}`);
  if (before) words.push(`; the period before: taken ${kwh(before.delivered)}, given ${kwh(before.received)}`);
  return words.join("");
}

function showTable(rows) {
  const priced = rows.some((row) => row.cost !== null);
  byId("cost-name").hidden = !priced;
  const cell = (text) => make("td", { class: "number" }, text);
  byId("rows").replaceChildren(...rows.map((row) => make(
    "tr", {},
    make("th", { scope: "row" }, `${barInWords(row.at, row.end)}${row.intervals ? " *" : ""}`),
    ...[kwh(row.delivered), kwh(row.received)].map(cell),
    ...(priced ? [cell(money(row.cost, currency) ?? "–")] : []),
  )));
}

function showSummary(now, before) {
  say(byId("delivered"), kwh(now.delivered_kwh));
  say(byId("delivered-change"), change(now.delivered_kwh, before?.delivered_kwh));
  say(byId("received"), kwh(now.received_kwh));
  say(byId("received-change"), change(now.received_kwh, before?.received_kwh));
  sayCost(byId("cost"), money(now.cost, now.currency));
  say(byId("cost-before"), before?.cost != null ? `before: ${money(before.cost, before.currency)}` : "");
  say(byId("mean"), kw(now.mean_kw));
  say(byId("base"), kw(now.base_load_kw));
  say(byId("peak"), kw(now.peak?.kw));
  say(byId("peak-at"), now.peak ? moment(Date.parse(now.peak.at), zone) : "");
}

/** Show the sums, each with bars as long as what was taken and given; null is none at all. */
function showSums(by, sums) {
  const shown = sums?.key.length > 0;
  byId("sums").hidden = !shown;
  say(byId("no-sums"), sums && !shown ? `There is no ${by === "price" ? "price" : "energy"} known in this time.` : "");
  if (!shown) return;
  const priced = by === "price";
  say(byId("sums-by"), SUMS[by]);
  say(byId("sums-last"), priced ? "Cost" : "Mean power");
  const { key, delivered_kwh: taken, received_kwh: given } = sums;
  const most = Math.max(...taken, ...given);
  const bar = (name, value) => {
    const made = make("span", { class: name, hidden: !value });
    made.style.width = `${(100 * value) / most}%`;
    return made;
  };
  const cell = (text) => make("td", { class: "number" }, text);
  byId("sum-rows").replaceChildren(...key.map((one, index) => make(
    "tr", {}, make("th", { scope: "row" }, make(
      "div", {}, make("bdi", {}, sumName(by, one)),
      make("span", { class: "bars" }, bar("taken", taken[index]), bar("given", given[index])),
    )),
    ...[kwh(taken[index]), kwh(given[index])].map(cell),
    cell(priced ? money(sums.cost[index], sums.currency) : kw(sums.mean_kw[index])),
  )));
}

function showControls({ span, compare, by, bars: asked }, step) {
  const of = ranges();
  for (const button of document.querySelectorAll("[data-range]")) {
    const [from, to] = of[button.dataset.range];
    button.setAttribute("aria-pressed", from === span[0] && to === span[1]);
  }
  for (const button of document.querySelectorAll("[data-by]")) {
    button.setAttribute("aria-pressed", button.dataset.by === by);
    button.disabled = button.dataset.by === "hour" && span[1] - span[0] > LONGEST_BY_HOUR;
  }
  byId("run").value = 1 + runs.map(spanOf).findIndex(([from, to]) => from === span[0] && to === span[1]);
  byId("from").value = dateField(span[0], zone);
  byId("to").value = dateField(span[1] - 1, zone);
  byId("compare").checked = compare;
  for (const option of byId("bars").options) {
    option.disabled = option.value !== "auto" && (span[1] - span[0]) / STEP_MS[option.value] > MOST_BARS;
  }
  byId("bars").value = asked === step ? step : "auto";
  const [from, to] = span.map(iso);
  byId("csv-demand").href = address("csv", { what: "demand", ...current, from, to });
  byId("csv-energy").href = address("csv", { what: "energy", ...current, from, to, step });
  byId("csv-sums").hidden = !by;
  byId("csv-sums").href = address("csv", { what: by, ...current, from, to });
}

async function load() {
  const now = view();
  const { span } = now;
  if (now.by === "hour" && span[1] - span[0] > LONGEST_BY_HOUR) now.by = "weekday";
  const step = stepOf(now);
  showControls(now, step);
  asking.abort();
  asking = new AbortController();
  const of = (what, [from, to], more) =>
    ask(what, { ...current, from: iso(from), to: iso(to), ...more }, asking.signal);
  const whole = moved(span, zone, -1);
  // What has not been yet is compared with nothing.
  const part = [whole[0], Math.min(whole[1], whole[0] + Math.max(Date.now() - span[0], 1000))];
  byId("charts").setAttribute("aria-busy", "true");
  const [demand, grown, total, sums, demandBefore, grownBefore, totalBefore] = await Promise.all([
    of("demand", span), of("energy", span, { step }), of("summary", span),
    now.by && of("by", span, { key: now.by }),
    ...(now.compare ? [of("demand", whole), of("energy", whole, { step }), of("summary", part)] : []),
  ]);
  byId("charts").setAttribute("aria-busy", "false");
  ({ currency } = grown);
  bars = step;
  const drawn = spanInWords(span);
  say(byId("shown"), drawn);
  document.title = `${drawn} – History – RAVEn`;

  let rows = powerRows(demand);
  const beside = { names: ["power"], colours: ["power"] };
  if (now.compare) {
    rows = besides(rows, pairs(rows, span, powerRows(demandBefore), whole, demand.step, zone));
    beside.names.push("before");
    beside.colours.push("before");
  }
  power.draw({ rows, ...beside, span, zone, says: `Power, ${drawn}; the arrow keys read its values` });

  const columns = energyRows(grown);
  const names = ["taken", "given"];
  if (now.compare) {
    const before = pairs(columns, span, energyRows(grownBefore), whole, step, zone);
    columns.forEach((row, index) => {
      row.before = before[index];
      row.values.push(...(row.before?.values ?? [null, null]));
    });
    names.push("before taken", "before given");
  }
  energy.draw({
    rows: columns, names, colours: ["taken", "given", "before", "before"].slice(0, names.length),
    span, zone, bars: true,
    says: `Energy by ${step === "5min" ? "5 minutes" : step}, ${drawn}; the arrow keys read its values`,
  });
  showTable(columns);
  byId("legend-intervals").hidden = !grown.intervals.some(Boolean);
  showSums(now.by, sums);
  showSummary(total, totalBefore);
  byId("nothing").hidden = [demand.mean_kw, grown.delivered_kwh].some((of) => of.some((one) => one !== null));
  byId("legend-before").hidden = !now.compare;
}

const refresh = keepDoing(async () => {
  if (!meters.length) {
    ({ meters, zone } = await askMeters());
    if (!meters.length) return "";
    const look = (one) => {
      current = { node: one.node, meter: one.meter };
      go({});
    };
    const { node, meter } = pick(byId("meter"), meters, look);
    current = { node, meter };
  }
  if (runsOf !== current.node) await offerRuns();
  await load().catch((error) => {
    if (error.name !== "AbortError") throw error;
  });
  return unknownHome(meters);
}, REFRESH_MS);

for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => zone && go({ span: ranges()[button.dataset.range], bars: "auto" }));
}
for (const button of document.querySelectorAll("[data-by]")) {
  const { by } = button.dataset;
  button.addEventListener("click", () => zone && go({ by: view().by === by ? null : by }));
}
byId("run").addEventListener("change", (event) => {
  const run = runs[event.target.value - 1];
  if (run) go({ span: spanOf(run), bars: "auto" });
});
byId("earlier").addEventListener("click", () => zone && go({ span: moved(view().span, zone, -1) }));
byId("later").addEventListener("click", () => zone && go({ span: moved(view().span, zone, 1) }));
byId("wider").addEventListener("click", () => zone && wider());
byId("compare").addEventListener("change", (event) => zone && go({ compare: event.target.checked }));
byId("bars").addEventListener("change", (event) => zone && go({ bars: event.target.value }));
byId("dates").addEventListener("submit", (event) => {
  event.preventDefault();
  const span = [fromField(byId("from").value, zone), fromField(byId("to").value, zone, 1)];
  if (span[0] < span[1]) go({ span, bars: "auto" });
  else notice("The first day has to be before the last, or the same.");
});
addEventListener("popstate", refresh);
