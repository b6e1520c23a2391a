// The rounds of a run: reward against what had been generated, and the figures of each training.

/** Charts of the runs that have several rounds; none where no run has. */
function roundFigures() {
  const runs = head.runs.filter((run) => run.rounds.length > 1);
  if (!runs.length) return [];
  return [
    roundRewardFigure(runs),
    ...Object.entries(head.figures).map(([name, title]) => roundFigure(runs, name, title)),
  ];
}

/** Where a curve lies: between its lowest and highest ends, and `least`. */
function rangeOf(series, least) {
  const ends = series.flatMap((line) =>
    line.points.flatMap((point) => [point.low ?? point.mean, point.high ?? point.mean]),
  );
  return [Math.min(...ends, ...least), Math.max(...ends, ...least)];
}

function roundRewardFigure(runs) {
  const generated = head.usage.indexOf("generated_tokens");
  const series = runs.flatMap((run) => {
    // A round's own episodes are played by the policy before it.
    const played = run.rounds
      .map((round, i) => ({
        ...round.reward,
        x: i ? run.rounds[i - 1].generated : 0,
        label: `round ${round.round}`,
      }))
      .filter((point) => point.mean !== undefined);
    const modes = [...new Set(run.curve.map((point) => point.mode))];
    return [
      { name: runLabel(run, "explored"), points: played },
      ...modes.map((mode) => ({
        name: runLabel(run, `evaluated, ${mode}`),
        points: run.curve
          .filter((point) => point.mode === mode)
          .map((point) => ({ ...point, x: point.usage[generated] })),
      })),
    ].filter((line) => line.points.length);
  });
  if (!series.length) return null;
  return figure(
    "Reward by round",
    "Against the tokens that had been generated to train the policy that played. explored: what " +
      "a round played from the start of its own train tasks.",
    curves(series, rangeOf(series, [0, 1]), "generated tokens"),
    ["series and policy", "generated tokens", "reward"],
    series.flatMap((line) =>
      line.points.map((point) => [
        `${line.name}, ${point.label}`,
        number(point.x),
        interval(point),
      ]),
    ),
    series.map((line) => line.name),
  );
}

function roundFigure(runs, name, title) {
  const series = runs
    .map((run) => ({
      name: run.name,
      points: run.rounds
        .filter((round) => name in round.figures)
        .map((round) => ({ x: round.round, mean: round.figures[name], low: null, high: null })),
    }))
    .filter((line) => line.points.length > 1);
  if (!series.length) return null;
  const without = runs.flatMap((run) => run.rounds.filter((round) => round.skipped));
  return figure(
    title,
    "As last logged in each round's training." +
      (without.length ? ` ${plural(without.length, "round")} taught nothing.` : ""),
    curves(series, rangeOf(series, []), "round", false),
    ["run and round", title.toLowerCase()],
    series.flatMap((line) =>
      line.points.map((point) => [`${line.name}, ${point.x}`, number(point.mean, 5)]),
    ),
    series.map((line) => line.name),
  );
}
