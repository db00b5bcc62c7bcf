"""In which order volumes that nobody wants are dealt with."""

from __future__ import annotations

from csi.cluster.sweep import in_turn


def test_what_is_kept_for_ever_does_not_keep_others_from_their_turn() -> None:
    everything = [f"p.v{number}" for number in range(5)]
    seen, last = [], ""
    for _ in range(3):
        turn = in_turn(everything[::-1], last)[:2]
        last = turn[-1]
        seen += turn
    assert seen == ["p.v0", "p.v1", "p.v2", "p.v3", "p.v4", "p.v0"]


def test_the_first_is_next_where_the_last_one_went() -> None:
    assert in_turn(["p.a", "p.c"], "p.d") == ["p.a", "p.c"]
    assert in_turn(["p.a", "p.c"], "p.b") == ["p.c", "p.a"]
    assert in_turn([], "p.b") == []
