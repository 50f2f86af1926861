"""The reference's two models as plain PyTorch modules, with torchvision's and DINO's parameter names.

The default sizes are those of the reference; the tests use smaller models.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


STAGES = (2, 2, 2, 2)  # blocks per stage of ResNet18


class ResNet(nn.Module):
    def __init__(self, in_channels, width=64, num_classes=3, stages=STAGES):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        self.num_stages = len(stages)
        for stage, num_blocks in enumerate(stages):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(self.num_stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


class BaselineCNN(nn.Module):
    def __init__(self, width=64, stages=STAGES):
        super().__init__()
        self.resnet = ResNet(1, width, stages=stages)

    def forward(self, x):
        return self.resnet(x)


class Attention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * (dim // self.num_heads) ** -0.5).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, patch_size, dim):
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch_size, patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    def __init__(self, patch_size=16, dim=384, depth=12, num_heads=6, grid=14):
        super().__init__()
        self.patch_size, self.grid = patch_size, grid
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid**2, dim) * 0.02)
        self.blocks = nn.ModuleList([Block(dim, num_heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def positions(self, height, width):
        rows, columns = height // self.patch_size, width // self.patch_size
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        resized = functional.interpolate(square, scale_factor=scale, mode="bicubic")
        assert resized.shape[-2:] == (rows, columns)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], 1)

    def forward(self, x):
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        tokens = tokens + self.positions(*x.shape[-2:])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]


def gradient_input(image, form):
    largest = image.flatten(1).max(1).values.reshape(-1, 1, 1, 1) + 1e-6
    log_squared = torch.log(largest / (image + 1e-6)) ** 2
    (dy,) = torch.gradient(log_squared, dim=2)
    (dx,) = torch.gradient(log_squared, dim=3)
    if form == "gradient_product":
        return torch.tanh(dx * dy)
    (dxdy,) = torch.gradient(dx, dim=2)
    return torch.tanh(dxdy).abs()


class LensVITPINN(nn.Module):
    """The reference's LensVIT_PINN; with `form`, its first attempt, which classifies `gradient_input`."""

    def __init__(self, image_size=150, width=64, dropout=0.3, form=None, stages=STAGES, **vit):
        super().__init__()
        self.image_size, self.form = image_size, form
        self.vit = VisionTransformer(**vit)
        self.dropout = nn.Dropout(dropout)
        self.alpha_proj = nn.Linear(vit.get("dim", 384), image_size * image_size * 2)
        self.cnn = ResNet(2, width, stages=stages)

    def alpha(self, features):
        return self.alpha_proj(features).reshape(-1, self.image_size, self.image_size, 2)

    @staticmethod
    def source(image, alpha):
        theta = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        theta_e = alpha.mean((1, 2, 3)).reshape(-1, 1, 1, 1)
        return torch.clamp(image - theta_e * image / (theta + 1e-6), 0, 149)

    def channel(self, image):
        return image if self.form is None else gradient_input(image, self.form)

    def forward(self, image):
        x = self.channel(image)
        alpha = self.alpha(self.dropout(self.vit(x)))
        return self.cnn(torch.cat([x, self.source(x, alpha)], 1))

    def physics_loss(self, image):
        """Physics loss of a second pass through the ViT, on the image itself and without dropout."""
        alpha = self.alpha(self.vit(image))
        target = image - alpha.mean(-1).unsqueeze(1)
        return functional.mse_loss(self.source(image, alpha), target)


def randomize(module, seed):
    """Draws random weights, biases and running statistics of realistic size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        with torch.no_grad():
            tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            normal(tensor, 0, 1)
            tensor.abs_().add_(0.5)
        elif name.endswith("running_mean"):
            normal(tensor, 0, 0.3)
        elif tensor.ndim >= 2 and "embed" not in name and "token" not in name:
            normal(tensor, 0, 1 / math.sqrt(tensor[0].numel()))
        elif name.endswith("weight") and tensor.ndim == 1:
            normal(tensor, 1, 0.1)
        else:
            normal(tensor, 0, 0.1)
    return module
