"""One session more, or a refusal: before anybody waits."""

from tamulag.streamer.service.admission import RETRY, Admission


def busy(share: float, sessions: int, *, seats: int = 1000, cost: float = 0.001) -> Admission:
    """Return an admission that has seen ten seconds of this load, all sessions long there."""
    admission = Admission(seats, cost=cost, busiest=0.75)
    for tenth in range(101):
        admission.observe(tenth / 10, share * tenth / 10, sessions)
    return admission


def test_a_seat_is_free() -> None:
    """Below all limits no session is refused."""
    assert busy(0.3, 300).admit(300) is None


def test_all_seats_are_taken() -> None:
    """The number of seats is a limit of its own."""
    why = busy(0.1, 10, seats=10).admit(10)
    assert why is not None
    assert "all 10 seats" in why
    assert f"try again in {RETRY:g} s" in why


def test_a_busy_server_refuses() -> None:
    """Beyond three quarters of a core waiting times would grow."""
    assert "busy" in str(busy(0.76, 700).admit(700))


def test_a_slow_machine_refuses() -> None:
    """What others do on the same machine is not in our own processor time."""
    admission = busy(0.3, 300)
    for now in (10.5, 11.0, 11.5, 12.5):
        admission.observe(now, 0.3 * now, 300, slow=0.4)
    assert "busy" in str(admission.admit(300))
    admission.observe(15.0, 4.5, 300, slow=0.4)  # once is nothing
    assert admission.admit(300) is None


def test_a_rush_is_refused_before_it_is_felt() -> None:
    """Sessions that have just begun count with what one costs, though no load shows them yet."""
    admission = busy(0.5, 500)
    let_in = sum(admission.admit(500 + n) is None for n in range(1000))
    assert 240 <= let_in <= 250


def test_the_cost_of_a_session_is_measured() -> None:
    """What was assumed at the start is replaced by the measured load."""
    admission = busy(0.5, 100)
    let_in = sum(admission.admit(100 + n) is None for n in range(1000))
    assert 45 <= let_in <= 50


def test_busy_front_ends_refuse_who_needs_them() -> None:
    """Who sends features alone is let in all the same."""
    admission = busy(0.1, 10)
    assert "front ends" in str(admission.admit(10, front=0.9))
    assert admission.admit(10) is None
