"""The UNet: the papers' sizes, homogeneity, shifts, independence of the batch, export, bad input;
weights on disk."""

import itertools
import json

import pytest
import torch
from nets import noise, settled

from helpers import models
from helpers.denoisers.networks.unet import OPTIONS, BiasFreeNorm, UNet


def ready(**options) -> UNet:
    return settled(UNet(**{"blocks": 2, "channels": 6, **options}))


@pytest.mark.parametrize(
    ("blocks", "count"), [(1, 366_080), (2, 1_825_024), (3, 7_659_264), (4, 30_993_152)]
)
def test_sizes_of_kadkhodaie_et_al(blocks, count):
    assert sum(p.numel() for p in UNet(blocks).parameters()) == count


@pytest.mark.parametrize(
    ("blocks", "count"), [(1, 93_248), (2, 458_560), (3, 1_918_272), (4, 7_754_048)]
)
def test_sizes_of_levine_and_weiss(blocks, count):
    net = UNet(blocks, channels=32, image_channels=3, normalisation="batch")
    assert sum(p.numel() for p in net.parameters()) == count


def test_names_of_the_released_checkpoints():
    """Conv, norm, ReLU in sequences numbered from the full resolution; norms hold `gammas` and
    `running_sd`."""
    state = UNet(2, channels=4).state_dict()
    stage = [
        f"{i}.{w}" for i, ws in ((0, ["weight"]), (1, NORM), (3, ["weight"]), (4, NORM)) for w in ws
    ]
    want = {f"{s}.{k}" for s in ("encoder.1", "mid_block", "decoder.1") for k in stage}
    want |= {f"encoder.0.{k}" for k in ("0.weight", "2.weight", "3.gammas", "3.running_sd")}
    want |= {f"decoder.0.{k}" for k in stage[:4]} | {"upsample.0.weight", "upsample.1.weight"}
    assert set(state) == want
    assert (
        state["mid_block.1.gammas"].shape == state["mid_block.1.running_sd"].shape == (1, 16, 1, 1)
    )


NORM = ["gammas", "running_sd"]
STRUCTURES = list(itertools.product(OPTIONS["pooling"], OPTIONS["upsampling"], OPTIONS["skip"]))


@pytest.mark.parametrize(("pooling", "upsampling", "skip"), STRUCTURES)
@pytest.mark.parametrize("normalisation", ["bias-free", "none"])
def test_bias_free_is_homogeneous(pooling, upsampling, skip, normalisation):
    net = ready(pooling=pooling, upsampling=upsampling, skip=skip, normalisation=normalisation)
    y = noise(3, 1, 16, 16)
    for c in (0.01, 3.0, 255.0):
        error = (net(c * y, 1.0) - c * net(y, 1.0)).abs().max() / (c * net(y, 1.0).abs().max())
        assert error < 1e-5


def test_conditioned_leaves_the_image_alone_at_small_noise_and_hears_the_level():
    net, y = ready(blind=False), noise(3, 1, 16, 16)
    torch.testing.assert_close(net(y, 1e-5), y, rtol=0, atol=1e-3)
    assert not torch.allclose(net(y, 0.2), net(y, 1.0))
    blind = ready()
    assert torch.equal(blind(y, 0.2), blind(y, 1.0))


@pytest.mark.parametrize("options", [{"bias": True}, {"normalisation": "batch"}])
def test_a_bias_breaks_homogeneity(options):
    net, y = ready(**options), noise(3, 1, 16, 16)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.fill_(0.1)
    assert (net(3 * y, 1.0) - 3 * net(y, 1.0)).abs().max() > 1e-2


def test_a_bias_free_denoiser_is_its_jacobian():
    net, y = ready().double(), noise(1, 8, 8).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, 1.0), y).reshape(64, 64)
    torch.testing.assert_close(jacobian @ y.flatten(), net(y, 1.0).flatten())


@pytest.mark.parametrize("pooling", OPTIONS["pooling"])
@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_circular_padding_commutes_with_shifts(pooling, upsampling):
    net, y = ready(padding="circular", pooling=pooling, upsampling=upsampling), noise(2, 1, 16, 16)
    shift, axes = ((3, -5) if pooling == "none" else (4, -8)), (2, 3)
    torch.testing.assert_close(
        net(y.roll(shift, axes), 1.0), net(y, 1.0).roll(shift, axes), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("window", [2, 3, 4, 5])
@pytest.mark.parametrize("pooling", OPTIONS["pooling"])
def test_wide_windows_still_halve_and_commute_with_shifts(pooling, window):
    net, y = (
        ready(blocks=1, window=window, padding="circular", pooling=pooling),
        noise(2, 1, 16, 16),
    )
    by_two, by_one = ((net(y.roll(s, 2), 1.0) - net(y, 1.0).roll(s, 2)).abs().max() for s in (2, 1))
    assert by_two < 1e-5 and (by_one < 1e-5) == (pooling == "none")


@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_windows_average_as_the_released_code_does(window):
    x = noise(1, 6, 16, 16)
    want = torch.nn.functional.avg_pool2d(x, window, stride=2, padding=(window - 1) // 2)
    torch.testing.assert_close(UNet(1, channels=6, window=window).downsample[0](x), want)


def test_zero_padding_does_not_commute_with_shifts():
    net, y = ready(), noise(2, 1, 16, 16)
    assert (net(y.roll(4, 2), 1.0) - net(y, 1.0).roll(4, 2)).abs().max() > 1e-3


@pytest.mark.parametrize("normalisation", OPTIONS["normalisation"])
def test_rows_do_not_see_each_other_in_evaluation_mode(normalisation):
    net, y = ready(normalisation=normalisation, blind=False), noise(5, 1, 16, 16)
    sigma = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0])
    one_by_one = torch.cat([net(y[i : i + 1], sigma[i]) for i in range(5)])
    torch.testing.assert_close(net(y, sigma), one_by_one, rtol=1e-5, atol=1e-5)


def test_gray_images_need_no_channel_axis_and_dtype_is_kept():
    net, y = ready(), noise(3, 16, 16)
    torch.testing.assert_close(net(y, 1.0), net(y[:, None], 1.0)[:, 0])
    assert net(y.double(), 1.0).dtype == torch.float64


def test_seed_decides_the_weights_and_leaves_the_global_generator():
    before = torch.get_rng_state()
    a, b, c = (UNet(1, channels=4, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["mid_block.0.weight"], c["mid_block.0.weight"])


def test_arguments_build_the_network_again():
    net = UNet(2, channels=5, pooling="max", blind=False, seed=7)
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.parameters(), UNet(**net.arguments).parameters(), strict=True)
    )


def test_bias_free_norm_divides_by_the_standard_deviation_and_keeps_the_mean():
    norm, x = BiasFreeNorm(4), 3 + 2 * noise(8, 4, 6, 6)
    sd = x.transpose(0, 1).flatten(1).std(1, correction=0).view(1, 4, 1, 1)
    torch.testing.assert_close(norm(x), norm.gammas * x / sd, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_sd, 0.9 + 0.1 * sd, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalisation", OPTIONS["normalisation"])
def test_trains_in_bfloat16(normalisation):
    net, y = UNet(1, channels=4, normalisation=normalisation), noise(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        net(y, 1.0).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalisation": "none", "bias": True, "blind": False},
        {"pooling": "none", "padding": "circular"},
    ]
    + [{"upsampling": u, "pooling": p} for u, p in (("nearest", "max"), ("bilinear", "strided"))],
)
def test_export_equals_torch(options, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, path, batch = ready(**options), tmp_path / "net.onnx", torch.export.Dim("batch")
    arguments = (noise(2, 28, 28), torch.tensor(0.5))
    torch.onnx.export(
        net, arguments, path, dynamo=True, external_data=False, verbose=False,
        input_names=["y", "sigma"], dynamic_shapes=({0: batch}, None),
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 3, 16):
        y = noise(n, 28, 28, seed=n)
        for sigma in (0.1, 2.0):
            given = {"y": y.numpy(), "sigma": torch.tensor(sigma).numpy()}
            (x_hat,) = session.run(None, given)
            with torch.no_grad():
                torch.testing.assert_close(
                    torch.from_numpy(x_hat), net(y, sigma), rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 6}, "blocks is 6: choose 1 to 5"),
        ({"blocks": 0}, "blocks is 0"),
        ({"channels": 2.5}, "channels is 2.5"),
        ({"data_std": 0.0}, "data_std is 0.0: pass the standard deviation"),
        ({"image_channels": 4}, "image_channels is 4: choose 1 for gray or 3 for colour"),
        ({"window": 1}, "window is 1: choose 2 to 5"),
        *(
            ({name: "wrong"}, f"{name} is 'wrong': choose one of {', '.join(c)}")
            for name, c in OPTIONS.items()
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(**options)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (
            {"blocks": 3},
            (2, 28, 32),
            "height is 28: 3 poolings need a multiple of 8; pad the images to 32",
        ),
        ({"blocks": 3}, (2, 1, 32, 28), "width is 28: .* or take fewer blocks"),
        (
            {"blocks": 1},
            (2, 3, 28, 28),
            r"y has shape \(2, 3, 28, 28\): this network takes \(batch, 1, H, W\) or",
        ),
        ({"blocks": 1, "image_channels": 3}, (2, 28, 28), r"takes \(batch, 3, H, W\)"),
        ({"blocks": 1}, (2, 784), r"y has shape \(2, 784\)"),
        (
            {"blocks": 3, "padding": "reflect"},
            (2, 8, 8),
            "height is 8: reflect padding needs at least 16",
        ),
        (
            {"blocks": 4, "pooling": "none", "padding": "circular"},
            (2, 28, 12),
            "width is 12: circular padding needs",
        ),
    ],
)
def test_bad_images(options, shape, message):
    with pytest.raises(ValueError, match=message):
        UNet(channels=4, **options)(torch.zeros(shape), 1.0)


# Weights on disk ----------------------------------------------------------------------------------

IMAGES = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(models.MODELS, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"blind": False, "bias": True, "normalisation": "batch"}])
def test_saved_networks_load_again(folder, options):
    net = ready(**options)
    card = models.save("one", net, {"N": 6}, IMAGES)
    models.save("two", UNet(1, channels=4), {}, IMAGES)
    again, y = models.load("one"), noise(2, 16, 16)
    assert set(models.manifest()) == {"one", "two"} and not again.training
    assert card["N"] == 6 and card["bytes"] == (folder / "one.safetensors").stat().st_size
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json",
        "one.safetensors",
        "two.safetensors",
    ]
    torch.testing.assert_close(again(y, 0.5), net(y, 0.5), rtol=0, atol=0.02)  # float16 at most
    assert card["test"]["psnr"] == models.psnr_table(again, IMAGES)["psnr"]


def test_weights_that_float16_cannot_hold_are_kept_in_float32(folder):
    net = ready()
    with torch.no_grad():  # the same function, its numbers outside the range of float16
        net.encoder[0][0].weight.mul_(1e-9)
        net.decoder[0][3].weight.mul_(1e9)
    card = models.save("wide", net, {}, IMAGES)
    assert card["dtype"] == "float32"
    assert torch.equal(models.load("wide")(IMAGES, 0.5), net(IMAGES, 0.5))


def test_damaged_missing_and_foreign_files(folder):
    with pytest.raises(ValueError, match=r"manifest\.json is missing: run from the checkout"):
        models.load("one")
    models.save("one", UNet(1, channels=4), {"recipe": "make it so"}, IMAGES)
    models.save("two", UNet(1, channels=5), {}, IMAGES)
    with pytest.raises(ValueError, match="no model is called 'three': choose one of one, two"):
        models.load("three")
    one, two, listed = (
        folder / name for name in ("one.safetensors", "two.safetensors", "manifest.json")
    )
    whole = one.read_bytes()
    for wrong in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", two.read_bytes()):
        one.write_bytes(wrong)
        with pytest.raises(
            ValueError, match=r"one\.safetensors does not match its checksum .* restore both"
        ):
            models.load("one")
    one.unlink()
    with pytest.raises(ValueError, match=r"one\.safetensors is missing: .* make it so"):
        models.load("one")
    one.write_bytes(whole)
    cards = json.loads(listed.read_text())
    for change in ({"arguments": {"blocks": 1, "channels": 5}}, {"arguments": {"depth": 3}}):
        listed.write_text(json.dumps({"one": {**cards["one"], **change}}))
        with pytest.raises(
            ValueError, match=r"one\.safetensors holds another network than its card says"
        ):
            models.load("one")
    listed.write_text(json.dumps({"one": {**cards["one"], "class": "Other"}}))
    with pytest.raises(
        ValueError,
        match="one is a 'Other', which is not defined here: import or run what defines it",
    ):
        models.load("one")
    for text in ("", "[]", '{"one": 1}', "{"):
        listed.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged: restore it"):
            models.load("one")


def test_bad_names_and_classes(folder):
    with pytest.raises(ValueError, match=r"name is '\.\./x': use lower-case"):
        models.save("../x", UNet(1, channels=4), {}, IMAGES)
    with pytest.raises(ValueError, match="denoiser is a Linear: only .*UNet.* can be saved"):
        models.save("x", torch.nn.Linear(1, 1), {}, IMAGES)
