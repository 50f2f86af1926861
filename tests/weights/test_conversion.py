"""Conversion of state dicts in every naming scheme, and its error messages."""

import jax
import numpy as np
import pytest

from lensjax.errors import UserError
from lensjax.models import BaselineCNN, LensViTPINN, ResNet, ViT
from lensjax.weights import check_complete, convert_state_dict, load_state_dict, to_state_dict
from lensjax.weights.trees import flatten

torch = pytest.importorskip("torch")
from helpers.weight_sources import (  # noqa: E402
    add_prefix,
    assert_same,
    dino_vits16,
    to_hugging_face,
    to_numpy,
    torchvision_resnet18,
)
from oracles import torch_models  # noqa: E402 (needs torch)

TINY = {"patch_size": 8, "dim": 16, "depth": 2, "num_heads": 2, "grid": 3}


@pytest.fixture(scope="module")
def resnet18():
    return to_numpy(torchvision_resnet18())


@pytest.fixture(scope="module")
def dino():
    return to_numpy(dino_vits16())


@pytest.fixture
def baseline():
    return to_numpy(torch_models.randomize(torch_models.BaselineCNN(4), 0).state_dict())


@pytest.fixture
def pinn():
    return to_numpy(torch_models.randomize(torch_models.LensVITPINN(32, 4, **TINY), 0).state_dict())


def shapes_of(module, channels, size, **call):
    x = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    variables = jax.eval_shape(lambda key, x: module.init(key, x, **call), jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


def shapes_in(variables):
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


def test_variables_have_paths_and_shapes_of_modules(resnet18, dino, baseline, pinn):
    resnet18_shapes = shapes_of(ResNet(num_classes=1000), 3, 64, train=False)
    del resnet18_shapes["params/conv1/bias"]  # torchvision's stem has no bias
    assert shapes_in(convert_state_dict(resnet18).variables) == resnet18_shapes
    assert shapes_in(convert_state_dict(dino).variables) == shapes_of(ViT(), 3, 224)
    assert shapes_in(convert_state_dict(baseline).variables) == shapes_of(
        BaselineCNN(width=4), 1, 32, train=False
    )
    small = LensViTPINN(width=4, patch_size=8, embedding_size=16, depth=2, num_heads=2, position_grid=3)
    assert shapes_in(convert_state_dict(pinn).variables) == shapes_of(small, 1, 32, train=False)


@pytest.mark.parametrize(
    ("architecture", "module"),
    [("baseline_cnn", torch_models.BaselineCNN), ("lens_vit_pinn", torch_models.LensVITPINN)],
)
def test_reference_has_the_published_sizes(architecture, module):
    with torch.device("meta"):
        expected = {
            name: np.broadcast_to(np.float32(0), tensor.shape)
            for name, tensor in module().state_dict().items()
        }
    sizes = check_complete(expected, architecture)
    assert sizes["width"] == 64
    assert sizes.get("image_size", 150) == 150
    assert sizes.get("position_grid", 14) == 14


@pytest.mark.parametrize("stages", [(3, 4, 6, 3), (1, 2)])
def test_resnet_stages_are_inferred_and_gaps_rejected(stages):
    state = to_numpy(torch_models.BaselineCNN(4, stages).state_dict())
    converted = convert_state_dict(state)
    assert converted.sizes == {"width": 4, "stage_sizes": stages}
    module = BaselineCNN(width=4, stage_sizes=stages)
    assert shapes_in(converted.variables) == shapes_of(module, 1, 32, train=False)
    del state["resnet.layer1.0.conv2.weight"]
    with pytest.raises(UserError, match=r"resnet\.layer1\.0\.conv2\.weight is missing"):
        convert_state_dict(state)


@pytest.mark.parametrize(
    ("prefix", "is_hugging_face", "unused"),
    [
        ("", True, {"pooler.dense.weight": np.zeros((2, 2), np.float32)}),
        ("vit.", True, {"classifier.bias": np.zeros(2, np.float32)}),
        ("backbone.", False, {"head.last_layer.weight_g": np.ones((3, 1), np.float32)}),
        ("module.backbone.", False, {}),
    ],
    ids=["Hugging Face", "ViTForImageClassification", "DINO's teacher", "parallel"],
)
def test_all_naming_schemes_give_equal_variables(dino, prefix, is_hugging_face, unused):
    state = dino
    if is_hugging_face:
        tensors = {name: torch.from_numpy(array) for name, array in dino.items()}
        state = to_numpy(to_hugging_face(tensors))
    found = convert_state_dict(add_prefix(prefix, state) | unused)
    assert_same(flatten(found.variables), flatten(convert_state_dict(dino).variables))
    assert found.source.architecture == "dino_vits16"
    assert set(found.source.unused) == set(unused)
    assert "".join([*found.source.wrappers, found.source.prefix]) == prefix


@pytest.mark.parametrize("prefix", ["net.", "encoder.", "model.encoder_q."])
def test_any_prefix_is_removed(baseline, prefix):
    expected = flatten(convert_state_dict(baseline).variables)
    found = convert_state_dict(add_prefix(prefix, baseline))
    assert_same(flatten(found.variables), expected)
    assert found.source.prefix == prefix
    del baseline["resnet.fc.bias"]
    with pytest.raises(UserError, match=rf"{prefix}resnet\.fc\.bias is missing"):
        convert_state_dict(add_prefix(prefix, baseline))


def test_wrapper_modules_inside_names_are_removed(pinn):
    expected = flatten(convert_state_dict(pinn).variables)
    wrapped = {
        "_orig_mod." + name.replace("vit.", "vit._orig_mod.").replace("layer1.", "module.layer1."): array
        for name, array in pinn.items()
    }
    found = convert_state_dict(wrapped | {"n_averaged": np.array(7)})
    assert_same(flatten(found.variables), expected)
    assert found.source.wrappers == ("module.", "_orig_mod.")
    assert found.source.unused == {"n_averaged": "the counter of AveragedModel"}


def test_one_of_several_networks_must_be_chosen(baseline):
    other = {name: 2 * array for name, array in baseline.items()}
    both = add_prefix("student.", baseline) | add_prefix("module.teacher.", other) | {"queue": np.zeros(3)}
    with pytest.raises(UserError, match=r"2 networks, in student\. and teacher\.; .* --prefix teacher$"):
        convert_state_dict(both)
    for prefix, state in (("student", baseline), ("module.teacher.", other)):
        found = convert_state_dict(both, prefix=prefix)
        assert_same(flatten(found.variables), flatten(convert_state_dict(state).variables))
        assert set(found.source.unused) > {"queue"}
    top = baseline | add_prefix("ema.", other)
    found = convert_state_dict(top, prefix=".")
    assert_same(flatten(found.variables), flatten(convert_state_dict(baseline).variables))
    with pytest.raises(UserError, match=r"no name begins with techer\.; the names are"):
        convert_state_dict(both, prefix="techer")
    with pytest.raises(UserError, match="projector is unexpected"):
        convert_state_dict(add_prefix("net.", baseline) | {"projector": np.zeros(3)})
    assert convert_state_dict(add_prefix("net.", baseline) | {"projector": np.zeros(3)}, prefix="net")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.0.ls1.gamma": (384,)}, "those of DINOv2"),
        ({"cls_token": (1, 1, 768)}, "a ViT with embedding size 768, patch size 16 and 12 blocks"),
        ({"patch_embed.proj.weight": (384, 3, 8, 8)}, "patch size 8"),
        ({"blocks.12.norm1.weight": (384,)}, "13 blocks"),
        ({"layer1.0.conv3.weight": (256, 64, 1, 1)}, "bottleneck blocks, such as ResNet50"),
    ],
)
def test_other_networks_are_named_in_one_line(dino, resnet18, changes, message):
    state = resnet18 if "layer1.0.conv3.weight" in changes else dino
    changed = {name: np.broadcast_to(np.float32(0), shape) for name, shape in changes.items()}
    with pytest.raises(UserError, match=message) as error:
        convert_state_dict(add_prefix("net.", state | changed))
    assert "\n" not in str(error.value)


def test_many_problems_are_counted_in_one_line(dino):
    part = dict(list(dino.items())[:40])
    with pytest.raises(UserError) as error:
        convert_state_dict(part)
    assert str(error.value) == (
        "the weights do not match dino_vits16: 110 arrays are missing and 0 are unexpected or of the wrong "
        f"shape or type ({list(dino)[40]} is missing; ...); it may be one part of a sharded checkpoint"
    )


def test_resnet18_keeps_its_optional_classifier(resnet18):
    complete = flatten(convert_state_dict(add_prefix("module.", resnet18)).variables)
    headless = {name: array for name, array in resnet18.items() if not name.startswith("fc.")}
    without = flatten(convert_state_dict(headless).variables)
    assert {*complete} - {*without} == {"params/fc/kernel", "params/fc/bias"}
    with pytest.raises(UserError, match=r"fc\.bias is missing"):
        convert_state_dict(headless | {"fc.weight": resnet18["fc.weight"]})


@pytest.mark.parametrize("name", ["resnet18", "dino", "baseline", "pinn"])
def test_round_trip_is_bitwise_exact(request, name):
    state = request.getfixturevalue(name)
    converted = convert_state_dict(state)
    source = converted.source
    back = to_state_dict(converted.variables, source.architecture, batch_counts=source.batch_counts)
    assert_same(dict(sorted(back.items())), dict(sorted(state.items())))


def test_all_problems_are_in_one_message(baseline):
    del baseline["resnet.layer2.0.bn1.bias"]
    baseline["resnet.layer1.0.conv1.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    baseline["resnet.layer9.0.conv1.weight"] = np.zeros((4, 4, 3, 3), np.float32)
    baseline["resnet.bn1.running_mean"] = np.full(4, np.nan, np.float32)
    baseline["resnet.fc.bias"] = np.zeros(3, np.int64)
    baseline["resnet.pool.num_batches_tracked"] = np.array(3)
    with pytest.raises(UserError) as error:
        convert_state_dict(baseline)
    assert str(error.value).splitlines() == [
        "the weights do not match baseline_cnn:",
        "  resnet.layer1.0.conv1.weight has shape (4, 4, 1, 1), expected (4, 4, 3, 3)",
        "  resnet.layer9.0.conv1.weight is unexpected",
        "  resnet.layer2.0.bn1.bias is missing",
        "  resnet.bn1.running_mean contains NaN or infinite values",
        "  resnet.fc.bias has type int64, expected float32",
        "  resnet.pool.num_batches_tracked belongs to no running statistics",
    ]


def test_problems_are_reported_by_source_names(dino):
    tensors = {name: torch.from_numpy(array) for name, array in dino.items()}
    state = add_prefix("vit.", to_numpy(to_hugging_face(tensors)))
    del state["vit.encoder.layer.3.attention.attention.key.bias"]
    del state["vit.encoder.layer.4.intermediate.dense.bias"]
    query = "vit.encoder.layer.5.attention.attention.query.weight"
    state[query] = state[query][:, :5]
    with pytest.raises(UserError) as error:
        convert_state_dict(state)
    message = str(error.value)
    assert "vit.encoder.layer.3.attention.attention.key.bias is missing" in message
    assert "vit.encoder.layer.4.intermediate.dense.bias is missing" in message
    assert "vit.encoder.layer.5.attention.attention.(query|key|value).weight differ in shape" in message
    assert len(message.splitlines()) == 4


def test_other_sizes_of_fixed_networks_are_rejected(dino, resnet18):
    wide = dict(dino, pos_embed=np.zeros((1, 785, 384), np.float32))
    with pytest.raises(UserError, match=r"pos_embed has shape \(1, 785, 384\), expected \(1, 197,"):
        convert_state_dict(wide)
    gray = dict(resnet18)
    gray["conv1.weight"] = gray["conv1.weight"][:, :1]
    gray["conv1.bias"] = np.zeros(64, np.float32)
    with pytest.raises(UserError) as error:
        convert_state_dict(gray)
    assert "conv1.weight has shape (64, 1, 7, 7), expected (64, 3, 7, 7)" in str(error.value)
    assert "conv1.bias is unexpected" in str(error.value)


def test_names_of_wrong_architecture_are_rejected(baseline):
    with pytest.raises(UserError, match=r"belong to baseline_cnn, not to resnet18"):
        convert_state_dict(baseline, "resnet18")
    with pytest.raises(UserError, match=r"unknown architecture with the names a\.b, \.\.\."):
        convert_state_dict({"a.b": np.zeros(3)})
    for function, *rest in (
        (convert_state_dict,),
        (load_state_dict, {}),
        (to_state_dict,),
        (check_complete,),
    ):
        with pytest.raises(UserError, match="unknown architecture 'resnet50'; expected resnet18 or"):
            function(baseline, "resnet50", *rest)
    with pytest.raises(UserError, match=r"both with and without the prefix module\."):
        convert_state_dict(baseline | add_prefix("module.", baseline))
