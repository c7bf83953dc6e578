import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.config import TracksConfig
from nr_tracking.tracking.population import Population, uncovered

CONFIG = TracksConfig(patience_s=0.1, memory_s=0.3)
FRAME_NS = 50_000_000


def yes(*flags):
    return np.array(flags, bool)


def test_a_point_dies_after_its_patience_and_is_recognised_within_its_memory():
    population = Population.founded(2, 7)
    population.judge(yes(1, 0), yes(1, 0), 0, CONFIG)
    assert population.alive.all()  # off the surface for the first time
    population.judge(yes(1, 0), yes(1, 0), 2 * FRAME_NS, CONFIG)
    assert population.alive.tolist() == [True, False]
    assert population.forget(3 * FRAME_NS, CONFIG).all()
    population.judge(yes(1, 1), yes(1, 0), 4 * FRAME_NS, CONFIG)
    assert population.alive.tolist() == [True, False]  # near, but not near enough to be sure
    population.judge(yes(1, 1), yes(1, 1), 5 * FRAME_NS, CONFIG)
    assert population.alive.all() and population.ids.tolist() == [7, 8]


def test_one_frame_back_on_the_surface_starts_the_patience_anew():
    population = Population.founded(1, 0)
    for step in range(20):
        on = yes(step % 2 == 0)
        population.judge(on, on, step * FRAME_NS, CONFIG)
    assert population.alive.all()


def test_a_rejected_point_does_not_come_back():
    population = Population.founded(2, 0)
    population.reject(yes(0, 1))
    population.judge(yes(1, 1), yes(1, 1), FRAME_NS, CONFIG)
    assert population.alive.tolist() == [True, False]
    assert population.forget(FRAME_NS, CONFIG).tolist() == [True, False]
    population.born(2)
    assert population.ids.tolist() == [0, 2, 3] and population.next_id == 4


def test_surface_is_uncovered_beyond_a_few_spacings_whatever_the_unit():
    distance = np.array([0.01, 0.05, 0.3])
    for unit in (1.0, 1000.0):
        assert uncovered(unit * distance, unit * 0.02, TracksConfig(birth_ratio=3.0)).tolist() == [False, False, True]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2**6 - 1), st.integers(0, 3), st.booleans()), max_size=25))
def test_an_id_never_names_another_point(steps):
    population, named = Population.founded(6, 0), {}
    place = np.arange(6)  # which point each row is; new ones are numbered on
    count = 6
    for number, (bits, births, forget) in enumerate(steps):
        on = np.array([bits >> (int(i) % 6) & 1 for i in place], bool)
        population.judge(on, on, number * FRAME_NS, CONFIG)
        if forget:
            place = place[population.forget(number * FRAME_NS, CONFIG)]
        population.born(births)
        place = np.concatenate((place, count + np.arange(births)))
        count += births
        assert len(np.unique(population.ids)) == len(population.ids) == len(place)
        for key, point in zip(population.ids.tolist(), place.tolist(), strict=True):
            assert named.setdefault(key, point) == point
