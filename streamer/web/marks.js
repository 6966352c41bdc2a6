// What the chart library cannot draw: a line that breaks where nothing is known, a band between two
// values, and an upright line at a moment. Knows the library's interfaces for these, and nothing else.

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

/** Stretches of the visible bars without a gap; each bar's time is its place on the axis. */
function runs(bars, { from, to }) {
  const found = [];
  let last = null;
  for (let i = Math.max(0, Math.floor(from) - 1); i < Math.min(bars.length, Math.ceil(to) + 1); i++) {
    if (last === null || bars[i].time - last > 1) found.push([]);
    found.at(-1).push(bars[i]);
    last = bars[i].time;
  }
  return found;
}

function path(context, scope, bars, value, toY) {
  for (const bar of bars) {
    const y = toY(value(bar.originalData.values)) * scope.verticalPixelRatio;
    context.lineTo(bar.x * scope.horizontalPixelRatio, y);
  }
}

function paintLine(scope, stretches, toY, { color, lineWidth }) {
  const { context, horizontalPixelRatio } = scope;
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = lineWidth * horizontalPixelRatio;
  context.lineJoin = context.lineCap = "round";
  for (const bars of stretches) {
    context.beginPath();
    path(context, scope, bars, (values) => values[0], toY);
    // One lonely score is a dot: a line of no length.
    if (bars.length === 1) path(context, scope, bars, (values) => values[0], toY);
    context.stroke();
  }
}

function paintBand(scope, stretches, toY, { color }) {
  const { context } = scope;
  context.fillStyle = color;
  for (const bars of stretches) {
    context.beginPath();
    path(context, scope, bars, (values) => values[0], toY);
    path(context, scope, [...bars].reverse(), (values) => values[1], toY);
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
