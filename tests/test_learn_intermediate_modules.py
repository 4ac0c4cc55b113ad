"""Modules of intermediate fusion: shapes, parameter counts by formula, what absent codes can and cannot do."""

from __future__ import annotations

import pytest
import torch

from ig3d.errors import UsageError
from ig3d.learn.intermediate.config import MODULES
from ig3d.learn.intermediate.modules import (
    AttentionFusion,
    CodeTokens,
    FusionModule,
    ModuleSpec,
    Positions,
    make_module,
)

BLOCKS = (5, 3, 2)
CODES = sum(BLOCKS)
SHAPES = ((8,), (8, 4, 4), (12, 2, 3))


def module(name: str, shape: tuple[int, ...] = (8,), *, width: int = 8, outputs: int = 4) -> FusionModule:
    torch.manual_seed(0)
    return make_module(ModuleSpec(name, shape, BLOCKS, width, outputs, 0.1)).eval()


def rows(n: int, shape: tuple[int, ...], seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((n, *shape), generator=generator)
    codes = torch.randn((n, CODES), generator=generator)
    return features, codes, torch.ones((n, len(BLOCKS)), dtype=torch.bool)


def count(parts: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in parts.parameters())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODULES)
def test_rows_are_alone(name: str, shape: tuple[int, ...]) -> None:
    net, (features, codes, present) = module(name, shape), rows(6, shape)
    together = net(features, codes, present)
    assert together.shape == (6, 4)
    for row in range(6):
        one = net(features[row : row + 1], codes[row : row + 1], present[row : row + 1])
        torch.testing.assert_close(one, together[row : row + 1])


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("name", MODULES)
def test_absent_blocks_are_not_read(name: str, shape: tuple[int, ...]) -> None:
    net, (features, codes, present) = module(name, shape), rows(4, shape)
    if name == "film":  # its codes do nothing until it has learnt
        torch.nn.init.normal_(net.condition[-1].weight)  # type: ignore[index, union-attr]
    present[0] = False
    present[1, 1] = False
    before = net(features, codes, present)
    other = codes.clone()
    other[0] = float("nan")
    other[1, 5:8] = 1e6  # the second block
    torch.testing.assert_close(net(features, other, present), before, rtol=0, atol=0)
    other[1, 0] += 1.0
    changed = (net(features, other, present) - before).abs().amax(1) > 1e-6
    assert changed.tolist() == [False, True, False, False]
    # no zeros that mean something: codes at the mean of the training rows are another thing than no codes
    mean = codes.clone()
    mean[:] = 0
    with_face = net(features, mean, torch.ones_like(present))
    assert ((with_face - net(features, mean, torch.zeros_like(present))).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("name", MODULES)
def test_gradients_reach_codes_features_and_absent_tokens(name: str) -> None:
    net, (features, codes, present) = module(name, (12, 2, 3)), rows(16, (12, 2, 3))
    if name == "film":
        torch.nn.init.normal_(net.condition[-1].weight)  # type: ignore[index, union-attr]
    present[:8] = False
    codes[:8] = float("nan")
    features.requires_grad_()
    net(features, codes, present).square().sum().backward()
    assert features.grad is not None and (features.grad.abs().flatten(1).sum(1) > 0).all()
    for parameter_name, parameter in net.named_parameters():
        if name == "attention" and parameter_name.endswith("in_proj_bias"):
            continue  # the keys' bias moves no soft-max
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_linear_has_the_papers_sizes() -> None:
    d, k = 8, 4
    net = module("linear")
    # codes to d; one stand-in token per block; 2d to 4d to 2d to k
    tokens = CODES * d + len(BLOCKS) * d + len(BLOCKS) * d
    decide = (2 * d * 4 * d + 4 * d) + (4 * d * 2 * d + 2 * d) + (2 * d * k + k)
    assert count(net.tokens) == tokens
    assert count(net.positions) == 0
    assert count(net) == tokens + decide
    # the paper's own: 512 features and 358 codes, 1024 → 2048 → 1024
    paper = make_module(ModuleSpec("linear", (512,), (3, 300, 50, 2, 3), 512, 8, 0.1))
    shapes = [tuple(layer.weight.shape) for layer in paper.decide if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    assert shapes == [(2048, 1024), (1024, 2048), (8, 1024)]


def test_other_sizes_by_formula() -> None:
    d, k, c = 8, 4, 12
    tokens = CODES * d + 2 * len(BLOCKS) * d
    head = (d * d + d) + (d * k + k)
    project = c * d + d
    shape = (c, 4, 4)
    assert count(module("gate", shape)) == tokens + project + head + 2 * 2 * d + (2 * d * d + d)
    film = 2 * d + (d * d + d) + (d * 2 * d + 2 * d)
    assert count(module("film", shape)) == tokens + project + head + film
    pyramid = ((1 + 4 + 16 + 1) * d * d + d) + (d * k + k)
    assert count(module("spp", shape)) == tokens + project + pyramid
    attend = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + 2 * d + (d * 2 * d + 2 * d) + (2 * d * d + d)
    assert count(module("attention", shape)) == tokens + project + head + 2 * attend + 16 * d + d


def test_tokens_sum_to_one_linear_layer_on_standardised_codes() -> None:
    torch.manual_seed(0)
    tokens = CodeTokens(BLOCKS, 6)
    codes = torch.randn(50, CODES, dtype=torch.float64).float() * 3 + 2
    tokens.standardise_by(codes)
    weight = torch.cat([layer.weight for layer in tokens.project], dim=1)
    bias = torch.stack([layer.bias for layer in tokens.project]).sum(0)
    standard = (codes - codes.mean(0)) / codes.std(0, correction=0)
    expected = standard @ weight.T + bias
    whole = torch.ones((50, len(BLOCKS)), dtype=torch.bool)
    torch.testing.assert_close(tokens(codes, whole).sum(1), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(tokens(codes, ~whole), tokens.absent.expand(50, -1, -1))


def test_a_constant_column_says_nothing_loudly() -> None:
    tokens = CodeTokens((2,), 3)
    tokens.standardise_by(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert tokens.mean.tolist() == [2.0, 7.0]
    assert tokens.scale.tolist() == [1.0, 1.0]


def test_features_are_standardised_per_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((40, 3, 2, 5), generator=generator) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1) + 4
    positions = Positions((3, 2, 5), 3)
    positions.standardise_by(maps)
    laid = positions(maps)
    assert laid.shape == (40, 10, 3)
    torch.testing.assert_close(laid.mean((0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(laid.std((0, 1), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    # position p is row p // 5, column p % 5 of the map
    torch.testing.assert_close(laid[:, 7, 1], (maps[:, 1, 1, 2] - positions.mean[1]) / positions.scale[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_runs_over_more_than_one_element(shape: tuple[int, ...]) -> None:
    net, (features, codes, present) = module("attention", shape), rows(5, shape)
    assert isinstance(net, AttentionFusion)
    seen: list[torch.Tensor] = []
    for part in (net.look, net.weigh):
        part.register_forward_hook(lambda _, __, result: seen.append(result[1]))
    share = net.share(features, codes, present)
    elements = len(BLOCKS) + net.positions.grid[0] * net.positions.grid[1]
    assert [tuple(weights.shape) for weights in seen] == [(5, 3, elements), (5, 1, elements)]
    for weights in seen:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
        assert (weights < 0.999).all()
    torch.testing.assert_close(share, seen[1][:, 0, :3].sum(1))


def test_share_is_a_part() -> None:
    for name in MODULES:
        share = module(name).share(*rows(7, (8,)))
        assert share.shape == (7,)
        if name in ("gate", "attention"):
            assert ((share > 0) & (share < 1)).all()
        else:
            assert share.isnan().all()


def test_film_starts_as_a_network_without_codes() -> None:
    net, (features, codes, present) = module("film", (8, 4, 4)), rows(3, (8, 4, 4))
    torch.testing.assert_close(
        net(features, codes, present), net(features, codes * 9, ~present), rtol=0, atol=0
    )


def test_spp_is_maxima_over_parts() -> None:
    net, (features, codes, present) = module("spp", (8, 4, 4)), rows(3, (8, 4, 4))
    fed: list[torch.Tensor] = []
    net.decide.register_forward_hook(lambda _, given, __: fed.append(given[0]))  # type: ignore[union-attr]
    net(features, codes, present)
    pooled = fed[0][:, 8:]
    torch.testing.assert_close(pooled[:, :8], features.amax((2, 3)))
    quarter = features[:, :, :2, 2:].amax((2, 3))  # upper right of the 2 x 2 parts
    torch.testing.assert_close(pooled[:, 8:40].reshape(3, 8, 4)[:, :, 1], quarter)
    torch.testing.assert_close(pooled[:, 40:].reshape(3, 8, 16), features.flatten(2))


@pytest.mark.parametrize(
    "changes", [{"name": "sum"}, {"shape": (8, 2)}, {"blocks": ()}, {"width": 0}, {"outputs": 0}]
)
def test_impossible_modules_are_refused(changes: dict[str, object]) -> None:
    settings = {"name": "gate", "shape": (8,), "blocks": (3,), "width": 4, "outputs": 2, "dropout": 0.0}
    with pytest.raises(UsageError, match="module"):
        ModuleSpec(**(settings | changes))  # type: ignore[arg-type]
