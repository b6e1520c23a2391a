"""The report in a real browser: Debian's Chromium through Playwright, from disk and from `rro
view`."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fakes import TreeBenchmark, explore, make_context
from report_toys import (
    HOSTILE,
    TREE,
    Long,
    Wordy,
    hostile_trees,
    make_rounds,
    make_run,
    speaker,
)

from rro.exploration.strategies.rising import RisingExploration
from rro.policies.scripted import ScriptedPolicy
from rro.report import page as pages
from rro.report.gather import Gatherer
from rro.report.results_page import results_head
from rro.report.viewer import make_server
from rro.runs.journal import Journal

pytestmark = pytest.mark.slow
TASKS = 500


def elsewhere(function, *arguments, **options):
    """In a thread of its own: Playwright has this one's event loop."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *arguments, **options).result()


def written(file, trees, name="run", **options):
    """The report of a new run."""
    run = elsewhere(make_run, file.parent / name, trees, **options)
    with Gatherer([run.path]) as gatherer:
        return pages.write_report(*gatherer.whole(), file)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    chromium = os.environ.get("RRO_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium (apt-get install chromium, or set RRO_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a file or address; at the end nothing must have gone wrong, and nothing may have been
    asked of a network."""
    wrong, contexts = [], []

    def opened(target, ready="nav a", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                wrong.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        address = target if isinstance(target, str) else f"file://{target}"
        home = address.split("#")[0] if address.startswith("file") else address
        page.on(
            "request",
            lambda request: None if _belongs(request.url, home) else wrong.append(request.url),
        )
        page.goto(address)
        page.wait_for_selector(ready)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def _belongs(url, home):
    return url.startswith((home.rpartition("/")[0], "data:,"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return written(
        tmp_path_factory.mktemp("toy") / "report.html",
        {f"task/{number}": TREE for number in range(20)},
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    trees = {f"task/{number}": TREE for number in range(TASKS)}
    strategy = RisingExploration(2, 2)
    return written(
        tmp_path_factory.mktemp("many") / "report.html", trees, environment=Long, strategy=strategy
    )


def rows(page):
    return page.get_by_role("treeitem")


def tasks(page):
    return page.locator("button.task")


def test_the_overview_has_every_figure(open_page, toy):
    page = open_page(toy)
    headings = page.locator("figure h3").all_text_contents()
    assert headings == [
        "Reward before and after",
        "Steps, invalid actions, cut-off episodes",
        "Gain over the first policy",
        "From tasks to pairs: iteration 1",
        "Candidates per step",
        "Rising steps by stage",
        "Process reward along the trajectory",
        "What exploration cost so far",
    ]
    page.get_by_text("numbers").first.click()
    assert page.locator("figure table").first.is_visible()


def test_rounds_are_curves_and_nodes_show_their_advantage(open_page, tmp_path):
    run = elsewhere(make_rounds, tmp_path / "run", {f"task/{number}": TREE for number in range(4)})
    with Gatherer([run.path]) as gatherer:
        report = pages.write_report(*gatherer.whole(), tmp_path / "report.html")
    page = open_page(report)
    headings = page.locator("figure h3").all_text_contents()
    assert headings[3:7] == ["Reward by round", "Loss", "Entropy", "Clipped share of tokens"]
    # whole episodes: no pairs, no candidates of steps, nothing that rises
    assert headings[7:] == [
        "From tasks to rollouts: iteration 1",
        "From tasks to rollouts: iteration 4",
        "What exploration cost so far",
    ]
    assert "pair" not in page.locator("main").text_content()
    assert "1 round taught nothing" in page.locator("figure", has_text="Entropy").text_content()
    ticks = page.locator("figure", has_text="Clipped share").locator("svg text").all_text_contents()
    assert len(set(ticks)) == len(ticks), "small figures are not all rounded to 0"
    page.get_by_role("link", name="Trees").click()
    badge = page.locator(".badge.credit")
    for task in tasks(page).all():
        task.click()
        page.wait_for_selector("[role=treeitem]")
        if badge.count():
            break
    badge.first.click()
    assert badge.first.text_content().removeprefix("A ") in page.locator("#details").text_content()


def test_a_task_opens_as_a_tree_and_a_node_shows_what_was_said(open_page, toy):
    page = open_page(toy)
    page.get_by_role("link", name="Trees").click()
    assert tasks(page).count() == 20
    tasks(page).nth(3).click()
    assert (
        page.locator("#work h2").first.text_content()
        == tasks(page).nth(3).locator(".name").text_content()
    )
    assert rows(page).count() > 3
    rows(page).nth(1).click()
    details = page.locator("#details")
    assert details.locator("h3").text_content().startswith("Step 1, candidate")
    assert "process reward" in details.text_content()
    assert details.locator(".message.agent pre").first.text_content() in ("a", "b", "c")
    assert page.locator("[role=treeitem][aria-selected=true]").count() == 1


class Telling(Wordy):
    """Says more than the agent sees."""

    def step(self, action):
        info = {"moves": len(self.path), "found": HOSTILE[0], "seen": ["a", 1]}
        return replace(super().step(action), info=info)


def test_what_the_agent_does_not_see_stands_below_the_observation(open_page, tmp_path):
    page = open_page(written(tmp_path / "report.html", {"task/1": TREE}, environment=Telling))
    page.goto(f"file://{tmp_path / 'report.html'}#task=task%2F1&node=0.0")
    said = page.locator("#details .info").first
    said.wait_for()
    shown = f'moves: 0 found: {HOSTILE[0]} seen: ["a",1] '
    assert said.text_content() == shown
    page.goto(f"file://{tmp_path / 'report.html'}#task=task%2F1&node=0")
    assert page.locator("#details > .info").count() == 0


def test_rollouts_are_folded_and_open(open_page, toy):
    page = open_page(f"file://{toy}#view=trees")
    rollout = page.locator("#details details").filter(has_text="rollout 0")
    assert rollout.locator(".message").count() == 0
    rollout.locator("summary").click()
    rollout.locator(".message.agent").first.wait_for()
    assert rollout.locator(".message").count() >= 2


def test_the_filter_narrows_the_list(open_page, toy):
    page = open_page(f"file://{toy}#view=trees")
    page.get_by_label("search").fill("task/1")
    assert tasks(page).count() == 11  # 1 and 10 to 19
    page.get_by_label("search").fill("")
    page.get_by_label("reward ≥").fill("0.9")
    high = tasks(page).count()
    page.get_by_label("reward ≥").fill("")
    page.get_by_label("pairs only").check()
    paired = tasks(page).count()
    page.get_by_label("step", exact=True).fill("9")
    assert 0 < high < 20
    assert 0 < paired <= 20
    assert tasks(page).count() == 0


def test_the_search_finds_what_stands_in_messages_alone(open_page, many):
    page = open_page(f"file://{many}#view=trees")
    text = page.locator("#details .message pre").last.text_content()[
        300:360
    ]  # the list has the first 240 characters
    page.get_by_label("search").fill(text)
    page.wait_for_function("() => document.querySelectorAll('button.task').length === 1")


def test_a_filter_dims_what_does_not_fit(open_page, toy):
    page = open_page(f"file://{toy}#view=trees")
    page.get_by_label("step", exact=True).fill("1")
    page.wait_for_selector(".node.dim")
    assert "dim" in rows(page).first.get_attribute("class")


def test_the_tree_is_walked_by_keys(open_page, toy):
    page = open_page(f"file://{toy}#view=trees")
    rows(page).first.focus()
    selected = page.locator("[role=treeitem][aria-selected=true]")

    def press(key):
        page.keyboard.press(key)
        assert selected.count() == 1
        assert selected.evaluate("element => element === document.activeElement")
        return selected.get_attribute("data-node")

    all_rows = rows(page).count()
    assert press("ArrowDown") != "0"
    assert press("Home") == "0"
    assert press("End") == rows(page).last.get_attribute("data-node")
    press("Home")
    assert press("ArrowLeft") == "0"
    assert page.locator("[role=treeitem]:visible").count() == 1  # folded
    assert press("ArrowRight") == "0"
    assert page.locator("[role=treeitem]:visible").count() == all_rows
    assert press("ArrowRight").startswith("0.")
    assert press("ArrowLeft") == "0"
    first = page.locator("#work h2").first.text_content()
    page.keyboard.press("n")
    page.wait_for_function(
        "title => document.querySelector('#work h2').textContent !== title", arg=first
    )
    page.keyboard.press("p")
    page.wait_for_function(
        "title => document.querySelector('#work h2').textContent === title", arg=first
    )
    page.keyboard.press("/")
    assert page.get_by_label("search").evaluate("element => element === document.activeElement")


def test_everything_can_be_reached_with_the_tab_key(open_page, toy):
    page = open_page(f"file://{toy}#view=trees")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "theme", "filter-text", "filter-pairs", "task"} <= seen
    assert any("node" in name for name in seen)


def test_an_address_leads_to_a_node(open_page, toy):
    page = open_page(f"file://{toy}#task=task%2F7&node=0.0")
    assert page.locator("#work h2").first.text_content() == "task/7"
    assert page.locator("[aria-selected=true]").get_attribute("data-node") == "0.0"
    rows(page).last.click()
    again = open_page(page.url)
    assert again.locator("[aria-selected=true]").get_attribute("data-node") == rows(
        page
    ).last.get_attribute("data-node")


def test_a_pair_is_shown_side_by_side_with_its_difference(open_page, toy):
    page = open_page(f"file://{toy}#view=pairs")
    chosen, rejected = page.locator(".side.chosen"), page.locator(".side.rejected")
    assert float(chosen.locator(".chip").text_content()) > float(
        rejected.locator(".chip").text_content()
    )
    for side in (chosen, rejected):
        assert (
            side.locator("mark").text_content() == side.locator("pre").text_content()
        )  # one letter each
    chosen.get_by_role("link", name="show in the tree").click()
    page.wait_for_selector("[role=tree]")
    assert "+ pair" in page.locator("[aria-selected=true]").text_content()
    page.get_by_role("link", name="compare the pair").click()
    page.wait_for_selector(".sides")


def test_episodes_of_two_policies_stand_side_by_side(open_page, toy):
    page = open_page(toy)
    page.get_by_role("link", name="Episodes").click()
    page.wait_for_selector(".plays")
    assert tasks(page).count() == 20
    left, right = (page.get_by_label(f"episode on the {side}") for side in ("left", "right"))
    assert (left.input_value(), right.input_value()) == ("sft sampled 0", "rro-1 sampled 0")
    for task in tasks(page).all():
        task.click()
        name = task.locator(".name").text_content()
        page.wait_for_function(
            "name => document.querySelector('#work h2').textContent === name", arg=name
        )
        actions = page.locator(".plays .turn").all()
        said = [turn.locator(".agent pre").all_text_contents() for turn in actions]
        for turn, ours, other in zip(actions[::2], said[::2], said[1::2], strict=True):
            differs = "differs" in turn.get_attribute("class")
            # nothing to mark where an episode has ended
            assert differs == (bool(ours) and ours != other)
    right.select_option("sft sampled 0")
    page.wait_for_function("() => !document.querySelector('.turn.differs')")
    assert "right=sft" in page.url
    assert open_page(page.url).locator(".turn.differs").count() == 0
    page.get_by_label("from the first policy to the last").select_option("better")
    better = tasks(page)
    assert 0 < better.count() < 20
    for task in better.all():
        before, after = map(float, task.locator(".chip").all_text_contents())
        assert after > before


def test_training_has_a_curve_for_what_was_logged(open_page, tmp_path):
    run = elsewhere(make_run, tmp_path / "run", {"task/0": TREE})
    records = [
        {"iteration": 1, "stage": "dpo", "step": step, "loss": 1 / step, "learning_rate": 1e-4}
        | {"logps/chosen": -step, "logps/rejected": -2 * step, "own_figure": step}
        for step in (1, 2, 3)
    ]
    run.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with Gatherer([run.path]) as gatherer:
        report = pages.write_report(*gatherer.whole(), tmp_path / "report.html")
    page = open_page(f"file://{report}#view=training")
    assert page.locator("figure h3").all_text_contents() == [
        "Loss",
        "Learning rate",
        "Log-probabilities",
        "own figure",
    ]
    chart = page.locator("figure", has_text="Log-probabilities")
    assert chart.locator(".legend span").all_text_contents() == [" logps/chosen", " logps/rejected"]
    chart.get_by_text("numbers").click()
    assert "-6" in chart.locator("table").text_content()


def test_a_table_of_results_is_a_page(open_page, tmp_path):
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 20}
    row = {"environment": "shop", "policy": "last", "seeds": 2, "sampled_reward": interval}
    curve = {"seed": 1, "played": [[0, 0.3], [900, 0.4]], "evaluated": [[0, "sampled", 0.3]]}
    methods = ("pairs", HOSTILE[1])
    table = {
        "plan": {"methods": dict.fromkeys(methods)},
        "settings": {f"shop {name}": [HOSTILE[0]] for name in methods},
        "missing": [HOSTILE[7]],
        "rows": [{**row, "method": name, "seconds": 3.5} for name in methods],
        "curves": {"shop": {name: [curve] for name in methods}},
    }
    file = tmp_path / "results.json"
    file.write_text(json.dumps(table))
    report = pages.write_report(results_head(file), [], tmp_path / "results.html")
    page = open_page(report, ready="figure")
    headings = page.locator("figure h3").all_text_contents()
    assert headings == ["sampled reward", "Reward while exploring", "Table", "What learning cost"]
    assert HOSTILE[1] in page.locator("main").text_content()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("window.owned") is None
    assert page.locator("img, [onload], [onerror]").count() == 0
    narrow = open_page(report, ready="figure", viewport={"width": 320, "height": 640})
    assert narrow.evaluate("document.documentElement.scrollWidth") == 320


def test_words_that_differ_are_marked_and_others_are_not(open_page, toy):
    page = open_page(toy)
    compared = page.evaluate("compare('so I choose the red tent', 'so I buy the red one tent')")
    assert compared == [
        [["so I ", False], ["choose", True], [" the red tent", False]],
        [["so I ", False], ["buy", True], [" the red", False], [" one", True], [" tent", False]],
    ]
    long = page.evaluate(
        "compare('a '.repeat(4000) + 'x', 'b '.repeat(4000) + 'x').map((side) => side.length)"
    )
    assert long == [2, 2]  # too much to compare word by word: everything between what is common


def test_hostile_text_stays_text(open_page, tmp_path):
    page = open_page(
        written(tmp_path / "report.html", hostile_trees(), name=HOSTILE[1].replace("/", "_"))
    )
    page.get_by_role("link", name="Trees").click()
    for number in range(len(HOSTILE)):
        tasks(page).nth(number).click()
        for row in rows(page).all():
            row.click()
        for summary in page.locator("#details summary").all():
            summary.click()
    page.get_by_role("link", name="Pairs").click()
    for task in tasks(page).all():
        task.click()
        page.wait_for_selector(".sides")
    page.get_by_role("link", name="Episodes").click()
    page.wait_for_selector(".plays")
    for task in tasks(page).all():
        task.click()
        page.wait_for_selector(".plays")
    page.get_by_role("link", name="Trees").click()
    said = "".join(page.locator("button.task .name").all_text_contents())
    assert all(text.partition("\x00")[0] in said for text in HOSTILE)
    assert page.evaluate("window.owned") is None
    assert page.locator("img, iframe, object, embed, svg svg, [onload], [onerror]").count() == 0
    assert page.locator("a[href^='javascript:']").count() == 0


def test_an_injected_script_would_be_refused(browser, toy):
    """What the policy is for: even if something became an element, it would not run."""
    page = browser.new_page()
    page.goto(f"file://{toy}")
    page.wait_for_selector("nav a")
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.owned = 1";
          document.body.append(script);
          const image = "<img src=x onerror='window.owned = 1'>";
          document.body.insertAdjacentHTML("beforeend", image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    page.close()


def test_500_tasks_open_in_two_seconds(open_page, many):
    begun = time.perf_counter()
    page = open_page(f"file://{many}#view=trees")
    page.wait_for_selector("[role=treeitem]")
    elapsed = time.perf_counter() - begun
    assert tasks(page).count() == TASKS
    assert elapsed < 2 * float(os.environ.get("RRO_SLOW_MACHINE", "3")), (
        elapsed
    )  # 2 s on a machine that is idle


@pytest.mark.parametrize("view", ["overview", "trees", "pairs", "episodes"])
def test_a_narrow_screen_has_nothing_beyond_its_edge(open_page, many, view):
    page = open_page(f"file://{many}#view={view}", viewport={"width": 320, "height": 640})
    ready = {"trees": "[role=tree]", "pairs": ".sides", "episodes": ".plays"}
    page.wait_for_selector(ready.get(view, "figure"))
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    chart = page.locator("figure > svg").first
    if view == "overview":
        assert chart.bounding_box()["width"] <= 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(open_page, toy, scheme):
    """Contrast of at least 4.5 (WCAG AA) for every text on the page, in both schemes."""
    for view in ("overview", "trees", "pairs", "episodes"):
        page = open_page(f"file://{toy}#view={view}", color_scheme=scheme)
        page.wait_for_selector("figure, [role=tree], .sides, .plays")
        assert page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => { const [r, g, b] = rgb.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (element) => { for (; element; element = element.parentElement) {
    const [r, g, b, alpha = 1] = parts(getComputedStyle(element).backgroundColor);
    if (alpha) return [r, g, b]; }
    return [255, 255, 255]; };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(script):not(noscript)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".dim, svg")) continue;
    const text = light(parts(getComputedStyle(element).color).slice(0, 3));
    const [a, b] = [text, light(ground(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push([element.className, element.textContent.slice(0, 40), contrast]);
  }
  return found;
}"""


def test_the_scheme_can_be_switched(open_page, toy):
    page = open_page(toy)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_role("button", name="Switch between dark and light").click()
    assert page.evaluate(ground) != before


def test_a_folder_opens_from_disk(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_BYTES", 1000)
    monkeypatch.setattr("rro.report.pack.CHUNK_CHARACTERS", 20)
    index = written(tmp_path / "report.html", {f"task/{number}": TREE for number in range(60)})
    assert index.name == "index.html"
    page = open_page(f"file://{index}#view=trees")
    for number in (3, 50, 3):
        tasks(page).nth(number).click()
        name = tasks(page).nth(number).locator(".name").text_content()
        page.wait_for_function(
            "name => document.querySelector('#work h2').textContent === name", arg=name
        )
        assert rows(page).count() > 1


def test_a_run_is_watched_while_it_goes_on(open_page, tmp_path):
    (tmp_path / "config.toml").write_text('name = "live"\n')
    benchmark = TreeBenchmark({f"task/{number}": TREE for number in range(6)})
    with Gatherer([tmp_path]) as gatherer:
        server = make_server(gatherer)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            page = open_page(f"http://127.0.0.1:{server.server_port}/#view=trees")
            assert "No task has been explored yet" in page.locator("#work").text_content()
            with Journal(tmp_path / "journal.jsonl") as journal:
                for iteration in (1, 2):
                    context = make_context(
                        benchmark, ScriptedPolicy(speaker, "p"), journal, iteration=iteration
                    )
                    elsewhere(explore, RisingExploration(2, 2), context)
                    page.wait_for_function(
                        f"() => document.querySelectorAll('button.task').length === {6 * iteration}"
                    )
            tasks(page).nth(7).click()
            page.wait_for_selector("[role=tree]")
            assert "iteration 2" in page.locator("#work .title").text_content()
            page.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
