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
