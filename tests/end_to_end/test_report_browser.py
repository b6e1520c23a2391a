"""The report of one toy run in a real browser: what its pages show, how they are walked, and that
nothing foreign runs in them."""

from __future__ import annotations

import pytest
from report_pages import open_task, open_view, rows, tasks, written
from report_toys import TREE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return written(
        tmp_path_factory.mktemp("toy") / "report.html",
        {f"task/{number}": TREE for number in range(20)},
    )


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


def test_a_task_opens_as_a_tree_and_a_node_shows_what_was_said(open_page, toy):
    page = open_page(toy)
    open_view(page, "Trees")
    assert tasks(page).count() == 20
    open_task(page, 3)
    assert rows(page).count() > 3
    rows(page).nth(1).click()
    details = page.locator("#details")
    assert details.locator("h3").text_content().startswith("Step 1, candidate")
    assert "process reward" in details.text_content()
    assert details.locator(".message.agent pre").first.text_content() in ("a", "b", "c")
    assert page.locator("[role=treeitem][aria-selected=true]").count() == 1


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
    open_view(page, "Episodes")
    page.wait_for_selector(".plays")
    assert tasks(page).count() == 20
    left, right = (page.get_by_label(f"episode on the {side}") for side in ("left", "right"))
    assert (left.input_value(), right.input_value()) == ("sft sampled 0", "rro-1 sampled 0")
    for number in range(20):
        open_task(page, number)
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
