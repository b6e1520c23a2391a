// A table of results: methods in environments, over training seeds and tasks.

function wordsOf(name) {
  return name.replaceAll("_", " ");
}

function rowName(row) {
  return row.policy === "last" ? row.method : `${row.method}, ${row.policy}`;
}

function showResults(main) {
  const { rows, missing } = head.results;
  const environments = [...new Set(rows.map((row) => row.environment))];
  main.append(
    el(
      "p",
      { class: "about" },
      "A figure is the mean over training seeds of the means over test tasks" +
        (rows.some(({ intervals }) => Object.values(intervals).some(({ low }) => low !== null))
          ? "; 95 % intervals over seeds and tasks. "
          : ". ") +
        "Missing trials: " +
        (missing.length ? missing.join(", ") : "none") +
        ".",
    ),
    ...environments.flatMap((environment) => {
      const own = rows.filter((row) => row.environment === environment);
      return [
        el("h2", {}, environment),
        el(
          "section",
          { "aria-label": environment, class: "figures" },
          resultCharts(own),
          resultCurves(environment),
          resultTable(own),
          costTable(own),
        ),
      ];
    }),
    el("h2", {}, "Settings"),
    el(
      "article",
      { class: "card" },
      Object.entries(head.results.settings).map(([name, settings]) =>
        folded(name, () => [el("pre", {}, settings.join("\n") || "(those of the recipe)")]),
      ),
      folded("the whole plan", () => [el("pre", {}, head.results.plan)]),
    ),
  );
}

/** The names of the intervals that any of these rows has. */
function intervalNames(rows) {
  return [...new Set(rows.flatMap((row) => Object.keys(row.intervals)))];
}

function resultCharts(rows) {
  return intervalNames(rows).map((name) => {
    const shown = rows
      .filter((row) => name in row.intervals)
      .map((row) => ({ label: rowName(row), ...row.intervals[name] }));
    const gain = name.endsWith("_difference");
    const ends = shown.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean, 0]);
    const range = [Math.min(...ends), Math.max(...ends, gain ? 0 : 1)];
    return figure(
      wordsOf(name),
      gain ? `Minus ${head.results.first}, paired by seed and task.` : null,
      intervals(shown, range, gain ? 0 : null),
      ["method", wordsOf(name), "tasks"],
      shown.map((row) => [row.label, interval(row), row.n]),
    );
  });
}

/** Means over seeds, with the lowest and the highest seed as whiskers. */
function overSeeds(seeds) {
  const longest = Math.max(...seeds.map((points) => points.length), 0);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return Array.from({ length: longest }, (_, i) => {
    const there = seeds.filter((points) => i < points.length).map((points) => points[i]);
    const rewards = there.map(([, reward]) => reward);
    return {
      x: mean(there.map(([tokens]) => tokens)),
      mean: mean(rewards),
      low: Math.min(...rewards),
      high: Math.max(...rewards),
      seeds: there.length,
    };
  });
}

function resultCurves(environment) {
  const methods = Object.entries(head.results.curves[environment] ?? {});
  const modes = [
    ...new Set(methods.flatMap(([, seeds]) => seeds.flatMap((one) => one.evaluated.map((p) => p[1])))),
  ];
  const evaluated = (mode) => (seed) =>
    seed.evaluated.filter((point) => point[1] === mode).map(([tokens, , reward]) => [tokens, reward]);
  return [
    ["Reward while exploring", (seed) => seed.played],
    ...modes.map((mode) => [`Reward of the evaluated policies, ${mode}`, evaluated(mode)]),
  ].map(([title, pointsOf]) => {
    const series = methods
      .map(([name, seeds]) => ({ name, points: overSeeds(seeds.map(pointsOf)) }))
      .filter((line) => line.points.length > 1);
    if (!series.length) return null;
    return figure(
      title,
      "Against the tokens generated to learn. Means over seeds; whiskers: lowest and highest seed.",
      curves(series, rangeOf(series, [0, 1]), "generated tokens"),
      ["method", "generated tokens", "reward", "lowest", "highest", "seeds"],
      series.flatMap((line) =>
        line.points.map((point) => [
          line.name,
          number(point.x, 0),
          ...[point.mean, point.low, point.high].map((value) => number(value)),
          point.seeds,
        ]),
      ),
      series.map((line) => line.name),
    );
  });
}

function wide(title, remark, columns, rows) {
  return el(
    "figure",
    { class: "wide" },
    el("figcaption", {}, el("h3", {}, title), el("p", {}, remark)),
    table(columns, rows),
  );
}

function resultTable(rows) {
  const names = intervalNames(rows);
  return wide(
    "Table",
    "last: the policy after the last round. closing: after the closing pass on its successes.",
    ["method", "policy", "seeds", ...names.map(wordsOf)],
    rows.map((row) => [
      row.method,
      row.policy,
      row.seeds,
      ...names.map((name) => (name in row.intervals ? interval(row.intervals[name]) : "")),
    ]),
  );
}

function costTable(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.costs)))];
  return wide(
    "What learning cost",
    "Means over seeds: all rounds of exploration and training, and the closing pass.",
    ["method", ...names.map(wordsOf)],
    rows
      .filter((row) => row.policy === "last")
      .map((row) => [row.method, ...names.map((name) => number(row.costs[name], 0))]),
  );
}
