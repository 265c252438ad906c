"""Layers for K seeds at once: every parameter has the seeds' axis first.

One batched matrix product serves all seeds, and seed k of it has the same bits as a group of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NO_NOISE: Mapping[str, Tensor] = {}
WIDE = 2**18
"""Weights a seed from which a gradient's way through memory costs more than a node written in Python."""


class Unhooked(nn.Module):
    """A module without hooks: looking for them takes longer than a small layer does."""

    def __call__(self, *inputs: Any) -> Tensor:
        """`forward`, at once."""
        y: Tensor = self.forward(*inputs)
        return y


class Layer(Unhooked):
    """A layer of a network."""

    random = False  # whether it takes noise


class GroupLinear(Layer):
    """``y[k] = x[k] W[k] + b[k]``: one linear layer a seed, in one product."""

    def __init__(
        self,
        seeds: int,
        inputs: int,
        outputs: int,
        device: torch.device,
        gain: float = 2.0,
        bf16: bool = False,
        stays: bool = False,
    ) -> None:
        """``bf16``: the product is computed in bfloat16; its result ``stays`` so, or is float32 again."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(seeds, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs, device=device))
        self.gain, self.bf16 = gain, bf16
        self.dtype = torch.bfloat16 if stays else torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in] to [K, B, out]; of numbers [K, B] int64 what their one-hot rows give, looked up."""
        if x.dtype == torch.int64:
            seeds, rows, _ = self.weight.shape
            place = x + rows * torch.arange(seeds, device=x.device).unsqueeze(-1)
            return functional.embedding(place, self.weight.flatten(0, 1)) + self.bias
        if has_place(self.weight):
            y: Tensor = _Product.apply(x, self.weight, self.bias, self.bf16)  # type: ignore[no-untyped-call]
            return y
        if self.bf16:
            bias, x, weight = (tensor.to(torch.bfloat16) for tensor in (self.bias, x, self.weight))
            return torch.baddbmm(bias, x, weight).to(self.dtype)
        return torch.baddbmm(self.bias, x, self.weight)

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Normal with variance gain / inputs, biases 0; 2 suits a ReLU (He et al. 2015), 1 what is linear."""
        scale = math.sqrt(self.gain / self.weight.shape[1])
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].normal_(0.0, scale, generator=generator)
            self.bias.zero_()


def has_place(weight: Tensor) -> bool:
    """Whether a weight's ``grad`` is memory that waits for its gradient (`agents.optimizer.FlatAdam`)."""
    waits = weight.is_leaf and weight.requires_grad and weight.grad is not None
    return waits and torch.is_grad_enabled()


class _Product(torch.autograd.Function):
    """`GroupLinear`'s product, whose weight gradient is written to where the optimizer reads it.

    Autograd would take new memory for it at every step, which is cold and can lie badly: of a layer of
    3136x512 that was half of the time of the product, and of the copy into the optimizer's buffer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bf16: bool) -> Tensor:
        dtype = torch.bfloat16 if bf16 else weight.dtype
        narrow = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(*narrow)
        ctx.weight = weight
        return torch.baddbmm(bias.to(dtype), *narrow).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        narrow = gradient.to(x.dtype)
        # a layer used twice in a loss has its place once: autograd adds up what it is given
        place, ctx.weight.grad = ctx.weight.grad, None
        if place is None or narrow.dtype != place.dtype:
            product = torch.bmm(x.mT, narrow)
            of_weight = product.to(gradient.dtype) if place is None else place.copy_(product)
        else:
            of_weight = torch.bmm(x.mT, narrow, out=place)
        of_x = torch.bmm(narrow, weight.mT).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        return of_x, of_weight, gradient.sum(1, keepdim=True), None


class NarrowLinear(Layer):
    """``y[k] = x[k] W[k]ᵀ + b[k]``: a linear layer a seed with few outputs, a row of weights each.

    The products of a layer of two outputs take five times as long where its weights lie as `GroupLinear`'s.
    """

    def __init__(
        self, seeds: int, inputs: int, outputs: int, device: torch.device, gain: float = 2.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(seeds, outputs, inputs, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs, device=device))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in] to [K, B, out]."""
        y: Tensor = _Rows.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """As `GroupLinear.reset`."""
        scale = math.sqrt(self.gain / self.weight.shape[2])
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].normal_(0.0, scale, generator=generator)
            self.bias.zero_()


class _Rows(torch.autograd.Function):
    """`NarrowLinear`'s product, whose weight gradient comes as its weights lie."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias, x, weight.mT)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if of_x else None,
            torch.bmm(gradient.mT, x) if of_weight else None,
            gradient.sum(1, keepdim=True) if of_bias else None,
        )


class NoisyLinear(Layer):
    """A linear layer a seed whose weights carry learned, factorised Gaussian noise.

    ``y = x (W + Σ ⊙ f(ε)ᵀf(ε')) + b + σ ⊙ f(ε')`` with ``f(ε) = sign(ε)√|ε|``; without noise, W and b
    alone.

    Source: Fortunato et al. 2018, arXiv:1706.10295, equations 9 to 11.
    """

    random = True

    def __init__(
        self, seeds: int, inputs: int, outputs: int, device: torch.device, sigma: float, name: str
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(seeds, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs, device=device))
        self.weight_sigma = nn.Parameter(torch.zeros(seeds, inputs, outputs, device=device))
        self.bias_sigma = nn.Parameter(torch.zeros(seeds, 1, outputs, device=device))
        self.sigma, self.before, self.behind = sigma, f"{name}.in", f"{name}.out"

    def forward(self, x: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        """[K, B, in] to [K, B, out]; noise [K, 1 or B, in] and [..., out], f(ε) of both sides."""
        if self.before not in noise:
            return torch.baddbmm(self.bias, x, self.weight)
        before, behind = noise[self.before], noise[self.behind]
        if before.shape[1] == 1:  # all rows have the same weights, which take one product
            weight = torch.addcmul(self.weight, self.weight_sigma, before.mT * behind)
            return torch.baddbmm(torch.addcmul(self.bias, self.bias_sigma, behind), x, weight)
        noisy = torch.baddbmm(self.bias_sigma, x * before, self.weight_sigma)
        return torch.addcmul(torch.baddbmm(self.bias, x, self.weight), noisy, behind)

    def noise_widths(self) -> dict[str, int]:
        """How many Gaussian numbers each side takes, for a row."""
        _, inputs, outputs = self.weight.shape
        return {self.before: inputs, self.behind: outputs}

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Section 3.2: uniform within 1/√inputs, the noise's scales σ₀/√inputs."""
        bound = 1.0 / math.sqrt(self.weight.shape[1])
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].uniform_(-bound, bound, generator=generator)
                self.bias[k].uniform_(-bound, bound, generator=generator)
            self.weight_sigma.fill_(self.sigma * bound)
            self.bias_sigma.fill_(self.sigma * bound)


class Dropout(Layer):
    """Multiplies by a mask that is drawn outside: 0 with probability p, else 1 / (1 - p).

    Source: Srivastava et al. 2014, Journal of Machine Learning Research 15, section 4, with the factor
    taken at training.
    """

    random = True

    def __init__(self, name: str, width: int, rate: float) -> None:
        super().__init__()
        self.name, self.width, self.rate = name, width, rate

    def forward(self, x: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        """[K, B, width]; as it is where no mask is given."""
        return x * noise[self.name] if self.name in noise else x


class CosineEmbedding(Layer):
    """``φ(τ) = ReLU(Σᵢ cos(π i τ) wᵢ + b)``, i = 0..63: fractions as features.

    Source: Dabney et al. 2018, arXiv:1806.06923, equation 4.
    """

    SIZE = 64

    def __init__(self, seeds: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.linear = GroupLinear(seeds, self.SIZE, width, device)

    def forward(self, taus: Tensor) -> Tensor:
        """[K, B, N] to [K, B, N, width]."""
        waves = math.pi * torch.arange(self.SIZE, device=taus.device)
        features = torch.cos(taus.unsqueeze(-1) * waves).flatten(1, 2)
        return torch.relu(self.linear(features)).view(*taus.shape, -1)


class GroupLayerNorm(Layer):
    """Layer normalisation (Ba et al. 2016) with a gain and a bias of each seed's own."""

    def __init__(self, seeds: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, 1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, width, device=device))
        self.width = (width,)

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, width], normalised over the last axis."""
        return torch.addcmul(self.bias, torch.layer_norm(x, self.width), self.weight)


class ReLU(Layer):
    """The positive part."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.relu(x)


class GroupConv(Layer):
    """A convolution a seed, without padding.

    One call a seed: as groups of one convolution the seeds would gain nothing on a CPU, and have
    other bits than a seed alone. ``scale`` is a factor on the input, taken with the weights, of which
    there are fewer. Parameters are float32 whatever ``dtype`` the products are computed in, which is
    the output's as well; whole numbers up to 256 are exact in bfloat16 too.
    """

    def __init__(
        self,
        seeds: int,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        device: torch.device,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale
        self.dtype, self.memory_format = dtype, memory_format
        self.weight = nn.Parameter(torch.zeros(seeds, outputs, inputs, size, size, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, outputs, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in, H, W] to [K, B, out, (H - size) // stride + 1, ...]."""
        weight = self.weight if self.scale == 1.0 else self.weight * self.scale
        seeds = zip(_each(x), _each(weight), _each(self.bias), strict=True)
        maps = [self._convolve(*seed) for seed in seeds]
        return torch.stack(maps) if len(maps) > 1 else maps[0].unsqueeze(0)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # put in order while they are bytes, then made larger
        x, weight = (
            tensor.contiguous(memory_format=self.memory_format).to(self.dtype)
            for tensor in (x, weight)
        )
        return functional.conv2d(x, weight, bias.to(self.dtype), stride=self.stride)

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """He et al. 2015: normal with variance 2 / inputs; biases 0."""
        _, _, inputs, size, _ = self.weight.shape
        scale = math.sqrt(2.0 / (inputs * size * size))
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].normal_(0.0, scale, generator=generator)
            self.bias.zero_()


def _each(x: Tensor) -> Sequence[Tensor]:
    """The seeds' tensors. One alone is a view whose gradient is a view too, not a copy as unbind's."""
    return [x.squeeze(0)] if len(x) == 1 else x.unbind(0)


class MapNorm(Layer):
    """Layer normalisation of feature maps: over channels and places, as over one long layer."""

    def __init__(self, seeds: int, shape: tuple[int, int, int], device: torch.device) -> None:
        super().__init__()
        self.norm = GroupLayerNorm(seeds, math.prod(shape), device)

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, C, H, W]."""
        return self.norm(x.flatten(2)).view(x.shape)


class Flatten(Layer):
    """Feature maps as one row of float32 numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, C, H, W] to [K, B, C H W]."""
        return x.flatten(2).to(torch.float32)
