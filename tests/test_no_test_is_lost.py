"""A test under another name than test_… would never run."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_function_of_a_test_file_is_used() -> None:
    texts = {path: path.read_text() for path in TESTS.rglob("*.py")}
    words = [word for text in texts.values() for word in re.findall(r"\w+", text)]
    counts = Counter(words)
    lost = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path, text in texts.items()
        if path.name.startswith("test_")
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")
        if counts[node.name] < 2 and "fixture" not in ast.unparse(ast.Module(node.decorator_list, []))
    ]
    assert lost == []
