"""LPIPS scores as its definition says; whatever it or rFID lacks is named with the way to get it.

torchvision is not needed: where it is missing, a small package of its name, which knows AlexNet
and VGG16 as torchvision builds them, is put on the path of the processes that are started here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchmetrics")

TORCHVISION = """
import torch
from torch import nn

def alexnet(weights=None):
    assert weights is None
    layers = []
    for i, o, k, s, p, pool in ((3, 64, 11, 4, 2, 1), (64, 192, 5, 1, 2, 1), (192, 384, 3, 1, 1, 0),
                                (384, 256, 3, 1, 1, 0), (256, 256, 3, 1, 1, 1)):
        layers += [nn.Conv2d(i, o, k, s, p), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] * pool
    return _with(layers)

def vgg16(weights=None):
    assert weights is None
    layers, i = [], 3
    for o in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(i, o, 3, 1, 1), nn.ReLU(inplace=True)] if o else [nn.MaxPool2d(2, 2)]
        i = o or i
    return _with(layers)

# torchmetrics imports other names for other measures.
resnet50 = VGG16_Weights = None

def _with(layers):
    model = nn.Module()
    model.features = nn.Sequential(*layers)
    return model
"""
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
OPEN = """
import torch
from latentcli.core.errors import LatentCliError
from latentcli.metrics.measures import open_measures, open_set_measures
for name, weights in {cases!r}:
    try:
        open_measures([name], torch.device("cpu"), weights)
        open_set_measures([name], torch.device("cpu"), weights)
        print("opened")
    except LatentCliError as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""
SCORE = """
import torch
from latentcli.metrics.measures import open_measures
torch.manual_seed(5)
expected = torch.rand(3)
for name in ("lpips", "lpips_vgg"):
    torch.manual_seed(5)
    [measure] = open_measures([name], torch.device("cpu"), {name: name + ".pth"})
    assert torch.equal(torch.rand(3), expected), "opening a measure moved the random numbers"
    least = measure.least_side
    small = torch.zeros(1, 3, least, least + 40, dtype=torch.uint8)
    assert measure.score(small, small).tolist() == [0]
    try:
        measure.score(small[:, :, 1:], small[:, :, 1:])
    except ValueError as error:
        assert "LPIPS needs at least" in str(error)
    else:
        raise AssertionError("a side that is too short was taken")
    a, b = torch.load(name + ".pt")
    one = torch.cat([measure.score(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    torch.save((measure.score(a, b), one, measure.score(a[:0], b[:0])), name + ".out")
"""
NETS = {"lpips": "alexnet", "lpips_vgg": "vgg16"}


@pytest.fixture(scope="module")
def torchvision(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for the path of Python, empty where torchvision is installed."""
    folder = tmp_path_factory.mktemp("packages")
    if find_spec("torchvision") is None:
        (folder / "torchvision").mkdir()
        (folder / "torchvision/__init__.py").write_text("from torchvision import models\n")
        (folder / "torchvision/transforms.py").write_text("")
        boxes = [f"{kind}box_iou" for kind in ("", "distance_", "generalized_", "complete_")]
        (folder / "torchvision/ops.py").write_text(" = ".join((*boxes, "None")) + "\n")
        (folder / "torchvision/models.py").write_text(TORCHVISION)
    return str(folder)


def python(code: str, packages: str, cache: Path) -> str:
    """What a process prints that reaches no network."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"}
    environment |= nowhere | {"PYTHONPATH": packages, "TORCH_HOME": str(cache)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cache, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def opened(
    names: list[str], packages: str, cache: Path, *blocked: str, **weights: str
) -> list[str]:
    """What is said of each measure in turn."""
    code = OPEN.format(cases=[(name, weights) for name in names])
    return python(BLOCKED.format(blocked=blocked) + code, packages, cache).splitlines()


@pytest.mark.parametrize("package", ["torchmetrics", "torchvision"])
def test_a_missing_package_is_named(package: str, torchvision: str, tmp_path: Path) -> None:
    names = ["lpips", "lpips_vgg", "rfid"]
    said = opened(names, torchvision, tmp_path, package)
    for name, line in zip(names, said, strict=True):
        start = f"UsageError The measure {name} needs {package}, which is not installed"
        assert line.startswith(start)
        assert line.endswith("pip install 'latentcli[metrics]'")


def test_torch_fidelity_is_missed_by_rfid(torchvision: str, tmp_path: Path) -> None:
    [said] = opened(["rfid"], torchvision, tmp_path, "torch_fidelity")
    assert "The measure rfid needs torch-fidelity, which is not installed" in said


def test_a_torchvision_of_another_torch_is_told_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    [said] = opened(["lpips"], str(tmp_path), tmp_path)
    assert "torchvision, which is installed but does not load beside torch" in said
    assert "nms does not exist" in said


def test_weights_that_cannot_be_fetched(torchvision: str, tmp_path: Path) -> None:
    for name, said in zip(NETS, opened(list(NETS), torchvision, tmp_path), strict=True):
        file = {"lpips": "alexnet-owt-7be5be79.pth", "lpips_vgg": "vgg16-397923af.pth"}[name]
        assert said.startswith("WeightsError") and "could not be fetched" in said
        assert f"Fetch https://download.pytorch.org/models/{file}" in said
        assert str(tmp_path / "hub/checkpoints" / file) in said
        assert f"--metric-weights {name}=PATH" in said
    assert not list((tmp_path / "hub/checkpoints").iterdir())


class Bomb:
    """Makes a file that runs code where it is unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_weights_that_are_no_weights(torchvision: str, tmp_path: Path) -> None:
    """And no file runs code."""
    missing, damaged, other, trap = (str(tmp_path / f"{i}.pth") for i in range(4))
    trace = tmp_path / "trace"
    Path(damaged).write_bytes(b"\x80garbage")
    torch.save({"features.0.weight": torch.zeros(2)}, other)
    torch.save({"features.0.weight": Bomb(trace)}, trap)
    cases = [("lpips", {"lpips": path}) for path in (missing, damaged, other, trap)]
    said = python(OPEN.format(cases=cases), torchvision, tmp_path).splitlines()
    assert all(line.startswith("WeightsError") for line in said)
    assert f"lpips={missing} is not a file; it must be the weights of AlexNet" in said[0]
    assert f"{damaged}, the weights of AlexNet for lpips, cannot be read as tensors" in said[1]
    assert f"{other} does not hold the weights of AlexNet: features.0.weight has the" in said[2]
    assert f"{trap}, the weights of AlexNet for lpips, cannot be read as tensors" in said[3]
    assert not trace.exists()


def features(name: str) -> nn.Sequential:
    """The first layers of AlexNet or VGG16, with weights of about unit gain."""
    space: dict[str, object] = {}
    exec(TORCHVISION, space)
    torch.manual_seed(0)
    layers: nn.Sequential = space[NETS[name]]().features  # type: ignore[operator]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.05)
    return layers


def formula(name: str, layers: nn.Sequential, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS 0.1 of uint8 images, in float64; the last weights are those that torchmetrics has."""
    from torchmetrics.functional.image import lpips

    net = {"lpips": "alex", "lpips_vgg": "vgg"}[name]
    folder = Path(lpips.__file__).parent / "lpips_models"
    linear = torch.load(folder / f"{net}.pth", map_location="cpu", weights_only=True)
    ends = {"lpips": (1, 4, 7, 9, 11), "lpips_vgg": (3, 8, 15, 22, 29)}[name]
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)
    x, y = ((image.double() / 127.5 - 1 - shift) / scale for image in (a, b))
    total = torch.zeros(len(a), dtype=torch.float64)
    for i, layer in enumerate(layers.double()):
        x, y = layer(x), layer(y)
        if i in ends:
            weight = linear[f"lin{ends.index(i)}.model.1.weight"].double()
            ways = [v / v.square().sum(1, keepdim=True).add(1e-8).sqrt() for v in (x, y)]
            total += ((ways[0] - ways[1]).square() * weight.view(-1, 1, 1)).sum(1).mean((1, 2))
    return total.detach()


def test_lpips_equals_its_definition(torchvision: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = {}
    for name, size in (("lpips", (96, 81)), ("lpips_vgg", (40, 33))):
        a = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
        b = (a.int() + torch.randint(-40, 40, a.shape)).clamp(0, 255).byte()
        b[2] = a[2]
        torch.save((a, b), tmp_path / f"{name}.pt")
        layers = features(name)
        weights = {f"features.{key}": value for key, value in layers.state_dict().items()}
        # As in the published file, which has the layers behind the features too.
        torch.save(weights | {"classifier.1.weight": torch.zeros(2)}, tmp_path / f"{name}.pth")
        expected[name] = formula(name, layers, a, b).tolist()
    python(SCORE, torchvision, tmp_path)
    for name, values in expected.items():
        scores, one_by_one, none = torch.load(tmp_path / f"{name}.out")
        assert values[0] > 0.001
        assert scores.dtype == torch.float64
        assert scores.tolist() == pytest.approx(values, rel=1e-4, abs=1e-9)
        assert one_by_one.tolist() == pytest.approx(values, rel=1e-4, abs=1e-9)
        assert scores[2] == 0
        assert none.shape == (0,)
