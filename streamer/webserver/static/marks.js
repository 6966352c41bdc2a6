// Drawing that the chart library lacks: a line with gaps, a band between two values, and a vertical
// line at a moment. Knows the library's interfaces for these alone.

const { customSeriesDefaultOptions } = LightweightCharts;

/** A series view of `{time, values: [low, high]}` or `{time, values: [value]}`. */
function view(paint, options) {
  let drawn = null;
  let chosen = options;
  const renderer = {
    draw(target, toY) {
      const range = drawn?.visibleRange;
      if (!range) return;
      target.useBitmapCoordinateSpace((scope) => paint(scope, runs(drawn.bars, range), toY, chosen));
    },
  };
  return {
    renderer: () => renderer,
    update(data, given) {
      drawn = data;
      chosen = given;
    },
    priceValueBuilder: (row) => row.values,
    isWhitespace: (row) => row.values === undefined,
    defaultOptions: () => ({ ...customSeriesDefaultOptions, ...options }),
  };
}

/** Bars of one stroke at most: the renderer takes several times as long for one long path. */
const PIECE = 64;

/**
 * Stretches of the visible bars without a gap, cut into pieces which share the bar where they meet;
 * each bar's time is its place on the axis.
 */
export function runs(bars, { from, to }) {
  const found = [];
  let last = null;
  for (let i = Math.max(0, Math.floor(from) - 1); i < Math.min(bars.length, Math.ceil(to) + 1); i++) {
    const bar = bars[i];
    if (last === null || bar.time - last.time > 1) found.push([]);
    else if (found.at(-1).length === PIECE) found.push([last]);
    found.at(-1).push(bar);
    last = bar;
  }
  return found;
}

/**
 * The bars that a line needs: of each column of pixels the first, the lowest, the highest and the
 * last, in their order. What is between them covers no other pixel, and takes as long to draw.
 */
export function thin(bars, value, ratio = 1) {
  const chosen = [];
  for (let first = 0, next; first < bars.length; first = next) {
    const column = Math.floor(bars[first].x * ratio);
    let [low, high] = [first, first];
    let lowest = value(bars[first]);
    let highest = lowest;
    // A bar out of sight has no x (NaN): it is a column of its own, which the canvas leaves out.
    for (next = first + 1; next < bars.length && Math.floor(bars[next].x * ratio) === column; next++) {
      const now = value(bars[next]);
      if (now < lowest) [low, lowest] = [next, now];
      if (now > highest) [high, highest] = [next, now];
    }
    for (const i of [first, Math.min(low, high), Math.max(low, high), next - 1]) {
      if (chosen.at(-1) !== bars[i]) chosen.push(bars[i]);
    }
  }
  return chosen;
}

const lower = (bar) => bar.originalData.values[0];
const upper = (bar) => bar.originalData.values[1];

/** Go along one of the bars' values, there or, from the newest to the oldest, back. */
function path({ context, horizontalPixelRatio, verticalPixelRatio }, bars, value, toY, isBack) {
  const needed = thin(bars, value, horizontalPixelRatio);
  for (const bar of isBack ? needed.reverse() : needed) {
    context.lineTo(bar.x * horizontalPixelRatio, toY(value(bar)) * verticalPixelRatio);
  }
}

function paintLine(scope, stretches, toY, { color, lineWidth }) {
  const { context, horizontalPixelRatio } = scope;
  context.strokeStyle = color;
  context.lineWidth = lineWidth * horizontalPixelRatio;
  context.lineJoin = context.lineCap = "round";
  for (const bars of stretches) {
    context.beginPath();
    path(scope, bars, lower, toY);
    // One lonely score is a dot: a line of no length.
    if (bars.length === 1) path(scope, bars, lower, toY);
    context.stroke();
  }
}

function paintBand(scope, stretches, toY, { color }) {
  const { context } = scope;
  context.fillStyle = color;
  for (const bars of stretches) {
    context.beginPath();
    path(scope, bars, lower, toY);
    path(scope, bars, upper, toY, true);
    context.closePath();
    context.fill();
  }
}

export const line = (options) => view(paintLine, { lineWidth: 1.5, ...options });
export const band = (options) => view(paintBand, options);

/** An upright line through every pane that it is attached to, at a time or nowhere. */
export class Upright {
  #time = null;
  #colour = "";
  #redraw = null;

  constructor(chart) {
    this.scale = chart.timeScale();
    const views = [{ zOrder: () => "top", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
    this.paneViews = () => views;
  }

  attached({ requestUpdate }) {
    this.#redraw = requestUpdate; // of any pane: it is the whole chart's
  }

  move(time) {
    if (time === this.#time) return;
    this.#time = time;
    this.#redraw();
  }

  paint(colour) {
    this.#colour = colour;
  }

  #draw(target) {
    const x = this.#time === null ? null : this.scale.timeToCoordinate(this.#time);
    if (x === null) return;
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio: ratio }) => {
      context.fillStyle = this.#colour;
      context.fillRect(Math.round((x - 0.75) * ratio), 0, Math.max(1, Math.round(1.5 * ratio)), bitmapSize.height);
    });
  }
}
