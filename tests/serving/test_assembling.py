"""Slices become frames by their headers, in whatever order they come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ica_unet_jax.serving.assembling import Assembler, Slice
from ica_unet_jax.serving.wire import Malformed

CINE = (0, 0, 0, 0)


def part(time, index, cine=CINE, value=0):
    return Slice(cine, (0, time), index, np.full((1, 2, 2), value, np.uint8))


def names(frames):
    """(time, slices) of frames."""
    return [(parts[0].time[1], tuple(p.index for p in parts)) for parts in frames]


def fed(assembler, slices):
    return [names(assembler.add(part(*one))) for one in slices]


@given(st.data(), st.integers(1, 4), st.integers(1, 6))
def test_slices_in_any_order_within_a_window_give_every_frame_in_the_order_of_time(data, count, frames):
    """Slices of a frame may come before those of the frame before, as far as frames wait."""
    assembler = Assembler(count, reorder=frames)
    slices = data.draw(st.permutations([(t, k) for t in range(frames) for k in range(count)]))
    first = {t: min(i for i, s in enumerate(slices) if s[0] == t) for t in range(frames)}
    found = [name for some in fed(assembler, slices) for name in some] + names(assembler.close())
    whole = tuple(range(count))
    assert sorted(found) == [(t, whole) for t in range(frames)] and assembler.left_out == 0
    places = {t: i for i, (t, _) in enumerate(found)}
    for early in range(frames):
        for late in range(early + 1, frames):
            done = max(i for i, s in enumerate(slices) if s[0] == late)
            if first[early] < done:  # it had begun before the later one was complete
                assert places[early] < places[late]


def test_a_frame_is_given_with_its_last_slice():
    assert fed(Assembler(2), [(0, 1), (0, 0), (1, 0), (1, 1)]) == [[], [(0, (0, 1))], [], [(1, (0, 1))]]


def test_a_slice_that_comes_late_holds_the_next_frame_up():
    assert fed(Assembler(2), [(0, 0), (1, 0), (1, 1), (0, 1)])[-2:] == [[], [(0, (0, 1)), (1, (0, 1))]]


def test_a_slice_that_is_lost_costs_its_frame_alone():
    assembler = Assembler(2, reorder=1)
    given = fed(assembler, [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (0, 1), (3, 0), (3, 1)])
    assert given[4] == [(1, (0, 1)), (2, (0, 1))] and given[5] == [] and given[7] == [(3, (0, 1))]
    assert assembler.left_out == 1 and assembler.close() == []


def test_rounds_of_a_cine_follow_each_other():
    slices = [(t, k) for _ in range(3) for t in range(2) for k in range(2)]
    assert [name for some in fed(Assembler(2), slices) for name in some] == [(t, (0, 1)) for _ in range(3) for t in range(2)]


def test_a_round_whose_last_frame_lacks_a_slice_does_not_mix_with_the_next():
    assembler = Assembler(2, reorder=0)
    assembler.add(part(0, 0, value=1))
    [frame] = [f for one in ((0, 0), (0, 1)) for f in assembler.add(part(*one, value=2))]
    assert [p.pixels.max() for p in frame] == [2, 2] and assembler.left_out == 1


def test_counters_may_wrap_round():
    slices = [(t % 2**16, 0) for t in range(2**16 - 2, 2**16 + 2)]
    assert [name[0] for some in fed(Assembler(1), slices) for name in some] == [65534, 65535, 0, 1]


def test_without_a_count_the_end_tells_how_many_slices_there_are():
    assembler = Assembler(None)
    assert not any(fed(assembler, [(1, 0), (0, 1), (0, 0), (2, 0), (1, 1)]))
    assert names(assembler.close()) == [(0, (0, 1)), (1, (0, 1))] and assembler.left_out == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 1)), max_size=80), st.integers(0, 3))
def test_whatever_comes_frames_are_whole_and_nothing_is_kept_for_ever(slices, reorder):
    assembler = Assembler(3, reorder)
    given = [f for t, k, c in slices for f in assembler.add(part(t, k, (c, 0, 0, 0)))] + assembler.close()
    assert all([p.index for p in parts] == [0, 1, 2] and len({(p.cine, p.time) for p in parts}) == 1 for parts in given)
    assert assembler._held <= 12 * 3 * 4 and len(assembler._begun) <= 12


def test_bounds():
    with pytest.raises(Malformed, match="slice 3 came of a frame that has 2"):
        Assembler(2).add(part(0, 2))
    assembler = Assembler(2, limit=10)
    assembler.add(part(0, 0)), assembler.add(part(1, 0))
    with pytest.raises(Malformed, match="limit_mb"):
        assembler.add(part(2, 0))
