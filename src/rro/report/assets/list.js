// The list of tasks and its filters, which the trees and the pairs share.

const MOST_LISTED = 600;
const filter = { text: "", group: "", step: "", low: "", high: "", pairs: false };
let searched = null; // tasks whose messages contain the text; null while messages are not searched

function groupOf(entry) {
  return `${entry.run}/${entry.group}`;
}

/** Whether a node (depth, process reward, side of a pair) passes the filters. */
function nodeFits(depth, reward, paired) {
  if (filter.step !== "" && depth !== Number(filter.step)) return false;
  if (filter.low !== "" && !(reward !== null && reward >= Number(filter.low))) return false;
  if (filter.high !== "" && !(reward !== null && reward <= Number(filter.high))) return false;
  return !(filter.pairs && !paired);
}

function isFiltered() {
  return filter.step !== "" || filter.low !== "" || filter.high !== "" || filter.pairs;
}

/** Whether a task's name or instruction has the text. */
function isNamed(entry, text) {
  return [entry.id, entry.text].some((own) => own.toLowerCase().includes(text.toLowerCase()));
}

function taskFits(entry) {
  if (filter.group && groupOf(entry) !== filter.group) return false;
  if (!isNamed(entry, filter.text) && !searched?.has(entry)) return false;
  if (!isFiltered()) return true;
  for (let i = 0; i < entry.nodes.length; i += 3) {
    const thousandths = entry.nodes[i + 1];
    if (
      nodeFits(
        entry.nodes[i],
        thousandths === null ? null : thousandths / 1000,
        entry.nodes[i + 2] === 1,
      )
    )
      return true;
  }
  return false;
}

function fitting() {
  return head.tasks.filter((entry) => taskFits(entry) && (place.view !== "pairs" || entry.pairs));
}

/** The fields; `changed` is called once their values are in `filter`. */
function filterForm(changed) {
  const field = (label, control) => el("label", {}, el("span", {}, label), control);
  const bound = (name, attributes) =>
    el("input", {
      ...attributes,
      id: `filter-${name}`,
      value: filter[name],
      oninput: (event) => ((filter[name] = event.target.value), changed(name)),
    });
  const groups = [
    ...new Map(
      head.runs.flatMap((run, i) =>
        run.groups.map((group) => [`${i}/${group.name}`, groupName(run, group)]),
      ),
    ),
  ];
  const select = el(
    "select",
    {
      id: "filter-group",
      onchange: (event) => ((filter.group = event.target.value), changed("group")),
    },
    el("option", { value: "" }, "all"),
    groups.map(([value, label]) =>
      el("option", { value, selected: value === filter.group }, label),
    ),
  );
  const pairs = el("input", {
    type: "checkbox",
    id: "filter-pairs",
    onchange: (event) => ((filter.pairs = event.target.checked), changed("pairs")),
  });
  pairs.checked = filter.pairs;
  return el(
    "form",
    {
      class: "filter",
      role: "search",
      "aria-label": "Filter the tasks",
      onsubmit: (event) => event.preventDefault(),
    },
    field("search", bound("text", { type: "search", placeholder: "task or message text" })),
    groups.length > 1 ? field("explored in", select) : null,
    el(
      "div",
      { class: "row" },
      field("step", bound("step", { type: "number", min: 0, step: 1, placeholder: "any" })),
      field("reward ≥", bound("low", { type: "number", step: "any" })),
      field("reward ≤", bound("high", { type: "number", step: "any" })),
    ),
    el("label", { class: "check" }, pairs, el("span", {}, "pairs only")),
  );
}

/** Search all messages of all tasks, a chunk at a time, then call `changed`. */
async function searchMessages(changed) {
  const text = filter.text.toLowerCase();
  searched = text.length > 2 ? new Set() : null;
  const found = searched;
  for (const entry of found ? head.tasks : []) {
    const task = await openTask(entry);
    if (found !== searched) return; // another search has begun
    for (const message of textsOf(task)) {
      if (message.toLowerCase().includes(text)) {
        found.add(entry);
        break;
      }
    }
  }
  changed();
}

/** The tasks of a list, as buttons whose content `about` gives, below how many of `all` they are. */
function buttons(entries, all, chosen, choose, about) {
  const items = entries.slice(0, MOST_LISTED).map((entry) =>
    el(
      "li",
      {},
      el(
        "button",
        {
          class: "task",
          "aria-current": entry === chosen ? "true" : null,
          onclick: () => choose(entry),
        },
        el("span", { class: "name" }, entry.id),
        about(entry),
      ),
    ),
  );
  const more = entries.length - MOST_LISTED;
  return el(
    "div",
    { class: "tasks" },
    el(
      "p",
      { class: "count", role: "status" },
      `${plural(entries.length, "task")} of ${all.length}`,
    ),
    el("ul", {}, items),
    more > 0 ? el("p", { class: "empty" }, `${more} more: narrow the search`) : null,
  );
}

function taskList(entries, chosen, choose) {
  return buttons(entries, head.tasks, chosen, choose, (entry) => {
    const last = entry.line.at(-1) ?? entry.start;
    const about = [
      entry.finished ? null : "in progress",
      entry.pairs ? plural(entry.pairs, "pair") : null,
      `${number(entry.calls)} calls`,
    ]
      .filter(Boolean)
      .join(", ");
    return [
      chip(last, head.range),
      el("span", { class: "about" }, about),
      spark([entry.start, ...entry.line], head.range),
    ];
  });
}
