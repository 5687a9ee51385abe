"""Slices without a number become frames by their places, and never of two times."""

import numpy as np
import pyigtl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ica_unet_jax.serving.stacking import Stack, from_its_end


def fed(stack, slices):
    """The frames of slices (time, place), as lists of such."""
    found = []
    for time, place in slices:
        matrix = np.diag([1.25, 1.5, 10.0, 1.0])
        matrix[2, 3] = 10 * place
        found += stack.add(pyigtl.ImageMessage(np.full((1, 2, 2), time, np.uint8), ijk_to_world_matrix=matrix))
    return [[(int(m.image[0, 0, 0]), round(m.ijk_to_world_matrix[2, 3] / 10)) for m in frame] for frame in found]


def rounds(order, count):
    return [(time, place) for time in range(count) for place in order]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([None, True]), st.integers(3, 6))
def test_lost_slices_cost_their_frames_and_mix_no_others(data, told, count):
    """In whatever order the slices come, one of every other frame may be lost, but for the first of all."""
    order = from_its_end(data.draw(st.permutations(range(count))))
    lost = [data.draw(st.integers(least, count)) for least in (1, 0, 0)]
    slices = [(time, place) for time, place in rounds(order, 9) if time % 2 or time > 4 or order.index(place) != lost[time // 2]]
    stack = Stack(count if told else None, 2**20)
    found = fed(stack, slices)
    assert all(len({time for time, _ in frame}) == 1 for frame in found)
    assert found[-4:] == [[(time, place) for place in order] for time in (5, 6, 7, 8)]


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 4, 1, 3]])
def test_a_slice_that_is_lost_in_the_first_round(order, told):
    for index in range(1, len(order)):
        slices = rounds(order, 4)
        del slices[index]
        stack = Stack(len(order) if told else None, 2**20)
        assert fed(stack, slices)[-3:] == [[(time, place) for place in order] for time in (1, 2, 3)] and stack.left_out == 1


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("order, begin", [([0, 1, 2], 1), ([2, 1, 0], 1), *(([3, 1, 0, -1], k) for k in (1, 2, 3)), ([0, 1, 2, 3, 4], 4)])
def test_a_client_may_connect_in_the_middle_of_a_sweep(order, begin, told):
    stack = Stack(len(order) if told else None, 2**20)
    assert fed(stack, rounds(order, 4)[begin:]) == [[(time, place) for place in order] for time in (1, 2, 3)] and stack.left_out == 1


@pytest.mark.parametrize("told", [False, True])
def test_a_stack_that_is_moved_is_learnt_anew(told):
    stack = Stack(3 if told else None, 2**20)
    assert len(fed(stack, rounds([0, 1, 2], 3))) == 3
    moved = fed(stack, rounds([5, 6, 7], 4))
    assert moved[-1] == [(3, 5), (3, 6), (3, 7)] and len(moved) == 4 and stack.left_out == 0


def test_places_need_not_be_the_same_to_the_last_digit():
    slices = [(time, place + 3e-4 * time) for time, place in rounds([0.5, 1.5, 2.5], 3)]
    assert [len(frame) for frame in fed(Stack(3, 2**20), slices)] == [3, 3, 3]
