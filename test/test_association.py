import math

import torch
from torch.nn.functional import one_hot

from nr_tracking.deformation.association import associate


def test_rows_are_distributions_and_match_the_definition():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (5, 7))
    found = associate(first, second, 3.0)
    for p in range(5):
        cosines = [float(first[p] @ second[q] / first[p].norm() / second[q].norm()) for q in range(7)]
        total = sum(math.exp(3.0 * c) for c in cosines)
        assert torch.allclose(found[p], torch.tensor([math.exp(3.0 * c) / total for c in cosines], dtype=torch.float64))
    assert torch.allclose(found.sum(1), torch.ones(5, dtype=torch.float64))


def test_permuted_features_recover_the_permutation_and_cycle_back():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(60, 32, generator=generator)
    order = torch.randperm(60, generator=generator)
    centres = torch.rand(60, 3, generator=generator)
    there, back = associate(features, features[order], 100.0), associate(features[order], features, 100.0)
    assert torch.equal(order[there.argmax(1)], torch.arange(60))
    assert torch.allclose(there @ centres[order], centres, atol=1e-4)
    assert torch.allclose(there @ (back @ centres), centres, atol=1e-4)


def test_equal_features_fall_back_to_the_centroid():
    centres = torch.rand(9, 3, generator=torch.Generator().manual_seed(2))
    found = associate(torch.ones(4, 8), torch.ones(9, 8), 100.0)
    assert torch.allclose(found @ centres, centres.mean(0).expand(4, 3), atol=1e-6)
    assert torch.allclose(found, torch.full((4, 9), 1 / 9), atol=1e-6)


def test_a_large_scale_is_certain_and_a_small_one_blurs():
    features = one_hot(torch.arange(8)).float()
    assert torch.allclose(associate(features, features, 100.0), torch.eye(8), atol=1e-6)
    assert associate(features, features, 0.1).max() < 0.15
