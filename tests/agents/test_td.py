"""One-step targets and losses against numbers worked out by hand."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules import td


def tensor(*values):
    return torch.tensor(values)


def one_step(reward, discount, value, selector=None):
    """What DQN makes of the rules: choose, value, bootstrap."""
    chosen = td.greedy_action(value if selector is None else selector)
    return td.bootstrap(reward, discount, td.select(value, chosen))


def test_q_learning():
    # 1 + 0.9 * max(1, 3) = 3.7; a termination leaves the reward alone: -2 + 0 * 7 = -2
    target = one_step(tensor(1.0, -2.0), tensor(0.9, 0.0), tensor([1.0, 3.0], [5.0, 7.0]))
    torch.testing.assert_close(target, tensor(3.7, -2.0))


def test_double_q_learning_takes_the_choice_from_one_and_the_value_from_the_other():
    value = tensor([1.0, 3.0], [2.0, 8.0], [5.0, 7.0])
    selector = tensor([4.0, 2.0], [0.0, 1.0], [9.0, 0.0])
    # argmax of the selector is 0, 1, 0; so 1 + 0.9 * 1 = 1.9, 0 + 0.5 * 8 = 4, and -2 terminated.
    # The value's own maximum would give 3.7, 4, -2; the selector's own value 4.6, 0.5, -2.
    target = one_step(tensor(1.0, 0.0, -2.0), tensor(0.9, 0.5, 0.0), value, selector)
    torch.testing.assert_close(target, tensor(1.9, 4.0, -2.0))


def test_ties_go_to_the_lowest_index_and_illegal_actions_are_not_chosen():
    assert td.greedy_action(tensor(0.0, 5.0, 5.0)).item() == 1
    mask = torch.tensor([True, False, True])
    assert td.greedy_action(tensor(0.0, 5.0, 4.0), mask).item() == 2


def test_select():
    q = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert td.select(q, torch.tensor([[2, 0]])).tolist() == [[3.0, 4.0]]


def test_huber():
    # delta 1, errors 0.5, 1, -3: 0.5 * 0.25 = 0.125; 0.5; 1 * (3 - 0.5) = 2.5
    loss = td.huber(tensor(0.0, 0.0, 0.0), tensor(0.5, 1.0, -3.0), 1.0)
    torch.testing.assert_close(loss, tensor(0.125, 0.5, 2.5))
    # delta 2, errors 1, 3: 0.5; 2 * (3 - 1) = 4
    torch.testing.assert_close(td.huber(tensor(0.0, 0.0), tensor(1.0, 3.0), 2.0), tensor(0.5, 4.0))


def test_the_slope_of_huber_is_the_error_cut_at_delta():
    prediction = tensor(0.0, 0.0, 0.0).requires_grad_()
    td.huber(prediction, tensor(0.5, 5.0, -5.0), 2.0).sum().backward()
    assert prediction.grad.tolist() == [-0.5, -2.0, 2.0]  # d/dp of ½(t - p)² is -(t - p)


def test_squared_is_half_the_square_and_its_slope_the_error():
    prediction = tensor(1.0, 1.0).requires_grad_()
    loss = td.squared(prediction, tensor(4.0, -1.0))
    assert loss.tolist() == [4.5, 2.0]
    loss.sum().backward()
    assert prediction.grad.tolist() == [-3.0, 2.0]


def test_no_gradient_goes_through_a_target():
    parts = [tensor(1.0, 2.0).requires_grad_() for _ in range(3)]
    assert not td.bootstrap(*parts).requires_grad


def test_select_takes_whole_distributions():
    out = torch.arange(12.0).view(1, 2, 3, 2)  # [K, B, A, Z]
    chosen = td.select(out, torch.tensor([[2, 0]]))
    assert chosen.tolist() == [[[4.0, 5.0], [6.0, 7.0]]]


def test_squash_by_hand():
    # ε = 0.001: √(3 + 1) - 1 + 0.003 = 1.003; -(√(8 + 1) - 1) - 0.008 = -2.008
    torch.testing.assert_close(td.squash(tensor(3.0, -8.0, 0.0)), tensor(1.003, -2.008, 0.0))


@given(x=st.floats(-1e4, 1e4))
def test_unsquash_is_the_inverse(x):
    x = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(td.unsquash(td.squash(x)), x, rtol=1e-9, atol=1e-9)


@given(x=st.floats(-100, 100))
def test_unsquash_keeps_small_values_in_float32(x):
    exact = td.unsquash(torch.tensor(x, dtype=torch.float64))
    found = td.unsquash(torch.tensor(x, dtype=torch.float32)).double()
    torch.testing.assert_close(found, exact, rtol=2e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lead=st.sampled_from([(), (4,), (3, 4)]))
def test_any_axes_may_lead(seed, lead):
    generator = torch.Generator().manual_seed(seed)
    reward, discount = torch.rand((2, *lead), generator=generator)
    q = torch.randn((*lead, 5), generator=generator)
    plain = one_step(reward, discount, q)
    assert plain.shape == lead
    torch.testing.assert_close(plain, reward + discount * q.amax(-1))
