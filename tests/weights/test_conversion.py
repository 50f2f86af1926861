"""State dicts under everybody's names become the same variables, or are refused with all that is wrong."""

import jax
import numpy as np
import pytest

from lensjax.errors import UserError
from lensjax.models import BaselineCNN, LensViTPINN, ResNet, ViT
from lensjax.weights import check_whole, convert, to_torch
from lensjax.weights.trees import flatten

torch = pytest.importorskip("torch")
from helpers.weight_sources import (  # noqa: E402
    arrays,
    assert_same,
    dino_vits16,
    hugging_face,
    prefixed,
    torchvision_resnet18,
)
from oracles import torch_models  # noqa: E402 (needs torch)

TINY = {"patch_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "grid": 3}


@pytest.fixture(scope="module")
def resnet18():
    return arrays(torchvision_resnet18())


@pytest.fixture(scope="module")
def dino():
    return arrays(dino_vits16())


@pytest.fixture
def baseline():
    return arrays(torch_models.randomize(torch_models.BaselineCNN(4), 0).state_dict())


@pytest.fixture
def pinn():
    return arrays(torch_models.randomize(torch_models.LensVITPINN(32, 4, **TINY), 0).state_dict())


def shapes_of(module, channels, size, **call):
    x = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    variables = jax.eval_shape(lambda key, x: module.init(key, x, **call), jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


def shapes_in(variables):
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


def test_variables_have_the_paths_and_shapes_of_the_modules(resnet18, dino, baseline, pinn):
    of_resnet18 = shapes_of(ResNet(num_classes=1000), 3, 64, train=False)
    del of_resnet18["params/conv1/bias"]  # torchvision's stem has none
    assert shapes_in(convert(resnet18).variables) == of_resnet18
    assert shapes_in(convert(dino).variables) == shapes_of(ViT(), 3, 224)
    assert shapes_in(convert(baseline).variables) == shapes_of(
        BaselineCNN(width=4), 1, 32, train=False
    )
    small = LensViTPINN(
        width=4, patch_size=8, embedding_size=16, depth=2, num_heads=2, position_grid=3
    )
    assert shapes_in(convert(pinn).variables) == shapes_of(small, 1, 32, train=False)


@pytest.mark.parametrize(
    ("architecture", "module"),
    [
        ("baseline_cnn", torch_models.BaselineCNN),
        ("lens_vit_pinn", torch_models.LensVITPINN),
    ],
)
def test_the_references_own_sizes_are_the_published_ones(architecture, module):
    with torch.device("meta"):
        expected = {
            name: np.broadcast_to(np.float32(0), tensor.shape)
            for name, tensor in module().state_dict().items()
        }
    sizes = check_whole(expected, architecture)
    assert sizes["width"] == 64
    assert sizes.get("image_size", 150) == 150
    assert sizes.get("position_grid", 14) == 14


@pytest.mark.parametrize("stages", [(3, 4, 6, 3), (1, 2)])
def test_the_stages_of_another_resnet_are_seen_and_a_block_with_a_gap_is_not_whole(stages):
    state = arrays(torch_models.BaselineCNN(4, stages).state_dict())
    converted = convert(state)
    assert converted.sizes == {"width": 4, "stage_sizes": stages}
    module = BaselineCNN(width=4, stage_sizes=stages)
    assert shapes_in(converted.variables) == shapes_of(module, 1, 32, train=False)
    del state["resnet.layer1.0.conv2.weight"]
    with pytest.raises(UserError, match=r"resnet\.layer1\.0\.conv2\.weight is missing"):
        convert(state)


@pytest.mark.parametrize(
    ("prefix", "by_hugging_face", "extras"),
    [
        ("", True, {"pooler.dense.weight": np.zeros((2, 2), np.float32)}),
        ("vit.", True, {"classifier.bias": np.zeros(2, np.float32)}),
        ("backbone.", False, {"head.last_layer.weight_g": np.ones((3, 1), np.float32)}),
        ("module.backbone.", False, {}),
    ],
    ids=["Hugging Face", "ViTForImageClassification", "DINO's teacher", "parallel"],
)
def test_every_naming_of_a_vit_gives_equal_variables(dino, prefix, by_hugging_face, extras):
    state = dino
    if by_hugging_face:
        tensors = {name: torch.from_numpy(array) for name, array in dino.items()}
        state = arrays(hugging_face(tensors))
    found = convert(prefixed(prefix, state) | extras)
    assert_same(flatten(found.variables), flatten(convert(dino).variables))
    assert found.names.architecture == "dino_vits16"
    assert set(found.names.extras) == set(extras)
    assert found.names.prefix == prefix


def test_resnet18_keeps_its_classifier_where_it_has_one(resnet18):
    whole = flatten(convert(prefixed("module.", resnet18)).variables)
    headless = {name: array for name, array in resnet18.items() if not name.startswith("fc.")}
    without = flatten(convert(headless).variables)
    assert {*whole} - {*without} == {"params/fc/kernel", "params/fc/bias"}
    with pytest.raises(UserError, match=r"fc\.bias is missing"):
        convert(headless | {"fc.weight": resnet18["fc.weight"]})


@pytest.mark.parametrize("name", ["resnet18", "dino", "baseline", "pinn"])
def test_conversion_and_back_is_bit_exact(request, name):
    state = request.getfixturevalue(name)
    there = convert(state)
    names = there.names
    back = to_torch(there.variables, names.architecture, batch_counts=names.batch_counts)
    assert_same(dict(sorted(back.items())), dict(sorted(state.items())))


def test_all_that_is_wrong_is_said_in_one_message(baseline):
    del baseline["resnet.layer2.0.bn1.bias"]
    baseline["resnet.layer1.0.conv1.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    baseline["resnet.layer9.0.conv1.weight"] = np.zeros((4, 4, 3, 3), np.float32)
    baseline["resnet.bn1.running_mean"] = np.full(4, np.nan, np.float32)
    baseline["resnet.fc.bias"] = np.zeros(3, np.int64)
    baseline["resnet.pool.num_batches_tracked"] = np.array(3)
    with pytest.raises(UserError) as error:
        convert(baseline)
    assert str(error.value).splitlines() == [
        "the weights do not fit baseline_cnn:",
        "  resnet.layer1.0.conv1.weight has shape (4, 4, 1, 1), expected (4, 4, 3, 3)",
        "  resnet.layer9.0.conv1.weight has no place there",
        "  resnet.layer2.0.bn1.bias is missing",
        "  resnet.bn1.running_mean has values that are NaN or infinite",
        "  resnet.fc.bias has type int64, expected float32",
        "  resnet.pool.num_batches_tracked belongs to no running statistics",
    ]


def test_what_is_wrong_is_said_in_the_sources_own_names(dino):
    tensors = {name: torch.from_numpy(array) for name, array in dino.items()}
    theirs = prefixed("vit.", arrays(hugging_face(tensors)))
    del theirs["vit.encoder.layer.3.attention.attention.key.bias"]
    del theirs["vit.encoder.layer.4.intermediate.dense.bias"]
    query = "vit.encoder.layer.5.attention.attention.query.weight"
    theirs[query] = theirs[query][:, :5]
    with pytest.raises(UserError) as error:
        convert(theirs)
    message = str(error.value)
    assert "vit.encoder.layer.3.attention.attention.key.bias is missing" in message
    assert "vit.encoder.layer.4.intermediate.dense.bias is missing" in message
    assert (
        "vit.encoder.layer.5.attention.attention.(query|key|value).weight differ in shape"
        in message
    )
    assert len(message.splitlines()) == 4


def test_another_size_of_vit_or_resnet_is_refused(dino, resnet18):
    wide = dict(dino, pos_embed=np.zeros((1, 785, 384), np.float32))
    with pytest.raises(UserError, match=r"pos_embed has shape \(1, 785, 384\), expected \(1, 197,"):
        convert(wide)
    gray = dict(resnet18)
    gray["conv1.weight"] = gray["conv1.weight"][:, :1]
    gray["conv1.bias"] = np.zeros(64, np.float32)
    with pytest.raises(UserError) as error:
        convert(gray)
    assert "conv1.weight has shape (64, 1, 7, 7), expected (64, 3, 7, 7)" in str(error.value)
    assert "conv1.bias has no place" in str(error.value)


def test_names_of_another_or_no_architecture_are_refused(baseline):
    with pytest.raises(UserError, match=r"those of baseline_cnn, not of resnet18"):
        convert(baseline, "resnet18")
    with pytest.raises(UserError, match=r"\(a\.b, \.\.\.\) are of no known architecture"):
        convert({"a.b": np.zeros(3)})
    with pytest.raises(UserError, match="'resnet50' is no known architecture"):
        convert(baseline, "resnet50")
    with pytest.raises(UserError, match=r"twice, with and without the prefix module\."):
        convert(baseline | prefixed("module.", baseline))
