// The timeline: three panes on one axis, fused score and modalities, conflict, events. Knows points
// and events of the store, and the chart library. Knows no socket.

import { band, line, Upright } from "./marks.js";
import { clock, happening, MODALITIES, signed } from "./words.js";

const { createChart, createSeriesMarkers, LineSeries } = LightweightCharts;
const QUIET = { lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false };
/** A fixed range, with so many pixels left above and below it. */
const between = (minValue, maxValue, edge = 0) => () => ({
  priceRange: { minValue, maxValue }, margins: { above: edge, below: edge },
});
/** Half the height of a label on the axis, which would be cut at the edge of its pane. */
const HALF = 7;
const axis = (formatter) => ({ type: "custom", minMove: 0.01, formatter });
const SHAPES = { shift: "square", spike: "arrowDown", silence: "circle" };
/** Names of events are written while fewer than this are shown. */
const NAMED = 14;
/** Scores that fill the width at least. */
const FEWEST = 60;
/** New scores wait until they move the picture by so many pixels: each drawing is one of all scores. */
const STEP = 0.25;

/** Colours as the style sheet has them now; the canvas cannot read variables. */
function palette(element) {
  const probe = document.createElement("i");
  element.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["ink", "soft", "line", "text", "audio", "vision", "band", "clash", "alarm"];
  const colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
  return colours;
}

export class Timeline {
  #bars = 0;
  #last = null;
  #span = 300;
  #hop = 0.5;
  #centre = null; // what is in the middle; null: the newest is at the right
  #marked = [];
  #drawnMarks = "";
  #waiting = []; // points that are not drawn yet

  /** @param {HTMLElement} element @param {(time: number) => void} onPick */
  constructor(element, onPick) {
    this.element = element;
    this.chart = createChart(element, { ...this.#frame(), autoSize: true });
    const score = { ...QUIET, priceFormat: axis((price) => (price ? signed(price, 0) : "0")), autoscaleInfoProvider: between(-3.2, 3.2) };
    const clash = { ...QUIET, priceFormat: axis((price) => price.toFixed(0)), autoscaleInfoProvider: between(0, 6, HALF) };
    const add = (kind, options, pane = 0) => this.chart.addCustomSeries(kind, options, pane);
    this.series = { band: add(band({}), score) };
    for (const name of MODALITIES) this.series[name] = add(line({}), score);
    this.series.score = add(line({ lineWidth: 2.5 }), score);
    this.series.conflict = add(band({}), clash, 1);
    this.lane = this.chart.addSeries(LineSeries, { ...QUIET, lineVisible: false, priceFormat: axis(() => ""), autoscaleInfoProvider: between(-1, 1) }, 2);
    this.markers = createSeriesMarkers(this.lane, []);
    this.upright = new Upright(this.chart);
    this.chart.panes().forEach((pane, i) => {
      pane.setStretchFactor([10, 2.2, 1.8][i]);
      pane.attachPrimitive(this.upright);
    });
    this.zero = this.series.score.createPriceLine({ price: 0, lineWidth: 1, lineStyle: 0, axisLabelVisible: false });
    this.chart.subscribeClick(({ time }) => time != null && onPick(time));
    this.paint();
  }

  /** Reread the style sheet's colours after a change of theme. */
  paint() {
    const colours = palette(this.element);
    this.colours = colours;
    this.chart.applyOptions(this.#frame(colours));
    for (const name of MODALITIES) this.series[name].applyOptions({ color: colours[name] });
    this.series.score.applyOptions({ color: colours.ink });
    this.series.band.applyOptions({ color: colours.band });
    this.series.conflict.applyOptions({ color: colours.clash });
    this.lane.applyOptions({ color: "transparent" });
    this.zero.applyOptions({ color: colours.soft });
    this.upright.paint(colours.ink);
    this.#drawnMarks = "";
    this.#mark();
  }

  /** Replace the content by a session; `hop` is the seconds from one point to the next. */
  set(points, events, hop = 0.5) {
    this.#hop = hop;
    this.#waiting = [];
    const rows = [];
    let last = null;
    for (const point of points) {
      if (this.#isGap(last, point.at)) rows.push({ at: last + hop });
      rows.push(point);
      last = point.at;
    }
    for (const [name, series] of Object.entries(this.series)) series.setData(rows.map(row(name)));
    this.lane.setData(rows.map(({ at }) => ({ time: at, value: 0 })));
    this.#bars = rows.length;
    this.#last = last;
    this.mark(events);
  }

  /** Add a point; where many share a pixel it is drawn with the next ones. */
  add(point) {
    this.#waiting.push(point);
    if (this.#waiting.length * this.chart.timeScale().options().barSpacing >= STEP) this.#catchUp();
  }

  /** Show the newest seconds, or those around a moment; all of a session that is shorter. */
  show(span, centre = null) {
    this.#span = span;
    this.#centre = centre;
    this.#catchUp();
    const scale = this.chart.timeScale();
    const wide = Math.min(span / this.#hop, Math.max(FEWEST, this.#bars));
    const middle = centre === null ? null : scale.timeToIndex(centre, true);
    const wish = middle === null ? this.#bars : Math.max(middle + wide / 2, wide);
    const right = Math.min(this.#bars, wish);
    scale.setVisibleLogicalRange({ from: right - wide, to: right + 1 });
  }

  /** Draw a line at the selected moment; null: none. */
  choose(time) {
    this.#catchUp();
    this.upright.move(time);
  }

  mark(events) {
    this.#marked = events;
    this.#mark();
  }

  #catchUp() {
    for (const point of this.#waiting.splice(0)) {
      if (this.#isGap(this.#last, point.at)) this.#push({ at: this.#last + this.#hop });
      this.#push(point);
    }
  }

  #push(point) {
    for (const [name, series] of Object.entries(this.series)) series.update(row(name)(point));
    this.lane.update({ time: point.at, value: 0 });
    this.#bars += 1;
    this.#last = point.at;
    if (this.#bars < this.#span / this.#hop) this.show(this.#span, this.#centre);
  }

  #mark() {
    const marks = `${this.#marked.length} ${this.#marked.at(-1)?.seq} ${this.#marked[0]?.seq}`;
    if (marks === this.#drawnMarks) return;
    this.#drawnMarks = marks;
    const isFew = this.#marked.length < NAMED;
    this.markers.setMarkers(
      this.#marked.map((event) => ({
        time: event.at,
        position: "inBar",
        shape: SHAPES[event.event] ?? (event.event.endsWith("_back") ? "arrowUp" : "arrowDown"),
        color: event.event.endsWith("_lost") ? this.colours.alarm : this.colours.soft,
        text: isFew ? happening({ ...event, detail: "", reason: null }) : "",
      })),
    );
  }

  #isGap(last, at) {
    return last !== null && at - last > 2.5 * this.#hop;
  }

  #frame(colours = palette(this.element)) {
    const { fontFamily } = getComputedStyle(this.element);
    return {
      layout: {
        background: { color: "transparent" }, textColor: colours.soft, fontFamily, fontSize: 11,
        attributionLogo: false, panes: { separatorColor: colours.line, enableResize: false },
      },
      grid: { vertLines: { color: colours.line }, horzLines: { color: colours.line } },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.02, bottom: 0.02 }, minimumWidth: 44 },
      timeScale: {
        borderVisible: false, rightOffset: 1, minBarSpacing: 0.02, timeVisible: true,
        secondsVisible: true, lockVisibleTimeRangeOnResize: true, tickMarkFormatter: clock,
      },
      localization: { timeFormatter: clock },
      crosshair: { vertLine: { color: colours.soft }, horzLine: { color: colours.soft } },
      // The wheel scrolls the page; buttons, pinch and drag move the chart.
      handleScroll: { mouseWheel: false, vertTouchDrag: false },
      handleScale: { mouseWheel: false, axisPressedMouseMove: { time: true, price: false } },
    };
  }
}

/** The data of a point in a series; a gap without values. */
function row(name) {
  const values = {
    band: ({ lo, hi }) => (lo == null ? undefined : [lo, hi]),
    conflict: ({ conflict }) => (conflict == null ? undefined : [0, conflict]),
  }[name] ?? ((point) => (point[name] == null ? undefined : [point[name]]));
  return (point) => {
    const known = values(point);
    return known ? { time: point.at, values: known } : { time: point.at };
  };
}
