// The evaluated episodes of one task, two of them side by side: by default of the first and the last
// policy.

const CHANGES = {
  all: () => true,
  better: (change) => change > 0,
  worse: (change) => change < 0,
  same: (change) => change === 0,
};
const wanted = { text: "", mode: "", change: "all" };

/** The modes in which anything was evaluated. */
function modesOf() {
  return [...new Set(head.runs.flatMap((run) => run.evaluations.map((row) => row.mode)))];
}

/** [reward of the first policy, of the last] in the chosen mode; null where one is missing. */
function beforeAfter(entry) {
  const labels = [...new Set(head.runs[entry.run].evaluations.map((row) => row.label))];
  const of = (label) =>
    entry.rewards.find((row) => row[0] === label && row[1] === (wanted.mode || modesOf()[0]))?.[2] ??
    null;
  return [of(labels[0]), of(labels.at(-1))];
}

function playedFitting() {
  return head.played.filter((entry) => {
    const [before, after] = beforeAfter(entry);
    return (
      isNamed(entry, wanted.text) &&
      (wanted.change === "all" ||
        (before !== null && after !== null && CHANGES[wanted.change](after - before)))
    );
  });
}

function playedForm(changed) {
  const choice = (name, label, options) =>
    el(
      "label",
      {},
      el("span", {}, label),
      el(
        "select",
        {
          id: `played-${name}`,
          onchange: (event) => ((wanted[name] = event.target.value), changed()),
        },
        options.map((value) => el("option", { value, selected: value === wanted[name] }, value)),
      ),
    );
  return el(
    "form",
    {
      class: "filter",
      role: "search",
      "aria-label": "Filter the evaluated tasks",
      onsubmit: (event) => event.preventDefault(),
    },
    el(
      "label",
      {},
      el("span", {}, "search"),
      el("input", {
        type: "search",
        id: "filter-text",
        value: wanted.text,
        placeholder: "task or instruction",
        oninput: (event) => ((wanted.text = event.target.value), changed()),
      }),
    ),
    choice("mode", "mode", modesOf()),
    choice("change", "from the first policy to the last", Object.keys(CHANGES)),
  );
}

function playedList(entries, chosen, choose) {
  return buttons(entries, head.played, chosen, choose, (entry) => {
    const [before, after] = beforeAfter(entry);
    return [
      el("span", {}, chip(before, head.range), " → ", chip(after, head.range)),
      head.runs.length > 1 ? el("span", { class: "about" }, head.runs[entry.run].name) : null,
    ];
  });
}

function playName(play) {
  return `${play.label} ${play.mode} ${play.number}`;
}

/** Which two episodes are shown: those of the address, or of the first and the last policy. */
function chosenPlays(task) {
  const mode = wanted.mode || modesOf()[0];
  const inMode = task.plays.filter((play) => play.mode === mode);
  const shown = inMode.length ? inMode : task.plays;
  const labels = [...new Set(head.runs[task.entry.run].evaluations.map((row) => row.label))];
  const of = (label) => shown.find((play) => play.label === label);
  const named = (name) => task.plays.find((play) => playName(play) === name);
  return [
    named(place.left) ?? of(labels[0]) ?? shown[0],
    named(place.right) ?? of(labels.at(-1)) ?? shown.at(-1),
  ];
}

function playHeader(task, play, name) {
  const options = task.plays.map((other) =>
    el("option", { value: playName(other), selected: other === play }, playName(other)),
  );
  const invalid = play.steps.filter((step) => step[2]).length;
  return el(
    "header",
    {},
    el(
      "select",
      {
        "aria-label": `episode on the ${name}`,
        onchange: (event) => go({ [name]: event.target.value }),
      },
      options,
    ),
    " ",
    chip(play.reward, head.range),
    el(
      "p",
      { class: "about" },
      [
        plural(play.steps.length, "step"),
        invalid ? plural(invalid, "invalid action") : null,
        play.stop === "terminal" ? "ended" : `cut off: ${play.stop.replaceAll("_", " ")}`,
      ]
        .filter(Boolean)
        .join(", "),
    ),
  );
}

/** One side of a step: the agent's message with the words that differ, and the answer. */
function playedTurn(step, parts, kind, number, differs) {
  if (!step) return el("section", { class: "turn" }, el("p", { class: "about" }, "(has ended)"));
  const note = [`step ${number}`, differs ? "≠ differs" : null, step.invalid ? "invalid" : null];
  return el(
    "section",
    { class: `turn${differs ? " differs" : ""}` },
    el(
      "section",
      { class: "message agent" },
      el("h4", {}, `agent, ${note.filter(Boolean).join(", ")}`),
      marked(parts, kind),
    ),
    message("environment", step.observation),
  );
}

function playsView(task) {
  const [left, right] = chosenPlays(task);
  const rows = [];
  for (let i = 0; i < Math.max(left.steps.length, right.steps.length); i++) {
    const [a, b] = [left, right].map((play) =>
      play.steps[i] ? stepOf(task, play.steps[i]) : null,
    );
    const [first, second] = compare(a?.action ?? "", b?.action ?? "");
    const differs = (a?.action ?? null) !== (b?.action ?? null);
    rows.push(
      playedTurn(a, first, "rejected", i + 1, differs),
      playedTurn(b, second, "chosen", i + 1, differs),
    );
  }
  const opening = task.opening.map(([role, i]) =>
    message(role === "user" ? "environment" : role, task.text(i)),
  );
  return [
    folded(`how the task begins: ${plural(opening.length, "message")}`, () => opening.slice(0, -1)),
    ...opening.slice(-1),
    el(
      "div",
      { class: "plays" },
      playHeader(task, left, "left"),
      playHeader(task, right, "right"),
      rows,
    ),
    outcomeTable(task),
  ];
}

/** Every episode of the task: policy and mode by row. */
function outcomeTable(task) {
  const rows = new Map();
  for (const play of task.plays) {
    const name = `${play.label} ${play.mode}`;
    rows.set(name, [...(rows.get(name) ?? []), play]);
  }
  return el(
    "section",
    { "aria-label": "All episodes of the task" },
    el("h3", {}, "All episodes of this task"),
    el(
      "dl",
      { class: "outcomes" },
      [...rows].map(([name, plays]) => [
        el("dt", {}, name),
        el(
          "dd",
          {},
          plays.map((play) =>
            el(
              "a",
              {
                href: address({ right: playName(play) }),
                title: `${plural(play.steps.length, "step")}, ${play.stop.replaceAll("_", " ")}`,
              },
              chip(play.reward, head.range),
            ),
          ),
        ),
      ]),
    ),
  );
}

/** Draw the view into the page's side and work parts. */
async function drawEpisodes() {
  const entries = playedFitting(),
    list = document.getElementById("list"),
    work = document.getElementById("work"),
    scroll = list.scrollTop;
  const here = head.played.find(
    (entry) => entry.id === place.played && (!place.run || entry.run === Number(place.run)),
  );
  const entry = here ?? entries[0] ?? null;
  list.replaceChildren(
    playedList(entries, entry, (next) =>
      go({ run: next.run, played: next.id, left: undefined, right: undefined }),
    ),
  );
  list.scrollTop = scroll;
  if (!entry) {
    const text = head.played.length ? "No task fits the filter." : "Nothing has been evaluated yet.";
    return work.replaceChildren(el("p", { class: "empty" }, text));
  }
  const asked = location.hash,
    task = await openTask(entry);
  // the reader may have navigated away meanwhile
  if (location.hash !== asked) return;
  work.replaceChildren(
    el(
      "header",
      { class: "title" },
      el("h2", {}, entry.id),
      el("p", { class: "about" }, `evaluated by ${head.runs[entry.run].name}`),
    ),
    ...playsView(task),
  );
}
