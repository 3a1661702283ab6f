"""The peer of our step: SACL + XD in PyTorch, slimmed by masking the weights."""

import torch
from torch import nn

_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


class MaskedConv(nn.Conv2d):
    """A convolution without bias that keeps its leading channels while `slim` is on."""

    def __init__(self, inputs, outputs, size, stride, groups, kept_inputs, kept_outputs):
        super().__init__(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        mask = torch.zeros_like(self.weight)
        mask[:kept_outputs, : kept_inputs if groups == 1 else 1] = 1
        self.register_buffer("mask", mask)
        self.slim = False

    def forward(self, x):
        weight = self.weight * self.mask if self.slim else self.weight
        return self._conv_forward(x, weight, None)


class MobileNetV1(nn.Module):
    """MobileNet-V1 at `host` times the published width, with a slim network of `slim` times."""

    def __init__(self, host, slim):
        super().__init__()
        layers, inputs = [], (3, 3)
        outputs = (int(32 * host), int(32 * slim))
        layers += self._unit(inputs, outputs, 3, 2, 1)
        for channels, stride in _BLOCKS:
            inputs, outputs = outputs, (int(channels * host), int(channels * slim))
            layers += self._unit(inputs, inputs, 3, stride, inputs[0])
            layers += self._unit(inputs, outputs, 1, 1, 1)
        self.layers, self.features = nn.Sequential(*layers), outputs[0]

    @staticmethod
    def _unit(inputs, outputs, size, stride, groups):
        conv = MaskedConv(inputs[0], outputs[0], size, stride, groups, inputs[1], outputs[1])
        return [conv, nn.BatchNorm2d(outputs[0]), nn.ReLU6(inplace=True)]

    def forward(self, x, slim):
        for layer in self.layers:
            if isinstance(layer, MaskedConv):
                layer.slim = slim
        return self.layers(x).mean(dim=(2, 3))


class SACLXD(nn.Module):
    """One training step as the paper's listing has it: four passes and the D x D losses."""

    def __init__(self, host, slim, dim, alpha=0.9, lambd=0.005):
        super().__init__()
        self.encoder = MobileNetV1(host, slim)
        self.projector = nn.Sequential(
            nn.Linear(self.encoder.features, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(True),
            nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(True),
            nn.Linear(dim, dim, bias=False),
        )  # fmt: skip
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.alpha, self.lambd = alpha, lambd

    def embed(self, x, slim):
        return self.norm(self.projector(self.encoder(x, slim)))

    def forward(self, x_a, x_b):
        z_a, z_b = self.embed(x_a, False), self.embed(x_b, True)
        with torch.no_grad():
            frozen_b, frozen_a = self.embed(x_b, False), self.embed(x_a, True)
        on, off = _sums(z_a, z_b)
        xd = 0.5 * self.lambd * (_sums(z_a, frozen_a)[1] + _sums(z_b, frozen_b)[1])
        return self.alpha * (on + self.lambd * off) + (1 - self.alpha) * xd


def _sums(a, b):
    c = a.T @ b / len(a)
    diagonal = torch.diagonal(c)
    return (diagonal - 1).pow(2).sum(), c.pow(2).sum() - diagonal.pow(2).sum()


def build_step(host, slim, size, batch, dim, channels_last):
    """A function that trains one step on made-up pixels."""
    model = SACLXD(host, slim, dim).train()
    views = [torch.randn(batch, 3, size, size) for _ in range(2)]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        views = [x.to(memory_format=torch.channels_last) for x in views]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(*views).backward()
        optimizer.step()

    return step
