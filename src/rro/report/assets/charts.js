// Charts as SVG, each with its numbers in a table below. Knows nothing of runs.

// Okabe and Ito's colours, distinguishable with any colour vision; markers differ as well.
const SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999"];
const MARKS = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
  "M-4-4h8v8h-8z",
  "M0-5l5 9h-10z",
  "M0-5l5 5l-5 5l-5-5z",
  "M-5-4h10l-5 9z",
];

function chartWidth() {
  const page = document.documentElement.clientWidth;
  return page >= 1000 ? 540 : Math.max(Math.min(640, page - 60), 240);
}

function mark(series, x, y) {
  return svg("path", {
    d: MARKS[series % MARKS.length],
    transform: `translate(${x} ${y})`,
    fill: SERIES[series % SERIES.length],
  });
}

/** A chart with its heading, a remark, a legend (names of series), and its numbers. */
function figure(heading, remark, drawing, columns, rows, names = []) {
  const legend =
    names.length > 1
      ? el(
          "p",
          { class: "legend" },
          names.map((name, i) =>
            el(
              "span",
              {},
              svg(
                "svg",
                { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
                mark(i, 0, 0),
              ),
              ` ${name}`,
            ),
          ),
        )
      : null;
  drawing?.setAttribute("role", "img");
  drawing?.setAttribute("aria-label", `${heading}; the numbers are in the table that follows`);
  const numbers = el("details", {}, el("summary", {}, "numbers"), table(columns, rows));
  return el(
    "figure",
    {},
    el("figcaption", {}, el("h3", {}, heading), remark ? el("p", {}, remark) : null),
    legend,
    drawing,
    numbers,
  );
}

function table(columns, rows) {
  const line = (cells, tag) =>
    el(
      "tr",
      {},
      cells.map((cell, i) =>
        el(i ? tag : "th", { scope: i ? null : tag === "th" ? "col" : "row" }, String(cell)),
      ),
    );
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      {},
      el("thead", {}, line(columns, "th")),
      el(
        "tbody",
        {},
        rows.map((row) => line(row, "td")),
      ),
    ),
  );
}

/** Evenly spaced round numbers on an axis, each with its text: no two of them read alike. */
function ticks(low, high, most = 5) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(step) - 1e-9), 0), 8);
  const places = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    const at = i * step || 0;
    const compact = Math.abs(at) >= 1000 && at.toLocaleString("en", { notation: "compact" });
    places.push({ at, text: compact || number(at, digits) });
  }
  return places;
}

/** Room for the labels on the left of a chart. */
function labelRoom(rows, width) {
  const longest = Math.max(...rows.map((row) => row.label.length), 0);
  return Math.min(Math.max(190, 7 * longest + 16), width * 0.55);
}

/** Rows of dots with whiskers: [{label, mean, low, high, series}]; a line at `zero`, if given. */
function intervals(rows, [low, high], zero = null) {
  const width = chartWidth(),
    left = labelRoom(rows, width),
    right = width - 14,
    height = rows.length * 26 + 30;
  const x = (value) =>
    left + ((Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * (right - left);
  const grid = ticks(low, high).map(({ at, text }) => [
    svg("line", { class: "grid", x1: x(at), x2: x(at), y1: 4, y2: height - 24 }),
    svg("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, text),
  ]);
  const lines = rows.map((row, i) => {
    const y = 18 + i * 26,
      series = row.series ?? 0;
    return [
      svg("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, row.label),
      svg("line", {
        x1: x(row.low ?? low),
        x2: x(row.high ?? high),
        y1: y,
        y2: y,
        stroke: SERIES[series % SERIES.length],
        "stroke-width": 3,
        "stroke-opacity": 0.55,
        "stroke-dasharray": row.low === null ? "3 3" : null,
      }),
      mark(series, x(row.mean), y),
    ];
  });
  const middle =
    zero === null
      ? null
      : svg("line", { class: "axis", x1: x(zero), x2: x(zero), y1: 4, y2: height - 24 });
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, grid, middle, lines);
}

/** Rows of bars: [{label, value, series, text}]; `most` is the end of the scale. */
function bars(rows, most) {
  const width = chartWidth(),
    left = labelRoom(rows, width),
    room = width - left - 96,
    height = rows.length * 24 + 6;
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}` },
    rows.map((row, i) => {
      const y = 4 + i * 24,
        length = Math.max(((row.value ?? 0) / (most || 1)) * room, row.value ? 1 : 0);
      return [
        svg("text", { x: left - 10, y: y + 14, "text-anchor": "end" }, row.label),
        svg("rect", {
          x: left,
          y,
          width: length,
          height: 18,
          rx: 2,
          fill: SERIES[(row.series ?? 0) % SERIES.length],
        }),
        svg("text", { x: left + length + 6, y: y + 14 }, row.text),
      ];
    }),
  );
}

/** Several figures of the same rows beside each other, each with bars on a scale of its own:
 * rows are [{label, series, values}], columns [{name, most, text}], `text` of a value. */
function barColumns(rows, columns) {
  const width = chartWidth(),
    left = labelRoom(rows, width),
    room = (width - left) / columns.length,
    height = rows.length * 24 + 30;
  const names = columns.map((column, i) =>
    svg("text", { x: left + i * room, y: 14, class: "soft" }, column.name),
  );
  const lines = rows.map((row, j) => {
    const y = 24 + j * 24;
    const drawn = columns.map((column, i) => {
      const value = row.values[i] ?? 0,
        length = Math.max((value / (column.most || 1)) * (room - 58), value ? 1 : 0);
      return [
        svg("rect", {
          x: left + i * room,
          y,
          width: length,
          height: 16,
          rx: 2,
          fill: SERIES[(row.series ?? 0) % SERIES.length],
        }),
        svg("text", { x: left + i * room + length + 4, y: y + 13 }, column.text(value)),
      ];
    });
    return [svg("text", { x: left - 10, y: y + 13, "text-anchor": "end" }, row.label), drawn];
  });
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, names, lines);
}

/** Curves with whiskers: [{points: [{x, mean, low, high}]}]; `label` says what x is. Without
 * `marks`, for many points, only the lines. */
function curves(series, [low, high], label, fromZero = true, marks = true) {
  const width = chartWidth(),
    height = 240,
    left = 52,
    right = width - 16,
    bottom = height - 42;
  const all = series.flatMap((one) => one.points.map((point) => point.x));
  const first = fromZero ? 0 : Math.min(...all),
    last = Math.max(...all, first + 1);
  const x = (value) => left + ((value - first) / (last - first)) * (right - left);
  const y = (value) =>
    bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * (bottom - 12);
  const across = ticks(low, high).map(({ at, text }) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(at), y2: y(at) }),
    svg("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, text),
  ]);
  const along = ticks(first, last, 7).map(({ at, text }) =>
    svg("text", { x: x(at), y: bottom + 18, "text-anchor": "middle" }, text),
  );
  const drawn = series.map((line, i) => {
    const colour = SERIES[i % SERIES.length],
      shift = marks ? (i - (series.length - 1) / 2) * 4 : 0;
    const path = line.points
      .map((point, j) => `${j ? "L" : "M"}${x(point.x) + shift} ${y(point.mean)}`)
      .join("");
    return [
      svg("path", {
        d: path,
        fill: "none",
        stroke: colour,
        "stroke-width": 2,
        "stroke-dasharray": i % 2 ? "6 3" : null,
      }),
      line.points
        .filter((point) => point.low !== null)
        .map((point) =>
          svg("line", {
            x1: x(point.x) + shift,
            x2: x(point.x) + shift,
            y1: y(point.low),
            y2: y(point.high),
            stroke: colour,
            "stroke-width": 1.5,
            "stroke-opacity": 0.6,
          }),
        ),
      (marks ? line.points : line.points.slice(-1)).map((point) =>
        mark(i, x(point.x) + shift, y(point.mean)),
      ),
    ];
  });
  const name = svg(
    "text",
    { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" },
    label,
  );
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}` },
    across,
    along,
    name,
    drawn,
  );
}

/** Process reward along one trajectory, as a small line. */
function spark(values, range) {
  const known = values
    .map((value, i) => [i, value])
    .filter(([, value]) => value !== null && value !== undefined);
  const width = 64,
    height = 18,
    step = width / Math.max(values.length - 1, 1);
  const y = (value) =>
    height - 2 - ((value - range[0]) / (range[1] - range[0] || 1)) * (height - 4);
  const path = known
    .map(([i, value], j) => `${j ? "L" : "M"}${(i * step).toFixed(1)} ${y(value).toFixed(1)}`)
    .join("");
  return svg(
    "svg",
    { class: "spark", width, height, "aria-hidden": "true" },
    svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
  );
}

/** A process reward on the reward scale: outcomes as ticks, interval as a bar, mean as a dot. */
function gauge(estimate, range) {
  const width = 92,
    height = 16,
    x = (value) =>
      4 +
      ((Math.min(Math.max(value, range[0]), range[1]) - range[0]) / (range[1] - range[0] || 1)) *
        (width - 8);
  const parts = [svg("line", { class: "grid", x1: 4, x2: width - 4, y1: 8, y2: 8 })];
  if (estimate) {
    if (estimate.low !== null)
      parts.push(
        svg("line", { class: "whisker", x1: x(estimate.low), x2: x(estimate.high), y1: 8, y2: 8 }),
      );
    for (const outcome of estimate.outcomes ?? [])
      parts.push(svg("line", { class: "tick", x1: x(outcome), x2: x(outcome), y1: 3, y2: 13 }));
    parts.push(svg("circle", { class: "dot", cx: x(estimate.mean), cy: 8, r: 3.5 }));
  }
  return svg("svg", { class: "gauge", width, height, "aria-hidden": "true" }, parts);
}
