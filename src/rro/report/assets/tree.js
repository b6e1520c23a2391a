// One task's tree: a row per candidate along the chosen path, and the selected node's details.

/** Rows in reading order: the candidates of a step, then the chosen one with what follows it. */
function rowsOf(task) {
  const children = task.nodes.map(() => []);
  task.nodes.forEach((node, i) => node.parent >= 0 && children[node.parent].push(i));
  const rows = [];
  const visit = (i, level) => {
    rows.push({ i, level, inner: children[i].length > 0 });
    const below = [...children[i]].sort(
      (a, b) => Boolean(task.nodes[a].committed) - Boolean(task.nodes[b].committed),
    );
    below.forEach((child) => visit(child, level + 1));
  };
  visit(0, 1);
  return rows;
}

function depthOf(node) {
  return node.id.split(".").length - 1;
}

/** What happened to a node, as marks with words: never by colour alone. */
function badges(node) {
  const badge = (kind, text, title) => el("span", { class: `badge ${kind}`, title }, text);
  const advantage = node.step?.[5] ?? null;
  return [
    node.rose ? badge("rose", "▲ rose") : node.committed ? badge("chosen", "● chosen") : null,
    node.stop
      ? badge("stop", `■ ${node.stop === "terminal" ? "end" : node.stop.replace("_", " ")}`)
      : null,
    node.sides.includes("chosen") ? badge("pair", "+ pair") : null,
    node.sides.includes("rejected") ? badge("pair", "− pair") : null,
    node.recycled ? badge("stop", "rollout", "a step of a rollout") : null,
    advantage === null ? null : badge("credit", `A ${signed(advantage)}`),
  ];
}

/** The most informative part of a message: its last line, without a label such as "Action:". */
function gist(text) {
  return text
    .trim()
    .split("\n")
    .at(-1)
    .replace(/^\w{1,12}: +(?=\S)/, "")
    .slice(0, 300);
}

/** A candidate's name among those of its step, counted from 1. */
function candidateName(node) {
  const last = node.id.split(".").at(-1);
  return last.startsWith("~") ? `candidate ${last}` : `candidate ${Number(last) + 1}`;
}

function treeView(task, chosen, choose) {
  const rows = rowsOf(task),
    closed = new Set();
  const items = rows.map(({ i, level, inner }) => {
    const node = task.nodes[i];
    const dim =
      isFiltered() &&
      !nodeFits(
        depthOf(node),
        node.estimate?.mean ?? null,
        node.sides.length > 0 || (i === 0 && task.pairs.some((pair) => pair.kind === "trajectory")),
      );
    const text = node.step
      ? gist(task.text(node.step[0]))
      : i
        ? "(its record is missing)"
        : `start: ${gist(task.text(task.opening.at(-1)?.[1]) ?? "in progress")}`;
    const where = i ? `step ${depthOf(node)}` : "start";
    const reward = number(node.estimate?.mean, 2);
    const marks = badges(node)
      .filter(Boolean)
      .map((badge) => badge.textContent.slice(2));
    const twisty = el("span", { class: "twisty", "aria-hidden": "true" }, inner ? "▾" : "");
    const item = el(
      "div",
      {
        role: "treeitem",
        "aria-level": level,
        "aria-expanded": inner ? "true" : null,
        "aria-selected": String(node.id === chosen),
        tabindex: node.id === chosen ? 0 : -1,
        "data-node": node.id,
        class: `node${node.committed || !i ? " on-path" : ""}${dim ? " dim" : ""}`,
        "aria-label": `${where}, process reward ${reward}, ${marks.join(", ")}: ${text}`,
        onclick: () => select(item),
      },
      chip(node.estimate?.mean, head.range),
      gauge(node.estimate, head.range),
      twisty,
      badges(node),
      el("span", { class: "gist" }, text),
    );
    item.style.setProperty("--level", Math.min(level - 1, 12));
    return item;
  });

  function select(item) {
    for (const other of items) {
      other.setAttribute("aria-selected", String(other === item));
      other.tabIndex = other === item ? 0 : -1;
    }
    choose(item.dataset.node);
  }

  function fold(at, shut) {
    rows[at].inner && (shut ? closed.add(at) : closed.delete(at));
    let hidden = 0; // the level below which rows are hidden
    rows.forEach((row, i) => {
      if (hidden && row.level <= hidden) hidden = 0;
      items[i].hidden = hidden > 0;
      if (!hidden && closed.has(i)) hidden = row.level;
      if (row.inner) {
        items[i].setAttribute("aria-expanded", String(!closed.has(i)));
        items[i].querySelector(".twisty").textContent = closed.has(i) ? "▸" : "▾";
      }
    });
  }

  function move(event) {
    const at = items.indexOf(event.target.closest("[role=treeitem]"));
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = items.filter((item) => !item.hidden),
      seen = shown.indexOf(items[at]);
    const parent = () =>
      items[rows.findLastIndex((row, i) => i < at && row.level < rows[at].level)];
    const open = rows[at].inner && !closed.has(at);
    const goals = {
      ArrowDown: () => shown[seen + 1],
      ArrowUp: () => shown[seen - 1],
      Home: () => shown[0],
      End: () => shown.at(-1),
      ArrowRight: () => (rows[at].inner && !open ? fold(at, false) : open ? items[at + 1] : null),
      ArrowLeft: () => (open ? fold(at, true) : parent()),
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    const goal = goals[event.key]();
    if (goal) {
      select(goal);
      goal.focus();
    }
  }

  const index = Math.max(
    items.findIndex((item) => item.dataset.node === chosen),
    0,
  );
  items[index].tabIndex = 0;
  const tree = el(
    "div",
    { role: "tree", class: "tree", "aria-label": "Steps and candidates", onkeydown: move },
    items,
  );
  items.forEach((item, i) =>
    item
      .querySelector(".twisty")
      .addEventListener("click", (event) => (event.stopPropagation(), fold(i, !closed.has(i)))),
  );
  return tree;
}

/** The nodes from the start to this one. */
function pathTo(task, node) {
  return node.parent < 0 ? [node] : [...pathTo(task, task.nodes[node.parent]), node];
}

function message(who, text, note = "") {
  return el(
    "section",
    { class: `message ${who}` },
    el("h4", {}, who, note ? el("span", {}, ` ${note}`) : null),
    el("pre", { tabindex: 0 }, text),
  );
}

function estimateText(estimate) {
  if (!estimate) return "no process reward";
  const figures = estimate.exact
    ? `${number(estimate.mean)}, the outcome itself`
    : `${number(estimate.mean)} from ${plural(estimate.n, "outcome")}`;
  const spread =
    estimate.low === null || estimate.exact
      ? ""
      : `, 95 % interval [${number(estimate.low)}, ${number(estimate.high)}]`;
  const verb = estimate.exact ? "reached" : "estimated";
  const policy = estimate.policy ? `, ${verb} by ${estimate.policy}` : "";
  return `${figures}${spread}${policy}`;
}

/** Whether anything rose in a run: other strategies choose by other rules. */
function hasRisen(run) {
  return head.runs[run].groups.some((group) => group.rose);
}

function decision(task, node) {
  if (!task.finished) return "this task is in progress";
  const before = node.parent >= 0 ? task.nodes[node.parent].estimate : null;
  if (node.rose) return `chosen: it rose${before ? ` above ${number(before.mean)}` : ""}`;
  if (node.committed)
    return hasRisen(task.entry.run)
      ? "chosen, though it did not rise: the best of its step, or the expert's"
      : "chosen";
  return node.parent < 0 ? "the start of the task" : "considered, not chosen";
}

/** What the environment said beside an observation, one field after the other. */
function infoLine(info) {
  const fields = Object.entries(JSON.parse(info)).map(([name, value]) => [
    el("b", {}, `${name}: `),
    typeof value === "string" ? value : JSON.stringify(value),
    " ",
  ]);
  return el("p", { class: "about info" }, ...fields.flat());
}

function turns(task, steps) {
  return steps.map((raw) => {
    const step = stepOf(task, raw);
    return [
      ...(step.thought ? [folded("thought", () => [message("thought", step.thought)])] : []),
      message(
        "agent",
        step.action,
        [
          step.invalid ? "(invalid)" : "",
          step.advantage === null ? "" : `advantage ${signed(step.advantage)}`,
        ]
          .filter(Boolean)
          .join(", "),
      ),
      message("environment", step.observation),
      step.info ? infoLine(step.info) : [],
    ].flat();
  });
}

/** A part that is drawn when it is first opened. */
function folded(title, content, open = false) {
  const details = el("details", { open }, el("summary", {}, title));
  const draw = () => details.childElementCount === 1 && details.append(...content().flat());
  if (open) draw();
  details.addEventListener("toggle", draw);
  return details;
}

function rolloutParts(task, rollouts, what) {
  return rollouts.map((rollout) =>
    folded(
      [
        `${what} ${rollout.number} → `,
        chip(rollout.reward, head.range),
        ` ${plural(rollout.steps.length, "step")}, ${rollout.stop.replace("_", " ")}`,
      ],
      () => [
        el("p", { class: "about" }, `${rollout.policy}; ${usageText(rollout.usage)}`),
        ...turns(task, rollout.steps),
      ],
    ),
  );
}

function nodeDetails(task, node) {
  const path = pathTo(task, node),
    step = node.step ? stepOf(task, node.step) : null;
  const history = () =>
    [
      task.opening.map(([role, i]) =>
        message(role === "user" ? "environment" : role, task.text(i)),
      ),
      path.slice(1, -1).map((above) => (above.step ? turns(task, [above.step]) : [])),
    ].flat();
  const pair = task.pairs.findIndex(({ chosen, rejected }) =>
    [chosen.node, rejected.node].includes(node.id),
  );
  const facts = {
    "process reward": estimateText(node.estimate),
    outcomes:
      node.estimate?.outcomes && !node.estimate.exact
        ? node.estimate.outcomes.map((outcome) => chip(outcome, head.range))
        : null,
    advantage: step === null || step.advantage === null ? null : signed(step.advantage, 4),
    decision: decision(task, node),
    ended: node.stop ? `${node.stop.replace("_", " ")}, outcome ${number(node.reward)}` : null,
    "written by": step
      ? [
          node.policy ?? step.source,
          step.tokens === null ? null : plural(step.tokens, "token"),
          step.invalid ? "an invalid action" : null,
        ]
          .filter((part) => part !== null)
          .join(", ")
      : null,
    cost: node.usage ? usageText(node.usage) : null,
    node: node.id,
  };
  return [
    el("h3", { tabindex: -1 }, step ? `Step ${depthOf(node)}, ${candidateName(node)}` : "Start"),
    el(
      "dl",
      {},
      Object.entries(facts)
        .filter(([, value]) => value !== null)
        .map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    ),
    pair >= 0
      ? el(
          "p",
          {},
          el("a", { href: address({ view: "pairs", pair }) }, "compare the pair side by side"),
        )
      : null,
    ...(step
      ? turns(task, [node.step]).flat()
      : task.opening.map(([role, i]) =>
          message(role === "user" ? "environment" : role, task.text(i)),
        )),
    step ? folded("history before this step", history) : null,
    ...rolloutParts(task, node.rollouts, "rollout"),
    ...rolloutParts(task, step ? (node.episodes ?? []) : task.episodes, "episode"),
  ].filter(Boolean);
}

/** Process reward along the chosen path, with every candidate that was drawn. */
function pathChart(task, chosen) {
  const width = Math.min(Math.max(chartWidth(), 280), 620),
    height = 150,
    bottom = height - 24,
    [low, high] = head.range;
  const deepest = Math.max(...task.nodes.map(depthOf), 1);
  const x = (step) => 36 + (step / deepest) * (width - 60),
    y = (value) =>
      bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * (bottom - 12);
  const path = task.nodes.filter((node) => (node.committed || node.parent < 0) && node.estimate);
  const grid = ticks(low, high, 3).map(({ at, text }) => [
    svg("line", { class: "grid", x1: 36, x2: width - 20, y1: y(at), y2: y(at) }),
    svg("text", { x: 30, y: y(at) + 4, "text-anchor": "end" }, text),
  ]);
  const steps = Array.from({ length: deepest + 1 }, (_, step) =>
    svg("text", { x: x(step), y: height - 6, "text-anchor": "middle" }, step || "start"),
  );
  const dots = task.nodes
    .filter((node) => node.estimate)
    .map((node) => {
      const dot = svg("circle", {
        cx: x(depthOf(node)),
        cy: y(node.estimate.mean),
        r: node.committed || node.parent < 0 ? 6 : 4,
        class: node.id === chosen ? "here" : node.committed ? "" : "side",
      });
      dot.style.fill = colours(node.estimate.mean, head.range).background;
      return dot;
    });
  const line = svg("path", {
    class: "path",
    d: path
      .map((node, i) => `${i ? "L" : "M"}${x(depthOf(node))} ${y(node.estimate.mean)}`)
      .join(""),
  });
  return svg(
    "svg",
    {
      class: "along",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": "Process reward along the chosen path; the tree below has the same numbers",
    },
    grid,
    steps,
    line,
    dots,
  );
}
