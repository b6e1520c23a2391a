"""A tree as text, for a terminal: one line a node. Knows no colours and no files."""

from __future__ import annotations

from rro.exploration.tree import Node, Tree


def draw_tree(tree: Tree, width: int = 100) -> str:
    """The tree, parents first: "*" marks the chosen trajectory, "^" a step that rose; then the
    process reward, the number of its rollouts ("end" for an outcome), and the beginning of the
    action. Lines are cut at `width`."""
    return "\n".join(_line(node, width) for node in tree.root.walk())


def _line(node: Node, width: int) -> str:
    mark = "^" if node.rose else "*" if node.committed else " "
    text = "(start)" if node.step is None else " ".join(node.action.text.split())
    return f"{mark} {'  ' * node.depth}{_estimate(node)}  {text}"[:width].rstrip()


def _estimate(node: Node) -> str:
    if node.estimate is None:
        return "   ?     "
    how = "end" if node.estimate.exact else f"n={node.estimate.n}"
    return f"{node.estimate.mean:5.2f} {how}"
