from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.service import ranking
from simyard.service.ranking import Ranking

Operations = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=200)


@given(Operations, st.sampled_from([1, 2, 5]))
def test_a_ranking_is_what_a_sorted_list_is(operations: list[tuple[bool, int]], chunk: int) -> None:
    before = ranking._CHUNK
    ranking._CHUNK = chunk
    try:
        tried: Ranking[tuple[int]] = Ranking()
        plain: list[tuple[int]] = []
        for adds, number in operations:
            item = (number,)
            if adds and item not in plain:
                tried.add(item)
                plain = sorted([*plain, item])
            elif not adds and item in plain:
                tried.remove(item)
                plain.remove(item)
            assert list(tried) == plain
            assert len(tried) == len(plain)
            assert tried.first == (plain[0] if plain else None)
            assert [tried.before(item) for item in plain] == list(range(len(plain)))
    finally:
        ranking._CHUNK = before


def test_what_is_not_in_a_ranking_cannot_be_taken_out() -> None:
    tried: Ranking[tuple[int]] = Ranking()
    with pytest.raises(ValueError, match="not in the ranking"):
        tried.remove((1,))
    tried.add((1,))
    for item in ((0,), (2,)):
        with pytest.raises(ValueError, match="not in the ranking"):
            tried.before(item)
