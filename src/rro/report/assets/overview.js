// The overview: what was run, its results, and its cost.

/** The name of one exploration; with its run where there are several. */
function groupName(run, group) {
  const part = group.name.startsWith("trend-")
    ? `trend of ${group.name.slice(6)}`
    : `iteration ${group.name}`;
  return head.runs.length > 1 ? `${run.name}, ${part}` : part;
}

function showOverview(main) {
  const groups = head.runs.flatMap((run) =>
    run.groups.map((group) => ({ ...group, label: groupName(run, group), run })),
  );
  const explored = groups.filter((group) => !group.name.startsWith("trend-"));
  const shown = groups.filter((group) => !isMiddle(group));
  const shownExplored = explored.filter((group) => !isMiddle(group));
  main.append(
    el("section", { "aria-label": "What ran", class: "cards" }, head.runs.map(runCard)),
    el(
      "section",
      { "aria-label": "Figures", class: "figures" },
      rewardFigure(),
      successFigure(),
      conductFigure(),
      differenceFigure(),
      betweenFigure(),
      costCurveFigure(),
      roundFigures(),
      funnelFigures(shownExplored),
      perStepFigure(shownExplored),
      risingFigure(shown),
      alongFigure(shown),
      costFigure(explored),
    ),
  );
  if (!groups.length && !head.runs.some((run) => run.evaluations.length))
    main.append(el("p", { class: "empty" }, "Nothing has been explored or evaluated yet."));
}

/** Whether an exploration is neither the first nor the last of a run of more than three. */
function isMiddle({ name, run }) {
  const names = run.groups.map((group) => group.name).filter((other) => /^\d+$/.test(other));
  return names.length > 3 && names.slice(1, -1).includes(name);
}

function runCard(run) {
  const facts = {
    recipe: run.recipe,
    strategy: run.strategy,
    model: run.model,
    seed: run.seed,
    environment: run.environment.name,
    versions:
      Object.entries(run.versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(", ") || "recorded when the run is evaluated",
    stages: stageTimes(run).join(", ") || "none finished",
  };
  const missing = run.stages.filter((stage) => stage.failed_tasks || stage.ended_by);
  for (const stage of missing) {
    facts[stage.name] = [
      stage.failed_tasks ? `${plural(stage.failed_tasks, "task")} failed and are left out` : "",
      stage.ended_by
        ? `ended by its budget of ${stage.ended_by}, ${plural(stage.left_tasks ?? 0, "task")} left`
        : "",
    ]
      .filter(Boolean)
      .join("; ");
  }
  const environment = Object.entries(run.environment)
    .map(([name, value]) => `${name} = ${JSON.stringify(value)}`)
    .join("\n");
  return el(
    "article",
    { class: "card" },
    el("h2", {}, run.name),
    el(
      "dl",
      {},
      Object.entries(facts).map(([name, value]) => [
        el("dt", {}, name),
        el("dd", {}, String(value)),
      ]),
    ),
    el(
      "details",
      {},
      el("summary", {}, "recipe and environment"),
      el("pre", {}, `${run.config}\n# provenance of the environment\n${environment}`),
    ),
  );
}

/** The time of each stage; those of more than three rounds as sums. */
function stageTimes(run) {
  const times = new Map();
  for (const { name, seconds: taken } of run.stages) {
    const kind =
      run.rounds.length > 3 && /^(explore|optimise)-\d+$/.test(name)
        ? `${name.split("-")[0]}, ${run.rounds.length} rounds,`
        : name;
    times.set(kind, (times.get(kind) ?? 0) + taken);
  }
  return [...times].map(([name, taken]) => `${name} ${seconds(taken)}`);
}

function runLabel(run, text) {
  return head.runs.length > 1 ? `${run.name} ${text}` : text;
}

/** Every evaluated policy and mode of every run. */
function evaluated() {
  return head.runs.flatMap((run, series) =>
    run.evaluations.map((row) => ({
      ...row,
      series,
      name: runLabel(run, `${row.label} ${row.mode}`),
    })),
  );
}

/** How many episodes ended before the agent ended them: too many steps, or a full context. */
function cutOff(row) {
  return (row.stops.step_limit ?? 0) + (row.stops.context_overflow ?? 0);
}

function successFigure() {
  const rows = evaluated().filter((row) => row.success);
  if (!rows.length) return null;
  return figure(
    "Success before and after",
    "Share of the episodes whose reward counts as a success; intervals as above.",
    intervals(
      rows.map((row) => ({ label: row.name, series: row.series, ...row.success })),
      [0, 1],
    ),
    ["policy", "success"],
    rows.map((row) => [row.name, interval(row.success)]),
  );
}

function conductFigure() {
  const rows = evaluated().map((row) => ({
    ...row,
    label: row.name,
    values: [row.steps, row.invalid_actions, cutOff(row) / row.episodes],
  }));
  if (!rows.length) return null;
  const most = (i) => Math.max(...rows.map((row) => row.values[i]));
  const share = (value) => `${Math.round(100 * value)} %`;
  return figure(
    "Steps, invalid actions, cut-off episodes",
    "Means per episode. An episode is cut off when its steps or its context are used up.",
    barColumns(rows, [
      { name: "steps", most: most(0), text: (value) => number(value, 1) },
      { name: "invalid actions", most: most(1), text: (value) => number(value, 2) },
      { name: "cut off", most: 1, text: share },
    ]),
    ["policy", "steps", "invalid actions", "cut off", "episodes"],
    rows.map((row) => [
      row.name,
      number(row.steps, 2),
      number(row.invalid_actions, 3),
      number(cutOff(row)),
      row.episodes,
    ]),
  );
}

function rewardFigure() {
  const rows = evaluated();
  if (!rows.length) return null;
  const low = Math.min(0, ...rows.map((row) => row.reward.low ?? row.reward.mean)),
    high = Math.max(1, ...rows.map((row) => row.reward.high ?? row.reward.mean));
  const before = rows.some((row) => row.label === "sft") ? " sft is the policy before exploration." : "";
  return figure(
    "Reward before and after",
    `Mean over the test tasks, 95 % intervals by task (none below 20 tasks).${before}`,
    intervals(
      rows.map((row) => ({ label: row.name, series: row.series, ...row.reward })),
      [low, high],
    ),
    ["policy", "reward", "episodes"],
    rows.map((row) => [
      row.name,
      interval(row.reward),
      row.failed ? `${row.episodes} (${row.failed} failed)` : row.episodes,
    ]),
  );
}

function differences(heading, remark, rows) {
  if (!rows.length) return null;
  const ends = rows.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean, 0]);
  const [low, high] = [Math.min(...ends), Math.max(...ends)],
    margin = 0.05 * (high - low);
  return figure(
    heading,
    remark,
    intervals(rows, [low - margin, high + margin], 0),
    ["", "difference in reward", "tasks"],
    rows.map((row) => [
      row.label,
      interval(row),
      row.left_out ? `${row.n} (${row.left_out} left out)` : row.n,
    ]),
  );
}

function differenceFigure() {
  const rows = head.runs.flatMap((run, series) =>
    run.differences.map((row) => ({
      ...row,
      series,
      label: runLabel(run, `${row.label} − ${row.against} ${row.mode}`),
    })),
  );
  return differences(
    "Gain over the first policy",
    "Paired by task. An interval that excludes 0 is a gain or loss beyond chance.",
    rows,
  );
}

function betweenFigure() {
  const rows = head.between.map((row) => ({
    ...row,
    series: row.run,
    label: `${head.runs[row.run].name} − ${head.runs[0].name} ${row.mode}`,
  }));
  return differences(
    "Runs against the first",
    "The last policy of each run, paired by task.",
    rows,
  );
}

function costCurveFigure() {
  if (head.runs.length < 2) return null;
  const modes = head.runs.flatMap((run) => run.curve.map((point) => point.mode));
  const mode = modes.includes("sampled") ? "sampled" : modes[0];
  const series = head.runs.map((run) => ({
    name: `${run.strategy} (${run.name})`,
    points: run.curve
      .filter((point) => point.mode === mode)
      .map((point) => ({ ...point, x: point.usage[0] })),
  }));
  if (!modes.length) return null;
  const points = series.flatMap((curve) => curve.points);
  const range = [
    Math.min(0, ...points.map((point) => point.mean)),
    Math.max(1, ...points.map((point) => point.mean)),
  ];
  return figure(
    "Reward against cost",
    `${mode} episodes; each curve begins with the policy before exploration, one point per iteration.`,
    curves(series, range, "policy calls of exploration"),
    ["run and policy", "policy calls", "reward"],
    series.flatMap((curve) =>
      curve.points.map((point) => [
        `${curve.name} ${point.label}`,
        number(point.x),
        interval(point),
      ]),
    ),
    series.map((curve) => curve.name),
  );
}

function funnelFigures(groups) {
  return groups.filter((group) => group.candidates).map((group) => {
    const chosen = group.steps > 0; // strategies over whole episodes choose no steps
    const end = group.pairs ? "pairs" : "rollouts";
    const names = chosen ? ["tasks", "steps", "candidates", end] : ["tasks", "candidates", end];
    const rows = names.map((name) => [name, group[name]]);
    const under =
      group.finished < group.tasks
        ? `${group.tasks - group.finished} of the tasks are in progress. `
        : "";
    return figure(
      `From tasks to ${end}: ${group.label}`,
      under +
        (chosen
          ? "Steps of the chosen trajectories, and the candidates drawn for them."
          : "Candidates are the steps of rollouts after which others begin."),
      bars(
        rows.map(([label, value]) => ({ label, value, text: number(value), series: 0 })),
        Math.max(...rows.map(([, value]) => value), 1),
      ),
      ["", "count"],
      [
        ...rows.map(([name, value]) => [name, number(value)]),
        end === "rollouts" ? [] : ["rollouts", number(group.rollouts)],
      ].filter((row) => row.length),
    );
  });
}

function perStepFigure(groups) {
  const drawn = groups.filter((group) => group.per_step.length);
  if (!drawn.length) return null;
  const rows = drawn.flatMap((group, series) => {
    const steps = group.per_step.reduce((sum, [, times]) => sum + times, 0);
    return group.per_step.map(([count, times]) => ({
      label: `${drawn.length > 1 ? `${group.label}: ` : ""}${plural(count, "candidate")}`,
      value: times / steps,
      text: `${percent(times, steps)} (${number(times)})`,
      series,
      times,
    }));
  });
  return figure(
    "Candidates per step",
    drawn.some((group) => group.rose)
      ? "How many had to be drawn before one rose, or the limit was reached."
      : "How many were drawn before one was chosen.",
    bars(rows, Math.max(...rows.map((row) => row.value))),
    ["drawn", "steps"],
    rows.map((row) => [row.label, row.times]),
    drawn.map((group) => group.label),
  );
}

function risingFigure(groups) {
  const known = groups.filter((group) => group.rising.some(([rising]) => rising));
  if (!known.length) return null;
  const names = ["first", "middle", "last"];
  const rows = names.flatMap((name, third) =>
    known.map((group, series) => ({
      label: `${name} third${known.length > 1 ? `, ${group.label}` : ""}`,
      value: group.rising[third][1] ? group.rising[third][0] / group.rising[third][1] : 0,
      text: `${percent(...group.rising[third])} of ${group.rising[third][1]}`,
      series,
      counts: group.rising[third],
    })),
  );
  return figure(
    "Rising steps by stage",
    "Share of steps whose process reward exceeds that of the step before, by third of the episode.",
    bars(rows, 1),
    ["stage", "rising", "steps"],
    rows.map((row) => [row.label, ...row.counts]),
    known.map((group) => group.label),
  );
}

function alongFigure(groups) {
  const lines = groups.filter((group) => group.along.length > 1);
  if (!lines.length) return null;
  const series = lines.map((group) => ({
    points: group.along.map((point) => ({ ...point, x: point.step })),
  }));
  return figure(
    "Process reward along the trajectory",
    "Mean over the chosen trajectories that reach that step: later points are over fewer of them.",
    curves(series, head.range, "step"),
    ["series and step", "process reward", "trajectories"],
    lines.flatMap((group) =>
      group.along.map((point) => [`${group.label}, ${point.step}`, interval(point), point.n]),
    ),
    lines.map((group) => group.label),
  );
}

function costFigure(groups) {
  if (!groups.length) return null;
  const paired = groups.some((group) => group.pairs);
  const rows = groups.map((group) => [
    group.label,
    ...group.usage.map((value) => number(value, 1)),
    ...(paired ? [group.pairs ? number(group.usage[0] / group.pairs, 1) : ""] : []),
  ]);
  return el(
    "figure",
    { class: "wide" },
    el(
      "figcaption",
      {},
      el("h3", {}, "What exploration cost so far"),
      el(
        "p",
        {},
        `Seconds of concurrent work add up; prices in ${head.runs[0].currency}, from the recipe.`,
      ),
    ),
    table(
      [
        "",
        ...head.usage.map((name) => name.replace("_", " ")),
        ...(paired ? ["policy calls per pair"] : []),
      ],
      rows,
    ),
  );
}
