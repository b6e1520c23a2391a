// The curves of each training of each run, as metrics.jsonl has them.

// Figures that are drawn into one chart.
const TOGETHER = [
  ["Log-probabilities", ["logps/chosen", "logps/rejected"]],
  ["Implicit rewards", ["rewards/chosen", "rewards/rejected"]],
  ["Logits", ["logits/chosen", "logits/rejected"]],
];

function showTraining(main) {
  const stages = [
    ...new Set(head.runs.flatMap((run) => run.trainings.map((training) => training.stage))),
  ];
  if (!stages.length)
    main.append(el("p", { class: "empty" }, "No training has logged anything yet."));
  for (const stage of stages) {
    const trained = head.runs.flatMap((run) =>
      run.trainings
        .filter((training) => training.stage === stage)
        .map((training) => ({ ...training, run: run.name })),
    );
    main.append(
      el("h2", {}, stage.replace("_", " ")),
      el(
        "section",
        { "aria-label": stage, class: "figures" },
        chartsOf(trained).map(([title, names]) => trainingFigure(trained, title, names)),
      ),
    );
  }
}

/** [title, names of figures] of each chart, those that are known to the page first. */
function chartsOf(trained) {
  const logged = [...new Set(trained.flatMap((training) => Object.keys(training.curves)))];
  const shared = TOGETHER.filter(([, names]) => names.some((name) => logged.includes(name)));
  const grouped = shared.flatMap(([, names]) => names);
  const known = Object.entries(head.titles).filter(([name]) => logged.includes(name));
  const others = logged.filter((name) => !(name in head.titles) && !grouped.includes(name));
  return [
    ...known.map(([name, title]) => [title, [name]]),
    ...shared,
    ...others.map((name) => [name.replaceAll("_", " "), [name]]),
  ];
}

function trainingFigure(trained, title, names) {
  const series = trained.flatMap((training) =>
    names
      .filter((name) => name in training.curves)
      .map((name) => ({
        name: [trained.length > 1 ? training.run : "", names.length > 1 ? name : ""]
          .filter(Boolean)
          .join(", "),
        points: training.curves[name].map(([x, mean]) => ({ x, mean, low: null, high: null })),
      })),
  );
  const rounds = Math.max(...trained.map((training) => training.rounds.length));
  const ends = series.map((line) => [line.points[0], line.points.at(-1)]);
  return figure(
    title,
    rounds > 1 ? `Rounds one after the other, ${rounds} at most.` : null,
    curves(series, rangeOf(series, []), "optimiser step", true, false),
    ["", "first", "last", "lowest", "highest"],
    series.map((line, i) => [
      line.name || title,
      ...[
        ...ends[i].map((point) => point.mean),
        Math.min(...line.points.map((point) => point.mean)),
        Math.max(...line.points.map((point) => point.mean)),
      ].map((value) => number(value, 6)),
    ]),
    series.map((line) => line.name),
  );
}
