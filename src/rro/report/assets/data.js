// Data comes from the page itself, from script files beside it (a page on disk may not fetch), or
// from `rro view`.

const chunks = new Map(); // name -> promise of {strings, tasks}
const MOST_CHUNKS = 40; // decoded chunks in memory
const arriving = new Map(); // name -> callback for its text

/** Called by the files of a report that is a folder. */
function rroChunk(name, text) {
  arriving.get(name)?.(text);
  arriving.delete(name);
}

/** Decode what rro.report.pack wrote. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

function chunkText(name) {
  const inPage = document.getElementById(`chunk-${name}`);
  if (inPage) return Promise.resolve(inPage.textContent);
  if (head.live)
    return fetch(`chunk/${name}`).then((answer) =>
      answer.ok ? answer.text() : Promise.reject(Error(answer.statusText)),
    );
  return new Promise((resolve, reject) => {
    arriving.set(name, resolve);
    const script = el("script", {
      src: `data/chunk-${name}.js`,
      onerror: () => reject(Error(`data/chunk-${name}.js is missing`)),
    });
    script.nonce = NONCE;
    document.head.append(script);
  });
}

/** The data of a listed task: its tree, and `text(i)` for its texts. */
async function openTask(entry) {
  if (!chunks.has(entry.chunk)) {
    if (chunks.size >= MOST_CHUNKS) chunks.delete(chunks.keys().next().value);
    chunks.set(entry.chunk, chunkText(entry.chunk).then(unpack));
  }
  const name = entry.chunk;
  try {
    const chunk = await chunks.get(name);
    return { ...chunk.tasks[entry.place], entry, text: (i) => chunk.strings[i] };
  } catch (error) {
    chunks.delete(name);
    throw error;
  }
}

/** A stored step with named fields. */
function stepOf(
  task,
  [action, observation, invalid, source, tokens, advantage, thought, info],
) {
  return {
    action: task.text(action),
    observation: task.text(observation),
    invalid: Boolean(invalid),
    source,
    tokens,
    advantage,
    thought: thought === null ? "" : task.text(thought),
    info: info === null ? "" : task.text(info),
  };
}

/** Every text of a task, one after the other, for the search. */
function* textsOf(task) {
  const steps = [
    ...task.nodes.flatMap((node) => [
      node.step,
      ...[...node.rollouts, ...(node.episodes ?? [])].flatMap((rollout) => rollout.steps),
    ]),
  ];
  for (const [, i] of task.opening) yield task.text(i);
  for (const step of [...steps, ...task.episodes.flatMap((episode) => episode.steps)]) {
    if (step)
      yield* [step[0], step[1], ...step.slice(6)]
        .filter((i) => i !== null)
        .map((i) => task.text(i));
  }
}

function usageText(usage) {
  const of = Object.fromEntries(head.usage.map((name, i) => [name, usage[i]]));
  const parts = [
    plural(of.policy_calls, "policy call"),
    `${number(of.generated_tokens)} tokens generated`,
    `${number(of.prompt_tokens)} of prompts` +
      (of.cached_tokens ? ` (${percent(of.cached_tokens, of.prompt_tokens)} cached)` : ""),
    plural(of.environment_steps, "environment step"),
  ];
  return parts.join(", ") + (of.cost ? `, cost ${number(of.cost)}` : "");
}
