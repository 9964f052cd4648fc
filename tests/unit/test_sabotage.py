"""The list of breakages is in step with the code and the tests."""

from __future__ import annotations

import pytest
from sabotage import ROOT, SABOTAGES, Sabotage


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda item: item.mechanism)
def test_each_breakage_has_one_place_and_a_test_that_exists(sabotage: Sabotage) -> None:
    text = (ROOT / sabotage.file).read_text(encoding="utf-8")
    assert text.count(sabotage.old) == 1
    assert sabotage.new not in text or sabotage.new.strip() in ("", "pass", "return")
    path, _, name = sabotage.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
