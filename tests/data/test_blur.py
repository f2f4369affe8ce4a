import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from miyagi.data.blur import blur


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
@pytest.mark.parametrize(
    ("size", "kernel"), [((32, 32), 3), ((32, 21), 3), ((80, 80), 9), ((100, 60), 11), ((140, 160), 17)]
)
def test_blur_equals_torchvision(fields, sigma, size, kernel):
    x = torch.nn.functional.interpolate(fields[:5], size=size)
    torch.testing.assert_close(
        blur(x, torch.full((5,), sigma)), reference.gaussian_blur(x, kernel, sigma), atol=1e-5, rtol=0
    )


def test_each_sample_has_its_own_deviation(fields):
    sigma = torch.linspace(0.1, 2, len(fields))
    together = blur(fields, sigma)
    for i in range(len(fields)):
        assert torch.equal(blur(fields[i : i + 1], sigma[i : i + 1])[0], together[i])
    assert (blur(fields, sigma.flip(0)) != together).flatten(1).any(1).sum() >= len(fields) - 1


@pytest.mark.parametrize(("size", "n"), [(27, 500), (32, 500), (96, 40), (128, 9), (160, 7)])
def test_the_batch_does_not_matter(size, n):
    """A sample has the same bits alone, among others, wherever it lies in memory, and whatever the threads."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, size, size, generator=generator)
    sigma = 0.1 + 1.9 * torch.rand(n, generator=generator)
    together = blur(x, sigma)
    for count in (1, 2, 3, n - 1):
        moved = torch.empty(x[:count].numel() + 1)[1:].view(count, 3, size, size).copy_(x[:count])
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(blur(moved, sigma[:count]), together[:count])
            assert torch.equal(blur(x[-count:], sigma[-count:]), together[-count:])


def test_an_image_smaller_than_the_kernel():
    x = torch.rand(2, 3, 2, 60, generator=torch.Generator().manual_seed(0))  # a tenth of 60 does not fit on 2 rows
    torch.testing.assert_close(blur(x, torch.tensor([0.8, 0.8])), reference.gaussian_blur(x, 3, 0.8), atol=1e-5, rtol=0)
