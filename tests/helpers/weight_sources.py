"""State dicts with random values in every naming scheme."""

import numpy as np
import torch
from oracles import torch_models


def torchvision_resnet18(seed=0):
    """torchvision's ResNet18: three channels, no bias in the stem, 1000 classes."""
    torch.manual_seed(seed)
    state = torch_models.ResNet(3, 64, 1000).state_dict()
    del state["conv1.bias"]
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_()
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(len(name))
    return dict(state)


def dino_vits16(seed=0):
    """ViT-S/16 of DINO and timm, which use the same names."""
    generator = np.random.default_rng(seed)
    shapes = {name: tensor.shape for name, tensor in vit_module().state_dict().items()}
    return {
        name: torch.from_numpy(generator.standard_normal(shape, np.float32)) for name, shape in shapes.items()
    }


def vit_module():
    with torch.device("meta"):
        vit = torch_models.VisionTransformer()
        vit.patch_embed.proj = torch.nn.Conv2d(3, 384, 16, 16)
    return vit


def to_hugging_face(state):
    """Converts DINO's weights to those of transformers' ViTModel, with separate query, key and value."""
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for part in ("weight", "bias"):
        renamed[f"embeddings.patch_embeddings.projection.{part}"] = state[f"patch_embed.proj.{part}"]
        for block in range(12):
            dino, theirs = f"blocks.{block}", f"encoder.layer.{block}"
            query, key, value = state[f"{dino}.attn.qkv.{part}"].chunk(3)
            renamed |= {
                f"{theirs}.attention.attention.value.{part}": value,
                f"{theirs}.attention.attention.query.{part}": query,
                f"{theirs}.attention.attention.key.{part}": key,
                f"{theirs}.attention.output.dense.{part}": state[f"{dino}.attn.proj.{part}"],
                f"{theirs}.intermediate.dense.{part}": state[f"{dino}.mlp.fc1.{part}"],
                f"{theirs}.output.dense.{part}": state[f"{dino}.mlp.fc2.{part}"],
                f"{theirs}.layernorm_before.{part}": state[f"{dino}.norm1.{part}"],
                f"{theirs}.layernorm_after.{part}": state[f"{dino}.norm2.{part}"],
            }
    return renamed


def add_prefix(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def to_numpy(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_same(one, other):
    """Asserts that names, shapes and dtypes are equal and arrays are bit-identical."""
    assert one.keys() == other.keys()
    for name in one:
        left, right = np.asarray(one[name]), np.asarray(other[name])
        assert (left.shape, left.dtype) == (right.shape, right.dtype), name
        assert left.tobytes() == right.tobytes(), name
