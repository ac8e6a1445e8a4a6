/** A curve or bars over time, drawn by dygraphs; reading, zooming and keys are the same for all. */

import { make, say } from "./page.js";
import { ticks } from "./times.js";
import { HOURS } from "./words.js";

const { Dygraph } = window;
// Its legend writes markup with styles, which the page's policy forbids; the readout is ours.
Dygraph.PLUGINS = Dygraph.PLUGINS.filter((plugin) => plugin !== Dygraph.Plugins.Legend);

const TICK_PX = 64;
const ZOOM_PX = 8;
const KEYS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Return the label of a tick: a time of day, a date at midnight, a month, a year. */
function label({ shown, seconds }) {
  const midnight = shown % 86_400_000 === 0;
  const date = new Date(shown);
  let options = { hour: HOURS, minute: "2-digit" };
  if (seconds < 60) options.second = "2-digit";
  if (midnight) options = { day: "numeric", month: "short" };
  if (seconds >= 28 * 86400) options = date.getUTCMonth() ? { month: "short" } : { year: "numeric" };
  return new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options }).format(date);
}

const axisNumber = new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 });

export class Chart {
  #place;
  #canvas = make("div", { class: "canvas" });
  #cursor = make("div", { class: "cursor", hidden: true });
  #span = make("div", { class: "span", hidden: true });
  #readout = make("output", { class: "readout" });
  #graph = null;
  #drawn = null;
  #index = -1;
  #down = null;

  /** `read` says what a row holds; `zoom`, where there is one, takes a span that was drawn. */
  constructor(place, { read, zoom = null }) {
    this.#place = place;
    this.read = read;
    this.zoom = zoom;
    this.field = make("div", { class: "field", tabindex: 0, role: "group" }, this.#canvas, this.#cursor, this.#span);
    place.append(this.#readout, this.field);
    this.field.addEventListener("pointerdown", (event) => this.#start(event));
    this.field.addEventListener("pointermove", (event) => this.#move(event));
    this.field.addEventListener("pointerup", (event) => this.#end(event));
    this.field.addEventListener("pointercancel", () => this.#forget());
    this.field.addEventListener("pointerleave", () => this.#down ?? this.#point(-1));
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.field.addEventListener("blur", () => this.#point(-1));
    dark.addEventListener("change", () => this.#drawn && this.draw(this.#drawn));
    new ResizeObserver(() => {
      this.#graph?.resize();
      this.#point(-1);
    }).observe(this.#canvas);
  }

  /**
   * Draw rows `{ at, end, values }`, each value `[low, mean, high]` or null, over a span.
   *
   * `names` and `colours` are those of the values; `bars` draws columns from `at` to `end`, paler
   * where a row has `intervals`.
   */
  draw(what) {
    const { rows, names, colours, span, zone, bars = false, says } = what;
    this.#drawn = what;
    this.field.setAttribute("aria-label", says);
    const empty = [null, null, null];
    const middle = (row) => (bars ? row.at : (row.at + row.end) / 2);
    const file = rows.map((row) => [new Date(middle(row)), ...row.values.map((one) => one ?? empty)]);
    const options = {
      file: file.length ? file : [[new Date(span[0]), ...names.map(() => empty)]],
      labels: ["time", ...names],
      colors: colours.map(colour),
      dateWindow: span,
      ...(bars && { plotter: (one) => columns(one, new Map(rows.map((row) => [row.at, row]))) }),
      axisLineColor: colour("line"),
      gridLineColor: colour("line"),
      axes: {
        x: {
          axisLabelWidth: TICK_PX,
          axisTickSize: 8,
          pixelsPerLabel: TICK_PX,
          ticker: (from, to, pixels) =>
            ticks(from, to, Math.max(2, Math.floor(pixels / TICK_PX)), zone)
              .map((tick) => ({ v: tick.at, label: label(tick) })),
        },
        y: { axisLabelWidth: 46, axisLabelFormatter: (value) => axisNumber.format(value) },
      },
    };
    if (!this.#graph) {
      const { file: rows_, ...rest } = options;
      this.#graph = new Dygraph(this.#canvas, rows_, {
        ...rest,
        customBars: true,
        fillAlpha: 0.22,
        strokeWidth: 1.5,
        pointSize: 2,
        includeZero: true,
        interactionModel: {},
        showLabelsOnHighlight: false,
        highlightCircleSize: 0,
        axisLabelFontSize: 12,
        gridLineWidth: 0.5,
        rightGap: 12,
      });
    } else {
      this.#graph.updateOptions(options);
    }
    this.field.dataset.rows = rows.length;
    this.#point(Math.min(this.#index, rows.length - 1));
  }

  #at(event) {
    const x = event.clientX - this.#canvas.getBoundingClientRect().left;
    const { x: left, w } = this.#graph.getArea();
    return this.#graph.toDataXCoord(Math.min(Math.max(x, left), left + w));
  }

  /** Return the row that an instant is in, or that is nearest to it. */
  #rowAt(at) {
    let [low, high] = [0, this.#drawn.rows.length];
    while (low < high) {
      const half = (low + high) >> 1;
      if (this.#drawn.rows[half].at <= at) low = half + 1;
      else high = half;
    }
    const before = this.#drawn.rows[low - 1];
    const after = this.#drawn.rows[low];
    if (before && after && at >= before.end && after.at - at < at - before.end) return low;
    return before ? low - 1 : after ? low : -1;
  }

  #point(index, spoken = false) {
    this.#index = index;
    const row = index < 0 ? null : this.#drawn?.rows[index];
    this.#readout.setAttribute("aria-live", spoken ? "polite" : "off");
    say(this.#readout, row ? this.read(row) : "");
    this.#cursor.hidden = !row;
    if (row) place(this.#cursor, this.#graph, row.at, row.end);
  }

  #start(event) {
    if (event.button || !this.#graph) return;
    this.#down = { x: event.clientX, at: this.#at(event), id: event.pointerId };
    this.#point(this.#rowAt(this.#down.at));
  }

  #move(event) {
    if (!this.#graph) return;
    const at = this.#at(event);
    this.#point(this.#rowAt(at));
    if (!this.#down || !this.zoom) return;
    if (this.#span.hidden && Math.abs(event.clientX - this.#down.x) < ZOOM_PX) return;
    this.field.setPointerCapture(this.#down.id);
    this.#span.hidden = false;
    place(this.#span, this.#graph, Math.min(at, this.#down.at), Math.max(at, this.#down.at));
  }

  #end(event) {
    const began = this.#down;
    const drawn = !this.#span.hidden;
    this.#forget();
    if (!began || !drawn) return;
    const ends = [began.at, this.#at(event)].map((at) => Math.round(at / 1000) * 1000);
    this.zoom(Math.min(...ends), Math.max(...ends));
  }

  #forget() {
    this.#down = null;
    this.#span.hidden = true;
  }

  #key(event) {
    const rows = this.#drawn?.rows ?? [];
    if (event.key in KEYS && rows.length) {
      const from = this.#index < 0 && KEYS[event.key] < 0 ? rows.length : this.#index;
      this.#point(Math.min(Math.max(from + KEYS[event.key], 0), rows.length - 1), true);
    } else if (event.key === "Escape") {
      this.#point(-1);
      this.#forget();
    } else if (event.key === "Enter" && this.zoom && this.#index >= 0) {
      const [from, to] = this.#drawn.span;
      const at = (rows[this.#index].at + rows[this.#index].end) / 2;
      this.zoom(...[at - (to - from) / 8, at + (to - from) / 8].map((one) => Math.round(one / 1000) * 1000));
    } else {
      return;
    }
    event.preventDefault();
  }
}

/** Lay an element over a span of the chart. */
function place(element, graph, from, to) {
  const { x, w, y, h } = graph.getArea();
  const [left, right] = [from, to].map((at) => Math.min(Math.max(graph.toDomXCoord(at), x), x + w));
  element.style.left = `${left}px`;
  element.style.width = `${Math.max(right - left, 1)}px`;
  element.style.top = `${y}px`;
  element.style.height = `${h}px`;
}

/** Draw a series as columns; the period before is an outline. */
function columns({ dygraph, drawingContext: context, points, color, setName }, rows) {
  const zero = dygraph.toDomYCoord(0);
  context.fillStyle = color;
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  for (const point of points) {
    const row = rows.get(point.xval);
    if (!row || point.yval === null || Number.isNaN(point.yval)) continue;
    const [left, right] = [row.at, row.end].map((at) => dygraph.toDomXCoord(at));
    const gap = Math.min(2, (right - left) / 6);
    const box = [left + gap, Math.min(zero, point.canvasy), right - left - 2 * gap, Math.abs(zero - point.canvasy)];
    context.globalAlpha = row.intervals ? 0.5 : 1;
    if (setName.startsWith("before")) context.strokeRect(...box);
    else context.fillRect(...box);
  }
  context.globalAlpha = 1;
}
