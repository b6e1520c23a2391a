"""Reports of toy runs, and what the tests of a browser look for on their pages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from report_toys import make_run

from rro.report import page as pages
from rro.report.gather import Gatherer


def elsewhere(function, *arguments, **options):
    """In a thread of its own: Playwright has this one's event loop."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *arguments, **options).result()


def written(file, trees, name="run", **options):
    """The report of a new run."""
    run = elsewhere(make_run, file.parent / name, trees, **options)
    with Gatherer([run.path]) as gatherer:
        return pages.write_report(*gatherer.whole(), file)


def rows(page):
    return page.get_by_role("treeitem")


def tasks(page):
    return page.locator("button.task")


def open_view(page, name):
    """Click on a view in the navigation, and wait until its list of tasks is drawn."""
    page.get_by_role("link", name=name).click()
    page.locator("#views [aria-current=page]", has_text=name).wait_for()


def open_task(page, number):
    """Click on that task of the list, and wait until it is drawn in place of the one before."""
    task = tasks(page).nth(number)
    task.click()
    page.wait_for_function(
        "name => document.querySelector('#work h2').textContent === name",
        arg=task.locator(".name").text_content(),
    )
