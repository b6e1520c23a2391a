"""A report's charts as SVG and PNG files, through matplotlib. Knows no journal: the figures are in
the report's head.

Colours are Okabe and Ito's, distinguishable with any colour vision; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rro.errors import UsageError

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")
_MARKERS = "os^Dvp*"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "rro",
    "svg.fonttype": "none",
}
_THIRDS = ("first", "middle", "last")

Head = Mapping[str, Any]


def require_matplotlib() -> None:
    """Raises UsageError where matplotlib is not installed. Call it before any work is done."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plots needs matplotlib: pip install 'rro[plots]'") from None


def write_plots(head: Head, folder: Path) -> list[Path]:
    """Write every chart that has data; returns the files. Needs matplotlib, see
    `require_matplotlib`.

    Raises UsageError where `folder` cannot be written."""
    import matplotlib
    from matplotlib.figure import Figure

    written = []
    with matplotlib.rc_context(_STYLE):
        for name, draw in _CHARTS.items():
            figure = Figure(figsize=(5.2, 3.2), layout="constrained")
            axes = figure.add_subplot()
            if not draw(axes, head):
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for path, dated in (
                    (folder / f"{name}.svg", {"Date": None}),
                    (folder / f"{name}.png", {}),
                ):
                    figure.savefig(path, dpi=200, metadata=dated)
                    written.append(path)
            except OSError as error:
                raise UsageError(f"{folder}: cannot write the plots: {error.strerror}") from None
    return written


def _rewards(axes: Any, head: Head) -> bool:
    rows = [
        (i, _plain(f"{_name(head, run)}{row['label']} {row['mode']}"), row["reward"])
        for i, run in enumerate(head["runs"])
        for row in run["evaluations"]
    ]
    _whiskers(axes, rows)
    axes.set_xlabel("mean reward, 95 % interval by task")
    return bool(rows)


def _differences(axes: Any, head: Head) -> bool:
    rows = [
        (i, _plain(f"{_name(head, run)}{row['label']} − {row['against']} {row['mode']}"), row)
        for i, run in enumerate(head["runs"])
        for row in run["differences"]
    ]
    runs = head["runs"]
    rows += [
        (row["run"], _plain(f"{runs[row['run']]['name']} − {runs[0]['name']} {row['mode']}"), row)
        for row in head["between"]
    ]
    _whiskers(axes, rows)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_xlabel("paired difference in reward, 95 % interval")
    return bool(rows)


def _candidates(axes: Any, head: Head) -> bool:
    groups = [
        (label, group)
        for label, group in _groups(head)
        if group["per_step"] and not _is_trend(group)
    ]
    width = 0.8 / max(len(groups), 1)
    for i, (label, group) in enumerate(groups):
        steps = sum(times for _, times in group["per_step"])
        places = [count + (i - (len(groups) - 1) / 2) * width for count, _ in group["per_step"]]
        axes.bar(
            places,
            [times / steps for _, times in group["per_step"]],
            width,
            color=_colour(i),
            label=label,
        )
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("candidates drawn for a step")
    axes.set_ylabel("share of steps")
    _finish(axes, len(groups))
    return bool(groups)


def _rising(axes: Any, head: Head) -> bool:
    groups = [
        (label, group)
        for label, group in _groups(head)
        if any(steps for _, steps in group["rising"])
    ]
    width = 0.8 / max(len(groups), 1)
    for i, (label, group) in enumerate(groups):
        places = [third + (i - (len(groups) - 1) / 2) * width for third in range(len(_THIRDS))]
        shares = [rising / steps if steps else 0 for rising, steps in group["rising"]]
        axes.bar(places, shares, width, color=_colour(i), label=label)
    axes.set_xticks(range(len(_THIRDS)), _THIRDS)
    axes.set_xlabel("third of the episode")
    axes.set_ylabel("share of rising steps")
    _finish(axes, len(groups))
    return bool(groups)


def _along(axes: Any, head: Head) -> bool:
    groups = [(label, group) for label, group in _groups(head) if len(group["along"]) > 1]
    for i, (label, group) in enumerate(groups):
        _curve(axes, i, label, [(point["step"], point) for point in group["along"]])
    axes.set_xlabel("step")
    axes.set_ylabel("process reward")
    _finish(axes, len(groups))
    return bool(groups)


def _cost(axes: Any, head: Head) -> bool:
    """Only for several runs."""
    modes = {point["mode"] for run in head["runs"] for point in run["curve"]}
    if len(head["runs"]) < 2 or not modes:
        return False
    mode = "sampled" if "sampled" in modes else min(modes)
    for i, run in enumerate(head["runs"]):
        points = [(point["usage"][0], point) for point in run["curve"] if point["mode"] == mode]
        _curve(axes, i, _plain(f"{run['strategy']} ({run['name']})"), points)
    axes.set_xlabel("policy calls of exploration")
    axes.set_ylabel(f"reward, {mode}")
    _finish(axes, len(head["runs"]))
    return True


def _rounds(axes: Any, head: Head) -> bool:
    """Only for runs of several rounds: what they played, against the tokens generated before."""
    runs = [(i, run) for i, run in enumerate(head["runs"]) if len(run["rounds"]) > 1]
    for i, run in runs:
        before = [0.0, *(each["generated"] for each in run["rounds"])]
        points = zip(before, run["rounds"], strict=False)
        played = [(x, each["reward"]) for x, each in points if each["reward"]]
        _curve(axes, i, _plain(run["name"]), played)
    axes.set_xlabel("generated tokens")
    axes.set_ylabel("reward of a round's episodes")
    _finish(axes, len(runs))
    return bool(runs)


_CHARTS: dict[str, Callable[[Any, Head], bool]] = {
    "rewards": _rewards,
    "differences": _differences,
    "candidates-per-step": _candidates,
    "rising-by-stage": _rising,
    "process-reward": _along,
    "reward-against-cost": _cost,
    "reward-by-round": _rounds,
}


def _whiskers(axes: Any, rows: Sequence[tuple[int, str, Mapping[str, Any]]]) -> None:
    for place, (series, _, value) in enumerate(rows):
        axes.errorbar(
            value["mean"],
            place,
            xerr=[[end] for end in _arms(value)],
            fmt=_marker(series),
            color=_colour(series),
        )
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _curve(
    axes: Any, series: int, label: str, points: Sequence[tuple[float, Mapping[str, Any]]]
) -> None:
    arms = [_arms(value) for _, value in points]
    axes.errorbar(
        [x for x, _ in points],
        [value["mean"] for _, value in points],
        yerr=[[low for low, _ in arms], [high for _, high in arms]],
        fmt=f"-{_marker(series)}",
        color=_colour(series),
        label=label,
        markersize=4,
        capsize=2,
    )


def _arms(value: Mapping[str, Any]) -> tuple[float, float]:
    """How far the interval reaches below and above the mean; 0 where it is unbounded."""
    low, high = (value["mean"] if value[end] is None else value[end] for end in ("low", "high"))
    return max(value["mean"] - low, 0.0), max(high - value["mean"], 0.0)


def _finish(axes: Any, series: int) -> None:
    if series > 1:
        axes.legend(frameon=False, fontsize=8)


def _groups(head: Head) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (_plain(_name(head, run) + _part(group)), group)
        for run in head["runs"]
        for group in run["groups"]
    ]


def _part(group: Mapping[str, Any]) -> str:
    return (
        f"trend of {group['name'].removeprefix('trend-')}"
        if _is_trend(group)
        else f"iteration {group['name']}"
    )


def _is_trend(group: Mapping[str, Any]) -> bool:
    return str(group["name"]).startswith("trend-")


def _name(head: Head, run: Mapping[str, Any]) -> str:
    return f"{run['name']} " if len(head["runs"]) > 1 else ""


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics, which stands between dollar signs."""
    return text.replace("$", r"\$")


def _colour(series: int) -> str:
    return _COLOURS[series % len(_COLOURS)]


def _marker(series: int) -> str:
    return _MARKERS[series % len(_MARKERS)]
