// Navigation (the part of the address after #), keys, and drawing.

const VIEWS = {
  overview: "Overview",
  training: "Training",
  trees: "Trees",
  pairs: "Pairs",
  episodes: "Episodes",
};
// views without a list of tasks, and what draws them
const PAGES = { overview: () => showOverview(main), training: () => showTraining(main) };
const POLL = 3000; // milliseconds between requests to `rro view`; longer where it answers slowly
const NONCE = document.currentScript.nonce;
let head = null; // the overview and the list of tasks, see rro.report.gather
let place = { view: "overview" }; // the parsed address
let opened = null; // the task that is displayed
const main = document.getElementById("main");

/** The current address with some of its parameters changed. */
function address(changes) {
  const next = { ...place, ...changes };
  return (
    "#" +
    new URLSearchParams(
      Object.entries(next).filter(
        ([, value]) => value !== undefined && value !== null && value !== "",
      ),
    )
  );
}

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  place = {
    ...given,
    view: given.view in VIEWS ? given.view : given.task !== undefined ? "trees" : "overview",
  };
}

function entryHere() {
  const fits = (entry) =>
    entry.id === place.task &&
    (place.run === undefined || entry.run === Number(place.run)) &&
    (place.group === undefined || entry.group === place.group);
  return head.tasks.find(fits) ?? null;
}

function go(changes) {
  location.hash = address(changes);
}

function goTo(entry) {
  go({ run: entry.run, group: entry.group, task: entry.id, node: undefined, pair: undefined });
}

/** The page of a table of results has one view. */
function drawResults() {
  const name = head.results.name;
  document.getElementById("title").textContent = name;
  document.title = `${name} · rro`;
  document.getElementById("status").textContent = `made ${head.made.slice(0, 16)} by rro ${head.rro}`;
  main.replaceChildren();
  main.className = "overview";
  showResults(main);
}

/** Draw the current address; keeps the list's scroll position, focus, and half-typed filters. */
async function draw() {
  if (head.results) return drawResults();
  readAddress();
  document
    .getElementById("views")
    .replaceChildren(
      ...Object.entries(VIEWS).map(([view, name]) =>
        el(
          "a",
          { href: address({ view }), "aria-current": place.view === view ? "page" : null },
          name,
        ),
      ),
    );
  document.getElementById("title").textContent = head.runs.map((run) => run.name).join(", ");
  document.title = `${head.runs.map((run) => run.name).join(", ")} · rro`;
  document.getElementById("status").textContent = head.live
    ? `${plural(
        head.runs.reduce(
          (sum, run) => sum + run.groups.reduce((all, group) => all + group.candidates, 0),
          0,
        ),
        "candidate",
      )} so far, at ${head.made.slice(11)}`
    : `made ${head.made.slice(0, 16)} by rro ${head.rro}`;
  if (place.view in PAGES) {
    main.replaceChildren();
    main.className = "overview";
    return PAGES[place.view]();
  }
  const episodes = place.view === "episodes",
    kind = episodes ? "browser episodes" : "browser";
  if (main.className !== kind) {
    main.replaceChildren(
      el(
        "aside",
        { id: "side", "aria-label": "Tasks" },
        episodes ? playedForm(() => drawEpisodes().catch(complain)) : filterForm(filterChanged),
        el("div", { id: "list" }),
      ),
      el("div", { id: "work" }),
    );
    main.className = kind;
  }
  if (episodes) return drawEpisodes();
  drawList(place.task !== opened?.entry.id);
  await drawTask();
}

function drawList(follow = false) {
  const list = document.getElementById("list"),
    scroll = list.scrollTop;
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren(taskList(fitting(), entryHere(), goTo));
  list.scrollTop = scroll;
  const current = list.querySelector("[aria-current]"),
    top = current ? current.offsetTop : 0;
  if (
    follow &&
    current &&
    (top < scroll || top + current.offsetHeight > scroll + list.clientHeight)
  )
    list.scrollTop = top - list.clientHeight / 3;
  list.querySelectorAll("button")[focused]?.focus();
}

let waiting = 0;
function filterChanged(name) {
  drawList();
  if (opened && place.view === "trees") drawTask();
  if (name !== "text") return;
  searched = null;
  clearTimeout(waiting);
  waiting = setTimeout(() => searchMessages(() => drawList()).catch(complain), 300);
}

async function drawTask() {
  const entry = entryHere() ?? fitting()[0] ?? null,
    work = document.getElementById("work");
  if (!entry) {
    opened = null;
    work.replaceChildren(
      el(
        "p",
        { class: "empty" },
        head.tasks.length ? "No task fits the filter." : "No task has been explored yet.",
      ),
    );
    return;
  }
  const view = place.view,
    task =
      opened?.entry.chunk === entry.chunk && opened.entry.place === entry.place
        ? opened
        : await openTask(entry);
  // the reader may have navigated away meanwhile
  if (place.view !== view || (entryHere() ?? entry) !== entry) return;
  opened = task;
  const title = el(
    "header",
    { class: "title" },
    el("h2", {}, entry.id),
    el(
      "p",
      { class: "about" },
      [
        head.runs[entry.run].name,
        groupName(head.runs[entry.run], { name: entry.group }),
        task.strategy,
        task.finished ? null : "in progress",
        task.cut ? "cut short by the budget" : null,
        usageText(task.usage),
      ]
        .filter(Boolean)
        .join("; "),
    ),
  );
  if (view === "pairs") return work.replaceChildren(title, ...pairParts(task));
  const node = task.nodes.find((one) => one.id === place.node) ?? task.nodes[0];
  const wasIn = document.activeElement?.closest?.("[role=tree]");
  const details = el(
    "div",
    { class: "details", id: "details", "aria-label": "Details of the node", role: "region" },
    nodeDetails(task, node),
  );
  const choose = (id) => {
    history.replaceState(
      null,
      "",
      address({ run: entry.run, group: entry.group, task: entry.id, node: id }),
    );
    readAddress();
    details.replaceChildren(
      ...nodeDetails(
        task,
        task.nodes.find((one) => one.id === id),
      ),
    );
    work.querySelector(".along").replaceWith(pathChart(task, id));
  };
  const tree = treeView(task, node.id, choose);
  work.replaceChildren(
    title,
    el(
      "div",
      { class: "split" },
      el("div", { class: "left" }, pathChart(task, node.id), tree),
      details,
    ),
  );
  if (wasIn) tree.querySelector("[tabindex='0']").focus();
}

function pairParts(task) {
  if (!task.pairs.length)
    return [
      el(
        "p",
        { class: "empty" },
        head.tasks.some((entry) => entry.run === task.entry.run && entry.pairs)
          ? "This task has no pair: no candidate was worse than a chosen one."
          : "This run has no pairs: it learns from something else than comparisons.",
      ),
    ];
  const chosen = Math.min(Number(place.pair) || 0, task.pairs.length - 1);
  return [pairList(task, chosen), ...pairView(task, task.pairs[chosen])];
}

/** "/" searches; "n" and "p" go to the next and the previous task. */
function keys(event) {
  if (
    event.target.closest("input, select, textarea") ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey
  )
    return;
  if (event.key === "/" && !(place.view in PAGES)) {
    event.preventDefault();
    document.getElementById("filter-text").focus();
  } else if ((event.key === "n" || event.key === "p") && !(place.view in PAGES)) {
    const buttons = [...document.querySelectorAll("#list button")],
      // without an address the first task is shown
      at = Math.max(
        buttons.findIndex((button) => button.hasAttribute("aria-current")),
        0,
      );
    buttons[Math.min(Math.max(at + (event.key === "n" ? 1 : -1), 0), buttons.length - 1)]?.click();
  }
}

function complain(error) {
  document.getElementById("status").textContent = `Cannot show this: ${error.message}`;
  console.error(error);
}

/** Ask `rro view` for new records. */
async function poll() {
  const asked = performance.now();
  try {
    const answer = await fetch(`head?seen=${head.records}`);
    if (answer.status === 200) {
      head = await unpack(await answer.text());
      await draw();
    }
  } catch (error) {
    document.getElementById("status").textContent = "rro view has ended; this is its last state";
  }
  setTimeout(poll, Math.max(POLL, 10 * (performance.now() - asked)));
}

async function start() {
  head = await unpack(
    document.getElementById("head")?.textContent ?? (await (await fetch("head")).text()),
  );
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
  document.getElementById("skip").addEventListener("click", () => main.focus());
  addEventListener("hashchange", () => draw().catch(complain));
  addEventListener("keydown", keys);
  let width = innerWidth;
  addEventListener(
    "resize",
    () => innerWidth !== width && ((width = innerWidth), draw().catch(complain)),
  );
  await draw();
  if (head.live) setTimeout(poll, POLL);
}

start().catch(complain);
